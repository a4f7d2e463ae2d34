"""All nine CAM methods on one X-ray, side by side, with the finding's true box.

    python tools/demo.py && python notebooks/methods.py

Takes the demo's model and the first phantom of a class from its test list. The methods use the target layers of the
demo; only CAM, which is defined for the last layer alone, has coarser cells.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cxr.runtime import load_paddle  # noqa: E402

load_paddle()

from covid_resnet.data import CovidDataset  # noqa: E402
from covid_resnet.demo import TARGET_LAYERS  # noqa: E402
from covid_resnet.recipe import CovidResNetRecipe  # noqa: E402
from cxr.cam import METHODS  # noqa: E402
from cxr.cam.registry import METHOD_NAMES  # noqa: E402
from cxr.data import phantom  # noqa: E402
from cxr.models.restore import restore  # noqa: E402
from cxr.utils.files import replacing  # noqa: E402
from cxr.visual import heatmaps, image_files  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("output/demo"),
                        help="save_dir of the demo (default: %(default)s)")
    parser.add_argument("--finding", choices=phantom.CLASS_NAMES, default="Cardiomegaly",
                        help="class of the phantom (default: %(default)s)")
    parser.add_argument("--picture", type=Path, default=Path("output/methods.jpg"),
                        help="file to write (default: %(default)s)")
    args = parser.parse_args()

    recipe = CovidResNetRecipe()
    restored = restore(recipe, args.demo / "best.pdparams", recipe.preprocess, recipe.arch)
    test_set = CovidDataset(args.demo / "xrays", args.demo / "test.txt", restored.preprocess, restored.class_names)
    label = restored.class_names.index(args.finding)
    index = list(test_set.labels).index(label)
    image, x = test_set.picture(index).astype("uint8"), test_set[index][0][None]
    box = phantom.read_boxes(args.demo / "xrays" / "boxes.csv")[test_set.names[index]]

    tiles = [heatmaps.heading(heatmaps.with_box(image, box), f"{args.finding}, true box")]
    for name, method in METHODS.items():
        layers = recipe.layer(restored.model) if name == "cam" else TARGET_LAYERS
        with method(restored.model, layers) as cam:
            saliency = cam(x, targets=label)[0]
        tiles.append(heatmaps.heading(heatmaps.with_box(heatmaps.overlay(image, saliency), box), METHOD_NAMES[name]))
    with replacing(args.picture) as file:
        file.write(image_files.encode(heatmaps.montage(tiles), ".jpg", 85))
    print(f"{test_set.names[index]} is in {args.picture}.")


if __name__ == "__main__":
    main()
