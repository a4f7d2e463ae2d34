"""Settings that must be in place before Paddle is imported: told apart by fresh processes."""
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from cxr.runtime import _one_thread_by_paddle, by_amd, configure, settings, usable_cores

ROOT = Path(__file__).resolve().parents[1]
SET = ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE")


def run(code, status=0, **variables):
    """The output of `code` in a new process in which nothing is set or imported yet."""
    environ = {name: value for name, value in os.environ.items() if name not in SET}
    environ.update(variables, PYTHONPATH=str(ROOT), PYTHONWARNINGS="default::RuntimeWarning")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, timeout=120)
    assert done.returncode == status, done.stderr
    return done


@pytest.fixture
def without_paddle(monkeypatch):
    monkeypatch.delitem(sys.modules, "paddle", raising=False)


def test_unset_variables_are_set(without_paddle, recwarn):
    environ = {"PATH": "x"}
    configure(environ)
    assert environ == {"PATH": "x", **settings(usable_cores(), by_amd())}
    assert not recwarn


@pytest.mark.parametrize("given", [{"OMP_NUM_THREADS": "7"}, {"MKL_DEBUG_CPU_TYPE": ""},
                                   {"OMP_NUM_THREADS": "1", "MKL_DEBUG_CPU_TYPE": "4"}])
def test_what_the_user_has_set_stays(without_paddle, given):
    environ = dict(given)
    configure(environ)
    assert environ == {**settings(usable_cores(), by_amd()), **given}


def test_warns_where_paddle_came_first(monkeypatch):
    pytest.importorskip("paddle")
    monkeypatch.setattr("cxr.runtime.by_amd", lambda: True)
    with pytest.warns(RuntimeWarning, match="MKL_DEBUG_CPU_TYPE came too late"):
        configure({"OMP_NUM_THREADS": "2"})


@pytest.mark.parametrize("environ, begun, threads", [
    ({}, b"PATH=x", True), ({"OMP_NUM_THREADS": "1"}, b"PATH=x", True), ({"OMP_NUM_THREADS": "2"}, b"PATH=x", False),
    ({"OMP_NUM_THREADS": "1"}, b"PATH=x\0OMP_NUM_THREADS=1", False), ({"OMP_NUM_THREADS": "1"}, None, False)])
def test_threads_are_mended_where_paddle_came_first_and_chose_one(tmp_path, monkeypatch, environ, begun, threads):
    paddle = pytest.importorskip("paddle")
    monkeypatch.setattr("cxr.runtime.by_amd", lambda: False)
    if begun is not None:
        (tmp_path / "environ").write_bytes(begun)
    monkeypatch.setattr(_one_thread_by_paddle, "__defaults__", (tmp_path / "environ",))
    set_to = []
    monkeypatch.setattr(paddle.base.core, "set_num_threads", set_to.append)
    before = dict(environ)
    configure(environ)
    assert set_to == ([usable_cores()] if threads else [])
    assert environ == ({"OMP_NUM_THREADS": str(usable_cores())} if threads else before)


def test_no_warning_where_the_user_had_set_all(recwarn):
    pytest.importorskip("paddle")
    configure(settings(3, amd=True))
    assert not [warning for warning in recwarn if "too late" in str(warning.message)]


def test_cores():
    assert 1 <= usable_cores() <= os.cpu_count()
    assert settings(3, amd=False) == {"OMP_NUM_THREADS": "3"}            # Intel's AVX-512 stays
    assert settings(3, amd=True) == {"OMP_NUM_THREADS": "3", "MKL_DEBUG_CPU_TYPE": "5"}


@pytest.mark.parametrize("text, amd", [("vendor_id : AuthenticAMD", True), ("vendor_id : HygonGenuine", True),
                                       ("vendor_id : GenuineIntel", False), ("CPU implementer : 0x41", False)])
def test_vendor(tmp_path, text, amd):
    (tmp_path / "cpuinfo").write_text(text)
    assert by_amd(tmp_path / "cpuinfo", {}) == amd
    assert by_amd(tmp_path / "absent", {"PROCESSOR_IDENTIFIER": text}) == amd


def test_cxr_first():
    """Quiet, light, and Pillow and Matplotlib can still write PNG files once Paddle is there."""
    done = run("""
import sys, cxr
assert "PIL._imaging" in sys.modules
assert not {"paddle", "cv2", "numpy", "matplotlib"} & set(sys.modules), "cxr imports something heavy"
from cxr.runtime import load_paddle
import logging
paddle = load_paddle()
assert logging.root.handlers == [] and logging.root.level == logging.WARNING, "Paddle set up the log"
import io, os
import numpy as np
from PIL import Image
file = io.BytesIO()
Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(file, "PNG")
assert np.asarray(Image.open(io.BytesIO(file.getvalue()))).ravel().tolist() == list(range(64))
print(os.environ["OMP_NUM_THREADS"], os.environ.get("MKL_DEBUG_CPU_TYPE"), paddle.to_tensor([1.5]).numpy()[0])
""")
    assert done.stdout.split() == [str(usable_cores()), str(settings(1, by_amd()).get("MKL_DEBUG_CPU_TYPE")), "1.5"]
    assert "RuntimeWarning" not in done.stderr and "OMP_NUM_THREADS" not in done.stderr


def test_a_paddle_that_breaks_png_files_is_refused_when_cxr_is_imported():
    """Paddle 2 imported before everything else, as the published scripts do: going on would crash the process."""
    if not metadata.version(paddle_package()).startswith("2."):
        pytest.skip("Paddle 3 brings no zlib of its own")
    for package in ("cxr", "chexnet", "covid_resnet"):
        done = run(f"import paddle\nimport {package}", status=1)
        assert done.stderr.splitlines()[-1].startswith("ImportError: Paddle was imported before any library that reads")
        assert "Start again, and import chexnet, covid_resnet or cxr first." in done.stderr


def paddle_package():
    names = ("paddlepaddle-gpu", "paddlepaddle")
    return next(name for name in names if any(found.metadata["Name"] == name for found in metadata.distributions()))


@pytest.mark.parametrize("before", ["import numpy", "import zlib"])
def test_paddle_first(before):
    """All cores are used and PNG files read all the same. On AMD it is slow, and the user is told."""
    done = run(f"""
import warnings; {before}
import paddle
import cxr
import io, cv2
import numpy as np
from PIL import Image
picture = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
assert (cv2.imdecode(cv2.imencode(".png", picture)[1], 1) == picture).all()
file = io.BytesIO()
Image.fromarray(picture).save(file, "PNG")
assert (np.asarray(Image.open(file)) == picture).all()
print(cxr.runtime.threads())
""")
    assert int(done.stdout) == usable_cores()
    assert done.stderr.count("came too late") == by_amd()
    # A warning points at the line `import cxr`.
    assert ("<string>:4: RuntimeWarning" in done.stderr) == by_amd()


def test_the_users_variables_reach_paddle():
    done = run("import cxr, os; print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_DEBUG_CPU_TYPE'])",
               OMP_NUM_THREADS="1", MKL_DEBUG_CPU_TYPE="3")
    assert done.stdout.split() == ["1", "3"]


def test_a_cam_needs_neither_scikit_learn_nor_matplotlib():
    """They take longer to import than Paddle, and a CAM of one image is little else."""
    run("""
import sys, cxr.explain.pipeline, cxr.inference.predictor, cxr.cam
assert not {"sklearn", "scipy.stats", "matplotlib.pyplot", "pandas"} & set(sys.modules)
""")
