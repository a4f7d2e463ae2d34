"""Networks exported as programs, kept on disk, and run by an inference engine on the CPU.

`PaddleInference` is part of Paddle. `OpenVINO` is faster still (`pip install openvino`), and does not hold Python's
lock while it runs, so that images are decoded and pictures drawn meanwhile; Paddle Inference does hold it.
"""
from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
import threading
import uuid
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import paddle
from paddle import nn

from cxr.errors import InputError
from cxr.runtime import threads
from cxr.utils.files import sha256, write_json
from cxr.utils.folders import home_for_paddle, writable_cache

if TYPE_CHECKING:
    from openvino import InferRequest

_MANIFEST = "manifest.json"
_KEPT = 8                                        # exported networks in the cache, some 30 to 230 MB each


class LogitsAndFeatures(nn.Layer):
    """What is exported of a model: its `(logits, features)` of images.

    Args:
        model: has methods `features` and `logits`.
    """

    def __init__(self, model: nn.Layer):
        super().__init__()
        self.model = model

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """(B, 3, H, W) to logits (B, K) and features (B, C, h, w)."""
        features = self.model.features(x)
        return self.model.logits(features), features


def input_spec() -> paddle.static.InputSpec:
    """Images (B, 3, H, W) float32 of any number and size, as Paddle's exporter and compiler want them described."""
    return paddle.static.InputSpec([None, 3, None, None], "float32", name="x")


class _Program:
    """A model as a program on disk, written where it is not there yet, and read by `_load`.

    Args:
        model: what is exported; its architecture and weights name the folder.
        cache: folder of exported networks.
        precision: "float32" or "bfloat16".

    Raises:
        InputError: the engine cannot run the network.
    """

    portable = False                             # whether the program must be in the format of Paddle 2

    def __init__(self, model: nn.Layer, cache: Path, precision: str):
        name = f"{type(model).__name__}-{fingerprint(model, self.portable)[:32]}"
        folder = cache / name
        if not complete(folder):                 # it may be there, ready, where nothing can be written
            folder = self._export(model, cache, name)
        try:
            self._load(folder, precision)
        except Exception:                        # of another build, or damaged: once more from the weights
            shutil.rmtree(folder, ignore_errors=True)
            folder = self._export(model, cache, name)
            try:
                self._load(folder, precision)
            except Exception as error:
                raise InputError(f"{type(self).__name__} cannot run this network ({error}): choose another --engine."
                                 ) from error
        with suppress(OSError):
            os.utime(folder)                     # the least recently used are dropped first
        _prune(folder.parent)
        self._lock = threading.Lock()            # buffers and queues belong to one call at a time

    def _export(self, model: nn.Layer, cache: Path, name: str) -> Path:
        folder = writable_cache(cache) / name
        if not complete(folder):
            export(model, folder, self.portable)
        return folder

    def _load(self, folder: Path, precision: str) -> None:
        raise NotImplementedError


