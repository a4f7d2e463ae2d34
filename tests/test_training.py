"""The training loop on a data set small enough to know by heart."""
import csv

import numpy as np
import paddle
import pytest

from covid_resnet import ResNet
from covid_resnet.recipe import CovidResNetRecipe
from cxr.data import XrayDataset
from cxr.errors import InputError
from cxr.images import read_image
from cxr.pictures import save_picture
from cxr.preprocess import Augment, Preprocess
from cxr.recipe import metadata, restore
from cxr.training import Settings, fit
from cxr.weights import read_weights

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
            save_picture(folder / names[-1], image)
        super().__init__(folder, names, np.arange(count) % 2, ("upper", "lower"), transform)

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image, np.array([label])


def train(tmp_path, epochs=4, rate=0.02, name="run", **options):
    paddle.seed(5)
    model = ResNet(18, 2)
    data = Squares(tmp_path / "images")
    scheduler = paddle.optimizer.lr.PiecewiseDecay([1000], [rate, rate])
    optimizer = paddle.optimizer.Momentum(scheduler, parameters=model.parameters())
    settings = Settings(tmp_path / name, epochs, 8, options.pop("monitor", "accuracy"), **options)
    meta = metadata(CovidResNetRecipe(), {"layers": 18}, data.class_names, TINY)
    return model, fit(model, data, data, optimizer, scheduler, settings, meta)


def test_it_learns_and_writes_what_it_says(tmp_path, capsys):
    model, history = train(tmp_path, epochs=5)
    folder = tmp_path / "run"
    assert sorted(path.name for path in folder.iterdir()) == ["best.pdparams", "curves.png", "history.csv",
                                                              "last.pdparams", "resume.ckpt"]
    assert history.rows[-1]["train_accuracy"] == 1.0
    rows = list(csv.DictReader((folder / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    assert read_image(folder / "curves.png").shape == (800, 1200, 3)
    assert capsys.readouterr().out.count("Precision") == 5                    # one table an epoch
    best, meta = read_weights(folder / "best.pdparams")                       # which the model ends with
    assert all(np.array_equal(best[key], value.numpy()) for key, value in model.state_dict().items())
    assert meta["training"]["epoch"] == history.best["epoch"]
    assert read_weights(folder / "last.pdparams")[1]["training"]["epoch"] == 5


def test_the_best_is_the_first_with_the_highest_figure(tmp_path):
    _, history = train(tmp_path, epochs=6)
    accuracies = [row["val_accuracy"] for row in history.rows]
    assert history.best["epoch"] == 1 + accuracies.index(max(accuracies))
    assert read_weights(tmp_path / "run" / "best.pdparams")[1]["training"]["epoch"] == history.best["epoch"]


def test_checkpoint_needs_no_flags(tmp_path):
    train(tmp_path, epochs=1)
    restored = restore(CovidResNetRecipe(), tmp_path / "run" / "last.pdparams", CovidResNetRecipe.preprocess,
                       CovidResNetRecipe.arch)
    assert restored.class_names == ("upper", "lower") and restored.preprocess == TINY
    assert len(restored.model.block) == 8 and not restored.model.training


def test_same_seed_same_weights_whatever_the_workers(tmp_path):
    first, _ = train(tmp_path, epochs=2, workers=0, name="a")
    second, _ = train(tmp_path, epochs=2, workers=3, name="b")
    assert all(np.array_equal(value.numpy(), second.state_dict()[key].numpy())
               for key, value in first.state_dict().items())
    third, _ = train(tmp_path, epochs=2, workers=0, seed=1, name="c")
    assert not np.array_equal(first.fc.weight.numpy(), third.fc.weight.numpy())


def test_early_stopping_and_step_limit(tmp_path, capsys):
    _, history = train(tmp_path, epochs=30, rate=0.0, patience=2)
    assert history.rows[-1]["epoch"] == history.best["epoch"] + 2 and "stopped early" in capsys.readouterr().out
    _, history = train(tmp_path, epochs=9, max_steps=4)
    assert len(history.rows) == 2                                             # 3 steps an epoch


def test_divergence_is_a_sentence_and_keeps_what_was_saved(tmp_path):
    train(tmp_path, epochs=1)
    before = (tmp_path / "run" / "best.pdparams").read_bytes()
    with pytest.raises(InputError, match="loss became .* lower --learning_rate"):
        train(tmp_path, epochs=9, rate=1e18)
    assert (tmp_path / "run" / "best.pdparams").read_bytes() == before or \
        np.isfinite(read_weights(tmp_path / "run" / "best.pdparams")[0]["fc.weight"]).all()


def test_augmentation_depends_on_epoch_and_index_alone(tmp_path):
    data = Squares(tmp_path, transform=Augment(Preprocess(resize=32, crop=24)))
    first = [data[i][0] for i in (3, 4)]
    assert np.array_equal(first[0], data[3][0]) and not np.array_equal(*first)
    data.epoch = 1
    assert not np.array_equal(first[0], data[3][0])


def test_restore_refuses_another_recipe_and_newer_fields(tmp_path):
    from chexnet.recipe import CheXNetRecipe
    train(tmp_path, epochs=1)
    with pytest.raises(InputError, match="trained as covid_resnet, not chexnet"):
        restore(CheXNetRecipe(), tmp_path / "run" / "last.pdparams", CheXNetRecipe.preprocess, {})
    with pytest.raises(InputError, match="newer version"):
        Preprocess.from_dict({"rotate": 3})
