"""What a training run needs to go on exactly where it stopped, and the lock of its folder.

The resume state is one file with weights, optimizer, schedule, loss scaler, position and history, which ends with its
SHA-256. It is read like any weights file (`cxr.weights`), without running code from it. The one before is kept until
the next is complete. No random state is in it: order, augmentation and dropout are drawn from (seed, epoch, step)
alone. `ResumeWriter` says when one is due and writes it.
"""
from __future__ import annotations

import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import filelock
import numpy as np

from cxr.errors import InputError
from cxr.training.history import History
from cxr.utils.distributed import gather, rank, world
from cxr.utils.files import replacing
from cxr.weights.paddle_files import fill, read_weights, write_state

NEWEST, PREVIOUS, LOCK = "resume.ckpt", "resume.previous.ckpt", ".lock"
_RESULTS = (NEWEST, PREVIOUS, "best.pdparams", "last.pdparams", "history.csv")
_TRAILER = b"\nsha256:"
_MODEL, _OPTIMIZER = "model/", "optimizer/"
_SAVE_EVERY = 10.0                               # minutes
_SHARE = 0.01                                    # of the time that writing may take


@dataclass(frozen=True)
class Saved:
    """A resume state: arrays by name, and everything else as JSON can hold it."""
    arrays: dict[str, np.ndarray]
    facts: dict


@dataclass
class Position:
    """Where a run stands.

    Attributes:
        epoch: the one that is being trained, from 1.
        done: steps of it that are made.
        step: steps that are made in all epochs.
        rate: learning rate of the last step.
        loss_sum, accuracy_sum: of the images of this epoch so far, `seen` in number.
        seconds: that this epoch has taken so far.
    """
    epoch: int = 1
    done: int = 0
    step: int = 0
    rate: float = 0.0
    loss_sum: float = 0.0
    accuracy_sum: float = 0.0
    seen: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"after {self.step} steps; the same command with --resume goes on from there"


