"""tools/install.py on machines that have a Paddle. pip is played: no network."""
import importlib
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from scripts import load

importlib.import_module("setuptools")            # before Python 3.11 pip is imported, and that has to come later
ROOT = Path(__file__).resolve().parents[1]


def put(site: Path, name: str, version: str) -> None:
    """The record of a package in a folder of packages."""
    record = site / f"{name.replace('-', '_')}-{version}.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def put_module(site: Path, name: str, text: str = "") -> None:
    (site / name).mkdir(parents=True)
    (site / name / "__init__.py").write_text(text)


class Pip:
    """Plays pip: would install `offers`, and then makes a record and a module of each."""

    def __init__(self, site: Path, offers: dict):
        self.site, self.offers, self.calls, self.constraints, self.status = site, offers, [], [], 0
        self.cache, self.meanwhile = site, lambda: None

    def __call__(self, *arguments, quiet=False):
        self.calls.append(list(arguments))
        if arguments[:2] == ("cache", "dir"):
            return SimpleNamespace(returncode=0, stdout=f"{self.cache}\n")
        if "--dry-run" in arguments:
            self.constraints = Path(self.after("--constraint")).read_text().splitlines()
            listed = [{"metadata": {"name": name, "version": version}} for name, version in self.offers.items()]
            Path(self.after("--report")).write_text(json.dumps({"install": listed}))
            return SimpleNamespace(returncode=self.status)
        folder = Path(self.after("--target")) if "--target" in arguments else self.site
        for pin in self.installed:
            put(folder, *pin.split("=="))
            put_module(folder, pin.split("==")[0])
        self.meanwhile()
        return SimpleNamespace(returncode=self.status)

    def after(self, flag: str) -> str:
        return self.calls[-1][self.calls[-1].index(flag) + 1]

    @property
    def asked(self) -> list:
        """The requirements that it was to resolve."""
        call = next(call for call in self.calls if "--dry-run" in call)
        return call[call.index("--constraint") + 2:]

    @property
    def installed(self) -> list:
        return [word for call in self.calls if "--no-deps" in call for word in call if "==" in word]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Make a machine with these packages and return the script for it: machine(paddlepaddle="3.3.1")."""
    def make(offers=None, modules=("paddle",), **installed):
        site = tmp_path / "site"
        for name in modules:
            put_module(site, name, "__version__ = '4.11.0'\n")
        for name, version in {"pip": "23.2.1", **installed}.items():
            put(site, name.replace("_", "-"), version)
        script = load("tools/install.py")
        project = script.pyproject()
        monkeypatch.setattr(script, "pyproject", lambda: project)
        for name in ("paddle", "cv2"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        # The machine's packages alone: only the standard library is also there.
        monkeypatch.setattr(sys, "path", [str(site), *(place for place in sys.path if "-packages" not in place)])
        monkeypatch.setenv("PYTHONPATH", str(site))
        monkeypatch.setattr(script, "PACKAGES", tmp_path / "clone" / ".packages")
        monkeypatch.setattr(script, "STAGE", tmp_path / "clone" / ".packages" / ".new")
        monkeypatch.setattr(script, "system_has_gl", lambda: True)
        monkeypatch.setattr(script, "target", lambda: None)
        monkeypatch.setattr(script, "pip", Pip(site, {"tqdm": "4.66"} if offers is None else offers))
        monkeypatch.chdir(tmp_path)
        return script
    return make


@pytest.mark.parametrize("paddle, version, numpy", [
    ("paddlepaddle_gpu", "2.6.2.post120", "1.26.4"), ("paddlepaddle_gpu", "2.6.2", "1.23.5"),
    ("paddlepaddle", "3.3.1", "2.4.6"), ("paddlepaddle_dcu", "3.0.0", "1.26.4"),
    ("paddlepaddle_xpu", "3.0.0+xpu", "2.1.0")])
def test_paddle_and_numpy_are_pinned_to_what_is_there(machine, capsys, paddle, version, numpy):
    script = machine(**{paddle: version, "numpy": numpy})
    assert script.command([]) == 0
    name = paddle.replace("_", "-")
    assert script.pip.constraints == [f"numpy=={numpy}", f"{name}=={version}"]
    assert not any(asked.startswith("paddlepaddle") for asked in script.pip.asked) and "numpy" in script.pip.asked
    assert script.pip.installed == ["tqdm==4.66"]
    said = capsys.readouterr().out
    assert f"found: numpy {numpy}, {name} {version}, no OpenCV" in said
    assert f"now: numpy {numpy}, {name} {version}" in said and "tqdm 4.66" in said


@pytest.mark.parametrize("opencv", ["opencv_python", "opencv_python_headless", "opencv_contrib_python",
                                    "opencv_contrib_python_headless"])
def test_every_opencv_is_accepted_and_no_second_one_installed(machine, opencv):
    """Also where an extra's own requirements ask for another one."""
    script = machine({"opencv-python": "4.11.0.86", "paddlepaddle": "3.3.1", "tqdm": "4.66"}, ("paddle", "cv2"),
                     paddlepaddle_gpu="2.6.2", numpy="1.26.4", **{opencv: "4.10.0.84"})
    assert script.command([]) == 0
    assert f"{opencv.replace('_', '-')}==4.10.0.84" in script.pip.constraints
    assert not any("opencv" in asked for asked in script.pip.asked)
    assert script.pip.installed == ["tqdm==4.66"]


