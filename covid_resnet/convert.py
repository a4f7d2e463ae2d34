"""The names that torchvision and paddle.vision give to the layers of ResNet, and those of the COVID notebook."""
from __future__ import annotations

from collections.abc import Iterator

from covid_resnet.resnet import CONFIGS, BottleneckBlock
from cxr.models.convert import Layout


def layouts() -> list[Layout]:
    """Ours, paddle.vision's and torchvision's names (which differ in the batch norms' parts), for every depth."""
    found = []
    for layers in CONFIGS:
        modules, arch = list(_modules(layers)), {"layers": layers}
        found += [Layout(f"ResNet{layers} of this project", "paddle", arch,
                         [(kind, ours, ours) for kind, ours, _ in modules]),
                  Layout(f"paddle.vision ResNet{layers}", "paddle", arch, modules),
                  Layout(f"torchvision ResNet{layers}", "torch", arch, modules)]
    return found


def _modules(layers: int) -> Iterator[tuple[str, str, str]]:
    """(kind, our name, torchvision's name) of every layer, in the order of the network."""
    block, depths, _ = CONFIGS[layers]
    bottleneck = block is BottleneckBlock
    yield "conv", "conv.0", "conv1"
    yield "norm", "conv.1", "bn1"
    number = 0                                     # ours count through all stages
    for stage, depth in enumerate(depths, start=1):
        for index in range(depth):
            ours, theirs = f"block.{number}", f"layer{stage}.{index}"
            for part in range(1, 4 if bottleneck else 3):
                yield "conv", f"{ours}.conv{part}.0", f"{theirs}.conv{part}"
                yield "norm", f"{ours}.conv{part}.1", f"{theirs}.bn{part}"
            if index == 0 and (stage > 1 or bottleneck):
                yield "conv", f"{ours}.shortcut.0", f"{theirs}.downsample.0"
                yield "norm", f"{ours}.shortcut.1", f"{theirs}.downsample.1"
            number += 1
    yield "linear", "fc", "fc"
