"""CheXNet and its class activation maps, on the published weights.

Rajpurkar et al. 2017, "CheXNet: Radiologist-Level Pneumonia Detection on Chest X-Rays with Deep
Learning"; the layer names are those of Paddle-CheXNet's checkpoints.
"""
from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle import nn
from paddle.nn import functional as F

from chexnet.densenet import build


class CheXNet(nn.Layer):
    """DenseNet with a sigmoid head: (B, 3, H, W) float32 to scores (B, out_size), probabilities.

    Args:
        out_size: number of classes, each scored by itself (14 as published).
        backbone_pretrained: path of ImageNet weights for the DenseNet, or False.
        layers: 121 as published, or any other size of `chexnet.densenet`.

    The input is RGB, 0-1, normalised with ImageNet's mean and standard deviation.
    """

    activation = "sigmoid"

    def __init__(self, out_size: int, backbone_pretrained: bool | str = False, layers: int = 121):
        super().__init__()
        # The published key prefix; it stays whatever the number of layers.
        self.densenet121 = build(layers, backbone_pretrained)
        self.densenet121.out = nn.Sequential(nn.Linear(self.densenet121.num_features, out_size), nn.Sigmoid())

    @property
    def classifier(self) -> nn.Linear:
        """The linear layer behind the global average pooling, weight (C, out_size)."""
        return self.densenet121.out[0]

    def features(self, x: paddle.Tensor) -> paddle.Tensor:
        """(B, 3, H, W) to (B, C, H/32, W/32): the last activations before pooling, non-negative."""
        return self.densenet121.features(x)

    def logits(self, features: paddle.Tensor) -> paddle.Tensor:
        """What the sigmoid is applied to, (B, out_size)."""
        return self.classifier(self.densenet121.pool(features))

    def head(self, features: paddle.Tensor) -> paddle.Tensor:
        """Scores, 0-1, (B, out_size)."""
        return self.densenet121.head(features)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.head(self.features(x))


class CheXNetCAM(CheXNet):
    """CheXNet that returns `(scores, cams)`: scores (B, out_size), maps (B, out_size, H, W) uint8.

    Each map is min-max scaled by itself, as published: 255 is the strongest place of that class, however
    improbable the class. A flat map gives zeros (the published division gives NaN).
    """

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        kept = []                                 # of this call alone, so nothing stale is ever returned
        hook = self.densenet121.batch_norm.register_forward_post_hook(
            lambda layer, inputs, output: kept.append(output))
        try:
            scores = super().forward(x)
        finally:
            hook.remove()
        return scores, self.cam(kept[-1], self.classifier.weight, x.shape[2:])

    @staticmethod
    @paddle.no_grad()
    def cam(feature_conv: paddle.Tensor, weight_softmax: paddle.Tensor, size: Sequence[int]) -> paddle.Tensor:
        """Weighted sum of activations, scaled and enlarged (Zhou et al. 2016).

        Args:
            feature_conv: activations (B, C, h, w).
            weight_softmax: weights of the linear head (C, N).
            size: (H, W) of the maps.

        Returns:
            The maps (B, N, H, W) uint8, 0-255.
        """
        cams = paddle.einsum("bchw,cn->bnhw", feature_conv, weight_softmax)
        cams = cams - cams.min(axis=[2, 3], keepdim=True)
        peak = cams.max(axis=[2, 3], keepdim=True)
        cams = cams / paddle.where(peak > 0, peak, paddle.ones_like(peak))
        cams = F.interpolate(cams, size=size, mode="bilinear")
        return (255 * cams).cast("uint8")
