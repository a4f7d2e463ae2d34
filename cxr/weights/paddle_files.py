"""Checkpoints in and out, without running code from them.

A `.pdparams` file is a pickle, and `paddle.load` unpickles whatever it finds: a hostile file runs
code. `read_weights` admits only what a dictionary of NumPy arrays needs, and lets the file call none of
it: requests are noted and the arrays are then built here, so the worst that can happen is a refusal.
`load_weights` compares every key and shape before it sets the first value, where `set_state_dict` would
warn and go on with half a model.

Files written by `save_weights` are ordinary Paddle checkpoints (`paddle.load` reads them) with one more
entry, `META_KEY`: a JSON text with architecture, class names and preprocessing.
"""
from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from cxr.errors import InputError
from cxr.utils.files import replacing
from cxr.weights.unpickling import Noted, PlainDict

if TYPE_CHECKING:                                  # files are read and written without Paddle
    from paddle.nn import Layer

META_KEY = "cxr.meta"
_PADDLE_NAMES = "StructuredToParameterName@@"      # Paddle's own table of variable names
_PADDLE_SPLIT = "UnpackBigParamInfor@@"            # arrays of over 1 GiB, cut in pieces by Paddle
_WRAPPERS = ("state_dict", "model", "model_state_dict", "params")


# What pickle may look up in a file, and what it gets: exactly what arrays and dictionaries are rebuilt from.
_ADMITTED = {
    ("collections", "OrderedDict"): PlainDict,
    ("_codecs", "encode"): partial(Noted, "encode"),               # protocols below 3 write bytes as text
    ("__builtin__", "bytes"): lambda: b"",                         # and none at all like this
    ("numpy", "ndarray"): partial(Noted, "ndarray"),
    ("numpy", "dtype"): partial(Noted, "dtype"),
    ("builtins", "tuple"): tuple,                                  # Paddle wraps nested tensors as (name, array)
    ("__builtin__", "tuple"): tuple,
}
for _core in ("numpy.core", "numpy._core"):                        # NumPy 1 and 2
    _ADMITTED[_core + ".multiarray", "_reconstruct"] = partial(Noted, "_reconstruct")
    _ADMITTED[_core + ".multiarray", "scalar"] = partial(Noted, "scalar")
    _ADMITTED[_core + ".numeric", "_frombuffer"] = partial(Noted, "_frombuffer")      # protocol 5

