"""Grad-CAM on PaddleClas's transformers: ViT, Swin and PVTv2, trained on phantoms and explained.

PaddleClas asks for many packages that its networks do not need, so it is installed without them:

    pip install --no-deps paddleclas && pip install requests six pyyaml
    python notebooks/transformers.py --network PVT_V2_B0

Draws the phantoms of the demo, trains the network on them from scratch, and writes `NETWORK.png` into
`--save_dir`: X-rays above, Grad-CAM of the true class with the true box below. With weights of your own, only
the last part matters: a target layer by name, and the `reshape_transform` that turns its tokens into a map.
"""
from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402
import paddle  # noqa: E402
from paddle import Tensor, nn  # noqa: E402

import cxr  # noqa: E402, F401  before Paddle
from covid_resnet import CosineWarmup, data, gradcam  # noqa: E402
from cxr.cam import GradCAM, pvt_tokens, swin_tokens, vit_tokens  # noqa: E402
from cxr.data import class_folders, phantom  # noqa: E402
from cxr.data.boxes import scale_box  # noqa: E402
from cxr.data.lists import read_patients  # noqa: E402
from cxr.data.transforms import Preprocess  # noqa: E402
from cxr.localisation.measures import chance, peak_in_box  # noqa: E402
from cxr.training.settings import Settings  # noqa: E402
from cxr.training.trainer import fit  # noqa: E402
from cxr.visual import heatmaps, image_files  # noqa: E402

# network: (side of its input, target layer, what turns its tokens into a map)
NETWORKS = {
    "ViT_small_patch16_224": (224, "blocks.7.norm1", vit_tokens),
    "SwinTransformer_tiny_patch4_window7_224": (224, "layers.3.blocks.1.norm1", swin_tokens),
    "PVT_V2_B0": (128, "block3.1.norm1", pvt_tokens),
}


class Classifier(nn.Layer):
    """What `cxr.training.trainer.fit` wants of a network: features, logits, activation."""

    activation = "softmax"

    def __init__(self, network: nn.Layer):
        super().__init__()
        self.network = network

    def features(self, x: Tensor) -> Tensor:
        """The class scores, as nothing here needs the layers apart."""
        return self.network(x)

    def logits(self, features: Tensor) -> Tensor:
        """The features themselves."""
        return features

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


def build(name: str, classes: int) -> nn.Layer:
    """A PaddleClas network with random weights."""
    package = find_spec("paddleclas")
    if package is None:
        raise SystemExit("PaddleClas is not installed: pip install --no-deps paddleclas")
    sys.path.insert(0, str(Path(package.origin).parent))       # its modules import each other as `ppcls`
    from ppcls.arch import backbone
    return getattr(backbone, name)(class_num=classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="PVT_V2_B0", help="(default: %(default)s)")
    parser.add_argument("--per_class", type=int, default=200, help="phantoms of each class (default: %(default)s)")
    parser.add_argument("--epoch", type=int, default=20, help="epochs of training (default: %(default)s)")
    parser.add_argument("--save_dir", type=Path, default=Path("output/transformers"),
                        help="folder for the results (default: %(default)s)")
    args = parser.parse_args()

    side, layer, tokens = NETWORKS[args.network]
    phantom.write_folder(args.save_dir / "xrays", per_class=args.per_class)
    classes = class_folders.find_classes(args.save_dir / "xrays")
    patients = read_patients(args.save_dir / "xrays" / "sources.csv")
    lists = class_folders.write_lists(class_folders.split(classes, patients), args.save_dir)
    preprocess = Preprocess(resize=(side, side), crop=None)
    train_set, val_set, test_set = (
        data.CovidDataset(args.save_dir / "xrays", lists[part], preprocess, tuple(classes))
        for part in ("train", "val", "test"))

    paddle.seed(0)
    network = build(args.network, len(classes))
    scheduler = CosineWarmup(5e-4, -(-len(train_set) // 16), args.epoch, min(2, args.epoch / 2))
    optimizer = paddle.optimizer.AdamW(scheduler, parameters=network.parameters(), weight_decay=0.05)
    fit(Classifier(network), train_set, val_set, optimizer, scheduler,
        Settings(save_dir=args.save_dir, epochs=args.epoch, batch_size=16, monitor="accuracy"), {})
    network.eval()

    boxes = phantom.read_boxes(args.save_dir / "xrays" / "boxes.csv")
    found, by_chance, views, drawn = [], [], [], []
    with GradCAM(network, layer, reshape_transform=tokens) as cam:
        for index, name in enumerate(test_set.names):
            image, label = test_set.picture(index).astype(np.uint8), int(test_set.labels[index])
            saliency = cam(preprocess(image)[None], targets=label)[0]
            box = scale_box(boxes[name], image.shape[:2], saliency.shape)
            found.append(peak_in_box(saliency, box))
            by_chance.append(chance(box, saliency.shape))
            views.append(heatmaps.caption(image, name.split("/")[1]))
            drawn.append(heatmaps.with_box(heatmaps.overlay(image, saliency), boxes[name]))
    shown = [i for place in (0, 1) for i in (np.flatnonzero(test_set.labels == k)[place] for k in range(len(classes)))]
    picture = args.save_dir / f"{args.network}.png"
    image_files.save_picture(picture, gradcam.show_grid([views[i] for i in shown], [drawn[i] for i in shown]))
    print(f"Peak in the true box {np.mean(found):.0%} of the time, by chance {np.mean(by_chance):.0%}; see {picture}.")


if __name__ == "__main__":
    main()
