"""Scores and features of many images, at the speed of Paddle's inference engine.

On a CPU the network is exported once and run by Paddle Inference with oneDNN; on a GPU it is compiled
(`paddle.jit.to_static`); with `engine="dygraph"` it runs as it is. Interface and numbers are the same.

Paddle Inference holds Python's lock while it runs, so other threads of the process wait meanwhile; the kernels
use all cores then.
"""
from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import threading
import uuid
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from cxr.distributed import merge, share
from cxr.errors import InputError
from cxr.files import sha256, write_json
from cxr.metrics import scores_from_logits
from cxr.parallel import batches, default_workers
from cxr.progress import progress
from cxr.runtime import threads

ENGINES = ("auto", "onednn", "compiled", "dygraph")
PRECISIONS = ("float32", "bfloat16", "float16")
_MANIFEST = "manifest.json"
_AT_ONCE = 8                                     # images; more at once fall out of the caches and are slower
_KEPT = 8                                        # exported networks in the cache, some 30 to 230 MB each


class Predictor:
    """A model for inference: `scores, features = Predictor(model)(x)`, so that CAM costs one forward.

    Args:
        model: has `features`, `logits` and `activation` (see `cxr.recipe`); it is put into eval mode. Later changes
            of its weights do not reach an exported network: make a new predictor.
        engine: "onednn" (CPU only), "compiled" (`paddle.jit.to_static`), "dygraph", or "auto": onednn on a CPU,
            compiled on a GPU.
        cache_dir: where exported networks are kept, by default below the user's cache folder (`CXR_CACHE`
            overrides it). One is found again by the hash of weights, architecture and Paddle's version.
        precision: "float32"; "bfloat16", faster on GPUs and, with onednn, on processors with AVX512-BF16 or AMX,
            changes scores in the second decimal (`precision_cost` measures it); "float16" on GPUs. On GPUs both are
            `paddle.amp`, level O1.

    Raises `InputError` for an engine or precision that does not exist or does not run on this device.
    """

    def __init__(self, model, engine: str = "auto", cache_dir: str | os.PathLike | None = None,
                 precision: str = "float32"):
        for name, value, known in (("engine", engine, ENGINES), ("precision", precision, PRECISIONS)):
            if value not in known:
                raise InputError(f"the {name} is one of {', '.join(known)}, not '{value}'.")
        on_cpu = paddle.get_device() == "cpu"
        if engine == "onednn" and not on_cpu:
            raise InputError("the engine onednn is for CPUs: use auto, compiled or dygraph on a GPU.")
        self.engine = ("onednn" if on_cpu else "compiled") if engine == "auto" else engine
        if on_cpu and (precision == "float16" or precision == "bfloat16" and self.engine != "onednn"):
            raise InputError(f"the precision {precision} is for GPUs here: on a CPU use float32, or bfloat16 with the "
                             "engine onednn.")
        model.eval()
        self.activation = model.activation
        self.precision = precision
        if self.engine == "onednn":
            self._run = _Exported(model, Path(cache_dir) if cache_dir else default_cache(), precision)
        else:
            self._run = _InProcess(model, self.engine == "compiled", precision)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, 3, H, W) float32 to probabilities (B, K) and features (B, C, h, w), float32."""
        logits, features = self._run(x)
        return scores_from_logits(logits[:, None], self.activation), features

    def logits(self, x: np.ndarray) -> np.ndarray:
        """(B, 3, H, W) float32 to scores before sigmoid or softmax, (B, K) float32."""
        return self._run(x)[0]


class EngineModel(nn.Layer):
    """A model whose features come from a predictor: what the CAM toolbox explains at the engine's speed.

    It has the model's own head, so scores, ablations and gradients down to the features are those of the model. The
    only target layer is `LAYER`, whose output is the features; nothing before it can be explained this way.
    """

    LAYER = "engine_features"

    def __init__(self, model, predictor: Predictor):
        super().__init__()
        self.engine_features = nn.Identity()
        # Neither is a sublayer of this one: the engine holds the weights of the backbone.
        object.__setattr__(self, "_head", model)
        object.__setattr__(self, "_predictor", predictor)
        self.activation = model.activation

    @property
    def classifier(self):
        return self._head.classifier

    def features(self, x):
        return self.engine_features(paddle.to_tensor(self._predictor(x.numpy())[1]))

    def logits(self, features):
        return self._head.logits(features)

    def head(self, features):
        return self._head.head(features)

    def forward(self, x):
        return self.head(self.features(x))


class _LogitsAndFeatures(nn.Layer):
    """What is exported."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        features = self.model.features(x)
        return self.model.logits(features), features


class _InProcess:
    """The network itself, as it is or compiled, at full or at half precision."""

    def __init__(self, model, compiled: bool, precision: str):
        self._network = _LogitsAndFeatures(model)
        self._network.eval()
        if compiled:
            self._network = paddle.jit.to_static(self._network, input_spec=[_input_spec()], full_graph=True)
        self._precision = precision

    @paddle.no_grad()
    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        half = nullcontext() if self._precision == "float32" else paddle.amp.auto_cast(dtype=self._precision)
        with half:
            results = self._network(paddle.to_tensor(x))
        return tuple(result.astype("float32").numpy() for result in results)


def _input_spec():
    return paddle.static.InputSpec([None, 3, None, None], "float32", name="x")


