"""Which NVIDIA GPUs the driver shows to this process. Needs no Paddle, and a millisecond where there is no driver."""
from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

_NODES = ("/dev/nvidiactl", "/dev/dxg")          # of a Linux machine with an NVIDIA GPU, and of Windows' Linux
_KERNEL_MODULE = Path("/proc/driver/nvidia/version")
_MAJOR, _MINOR = 75, 76                          # attributes of cuDeviceGetAttribute
_NO_DEVICE = 100
# What users of containers and servers meet; other numbers are shown as they are.
_MEANING = {
    _NO_DEVICE: "it shows no GPU to this process: in a container, start that with `--gpus all`; look at "
                "CUDA_VISIBLE_DEVICES",
    802: "the GPUs are not ready: the service nvidia-fabricmanager does not run",
    803: "the driver's library and its kernel module are of different versions: start the machine again",
    804: "the driver is too old for this CUDA compatibility package: update the driver",
    999: "the driver reports an unknown error: start the machine again",
}


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        index: as CUDA and Paddle count, after CUDA_VISIBLE_DEVICES.
        name: that its maker gave it.
        capability: (major, minor).
        memory: bytes.
        uuid: hex.
    """
    index: int
    name: str
    capability: tuple[int, int]
    memory: int
    uuid: str

    @property
    def device(self) -> str:
        """Paddle's name of it, such as `gpu:0`."""
        return f"gpu:{self.index}"

    def __str__(self) -> str:
        return f"{self.device} ({self.name}, capability {self.capability[0]}.{self.capability[1]})"


@dataclass(frozen=True)
class Hardware:
    """The GPUs of a machine.

    Attributes:
        gpus: those that can be asked for.
        driver: its versions, "" without one.
        problem: why the machine has a GPU and `gpus` is empty all the same, a clause; "" otherwise.
    """
    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    problem: str = ""


def look() -> Hardware:
    """The GPUs of this machine, as its driver shows them."""
    library = _driver()
    if library is None:
        node = next((node for node in _NODES if Path(node).exists()), None)
        return Hardware(problem=f"{node} is there, but the driver's library libcuda.so.1 cannot be loaded: install the "
                                "NVIDIA driver, or start the container with `--gpus all`" if node else "")
    status = library.cuInit(0)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if status == _NO_DEVICE and (hidden or not any(Path(node).exists() for node in _NODES)):
        return Hardware()                        # hidden by the user, or a driver without a GPU
    if status:
        return Hardware(problem=f"the NVIDIA driver cannot be used: {_MEANING.get(status, f'CUDA error {status}')}")
    return Hardware(tuple(_gpus(library)), _versions(library))


def _driver() -> ctypes.CDLL | None:
    try:
        if sys.platform == "win32":
            return ctypes.WinDLL("nvcuda.dll")
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def _gpus(library: ctypes.CDLL) -> list[Gpu]:
    count = ctypes.c_int()
    library.cuDeviceGetCount(ctypes.byref(count))
    found = []
    for index in range(count.value):
        device, name, major, minor = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_int(), ctypes.c_int()
        memory, uuid = ctypes.c_size_t(), (ctypes.c_ubyte * 16)()
        library.cuDeviceGet(ctypes.byref(device), index)
        library.cuDeviceGetName(name, len(name), device)
        library.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        library.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
        library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        library.cuDeviceGetUuid(uuid, device)
        found.append(Gpu(index, name.value.decode(errors="replace"), (major.value, minor.value), memory.value,
                         bytes(uuid).hex()))
    return found


def _versions(library: ctypes.CDLL) -> str:
    cuda = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(cuda))
    text = f"for CUDA {cuda.value // 1000}.{cuda.value % 1000 // 10}"
    try:
        words = _KERNEL_MODULE.read_text(encoding="utf-8", errors="replace").split("\n")[0].split()
    except OSError:                              # Windows, or a container that hides it
        return text
    number = next((word for word in words if word[0].isdigit() and "." in word), "")
    return f"{number} {text}".lstrip()
