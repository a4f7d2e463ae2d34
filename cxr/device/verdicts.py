"""What was found out about a GPU, kept for the next start: the known answers take seconds."""
from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass

from cxr.device.hardware import Gpu, Hardware
from cxr.device.sentences import Build, lacks_code
from cxr.device.trial import Outcome, ask
from cxr.errors import InputError
from cxr.utils.distributed import rank
from cxr.utils.files import write_json
from cxr.utils.folders import wanted_cache, writable_cache

_now: dict[str, Outcome] = {}                    # asked in this process, also what the next one asks again


@dataclass(frozen=True)
class Verdict:
    """What was found out about a GPU.

    Attributes:
        outcome: of the known answers on it.
        remembered: whether they were asked in an earlier run.
    """
    outcome: Outcome
    remembered: bool = False

    @property
    def right(self) -> bool:
        """Whether the GPU computes right."""
        return self.outcome.kind == "right"


def verdict_of(gpu: Gpu, hardware: Hardware, build: Build, again: bool = False,
               asked: Callable[[str], Outcome] = ask) -> Verdict:
    """Whether `gpu` computes right: as remembered for this (GPU, driver, Paddle build), else found out now.

    What only another GPU, driver or Paddle changes is remembered: right answers, and a GPU without code for it. Full
    memory, missing libraries and crashes may be mended by the next start, so the GPU is asked again after them.

    Args:
        gpu: the GPU.
        hardware: its driver counts.
        build: the Paddle that is installed.
        again: ask even where a verdict is remembered.
        asked: asks a device, by default in a separate process.

    Returns:
        The verdict, right or not.
    """
    name = f"gpu-{_key(gpu, hardware, build)}.json"
    if not again and (old := _now.get(name) or _read(name)):
        return Verdict(old, remembered=True)
    if rank() == 0:
        print(f"checking {gpu} ...", file=sys.stderr, flush=True)
    outcome = _now[name] = asked(gpu.device)
    if outcome.kind == "right" or lacks_code(gpu, build, outcome):
        with suppress(OSError, InputError):      # it only saves time
            write_json(writable_cache() / name, asdict(outcome))
    else:
        _forget(name)
    return Verdict(outcome)


def _key(gpu: Gpu, hardware: Hardware, build: Build) -> str:
    # The libraries that Paddle finds are those of its environment.
    identity = [gpu.uuid, gpu.name, hardware.driver, build.version, build.commit, build.cuda, sys.prefix]
    return hashlib.sha256("\n".join(identity).encode()).hexdigest()[:32]


def _read(name: str) -> Outcome | None:
    try:
        facts = json.loads((wanted_cache() / name).read_text(encoding="utf-8"))
        return Outcome(**{**facts, "architectures": tuple(facts["architectures"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _forget(name: str) -> None:
    with suppress(OSError):
        (wanted_cache() / name).unlink(missing_ok=True)
