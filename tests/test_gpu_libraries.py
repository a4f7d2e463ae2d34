"""NVIDIA's libraries are handed to Paddle 2.6: with made-up packages, in processes that have loaded nothing yet."""
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from cxr import gpu_libraries
from cxr.gpu_libraries import found, prepare, second_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGED = {"libcublasLt.so": "cublas/lib/libcublasLt.so.11", "libcublas.so": "cublas/lib/libcublas.so.11",
            "libnvrtc.so": "cuda_nvrtc/lib/libnvrtc.so.11.2", "libcudnn.so": "cudnn/lib/libcudnn.so.8",
            "libnccl.so": "nccl/lib/libnccl.so.2"}
DRIVER = [__file__]                              # stands for the driver's device: it is there

pytestmark = pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64",
                                reason="NVIDIA's packages are handed over on Linux on x86-64 alone")


def install_paddle(site: Path, version: str, cuda: str) -> None:
    folder = site / "paddle" / "version"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").write_text(f"# generated\nfull_version    = '{version}'\ncuda_version     = '{cuda}'\n")


def install(site: Path, *names: str) -> None:
    """Libraries that the system can load: they hold nothing and need the C library."""
    for name in names:
        path = site / "nvidia" / PACKAGED[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(second_name(path.name, "libc.so.6"))


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder that Python imports from, with Paddle 2.6.2 for CUDA 11.8 and all of NVIDIA's packages."""
    folder = tmp_path / "site"
    install_paddle(folder, "2.6.2", "11.8")
    install(folder, *PACKAGED)
    monkeypatch.setattr(sys, "path", ["", str(folder)])
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    return folder


@pytest.fixture
def loads(monkeypatch):
    """What `prepare` would load, and nothing is."""
    loaded = []
    monkeypatch.setattr(gpu_libraries, "_load", lambda wanted, path, folder: loaded.append(str(path)))
    monkeypatch.setattr(gpu_libraries, "_is_loaded", lambda name: False)
    return loaded


def run(site: Path, code: str, **variables) -> list[str]:
    """The lines that `code` prints in a new process that imports from `site`."""
    environ = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    environ.update(variables, PYTHONPATH=os.pathsep.join(map(str, (site, ROOT))))
    # NVIDIA's real packages, where this environment has them, stay out of sight.
    # Neither does cxr/__init__.py, which calls `prepare` itself and would come first on a machine with a GPU.
    start = f"""import ctypes, os, sys, types
sys.modules["cxr"] = types.ModuleType("cxr")
sys.modules["cxr"].__path__ = [{str(ROOT / "cxr")!r}]
from cxr.gpu_libraries import found, prepare
DRIVER, SITE = {DRIVER}, {str(site)!r}
sys.path[:] = [folder for folder in sys.path if folder == SITE or not os.path.isdir(os.path.join(folder, "nvidia"))]
"""
    command = [sys.executable, "-c", start + code]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# Prints the files below `nvidia` that are in memory.
MAPPED = r"""
files = {line.split()[-1] for line in open("/proc/self/maps") if ".so." in line and "nvidia" in line}
print(*sorted(files), sep="\n")"""


def test_the_names_that_paddle_asks_for_lead_to_the_packages(site):
    said = run(site, f"PACKAGED = {list(PACKAGED)}" + """
print(prepare(devices=DRIVER))
print(prepare(devices=DRIVER))
for name in PACKAGED:
    print(ctypes.CDLL(name).getpid() == os.getpid())   # through the second name and the package to the C library
""" + MAPPED)
    assert said[:2] == [str(list(PACKAGED)), "[]"]
    assert said[2:7] == ["True"] * 5
    assert said[7:] == sorted(str(site / "nvidia" / path) for path in PACKAGED.values())   # each of them once


def test_a_library_that_a_compiler_built_gives_its_functions_under_the_second_name(site, tmp_path):
    source, library = tmp_path / "answer.c", site / "nvidia" / PACKAGED["libcudnn.so"]
    source.write_text("int answer(void) { return 8906; }")
    try:
        subprocess.run(["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", "-o", library, source], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no gcc that builds a library")
    said = run(site, "prepare(devices=DRIVER)\nprint(ctypes.CDLL('libcudnn.so').answer())" + MAPPED)
    assert said[0] == "8906" and said.count(str(library)) == 1


def test_it_needs_no_file_afterwards_and_no_variable(site, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    said = run(site, "before = dict(os.environ)\nprint(len(prepare(devices=DRIVER)), dict(os.environ) == before)",
               TMPDIR=str(temporary))
    assert said == ["5 True"] and not list(temporary.iterdir())


def test_a_library_is_loaded_after_those_that_it_needs(site, loads):
    assert prepare({}, DRIVER) == list(PACKAGED)
    assert loads == [str(site / "nvidia" / path) for path in PACKAGED.values()]


@pytest.mark.parametrize("version, cuda", [("2.6.2", "False"), ("3.3.1", "11.8"), ("3.0.0", "False"), ("2.6.2", "12.0"),
                                           ("2.5.2", "11.8")])
def test_other_paddles_are_left_alone(site, loads, version, cuda):
    assert prepare({}, DRIVER) and found({})
    loads.clear()
    install_paddle(site, version, cuda)
    assert prepare({}, DRIVER) == [] and loads == [] and found({}) == []


def test_without_a_driver_nothing_is_loaded(site, loads, tmp_path):
    assert prepare({}, [str(tmp_path / "nvidiactl")]) == [] and loads == []
    assert prepare({}, [str(tmp_path / "nvidiactl"), __file__]) and loads


def test_the_first_paddle_that_python_would_import_counts(site, loads, tmp_path, monkeypatch):
    install_paddle(tmp_path / "before", "3.3.1", "False")
    monkeypatch.setattr(sys, "path", [str(site), str(tmp_path / "before")])
    assert prepare({}, DRIVER)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "before"), str(site)])
    assert prepare({}, DRIVER) == []


