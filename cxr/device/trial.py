"""The known answers, asked of one GPU in a separate process: it may compute zeros, abort or hang."""
from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr.device.known_answers import EXPECTED, wrong

TIME_LIMIT = 120.0                               # seconds; the first use of a GPU takes up to twenty
# With the parent's path, whatever it was put together from.
_CODE = ("import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
         "from cxr.device.known_answers import main; main(sys.argv[1])")
_ARCHITECTURES = re.compile(r"with arch: ([\d ]+)")            # what Paddle 2.6 and 3 warn of
_UNSUPPORTED = re.compile(r"capability in your current machine is (\d+), which is not supported by Paddle")
_CUDNN = re.compile(r"cuDNN Version: ([\d.]+\d)")


@dataclass(frozen=True)
class Outcome:
    """How the known answers came out.

    Attributes:
        kind: "right", "wrong" (numbers), "aborted" (the process died), "hung" (the time was up), "failed" (Paddle
            raised an exception).
        stage: the first that was not right, "" if all were.
        detail: what Paddle said, the signal, or the seconds waited.
        architectures: those that Paddle, in a warning, said it holds code for, such as ("61", "70").
        no_code: whether it warned that it holds none for this GPU.
        cudnn: version that was loaded.
    """
    kind: str
    stage: str = ""
    detail: str = ""
    architectures: tuple[str, ...] = ()
    no_code: bool = False
    cudnn: str = ""


def ask(device: str, command: Sequence[str] | None = None, seconds: float = TIME_LIMIT) -> Outcome:
    """Have a device compute the known answers.

    Args:
        device: such as "gpu:0".
        command: prints the stages as `cxr.device.known_answers` does, by default that itself.
        seconds: after which the process is killed.

    Returns:
        How they came out, whatever became of the process.
    """
    path = [str(Path(__file__).resolve().parents[2]), *(place for place in sys.path if isinstance(place, str))]
    command = command or [sys.executable, "-c", _CODE, device, json.dumps(path)]
    # Its warnings say what the GPU lacks. One process, whatever launcher started this one.
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(("PADDLE_", "FLAGS_selected_gpus"))}
    environment["GLOG_minloglevel"] = "0"
    try:
        status, out, said = _run(command, environment, seconds)
    except OSError as error:
        return Outcome("failed", next(iter(EXPECTED)), f"the check cannot be started: {error.strerror}")
    return judge(status, out, said, seconds)


def _run(command: Sequence[str], environment: Mapping[str, str], seconds: float) -> tuple[int | None, str, str]:
    """Exit status (None: the time was up), standard output and standard error of a process."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=said, env=environment,
                                   start_new_session=True)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
            process.kill()                       # nobody waits for it: one that is stuck in the driver does not end
        except BaseException:                    # Ctrl-C reaches this process alone
            process.kill()
            raise
        texts = []
        for file in (out, said):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return status, *texts


def judge(status: int | None, out: str, said: str, seconds: float) -> Outcome:
    """The outcome, from what a process left behind.

    Args:
        status: its exit status; None where it was killed after `seconds`.
        out: its standard output.
        said: its standard error.
        seconds: that it was given.
    """
    known = {"architectures": tuple(_first(_ARCHITECTURES, said).split()),
             "no_code": bool(_first(_UNSUPPORTED, said)), "cudnn": _first(_CUDNN, said)}
    left = list(EXPECTED)
    for line in out.splitlines():
        try:
            answer = json.loads(line)
            stage, numbers = answer["stage"], answer["numbers"]
        except (ValueError, TypeError, KeyError):
            continue                             # something else that a library printed
        if not left or stage != left[0]:
            break
        if wrong(stage, numbers):
            return Outcome("wrong", stage, **known)
        left.pop(0)
    if status is None:
        return Outcome("hung", left[0] if left else "the end", f"{seconds:.0f} s", **known)
    if status == 0 and not left:
        return Outcome("right", **known)
    stage = left[0] if left else "the end"
    if status < 0 or status > 128 or "C++ Traceback" in said:
        return Outcome("aborted", stage, _signal(status) + _reason(said), **known)
    return Outcome("failed", stage, _reason(said), **known)


def _first(pattern: re.Pattern, text: str) -> str:
    found = pattern.search(text)
    return found.group(1) if found else ""


def _signal(status: int) -> str:
    number = -status if status < 0 else status - 128
    try:
        return f"{signal.Signals(number).name}; "
    except ValueError:
        return f"status {status}; "


def _reason(said: str) -> str:
    """The line of an error output that says most: Paddle's sentence, else the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"error|cannot|failed|not found|out of memory", line, re.IGNORECASE)
               and not line.startswith(("File ", "Traceback"))]
    return (telling or lines or [""])[-1][:300]
