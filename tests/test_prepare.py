"""What the notebooks begin with. No command is run."""
import sys

import pytest
from scripts import load


@pytest.fixture
def prepare(monkeypatch):
    """notebooks/prepare.py, the commands that it ran, and what it still misses after each."""
    module = load("notebooks/prepare.py")
    module.ran, module.lacks = [], []
    monkeypatch.setattr(module, "run", lambda *command: module.ran.append(command))
    monkeypatch.setattr(module, "missing", lambda: module.lacks.pop(0) if module.lacks else "")
    return module


def test_a_notebook_installs_nothing_where_nothing_is_missing(prepare):
    pytest.importorskip("paddle")
    prepare.prepare()
    assert prepare.ran == []
    prepare.prepare(fetch="model_paddle.pdparams")
    assert prepare.ran == [("fetch_weights.py", "model_paddle.pdparams")]


def test_a_notebook_installs_what_is_missing(prepare):
    pytest.importorskip("paddle")
    prepare.lacks = ["No module named 'tqdm'"]
    prepare.prepare()
    assert prepare.ran == [("install.py",)]


def test_a_notebook_says_what_is_missing_still(prepare):
    prepare.lacks = ["No module named 'tqdm'"] * 2
    with pytest.raises(RuntimeError, match="No module named 'tqdm'.* Restart"):
        prepare.prepare()


def test_a_notebook_shows_what_a_command_says_and_stops_where_it_fails(monkeypatch, tmp_path, capsys):
    module = load("notebooks/prepare.py")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "install.py").write_text("import sys\nprint('found: nothing')\nsys.exit('no Paddle')\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    with pytest.raises(RuntimeError, match="tools/install.py ended with status 1"):
        module.run("install.py")
    assert "found: nothing" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["paddle", "prettytable", "cv2", "cxr"])
def test_a_package_that_a_notebook_needs_is_missed(monkeypatch, name):
    module = load("notebooks/prepare.py")
    assert module.missing() == ""
    if name == "paddle":
        monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    else:
        monkeypatch.setitem(sys.modules, name, None)
    assert name in module.missing()


def test_every_requirement_is_looked_for_by_the_notebooks():
    """What pyproject.toml asks for, but for what Paddle itself needs."""
    names = {"opencv-python": "cv2", "scikit-learn": "sklearn", "pillow": "PIL"}
    script = load("tools/install.py")
    asked = {script.requirement_name(one) for one in script.pyproject()["dependencies"]} - {"numpy", "setuptools"}
    assert {names.get(one, one) for one in asked} | {"cv2", "cxr"} == set(load("notebooks/prepare.py").NEEDED)
