"""The cache only saves time: where it cannot be, work goes on without it."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cxr.utils import folders

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A cache folder that nobody can make, root neither: a file stands in its way."""
    monkeypatch.delenv("CXR_CACHE", raising=False)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folders._temporary.cache_clear()
    folders._warn_once.cache_clear()
    yield tmp_path / "file" / "paddle-cxr"
    folders._temporary.cache_clear()


def test_wanted(monkeypatch, tmp_path):
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "own"))
    assert folders.wanted_cache() == tmp_path / "own"
    monkeypatch.delenv("CXR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folders.wanted_cache() == tmp_path / "paddle-cxr" == folders.writable_cache()
    assert (tmp_path / "paddle-cxr").is_dir() and not list((tmp_path / "paddle-cxr").iterdir())
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folders.wanted_cache() == tmp_path / ".cache" / "paddle-cxr"


def test_a_temporary_one_is_used_silently(nowhere, recwarn):
    used = folders.writable_cache()
    assert used.is_dir() and used != nowhere and used == folders.writable_cache()
    assert not recwarn


def test_a_folder_that_was_named_and_cannot_be_is_told(nowhere, monkeypatch):
    monkeypatch.setenv("CXR_CACHE", str(nowhere))
    with pytest.warns(UserWarning, match="the cache .*cannot be written to.*anew in every run"):
        used = folders.writable_cache()
    assert used.is_dir() and used != nowhere


def test_a_user_without_a_home(nowhere, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)        # what Python does where it knows no home
    assert folders.wanted_cache() == folders.writable_cache() and folders.wanted_cache().is_absolute()


def test_the_temporary_one_is_removed_at_the_end(nowhere, tmp_path):
    code = ("from cxr.utils.folders import writable_cache; folder = writable_cache(); "
            "(folder / 'x').write_text('y'); print(folder)")
    environ = {name: value for name, value in os.environ.items() if name != "CXR_CACHE"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT,
                          env={**environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == 0 and done.stdout.startswith(str(tmp_path)) and not done.stderr
    assert not Path(done.stdout.strip()).exists()


def test_paddle_has_a_home_while_it_needs_one(nowhere, monkeypatch):
    before = os.environ["HOME"]
    with folders.home_for_paddle():
        assert os.environ["HOME"] == before
    monkeypatch.setenv("HOME", str(nowhere.parent))          # a file
    with folders.home_for_paddle():
        assert Path(os.environ["HOME"]).is_dir()
    assert os.environ["HOME"] == str(nowhere.parent)


@pytest.mark.parametrize("home", [True, False])
def test_scores_come_without_a_cache(nowhere, monkeypatch, home):
    """The engine itself: exported to the temporary folder, and once more found there."""
    pytest.importorskip("paddle")
    if not home:
        monkeypatch.setenv("HOME", str(nowhere.parent))      # Paddle itself writes there as well
    import numpy as np

    from covid_resnet import ResNet
    from cxr.inference import engines
    from cxr.inference.predictor import Predictor

    model = ResNet(18, 2)
    x = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype("float32")
    expected = Predictor(model, "dygraph")(x)[0]
    assert np.abs(Predictor(model, "onednn")(x)[0] - expected).max() < 1e-5
    monkeypatch.setattr(engines, "export", lambda *_: pytest.fail("exported a second time"))
    assert np.abs(Predictor(model, "onednn")(x)[0] - expected).max() < 1e-5