@pytest.mark.parametrize("has_gl, added", [(True, "opencv-python<4.12"), (False, "opencv-python-headless<4.12")])
def test_no_opencv_gets_the_one_that_can_be_loaded(machine, monkeypatch, has_gl, added):
    script = machine(paddlepaddle="3.3.1", numpy="2.4.6")
    monkeypatch.setattr(script, "system_has_gl", lambda: has_gl)
    assert script.command([]) == 0
    assert [asked for asked in script.pip.asked if "opencv" in asked] == [added]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere OpenCV needs nothing of the system")
@pytest.mark.parametrize("lost", ["libGL.so.1", "libgthread-2.0.so.0", ""])
def test_libraries_of_the_system_are_tried(monkeypatch, lost):
    script = load("tools/install.py")

    def cdll(name):
        if name == lost:
            raise OSError(f"{name}: cannot open shared object file")
    monkeypatch.setattr(script.ctypes, "CDLL", cdll)
    assert script.system_has_gl() is (not lost)


def test_an_opencv_that_cannot_be_loaded_is_told(machine, capsys, tmp_path):
    script = machine(None, ("paddle", "cv2"), paddlepaddle="3.3.1", numpy="2.4.6", opencv_python="4.11.0.86")
    (tmp_path / "site" / "cv2" / "__init__.py").write_text("raise ImportError('libGL.so.1: cannot open')")
    assert script.command([]) == 2
    assert "libGL.so.1" in capsys.readouterr().err and not script.pip.calls


@pytest.mark.parametrize("version, told", [("4.11.0", False), ("4.12.0", True), ("5.0.0", True)])
def test_a_newer_opencv_is_accepted_with_a_note(machine, capsys, tmp_path, version, told):
    script = machine(None, ("paddle", "cv2"), paddlepaddle="3.3.1", numpy="2.4.6")
    (tmp_path / "site" / "cv2" / "__init__.py").write_text(f"__version__ = '{version}'")
    assert script.command([]) == 0 and not any("opencv" in asked for asked in script.pip.asked)
    assert ("note: OpenCV" in capsys.readouterr().out) is told


def test_a_paddle_built_from_source_is_found_by_its_module(machine, capsys, tmp_path):
    script = machine(numpy="1.26.4")
    put_module(tmp_path / "site" / "paddle", "version", "full_version     = '2.6.2'\n")
    assert script.command([]) == 0
    assert "found: paddle 2.6.2, numpy 1.26.4" in capsys.readouterr().out


def test_without_paddle_both_ways_to_one_are_named(machine, capsys, tmp_path):
    script = machine(None, (), numpy="1.26.4")
    (tmp_path / "site" / "paddle").mkdir()       # a folder of that name is none
    assert script.command([]) == 2
    said = capsys.readouterr().err
    assert "pip install -r requirements.txt" in said and "https://www.paddlepaddle.org.cn/install/quick" in said
    assert said.count("\n") == 1 and not script.pip.calls


def test_paddle_2_with_numpy_2_is_refused(machine, capsys):
    script = machine(paddlepaddle_gpu="2.6.2", numpy="2.0.1")
    assert script.command([]) == 2
    assert '`python -m pip install "numpy<2"`' in capsys.readouterr().err and not script.pip.calls


