"""Scores and features of many images, at the speed of an inference engine.

On a CPU the network is exported once and run by OpenVINO where it is installed, otherwise by Paddle Inference with
oneDNN (`cxr.inference.engines`); on a GPU it is compiled (`paddle.jit.to_static`); with `engine="dygraph"` it runs as
it is. Interface and numbers are the same.
"""
from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from cxr.device import ensure
from cxr.device.guards import REMEDY, SameScores
from cxr.errors import InputError
from cxr.inference import ENGINES, PRECISIONS
from cxr.inference.engines import LogitsAndFeatures, OpenVINO, PaddleInference, input_spec
from cxr.metrics.classification import scores_from_logits
from cxr.utils.distributed import merge, share
from cxr.utils.folders import home_for_paddle, wanted_cache
from cxr.utils.parallel import batches, default_workers
from cxr.utils.progress import progress

_EXPORTED = {"openvino": OpenVINO, "onednn": PaddleInference}


def fast_engines() -> tuple[str, ...]:
    """The fast engines of this machine; the first is the fastest, which `auto` takes."""
    if paddle.get_device() != "cpu":
        return ("compiled",)
    return ("openvino", "onednn") if OpenVINO.installed() else ("onednn",)


class Predictor:
    """A model for inference: `scores, features = Predictor(model)(x)`, so that CAM costs a single forward pass.

    On a GPU the first images are computed on the CPU as well, and the device is refused for a difference that rounding
    does not explain. Different images with equal scores are a warning, or a refusal on a device that has not been
    checked.

    Args:
        model: has `features`, `logits` and `activation` (see `cxr.models.recipe`); it is put into eval mode. Later
            changes of its weights do not reach an exported network: make a new predictor.
        engine: "openvino" (`pip install openvino`) and "onednn" (CPU only), "compiled" (`paddle.jit.to_static`),
            "dygraph", or "auto": on a CPU openvino if it is installed, otherwise onednn; compiled on a GPU.
        cache_dir: where exported networks are kept, by default below the user's cache folder (`CXR_CACHE`
            overrides it). One is found again by the hash of weights, architecture and Paddle's version.
        precision: "float32"; "bfloat16", faster on GPUs and, with openvino and onednn, on processors with AVX512-BF16
            or AMX, changes scores in the second decimal (`precision_cost` measures it); "float16" on GPUs. On GPUs
            both are `paddle.amp`, level O1.

    Raises:
        InputError: an engine or precision does not exist or does not run on this device, or a GPU's known answers are
            wrong (`cxr.device`). A call raises it for a device that is refused, as above.
    """

    def __init__(self, model: nn.Layer, engine: str = "auto", cache_dir: str | os.PathLike | None = None,
                 precision: str = "float32"):
        for name, value, known in (("engine", engine, ENGINES), ("precision", precision, PRECISIONS)):
            if value not in known:
                raise InputError(f"the {name} is one of {', '.join(known)}, not '{value}'.")
        ensure()
        on_cpu = paddle.get_device() == "cpu"
        if engine == "auto":
            engine = fast_engines()[0]
        if engine in _EXPORTED and not on_cpu:
            raise InputError(f"the engine {engine} is for CPUs: use auto, compiled or dygraph on a GPU.")
        if engine == "openvino" and not OpenVINO.installed():
            raise InputError("the engine openvino needs `pip install openvino`; onednn is part of Paddle.")
        if on_cpu and (precision == "float16" or precision == "bfloat16" and engine not in _EXPORTED):
            raise InputError(f"the precision {precision} is for GPUs here: on a CPU use float32, or bfloat16 with the "
                             "engine openvino or onednn.")
        self.engine = engine
        model.eval()
        self.activation = model.activation
        self.precision = precision
        self._same = SameScores()
        if engine in _EXPORTED:
            self._run = _EXPORTED[engine](model, Path(cache_dir) if cache_dir else wanted_cache(), precision)
        else:
            self._run = _InProcess(model, engine == "compiled", precision)
        if not on_cpu:
            self._run = ComparedWithCpu(self._run, model, precision)

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, 3, H, W) float32 to probabilities (B, K) and features (B, C, h, w), float32."""
        logits, features = self._checked(x)
        return scores_from_logits(logits[:, None], self.activation), features

    def logits(self, x: np.ndarray) -> np.ndarray:
        """(B, 3, H, W) float32 to scores before sigmoid or softmax, (B, K) float32."""
        return self._checked(x)[0]

    def _checked(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, features = self._run(x)
        self._same.see(x, logits)
        self._same.check(paddle.get_device())
        return logits, features


class EngineModel(nn.Layer):
    """A model whose features come from a predictor: what the CAM toolbox explains at the engine's speed.

    It has the model's own head, so scores, ablations and gradients down to the features are those of the model. The
    only target layer is `LAYER`, whose output is the features; nothing before it can be explained this way.

    Args:
        model: gives the head.
        predictor: of the same model; gives the features.
    """

    LAYER = "engine_features"

    def __init__(self, model: nn.Layer, predictor: Predictor):
        super().__init__()
        self.engine_features = nn.Identity()
        # Neither is a sublayer of this one: the engine holds the weights of the backbone.
        object.__setattr__(self, "_head", model)
        object.__setattr__(self, "_predictor", predictor)
        self.activation = model.activation

    @property
    def classifier(self) -> nn.Linear:
        """The last linear layer of the model."""
        return self._head.classifier

    def features(self, x: paddle.Tensor) -> paddle.Tensor:
        """(B, 3, H, W) to (B, C, h, w), by the engine."""
        return self.engine_features(paddle.to_tensor(self._predictor(x.numpy())[1]))

    def logits(self, features: paddle.Tensor) -> paddle.Tensor:
        """(B, C, h, w) to scores before sigmoid or softmax, (B, K)."""
        return self._head.logits(features)

    def head(self, features: paddle.Tensor) -> paddle.Tensor:
        """(B, C, h, w) to what `forward` returns."""
        return self._head.head(features)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """(B, 3, H, W) to what the model itself returns."""
        return self.head(self.features(x))


class _InProcess:
    """The network itself, as it is or compiled, at full or at half precision."""

    def __init__(self, model: nn.Layer, compiled: bool, precision: str):
        self._network = LogitsAndFeatures(model)
        self._network.eval()
        if compiled:
            self._network = paddle.jit.to_static(self._network, input_spec=[input_spec()], full_graph=True)
        self._to_compile, self._precision = compiled, precision

    @paddle.no_grad()
    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, 3, H, W) float32 to logits (B, K) and features (B, C, h, w), float32."""
        # Compiling happens in the first call.
        home = home_for_paddle() if self._to_compile else nullcontext()
        half = nullcontext() if self._precision == "float32" else paddle.amp.auto_cast(dtype=self._precision)
        with home, half:
            results = self._network(paddle.to_tensor(x))
        self._to_compile = False                 # from now on there is nothing to compile
        return tuple(result.astype("float32").numpy() for result in results)


