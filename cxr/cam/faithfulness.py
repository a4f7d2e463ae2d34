"""Does a map show what the model used? Four perturbation measures and the randomisation check.

    maps = cam(x, classes)
    evaluate(model, x, maps, classes)["deletion"]      # (B,), and so on: a number per image
    randomisation(model, cam, x, classes)              # does the map depend on the weights at all?

All work on batches and on the maps of any method, (B, H, W) at the images' size. What is measured is the
probability of each image's class: what `forward` returns, or what `probability` makes of it (`probability=F.softmax`
for a model that returns logits).
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import paddle
from paddle import nn

from cxr.cam.base import as_images
from cxr.cam.imputation import impute
from cxr.cam.probe import to_numpy
from cxr.cam.state import evaluating, hooked
from cxr.cam.targets import Targets
from cxr.errors import InputError

Explanation = Callable[[paddle.Tensor, np.ndarray], np.ndarray]      # images, classes -> maps (B, H, W)


class ProbabilityMeter:
    """Measures the probability of a class of each image, on altered copies of the images.

    Args:
        model: the model that the maps explain.
        x: images (B, C, H, W), floats.
        targets: as for the methods, a class per image; None: the highest class of each unaltered image.
        probability: turns the model's output into probabilities (B, K); None: it is that already.
        batch_size: images at once.

    Attributes:
        images: x as an array.
        classes: (B,) whose probability is measured.
        unaltered: (B,) probability on the images as they are.

    Raises:
        InputError: several classes per image, or an output that is no probability.
    """

    def __init__(self, model: nn.Layer, x: paddle.Tensor | np.ndarray, targets: int | Sequence[int] | None = None,
                 probability: Callable | None = None, batch_size: int = 32):
        self.model, self.batch_size = model, batch_size
        self.probability = probability or (lambda output: output)
        self.x = as_images(x)
        with evaluating(model), paddle.no_grad():
            starts = range(0, len(self.x), batch_size)
            outputs = [self._probabilities(self.x[i:i + batch_size]) for i in starts]
            chosen = Targets(targets, paddle.concat(outputs))
        if chosen.classes is None or chosen.n != 1:
            raise InputError("faithfulness is measured for one class per image: None, a class or B classes")
        self.classes = chosen.classes[:, 0]
        self.images = to_numpy(self.x)
        self.unaltered = to_numpy(paddle.concat(outputs))[np.arange(len(self.x)), self.classes]

    def _probabilities(self, images: paddle.Tensor) -> paddle.Tensor:
        result = self.probability(self.model(images))
        if not isinstance(result, paddle.Tensor) or len(result.shape) != 2:
            raise InputError("the model gives no (B, K) probabilities; pass probability=, a function of its "
                             "output that does")
        if not bool(((result >= 0) & (result <= 1)).all()):
            raise InputError("the model's output is no probability between 0 and 1; "
                             "pass probability=, F.softmax or F.sigmoid as the model was trained")
        return result

    def __call__(self, copies: Iterable[np.ndarray]) -> np.ndarray:
        """Run the model on altered copies, `batch_size` images at a time.

        Args:
            copies: S altered batches, each (B, C, H, W).

        Returns:
            (S, B) probabilities.
        """
        batch = len(self.images)
        results, waiting = [], []
        with evaluating(self.model), paddle.no_grad():
            for images in copies:
                waiting.append(images)
                if (len(waiting) + 1) * batch > self.batch_size:
                    results += self._run(waiting)
                    waiting = []
            results += self._run(waiting)
        return np.stack(results)

    def _run(self, copies: Sequence[np.ndarray]) -> list[np.ndarray]:
        if not copies:
            return []
        images = np.concatenate(copies).astype(np.float32)
        chunks = [paddle.to_tensor(images[i:i + self.batch_size]).astype(self.x.dtype)
                  for i in range(0, len(images), self.batch_size)]
        output = np.concatenate([to_numpy(self._probabilities(chunk)) for chunk in chunks])
        classes = np.tile(self.classes, len(copies))
        return list(output[np.arange(len(output)), classes].reshape(len(copies), -1))


def deletion(meter: ProbabilityMeter, maps: np.ndarray, steps: int = 50, baseline: float = 0.0) -> np.ndarray:
    """Remove the hottest pixels first (Petsiuk et al. 2018).

    The lower the area under the curve (`area`), the better the map.

    Args:
        meter: of the images.
        maps: (B, H, W), a map per image at its size.
        steps: in how many parts the pixels go.
        baseline: what they are set to, in units of the normalised image, where 0 is the data set's mean.

    Returns:
        (steps + 1, B) probabilities, from the whole image to none of it.

    Raises:
        InputError: the maps do not fit the images.
    """
    return _exchange(meter, meter.images, np.full_like(meter.images, baseline), maps, steps)


def insertion(meter: ProbabilityMeter, maps: np.ndarray, steps: int = 50, sigma: float = 5.0) -> np.ndarray:
    """The reverse of `deletion`: put the hottest pixels back into a blurred image first; a large area is good.

    Args:
        meter: of the images.
        maps: (B, H, W), a map per image at its size.
        steps: in how many parts the pixels come.
        sigma: of the Gaussian blur, in pixels.

    Returns:
        (steps + 1, B) probabilities, from the blurred image to the whole one.

    Raises:
        InputError: the maps do not fit the images.
    """
    return _exchange(meter, _blur(meter.images, sigma), meter.images, maps, steps)


def _exchange(meter: ProbabilityMeter, start: np.ndarray, end: np.ndarray, maps: np.ndarray,
              steps: int) -> np.ndarray:
    ranks = _order(meter, maps)
    counts = np.round(np.linspace(0, 1, steps + 1) * ranks[0].size)
    return meter(np.where((ranks < count)[:, None], end, start) for count in counts)


def area(curve: np.ndarray) -> np.ndarray:
    """Area (B,) under a curve (S, B) over the share of pixels, 0 to 1, by trapezoids."""
    return (curve[1:] + curve[:-1]).mean(0) / 2


def average_drop(meter: ProbabilityMeter, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Show the model each image times its map (Chattopadhay et al. 2018).

    Args:
        meter: of the images.
        maps: (B, H, W), a map per image at its size.

    Returns:
        The share of the probability that is lost, 0 if it rises, (B,): lower is better. And 1.0 where it rises, else
        0.0, (B,): higher is better.

    Raises:
        InputError: the maps do not fit the images.
    """
    _order(meter, maps)
    seen = meter([meter.images * maps[:, None]])[0]
    drop = np.maximum(meter.unaltered - seen, 0) / np.maximum(meter.unaltered, 1e-12)
    return drop, (seen > meter.unaltered).astype(np.float32)


