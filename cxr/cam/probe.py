"""One forward pass, and the questions that can be put to it afterwards.

A model may be split: `features(x)` -> (B, C, h, w), `head(features)` -> what `forward` returns, and
`logits(features)` -> (B, K), the scores before the sigmoid or softmax (without it, `head`). The split is
two *methods*; a sublayer that happens to be called `features` is none. With the split the toolbox explains
logits, and a target layer whose output is the features needs the head alone for its gradients and ablations.
A model without the split is explained by what `forward` returns: let that be logits too, since behind a
sigmoid or a softmax gradients vanish where the model is sure.

If the model moreover names its last linear layer `classifier`, and the scores *are* that layer on the
mean of the activations (this is checked on every call), gradients and ablations are closed forms.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import paddle
from paddle import nn

from cxr.cam.state import hooked
from cxr.errors import InputError


def is_split(model: nn.Layer) -> bool:
    """Whether the model has methods `features` and `head`."""
    return all(callable(getattr(type(model), name, None)) for name in ("features", "head"))


def scores_from_features(model: nn.Layer, features: paddle.Tensor) -> paddle.Tensor:
    """What is explained of a split model: its logits (B, K), or what its head gives where it has none."""
    return getattr(model, "logits", model.head)(features)


def scores_from_images(model: nn.Layer, x: paddle.Tensor) -> Any:
    """What is explained of any model, by one forward pass: (B, K) if it is to have classes."""
    return scores_from_features(model, model.features(x)) if is_split(model) else model(x)


def to_numpy(tensor: paddle.Tensor) -> np.ndarray:
    """Float32 on the host, whatever precision (bfloat16 too) the model computes in."""
    return tensor.detach().astype("float32").numpy()


class Probe:
    """The activations of some layers for one batch, and how the scores depend on them.

    To be used with the model in evaluation mode and its parameters frozen (`cxr.cam.state`).

    Args:
        model: any `paddle.nn.Layer`.
        layers: (name, layer) of each.
        x: images (B, C, H, W).
        reshape_transform: turns what a layer returns into (B, C, h, w); None: it is that already.
        differentiable: whether `gradients` will be asked for.

    Attributes:
        outputs: what `forward` returns.
        scores: what is explained.
        maps: per layer (B, C, h, w) float32 numpy.

    Raises:
        InputError: a layer is not reached, or gives no map.
    """

    def __init__(self, model: nn.Layer, layers: Sequence[tuple[str, nn.Layer]], x: paddle.Tensor,
                 reshape_transform: Callable[[paddle.Tensor], paddle.Tensor] | None = None,
                 differentiable: bool = False):
        self.model, self.layers, self.x = model, layers, x
        self._reshape = reshape_transform or (lambda activation: activation)
        self._activations = [None] * len(layers)
        self._calls = [0] * len(layers)
        hooks = [(layer, self._keep(i, differentiable)) for i, (_, layer) in enumerate(layers)]
        # Gradients are wanted, or not, whatever mode the caller is in.
        with paddle.enable_grad() if differentiable else paddle.no_grad(), hooked(hooks):
            features = model.features(x) if is_split(model) else None
            self.scores = model(x) if features is None else scores_from_features(model, features)
        self.outputs = self.scores
        if features is not None and hasattr(model, "logits"):
            with paddle.no_grad():
                self.outputs = model.head(features)
        for (name, _), calls in zip(layers, self._calls):
            if not calls:
                raise InputError(f"the forward pass never reaches layer {name!r}; choose one that it calls")
        self._is_features = [_same(activation, features) for activation in self._activations]
        self.maps = [self._to_map(i, activation) for i, activation in enumerate(self._activations)]

    def _keep(self, i: int, differentiable: bool) -> Callable:
        def hook(layer: nn.Layer, inputs: tuple, output: Any) -> paddle.Tensor:
            if not isinstance(output, paddle.Tensor):
                raise InputError(f"layer {self.layers[i][0]!r} gives {type(output).__name__}, not a tensor; "
                                 "choose one that does")
            if differentiable and output.stop_gradient:
                # A new leaf: the backward pass ends here, and works though all parameters are frozen.
                output = output.detach()
                output.stop_gradient = False
            self._calls[i] += 1  # of a layer that is called several times, the last call counts
            self._activations[i] = output
            return output.clone()  # what follows may work in place
        return hook

    def _to_map(self, i: int, activation: paddle.Tensor) -> np.ndarray:
        shape = tuple(activation.shape)
        result = self._reshape(activation.detach())
        if len(result.shape) != 4 or result.shape[0] != self.x.shape[0]:
            raise InputError(f"layer {self.layers[i][0]!r} gives {shape}, which is no (B, C, h, w) map; "
                             "choose another layer or pass a reshape_transform (see cxr.cam.transforms)")
        if result.shape[2] == result.shape[3] == 1:
            raise InputError(f"layer {self.layers[i][0]!r} gives a map of 1 x 1, which locates nothing; "
                             "choose a layer before the pooling")
        return to_numpy(result)

    def linear_weights(self, i: int) -> np.ndarray | None:
        """(C, K) if the scores are `model.classifier` on the mean of layer i over h and w, else None."""
        linear = getattr(self.model, "classifier", None)
        if not isinstance(linear, nn.Linear) or not isinstance(self.scores, paddle.Tensor):
            return None
        weight, means, scores = to_numpy(linear.weight), self.maps[i].mean((2, 3)), to_numpy(self.scores)
        if weight.shape != (means.shape[1], scores.shape[-1]):
            return None
        expected = means @ weight + (0 if linear.bias is None else to_numpy(linear.bias))
        # Graphics cards multiply in TF32, which keeps three digits of each term.
        tolerance = 1e-3 * (np.abs(means) @ np.abs(weight)).max()
        return weight if np.allclose(expected, scores, rtol=0, atol=tolerance) else None

    def gradients(self, score: paddle.Tensor, retain: bool) -> list[np.ndarray]:
        """Gradients of a score at the activations.

        Args:
            score: a scalar made from `scores`.
            retain: whether another score will be asked about.

        Returns:
            d score / d activation per layer, float32 (B, C, h, w); zeros where there is no path.

        Raises:
            InputError: the score does not depend on any layer in a differentiable way.
        """
        if score.stop_gradient:
            raise InputError("the score does not depend on the target layer in a differentiable way: forward "
                             "(or the target callable) detaches it or runs under no_grad")
        gradients = paddle.grad(score, self._activations, retain_graph=retain, allow_unused=True)
        return [np.zeros_like(map_) if gradient is None else to_numpy(self._reshape(gradient))
                for gradient, map_ in zip(gradients, self.maps)]

    def scores_of(self, x: paddle.Tensor) -> Any:
        """What is explained, for other images (N, C, H, W)."""
        return scores_from_images(self.model, x)

    def scores_without(self, i: int, image: int, channels: Sequence[int], baseline: float = 0.0) -> Any:
        """Scores of a single image when channels of a layer are switched off, each in turn.

        Args:
            i: the layer's number.
            image: the image's number in the batch.
            channels: n numbers of channels.
            baseline: what a channel is set to.

        Returns:
            (n, K).
        """
        n = len(channels)
        activation = self._activations[i].detach()[image:image + 1]
        activation = activation.expand([n, *activation.shape[1:]])
        removed = np.zeros((n, *self.maps[i].shape[1:]), np.float32)
        removed[np.arange(n), channels] = self.maps[i][image, channels] - baseline
        with paddle.no_grad():
            ablated = activation - self._from_map(removed, activation)
            if self._is_features[i]:
                return scores_from_features(self.model, ablated)
            with hooked([(self.layers[i][1], self._replace(i, ablated))]):
                return scores_from_images(self.model, self.x[image:image + 1].expand([n, *self.x.shape[1:]]))

    def _from_map(self, values: np.ndarray, like: paddle.Tensor) -> paddle.Tensor:
        """Values (n, C, h, w) in the layout that the layer has: the transform backwards, zeros where it drops."""
        like = like.detach()
        like.stop_gradient = False
        with paddle.enable_grad():
            total = (self._reshape(like) * paddle.to_tensor(values).astype(like.dtype)).sum()
        return paddle.grad(total, like)[0]

    def _replace(self, i: int, activation: paddle.Tensor) -> Callable:
        calls = 0

        def hook(layer: nn.Layer, inputs: tuple, output: paddle.Tensor) -> paddle.Tensor:
            nonlocal calls
            calls += 1
            return activation if calls == self._calls[i] else output
        return hook


def _same(activation: paddle.Tensor, features: paddle.Tensor | None) -> bool:
    """By value: what the layer returned may have been changed in place on its way out of `features`."""
    return (isinstance(features, paddle.Tensor) and activation.shape == features.shape
            and bool((activation == features).all()))