class ComparedWithCpu:
    """An engine of a GPU whose first images are computed on the CPU too: known answers do not cover this network.

    A call raises InputError where the two differ by more than rounding explains.

    Args:
        run: the engine, (B, 3, H, W) to logits (B, K) and features.
        model: what it runs; a copy of it computes on the CPU, once.
        precision: of the engine; at less than float32 more may differ.
    """

    _IMAGES = 2
    _TOLERANCE = {"float32": 0.01, "bfloat16": 0.1, "float16": 0.05}         # of probabilities; GPUs round in TF32

    def __init__(self, run: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], model: nn.Layer, precision: str):
        self._run, self._model, self._precision = run, model, precision

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, 3, H, W) float32 to logits (B, K) and features (B, C, h, w), float32."""
        results = self._run(x)
        if self._model is not None and len(x):
            self._compare(x[:self._IMAGES], results[0][:self._IMAGES])
            self._model = None
        return results

    def _compare(self, x: np.ndarray, logits: np.ndarray) -> None:
        device, activation = paddle.get_device(), self._model.activation
        expected = on_the_cpu(self._model, x)
        if not np.isfinite(expected).all():
            return                               # the weights are at fault, and the caller says so
        got, right = (scores_from_logits(rows[:, None].astype("float64"), activation) for rows in (logits, expected))
        gap = np.abs(got - right).max()
        if not gap <= self._TOLERANCE[self._precision]:
            remedy = REMEDY if self._precision == "float32" else (
                f"the network does not bear the precision {self._precision}: use float32")
            raise InputError(f"{device} gives other scores than the CPU for the same image (the first class "
                             f"{got.flat[0]:.4f} instead of {right.flat[0]:.4f}, any by up to {gap:.4f}): {remedy}.")


def on_the_cpu(model: nn.Layer, x: np.ndarray) -> np.ndarray:
    """Logits (B, K) of a copy of `model` on the CPU, in float32; Paddle's device is as before afterwards."""
    device = paddle.get_device()
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    copied = copy.deepcopy(model)
    try:
        paddle.set_device("cpu")
        copied.to("cpu")
        copied.set_state_dict(state)
        copied.eval()
        with paddle.no_grad():
            return copied.logits(copied.features(paddle.to_tensor(x))).numpy()
    finally:
        paddle.set_device(device)


def predict(predictor: Predictor, dataset: paddle.io.Dataset | Sequence, batch_size: int = 32,
            workers: int | None = None, desc: str = "evaluate") -> np.ndarray:
    """Logits of every image of a data set. Several processes share the images, and each gets all logits.

    Args:
        predictor: of the model.
        dataset: pairs (image, label); its transform gives (3, H, W), which counts as one crop, or (crops, 3, H, W).
        batch_size: images at once.
        workers: threads that prepare images; None: as many as suit this machine.
        desc: what the progress bar is called.

    Returns:
        (N, crops, K) float32, in the order of the data set.
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


def precision_cost(predictor: Predictor, model: nn.Layer, dataset: paddle.io.Dataset | Sequence,
                   most: int = 64) -> str:
    """A sentence on what a reduced precision costs: scores of images from all over the set, against float32.

    An image that cannot be read is left out: the run that follows deals with it.

    Args:
        predictor: at the reduced precision.
        model: what it runs.
        dataset: pairs (image, label), as for `predict`.
        most: how many images are scored, at most.

    Returns:
        The sentence.
    """
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).round().astype(int))
    exact = Predictor(model, predictor.engine)
    pairs = []
    for index in chosen:
        try:
            image = dataset[index][0]
        except InputError:
            continue
        views = image if image.ndim == 4 else image[None]
        pairs.append([scores_from_logits(each.logits(views)[None], model.activation)[0]
                      for each in (predictor, exact)])
    if not pairs:
        return f"what {predictor.precision} costs is not known: none of the images can be read."
    rough, true = np.array(pairs).transpose(1, 0, 2)
    gap = np.abs(rough - true)
    if model.activation == "sigmoid":
        changed = float(((rough >= 0.5) != (true >= 0.5)).mean())
    else:
        changed = float((rough.argmax(axis=1) != true.argmax(axis=1)).mean())
    return (f"{predictor.precision} against float32 on {len(pairs)} images: probabilities differ by at most "
            f"{gap.max():.4f}, {gap.mean():.5f} on average, and {changed:.2%} of the decisions change.")