def road(meter: ProbabilityMeter, maps: np.ndarray, percentages: Sequence[float] = (20, 40, 60, 80),
         noise: float = 0.01, seed: int = 0) -> np.ndarray:
    """Remove and impute pixels, least relevant first and most relevant first (ROAD, Rong et al. 2022).

    Args:
        meter: of the images.
        maps: (B, H, W), a map per image at its size.
        percentages: shares of the pixels to remove, each between 0 and 100.
        noise: standard deviation of what is added to imputed pixels, in units of the normalised image.
        seed: of the noise.

    Returns:
        (B,) half the difference of the two probabilities, averaged over the percentages: higher is better, 0 for a map
        that ranks pixels by chance.

    Raises:
        InputError: the maps do not fit the images, or a percentage is out of range.
    """
    ranks = _order(meter, maps)
    if not all(0 < percentage < 100 for percentage in percentages):
        raise InputError(f"ROAD percentages lie between 0 and 100, not {percentages}")
    counts = [round(percentage / 100 * ranks[0].size) for percentage in percentages]
    removals = [removed for count in counts for removed in (ranks >= ranks[0].size - count, ranks < count)]
    curve = meter(impute(meter.images, removed, noise, seed) for removed in removals)
    return (curve[0::2] - curve[1::2]).mean(0) / 2


def evaluate(model: nn.Layer, x: paddle.Tensor | np.ndarray, maps: np.ndarray,
             targets: int | Sequence[int] | None = None, probability: Callable | None = None, batch_size: int = 32,
             steps: int = 50) -> dict[str, np.ndarray]:
    """All perturbation measures at once.

    Args:
        model: the model that the maps explain.
        x: images (B, C, H, W), floats.
        maps: (B, H, W), a map per image at its size.
        targets: a class per image; None: the highest of each.
        probability: turns the model's output into probabilities (B, K); None: it is that already.
        batch_size: images at once.
        steps: of deletion and insertion.

    Returns:
        "deletion" and "insertion" (areas under the curves), "average_drop", "increase" and "road", each (B,).

    Raises:
        InputError: maps, targets or the model's output do not fit.
    """
    meter = ProbabilityMeter(model, x, targets, probability, batch_size)
    drop, increase = average_drop(meter, maps)
    return {"deletion": area(deletion(meter, maps, steps)), "insertion": area(insertion(meter, maps, steps)),
            "average_drop": drop, "increase": increase, "road": road(meter, maps)}