def test_what_the_user_has_set_up_goes_first(site, loads, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "libcudnn.so").touch()
    (site / "paddle" / "libs").mkdir()
    (site / "paddle" / "libs" / "libnccl.so").touch()
    environ = {"LD_LIBRARY_PATH": f"{tmp_path / 'none'}:{own}"}
    assert prepare(environ, DRIVER) == ["libcublasLt.so", "libcublas.so", "libnvrtc.so"]
    sources = {library.name: (library.source, library.path) for library in found(environ)}
    assert sources["libcudnn.so"] == ("LD_LIBRARY_PATH", own / "libcudnn.so")
    assert sources["libnccl.so"] == ("Paddle's folder", site / "paddle" / "libs" / "libnccl.so")
    assert sources["libcublas.so"] == ("package", site / "nvidia" / PACKAGED["libcublas.so"])


def test_a_library_that_is_loaded_already_stays(site, tmp_path):
    (tmp_path / "libcudnn.so").write_bytes(second_name("libcudnn.so", "libc.so.6"))
    said = run(site, f"ctypes.CDLL({str(tmp_path / 'libcudnn.so')!r})\nprint(prepare(devices=DRIVER))")
    assert said == [str([name for name in PACKAGED if name != "libcudnn.so"])]


def test_what_is_missing_is_said(site, monkeypatch):
    monkeypatch.setattr(gpu_libraries, "_system", lambda names, environ: {})
    (site / "nvidia" / PACKAGED["libcudnn.so"]).unlink()
    missing = [library for library in found({}) if library.path is None]
    assert [library.name for library in missing] == ["libcudnn.so"] and "cuda11" in missing[0].source


def test_cudnn_for_cuda_12_in_the_same_folder_is_not_taken(site, loads):
    (site / "nvidia_cudnn_cu12-9.1.0.dist-info").mkdir()                  # its file has another name
    assert "libcudnn.so" in prepare({}, DRIVER)
    (site / "nvidia_cudnn_cu12-8.9.2.26.dist-info").mkdir()
    assert "libcudnn.so" not in prepare({}, DRIVER)
    assert "nvidia-cudnn-cu12" in {library.name: library for library in found({})}["libcudnn.so"].source


def test_the_system_is_asked_about_the_rest(site, tmp_path):
    (site / "nvidia" / PACKAGED["libcudnn.so"]).unlink()
    library = tmp_path / "libcudnn.so"
    library.write_bytes(second_name("libcudnn.so", "libc.so.6"))
    # What the system finds by itself cannot be made up without root; its loader takes this variable in the same way.
    asked = gpu_libraries._system(["libcudnn.so", "libnone.so"], {"LD_LIBRARY_PATH": str(tmp_path)})
    assert asked == {"libcudnn.so": library}


def test_a_damaged_library_is_a_warning(site):
    (site / "nvidia" / PACKAGED["libcudnn.so"]).write_bytes(b"no library")
    said = run(site, """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(prepare(devices=DRIVER))
print(*(warning.message for warning in caught))""")
    assert said[0] == str(["libcublasLt.so", "libcublas.so", "libnvrtc.so"])
    assert "libcudnn.so.8" in said[1] and "GPU" in said[1]


def test_without_packages_it_costs_next_to_nothing_and_imports_nothing(site):
    for path in PACKAGED.values():
        (site / "nvidia" / path).unlink()
    said = run(site, """
import time
before = set(sys.modules)
prepare(devices=DRIVER)
times = []
for _ in range(20):
    start = time.perf_counter()
    prepare(devices=DRIVER)
    times.append(time.perf_counter() - start)
print(min(times) < 0.005, sorted(set(sys.modules) - before))""")
    assert said == ["True []"]


def test_paddle_itself_finds_the_real_cudnn():
    try:
        paddle, cudnn = metadata.version("paddlepaddle-gpu"), metadata.version("nvidia-cudnn-cu11")
    except metadata.PackageNotFoundError:
        pytest.skip("needs Paddle 2.6 for GPUs and the extra cuda11")
    if not paddle.startswith("2.6.") or not cudnn.startswith("8."):
        pytest.skip("needs Paddle 2.6 for GPUs and the extra cuda11")
    site = Path(metadata.distribution("nvidia-cudnn-cu11").locate_file(""))
    said = run(site, "prepare(devices=DRIVER)\nimport paddle\nprint(paddle.device.get_cudnn_version())" + MAPPED)
    version = "".join(part.zfill(width) for part, width in zip(cudnn.split("."), (1, 1, 2)))
    assert said[0] == version and sum(line.endswith("libcudnn.so.8") for line in said) == 1


def test_the_extra_asks_for_what_is_handed_over():
    extra = (ROOT / "pyproject.toml").read_text().split("cuda11 = [", 1)[1].split("\n]", 1)[0]
    for wanted in gpu_libraries._WANTED:
        assert f'"nvidia-{wanted.part.replace("_", "-")}-cu11==' in extra
    assert extra.count("==") == extra.count("sys_platform == 'linux'") * 3       # the version and two markers
