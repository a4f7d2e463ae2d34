"""What `tools/doctor.py` tells, and what every command says where a package is missing."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cxr.device import diagnosis
from cxr.device.hardware import Gpu, Hardware
from cxr.device.sentences import Build
from cxr.device.trial import Outcome
from cxr.device.verdicts import Verdict

ROOT = Path(__file__).resolve().parents[1]


def call(command, *arguments, status, stub=None, **variables):
    environ = {**os.environ, **variables, **({"PYTHONPATH": str(stub)} if stub else {})}
    done = subprocess.run([sys.executable, str(ROOT / "tools" / command), *arguments], capture_output=True, text=True,
                          env=environ, timeout=200)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def test_this_machine_is_well_and_its_home_not_named(tmp_path):
    home = tmp_path / "jane_doe"
    home.mkdir()
    out, _ = call("doctor.py", status=0, HOME=str(home), CXR_CACHE=str(home / "cache"), CXR_DEVICE="auto")
    for title in ("this project", "packages", "machine", "devices", "engines", "cache"):
        assert f"== {title}\n" in out
    assert "all 12 known answers right" in out and "onednn" in out and out.endswith("== problems\nnone found\n")
    assert "jane_doe" not in out and "~/cache" in out


def test_a_request_that_cannot_be_met_is_a_problem():
    out, _ = call("doctor.py", status=2, CXR_DEVICE="gpu:9")
    assert "- the device gpu:9 cannot be had" in out or "- gpu:9 does not exist here" in out


@pytest.fixture
def without_paddle(tmp_path):
    (tmp_path / "paddle.py").write_text("raise ModuleNotFoundError(\"No module named 'paddle'\", name='paddle')")
    return tmp_path


@pytest.fixture
def without_libgl(tmp_path):
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file: No such file')")
    return tmp_path


def test_without_paddle_the_doctor_tells_the_rest(without_paddle):
    out, _ = call("doctor.py", status=2, stub=without_paddle)
    assert "numpy" in out and "cores" in out and "- Paddle is not installed: run `pip install -r" in out


@pytest.mark.parametrize("command", [("cam.py", "chexnet", "x.png"), ("demo.py",), ("serve.py",),
                                     ("train.py", "covid_resnet", "--data_dir", "x"), ("audit.py", "covid_resnet",
                                                                                       "--data_dir", "x")])
def test_without_paddle_there_is_one_sentence_with_the_line_to_type(without_paddle, command):
    _, error = call(*command, status=2, stub=without_paddle)
    assert error.count("\n") == 1 and "Paddle is not installed for" in error
    assert "pip install -r requirements.txt" in error


@pytest.mark.parametrize("command", [("cam.py", "chexnet", "x.png"), ("demo.py",),
                                     ("eval.py", "chexnet", "--boxes", "x.csv")])
def test_without_libgl_there_is_one_sentence_with_both_ways(without_libgl, command):
    _, error = call(*command, status=2, stub=without_libgl)
    assert error.count("\n") == 1 and "OpenCV lacks a library of the system (libGL.so.1" in error
    assert "apt-get install libgl1" in error and "opencv-python-headless" in error


def rows(monkeypatch, gpu, verdict, build):
    """What is told of a machine with that GPU, and its problems."""
    monkeypatch.setattr(diagnosis, "load_paddle", lambda: None)
    monkeypatch.setattr(diagnosis, "installed_build", lambda: build)
    monkeypatch.setattr(diagnosis.hardware, "look", lambda: Hardware((gpu,), "580.1 for CUDA 13.0"))
    monkeypatch.setattr(diagnosis.trial, "ask", lambda device: Outcome("right"))
    monkeypatch.setattr(diagnosis.verdicts, "verdict_of", lambda *_, again: Verdict(verdict))
    monkeypatch.setattr(diagnosis, "_choice", lambda problems: [])
    problems = []
    return dict(diagnosis._devices(problems)), problems


def test_gpus_and_their_answers_are_told(monkeypatch):
    gpu, build = Gpu(0, "NVIDIA H200", (9, 0), 140 << 30, "aa"), Build("2.6.2", "8ce0de", "11.8", ("61", "86"))
    told, problems = rows(monkeypatch, gpu, Outcome("wrong", "fill", no_code=True, cudnn="9.14"), build)
    assert told["gpu:0"].startswith("NVIDIA H200, capability 9.0, 140 GiB: wrong at fill, cuDNN 9.14")
    assert told["NVIDIA driver"] == "580.1 for CUDA 13.0" and len(problems) == 1 and "CUDA 12.6" in problems[0]
    told, problems = rows(monkeypatch, gpu, Outcome("right", cudnn="9.5"), Build("3.3.1", "7688", "12.6"))
    assert "all 12 known answers right, cuDNN 9.5" in told["gpu:0"] and not problems


def test_two_of_a_kind_and_a_numpy_that_does_not_fit_are_problems(monkeypatch):
    there = {"paddlepaddle": "3.3.1", "paddlepaddle-gpu": "2.6.2", "numpy": "2.1.0", "opencv-python": "4.11",
             "opencv-python-headless": "4.11"}

    def version(name):
        if name not in there:
            raise diagnosis.metadata.PackageNotFoundError(name)
        return there[name]
    monkeypatch.setattr(diagnosis.metadata, "version", version)
    monkeypatch.setattr(diagnosis.importlib, "import_module", lambda name: None)
    problems = []
    assert dict(diagnosis._packages(problems)) == there
    told = [sentence.split(":")[0] for sentence in problems]
    assert told == ["paddlepaddle and paddlepaddle-gpu overwrite each other's files",
                    "opencv-python and opencv-python-headless overwrite each other's files",
                    "Paddle 2.6.2 was built against NumPy 1"]


def test_one_part_that_breaks_hides_no_other(monkeypatch):
    def broken(*_):
        raise OSError("no such thing")
    for part in ("_project", "_packages", "_devices", "_engines"):
        monkeypatch.setattr(diagnosis, part, broken)
    found = diagnosis.diagnose(tuple)
    assert "OSError: no such thing" in found.text() and "cores" in found.text() and len(found.problems) == 4
