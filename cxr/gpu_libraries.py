"""NVIDIA's libraries for the GPU build of Paddle 2.6, from the packages of the extra `cuda11`.

That build brings neither cuDNN nor cuBLAS and looks for them as `libcudnn.so` and `libcublas.so` where the system
keeps libraries. The packages have them as `nvidia/cudnn/lib/libcudnn.so.8` and so on, where the system does not look;
LD_LIBRARY_PATH is read when a process starts and is too late here; and what Paddle says of FLAGS_cudnn_dir and
FLAGS_cuda_dir does not hold for its Python package, which reads neither from the environment.

So they are loaded here, before Paddle asks for them. The system's loader gives a library that is there already to
whoever asks for its name, but the name inside is `libcudnn.so.8`: for each one a second library is loaded, a few
hundred bytes without code, that is named `libcudnn.so` and needs `libcudnn.so.8`. Nothing is changed on disk, no
variable is set, and Paddle 3, which finds its libraries itself, and CPU builds are left alone.

Paddle asks the same way for cuFFT, cuRAND, cuSOLVER and cuSPARSE, but only when one of their functions is called,
which nothing here does.
"""
from __future__ import annotations

import ctypes
import os
import re
import struct
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class _Wanted(NamedTuple):
    name: str                                    # that Paddle, or cuDNN, asks for
    part: str                                    # folder below `nvidia`
    file: str                                    # in its folder `lib`, and the name inside the library


# A library stands after those that it needs.
_WANTED = (
    _Wanted("libcublasLt.so", "cublas", "libcublasLt.so.11"),
    _Wanted("libcublas.so", "cublas", "libcublas.so.11"),
    _Wanted("libnvrtc.so", "cuda_nvrtc", "libnvrtc.so.11.2"),  # cuDNN compiles fused kernels with it
    _Wanted("libcudnn.so", "cudnn", "libcudnn.so.8"),
    _Wanted("libnccl.so", "nccl", "libnccl.so.2"),             # several GPUs
)
# One of these is there where a driver is, the last one under WSL.
_DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")


class Library(NamedTuple):
    """Where Paddle gets a library from.

    Attributes:
        name: that Paddle, or cuDNN, asks for.
        path: of the file; None where there is none.
        source: "package", "LD_LIBRARY_PATH", "Paddle's folder" or "system"; where `path` is None it says why.
    """
    name: str
    path: Path | None
    source: str


def prepare(environ: Mapping[str, str] = os.environ, devices: Sequence[str] = _DEVICES) -> list[str]:
    """Load the packages' libraries so that Paddle 2.6 finds them. Call it before Paddle first uses a GPU.

    Nothing happens with another Paddle, without a driver, without the packages, or for a library that the user has
    named in LD_LIBRARY_PATH, linked into Paddle's own folder or loaded already. Packages go before what the system
    finds by itself, which is often CUDA 12.

    Args:
        environ: the variables of this process.
        devices: files of which at least one is there where a driver is.

    Returns:
        The names under which libraries can be loaded now, e.g. `["libcublas.so", "libcudnn.so"]`.
    """
    paddle = _paddle_2_6_for_gpus()
    if paddle is None or not any(os.path.exists(device) for device in devices):
        return []
    chosen = [(wanted, _choose(wanted, paddle, environ)) for wanted in _WANTED]
    chosen = [(wanted, library.path) for wanted, library in chosen
              if library.source == "package" and not _is_loaded(wanted.name)]
    if not chosen:
        return []
    # Slow to import, and hardly anybody comes here.
    import tempfile

    loaded = []
    try:
        with tempfile.TemporaryDirectory(prefix="cxr-") as folder:
            for wanted, path in chosen:
                _load(wanted, path, Path(folder))
                loaded.append(wanted.name)
    except OSError as error:                     # Paddle then says itself what it misses, or works on the CPU
        warnings.warn(f"NVIDIA's libraries are installed and cannot be loaded, so Paddle may not be able to use the "
                      f"GPU: {error}", RuntimeWarning, stacklevel=2)
    return loaded


def found(environ: Mapping[str, str] = os.environ) -> list[Library]:
    """Where Paddle 2.6 for GPUs finds each library, for a diagnosis.

    It asks the system, in a separate process, about what no package has, which takes about 0.1 s.

    Args:
        environ: the variables of this process.

    Returns:
        Every library that Paddle asks for; none where another Paddle is installed.
    """
    paddle = _paddle_2_6_for_gpus()
    if paddle is None:
        return []
    libraries = [_choose(wanted, paddle, environ) for wanted in _WANTED]
    system = _system([library.name for library in libraries if library.path is None], environ)
    return [library._replace(path=system[library.name], source="system") if library.name in system else library
            for library in libraries]


def _folders() -> list[Path]:
    """Folders that Python imports from. `importlib` would import packages above what it looks for."""
    return [Path(folder) for folder in sys.path if isinstance(folder, str)]


