"""Files and folders in, a list of images and their names out."""
from pathlib import Path

import pytest

from cxr.data.images import find_images
from cxr.errors import InputError


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(*inputs):
    return [(str(path), name.as_posix()) for path, name in find_images(inputs)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_gives_its_images_in_order(here):
    touch(here, "a/b2.png", "a/b10.PNG", "a/sub/deep/x.JpEg", "a/notes.txt", "a/scores.csv", "a/c.tiff", "a/sub/a.bmp",
          "a/sub/.b.png.0.tmp", "a/folder.png/inner.jpg", "a/d.dcm", "a/nothing")
    names = ["b10.PNG", "b2.png", "c.tiff", "d.dcm", "folder.png/inner.jpg", "sub/a.bmp", "sub/deep/x.JpEg"]
    assert found("a") == [(f"a/{name}", name) for name in names]
    assert [name for _, name in found(here / "a")] == names


def test_files_stand_for_themselves(here):
    touch(here, "z.png", "a/y", "b.txt")
    assert found("z.png", "a/y", Path("b.txt")) == [("z.png", "z.png"), ("a/y", "y"), ("b.txt", "b.txt")]


def test_equal_names_get_their_folders(here):
    touch(here, "top/p1/day/x.png", "top/p2/day/x.png", "top/p2/day/y.png")
    assert found("top/p1/day", "top/p2/day") == [
        ("top/p1/day/x.png", "p1/day/x.png"), ("top/p2/day/x.png", "p2/day/x.png"), ("top/p2/day/y.png", "y.png")]


@pytest.mark.parametrize("inputs", [("x.png", "../e/x.png"), (".", "../e"), ("../d/x.png", "../e/../e/x.png"),
                                    ("sub/../x.png", "../e")])
def test_names_stay_below_the_folder_of_results(here, monkeypatch, inputs):
    """A name with `..` in it would write the picture outside --save_dir."""
    touch(here, "d/x.png", "d/sub/z.txt", "e/x.png")
    monkeypatch.chdir(here / "d")
    assert [name for _, name in found(*inputs)] == ["d/x.png", "e/x.png"]


def test_the_same_file_is_found_once(here):
    touch(here, "a/x.png", "a/y.png")
    assert found("a/x.png", "a", here / "a" / "y.png", "./a/../a/x.png") == [("a/x.png", "x.png"), ("a/y.png", "y.png")]


def test_nothing_to_find(here):
    touch(here, "empty/notes.txt")
    with pytest.raises(InputError, match="empty holds no images"):
        find_images(["empty"])
    with pytest.raises(InputError, match="missing does not exist"):
        find_images(["empty/notes.txt", "missing"])
    assert find_images([]) == []