def test_paddle_2_without_numpy_gets_numpy_1(machine):
    script = machine({"numpy": "1.26.4"}, paddlepaddle_gpu="2.6.2")
    assert script.command([]) == 0
    assert script.pip.constraints == ["paddlepaddle-gpu==2.6.2", "numpy<2"]
    assert script.pip.installed == ["numpy==1.26.4"]


def test_a_plan_that_replaces_numpy_is_refused(machine, capsys):
    script = machine({"numpy": "2.0.1", "tqdm": "4.66"}, paddlepaddle_gpu="2.6.2", numpy="1.26.4")
    assert script.command([]) == 2 and not script.pip.installed
    assert "numpy 1.26.4 with 2.0.1" in capsys.readouterr().err


def test_a_paddle_or_numpy_that_changed_all_the_same_is_told(machine, capsys, tmp_path):
    script = machine(paddlepaddle_gpu="2.6.2", numpy="1.26.4")

    def replace():
        shutil.rmtree(tmp_path / "site" / "numpy-1.26.4.dist-info")
        put(tmp_path / "site", "numpy", "1.26.5")
    script.pip.meanwhile = replace
    assert script.command([]) == 2
    assert "numpy changed" in capsys.readouterr().err


def test_dry_run_installs_nothing(machine, capsys):
    script = machine(paddlepaddle="3.3.1", numpy="2.4.6")
    assert script.command(["--dry-run"]) == 0 and not script.pip.installed
    assert "tqdm 4.66" in capsys.readouterr().out


def test_what_is_complete_is_left_alone(machine, capsys):
    script = machine({}, paddlepaddle="3.3.1", numpy="2.4.6")
    assert script.command([]) == 0 and not any("--no-deps" in call for call in script.pip.calls)
    assert "Nothing to do" in capsys.readouterr().out


def test_pip_s_failure_is_told(machine, capsys):
    script = machine(paddlepaddle="3.3.1", numpy="2.4.6")
    script.pip.status = 1
    assert script.command([]) == 2 and not script.pip.installed
    assert "package index" in capsys.readouterr().err


@pytest.mark.parametrize("version, status", [("22.1.2", 2), ("22.2", 0), ("23.0.1", 0)])
def test_a_pip_that_cannot_say_what_it_would_do_is_told(machine, capsys, version, status):
    script = machine(paddlepaddle="3.3.1", numpy="2.4.6", pip=version)
    assert script.command([]) == status
    assert ("pip install --upgrade pip" in capsys.readouterr().err) is bool(status)


def test_an_old_python_is_told():
    script = load("tools/install.py")
    with pytest.raises(script.Refused, match="Python 3.8 is too old"):
        script.check_versions((3, 8, 18))


def test_extras_that_are_made_of_others(machine):
    script = machine(paddlepaddle="3.3.1", numpy="2.4.6")
    assert script.command(["--extra", "test", "--extra", "visualdl"]) == 0
    assert {"pytest", "visualdl", "streamlit>=1.67; python_version >= '3.10'",
            "pydicom>=3.0; python_version >= '3.10'"} <= set(script.pip.asked)


@pytest.mark.parametrize("extra", ["gpu", "cpu", "headless", "nothing"])
def test_no_extra_may_choose_another_paddle_or_opencv(machine, capsys, extra):
    script = machine(paddlepaddle="3.3.1", numpy="2.4.6")
    with pytest.raises(SystemExit) as ended:
        script.command(["--extra", extra])
    assert ended.value.code == 2 and "app" in capsys.readouterr().err and not script.pip.calls


def test_a_cache_that_cannot_be_written_is_not_used(machine, monkeypatch, tmp_path):
    for writable in (True, False):
        script = machine(paddlepaddle="3.3.1", numpy="2.4.6")
        script.pip.cache = Path(os.sep, "nowhere", "pip")
        monkeypatch.setattr(script, "can_write", lambda folder, told=writable: told)
        assert script.command(["--dry-run"]) == 0
        assert ("--no-cache-dir" in script.pip.calls[-1]) is not writable
        shutil.rmtree(tmp_path / "site")