def _paddle_2_6_for_gpus() -> Path | None:
    """Folder of the installed Paddle, where it is a 2.6 built for CUDA 11 and this is Linux on x86-64; else None."""
    if sys.platform != "linux" or os.uname().machine != "x86_64" or sys.maxsize < 2**32:
        return None
    for folder in _folders():
        try:
            text = (folder / "paddle" / "version" / "__init__.py").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        said = dict(re.findall(r"^(full_version|cuda_version)\s*=\s*['\"]([^'\"]*)", text, re.MULTILINE))
        fits = said.get("full_version", "").startswith("2.6.") and said.get("cuda_version", "").startswith("11.")
        return folder / "paddle" if fits else None
    return None


def _choose(wanted: _Wanted, paddle: Path, environ: Mapping[str, str]) -> Library:
    """Where a library is taken from, the system aside: what the user has set up goes before the packages."""
    search = environ.get("LD_LIBRARY_PATH")
    for folder in re.split("[:;]", search) if search else ():
        path = Path(folder) / wanted.name
        if os.path.exists(path):
            return Library(wanted.name, path, "LD_LIBRARY_PATH")
    path = paddle / "libs" / wanted.name
    if os.path.exists(path):                     # Paddle looks in its own folder, so some people put links there
        return Library(wanted.name, path, "Paddle's folder")
    for folder in _folders():
        path = folder / "nvidia" / wanted.part / "lib" / wanted.file
        if os.path.isfile(path):
            # The packages for CUDA 11 and 12 share their folders, and cuDNN 8 has one file name in both, but the one
            # for CUDA 12 needs cuBLAS 12. (NCCL has one name, too, and needs no other library.)
            if wanted.part == "cudnn" and any(folder.glob("nvidia_cudnn_cu12-8.*")):
                return Library(wanted.name, None, f"nvidia-cudnn-cu12 may have replaced {path}, which must be that of "
                                                  "nvidia-cudnn-cu11: use another environment")
            return Library(wanted.name, path, "package")
    return Library(wanted.name, None, "not installed: the extra cuda11 brings it")


def _is_loaded(name: str) -> bool:
    try:
        ctypes.CDLL(name, mode=os.RTLD_NOLOAD)
    except OSError:
        return False
    return True


def _load(wanted: _Wanted, path: Path, folder: Path) -> None:
    """Load the library at `path`, and by way of a file in `folder`, which may go afterwards, its second name."""
    ctypes.CDLL(str(path))
    second = folder / wanted.name
    second.write_bytes(second_name(wanted.name, wanted.file))
    ctypes.CDLL(str(second))


def second_name(name: str, needed: str) -> bytes:
    """A shared library (ELF, x86-64) named `name` that holds nothing and needs the library `needed`.

    It is data alone, with no page to be executed, so a folder mounted `noexec` will do.

    Args:
        name: such as "libcudnn.so".
        needed: such as "libcudnn.so.8".

    Returns:
        The content of the file, a few hundred bytes.
    """
    strings = b"\0" + name.encode() + b"\0" + needed.encode() + b"\0"
    entries, header, segment = 8, 64, 56
    dynamic = header + 3 * segment
    symbols = dynamic + entries * 16
    hashes = symbols + 24
    text = hashes + 16
    size = text + len(strings)
    needs, strtab, symtab, strsz, syment, soname, hash_ = 1, 5, 6, 10, 11, 14, 4
    table = [(needs, 2 + len(name)), (soname, 1), (hash_, hashes), (strtab, text), (symtab, symbols),
             (strsz, len(strings)), (syment, 24), (0, 0)]
    load, dynamics, stack, readable_and_writable = 1, 2, 0x6474e551, 6
    segments = [(load, 0, size, 4096), (dynamics, dynamic, entries * 16, 8), (stack, 0, 0, 16)]
    shared, x86_64 = 3, 62
    return b"".join([
        struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", shared, x86_64, 1, 0, header, 0, 0, header, segment,
                    len(segments), 64, 0, 0),
        *(struct.pack("<IIQQQQQQ", kind, readable_and_writable, at, at, at, length, length, align)
          for kind, at, length, align in segments),
        *(struct.pack("<QQ", *entry) for entry in table),
        bytes(24),                               # the one symbol that every table begins with
        struct.pack("<IIII", 1, 1, 0, 0),        # one bucket, one symbol, neither leads anywhere
        strings,
    ])


# Paddle looks for cuDNN alone in CUDA's usual folder, too.
_ASK = """
import ctypes, sys
for name in sys.argv[1:]:
    for asked in [name] + ["/usr/local/cuda/lib64/" + name] * (name == "libcudnn.so"):
        before = {line.split()[-1] for line in open("/proc/self/maps")}
        try:
            ctypes.CDLL(asked)
        except OSError:
            continue
        new = {line.split()[-1] for line in open("/proc/self/maps")} - before
        print(name, *[path for path in new if path.rpartition("/")[2].startswith(name)][:1] or [asked], sep="\\t")
        break
"""


def _system(names: Sequence[str], environ: Mapping[str, str]) -> dict[str, Path]:
    """Those of the libraries that the system's loader finds by itself, and where."""
    if not names:
        return {}
    import subprocess

    command = [sys.executable or "python3", "-I", "-S", "-c", _ASK, *names]
    try:
        said = subprocess.run(command, capture_output=True, text=True, env=dict(environ), timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {name: Path(path) for name, path in (line.split("\t", 1) for line in said.splitlines())}
