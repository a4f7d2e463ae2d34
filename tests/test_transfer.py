"""A frozen backbone stays as it came, and its output can be kept; weights without their classifier."""
import numpy as np
import paddle
import pytest
from training_models import TINY, Tiny, same, train, weights

from chexnet.densenet import DenseNet121
from chexnet.model import CheXNet
from covid_resnet import ResNet
from cxr.data.transforms import Augment, Preprocess
from cxr.errors import InputError
from cxr.models.transfer import freeze_backbone, is_frozen, load_backbone, train_mode
from cxr.training import frozen_features
from cxr.training.frozen_features import embed
from cxr.weights import save_weights


class Fixed:
    """A transform that says it is random and is not."""
    takes_rng = True

    def __call__(self, image, rng):
        return TINY(image)


def test_a_frozen_backbone_keeps_every_byte(tmp_path):
    paddle.seed(5)
    model = ResNet(18, 2)
    before = weights(model)
    train(tmp_path / "run", tmp_path, 1, frozen=True, model=model, transform=Augment(Preprocess(resize=40, crop=32)))
    changed = {key for key, value in weights(model).items() if value.tobytes() != before[key].tobytes()}
    assert changed == {"fc.weight", "fc.bias"}


def test_batch_norms_move_unless_they_are_frozen(tmp_path):
    model = Tiny()
    assert not is_frozen(model)
    train_mode(model)
    assert model.norm.training
    freeze_backbone(model)
    train_mode(model)
    assert is_frozen(model) and not model.norm.training and model.fc.training
    before = weights(Tiny())
    assert not same(before, weights(train(tmp_path / "run", tmp_path, 1)[0]))


def test_features_kept_give_the_same_as_features_computed(tmp_path, monkeypatch):
    runs = {}
    counted, original = [], Tiny.features
    monkeypatch.setattr(Tiny, "features", lambda self, x: (counted.append(len(x)), original(self, x))[1])
    for name, transform in (("kept", TINY), ("computed", Fixed())):
        counted.clear()
        model, history = train(tmp_path / name, tmp_path, 3, frozen=True, transform=transform)
        runs[name] = weights(model), history, sum(counted)
    assert runs["kept"][2] == 20 + 20                                        # training and validation images, once
    assert runs["computed"][2] == 3 * 20 + 20
    for key, value in runs["kept"][0].items():
        assert np.allclose(value, runs["computed"][0][key], atol=1e-6), key
    assert runs["kept"][1].losses == pytest.approx(runs["computed"][1].losses, abs=1e-6)


def test_embeddings_are_what_the_classifier_gets(tmp_path):
    from training_models import Squares
    model, data = Tiny(dropout=0.5), Squares(tmp_path)
    data.transform = TINY
    kept = embed(model, data, 8, 0)
    assert kept.vectors.shape == (20, 32, 1, 1) and np.array_equal(kept.targets[:, 0], data.labels)
    logits = frozen_features.Head(model).logits(paddle.to_tensor(kept.vectors))
    assert np.allclose(logits.numpy(), model(paddle.to_tensor(np.stack([data[i][0] for i in range(20)]))).numpy(),
                       atol=1e-6)
    model.second.bias.set_value(paddle.full([16], float("inf")))
    with pytest.raises(InputError, match="features that are no numbers"):
        embed(model, data, 8, 0)


# ------------------------------------------------------------------ weights of a backbone

@pytest.mark.parametrize("classes", [0, 2, 1000])
def test_backbone_of_a_resnet(tmp_path, classes):
    source, model = ResNet(18, classes or 2), ResNet(18, 2)
    state = {key: value for key, value in source.state_dict().items() if classes or not key.startswith("fc")}
    save_weights(state, tmp_path / "x.pdparams")
    head = model.fc.weight.numpy().copy()
    load_backbone(model, tmp_path / "x.pdparams")
    taken = weights(model)
    assert all(np.array_equal(value.numpy(), taken[key]) for key, value in source.state_dict().items()
               if not key.startswith("fc"))
    assert np.array_equal(taken["fc.weight"], head)


@pytest.mark.parametrize("source", [lambda: DenseNet121(), lambda: CheXNet(14)], ids=["DenseNet121", "CheXNet"])
def test_backbone_of_chexnet(tmp_path, source):
    source, model = source(), CheXNet(3)
    save_weights(source, tmp_path / "x.pdparams")
    load_backbone(model, tmp_path / "x.pdparams")
    name = "batch_norm.weight"
    assert np.array_equal(model.state_dict()[f"densenet121.{name}"].numpy(),
                          getattr(source, "densenet121", source).state_dict()[name].numpy())
    first = "conv1_func._conv.weight"
    assert np.array_equal(model.state_dict()[f"densenet121.{first}"].numpy(),
                          getattr(source, "densenet121", source).state_dict()[first].numpy())


def test_another_backbone_is_refused_and_changes_nothing(tmp_path):
    model = ResNet(18, 2)
    before = weights(model)
    save_weights(ResNet(34, 2), tmp_path / "x.pdparams")
    with pytest.raises(InputError, match="does not fit this model"):
        load_backbone(model, tmp_path / "x.pdparams")
    save_weights({"fc.weight": np.zeros((512, 2), "float32")}, tmp_path / "x.pdparams")
    with pytest.raises(InputError, match="keys are missing"):
        load_backbone(model, tmp_path / "x.pdparams")
    assert same(before, weights(model))