class PaddleInference(_Program):
    """`logits, features = PaddleInference(model, cache, precision)(x)`, with oneDNN."""

    _AT_ONCE = 8                                 # images; more at once fall out of the caches and are slower

    def _load(self, folder: Path, precision: str) -> None:
        from paddle import inference

        program = next(folder / f"network{suffix}" for suffix in (".json", ".pdmodel")
                       if (folder / f"network{suffix}").exists())
        config = inference.Config(str(program), str(folder / "network.pdiparams"))
        config.disable_gpu()
        config.enable_mkldnn()
        config.set_cpu_math_library_num_threads(threads())
        if precision == "bfloat16":
            config.enable_mkldnn_bfloat16()
        config.enable_new_executor(True)
        if hasattr(config, "enable_new_ir"):     # Paddle 3, whose programs are in the new representation
            config.enable_new_ir(True)
        else:
            config.enable_memory_optim()
        config.disable_glog_info()
        self._predictor = inference.create_predictor(config)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, 3, H, W) float32 to logits (B, K) and features (B, C, h, w), float32."""
        parts = [self._part(x[start:start + self._AT_ONCE]) for start in range(0, len(x), self._AT_ONCE)]
        return parts[0] if len(parts) == 1 else tuple(np.concatenate(results) for results in zip(*parts))

    def _part(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with self._lock:
            handle = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
            handle.reshape(x.shape)
            handle.copy_from_cpu(np.ascontiguousarray(x, "float32"))
            self._predictor.run()
            # Paddle Inference leaves the whole process with one thread; other work goes on with all of them.
            paddle.base.core.set_num_threads(threads())
            return tuple(self._predictor.get_output_handle(name).copy_to_cpu()
                         for name in self._predictor.get_output_names())


class OpenVINO(_Program):
    """`logits, features = OpenVINO(model, cache, precision)(x)`: every image on a core of its own."""

    portable = True

    @staticmethod
    def installed() -> bool:
        """Whether the package is there, without importing it."""
        return importlib.util.find_spec("openvino") is not None

    def _load(self, folder: Path, precision: str) -> None:
        import openvino

        self._core, self._size = openvino.Core(), None
        self._network = self._core.read_model(folder / "network.pdmodel")
        self._options = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": threads(),
                         # Never less than what was asked for, which is its default on processors with bfloat16.
                         "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
                         "ENABLE_CPU_PINNING": False}        # several processes would share one core

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, 3, H, W) float32 to logits (B, K) and features (B, C, h, w), float32."""
        x = np.ascontiguousarray(x, "float32")
        with self._lock:
            if self._size != x.shape[2:]:
                self._compile(x.shape[2:])
            results = [None] * len(x)

            def keep(request: InferRequest, index: int) -> None:
                results[index] = [request.get_output_tensor(number).data.copy() for number in (0, 1)]

            self._queue.set_callback(keep)
            for index in range(len(x)):
                self._queue.start_async({0: x[index:index + 1]}, index, share_inputs=True)
            self._queue.wait_all()
        return tuple(np.concatenate(outputs) for outputs in zip(*results))

    def _compile(self, size: tuple[int, int]) -> None:
        """Make ready for images of this size, one a request: with a free size every layer is slower."""
        from openvino import AsyncInferQueue

        self._network.reshape([1, 3, *size])
        self._queue = AsyncInferQueue(self._core.compile_model(self._network, "CPU", self._options))
        self._size = size


def fingerprint(model: nn.Layer, portable: bool = False) -> str:
    """SHA-256 in hex over the architecture (as printed), the weights, Paddle's version and the format (`portable`)."""
    digest = hashlib.sha256(f"{paddle.__version__}\n{portable}\n{model}".encode())
    for key, value in model.state_dict().items():
        digest.update(key.encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def export(model: nn.Layer, folder: Path, portable: bool = False) -> None:
    """Write the network to `folder`, whole or not at all; where another process was quicker, its files stay.

    Args:
        model: has methods `features` and `logits`.
        folder: of this export alone.
        portable: in the format of Paddle 2, which OpenVINO reads.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as scratch:
        built = Path(scratch) / folder.name
        network = LogitsAndFeatures(model)
        network.eval()
        with home_for_paddle(), _format_of_paddle_2() if portable else nullcontext():
            paddle.jit.save(network, str(built / "network"), input_spec=[input_spec()])
        write_json(built / _MANIFEST, {path.name: sha256(path) for path in built.iterdir()})
        try:
            built.rename(folder)
        except OSError:                          # a folder that is not empty stands there
            if not complete(folder):
                stale = folder.with_name(f".stale-{uuid.uuid4().hex}")
                folder.rename(stale)
                built.rename(folder)
                shutil.rmtree(stale, ignore_errors=True)


def _format_of_paddle_2() -> AbstractContextManager:
    """Programs saved inside are in the format that OpenVINO reads."""
    guard = getattr(getattr(paddle, "pir_utils", None), "OldIrGuard", nullcontext)
    return guard()


def _prune(cache: Path) -> None:
    """Keep the `_KEPT` most recently used exports; those in use elsewhere are in that process's memory."""
    exports = sorted((path for path in cache.iterdir() if (path / _MANIFEST).exists()),
                     key=lambda path: -path.stat().st_mtime)
    for path in exports[_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def complete(folder: Path) -> bool:
    """Whether every file of the export is there and unchanged."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest) and all(sha256(folder / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError, AttributeError):
        return False