@contextmanager
def claim(folder: str | os.PathLike, resume: bool = False, overwrite: bool = False) -> Iterator[Saved | None]:
    """Hold `folder` for one training: `with claim(folder, resume=True) as saved:`.

    The lock is the system's, so a killed process leaves none behind. Of several processes only rank 0 locks; all of
    them read.

    Args:
        folder: of the run; made if it is not there.
        resume: go on with the run that it holds.
        overwrite: delete the run that it holds.

    Yields:
        The resume state to go on from, or None where a new run begins.

    Raises:
        InputError: another process trains into the folder, it holds a run already and neither `resume` nor
            `overwrite` is set, or no resume state of a run to resume can be read.
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
    """Make `saved` the newest resume state of `folder`, and the one that was the newest the previous one.

    Raises:
        OSError: the disk is full; the states that were there stay.
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
    """The newest resume state of `folder` that is whole; warns where that is the previous one.

    Raises:
        InputError: there is none.
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


class ResumeWriter:
    """Writes the resume state of one training, and takes the training up from one.

    All processes stand at the same place, so that the state of rank 0 serves them all: the others write nothing.

    Args:
        folder: of the run.
        identity: what makes a run the same one (`identity_of`).
        save_every: minutes between two states; None takes ten, or more where writing would otherwise take over 1 % of
            the time.
        model, optimizer, scheduler, scaler: whose state it is.
    """

    def __init__(self, folder: Path, identity: Mapping, save_every: float | None, *, model, optimizer, scheduler,
                 scaler):
        self.folder, self.identity, self.save_every = folder, identity, save_every
        self.model, self.optimizer, self.scheduler, self.scaler = model, optimizer, scheduler, scaler
        self._written_at, self._write_seconds = time.monotonic(), 0.0
        self._optimizer_arrays: dict[str, np.ndarray] = {}      # as restored, until the optimizer has made a step

    def restore(self, saved: Saved) -> tuple[Position, History]:
        """Fill model, optimizer, schedule and scaler; returns where the run stands and what has happened in it.

        Raises:
            InputError: it is the state of another run.
        """
        check_same(saved.facts["identity"], self.identity, self.folder)
        self._optimizer_arrays = restore(saved, self.model, self.optimizer, saved.facts["scheduler"], self.folder)
        if self.scaler.is_enable():
            self.scaler.load_state_dict(saved.facts["scaler"])
        return Position(**saved.facts["position"]), History(**saved.facts["history"])

    def stepped(self) -> None:
        """Note that the optimizer has made a step, so that its state is no longer the one that was restored."""
        self._optimizer_arrays = {}

    def due(self) -> bool:
        """Whether the last state is so old that it is time for the next."""
        pause = (max(60 * _SAVE_EVERY, self._write_seconds / _SHARE) if self.save_every is None
                 else 60 * self.save_every)
        return time.monotonic() - self._written_at >= pause

    def save(self, position: Position, history: History) -> None:
        """Write the state.

        Raises:
            InputError: the disk is full; the state before is whole then.
        """
        if rank() > 0:
            return
        began = time.monotonic()
        scaler = {name: np.asarray(value).tolist() for name, value in self.scaler.state_dict().items()}
        facts = {"identity": self.identity, "position": asdict(position), "history": asdict(history),
                 "scheduler": self.scheduler.state_dict(), "scaler": scaler}
        with self.explaining_a_full_disk():
            write(self.folder, Saved(collect(self.model, self.optimizer, self._optimizer_arrays), facts))
        self._written_at = time.monotonic()
        self._write_seconds = self._written_at - began

    def stop(self, position: Position, history: History) -> NoReturn:
        """Write the state and raise `KeyboardInterrupt` that says how to go on."""
        self.save(position, history)
        raise KeyboardInterrupt(str(position))

    @contextmanager
    def explaining_a_full_disk(self) -> Iterator[None]:
        """Turn an `OSError` of what is written within into an `InputError` that says what to do."""
        try:
            yield
        except OSError as error:
            raise InputError(f"{self.folder} cannot be written to ({error.strerror}): free some space, then go on with "
                             "--resume; the last checkpoint is whole.") from None


def identity_of(flags: Mapping, train_set, val_set) -> dict:
    """What makes a run the same one: its flags, the number of processes, the images and their labels.

    Raises:
        InputError: the processes do not agree on it.
    """
    identity = json.loads(json.dumps({
        **flags, "processes": world(), "the training images": _digest(train_set),
        "the validation images": _digest(val_set), "classes": list(train_set.class_names)}))
    if any(other != identity for other in gather(identity)):
        raise InputError("the processes were not started with the same flags and images: give all nodes the same.")
    return identity


def _digest(dataset) -> str:
    """How many images a set has, and a checksum of their names and labels."""
    digest = hashlib.sha256("\n".join(dataset.names).encode())
    digest.update(np.ascontiguousarray(dataset.labels).tobytes())
    return f"({len(dataset)}, checksum {digest.hexdigest()[:12]})"


def collect(model, optimizer, restored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights and optimizer state, by names that do not depend on what else the process has built.

    Args:
        model, optimizer: whose state it is.
        restored: what `restore` returned, until the optimizer has made a step: before that Paddle 2 does not give it
            out.
    """
    state = model.state_dict()
    arrays = {**restored, **{_MODEL + key: value.numpy() for key, value in state.items()}}
    keys = {value.name: key for key, value in state.items()}
    for name, value in optimizer.state_dict().items():
        if name != "LR_Scheduler" and hasattr(value, "numpy"):
            parameter = next(key for key in keys if name.startswith(key + "_"))
            arrays[f"{_OPTIMIZER}{keys[parameter]}/{name[len(parameter) + 1:]}"] = value.numpy()
    return arrays


def restore(saved: Saved, model, optimizer, scheduler: Mapping, path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Fill `model` and `optimizer`, whose schedule gets the state `scheduler`.

    Returns:
        The arrays of the optimizer.

    Raises:
        InputError: the weights do not fit; it names `path`.
    """
    import paddle
    fill(model, {key[len(_MODEL):]: value for key, value in saved.arrays.items() if key.startswith(_MODEL)}, path)
    names = {key: value.name for key, value in model.state_dict().items()}
    arrays = {key: value for key, value in saved.arrays.items() if key.startswith(_OPTIMIZER)}
    state: dict = {"LR_Scheduler": scheduler}
    for key, value in arrays.items():
        parameter, accumulator = key[len(_OPTIMIZER):].rsplit("/", 1)
        state[f"{names[parameter]}_{accumulator}"] = paddle.to_tensor(value)
    optimizer.set_state_dict(state)
    return arrays


def check_same(saved: Mapping, now: Mapping, folder: str | os.PathLike) -> None:
    """Compare what makes a run the same one.

    Raises:
        InputError: two runs differ; it names the first thing (a flag, or what it stands for) in which they do.
    """
    for name in [*saved, *(name for name in now if name not in saved)]:
        before, after = saved.get(name), now.get(name)
        if before != after:
            raise InputError(f"the run in {folder} was begun with {_described(name, before)}, not "
                             f"{_described(name, after)}: go on as it was begun, or name another --save_dir.")


def _described(name: str, value: object) -> str:
    if isinstance(value, bool) or value is None:
        return name if value else f"no {name}"
    return f"{name} {value}"