def read_only(script, monkeypatch) -> None:
    """Python's own packages cannot be written to, the clone can."""
    monkeypatch.setattr(script, "target", lambda: script.PACKAGES)


def test_packages_of_the_clone_are_found_by_import_cxr(machine, monkeypatch, tmp_path, capsys):
    """Site packages that cannot be written: into .packages/, where `import cxr` looks, after what the machine has."""
    script = machine({"onlythere": "1.0", "both": "2.0"}, ("paddle", "both"), paddlepaddle="3.3.1", numpy="2.4.6")
    read_only(script, monkeypatch)
    assert script.command(["--extra", "serve"]) == 0
    assert "PYTHONPATH=" in capsys.readouterr().out
    assert script.PACKAGES.is_dir() and not script.STAGE.exists()
    assert not (tmp_path / "site" / "onlythere").exists()
    shutil.copytree(ROOT / "cxr", tmp_path / "clone" / "cxr", ignore=shutil.ignore_patterns("__pycache__"))
    code = "import cxr, onlythere, both, sys; print(onlythere.__file__, both.__file__, sys.path[-1], sep='\\n')"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "clone", capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    onlythere, both, last = map(Path, found.stdout.splitlines())
    assert onlythere.parent.parent == last == script.PACKAGES and both.parent.parent == tmp_path / "site"


def test_packages_that_come_after_import_cxr_are_found(tmp_path):
    """As in a notebook, whose first cell makes the folder."""
    shutil.copytree(ROOT / "cxr", tmp_path / "cxr", ignore=shutil.ignore_patterns("__pycache__"))
    code = """\
import cxr, importlib.util, pathlib
assert not importlib.util.find_spec("onlythere")
folder = pathlib.Path(".packages", "onlythere")
folder.mkdir(parents=True)
(folder / "__init__.py").touch()
importlib.invalidate_caches()
import onlythere"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_newer_version_in_the_clone_leaves_no_record_of_the_older(machine, monkeypatch):
    script = machine(paddlepaddle="3.3.1", numpy="2.4.6")
    read_only(script, monkeypatch)
    put(script.PACKAGES, "tqdm", "4.1")
    put(script.PACKAGES, "other", "1.0")
    assert script.command([]) == 0
    assert sorted(path.name for path in script.PACKAGES.glob("*.dist-info")) == [
        "other-1.0.dist-info", "tqdm-4.66.dist-info"]


def test_what_would_be_hidden_by_an_older_version_is_refused(machine, monkeypatch, capsys):
    script = machine(paddlepaddle="3.3.1", numpy="2.4.6", tqdm="4.1")
    read_only(script, monkeypatch)
    assert script.command([]) == 2 and not script.pip.installed
    assert "--system-site-packages" in capsys.readouterr().err


@pytest.mark.parametrize("site, clone, marked, expected", [
    (True, True, False, "site"), (False, True, False, "clone"), (True, True, True, "clone"), (False, False, False, "")])
def test_where_packages_go(monkeypatch, tmp_path, site, clone, marked, expected):
    """Python's own place; the clone where that is read-only or the system's (PEP 668); nowhere else."""
    script = load("tools/install.py")
    own, packages, stdlib = tmp_path / "site", tmp_path / "clone", tmp_path / "lib"
    stdlib.mkdir()
    if marked:
        (stdlib / "EXTERNALLY-MANAGED").touch()
    monkeypatch.setattr(script, "PACKAGES", packages)
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)
    monkeypatch.setattr(script.sysconfig, "get_path", lambda name: str(stdlib if name == "stdlib" else own))
    monkeypatch.setattr(script, "can_write", lambda folder: site if folder == own else clone)
    if expected:
        assert script.target() == (packages if expected == "clone" else None)
    else:
        with pytest.raises(script.Refused, match="clone this project into a folder of yours"):
            script.target()


def test_with_the_real_pip_and_no_network_there_is_nothing_to_do():
    """Everything is installed where the tests run, so that pip need not ask anybody."""
    pytest.importorskip("paddle")
    if load("tools/install.py").numbers(version := metadata.version("pip")) < (22, 2):
        pytest.skip(f"pip {version} cannot say what it would do")
    environ = {**os.environ, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    done = subprocess.run([sys.executable, ROOT / "tools" / "install.py"], capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    assert "Nothing to do" in done.stdout and "paddlepaddle" in done.stdout
