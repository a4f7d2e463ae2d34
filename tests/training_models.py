"""A set of pictures and a network small enough to train in a second, for the tests of training."""
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from cxr.data.dataset import XrayDataset
from cxr.data.transforms import Preprocess
from cxr.models.transfer import freeze_backbone, trainable
from cxr.training.resume import claim
from cxr.training.settings import Settings
from cxr.training.trainer import fit
from cxr.visual.image_files import save_picture
from cxr.weights.paddle_files import read_weights

TINY = Preprocess(resize=(32, 32), crop=None, mean=(0.5,) * 3, std=(0.25,) * 3, antialias=False)


class Squares(XrayDataset):
    """White square in the upper (class 0) or lower half (class 1): 20 pictures of 32 x 32."""

    def __init__(self, folder, count=20, transform=TINY):
        rng = np.random.default_rng(7)
        names = []
        for index in range(count):
            image = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
            top = 4 + 14 * (index % 2)
            image[top:top + 8, 8:24] = 230
            names.append(f"{index}.png")
            if not Path(folder, names[-1]).exists():
                save_picture(Path(folder, names[-1]), image)
        super().__init__(folder, names, np.arange(count) % 2, ("upper", "lower"), transform)

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image, np.array([label])


class Tiny(nn.Layer):
    """Two convolutions, pooling into 2 x 1 places, a linear layer; with batch norm and dropout if wished."""

    activation = "softmax"

    def __init__(self, batch_norm=True, dropout=0.0):
        super().__init__()
        self.first = nn.Conv2D(3, 8, 5, stride=4)
        self.norm = nn.BatchNorm2D(8) if batch_norm else nn.Identity()
        self.second = nn.Conv2D(8, 16, 3, padding=1)
        self.drop = nn.Dropout(dropout)
        self.pool = nn.AdaptiveAvgPool2D((2, 1))
        self.fc = nn.Linear(32, 2)

    @property
    def classifier(self):
        return self.fc

    def features(self, x):
        return nn.functional.relu(self.second(nn.functional.relu(self.norm(self.first(x)))))

    def logits(self, features):
        return self.fc(self.drop(self.pool(features)).flatten(1))

    def forward(self, x):
        return self.logits(self.features(x))


def train(folder, pictures, epochs=3, rate=0.05, batch_size=8, resume=False, overwrite=False, model=None, frozen=False,
          adam=False, transform=TINY, identity=None, batch_norm=True, dropout=0.0, **options):
    """Train into `folder`; returns `(model, history)`. Options are those of `Settings`."""
    paddle.seed(5)
    model = model or Tiny(batch_norm, dropout)
    if frozen:
        freeze_backbone(model)
    data, val = Squares(pictures, transform=transform), Squares(pictures)
    settings = Settings(save_dir=Path(folder), epochs=epochs, batch_size=batch_size,
                        **{"monitor": "accuracy", **options})
    scheduler = paddle.optimizer.lr.PiecewiseDecay([4, 7], [rate, rate / 2, rate / 4])
    kind = paddle.optimizer.Adam if adam else paddle.optimizer.Momentum
    optimizer = kind(scheduler, parameters=trainable(model))
    with claim(folder, resume, overwrite) as saved:
        return model, fit(model, data, val, optimizer, scheduler, settings, {}, saved=saved, identity=identity)


def weights(model):
    return {key: value.numpy().copy() for key, value in model.state_dict().items()}


def last(folder):
    """The weights that a run ended with; the model itself ends with the best."""
    return read_weights(Path(folder, "last.pdparams"))[0]


def same(first, second):
    """Whether two state dicts hold the same bits."""
    return first.keys() == second.keys() and all(first[key].tobytes() == second[key].tobytes() for key in first)
