"""What the published scripts do, as candidates of `tools/benchmark.py`: plain Paddle, one image after the other.

CheXNet notebook: OpenCV reads, `paddle.vision` transforms, one forward an image, all maps, a montage written as PNG.
Paddle-CheXNet's evaluation: Pillow reads, ten crops, one forward. COVID notebook: forward, backward, Momentum.
"""
from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import paddle
from paddle import nn
from paddle.vision import transforms
from PIL import Image

from chexnet.densenet import Transition
from chexnet.labels import CLASS_NAMES
from chexnet.model import CheXNet, CheXNetCAM
from covid_resnet import ResNet
from cxr.data.transforms import ten_crop

_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def network(name: str) -> nn.Layer:
    """A model with random weights, in eval mode: chexnet, chexnet-cam (which also returns the maps) or resnet50."""
    model = {"chexnet": partial(CheXNet, len(CLASS_NAMES)), "chexnet-cam": partial(CheXNetCAM, len(CLASS_NAMES)),
             "resnet50": partial(ResNet, 50, 4)}[name]()
    model.eval()
    return model


def in_published_order(model: CheXNet) -> CheXNet:
    """Have its transitions convolve before they pool, as in the published code: the same numbers for more work."""
    for layer in model.sublayers():
        if isinstance(layer, Transition):
            layer.forward = lambda x, transition=layer: transition.pool2d_avg(transition.conv_ac_func(x))
    return model


def batch(size: int) -> np.ndarray:
    """Random images (size, 3, 224, 224) float32."""
    return np.random.default_rng(0).standard_normal((size, 3, 224, 224), "float32")


@paddle.no_grad()
def forward(model: nn.Layer, x: np.ndarray) -> np.ndarray | list[np.ndarray]:
    """What the model returns for a batch, as numpy; several results as a list."""
    results = model(paddle.to_tensor(x))
    return [result.numpy() for result in results] if isinstance(results, (list, tuple)) else results.numpy()


class TrainingStep:
    """One step of the COVID notebook: ResNet50 with 4 classes, cross entropy, Momentum."""

    def __init__(self, size: int):
        self.model = ResNet(50, 4)
        self.model.train()
        self.optimizer = paddle.optimizer.Momentum(0.01, parameters=self.model.parameters())
        self.x, self.labels = paddle.to_tensor(batch(size)), paddle.to_tensor(np.arange(size) % 4)

    def __call__(self) -> float:
        loss = paddle.nn.functional.cross_entropy(self.model(self.x), self.labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.clear_grad()
        return float(loss)


def montages(model: CheXNetCAM, paths: list[Path], folder: Path) -> None:
    """The montage of every image, as the CAM notebook draws it."""
    sized = [transforms.Resize(256), transforms.CenterCrop(224)]
    to_input = transforms.Compose([*sized, transforms.ToTensor(), transforms.Normalize(_MEAN, _STD)])
    to_view = transforms.Compose(sized)
    label = partial(cv2.putText, org=(5, 219), fontFace=cv2.FONT_HERSHEY_SIMPLEX, fontScale=0.5,
                    color=(255, 255, 255), thickness=1)
    for number, path in enumerate(paths):
        image = cv2.cvtColor(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        scores, cams = forward(model, to_input(image).numpy()[None])
        view = to_view(image)
        tiles = [label(view.copy(), "Original")]
        for name, score, cam in zip(CLASS_NAMES, scores[0], cams[0]):
            mixed = (cv2.applyColorMap(cam, cv2.COLORMAP_JET) * 0.3 + view * 0.5).astype("uint8")
            tiles.append(label(mixed, f"{name}: {score * 100:.2f}%"))
        rows = [np.concatenate(tiles[start:start + 5], axis=1) for start in (0, 5, 10)]
        cv2.imwrite(str(folder / f"{number}.png"), np.concatenate(rows, axis=0))


def ten_crop_scores(model: nn.Layer, paths: list[Path]) -> list[np.ndarray]:
    """Scores of every image, averaged over its ten crops, as Paddle-CheXNet's evaluation computes them."""
    resize, to_tensor = transforms.Resize(256), transforms.ToTensor()
    normalise = transforms.Normalize(_MEAN, _STD)
    scores = []
    for path in paths:
        image = np.asarray(resize(Image.open(path).convert("RGB")))
        crops = np.stack([normalise(to_tensor(crop)).numpy() for crop in ten_crop(image, 224)])
        scores.append(forward(model, crops).mean(axis=0))
    return scores
