"""Files that are whole or not there at all."""
import csv
import json
import os
import threading

import numpy as np
import pytest

from cxr.utils.files import replacing, write_csv, write_json, write_text


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["new", "a/b/c.bin", "ä ö/胸 x.pdparams", "x" * 255])
def test_replacing_writes(tmp_path, name):
    for data in (b"first", b"second, longer", b""):
        with replacing(tmp_path / name) as file:
            file.write(data)
        assert contents(tmp_path) == {name: data}
    with replacing(str(tmp_path / name)) as file:
        file.write(b"text path")
    assert contents(tmp_path) == {name: b"text path"}


def test_the_name_appears_at_the_end_only(tmp_path):
    with replacing(tmp_path / "x.png") as file:
        file.write(b"half")
        file.flush()
        assert not (tmp_path / "x.png").exists()
        beside, = os.listdir(tmp_path)
        assert beside.startswith(".") and beside.endswith(".tmp")           # no picture to a listing
    assert os.listdir(tmp_path) == ["x.png"]


@pytest.mark.parametrize("error", [ValueError("x"), OSError(28, "No space left"), KeyboardInterrupt()])
def test_an_exception_leaves_the_old_file(tmp_path, error):
    (tmp_path / "x").write_bytes(b"old")
    with pytest.raises(type(error)), replacing(tmp_path / "x") as file:
        file.write(b"half")
        raise error
    assert contents(tmp_path) == {"x": b"old"}


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, call):
    (tmp_path / "x").write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "x", "new")
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "y", "new")
    monkeypatch.undo()
    assert contents(tmp_path) == {"x": b"old"}


def test_data_are_on_disk_before_the_name(tmp_path, monkeypatch):
    steps, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (steps.append(os.fstat(number).st_size), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda *paths: (steps.append("renamed"), replace(*paths)))
    write_text(tmp_path / "x", "12345")
    assert steps == [5, "renamed"]


def test_a_folder_of_that_name(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError):
        write_text(tmp_path / "x", "new")
    assert os.listdir(tmp_path) == ["x"]


def test_several_writers(tmp_path):
    """The last one wins; what lies there is always one writer's whole text."""
    texts, seen, path = [str(number) * 50000 for number in range(6)], set(), tmp_path / "x"
    threads = [threading.Thread(target=lambda text=text: [write_text(path, text) for _ in range(10)]) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            seen.add(path.read_text())
    assert seen and seen <= set(texts) and os.listdir(tmp_path) == ["x"]


def test_write_text_is_utf8(tmp_path):
    write_text(tmp_path / "x", "Röntgen 胸\n")
    assert (tmp_path / "x").read_bytes() == "Röntgen 胸\n".encode()


def test_write_json(tmp_path):
    nan = float("nan")
    value = {"a": nan, "b": [1, nan, {"c": (nan, "ä", None, True)}], "d": np.float64("nan"), "e": 0.5}
    write_json(tmp_path / "x", value)
    text = (tmp_path / "x").read_text(encoding="utf-8")
    assert "NaN" not in text and "ä" in text and text.endswith("}\n")
    assert json.loads(text) == {"a": None, "b": [1, None, {"c": [None, "ä", None, True]}], "d": None, "e": 0.5}
    with pytest.raises(TypeError):
        write_json(tmp_path / "x", {"a": object()})
    assert (tmp_path / "x").read_text(encoding="utf-8") == text


def test_write_csv(tmp_path):
    write_csv(tmp_path / "x.csv", ["image", "a"], ([name, 1.5] for name in ('c, "d".png', "ä\nb.png")))
    assert (tmp_path / "x.csv").read_bytes().startswith(b'image,a\n"c, ""d"".png",1.5\n')
    with open(tmp_path / "x.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["image", "a"], ['c, "d".png', "1.5"], ["ä\nb.png", "1.5"]]


def test_a_row_that_fails_leaves_the_old_table(tmp_path):
    write_csv(tmp_path / "x.csv", ["a"], [[1]])
    with pytest.raises(ZeroDivisionError):
        write_csv(tmp_path / "x.csv", ["a"], ([1 / (1 - number)] for number in range(3)))
    assert contents(tmp_path) == {"x.csv": b"a\n1\n"}
