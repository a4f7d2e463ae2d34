"""Which device to compute on, and a sentence wherever it is not the one that somebody would expect."""
from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cxr.device.hardware import Gpu, Hardware, look
from cxr.device.sentences import PAGE, Build, explain, installed_build
from cxr.errors import InputError
from cxr.utils.distributed import local_gpu, rank, world

if TYPE_CHECKING:
    from cxr.device.verdicts import Verdict

REQUEST = re.compile(r"auto|cpu|gpu(:\d+)?")


@dataclass(frozen=True)
class Choice:
    """The device to compute on.

    Attributes:
        name: for `paddle.set_device`.
        gpu: whose answers were right; None for the CPU.
        notes: sentences for the user.
    """
    name: str
    gpu: Gpu | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} ({self.gpu.name})" if self.gpu else self.name


_now: Choice | None = None                       # of this process
_right: set[str] = set()                         # GPUs whose answers were right, by Paddle's names


def use(request: str | None = None) -> Choice:
    """Choose a device and have Paddle compute on it; a warning says what the user should know of it.

    Call it before a model is made.

    Args:
        request: "auto", "cpu", "gpu" or "gpu:N"; None takes `CXR_DEVICE`, or "auto".

    Returns:
        What was chosen.

    Raises:
        InputError: a GPU is asked for that cannot be used, with the reason and the remedy.
    """
    global _now

    request = request or os.environ.get("CXR_DEVICE") or "auto"
    # A CPU that is asked for needs no look at the hardware.
    _now = choose(request, Hardware() if request == "cpu" else look(), installed_build(), verdict_of, local_gpu())
    if _now.gpu:
        _right.add(_now.name)
    elif world() > 1:
        os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"     # several processes would otherwise meet on the GPUs
    apply()
    for note in _now.notes if rank() == 0 else ():
        warnings.warn(note, stacklevel=2)
    return _now


def verdict_of(gpu: Gpu, hardware: Hardware, build: Build) -> Verdict:
    """`cxr.device.verdicts.verdict_of`, imported where there is a GPU alone: other machines start as quickly as before.
    """
    from cxr.device import verdicts

    return verdicts.verdict_of(gpu, hardware, build)


def chosen() -> Choice | None:
    """What `use` chose last, None before that."""
    return _now


def apply() -> None:
    """Have Paddle compute on the chosen device in this thread; it keeps a device for each thread."""
    import paddle

    if _now:
        paddle.set_device(_now.name)


def checked(device: str) -> bool:
    """Whether results of `device` (Paddle's name) may be believed: the CPU, or a GPU whose answers were right."""
    return device == "cpu" or device in _right


def ensure() -> None:
    """Refuse a GPU that Paddle took by itself and that computes wrong; nothing happens on the CPU.

    Raises:
        InputError: it computes wrong. Tensors may lie on that GPU already, so going on elsewhere is up to the caller.
    """
    import paddle

    device = paddle.get_device()
    if checked(device) or not device.startswith("gpu"):
        return
    try:
        choose(device, look(), installed_build(), verdict_of)
    except InputError as error:
        raise InputError(f"{error} Call `cxr.device.use()` before the model is made: it takes the CPU then.") from None
    _right.add(device)


def choose(request: str, hardware: Hardware, build: Build, verdict: Callable[[Gpu, Hardware, Build], Verdict],
           rank_gpu: int | None = None) -> Choice:
    """The device for `request`.

    Args:
        request: as of `use`.
        hardware: GPUs of this machine.
        build: its Paddle.
        verdict: whether a GPU computes right; asked of the GPUs in turn, until one does.
        rank_gpu: the GPU that a launcher gave to this process of several; no other is taken then.

    Returns:
        The device, with a note wherever it is not the one that somebody would expect.

    Raises:
        InputError: the request is none, or as `use`.
    """
    if not REQUEST.fullmatch(request):
        raise InputError(f"the device is auto, cpu, gpu or gpu:N (a number from 0), not '{request}'.")
    if request == "cpu":
        return Choice("cpu")
    wanted = int(request[4:]) if ":" in request else rank_gpu
    if rank_gpu is not None and wanted != rank_gpu:
        raise InputError(f"the launcher gave gpu:{rank_gpu} to this process, so --device cannot be {request}: choose "
                         "the GPUs with the launcher's --gpus.")
    reason = _none_at_all(hardware, build, wanted)
    if not reason:
        bad = []
        for gpu in hardware.gpus if wanted is None else hardware.gpus[wanted:wanted + 1]:
            found = verdict(gpu, hardware, build)
            if found.right:
                return Choice(gpu.device, gpu, tuple(bad))
            bad.append(f"{gpu} is not used: {explain(gpu, build, found.outcome)}.")
        reason = " ".join(bad)
    if request != "auto":
        raise InputError(reason or f"the device {request} cannot be had: there is no NVIDIA GPU here; use the CPU.")
    if rank_gpu is not None and reason:
        raise InputError(f"{reason} This process was started for that GPU: leave it out of the launcher's --gpus, or "
                         "start without the launcher.")
    return Choice("cpu", notes=(f"{reason} Computing on the CPU.",) if reason else ())


def _none_at_all(hardware: Hardware, build: Build, wanted: int | None) -> str:
    """A sentence on why no GPU can be asked, "" where one can or the machine has none."""
    if build.rocm:
        return "this Paddle is built for ROCm, which this project does not check and so does not use."
    if hardware.problem:
        return f"No GPU is used: {hardware.problem}."
    if wanted is not None and hardware.gpus and wanted >= len(hardware.gpus):
        return f"gpu:{wanted} does not exist here: the driver shows {', '.join(map(str, hardware.gpus))}."
    if hardware.gpus and not build.cuda:
        return (f"{' and '.join(map(str, hardware.gpus))} cannot be used: {build} knows no GPU; install the one for "
                f"your GPU in its place (choose it at {PAGE}).")
    return ""
