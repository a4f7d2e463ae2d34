"""Process settings that must be in place before Paddle is imported.

Paddle's CPU kernels call Intel MKL, which picks its slow generic code on AMD processors unless told
otherwise, and OpenMP, which counts the cores of the host rather than those this process may use.
Measured on DenseNet121 (batch 8, 2 cores of an AMD EPYC): 3-4 times the images per second. An Intel processor
is left to choose for itself: told the same it would give up AVX-512, and a fifth to a third of its speed.

Pillow (or something else that brings zlib) must also be loaded before Paddle 2, whose library exports a zlib
of its own: the other way round neither Pillow nor OpenCV can read PNG files any more, and trying damages
memory until the process crashes. Nothing mends that afterwards, so importing `cxr` is refused then.

glibc gives large blocks back to the system with every `free` and faults them in again, page by page, with the next
`malloc`. Paddle frees and allocates every intermediate result, so it is told to keep up to a gigabyte: 5-20 % more
images per second at batch 8.

A variable that the user has set is never overridden.
"""
from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import sys
import warnings
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from types import ModuleType

from cxr import gpu_libraries


def usable_cores() -> int:
    """Number of processors that this process may run on (`taskset` and cpusets heeded, CPU quotas not)."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:                       # macOS and Windows have no affinity call
        return os.cpu_count() or 1


def threads() -> int:
    """Threads that Paddle's CPU kernels are to use: `OMP_NUM_THREADS`, or one for each core."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdigit() and int(value) > 0 else usable_cores()


def by_amd(info: Path = Path("/proc/cpuinfo"), environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the processor is AMD's, or Hygon's, which is built like those.

    Args:
        info: what Linux says of it.
        environ: what Windows says of it.

    Returns:
        False also where the system does not say.
    """
    description = environ.get("PROCESSOR_IDENTIFIER", "")      # Windows
    with contextlib.suppress(OSError):
        description += info.read_text(encoding="utf-8", errors="replace")
    return any(vendor in description for vendor in ("AuthenticAMD", "HygonGenuine"))


def settings(cores: int, amd: bool) -> dict[str, str]:
    """Environment variables that `configure` sets where they are unset.

    Args:
        cores: that this process may use.
        amd: whether they are AMD's.

    Returns:
        Name -> value.
    """
    # AVX2 kernels of MKL, which otherwise gives them to Intel alone.
    return {"OMP_NUM_THREADS": str(cores), **({"MKL_DEBUG_CPU_TYPE": "5"} if amd else {})}


_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1        # of glibc's mallopt
_LARGEST_POOLED, _KEPT_FREE = 32 << 20, 1 << 30  # bytes; the first is the most that glibc accepts


def keep_memory(environ: Mapping[str, str] = os.environ) -> None:
    """Have glibc keep freed memory; nothing happens with other C libraries, or where the user set MALLOC_... ."""
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in environ):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGEST_POOLED)
        mallopt(_TRIM_THRESHOLD, _KEPT_FREE)


# Where tools/install.py puts what it may not put among Python's own packages; in a notebook only after this import.
_PACKAGES = Path(__file__).resolve().parent.parent / ".packages"


def configure(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what is unset and load Pillow. Called once, when `cxr` is first imported.

    Where Paddle came first, its threads are still set right, and a warning names what can no longer be mended.

    Args:
        environ: the variables of this process.

    Raises:
        ImportError: Paddle came first, and its zlib would crash this process.
    """
    if str(_PACKAGES) not in sys.path:
        sys.path.append(str(_PACKAGES))          # last, so that what the machine has wins
    too_late = "paddle" in sys.modules
    if too_late and png_is_broken():
        raise ImportError("Paddle was imported before any library that reads images, and its zlib breaks PNG files: "
                          "they cannot be read or written, and trying may crash this process. Start again, and import "
                          "chexnet, covid_resnet or cxr first.")
    wanted = settings(usable_cores(), by_amd())
    if too_late and ("OMP_NUM_THREADS" not in environ or _one_thread_by_paddle(environ)):
        environ["OMP_NUM_THREADS"] = wanted["OMP_NUM_THREADS"]
        sys.modules["paddle"].base.core.set_num_threads(usable_cores())
    missing = {name: value for name, value in wanted.items() if name not in environ}
    environ.update(missing)
    if too_late and missing:
        warnings.warn(f"Paddle was imported before cxr, so {' and '.join(missing)} came too late and the CPU may run "
                      "several times slower: import chexnet, covid_resnet or cxr first.", RuntimeWarning, stacklevel=3)
    keep_memory(environ)
    import PIL._imaging  # noqa: F401
    gpu_libraries.prepare(environ)


def _one_thread_by_paddle(environ: Mapping[str, str], begun: Path = Path("/proc/self/environ")) -> bool:
    """Whether it was Paddle, not the user, that set OMP_NUM_THREADS to 1: the process then began without it."""
    try:
        return environ.get("OMP_NUM_THREADS") == "1" and b"\0OMP_NUM_THREADS=" not in b"\0" + begun.read_bytes()
    except OSError:                              # macOS and Windows do not say: it may be the user's
        return False


def be_deterministic(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let two equal runs give equal bits, somewhat slower. Call it before Paddle is imported.

    On a GPU cuDNN's backward convolutions and cuBLAS otherwise add in an order that changes from run to run.
    """
    environ.update({"FLAGS_cudnn_deterministic": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"})


def png_is_broken() -> bool:
    """Whether Paddle 2 was loaded before every library with a zlib: by the order, as a trial may crash."""
    order = list(sys.modules)
    core = "paddle.base.libpaddle"
    if core not in order or not sys.modules["paddle"].__version__.startswith("2."):
        return False
    return not {"zlib", "PIL._imaging", "cv2", "numpy"}.intersection(order[:order.index(core)])


def load_paddle() -> ModuleType:
    """Import Paddle for a command, without what does not concern its user.

    Left out are its advice on `OMP_NUM_THREADS`, which does not hold for the way it is used here, its wish for a
    compiler cache, and, where the GPU build runs on a machine without a GPU, its search for CUDA's libraries
    (GLOG_minloglevel=0 brings that back); the commands say themselves which device they run on.

    Returns:
        The module `paddle`.
    """
    os.environ.setdefault("GLOG_minloglevel", "2")
    for unwanted in ("No ccache found", "You are using GPU version Paddle", "When training, we now always track"):
        warnings.filterwarnings("ignore", message=unwanted)
    log = logging.getLogger()
    handlers, level = list(log.handlers), log.level
    with contextlib.redirect_stderr(io.StringIO()) as said:
        import paddle
    # Paddle sets up the log of the whole process: here that would go where nobody reads.
    log.handlers[:] = handlers
    log.setLevel(level)
    for line in said.getvalue().splitlines():
        if "OMP_NUM_THREADS" not in line:
            print(line, file=sys.stderr)
    return paddle
