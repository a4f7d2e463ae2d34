"""PyTorch's checkpoint files in and out, without PyTorch and without running code from them.

PyTorch writes two formats: since 1.6 a zip archive of `data.pkl` and one entry for each storage (the flat memory that
tensors are views of), before that a stream of pickles with the storages behind them. Both describe tensors as calls to
be made while unpickling. Here such calls are noted, none is made, and the arrays are then built from the notes, with
every offset, stride and size checked against what the file really holds.
"""
from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import numpy as np

from cxr.errors import InputError
from cxr.utils.files import replacing
from cxr.weights.paddle_files import TORCH_LEGACY, TORCH_ZIP, one_sentence, read_meta, strip_module, unwrap
from cxr.weights.unpickling import Noted, PlainDict

# Pickles of a model and its optimizer stay below 1 MiB; a hostile one makes objects of some 200 bytes from each byte.
_LONGEST_PICKLE = 4 << 20
_MOST_DIMENSIONS = 8
_ALIGNMENT = 64                                    # of the storages in a zip file, as PyTorch does for mapping them
_META = "extra/cxr.meta"                           # our metadata: an entry of the archive that PyTorch does not look at

_DTYPES = {"FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "BFloat16Storage": "u2",
           "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1",
           "BoolStorage": "?"}
_WRITTEN = {"float32": "FloatStorage", "int64": "LongStorage"}
_TENSOR = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")      # before 0.4, and since
_PARAMETER = "torch._utils._rebuild_parameter"
# What lies beside the weights in ordinary checkpoints: best scores as NumPy numbers, sizes, devices.
_HARMLESS = ("torch.Size", "torch.device", "numpy.dtype", "_codecs.encode", "numpy.core.multiarray.scalar",
             "numpy._core.multiarray.scalar")


class _Kind(NamedTuple):
    """Type of the numbers in a storage."""
    name: str

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(_DTYPES[self.name])


class _Storage(NamedTuple):
    """`count` numbers from `start` on of the storage `key`."""
    kind: _Kind
    key: str
    start: int
    count: int


class _Name:
    """What a pickle gets when it looks up a name: calling it notes the call; it takes no attributes."""
    __slots__ = ("call",)

    def __init__(self, call: Callable) -> None:
        self.call = call

    def __call__(self, *arguments: object) -> object:
        return self.call(*arguments)

    def __setstate__(self, state: object) -> None:
        raise TypeError("a name is given attributes")


# The unpickler written in Python: the one in C reserves memory for whatever memo number a file names.
class _Unpickler(pickle._Unpickler):
    def __init__(self, file: BinaryIO | _Limited) -> None:
        super().__init__(file, encoding="latin1")
        self.storages: dict[str, tuple[_Kind, int]] = {}
        self._room = _LONGEST_PICKLE                 # pairs that OrderedDicts may be made of, each at least a byte

    def find_class(self, module: str, name: str) -> _Name | _Kind:
        full = f"{module}.{name}"
        if full == "collections.OrderedDict":
            return _Name(self._dictionary)
        if module in ("torch", "torch.cuda") and name in _DTYPES:
            return _Kind(name)
        if full in (*_TENSOR, _PARAMETER, *_HARMLESS):
            return _Name(partial(Noted, full))
        raise InputError(f"it asks for {full}, which no file of weights needs and which could run code; do not open it "
                         "with torch.load either, and ask for a file of model.state_dict()")

    def _dictionary(self, pairs: Sequence[tuple] = ()) -> PlainDict:
        self._room -= len(pairs)
        if self._room < 0:
            raise ValueError("dictionaries are copied over and over")
        return PlainDict(pairs)

    def persistent_load(self, pid: tuple) -> _Storage:
        what, kind, key, _, count, *view = pid
        if what != "storage" or not isinstance(kind, _Kind):
            raise InputError("it holds a whole model with its source code, not weights alone: ask for a file of "
                             "model.state_dict()")
        key = str(key)
        if self.storages.setdefault(key, (kind, _natural(count))) != (kind, count):
            raise ValueError(f"storage {key} is described in two ways")
        if view and view[0] is not None:             # PyTorch before 0.4: a part of another storage
            _, start, part = view[0]
            if _natural(start) + _natural(part) > count:
                raise ValueError(f"a view reaches beyond storage {key}")
            return _Storage(kind, key, start, part)
        return _Storage(kind, key, 0, count)


def _natural(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} where a size or place is needed")
    return value


