"""Fixtures of all tests: the real X-rays and the reference numbers, which lie outside the project."""
import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# `pytest -n 2`: the workers share the cores.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // int(workers))))

import cxr  # noqa: E402, F401  before any test imports Paddle: it prepares the process


def _data_folder() -> Path:
    return Path(os.environ.get("CXR_DATA") or ROOT.parent / "shared" / "data").resolve()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Exported networks of the tests, and of the commands that they call, do not go into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real X-rays (`CXR_DATA`, or `../shared/data` beside the repository)."""
    folder = _data_folder()
    if not folder.is_dir():
        pytest.skip(f"needs the real X-rays: {folder} does not exist (set CXR_DATA)")
    return folder


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Folder of the reference numbers, `reference` beside the X-rays."""
    folder = _data_folder().parent / "reference"
    if not folder.is_dir():
        pytest.skip(f"needs the reference numbers: {folder} does not exist (it lies beside CXR_DATA)")
    return folder


@pytest.fixture(scope="session")
def seeded_checkpoint(reference_dir, tmp_path_factory) -> Path:
    """A bare CheXNet checkpoint with the weights that the reference numbers were computed with."""
    from cxr.weights import save_weights

    spec = importlib.util.spec_from_file_location("seeded_weights", reference_dir / "seeded_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shapes = json.loads((reference_dir / "chexnet_keys.json").read_text())
    path = tmp_path_factory.mktemp("weights") / "seeded.pdparams"
    save_weights(module.seeded_state(shapes, seed=1), path)
    return path


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> Path:
    """Folder of small checkpoints for the page."""
    import paddle
    from page_checkpoints import write_checkpoints

    paddle.disable_static()                      # a page that ran before in another thread leaves it on
    folder = tmp_path_factory.mktemp("checkpoints")
    write_checkpoints(folder)
    return folder
