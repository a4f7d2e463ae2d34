"""Does a map show what the model used? Four perturbation measures and the randomisation check.

    maps = cam(x, classes)
    evaluate(model, x, maps, classes)["deletion"]      # (B,), and so on: one number per image
    randomisation(model, cam, x, classes)              # does the map depend on the weights at all?

All work on batches and on the maps of any method, (B, H, W) at the images' size. What is measured is the
probability of each image's class: what `forward` returns, or `probability` of it where that is no probability
(`probability=F.softmax` for a model that returns logits).
"""
from __future__ import annotations

import numpy as np
import paddle

from cxr.cam.base import as_images
from cxr.cam.imputation import impute
from cxr.cam.probe import to_numpy
from cxr.cam.state import evaluating, hooked
from cxr.cam.targets import Targets
from cxr.errors import InputError


class Judge:
    """The probability of one class per image, for altered copies of the images.

    targets: as for the methods, one per image; classes chosen (None) are those of the unaltered images.
    """

    def __init__(self, model, x, targets=None, probability=None, batch_size=32):
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

    def _probabilities(self, images):
        result = self.probability(self.model(images))
        if not isinstance(result, paddle.Tensor) or len(result.shape) != 2:
            raise InputError("the model gives no (B, K) probabilities; pass probability=, a function of its "
                             "output that does")
        if not bool(((result >= 0) & (result <= 1)).all()):
            raise InputError("the model's output is no probability between 0 and 1; "
                             "pass probability=, F.softmax or F.sigmoid as the model was trained")
        return result

    def __call__(self, copies):
        """Iterable of S altered batches (B, C, H, W), numpy -> (S, B), run `batch_size` images at a time."""
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

    def _run(self, copies):
        if not copies:
            return []
        images = np.concatenate(copies).astype(np.float32)
        chunks = [paddle.to_tensor(images[i:i + self.batch_size]).astype(self.x.dtype)
                  for i in range(0, len(images), self.batch_size)]
        output = np.concatenate([to_numpy(self._probabilities(chunk)) for chunk in chunks])
        classes = np.tile(self.classes, len(copies))
        return list(output[np.arange(len(output)), classes].reshape(len(copies), -1))


def deletion(judge, maps, steps=50, baseline=0.0):
    """Petsiuk et al. 2018: the probability as the hottest pixels are set to `baseline`, (steps + 1, B).

    The lower the area under this curve (`area`), the better the map. `baseline` is in units of the
    normalised image, where 0 is the data set's mean.
    """
    return _exchange(judge, judge.images, np.full_like(judge.images, baseline), maps, steps)


def insertion(judge, maps, steps=50, sigma=5.0):
    """The same the other way: the hottest pixels come back into a blurred image; a large area is good."""
    return _exchange(judge, _blur(judge.images, sigma), judge.images, maps, steps)


def _exchange(judge, start, end, maps, steps):
    ranks = _order(judge, maps)
    counts = np.round(np.linspace(0, 1, steps + 1) * ranks[0].size)
    return judge(np.where((ranks < count)[:, None], end, start) for count in counts)


def area(curve):
    """(S, B) curve over the fraction of pixels, 0 to 1 -> area (B,), by trapezoids."""
    return (curve[1:] + curve[:-1]).mean(0) / 2


def average_drop(judge, maps):
    """Chattopadhay et al. 2018: the image times its map -> (drop, increase), both (B,).

    drop: the fraction of the probability that is lost, 0 if it rises; lower is better.
    increase: 1.0 where it rises, else 0.0; higher is better.
    """
    _order(judge, maps)
    seen = judge([judge.images * maps[:, None]])[0]
    drop = np.maximum(judge.unaltered - seen, 0) / np.maximum(judge.unaltered, 1e-12)
    return drop, (seen > judge.unaltered).astype(np.float32)


def road(judge, maps, percentages=(20, 40, 60, 80), noise=0.01, seed=0):
    """Rong et al. 2022, both orders combined -> (B,); higher is better, 0 for a map that ranks by chance.

    Removes and imputes that share of the pixels, least relevant first and most relevant first: half the
    difference of the two probabilities, averaged over the percentages.
    """
    ranks = _order(judge, maps)
    if not all(0 < percentage < 100 for percentage in percentages):
        raise InputError(f"ROAD percentages lie between 0 and 100, not {percentages}")
    counts = [round(percentage / 100 * ranks[0].size) for percentage in percentages]
    removals = [removed for count in counts for removed in (ranks >= ranks[0].size - count, ranks < count)]
    curve = judge(impute(judge.images, removed, noise, seed) for removed in removals)
    return (curve[0::2] - curve[1::2]).mean(0) / 2


def evaluate(model, x, maps, targets=None, probability=None, batch_size=32, steps=50):
    """All measures at once: {"deletion", "insertion", "average_drop", "increase", "road"}, each (B,)."""
    judge = Judge(model, x, targets, probability, batch_size)
    drop, increase = average_drop(judge, maps)
    return {"deletion": area(deletion(judge, maps, steps)), "insertion": area(insertion(judge, maps, steps)),
            "average_drop": drop, "increase": increase, "road": road(judge, maps)}


def randomisation(model, explain, x, targets=None, stages=None, seed=0):
    """Adebayo et al. 2018, cascading: [(layer, similarity (B,))], from the output's layer to the input's.

    Layer after layer, those nearest the output first, gets its weights shuffled and stays so;
    `explain(x, classes)` (any CAM of this model, or a function) maps again; similarity is Spearman's rank
    correlation with the first map, 0 for a flat one. A map that stays near 1 does not depend on what was
    learnt. stages: in how many groups the layers are taken, by default each alone; the name is that of a
    group's last layer. The weights are put back, also after an exception.
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


def _remember(called):
    return lambda layer, inputs, output: called.append(layer)


def _shuffle(layer, rng):
    """What was learnt goes, its distribution stays; so do a batch norm's running statistics, no weights."""
    for name, parameter in layer.named_parameters(include_sublayers=False):
        if not name.startswith("_"):
            parameter.set_value(rng.permutation(parameter.numpy().ravel()).reshape(parameter.shape))


def rank_correlation(a, b):
    """Spearman's, image by image, ties at their mean rank: (B, H, W) twice -> (B,); 0 where one is flat."""
    from scipy.stats import rankdata  # takes a second to import, and few ask for this check

    a, b = (rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (a, b))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    scale = np.sqrt((a ** 2).sum(1) * (b ** 2).sum(1))
    return (a * b).sum(1) / np.where(scale > 0, scale, 1)


def _order(judge, maps):
    """(B, H, W) ranks, 0 for the hottest pixel; equal ones in reading order."""
    batch, _, *size = judge.images.shape
    if not isinstance(maps, np.ndarray) or maps.shape != (batch, *size):
        raise InputError(f"maps must be a numpy array {(batch, *size)}, one per image at its size, "
                         f"not {getattr(maps, 'shape', type(maps).__name__)}")
    order = np.argsort(-maps.reshape(batch, -1), axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(order.shape[1])[None], 1)
    return ranks.reshape(maps.shape)


def _blur(images, sigma):
    """Gaussian of images (B, C, H, W), edges repeated, cut at two sigma."""
    from scipy.ndimage import gaussian_filter  # takes a third of a second to import, and few ask for measures

    return gaussian_filter(images, (0, 0, sigma, sigma), mode="nearest", truncate=2.0)
