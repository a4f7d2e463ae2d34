#!/usr/bin/env python
"""Install what this project needs beside a Paddle that is there already (AI Studio, containers, servers).

Paddle, NumPy and OpenCV stay as they are: pip resolves everything else around them. The rest goes into this Python's
own packages or, if those cannot be written to, into .packages/ in this clone, where every command and notebook looks;
nothing is written anywhere else. Where there is no OpenCV, it is installed: without windows if libGL is missing.
"""
from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ROOT / ".packages"                    # `cxr.runtime` looks there
STAGE = PACKAGES / ".new"
PYTHON, PIP = (3, 9), (22, 2)                    # the oldest that will do: pip with --dry-run and --report
PADDLE = re.compile(r"paddlepaddle(-.+)?$")
OPENCV = re.compile(r"opencv(-contrib)?-python(-headless)?$")
EXACT_LETTERS = (4, 12)                          # the first OpenCV whose text differs from the published pictures
EXAMPLES = """\
examples:
  python tools/install.py --dry-run
  python tools/install.py
  python tools/install.py --extra app --extra dicom

exit status: 0 done, 2 not possible (one sentence says why and what to do), 130 interrupted."""


class Refused(Exception):
    """Not possible; the text says why and what to do."""


@dataclass(frozen=True)
class Machine:
    """What is there, and where the rest can go.

    Attributes:
        packages: name as pip compares it -> version, of .packages/ too.
        environment: the same without .packages/.
        paddle: its version.
        opencv: its version, empty where there is none.
        target: folder for packages, None for Python's own.
    """
    packages: dict[str, str]
    environment: dict[str, str]
    paddle: str
    opencv: str
    target: Path | None

    @property
    def kept(self) -> dict[str, str]:
        """The packages that must stay."""
        return {name: version for name, version in sorted(self.packages.items())
                if PADDLE.match(name) or OPENCV.match(name) or name == "numpy"}

    def __str__(self) -> str:
        named = [f"{name} {version}" for name, version in self.kept.items()]
        if not any(map(PADDLE.match, self.kept)):
            named.insert(0, f"paddle {self.paddle}")
        if not any(map(OPENCV.match, self.kept)):
            named.append(f"OpenCV {self.opencv}" if self.opencv else "no OpenCV")
        return ", ".join(named)


