"""What is wrong with a GPU, and what its user can do, in a sentence."""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxr.device.hardware import Gpu
    from cxr.device.trial import Outcome

# Of the wheel in requirements.txt, which does not say so itself.
_ARCHITECTURES = {("2.6.2", "11.8"): ("61", "70", "75", "80", "86")}
PAGE = "https://www.paddlepaddle.org.cn/install/quick"          # where Paddle says how its CUDA builds are installed


@dataclass(frozen=True)
class Build:
    """The Paddle that is installed.

    Attributes:
        version: such as "2.6.2".
        commit: that it was built from, in hex, "" where it does not say.
        cuda: what it is built for, such as "11.8", "" for a CPU build.
        architectures: of the code that it holds, such as ("61", "70"), empty where it does not say.
        rocm: whether it is for AMD's GPUs and their like.
    """
    version: str
    commit: str = ""
    cuda: str = ""
    architectures: tuple[str, ...] = ()
    rocm: bool = False

    def __str__(self) -> str:
        return f"Paddle {self.version} ({f'CUDA {self.cuda}' if self.cuda else 'the CPU build'})"


def installed_build() -> Build:
    """The build of the Paddle that is imported."""
    import paddle

    version, cuda = paddle.__version__, paddle.version.cuda()
    cuda = cuda if cuda and cuda != "False" else ""
    said = getattr(paddle.version, "cuda_archs", list)()         # Paddle 3 has it
    numbers = (re.sub(r"\D", "", str(arch)) for arch in said or _ARCHITECTURES.get((version, cuda), ()))    # 90a, 9.0
    archs = tuple(number for number in numbers if number)
    return Build(version, getattr(paddle.version, "commit", ""), cuda, archs, paddle.is_compiled_with_rocm())


def covers(architectures: tuple[str, ...], capability: tuple[int, int]) -> bool:
    """Whether code for one of `architectures` runs on a GPU: it is of its generation, and not newer.

    Args:
        architectures: such as ("61", "70").
        capability: (major, minor) of the GPU.
    """
    major, minor = capability
    return any(int(arch) // 10 == major and int(arch) % 10 <= minor for arch in architectures)


def which_paddle(capability: tuple[int, int]) -> str:
    """The remedy for a GPU that the installed Paddle holds no code for."""
    if capability < (6, 1):
        return "no Paddle on the public index holds code for it: use the CPU, or build Paddle yourself"
    if capability < (9, 0):
        return "install requirements.txt and the extra cuda11 (`pip install -r requirements.txt -e .[cuda11]`)"
    cuda = "12.6" if capability < (10, 0) else "12.9"
    return (f"install Paddle 3 built for CUDA {cuda} or newer from Paddle's own index in place of this one (choose it "
            f"at {PAGE})")


def lacks_code(gpu: Gpu, build: Build, outcome: Outcome) -> bool:
    """Whether `gpu` failed because this Paddle holds no code for its generation."""
    held = build.architectures or outcome.architectures
    return outcome.kind != "right" and (outcome.no_code or bool(held) and not covers(held, gpu.capability))


def explain(gpu: Gpu, build: Build, outcome: Outcome) -> str:
    """Why a GPU cannot be used, and the remedy.

    Args:
        gpu: that cannot be used.
        build: the Paddle that is installed.
        outcome: of the known answers on it.

    Returns:
        Two clauses joined by a colon, without a full stop.
    """
    detail = outcome.detail.lower()
    if lacks_code(gpu, build, outcome):
        held = sorted((int(arch) // 10, int(arch) % 10) for arch in build.architectures or outcome.architectures)
        holds = f"code for capabilities {_dotted(held[0])} to {_dotted(held[-1])} and none" if held else "no code"
        return (f"{build} holds {holds} for {_dotted(gpu.capability)}, and {_symptom(outcome)}: "
                f"{which_paddle(gpu.capability)}")
    if "out of memory" in detail or "resourceexhausted" in detail:
        return "its memory is full: end the other programs that use it (nvidia-smi lists them), or choose another GPU"
    if "driver version is insufficient" in detail or "cuda error(35)" in detail:
        return f"its driver is too old for CUDA {build.cuda}: update the NVIDIA driver"
    if "all cuda-capable devices are busy" in detail or "cuda error(46)" in detail:
        return "another program has it to itself: end that program (nvidia-smi lists them), or choose another GPU"
    if _missing_library(outcome.detail):
        library = "cuDNN 8 or another library of CUDA 11.8" if build.cuda.startswith("11") else "a library of CUDA"
        remedy = ("`pip install -e .[cuda11]`, which this project then finds by itself"
                  if build.version.startswith("2.") else f"install Paddle with its libraries as {PAGE} says")
        return f"{library} was not found or does not fit ({outcome.detail}): {remedy}"
    return (f"{_symptom(outcome)}: run `python tools/doctor.py` and look at the driver (nvidia-smi); if that is well, "
            f"install the Paddle for this GPU (choose it at {PAGE})")


def failure(error: Exception, device: str) -> str | None:
    """A sentence for an exception that says that a device failed while it worked.

    Args:
        error: that Paddle raised.
        device: Paddle's name of it.

    Returns:
        None for any other exception.
    """
    text = " ".join(str(error).split())
    if "Out of memory error" in text or "ResourceExhausted" in text:
        return (f"the memory of {device} is full: lower --batch_size (in training --accumulate keeps the steps as they "
                "are), or end the other programs that use it; what was saved before stays.")
    if isinstance(error, MemoryError):
        return "this machine's memory is full: lower --batch_size or --num_workers; what was saved before stays."
    if _missing_library(text):
        return (f"{device} lacks a library ({text[:150]}): see the table of GPUs in README, and run `python "
                "tools/doctor.py`; what was saved before stays.")
    said = re.search(r"(CUDA|CUDNN|CUBLAS|NCCL) error.{0,100}", text, re.IGNORECASE)
    if said is None:
        return None
    reason = said[0].split(" [Hint")[0]
    return (f"{device} failed ({reason}): go on with --device cpu, and run `python tools/doctor.py`; what was saved "
            "before stays.")


def _missing_library(text: str) -> bool:
    """Whether Paddle says that it cannot load a library of CUDA's; the driver's is another matter."""
    return bool(re.search(r"dynamic library|(cannot|not) (be )?(load|open|found|configured).*(cudnn|cublas|libcu)"
                          r"|(cudnn|cublas|libcu).*(cannot|not) (be )?(load|open|found|configured)", text,
                          re.IGNORECASE)) and "libcuda.so" not in text


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _symptom(outcome: Outcome) -> str:
    return {"right": "all known answers are right",
            "wrong": f"computes wrong numbers there without an error ({outcome.stage})",
            "hung": f"hangs there ({outcome.stage}, given up after {outcome.detail})",
            "aborted": f"crashes there ({outcome.stage}: {outcome.detail.rstrip('; ')})",
            "failed": f"fails there ({outcome.stage}: {outcome.detail})"}[outcome.kind]
