"""The names that torchvision and paddle.vision give to the layers of DenseNet, and those of CheXNet here."""
from __future__ import annotations

from collections.abc import Iterator, Sequence

from chexnet.densenet import CONFIGS
from cxr.models.convert import Layout

_PREFIX = "densenet121."                           # of every key of CheXNet, whatever the number of layers
# torchvision before 0.2, and so the CheXNet of 2017, wrote `denselayer1.norm.1.weight`.
_RENAMES = ((r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),)
_NOT_IN_TORCHVISION = (264,)


def layouts() -> list[Layout]:
    """Ours, paddle.vision's and torchvision's names, for every number of layers."""
    found = []
    for layers, (_, _, blocks) in CONFIGS.items():
        modules, arch = list(_modules(blocks)), {"layers": layers}
        *body, (kind, head, _) = [(kind, ours, ours) for kind, ours, _ in modules]
        found += [Layout(f"CheXNet {layers} of this project", "paddle", arch,
                         [(kind, _PREFIX + ours, _PREFIX + ours) for kind, ours, _ in modules]),
                  Layout(f"paddle.vision DenseNet{layers}", "paddle", arch,
                         [(kind, _PREFIX + ours, theirs) for kind, ours, theirs in [*body, (kind, head, "out")]])]
        if layers not in _NOT_IN_TORCHVISION:
            found.append(Layout(f"torchvision DenseNet{layers}", "torch", arch,
                                [(kind, _PREFIX + ours, theirs) for kind, ours, theirs in modules], _RENAMES))
    return found


def _modules(blocks: Sequence[int]) -> Iterator[tuple[str, str, str]]:
    """(kind, our name without the prefix, torchvision's name) of every layer, in the order of the network."""
    yield "conv", "conv1_func._conv", "features.conv0"
    yield "norm", "conv1_func._batch_norm", "features.norm0"
    for block, depth in enumerate(blocks, start=1):
        stage = block + 1                          # Paddle counts the stem as the first
        for layer in range(1, depth + 1):
            ours, theirs = f"db_conv_{stage}.conv{stage}_{layer}", f"features.denseblock{block}.denselayer{layer}"
            for half in (1, 2):
                yield "norm", f"{ours}.bn_ac_func{half}._batch_norm", f"{theirs}.norm{half}"
                yield "conv", f"{ours}.bn_ac_func{half}._conv", f"{theirs}.conv{half}"
        if block < len(blocks):
            ours, theirs = f"tr_conv{stage}_blk.conv_ac_func", f"features.transition{block}"
            yield "norm", f"{ours}._batch_norm", f"{theirs}.norm"
            yield "conv", f"{ours}._conv", f"{theirs}.conv"
    yield "norm", "batch_norm", "features.norm5"
    yield "linear", "out.0", "classifier"