def plain(name: str) -> str:
    """A package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def packages(path: list[str]) -> dict[str, str]:
    """The packages in the folders of `path`, name: version; of several versions the first."""
    from importlib import metadata  # here, as Python 3.7 has none, and gets a sentence

    importlib.invalidate_caches()
    found: dict[str, str] = {}
    for package in metadata.distributions(path=path):
        if package.metadata["Name"]:             # None: what a cut installation left
            found.setdefault(plain(package.metadata["Name"]), package.version)
    return found


def paddle_version(installed: dict[str, str]) -> str:
    """The version of what `import paddle` would find, read and not imported; empty where there is none."""
    spec = find_spec("paddle")
    if spec is None or not spec.origin:          # no origin: a folder that happens to have its name
        return ""
    version = Path(spec.origin).parent / "version" / "__init__.py"
    line = re.search(r"^full_version\s*=\s*['\"](\S+)['\"]", version.read_text(), re.M) if version.exists() else None
    return next((version for name, version in installed.items() if PADDLE.match(name)), line[1] if line else "unknown")


def opencv_version() -> str:
    """The version of OpenCV, empty where there is none; imported in another process, as it may lack a system library.

    Raises:
        Refused: if it cannot be imported.
    """
    if find_spec("cv2") is None:
        return ""
    code = "import sys; sys.path.append(sys.argv[1]); import cv2; print(cv2.__version__)"
    tried = subprocess.run([sys.executable, "-c", code, str(PACKAGES)], cwd=ROOT, capture_output=True, text=True)
    if tried.returncode:
        raise Refused(f"the OpenCV of this machine cannot be imported ({tried.stderr.strip().splitlines()[-1]}): "
                      "install the system's library that it names, or put opencv-python-headless in its place.")
    return tried.stdout.strip()


def can_write(folder: Path) -> bool:
    """Whether `folder`, or the nearest folder above it that exists, can be written to."""
    return os.access(next(place for place in (folder, *folder.parents) if place.exists()), os.W_OK)


def target() -> Path | None:
    """Where packages go: None for Python's own place, if it can be written to and is not the system's (PEP 668).

    Raises:
        Refused: if nothing can be written to.
    """
    marked = sys.prefix == sys.base_prefix and Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists()
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    if not marked and all(can_write(Path(place)) for place in folders):
        return None
    if not can_write(PACKAGES):
        raise Refused(f"neither {sysconfig.get_path('purelib')} nor {ROOT} can be written to: clone this project into "
                      "a folder of yours.")
    return PACKAGES


def look() -> Machine:
    """What is there.

    Raises:
        Refused: if this project cannot work on it.
    """
    if str(PACKAGES) not in sys.path:
        sys.path.append(str(PACKAGES))
    installed = packages(sys.path)
    paddle = paddle_version(installed)
    if not paddle:
        raise Refused(f"there is no Paddle for {sys.executable} to keep: run `pip install -r requirements.txt`, which "
                      "brings one, or first install one for your GPU as "
                      "https://www.paddlepaddle.org.cn/install/quick says.")
    if paddle.startswith("2.") and numbers(installed.get("numpy", "1.0")) >= (2,):
        raise Refused(f"Paddle {paddle} cannot work with NumPy {installed['numpy']}, as it was built for NumPy 1: run "
                      '`python -m pip install "numpy<2"` first.')
    environment = packages([place for place in sys.path if place != str(PACKAGES)])
    return Machine(installed, environment, paddle, opencv_version(), target())


def pyproject() -> dict:
    """The table `project` of pyproject.toml."""
    try:
        import tomllib
    except ModuleNotFoundError:                  # before Python 3.11; pip brings it along
        from pip._vendor import tomli as tomllib
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirement_name(requirement: str) -> str:
    """The package that a line of requirements asks for, as pip compares it."""
    return plain(re.match(r"[\w.-]+", requirement)[0])


def extras(project: dict) -> dict[str, list[str]]:
    """The extras that can be asked for: not those that choose a Paddle or an OpenCV."""
    return {extra: wanted for extra, wanted in project["optional-dependencies"].items()
            if not any(pattern.match(requirement_name(line)) for line in wanted for pattern in (PADDLE, OPENCV))}


def requirements(project: dict, asked: list[str], machine: Machine, has_gl: bool) -> list[str]:
    """Everything the project needs beside Paddle, with an OpenCV where none is."""
    wanted = list(project["dependencies"])
    for extra in asked:
        for line in extras(project)[extra]:
            if requirement_name(line) == plain(project["name"]):         # an extra made of others
                _, others, marker = re.split(r"[][]", line)
                wanted += [other + marker for name in others.split(",") for other in extras(project)[name.strip()]]
            else:
                wanted.append(line)
    if not machine.opencv:
        wanted += [line for line in project["optional-dependencies"]["gpu" if has_gl else "headless"]
                   if OPENCV.match(requirement_name(line))]
    return list(dict.fromkeys(wanted))


def constraints(machine: Machine) -> list[str]:
    """What pip must leave as it is."""
    lines = [f"{name}=={version}" for name, version in machine.kept.items()]
    if "numpy" not in machine.kept and machine.paddle.startswith("2."):
        lines.append("numpy<2")
    return lines


def system_has_gl() -> bool:
    """Whether the libraries that the OpenCV with windows needs on Linux can be loaded."""
    if sys.platform != "linux":
        return True
    try:
        for name in ("libGL.so.1", "libgthread-2.0.so.0"):
            ctypes.CDLL(name)
    except OSError:
        return False
    return True


def pip(*arguments: str, quiet: bool = False) -> subprocess.CompletedProcess:
    """Run pip as this Python has it, which then also sees what is in .packages/."""
    code = ("import runpy, sys; sys.path.append(sys.argv.pop(1)); "
            "runpy.run_module('pip', run_name='__main__', alter_sys=True)")
    environ = {name: value for name, value in os.environ.items()
               if name not in ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT")}
    environ["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    # From the clone: without any folder for temporary files pip takes the current one.
    return subprocess.run([sys.executable, "-c", code, str(PACKAGES), *arguments], cwd=ROOT, env=environ,
                          capture_output=quiet, text=True)


def common() -> list[str]:
    """Flags of every `pip install` here."""
    cache = pip("cache", "dir", quiet=True)
    usable = cache.returncode == 0 and can_write(Path(cache.stdout.strip()))
    return ["--root-user-action=ignore", "--no-user", *([] if usable else ["--no-cache-dir"])]


def resolve(wanted: list[str], fixed: list[str], flags: list[str]) -> dict[str, str]:
    """What pip would install.

    Args:
        wanted: requirements.
        fixed: constraints, which pip must not touch.
        flags: for pip.

    Returns:
        The packages, name: version.

    Raises:
        Refused: if pip finds no way.
    """
    with tempfile.TemporaryDirectory() as folder:
        written, report = Path(folder, "constraints.txt"), Path(folder, "report.json")
        written.write_text("\n".join(fixed) + "\n", encoding="utf-8")
        done = pip("install", "--quiet", "--dry-run", "--report", str(report), "--prefer-binary", *flags,
                   "--constraint", str(written), *wanted)
        if done.returncode:
            raise Refused(f"pip found no way to install the rest beside {', '.join(fixed)} (see above): check that its "
                          "package index can be reached.")
        chosen = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {plain(package["metadata"]["name"]): package["metadata"]["version"] for package in chosen}


def plan(machine: Machine, resolved: dict[str, str]) -> dict[str, str]:
    """What is to be installed of `resolved`: no second Paddle, no second OpenCV.

    Raises:
        Refused: for what would replace a package that must stay, or could not take effect.
    """
    chosen = {name: version for name, version in resolved.items()
              if not PADDLE.match(name) and not (machine.opencv and OPENCV.match(name))}
    for name, version in chosen.items():
        if name in machine.kept:
            raise Refused(f"pip would replace {name} {machine.kept[name]} with {version}, which must stay: install the "
                          "extras one by one to find the one that asks for it.")
        if machine.target and name in machine.environment:
            raise Refused(f"{name} {machine.environment[name]} of this machine is not what is needed ({version}) and "
                          "cannot be replaced: run `python -m venv --system-site-packages .venv` and then "
                          "`.venv/bin/python tools/install.py`.")
    return chosen


def install(machine: Machine, chosen: dict[str, str], flags: list[str]) -> None:
    """Install exactly `chosen`, and nothing that it asks for.

    Raises:
        Refused: if pip fails.
    """
    pins = [f"{name}=={version}" for name, version in chosen.items()]
    where = []
    if machine.target:                           # first beside what is there, so that a cut run leaves that whole
        shutil.rmtree(STAGE, ignore_errors=True)
        where = ["--target", str(STAGE)]
    if pip("install", "--no-deps", "--prefer-binary", *flags, *where, *pins).returncode:
        raise Refused("pip could not install this (see above); what was there is unchanged or newer: run it again.")
    if machine.target:
        for name in chosen:                      # the record of a version that is replaced
            for old in PACKAGES.glob("*.dist-info"):
                if plain(old.name.split("-")[0]) == name:
                    shutil.rmtree(old)
        shutil.copytree(STAGE, PACKAGES, copy_function=os.replace, dirs_exist_ok=True)
        shutil.rmtree(STAGE)


def check_versions(python: tuple[int, ...]) -> None:
    """Raise `Refused` if Python or pip is too old."""
    if python < PYTHON:
        raise Refused(f"Python {'.'.join(map(str, python[:2]))} is too old: run this with Python 3.9 or later.")
    version = packages(sys.path).get("pip")
    if version is None:
        raise Refused("there is no pip here: run `python -m ensurepip`, or install the system's python3-pip.")
    if numbers(version) < PIP:
        raise Refused(f"pip {version} is too old to say what it would do: run "
                      "`python -m pip install --upgrade pip` first (22.2 or later).")


def arguments(given: list[str] | None) -> argparse.Namespace:
    """The flags in `given`, None for those of the command line."""
    offered = sorted(extras(pyproject()))
    main = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    main.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    main.add_argument("--extra", action="append", default=[], choices=offered, metavar="NAME",
                      help=f"also install what this extra of pyproject.toml needs: {', '.join(offered)}; may be given "
                           "several times")
    return main.parse_args(given)


def notes(machine: Machine) -> None:
    """Print what the user should know of the versions that stay."""
    if machine.opencv and numbers(machine.opencv) >= EXACT_LETTERS:
        print(f"note: OpenCV {machine.opencv} draws other letters than the published pictures have; all else is equal.")
    if numbers(machine.paddle) < (2, 6) and machine.paddle != "unknown":
        print(f"note: Paddle {machine.paddle} is older than those that this project is tested with, 2.6.2 and 3.3.1.")


def main(given: list[str] | None = None) -> None:
    """Look, resolve, install, and look again; raises `Refused`."""
    check_versions(sys.version_info[:3])
    asked = arguments(given)
    os.chdir(ROOT)
    machine = look()
    print(f"found: {machine}", flush=True)
    notes(machine)
    wanted, flags = requirements(pyproject(), asked.extra, machine, system_has_gl()), common()
    chosen = plan(machine, resolve(wanted, constraints(machine), flags))
    if not chosen:
        print("Nothing to do: everything else is there.")
        return
    place = machine.target or sysconfig.get_path("purelib")
    listed = ", ".join(f"{name} {machine.packages[name]} -> {version}" if name in machine.packages else
                       f"{name} {version}" for name, version in chosen.items())
    print(f"{'would go' if asked.dry_run else 'to go'} into {place}: {listed}", flush=True)
    if asked.dry_run:
        return
    install(machine, chosen, flags)
    after = look()
    print(f"now: {after}")
    changed = [name for name, version in machine.kept.items() if after.packages.get(name) != version]
    if changed or after.paddle != machine.paddle:
        raise Refused(f"{' and '.join(changed) or 'Paddle'} changed, which must not happen: install the version "
                      "found above again, and report this.")
    if machine.target and asked.extra:
        print(f"Commands that are not of this clone find them with PYTHONPATH={PACKAGES}")


def command(given: list[str] | None = None) -> int:
    """The exit status of `main`: what is not possible gets a sentence, no traceback."""
    try:
        main(given)
    except Refused as why:
        print(f"install.py: {why}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"install.py: {error.filename or 'a file'} cannot be read or written ({error.strerror}): free some space "
              "and check the permissions.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(command())
