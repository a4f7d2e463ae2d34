"""The transfer recipe on the article's folders: head alone, steps of the rate, augmentation, and the whole road."""
import argparse
import csv
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from test_tools import call

from covid_resnet import ResNet
from covid_resnet.pneumonia import PneumoniaRecipe
from cxr.data.dataset import FolderDataset
from cxr.data.images import read_image
from cxr.data.transforms import Augment, Preprocess
from cxr.errors import InputError
from cxr.metrics.thresholds import read_operating
from cxr.models.transfer import freeze_backbone, trainable
from cxr.visual.image_files import save_picture
from cxr.weights import save_weights
from cxr.weights.paddle_files import read_weights


def folders(root, parts=("train", "val", "test"), classes=("NORMAL", "PNEUMONIA"), count=3):
    rng = np.random.default_rng(0)
    for part in parts:
        for label, name in enumerate(classes):
            for index in range(count):
                image = rng.integers(0, 60, (40, 40, 3), dtype=np.uint8)
                image[10:30, 10:30] += np.uint8(120 * label)
                save_picture(root / part / name / f"{part}{index}.png", image)
    return root


def args(**values):
    parser = argparse.ArgumentParser()
    PneumoniaRecipe().add_train_arguments(parser)
    return SimpleNamespace(**{**vars(parser.parse_args([])), "learning_rate": 0.001, "seed": 0, **values})


def test_published_settings():
    recipe = PneumoniaRecipe()
    assert (recipe.defaults.epoch, recipe.defaults.batch_size, recipe.defaults.learning_rate) == (10, 256, 0.001)
    assert recipe.arch == {"layers": 152} and recipe.defaults.freeze and recipe.method == "cam"
    assert recipe.layer(ResNet(18, 2)) == "block.7"
    optimizer, scheduler = recipe.optimizer(args(), ResNet(18, 2).parameters(), 3)
    rates = [scheduler() for _ in range(30) if scheduler.step() or True]
    assert type(optimizer).__name__ == "Adam"
    assert [rates[step] for step in (0, 10, 11, 22, 23)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5])


def test_adam_has_the_head_alone():
    model = ResNet(18, 2)
    freeze_backbone(model)
    assert [list(parameter.shape) for parameter in trainable(model)] == [[512, 2], [2]]


def test_cross_entropy_is_the_articles_loss():
    logits, labels = paddle.randn([5, 2]), paddle.to_tensor([0, 1, 1, 0, 1])
    published = paddle.nn.functional.nll_loss(paddle.nn.functional.log_softmax(logits, axis=1), labels)
    assert float(paddle.nn.functional.cross_entropy(logits, labels)) == pytest.approx(float(published), abs=1e-6)


def test_rotation_is_pillows_and_within_twenty_degrees():
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 35] = 255                           # 15 to the right of the centre
    augment = Augment(Preprocess(resize=(41, 41), crop=None, mean=(0,) * 3, std=(1,) * 3), flip=0, rotate=20)
    angles = []
    for seed in range(200):
        rotated = augment(image, np.random.default_rng(seed))[0]
        if rotated.max() == 1:                    # the nearest pixel can miss a single one
            row, column = np.argwhere(rotated == 1)[0]
            angles.append(np.degrees(np.arctan2(20 - row, column - 20)))
    assert len(angles) > 100 and -24 < min(angles) < -15 and 15 < max(angles) < 24
    white = augment(np.full((41, 41, 3), 255, np.uint8), np.random.default_rng(0))
    assert white[:, 20, 20].tolist() == [1, 1, 1] and white.min() == 0        # black corners


def test_folders_are_the_classes(tmp_path, capsys):
    folders(tmp_path)
    train, val = PneumoniaRecipe().train_sets(args(data_dir=tmp_path))
    assert train.class_names == val.class_names == ("NORMAL", "PNEUMONIA")
    assert train.names[0] == "NORMAL/train0.png" and train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    image, label = train[4]
    assert image.shape == (40, 40, 3) and image.dtype == np.uint8 and label.tolist() == [1]
    assert "only 6 images" in capsys.readouterr().out
    test = PneumoniaRecipe().test_set(args(data_dir=tmp_path), ("PNEUMONIA", "NORMAL"), None)
    assert test.labels.tolist() == [0, 0, 0, 1, 1, 1] and test.names[0].startswith("PNEUMONIA")


def test_other_folders_are_refused(tmp_path):
    folders(tmp_path, ("train",))
    with pytest.raises(InputError, match="val is no folder"):
        PneumoniaRecipe().train_sets(args(data_dir=tmp_path))
    folders(tmp_path, ("val",), ("NORMAL", "TUBERCULOSIS"))
    with pytest.raises(InputError, match="holds the classes NORMAL, TUBERCULOSIS where NORMAL, PNEUMONIA are needed"):
        FolderDataset(tmp_path / "val", ("NORMAL", "PNEUMONIA"))
    with pytest.raises(InputError, match="--decay_every 0"):
        PneumoniaRecipe().optimizer(args(decay_every=0), ResNet(18, 2).parameters(), 3)


def test_patients_of_the_published_names():
    names = ["PNEUMONIA/person89_virus_168.jpeg", "PNEUMONIA/person89_bacteria_1.jpeg", "NORMAL/IM-0115-0001.jpeg"]
    assert PneumoniaRecipe().patients(None, names) == ["person89", "person89", names[2]]


def test_the_whole_road(tmp_path):
    folders(tmp_path)
    paddle.seed(0)
    backbone = ResNet(18, 1000)
    save_weights(backbone, tmp_path / "imagenet.pdparams")
    run = tmp_path / "run"
    out, error = call("train.py", "pneumonia", "--data_dir", tmp_path, "--layers", 18, "--backbone",
                      tmp_path / "imagenet.pdparams", "--epoch", 3, "--batch_size", 4, "--save_dir", run,
                      "--no_augment")
    assert "random weights" not in out and "training features: 100%" in error and "Epoch 3/3" in out
    state, meta = read_weights(run / "best.pdparams")
    assert meta["recipe"] == "pneumonia" and state["fc.weight"].shape == (512, 2)
    assert all(np.array_equal(state[key], value.numpy()) for key, value in backbone.state_dict().items()
               if not key.startswith("fc"))
    out, _ = call("eval.py", "pneumonia", "--data_dir", tmp_path, "--ckpt", run / "best.pdparams")
    assert "on 6 images" in out and "| PNEUMONIA" in out and (run / "eval" / "report.html").exists()
    out, _ = call("eval.py", "pneumonia", "--data_dir", tmp_path, "--ckpt", run / "best.pdparams", "--fit", "youden")
    assert "temperature" in out and read_operating(run / "best.pdparams").prevalence.keys() == {"NORMAL", "PNEUMONIA"}
    out, _ = call("cam.py", "pneumonia", tmp_path / "test" / "PNEUMONIA", "--ckpt", run / "best.pdparams", "--save_dir",
                  tmp_path / "cams")
    rows = list(csv.DictReader((tmp_path / "cams" / "scores.csv").open()))
    assert len(rows) == 3 and set(rows[0]) == {"image", "NORMAL", "PNEUMONIA"}
    assert read_image(tmp_path / "cams" / "test0.png").shape == (224, 448, 3)
    out, _ = call("train.py", "pneumonia", "--data_dir", tmp_path, "--layers", 18, "--epoch", 1, "--batch_size", 4,
                  "--save_dir", tmp_path / "other", "--max_steps", 1)
    assert "frozen with random weights" in out and "--backbone" in out