class _Limited:
    """A file of which a pickle may read `_LONGEST_PICKLE` bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, _LONGEST_PICKLE

    def _spend(self, data: bytes) -> bytes:
        self._left -= len(data)
        return data

    def read(self, size: int) -> bytes:
        if size > self._left:
            raise ValueError(f"a pickle of more than {_LONGEST_PICKLE} bytes")
        return self._spend(self._file.read(size))

    def readline(self) -> bytes:
        return self._spend(self._file.readline(self._left))


class _Archive:
    """The zip format."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._zip = zipfile.ZipFile(file)
        self._entries = {entry.filename: entry for entry in self._zip.infolist()}
        pickles = [name for name in self._entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise InputError("it is a zip archive without one data.pkl, so PyTorch did not write it")
        self._prefix = pickles[0][:-len("data.pkl")]
        if any(name.startswith(f"{self._prefix}code/") for name in self._entries):
            raise InputError("it is a TorchScript program: save model.state_dict() with torch.save")
        self._check(size)
        if self._entries[pickles[0]].file_size > _LONGEST_PICKLE:
            raise InputError(f"its data.pkl has more than {_LONGEST_PICKLE} bytes")
        self.order = ">" if self._optional("byteorder") == b"big" else "<"
        unpickler = _Unpickler(io.BytesIO(self._zip.read(pickles[0])))
        self.content = unpickler.load()

    def _check(self, size: int) -> None:
        """Refuse what could unpack to more than the `size` bytes of the file, or lead out of it."""
        for entry in self._zip.infolist():
            place = PurePosixPath(entry.filename.replace("\\", "/"))
            if ".." in place.parts or place.is_absolute():
                raise InputError(f"its entry '{entry.filename[:80]}' points out of the archive")
            if self._entries[entry.filename] is not entry:
                raise InputError(f"it has two entries '{entry.filename[:80]}'")
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise InputError(f"its entry '{entry.filename[:80]}' is compressed, which PyTorch never does")
        stored = sum(entry.file_size for entry in self._zip.infolist())
        if stored > size:
            raise InputError(f"its entries claim {stored} bytes, the file has {size}")

    def _optional(self, name: str) -> bytes | None:
        entry = self._entries.get(self._prefix + name)
        return None if entry is None or entry.file_size > _LONGEST_PICKLE else self._zip.read(entry)

    @property
    def meta(self) -> str | None:
        text = self._optional(_META)
        return None if text is None else text.decode("utf-8")

    def storage(self, key: str) -> bytes:
        """The whole storage, its checksum verified."""
        entry = self._entries.get(f"{self._prefix}data/{key}")
        if entry is None:
            raise InputError(f"its storage '{key[:80]}' is missing")
        return self._zip.read(entry)


class _Stream:
    """The format before PyTorch 1.6: five pickles, then the storages, each behind its length."""

    meta = None

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        _, version, system = (_Unpickler(_Limited(file)).load() for _ in range(3))
        if version != 1001 or not isinstance(system, dict):
            raise ValueError(f"version {version!r} of the old PyTorch format")
        self.order = "<" if system.get("little_endian", True) else ">"
        unpickler = _Unpickler(_Limited(file))
        self.content = unpickler.load()
        keys = _Unpickler(_Limited(file)).load()
        self._places: dict[str, tuple[int, int]] = {}
        place = file.tell()
        for key in map(str, keys):
            kind, count = unpickler.storages[key]
            file.seek(place)
            if struct.unpack(self.order + "q", file.read(8)) != (count,):
                raise ValueError(f"storage {key} has another length than the tensors say")
            self._places[key] = (place + 8, count * kind.dtype.itemsize)
            place += 8 + count * kind.dtype.itemsize
            if place > size:
                raise ValueError(f"it ends within storage {key}")

    def storage(self, key: str) -> bytes:
        place, length = self._places[key]
        self._file.seek(place)
        return self._file.read(length)


def is_torch(path: str | os.PathLike) -> bool:
    """Whether the file looks like one of PyTorch's, by its first bytes; False where it cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError:
        return False
    return head.startswith(TORCH_ZIP) or TORCH_LEGACY in head


def read_torch(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict]:
    """Read a state dict that `torch.save` wrote, bare or one level down in a checkpoint, without running code from it.

    Floating-point tensors of 16, 32 and 64 bits come as float32, whole numbers as they are; the prefix `module.` of
    multi-GPU training is stripped. Memory: the result and one storage of the file.

    Returns:
        `(state, meta)` as `cxr.weights.paddle_files.read_weights`, with the metadata that `write_torch` put into the
        file.

    Raises:
        InputError: names the file that is anything else.
    """
    path = Path(path)
    with one_sentence(path, "PyTorch checkpoint"), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        zipped = file.read(len(TORCH_ZIP)) == TORCH_ZIP
        file.seek(0)
        source = (_Archive if zipped else _Stream)(file, size)
        if not isinstance(source.content, dict):
            raise InputError("it holds no dictionary of weights: save model.state_dict()")
        state = _arrays(unwrap(source.content), source, size)
        return strip_module(state), read_meta(path, source.meta)


def _arrays(content: Mapping, source: _Archive | _Stream, size: int) -> dict[str, np.ndarray]:
    state, kept = {}, ("", b"")                      # tensors that share a storage lie side by side
    for key, value in content.items():
        if not isinstance(key, str):
            raise InputError(f"it names a weight by a {type(key).__name__}, not by text: save model.state_dict()")
        while isinstance(value, Noted) and value.what == _PARAMETER:
            value = value.arguments[0]
        if not isinstance(value, Noted) or value.what not in _TENSOR:
            raise InputError(f"it holds no tensor under '{key[:80]}': save model.state_dict() alone")
        storage, offset, shape, strides = value.arguments[:4]
        if storage.key != kept[0]:
            kept = (storage.key, source.storage(storage.key))
        try:
            state[key] = _array(storage, offset, shape, strides, kept[1], source.order)
        except ValueError as error:
            raise InputError(f"its tensor '{key[:80]}' does not fit what the file holds ({error})") from None
        size -= state[key].size
        if size < 0:
            raise InputError("its tensors share their numbers so often that they would not fit into memory")
    if not state:
        raise InputError("it holds no weights: save model.state_dict()")
    return state


def _array(storage: _Storage, offset: int, shape: tuple, strides: tuple, data: bytes, order: str) -> np.ndarray:
    """The tensor as an array that shares no memory.

    Raises:
        ValueError: it is not wholly inside its storage.
    """
    dtype = storage.kind.dtype.newbyteorder(order)
    if len(shape) != len(strides) or len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"{len(shape)} dimensions with {len(strides)} strides")
    count = prod(map(_natural, shape))
    last = _natural(offset) + sum((length - 1) * _natural(stride) for length, stride in zip(shape, strides))
    held = len(data) // dtype.itemsize
    if storage.start + storage.count > held:
        raise ValueError(f"a storage of {held} numbers where {storage.start + storage.count} are claimed")
    if count and last >= storage.count or count > storage.count:
        raise ValueError(f"shape {list(shape)}, strides {list(strides)}, offset {offset} in {storage.count} numbers")
    flat = np.frombuffer(data, dtype)[storage.start + offset:] if count else np.zeros(0, dtype)
    view = np.lib.stride_tricks.as_strided(flat, shape, [stride * dtype.itemsize for stride in strides])
    if storage.kind.name == "BFloat16Storage":       # the upper half of a float32
        return (view.astype("<u4") << 16).view("<f4").astype("float32")
    return view.astype("float32" if dtype.kind == "f" else dtype.newbyteorder("="))


def write_torch(path: str | os.PathLike, state: Mapping[str, np.ndarray], meta: Mapping | None = None) -> None:
    """Write float32 and int64 arrays as a state dict that `torch.load(path, weights_only=True)` gives back.

    The format is the zip archive of PyTorch 1.6 and later; equal arrays give equal files, byte for byte. The file
    appears whole or not at all.

    Args:
        path: of the file.
        state: key -> array.
        meta: must be JSON-serialisable; a separate entry of the archive, which PyTorch leaves alone.

    Raises:
        OSError: the disk is full.
    """
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        def add(name: str, data: bytes) -> None:
            entry = zipfile.ZipInfo(f"archive/{name}", (1980, 1, 1, 0, 0, 0))
            # An extra field of the header that fills up to the next multiple of 64 bytes, as PyTorch's own.
            fill = -(file.tell() + 30 + len(entry.filename) + 4) % _ALIGNMENT
            entry.extra = struct.pack("<2sH", b"FB", fill) + bytes(fill)
            archive.writestr(entry, data)

        arrays = {key: np.asarray(value) for key, value in state.items()}
        add("data.pkl", _pickled(arrays))
        add("byteorder", b"little")
        for number, array in enumerate(arrays.values()):
            add(f"data/{number}", np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
        add("version", b"3\n")
        if meta:
            add(_META, json.dumps(meta).encode("utf-8"))


def _pickled(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The pickle that rebuilds the arrays as tensors, storage after storage; written by hand, as Python's own pickler
    wants the classes that it names."""
    ordered = b"ccollections\nOrderedDict\n)R"
    parts = [b"\x80\x02", ordered, b"("]
    for number, (key, array) in enumerate(arrays.items()):
        strides = tuple(prod(array.shape[axis + 1:]) for axis in range(array.ndim))
        storage = f"ctorch\n{_WRITTEN[array.dtype.name]}\n".encode()
        parts += [_text(key), b"ctorch._utils\n_rebuild_tensor_v2\n((", _text("storage"), storage, _text(str(number)),
                  _text("cpu"), _number(array.size), b"tQ", _number(0), _numbers(array.shape), _numbers(strides),
                  b"\x89", ordered, b"tR"]
    return b"".join([*parts, b"u."])


def _text(value: str) -> bytes:
    data = value.encode("utf-8")
    return b"X" + struct.pack("<I", len(data)) + data


def _number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value) if value < 1 << 31 else b"\x8a\x08" + struct.pack("<q", value)


def _numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_number, values)) + b"t"