TORCH_ZIP = b"PK\x03\x04"
TORCH_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."       # what PyTorch's files before 1.6 begin with
_FOREIGN = (
    (TORCH_ZIP, "a zip archive, as PyTorch writes its checkpoints: convert it with tools/convert.py first"),
    (b"\x80\x02" + TORCH_LEGACY, "an old PyTorch checkpoint: convert it with tools/convert.py first"),
    (b"<", "a web page: the download went wrong, fetch the file itself"),
    (b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull` to fetch the weights themselves"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\x93NUMPY", "a single NumPy array, not a checkpoint"),
)


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> partial:
        if (module, name) not in _ADMITTED:
            raise InputError(f"it asks for {module}.{name}, which no weights file needs and which could run code; "
                             "do not open it with paddle.load either")
        # A wrapper of its own each time: a pickle can set attributes, and must not leave any to the next file.
        return partial(_ADMITTED[module, name])


def _array(noted: Noted) -> np.ndarray:
    """The array that a pickle described. It fails with nearly any exception where the description is odd."""
    if noted.what == "_reconstruct":
        _, shape, dtype, fortran, data = noted.state
    elif noted.what == "_frombuffer":
        data, dtype, shape, order = noted.arguments
        fortran = order == "F"
    elif noted.what == "scalar":
        (dtype, data), shape, fortran = noted.arguments, (), False
    else:
        raise TypeError(f"not an array but a {noted.what}")
    kind = np.dtype(dtype.arguments[0])
    if kind.kind not in "fiub":
        raise TypeError(f"not numbers but {kind}")
    kind = kind.newbyteorder(dtype.state[1] if dtype.state else "=")
    flat = np.frombuffer(_bytes(data), kind)
    return flat.reshape(shape, order="F" if fortran else "C").astype(kind.newbyteorder("="))


def _bytes(data: object) -> object:
    if isinstance(data, Noted):
        data, encoding = data.arguments
        if encoding != "latin1":
            raise TypeError(f"bytes written as {encoding}")
    return data.encode("latin1") if isinstance(data, str) else data


def read_weights(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict]:
    """Read a checkpoint file without running code from it.

    It reads what `paddle.save` of Paddle 2.0 to 3.x writes for a state dict, pickled dictionaries of NumPy
    arrays, and such a dictionary one level down under `state_dict`, `model`, `model_state_dict` or
    `params`. The `module.` prefix of multi-GPU training is stripped.

    Returns:
        `(state, meta)`: key -> array in file order, and what `save_weights` stored (`{}` if nothing).

    Raises:
        InputError: names the file that is anything else.
    """
    path = Path(path)
    with one_sentence(path, "Paddle checkpoint"), open(path, "rb") as file:
        _refuse_foreign(path, file.read(64))
        file.seek(0)
        content = _ArrayUnpickler(file, encoding="latin1").load()
    return _as_state(path, content)


@contextmanager
def one_sentence(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever reading a checkpoint raises into one sentence that names it.

    Args:
        path: of the checkpoint.
        kind: what it should be, such as "Paddle checkpoint".

    Raises:
        InputError: anything was raised.
    """
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check the path of the checkpoint.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder: name the file of weights in it.") from None
    except PermissionError:
        raise InputError(f"{path} may not be read: check its permissions.") from None
    except InputError as refusal:
        text = str(refusal)
        raise InputError(text if text.startswith(str(path)) else f"{path} is refused: {text}.") from None
    # A damaged pickle can fail with nearly any exception, from EOFError to AttributeError.
    except Exception as error:
        raise InputError(f"{path} is damaged, cut short or no {kind} ({error}): "
                         "copy or download it again.") from error


def _refuse_foreign(path: Path, head: bytes) -> None:
    if not head:
        raise InputError(f"{path} is empty: copy or download it again.")
    for magic, what in _FOREIGN:
        if head.lstrip().startswith(magic):
            raise InputError(f"{path} is {what}.")


def _as_state(path: Path, content: object) -> tuple[dict[str, np.ndarray], dict]:
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no dictionary of weights: save model.state_dict().")
    meta = read_meta(path, content.get(META_KEY))
    state = {}
    for key, value in unwrap(content).items():
        if key in (_PADDLE_NAMES, META_KEY):
            continue
        if key == _PADDLE_SPLIT:
            raise InputError(f"{path} holds arrays cut in pieces of 1 GiB, which no model here has: "
                             "check that it is the right file.")
        if isinstance(value, tuple) and len(value) == 2:           # Paddle's (name, array)
            value = value[1]
        if not isinstance(key, str):
            raise InputError(f"{path} names a weight by a {type(key).__name__}, not by text: save model.state_dict().")
        if not isinstance(value, Noted):
            raise InputError(f"{path} holds {type(value).__name__} under '{key}', not an array of numbers: "
                             "save model.state_dict() alone.")
        try:
            state[key] = _array(value)
        except Exception as error:
            raise InputError(f"{path} holds no readable array of numbers under '{key}' ({error}): "
                             "save model.state_dict() alone, or copy the file again.") from None
    if not state:
        raise InputError(f"{path} holds no weights: save model.state_dict().")
    return strip_module(state), meta


def unwrap(content: dict) -> dict:
    """The dictionary of weights in a checkpoint: itself, or one level down under a usual name."""
    return next((content[name] for name in _WRAPPERS if isinstance(content.get(name), dict)), content)


def strip_module(state: dict) -> dict:
    """`state` without the prefix of multi-GPU training, if all its keys have it."""
    prefix = "module."
    if all(key.startswith(prefix) for key in state):
        return {key[len(prefix):]: value for key, value in state.items()}
    return state


def read_meta(path: Path, text: object) -> dict:
    """The metadata that `save_weights` stored.

    Args:
        path: of the checkpoint, for the sentence.
        text: what it holds as metadata, of any type as the file may be hostile; None for nothing.

    Returns:
        The metadata; `{}` for None.

    Raises:
        InputError: it is not a JSON object.
    """
    if text is None:
        return {}
    try:
        meta = json.loads(text)
        if isinstance(meta, dict):
            return meta
    except (TypeError, ValueError, RecursionError):
        pass
    raise InputError(f"{path} carries unreadable metadata under '{META_KEY}': save it again with save_weights.")


def load_weights(model: Layer, path: str | os.PathLike) -> dict:
    """Fill `model` from the file `path`, all of it or nothing.

    Every key and shape is compared before the first value is set, and values must be finite.

    Returns:
        The metadata stored by `save_weights` (`{}` for a bare published file).

    Raises:
        InputError: the file cannot be read, or does not fit the model.
    """
    state, meta = read_weights(path)
    fill(model, state, path)
    return meta


def fill(model: Layer, state: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    """Set the weights of `model` to `state`, as read from `path`, once every key and shape is seen to fit.

    Raises:
        InputError: as `check_state`.
    """
    weights = model.state_dict()
    check_state(state, {key: tuple(value.shape) for key, value in weights.items()}, path)
    for key, tensor in weights.items():
        tensor.set_value(state[key].astype(str(tensor.dtype).rsplit(".", 1)[-1]))


def check_state(state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple], path: str | os.PathLike) -> None:
    """Refuse weights that are not those of a model.

    Args:
        state: as read.
        shapes: key -> shape, of the model.
        path: where `state` was read from, for the sentence.

    Raises:
        InputError: `state` has other keys or shapes, holds whole numbers, or values that are not finite.
    """
    missing = [key for key in shapes if key not in state]
    unexpected = [key for key in state if key not in shapes]
    if missing or unexpected:
        parts = [f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
                 for what, keys in (("keys are missing", missing), ("are unexpected", unexpected)) if keys]
        raise InputError(f"{path} does not fit this model: of {len(shapes)} weights " + " and ".join(parts)
                         + "; it belongs to another architecture.")
    for key, shape in shapes.items():
        if tuple(state[key].shape) != tuple(shape):
            raise InputError(f"{path} does not fit this model: '{key}' has shape {list(state[key].shape)}, "
                             f"{list(shape)} is needed; it belongs to another variant or number of classes.")
        if state[key].dtype.kind != "f":
            raise InputError(f"{path} holds whole numbers ({state[key].dtype}) in '{key}', as Paddle writes bfloat16: "
                             "save it as float32.")
        with np.errstate(over="ignore"):         # float64 that float32 cannot hold
            finite = np.isfinite(state[key].astype("float32")).all()
        if not finite:
            raise InputError(f"{path} holds NaN or infinite values in '{key}': the training diverged, "
                             "use an earlier checkpoint.")


def save_weights(model: Layer | Mapping, path: str | os.PathLike, meta: Mapping | None = None) -> None:
    """Write the weights of a model to a file, which appears whole or not at all.

    It is written beside its final place, flushed to disk, then renamed.

    Args:
        model: or its state dict.
        path: of the file.
        meta: travels inside the file; must be JSON-serialisable.

    Raises:
        OSError: the disk is full.
    """
    with replacing(path) as file:
        write_state(file, model.state_dict() if hasattr(model, "state_dict") else model, meta)


def write_state(file: BinaryIO, state: Mapping, meta: Mapping | None = None) -> None:
    """Write a state dict and `meta`, as `save_weights` does, to an open file."""
    content: dict = OrderedDict((key, np.asarray(value)) for key, value in state.items())
    content[_PADDLE_NAMES] = {key: getattr(value, "name", key) for key, value in state.items()}
    if meta:
        content[META_KEY] = json.dumps(meta)
    pickle.dump(dict(content), file, protocol=4)
