"""What belongs in a bug report: versions, devices and their answers, engines, cache, memory.

Every part is looked at on its own, so that one that fails does not hide the others. Paths are shown without the home
folder, whose name may be a person's.
"""
from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path

from cxr import __version__, gpu_libraries
from cxr.device import hardware, trial, verdicts
from cxr.device.sentences import explain, installed_build
from cxr.errors import InputError
from cxr.runtime import load_paddle, usable_cores
from cxr.utils.folders import wanted_cache, writable_cache

# What a result may depend on, each with the name that it is imported by.
_PACKAGES = {"paddlepaddle": "paddle", "paddlepaddle-gpu": "paddle", "numpy": "numpy", "opencv-python": "cv2",
             "opencv-python-headless": "cv2", "opencv-contrib-python": "cv2", "opencv-contrib-python-headless": "cv2",
             "pillow": "PIL", "scipy": "scipy", "scikit-learn": "sklearn", "matplotlib": "matplotlib",
             "openvino": "openvino", "isal": "isal", "pydicom": "pydicom", "streamlit": "streamlit",
             "fastapi": "fastapi"}
# Those that are imported here: Paddle comes later, as the commands import it, and OpenVINO's telemetry would connect.
_TRIED = ("numpy", "cv2", "PIL", "scipy", "sklearn", "matplotlib")
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "CXR_CACHE", "CXR_DATA", "CXR_DEVICE", "LD_LIBRARY_PATH", "OMP_NUM_THREADS",
              "MKL_DEBUG_CPU_TYPE", "FLAGS_selected_gpus", "FLAGS_cudnn_dir", "VIRTUAL_ENV", "CONDA_PREFIX")


@dataclass
class Diagnosis:
    """What was found out.

    Attributes:
        sections: title -> rows of (what, finding).
        problems: sentences, each with its remedy.
    """
    sections: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def text(self) -> str:
        """For people: a block for every section, the problems last."""
        width = max(len(what) for rows in self.sections.values() for what, _ in rows)
        blocks = ["\n".join([f"== {title}", *(f"{what:{width}}  {finding}" for what, finding in rows)])
                  for title, rows in self.sections.items()]
        listed = [f"- {sentence}" for sentence in self.problems] or ["none found"]
        return without_home("\n\n".join([*blocks, "\n".join(["== problems", *listed])]))


def diagnose(engines: Callable[[], Iterable[str]], progress: Callable[[str], object] = lambda title: None) -> Diagnosis:
    """Look at everything; the known answers of every device are asked anew.

    Args:
        engines: gives the names of this machine's engines, and is called once Paddle is there.
        progress: gets the title of each section.

    Returns:
        Every section, also where something in it is broken, and the problems.
    """
    found = Diagnosis()
    # Variables first: OpenCV changes some of them when it is imported.
    parts = {"this project": _project, "environment variables": _variables, "packages": _packages, "machine": _machine,
             "devices": _devices, "engines": partial(_engines, engines), "cache": _cache}
    for title, part in parts.items():
        progress(title)
        try:
            found.sections[title] = list(part(found.problems))
        except Exception as error:               # whatever is broken on this machine: it is why somebody asks
            found.sections[title] = [("cannot be told", f"{type(error).__name__}: {str(error).strip()[:300]}")]
            found.problems.append(f"{title} cannot be told ({type(error).__name__}): see above.")
    return found


def without_home(text: str) -> str:
    """`text` with the home folder shown as ~."""
    home = os.path.expanduser("~")
    return text.replace(home, "~") if len(home) > 1 else text


def _project(problems: list[str]) -> Iterable[tuple[str, str]]:
    root = Path(__file__).resolve().parents[2]
    commit = "not a git checkout"
    if (root / ".git").exists() and shutil.which("git"):
        commit = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True,
                                text=True).stdout.strip() or commit
    yield "paddle-cxr", f"{__version__} ({commit})"
    yield "Python", f"{platform.python_version()} ({sys.executable})"
    yield "system", platform.platform()


def _packages(problems: list[str]) -> Iterable[tuple[str, str]]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        yield name, versions[name]
    for what, remedy in (("paddlepaddle", "uninstall both, then install the one that is wanted"),
                         ("opencv", "uninstall all of them, then install one")):
        several = [name for name in versions if name.startswith(what)]
        if len(several) > 1:
            problems.append(f"{' and '.join(several)} overwrite each other's files: {remedy}.")
    for module in dict.fromkeys(_PACKAGES[name] for name in versions):
        if module in _TRIED:
            try:
                importlib.import_module(module)
            except Exception as error:
                problems.append(f"{module} is installed and cannot be imported ({error}): install it again.")
    paddle = versions.get("paddlepaddle-gpu") or versions.get("paddlepaddle", "")
    if paddle.startswith("2.") and versions.get("numpy", "").startswith("2."):
        problems.append(f"Paddle {paddle} was built against NumPy 1: run `pip install \"numpy<2\"`.")