class _Exported:
    """The network as a program of Paddle Inference."""

    def __init__(self, model, cache: Path, precision: str):
        folder = cache / f"{type(model).__name__}-{fingerprint(model)[:32]}"
        if not _complete(folder):
            _export(model, folder)
        try:
            self._predictor = _load(folder, precision)
        except Exception:                        # of another build, or damaged: once more from the weights
            shutil.rmtree(folder, ignore_errors=True)
            _export(model, folder)
            self._predictor = _load(folder, precision)
        os.utime(folder)                         # the least recently used are dropped first
        _prune(cache)
        self._lock = threading.Lock()

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = [self._part(x[start:start + _AT_ONCE]) for start in range(0, len(x), _AT_ONCE)]
        return parts[0] if len(parts) == 1 else tuple(np.concatenate(results) for results in zip(*parts))

    def _part(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with self._lock:                         # input and output buffers belong to the one predictor
            handle = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
            handle.reshape(x.shape)
            handle.copy_from_cpu(np.ascontiguousarray(x, "float32"))
            self._predictor.run()
            # Paddle Inference leaves the whole process with one thread; other work goes on with all of them.
            paddle.base.core.set_num_threads(threads())
            return tuple(self._predictor.get_output_handle(name).copy_to_cpu()
                         for name in self._predictor.get_output_names())


def default_cache() -> Path:
    """`CXR_CACHE`, or `paddle-cxr` in the user's cache folder."""
    if "CXR_CACHE" in os.environ:
        return Path(os.environ["CXR_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paddle-cxr"


def fingerprint(model) -> str:
    """SHA-256 over the architecture (as printed), the weights, and Paddle's version, in hex."""
    digest = hashlib.sha256(f"{paddle.__version__}\n{model}".encode())
    for key, value in model.state_dict().items():
        digest.update(key.encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def _export(model, folder: Path) -> None:
    """Write the network to `folder`, whole or not at all; where another process was quicker, its files stay."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as scratch:
        built = Path(scratch) / folder.name
        network = _LogitsAndFeatures(model)
        network.eval()
        paddle.jit.save(network, str(built / "network"), input_spec=[_input_spec()])
        write_json(built / _MANIFEST, {path.name: sha256(path) for path in built.iterdir()})
        try:
            built.rename(folder)
        except OSError:                          # a folder that is not empty stands there
            if not _complete(folder):
                stale = folder.with_name(f".stale-{uuid.uuid4().hex}")
                folder.rename(stale)
                built.rename(folder)
                shutil.rmtree(stale, ignore_errors=True)


def _prune(cache: Path) -> None:
    """Keep the `_KEPT` most recently used exports; those in use elsewhere are in that process's memory."""
    exports = sorted((path for path in cache.iterdir() if (path / _MANIFEST).exists()),
                     key=lambda path: -path.stat().st_mtime)
    for path in exports[_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def _complete(folder: Path) -> bool:
    """Whether every file of the export is there and unchanged."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest) and all(sha256(folder / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError, AttributeError):
        return False


def _load(folder: Path, precision: str):
    """A Paddle Inference predictor with oneDNN."""
    from paddle import inference

    program = next(path for path in folder.iterdir() if path.suffix in (".json", ".pdmodel") and path.name != _MANIFEST)
    config = inference.Config(str(program), str(folder / "network.pdiparams"))
    config.disable_gpu()
    config.enable_mkldnn()
    config.set_cpu_math_library_num_threads(threads())
    if precision == "bfloat16":
        config.enable_mkldnn_bfloat16()
    config.enable_new_executor(True)
    if hasattr(config, "enable_new_ir"):         # Paddle 3, whose programs are in the new representation
        config.enable_new_ir(True)
    else:
        config.enable_memory_optim()
    config.disable_glog_info()
    return inference.create_predictor(config)


def predict(predictor: Predictor, dataset, batch_size: int = 32, workers: int | None = None,
            desc: str = "evaluate") -> np.ndarray:
    """Logits of every image of `dataset`, in its order: (N, crops, K) float32.

    The transform of the data set gives (3, H, W), which counts as one crop, or (crops, 3, H, W). Several processes
    share the images, and each gets all logits.
    """
    workers = default_workers() if workers is None else workers
    results = []
    indices = share(range(len(dataset)))
    with progress(None, total=len(indices), desc=desc) as bar:
        for images, _ in batches(dataset, indices, batch_size, workers):
            if images.ndim == 4:
                images = images[:, None]
            logits = predictor.logits(images.reshape(-1, *images.shape[2:]))
            results.append(logits.reshape(*images.shape[:2], -1))
            bar.update(len(images))
    return merge(np.concatenate(results) if results else np.zeros((0,), "float32"), len(dataset))


def precision_cost(predictor: Predictor, model, dataset, most: int = 64) -> str:
    """A sentence on what a reduced precision costs: scores of `most` images from all over the set, against float32."""
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).round().astype(int))
    exact = Predictor(model, predictor.engine)
    pairs = []
    for index in chosen:
        image = dataset[index][0]
        views = image if image.ndim == 4 else image[None]
        pairs.append([scores_from_logits(own.logits(views)[None], model.activation)[0] for own in (predictor, exact)])
    rough, true = np.array(pairs).transpose(1, 0, 2)
    gap = np.abs(rough - true)
    if model.activation == "sigmoid":
        changed = float(((rough >= 0.5) != (true >= 0.5)).mean())
    else:
        changed = float((rough.argmax(axis=1) != true.argmax(axis=1)).mean())
    return (f"{predictor.precision} against float32 on {len(chosen)} images: probabilities differ by at most "
            f"{gap.max():.4f}, {gap.mean():.5f} on average, and {changed:.2%} of the decisions change.")
