"""Checkpoints in and out, without running code from them.

A `.pdparams` file is a pickle, and `paddle.load` unpickles whatever it finds: a hostile file runs
code. `read_weights` admits only what a dictionary of NumPy arrays needs, so the worst a file can do is
to be refused. `load_weights` compares every key and shape before it sets the first value, where
`set_state_dict` would warn and go on with half a model.

Files written by `save_weights` are ordinary Paddle checkpoints (`paddle.load` reads them) with one more
entry, `META_KEY`: a JSON text with architecture, class names and preprocessing.
"""
from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cxr.errors import InputError
from cxr.files import replacing

META_KEY = "cxr.meta"
_PADDLE_NAMES = "StructuredToParameterName@@"      # Paddle's own table of variable names
_PADDLE_SPLIT = "UnpackBigParamInfor@@"            # arrays of over 1 GiB, cut in pieces by Paddle
_WRAPPERS = ("state_dict", "model", "model_state_dict", "params")

# What pickle may look up in a file: exactly what arrays and dictionaries are rebuilt from.
_ADMITTED = {
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),    # the same, as NumPy 2 writes it
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),        # protocol 5
    ("numpy.core.numeric", "_frombuffer"),
    ("builtins", "tuple"),                         # Paddle wraps nested tensors as (name, array)
    ("__builtin__", "tuple"),
}

_FOREIGN = (
    (b"PK\x03\x04", "a zip archive, as PyTorch writes its checkpoints: a Paddle .pdparams file is needed"),
    (b"<", "a web page: the download went wrong, fetch the file itself"),
    (b"version https://git-lfs", "a Git LFS pointer: run `git lfs pull` to fetch the weights themselves"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\x93NUMPY", "a single NumPy array, not a checkpoint"),
)


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) not in _ADMITTED:
            raise InputError(f"it asks for {module}.{name}, which no weights file needs and which could run code; "
                             "do not open it with paddle.load either")
        if module.startswith("numpy._core") and not hasattr(np, "_core"):
            module = module.replace("numpy._core", "numpy.core")       # written under NumPy 2, read under 1
        elif module.startswith("numpy.core") and hasattr(np, "_core"):
            module = module.replace("numpy.core", "numpy._core")
        return super().find_class(module, name)


def read_weights(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict]:
    """Read a checkpoint file without running code from it.

    Reads what `paddle.save` of Paddle 2.0 to 3.x writes for a state dict, pickled dictionaries of NumPy
    arrays, and such a dictionary one level down under `state_dict`, `model`, `model_state_dict` or
    `params`. The `module.` prefix of multi-GPU training is stripped.

    Returns `(state, meta)`: key -> array in file order, and what `save_weights` stored (`{}` if nothing).
    Raises `InputError` naming the file for anything else.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            _refuse_foreign(path, head)
            file.seek(0)
            content = _ArrayUnpickler(file, encoding="latin1").load()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check the path of the checkpoint.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder: name the .pdparams file in it.") from None
    except PermissionError:
        raise InputError(f"{path} may not be read: check its permissions.") from None
    except InputError as refusal:
        text = str(refusal)
        raise InputError(text if text.startswith(str(path)) else f"{path} is refused: {text}.") from None
    # A damaged pickle can fail with nearly any exception, from EOFError to AttributeError.
    except Exception as error:
        raise InputError(f"{path} is damaged, cut short or no Paddle checkpoint ({error}): "
                         "copy or download it again.") from error
    return _as_state(path, content)


def _refuse_foreign(path: Path, head: bytes) -> None:
    if not head:
        raise InputError(f"{path} is empty: copy or download it again.")
    for magic, what in _FOREIGN:
        if head.lstrip().startswith(magic):
            raise InputError(f"{path} is {what}.")


def _as_state(path: Path, content: object) -> tuple[dict[str, np.ndarray], dict]:
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not a dictionary of weights: "
                         "save model.state_dict().")
    meta = _read_meta(path, content.get(META_KEY))
    wrapper = next((name for name in _WRAPPERS if isinstance(content.get(name), dict)), None)
    state = {}
    for key, value in (content[wrapper] if wrapper else content).items():
        if key in (_PADDLE_NAMES, META_KEY):
            continue
        if key == _PADDLE_SPLIT:
            raise InputError(f"{path} holds arrays cut in pieces of 1 GiB, which no model here has: "
                             "check that it is the right file.")
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], np.ndarray):
            value = value[1]
        if not isinstance(value, (np.ndarray, np.number)) or value.dtype.kind not in "fiub":
            raise InputError(f"{path} holds {type(value).__name__} under '{key}', not an array of numbers: "
                             "save model.state_dict() alone.")
        state[str(key)] = np.asarray(value)
    if not state:
        raise InputError(f"{path} holds no weights: save model.state_dict().")
    prefix = "module."
    if all(key.startswith(prefix) for key in state):
        state = {key[len(prefix):]: value for key, value in state.items()}
    return state, meta


def _read_meta(path: Path, text: object) -> dict:
    if text is None:
        return {}
    try:
        meta = json.loads(text)
        if isinstance(meta, dict):
            return meta
    except (TypeError, ValueError):
        pass
    raise InputError(f"{path} carries unreadable metadata under '{META_KEY}': save it again with save_weights.")


def load_weights(model, path: str | os.PathLike) -> dict:
    """Fill `model` (a `paddle.nn.Layer`) from the file `path`, all of it or nothing.

    Every key and shape is compared before the first value is set, and values must be finite. Returns the
    metadata stored by `save_weights` (`{}` for a bare published file). Raises `InputError`.
    """
    state, meta = read_weights(path)
    fill(model, state, path)
    return meta


def fill(model, state: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    """Set the weights of `model` to `state`, as read from `path`, once every key and shape is seen to fit."""
    own = model.state_dict()
    check_state(state, {key: tuple(value.shape) for key, value in own.items()}, path)
    for key, tensor in own.items():
        tensor.set_value(state[key].astype(str(tensor.dtype).rsplit(".", 1)[-1]))


def check_state(state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple], path: str | os.PathLike) -> None:
    """Raise `InputError` unless `state` has exactly the keys and shapes of `shapes` and only finite values."""
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
        if not np.isfinite(state[key]).all():
            raise InputError(f"{path} holds NaN or infinite values in '{key}': the training diverged, "
                             "use an earlier checkpoint.")


def save_weights(model, path: str | os.PathLike, meta: Mapping | None = None) -> None:
    """Write the weights of `model` (a `paddle.nn.Layer`, or its state dict) to `path`.

    `meta` must be JSON-serialisable; it travels inside the file. The file appears whole or not at all: it
    is written beside its final place, flushed to disk, then renamed. Raises `OSError` if the disk is full.
    """
    state = model.state_dict() if hasattr(model, "state_dict") else model
    content: dict = OrderedDict((key, np.asarray(value)) for key, value in state.items())
    content[_PADDLE_NAMES] = {key: getattr(value, "name", key) for key, value in state.items()}
    if meta:
        content[META_KEY] = json.dumps(meta)
    with replacing(path) as file:
        pickle.dump(dict(content), file, protocol=4)
