"""The main job on phantoms: draw, split, train, evaluate, explain, and count how often the map is right."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from paddle.optimizer import Adam

from covid_resnet import data, gradcam
from covid_resnet.recipe import CovidResNetRecipe
from covid_resnet.resnet import ResNet
from covid_resnet.schedule import CosineWarmup
from cxr.cam import GradCAM
from cxr.data import class_folders, phantom
from cxr.data.boxes import scale_box
from cxr.data.lists import read_patients
from cxr.data.transforms import Preprocess
from cxr.device import chosen
from cxr.evaluation.predictions import write_predictions
from cxr.inference.predictor import Predictor, predict
from cxr.localisation.measures import chance, peak_in_box
from cxr.metrics.classification import evaluate, scores_from_logits
from cxr.models.restore import metadata
from cxr.training.resume import claim
from cxr.training.settings import Settings
from cxr.training.trainer import fit
from cxr.utils.files import write_csv
from cxr.utils.progress import progress
from cxr.visual import heatmaps, image_files

# Adam gets there in a few epochs, where the published Momentum needs dozens.
LAYERS, BATCH_SIZE, LEARNING_RATE = 18, 16, 0.001
# Half the published side, so that two cores train in two minutes.
PREPROCESS = Preprocess(resize=(112, 112), crop=None, scale=1.0, mean=CovidResNetRecipe.preprocess.mean,
                        std=CovidResNetRecipe.preprocess.std, antialias=True)
# 14 x 14 and 7 x 7 at this size: the last block has only 4 x 4 places to point at.
TARGET_LAYERS = ["block.3", "block.5"]


@dataclass(frozen=True)
class DemoResult:
    """What the demo measured on its test phantoms.

    Attributes:
        images: how many there are.
        accuracy: share of them that are classified correctly.
        hit_rate: share of them whose map has its peak in the true box.
        chance: the share that a random peak would have.
        table: the figures of each class, for people.
    """
    images: int
    accuracy: float
    hit_rate: float
    chance: float
    table: str


def run_demo(save_dir: Path, per_class: int, epochs: int, seed: int) -> DemoResult:
    """Run the whole demo, from drawing the phantoms to `demo.png`.

    Args:
        save_dir: gets `xrays/`, lists, checkpoints, curves, predictions, `cams/` and `demo.png`; a run in it is
            replaced.
        per_class: phantoms of each class.
        epochs: of training.
        seed: of phantoms, split and training.

    Returns:
        What was measured on the test phantoms.
    """
    xrays = save_dir / "xrays"
    with progress(None, total=per_class * len(phantom.CLASS_NAMES), desc="draw phantoms") as bar:
        phantom.write_folder(xrays, per_class=per_class, seed=seed, progress=lambda done, total: bar.update())
    classes = class_folders.find_classes(xrays)
    patients = read_patients(xrays / "sources.csv")
    lists = class_folders.write_lists(class_folders.split(classes, patients, seed), save_dir)
    names = tuple(classes)
    train_set, val_set, test_set = (data.CovidDataset(xrays, lists[part], PREPROCESS, names, seed)
                                    for part in ("train", "val", "test"))
    print(f"Drew {per_class} phantoms of each of {', '.join(names)}; training ResNet{LAYERS} on {len(train_set)} of "
          f"them ({chosen() or paddle.get_device()}).", flush=True)
    paddle.seed(seed)
    model = CovidResNetRecipe().build(len(names), layers=LAYERS)
    settings = Settings(save_dir=save_dir, epochs=epochs, batch_size=BATCH_SIZE, monitor="accuracy", seed=seed)
    steps = settings.steps_per_epoch(len(train_set))
    scheduler = CosineWarmup(LEARNING_RATE, steps, epochs, warmup_epoch_num=min(1, epochs / 2))
    optimizer = Adam(scheduler, parameters=model.parameters())
    with claim(save_dir, overwrite=True):
        fit(model, train_set, val_set, optimizer, scheduler, settings,
            metadata(CovidResNetRecipe(), {"layers": LAYERS}, names, PREPROCESS))
    model.eval()

    logits = predict(Predictor(model, "dygraph"), test_set)
    report = evaluate(logits, test_set.labels, names, model.activation)
    write_predictions(save_dir / "predictions.csv", test_set.names, logits, test_set.labels, names, model.activation)
    hit, by_chance = _explain(model, test_set, scores_from_logits(logits, model.activation), save_dir)
    return DemoResult(len(test_set), report.values["accuracy"], hit, by_chance, report.table)


def _explain(model: ResNet, test_set: data.CovidDataset, scores: np.ndarray, save_dir: Path) -> tuple[float, float]:
    """Grad-CAM of the true class of every test phantom, drawn and compared with the box; (hit rate, chance)."""
    boxes = phantom.read_boxes(Path(test_set.paths[0]).parents[1] / "boxes.csv")
    rows, views, drawn = [], [], []
    method = GradCAM(model, TARGET_LAYERS)
    for index in progress(range(len(test_set)), desc="Grad-CAM"):
        name, label = test_set.names[index], int(test_set.labels[index])
        image = test_set.picture(index).astype(np.uint8)
        cam = method(PREPROCESS(image)[None], targets=label)[0]
        box = scale_box(boxes[name], image.shape[:2], cam.shape)
        rows.append((name, int(peak_in_box(cam, box)), chance(box, cam.shape)))
        text = f"{test_set.class_names[label]}: {scores[index, label] * 100:.2f}%"
        views.append(heatmaps.caption(image, name.split("/")[-1]))
        drawn.append(heatmaps.caption(heatmaps.with_box(heatmaps.overlay(image, cam), boxes[name]), text))
        image_files.save_picture(save_dir / "cams" / name, drawn[-1])
    write_csv(save_dir / "hits.csv", ("image", "peak_in_box", "chance"), rows)
    # Two of each class, or one where a small set has no more.
    examples = [np.flatnonzero(test_set.labels == label)[:2] for label in range(len(test_set.class_names))]
    shown = [int(of_class[place]) for place in (0, 1) for of_class in examples if place < len(of_class)]
    image_files.save_picture(save_dir / "demo.png",
                             gradcam.show_grid([views[i] for i in shown], [drawn[i] for i in shown], side=256))
    return float(np.mean([row[1] for row in rows])), float(np.mean([row[2] for row in rows]))