def randomisation(model: nn.Layer, explain: Explanation, x: paddle.Tensor | np.ndarray,
                  targets: int | Sequence[int] | None = None, stages: int | None = None,
                  seed: int = 0) -> list[tuple[str, np.ndarray]]:
    """Cascading randomisation (Adebayo et al. 2018): do the maps depend on what was learnt?

    Layer after layer, those nearest the output first, gets its weights shuffled and stays so, and the images are
    explained anew. Maps that stay similar to the first do not depend on the weights. The weights are put back, also
    after an exception.

    Args:
        model: the model that `explain` explains.
        explain: `explain(x, classes)` gives maps (B, H, W): any CAM of this model, or a function.
        x: images (B, C, H, W), floats.
        targets: a class per image; None: the highest of each.
        stages: number of groups in which the layers are taken; None: each alone.
        seed: of the shuffling.

    Returns:
        For each stage the name of its last layer and Spearman's rank correlation (B,) with the first maps, 0 for a
        flat map.

    Raises:
        InputError: several classes per image.
    """
    if isinstance(targets, str) or callable(targets):
        raise InputError("randomisation compares one class per image: give None, a class or B classes")
    x = as_images(x)
    called = []
    layers = {layer: name for name, layer in model.named_sublayers(include_self=True)
              if layer.parameters(include_sublayers=False)}
    with evaluating(model), paddle.no_grad(), hooked([(layer, _remember(called)) for layer in layers]):
        outputs = model(x)
    if targets is None:
        targets = Targets(None, outputs).classes[:, 0]
    original = explain(x, targets)
    order = list(dict.fromkeys(reversed(called)))
    groups = np.array_split(np.arange(len(order)), min(stages or len(order), len(order)))
    rng = np.random.default_rng(seed)
    saved = [(parameter, parameter.numpy().copy()) for parameter in model.parameters()]
    result = []
    try:
        for group in groups:
            for index in group:
                _shuffle(order[index], rng)
            result.append((layers[order[group[-1]]], rank_correlation(original, explain(x, targets))))
    finally:
        for parameter, value in saved:
            parameter.set_value(value)
    return result


def _remember(called: list[nn.Layer]) -> Callable:
    return lambda layer, inputs, output: called.append(layer)


def _shuffle(layer: nn.Layer, rng: np.random.Generator) -> None:
    """Permute each weight array of a layer. A batch norm's running statistics stay: they are no weights."""
    for name, parameter in layer.named_parameters(include_sublayers=False):
        if not name.startswith("_"):
            parameter.set_value(rng.permutation(parameter.numpy().ravel()).reshape(parameter.shape))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of two stacks of maps (B, H, W), image by image, equal values at their mean rank.

    Returns:
        (B,); 0 where a map of the pair is flat.
    """
    from scipy.stats import rankdata  # takes a second to import, and few ask for this check

    a, b = (rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (a, b))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale = np.sqrt((a ** 2).sum(1) * (b ** 2).sum(1))
    return (a * b).sum(1) / np.where(scale > 0, scale, 1)


def _order(meter: ProbabilityMeter, maps: np.ndarray) -> np.ndarray:
    """(B, H, W) ranks, 0 for the hottest pixel; equal pixels in reading order."""
    batch, _, *size = meter.images.shape
    if not isinstance(maps, np.ndarray) or maps.shape != (batch, *size):
        raise InputError(f"maps must be a numpy array {(batch, *size)}, one per image at its size, "
                         f"not {getattr(maps, 'shape', type(maps).__name__)}")
    order = np.argsort(-maps.reshape(batch, -1), axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(order.shape[1])[None], 1)
    return ranks.reshape(maps.shape)


def _blur(images: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian of images (B, C, H, W), edges repeated, cut at two sigma."""
    from scipy.ndimage import gaussian_filter  # takes a third of a second to import, and few ask for measures

    return gaussian_filter(images, (0, 0, sigma, sigma), mode="nearest", truncate=2.0)