def _machine(problems: list[str]) -> Iterable[tuple[str, str]]:
    yield "processor", processor()
    yield "cores", f"{usable_cores()} of {os.cpu_count()} may be used"
    info = Path("/proc/meminfo")
    if info.exists():
        sizes = {line.split(":")[0]: int(line.split()[1]) / 2**20 for line in info.read_text().splitlines()}
        yield "memory", f"{sizes['MemAvailable']:.1f} of {sizes['MemTotal']:.1f} GiB free"
    disk = shutil.disk_usage(".")
    yield "disk", f"{disk.free / 2**30:.1f} of {disk.total / 2**30:.1f} GiB free in the working folder"


def processor(info: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, as Linux or Python has it."""
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _variables(problems: list[str]) -> Iterable[tuple[str, str]]:
    there = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    yield from there.items() or [("none of these is set", ", ".join(_VARIABLES))]


def _devices(problems: list[str]) -> Iterable[tuple[str, str]]:
    try:
        load_paddle()
    except ModuleNotFoundError:
        problems.append("Paddle is not installed: run `pip install -r requirements.txt`, or see the table of GPUs in "
                        "README.")
        yield "Paddle", "not installed"
        return
    build, machine = installed_build(), hardware.look()
    yield "Paddle", f"{build}, commit {build.commit[:12]}"
    began = time.monotonic()
    outcome = trial.ask("cpu")
    yield "cpu", _answers(outcome, time.monotonic() - began)
    if outcome.kind != "right":
        problems.append(f"Paddle does not compute right on the CPU ({outcome.stage}: {outcome.detail or outcome.kind})"
                        ": install it again, and report this.")
    yield "NVIDIA driver", machine.driver or "none"
    if machine.problem:
        problems.append(f"No GPU is used: {machine.problem}.")
    for gpu in machine.gpus:
        began = time.monotonic()
        # A CPU build would refuse each of them in the same words.
        verdict = verdicts.verdict_of(gpu, machine, build, again=True) if build.cuda else None
        facts = f"{gpu.name}, capability {gpu.capability[0]}.{gpu.capability[1]}, {gpu.memory / 2**30:.0f} GiB: "
        yield gpu.device, facts + (_answers(verdict.outcome, time.monotonic() - began) if verdict else
                                   "this Paddle is the CPU build")
        if verdict and not verdict.right:
            problems.append(f"{gpu} is not used: {explain(gpu, build, verdict.outcome)}.")
    for library in gpu_libraries.found():
        yield library.name, f"{library.path} ({library.source})" if library.path else library.source
    yield from _choice(problems)


def _choice(problems: list[str]) -> Iterable[tuple[str, str]]:
    from cxr.device import use

    try:
        with warnings.catch_warnings():          # what it warns of is a problem below
            warnings.simplefilter("ignore")
            choice = use()
    except InputError as error:                  # of CXR_DEVICE
        problems.append(str(error))
        yield "chosen", "none"
        return
    yield "chosen", str(choice)
    problems.extend(note for note in choice.notes if not any(sentence in note for sentence in problems))


def _answers(outcome: trial.Outcome, seconds: float) -> str:
    cudnn = f", cuDNN {outcome.cudnn}" if outcome.cudnn else ""
    if outcome.kind == "right":
        return f"all {len(trial.EXPECTED)} known answers right{cudnn} ({seconds:.1f} s)"
    return f"{outcome.kind} at {outcome.stage}{cudnn}, {outcome.detail or 'without an error'} ({seconds:.1f} s)"


def _engines(engines: Callable[[], Iterable[str]], problems: list[str]) -> Iterable[tuple[str, str]]:
    if "paddle" not in sys.modules:
        yield "none", "they need Paddle"
        return
    yield "fastest first", ", ".join(engines())


def _cache(problems: list[str]) -> Iterable[tuple[str, str]]:
    wanted = wanted_cache()
    used = writable_cache()
    yield "folder", str(wanted)
    if used != wanted:
        yield "cannot be written to", f"a temporary one is used, {used}"
    size = sum(path.stat().st_size for path in used.rglob("*") if path.is_file())
    yield "holds", f"{size / 2**20:.0f} MiB"
