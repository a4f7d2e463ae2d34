"""What a training run needs to go on exactly where it stopped, and the lock of its folder.

One file holds weights, optimizer, schedule, loss scaler, position and history, and ends with its SHA-256. It is
read like any weights file (`cxr.weights`), without running code from it. The one before is kept until the next is
complete. No random state is in it: order, augmentation and dropout are drawn from (seed, epoch, step) alone.
"""
from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np

from cxr.errors import InputError
from cxr.utils.distributed import rank
from cxr.utils.files import replacing
from cxr.weights.paddle_files import fill, read_weights, write_state

NEWEST, PREVIOUS, LOCK = "resume.ckpt", "resume.previous.ckpt", ".lock"
_RESULTS = (NEWEST, PREVIOUS, "best.pdparams", "last.pdparams", "history.csv")
_TRAILER = b"\nsha256:"
_MODEL, _OPTIMIZER = "model/", "optimizer/"


@dataclass(frozen=True)
class Saved:
    """A checkpoint: arrays by name, and everything else as JSON can hold it."""
    arrays: dict[str, np.ndarray]
    facts: dict


@contextmanager
def claim(folder: str | os.PathLike, resume: bool = False, overwrite: bool = False) -> Iterator[Saved | None]:
    """Hold `folder` for one training: `with claim(folder, resume=True) as saved:`.

    Gives the checkpoint to go on from, or None where a new run begins. The lock is the system's, so a killed process
    leaves none behind. Of several processes only rank 0 locks; all of them read.

    Raises `InputError` where another process trains into the folder, where it holds a run already and neither
    `resume` nor `overwrite` (which deletes that run) is set, and where no checkpoint of a run to resume can be read.
    """
    folder = Path(folder)
    if rank() > 0:
        yield read(folder) if resume and _holds_run(folder) else None
        return
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise InputError(f"another process trains into {folder}: wait for it, or name another --save_dir.") from None
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror}): choose another --save_dir.") from None
    try:
        for path in folder.iterdir():            # what a killed process had begun to write
            if re.fullmatch(r"\.[0-9a-f]{32}\.tmp", path.name):
                path.unlink()
        if _holds_run(folder) and overwrite:
            for name in _RESULTS:
                (folder / name).unlink(missing_ok=True)
        if _holds_run(folder) and not resume:
            raise InputError(f"{folder} holds a run already: go on with it (--resume), name another --save_dir, or "
                             "delete it (--overwrite).")
        yield read(folder) if _holds_run(folder) else None
    finally:
        lock.release()
        if new and not any(path.name != LOCK for path in folder.iterdir()):
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()


def _holds_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in _RESULTS)


class _Hashing:
    """A file that computes the SHA-256 of what is written to it."""

    def __init__(self, file):
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data) -> int:
        self.digest.update(data)
        return self.file.write(data)


def write(folder: Path, saved: Saved) -> None:
    """Make `saved` the newest checkpoint of `folder`, and the one that was it the previous one.

    Raises `OSError` where the disk is full; the checkpoints that were there stay.
    """
    newest = folder / NEWEST
    with replacing(newest) as file:
        hashing = _Hashing(file)
        write_state(hashing, saved.arrays, saved.facts)
        file.write(_TRAILER + hashing.digest.hexdigest().encode())
        file.flush()
        os.fsync(file.fileno())                  # the new one is safe before the old one gives up its name
        if newest.exists():
            os.replace(newest, folder / PREVIOUS)


def read(folder: Path) -> Saved:
    """The newest checkpoint of `folder` that is whole; warns where that is the previous one.

    Raises `InputError` where there is none.
    """
    reasons = []
    for path in (folder / NEWEST, folder / PREVIOUS):
        try:
            saved = _read(path)
        except FileNotFoundError:
            continue
        except InputError as error:
            reasons.append(str(error).rstrip("."))
            continue
        if reasons:
            warnings.warn(f"{reasons[0]}; going on from the one before it.", stacklevel=2)
        return saved
    if reasons:
        raise InputError(f"no checkpoint in {folder} can be used: {'; '.join(reasons)}. Begin again with --overwrite.")
    raise InputError(f"{folder} holds a run without a checkpoint, which cannot be resumed: name another --save_dir, or "
                     "delete it (--overwrite).")


def _read(path: Path) -> Saved:
    length = len(_TRAILER) + 64
    with open(path, "rb") as file:
        left = os.fstat(file.fileno()).st_size - length
        digest = hashlib.sha256()
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
        if left < 0 or file.read() != _TRAILER + digest.hexdigest().encode():
            raise InputError(f"{path} is damaged, its checksum is wrong.")
    return Saved(*read_weights(path))


def collect(model, optimizer, held: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights and optimizer state, by names that do not depend on what else the process has built.

    `held`: what `restore` returned, until the optimizer has made a step: before that Paddle 2 does not give it out.
    """
    state = model.state_dict()
    arrays = {**held, **{_MODEL + key: value.numpy() for key, value in state.items()}}
    keys = {value.name: key for key, value in state.items()}
    for name, value in optimizer.state_dict().items():
        if name != "LR_Scheduler" and hasattr(value, "numpy"):
            parameter = next(own for own in keys if name.startswith(own + "_"))
            arrays[f"{_OPTIMIZER}{keys[parameter]}/{name[len(parameter) + 1:]}"] = value.numpy()
    return arrays


def restore(saved: Saved, model, optimizer, scheduler: Mapping, path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Fill `model` and `optimizer`, whose schedule gets the state `scheduler`; returns the optimizer's arrays.

    Raises `InputError`, naming `path`, if the weights do not fit.
    """
    import paddle
    fill(model, {key[len(_MODEL):]: value for key, value in saved.arrays.items() if key.startswith(_MODEL)}, path)
    names = {key: value.name for key, value in model.state_dict().items()}
    held = {key: value for key, value in saved.arrays.items() if key.startswith(_OPTIMIZER)}
    state: dict = {"LR_Scheduler": scheduler}
    for key, value in held.items():
        parameter, accumulator = key[len(_OPTIMIZER):].rsplit("/", 1)
        state[f"{names[parameter]}_{accumulator}"] = paddle.to_tensor(value)
    optimizer.set_state_dict(state)
    return held


def check_same(saved: Mapping, now: Mapping, folder: str | os.PathLike) -> None:
    """Raise `InputError` that names the first thing (a flag, or what it stands for) in which two runs differ."""
    for name in [*saved, *(name for name in now if name not in saved)]:
        before, after = saved.get(name), now.get(name)
        if before != after:
            raise InputError(f"the run in {folder} was begun with {_told(name, before)}, not {_told(name, after)}: go "
                             "on as it was begun, or name another --save_dir.")


def _told(name: str, value: object) -> str:
    if isinstance(value, bool) or value is None:
        return name if value else f"no {name}"
    return f"{name} {value}"
