"""DenseNet 121/161/169/201/264, with the parameter names of the published Paddle checkpoints.

Huang et al. 2017, "Densely Connected Convolutional Networks". Every ReLU is built into its batch norm
(`BatchNorm(act="relu")`), as in the published weights' code, so a hook on a batch norm sees activations
after the ReLU.
"""
from __future__ import annotations

from functools import partial
from typing import Any

import paddle
from paddle import nn

from cxr.device import ensure
from cxr.weights import load_weights

# layers: (channels after the stem, growth rate, dense layers in each block)
CONFIGS = {
    121: (64, 32, (6, 12, 24, 16)),
    161: (96, 48, (6, 12, 36, 24)),
    169: (64, 32, (6, 12, 32, 32)),
    201: (64, 32, (6, 12, 48, 32)),
    264: (64, 32, (6, 12, 64, 48)),
}
_BOTTLENECK = 4                       # a dense layer's 1x1 convolution has 4 x growth rate channels


class _ConvBN(nn.Layer):
    """Convolution, batch norm, ReLU: the stem."""

    def __init__(self, channels: int, filters: int, kernel: int, stride: int, padding: int):
        super().__init__()
        self._conv = nn.Conv2D(channels, filters, kernel, stride=stride, padding=padding, bias_attr=False)
        self._batch_norm = nn.BatchNorm(filters, act="relu")

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self._batch_norm(self._conv(x))


class _BNConv(nn.Layer):
    """Batch norm, ReLU, convolution: the pre-activation order of everything behind the stem."""

    def __init__(self, channels: int, filters: int, kernel: int, padding: int = 0):
        super().__init__()
        self._batch_norm = nn.BatchNorm(channels, act="relu")
        self._conv = nn.Conv2D(channels, filters, kernel, padding=padding, bias_attr=False)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self._conv(self._batch_norm(x))


class _DenseLayer(nn.Layer):
    """Adds `growth` channels to those that it is given."""

    def __init__(self, channels: int, growth: int, dropout: float):
        super().__init__()
        self.bn_ac_func1 = _BNConv(channels, _BOTTLENECK * growth, 1)
        self.bn_ac_func2 = _BNConv(_BOTTLENECK * growth, growth, 3, padding=1)
        self.dropout = nn.Dropout(dropout) if dropout else None

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        new = self.bn_ac_func2(self.bn_ac_func1(x))
        if self.dropout is not None:
            new = self.dropout(new)
        return paddle.concat([x, new], axis=1)


class Transition(nn.Layer):
    """Halve the channels with a 1x1 convolution and the size with average pooling.

    The pooling comes before the convolution: both are linear, so the order is free, and this one has a quarter of the
    multiplications (8 % of all those of DenseNet121).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv_ac_func = _BNConv(channels, channels // 2, 1)
        self.pool2d_avg = nn.AvgPool2D(2, 2)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.conv_ac_func._conv(self.pool2d_avg(self.conv_ac_func._batch_norm(x)))


class DenseNet(nn.Layer):
    """(B, 3, H, W) float32 to class scores (B, class_num); H and W at least 32.

    Args:
        layers: 121, 161, 169, 201 or 264.
        class_num: number of outputs of `out`, a plain linear layer; CheXNet replaces it.
        dropout: probability of dropping what a dense layer adds, 0 as published.

    Raises:
        ValueError: for another number of layers.

    `forward(x) == head(features(x))`, with `features(x)` (B, num_features, H/32, W/32) after the last ReLU.
    """

    def __init__(self, layers: int = 121, class_num: int = 1000, dropout: float = 0.0):
        super().__init__()
        ensure()                                 # weights made on a GPU that computes wrong are zeros
        if layers not in CONFIGS:
            raise ValueError(f"DenseNet has {', '.join(map(str, CONFIGS))} layers, not {layers}.")
        channels, growth, blocks = CONFIGS[layers]
        self.conv1_func = _ConvBN(3, channels, 7, stride=2, padding=3)
        self.pool2d_max = nn.MaxPool2D(3, stride=2, padding=1)
        self._stages = []                        # names, in the order of the forward pass
        for number, depth in enumerate(blocks, start=2):
            block = nn.Sequential()
            for index in range(1, depth + 1):
                block.add_sublayer(f"conv{number}_{index}", _DenseLayer(channels, growth, dropout))
                channels += growth
            self._add_stage(f"db_conv_{number}", block)
            if number - 1 < len(blocks):
                self._add_stage(f"tr_conv{number}_blk", Transition(channels))
                channels //= 2
        self.batch_norm = nn.BatchNorm(channels, act="relu")
        self.pool2d_avg = nn.AdaptiveAvgPool2D(1)
        self.num_features = channels
        limit = channels ** -0.5
        self.out = nn.Linear(channels, class_num,
                             weight_attr=paddle.ParamAttr(initializer=nn.initializer.Uniform(-limit, limit)))

    def _add_stage(self, name: str, layer: nn.Layer) -> None:
        self.add_sublayer(name, layer)
        self._stages.append(name)

    def features(self, x: paddle.Tensor) -> paddle.Tensor:
        """(B, 3, H, W) to (B, num_features, H/32, W/32), non-negative."""
        x = self.pool2d_max(self.conv1_func(x))
        for name in self._stages:
            x = getattr(self, name)(x)
        return self.batch_norm(x)

    def pool(self, features: paddle.Tensor) -> paddle.Tensor:
        """Global average pooling: (B, C, h, w) to (B, C)."""
        return paddle.flatten(self.pool2d_avg(features), 1)

    def head(self, features: paddle.Tensor) -> paddle.Tensor:
        """Class scores of features: (B, C, h, w) to (B, class_num)."""
        return self.out(self.pool(features))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.head(self.features(x))


def build(layers: int, pretrained: bool | str = False, **options: Any) -> DenseNet:
    """`DenseNet(layers, **options)`, with the weights of a file if one is named.

    Args:
        layers: 121, 161, 169, 201 or 264.
        pretrained: path of a `.pdparams` file, or False for random weights.
        options: those of `DenseNet`.

    Raises:
        ValueError: for `pretrained=True`, as no weights are downloaded from here, or another number of layers.
        InputError: for a file that cannot be read or does not fit.
    """
    net = DenseNet(layers, **options)
    if pretrained is True:
        raise ValueError("Paddle's ImageNet weights are not downloaded from here, because no checksum of them is "
                         "pinned: pass the path of a .pdparams file as `pretrained`.")
    if pretrained:
        load_weights(net, pretrained)
    return net


DenseNet121, DenseNet161, DenseNet169, DenseNet201, DenseNet264 = (partial(build, layers) for layers in CONFIGS)
