"""Small models for the CAM tests: the network of the reference numbers, and one model per peculiarity."""
from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

DATA = Path(os.environ.get("CXR_DATA", Path(__file__).parents[2] / "shared" / "data"))
REFERENCE = DATA.parent / "reference"


class SmallNet(nn.Layer):
    """Three convolutions, mean, linear: the network of `cam_seed1.npz`, as a model without the split."""

    def __init__(self):
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2D(3, 16, 3, 2, 1), nn.ReLU()
        self.conv2, self.relu2 = nn.Conv2D(16, 32, 3, 2, 1), nn.ReLU()
        self.conv3, self.relu3 = nn.Conv2D(32, 24, 3, 1, 1), nn.ReLU()
        self.fc = nn.Linear(24, 5)

    def body(self, x):
        return self.relu3(self.conv3(self.relu2(self.conv2(self.relu1(self.conv1(x))))))

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))


class SplitNet(SmallNet):
    """The same with the split, and a sigmoid behind the logits. `backbone_runs` counts."""

    backbone_runs = 0

    def features(self, x):
        self.backbone_runs += 1
        return self.body(x)

    def logits(self, features):
        return self.fc(features.mean((2, 3)))

    def head(self, features):
        return F.sigmoid(self.logits(features))

    def forward(self, x):
        return self.head(self.features(x))


class ClosedNet(SplitNet):
    """The same once more, naming its linear layer: closed forms apply."""

    @property
    def classifier(self):
        return self.fc


class FusedNet(nn.Layer):
    """No `nn.ReLU` anywhere: one ReLU inside a batch norm, one function, one in place."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm = nn.Conv2D(3, 8, 3, 2, 1), nn.BatchNorm(8, act="relu")
        self.conv2, self.conv3 = nn.Conv2D(8, 8, 3, 1, 1), nn.Conv2D(8, 8, 3, 1, 1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        x = F.relu(self.conv2(self.norm(self.conv1(x))))
        return self.fc(F.relu_(self.conv3(x)).mean((2, 3)))


class UnfusedNet(FusedNet):
    """What FusedNet computes, spelt with `nn.ReLU` only."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm(8)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x):
        x = self.relu2(self.conv2(self.relu1(self.norm(self.conv1(x)))))
        return self.fc(self.relu3(self.conv3(x)).mean((2, 3)))


class TwoBranches(nn.Layer):
    """Class 0 sees branch `left` only, class 1 `right` only; `unused` is never called."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.unused = (nn.Conv2D(3, 4, 3, 2, 1) for _ in range(3))

    def forward(self, x):
        return paddle.stack([self.left(x).mean((1, 2, 3)), self.right(x).mean((1, 2, 3))], 1)


class Attention(nn.Layer):
    def __init__(self, width):
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, axis=-1)
        return self.out(F.softmax(q @ k.transpose([0, 2, 1]) / q.shape[-1] ** 0.5) @ v)


class Block(nn.Layer):
    """Pre-norm transformer block, over windows of `window` x `window` tokens if that is given."""

    def __init__(self, width, window=None):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.window = Attention(width), window
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        tokens = self.norm1(x)
        x = x + (self.windowed(tokens) if self.window else self.attention(tokens))
        return x + self.mlp(self.norm2(x))

    def windowed(self, tokens):
        b, n, c = tokens.shape
        w, side = self.window, int(n ** 0.5)
        split = tokens.reshape([b, side // w, w, side // w, w, c]).transpose([0, 1, 3, 2, 4, 5])
        seen = self.attention(split.reshape([-1, w * w, c]))
        seen = seen.reshape([b, side // w, side // w, w, w, c]).transpose([0, 1, 3, 2, 4, 5])
        return seen.reshape([b, n, c])


class TinyViT(nn.Layer):
    """32 x 32 image, 4 x 4 patches and a class token, two blocks; the class token alone is classified."""

    def __init__(self, width=16, classes=4):
        super().__init__()
        self.patch = nn.Conv2D(3, width, 8, 8)
        self.token = self.create_parameter([1, 1, width], default_initializer=nn.initializer.Normal())
        self.blocks = nn.LayerList([Block(width), Block(width)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose([0, 2, 1])
        x = paddle.concat([self.token.expand([x.shape[0], 1, x.shape[2]]), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class TinyPyramid(nn.Layer):
    """Swin and PVT in small: 8 x 8 tokens in windows of 4, merged to 4 x 4 tokens, their mean classified."""

    def __init__(self, width=8, classes=4):
        super().__init__()
        self.patch, self.stage1 = nn.Conv2D(3, width, 4, 4), Block(width, window=4)
        self.merge, self.stage2 = nn.Conv2D(width, 2 * width, 2, 2), Block(2 * width)
        self.norm, self.head = nn.LayerNorm(2 * width), nn.Linear(2 * width, classes)

    def forward(self, x):
        x = self.stage1(self.patch(x).flatten(2).transpose([0, 2, 1]))
        x = self.merge(x.transpose([0, 2, 1]).reshape([x.shape[0], -1, 8, 8]))
        x = self.stage2(x.flatten(2).transpose([0, 2, 1]))
        return self.head(self.norm(x).mean(1))


def seeded(model, seed=0):
    """Weights that depend on the seed only; biases and norms too, so that nothing is zero by symmetry."""
    rng = np.random.default_rng(seed)
    for parameter in model.parameters():
        shape = parameter.shape
        value = rng.normal(0, 1, shape) / np.sqrt(np.prod(shape[1:]) if len(shape) == 4 else shape[0])
        parameter.set_value((np.abs(value) + 0.5 if len(shape) == 1 else value).astype("float32"))
    return model


def reference_net(model_class=SmallNet):
    """A model of SmallNet's kind with the weights of `cam_seed1.npz`."""
    sys.path.insert(0, str(REFERENCE))
    try:
        from seeded_weights import seeded_state
    finally:
        sys.path.pop(0)
    model = model_class()
    state = seeded_state({key: list(value.shape) for key, value in model.state_dict().items()}, seed=1)
    state["fc.weight"] = state["fc.weight"] * 10
    model.set_state_dict(state)
    return model


def images(batch=2, size=64, seed=0):
    return paddle.to_tensor(np.random.default_rng(seed).normal(size=(batch, 3, size, size)).astype("float32"))
