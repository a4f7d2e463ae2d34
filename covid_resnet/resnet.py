"""ResNet 18/34/50/101/152 as the COVID notebook builds it, with the notebook's parameter names.

He et al. 2016, "Deep Residual Learning for Image Recognition". All residual blocks stand in one
`Sequential`, so that layer names for Grad-CAM are `block.0` to `block.15` (ResNet 34 and 50).
"""
from __future__ import annotations

from paddle import Tensor, nn

from cxr.device import ensure


def _conv_bn(channels: int, filters: int, kernel: int, stride: int = 1, relu: bool = True) -> nn.Sequential:
    """Convolution, batch norm and, unless `relu` is False, ReLU."""
    layers = [nn.Conv2D(channels, filters, kernel, stride=stride, padding=kernel // 2, bias_attr=False),
              nn.BatchNorm2D(filters)]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


def _shortcut(channels: int, filters: int, stride: int) -> nn.Sequential:
    """A 1x1 convolution where the shape changes, otherwise nothing (an empty Sequential)."""
    if stride == 1 and channels == filters:
        return nn.Sequential()
    return _conv_bn(channels, filters, 1, stride, relu=False)


class BasicBlock(nn.Layer):
    """Two 3x3 convolutions with a shortcut: (B, in_channels, h, w) to (B, out_channels, h/stride, w/stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = _conv_bn(in_channels, out_channels, 3, stride)
        self.conv2 = _conv_bn(out_channels, out_channels, 3, relu=False)
        self.shortcut = _shortcut(in_channels, out_channels, stride)
        self.relu = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.relu(self.conv2(self.conv1(inputs)) + self.shortcut(inputs))


class BottleneckBlock(nn.Layer):
    """1x1, 3x3, 1x1 convolutions with a shortcut; the inner channels are a quarter of `out_channels`."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        inner = out_channels // 4
        self.conv1 = _conv_bn(in_channels, inner, 1)
        self.conv2 = _conv_bn(inner, inner, 3, stride)
        self.conv3 = _conv_bn(inner, out_channels, 1, relu=False)
        self.shortcut = _shortcut(in_channels, out_channels, stride)
        self.relu = nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.relu(self.conv3(self.conv2(self.conv1(inputs))) + self.shortcut(inputs))


# layers: (block, blocks in each stage, channels of each stage)
CONFIGS = {
    18: (BasicBlock, (2, 2, 2, 2), (64, 128, 256, 512)),
    34: (BasicBlock, (3, 4, 6, 3), (64, 128, 256, 512)),
    50: (BottleneckBlock, (3, 4, 6, 3), (256, 512, 1024, 2048)),
    101: (BottleneckBlock, (3, 4, 23, 3), (256, 512, 1024, 2048)),
    152: (BottleneckBlock, (3, 8, 36, 3), (256, 512, 1024, 2048)),
}


class ResNet(nn.Layer):
    """(B, 3, H, W) float32 to logits (B, num_classes).

    Args:
        layers: 18, 34, 50, 101 or 152.
        num_classes: number of exclusive classes (4 in the notebook).

    Raises:
        ValueError: for another number of layers.

    `forward(x) == head(features(x))`, with `features(x)` (B, C, H/32, W/32) the output of the last block.
    """

    activation = "softmax"

    def __init__(self, layers: int, num_classes: int):
        super().__init__()
        ensure()                                 # weights made on a GPU that computes wrong are zeros
        if layers not in CONFIGS:
            raise ValueError(f"ResNet has {', '.join(map(str, CONFIGS))} layers, not {layers}.")
        block, depths, widths = CONFIGS[layers]
        self.conv = _conv_bn(3, 64, 7, stride=2)
        self.max_pool = nn.MaxPool2D(3, stride=2, padding=1)
        blocks, channels = [], 64
        for stage, (depth, width) in enumerate(zip(depths, widths)):
            for index in range(depth):
                blocks.append(block(channels, width, 2 if stage and index == 0 else 1))
                channels = width
        self.block = nn.Sequential(*blocks)
        self.avg_pool = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels, num_classes)

    @property
    def classifier(self) -> nn.Linear:
        """The linear layer behind the global average pooling, weight (C, num_classes)."""
        return self.fc

    @property
    def last_block(self) -> str:
        """Name of the last residual block, the usual target of Grad-CAM: `block.15` for 34 and 50 layers."""
        return f"block.{len(self.block) - 1}"

    def features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, C, H/32, W/32): the output of the last block, non-negative."""
        return self.block(self.max_pool(self.conv(x)))

    def logits(self, features: Tensor) -> Tensor:
        """What the softmax is applied to: features (B, C, h, w) to (B, num_classes)."""
        return self.fc(self.flatten(self.avg_pool(features)))

    head = logits

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.features(inputs))
