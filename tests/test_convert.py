"""Names of others for our weights: every map against the models themselves, and the command on small cases."""
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import paddle
import pytest

from chexnet.model import CheXNet
from chexnet.recipe import CheXNetRecipe
from covid_resnet.recipe import CovidResNetRecipe
from covid_resnet.resnet import ResNet
from cxr.data.transforms import Preprocess
from cxr.errors import InputError
from cxr.models.convert import convert, recognise, save
from cxr.models.restore import restore
from cxr.weights import save_weights
from cxr.weights.paddle_files import read_weights
from cxr.weights.torch_files import read_torch, write_torch

ROOT = Path(__file__).resolve().parent.parent
CHEXNET, COVID = CheXNetRecipe(), CovidResNetRecipe()
LAYOUTS = {layout.source: layout for recipe in (CHEXNET, COVID) for layout in recipe.layouts()}


def randomised(model, seed=0):
    rng = np.random.default_rng(seed)
    for key, value in model.state_dict().items():
        spread = 0.05 * rng.standard_normal(value.shape)
        value.set_value((np.abs(spread) + 0.8 if key.endswith("_variance") else spread).astype("float32"))
    model.eval()
    return model


def arrays(model):
    return {key: value.numpy() for key, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def resnet():
    return randomised(ResNet(18, 4))


@pytest.fixture(scope="module")
def chexnet():
    return randomised(CheXNet(14))


def torch_names(state, layout):
    """Under torchvision's names, without the library's own way there: the map read backwards."""
    back = {}
    for ours, theirs in layout.keys.items():
        back[theirs] = state[ours].T if ours == f"{layout.classifier[0]}.weight" else state[ours]
    return back


# --- the maps ------------------------------------------------------------------------------------------------------

@cache
def shapes(recipe, layers):
    return {key: tuple(value.shape) for key, value in recipe.build(2, layers=layers).state_dict().items()}


def recipe_of(source):
    return COVID if "ResNet" in source else CHEXNET


@pytest.mark.parametrize("source", LAYOUTS)
def test_a_map_has_each_of_our_keys_once_and_no_other(source):
    layout = LAYOUTS[source]
    keys = list(shapes(recipe_of(source), layout.arch["layers"]))
    assert sorted(layout.keys) == sorted(keys)
    assert len(set(layout.keys.values())) == len(keys)


@pytest.mark.parametrize("name", ["DenseNet121", "DenseNet161", "ResNet34", "ResNet50"])
def test_the_names_of_paddle_vision(name):
    model = getattr(paddle.vision.models, name.lower())(num_classes=2)
    theirs = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    ours = shapes(recipe_of(name), int(re.sub(r"\D", "", name)))
    assert {key: ours[own] for own, key in LAYOUTS[f"paddle.vision {name}"].keys.items()} == theirs


def test_some_names_of_torchvision():
    """As `torchvision.models.densenet121().state_dict()` and `resnet50()` print them."""
    keys = LAYOUTS["torchvision DenseNet121"].keys
    assert keys["densenet121.conv1_func._batch_norm._variance"] == "features.norm0.running_var"
    assert keys["densenet121.db_conv_5.conv5_16.bn_ac_func2._conv.weight"] == (
        "features.denseblock4.denselayer16.conv2.weight")
    assert keys["densenet121.tr_conv4_blk.conv_ac_func._batch_norm._mean"] == "features.transition3.norm.running_mean"
    assert keys["densenet121.batch_norm.bias"] == "features.norm5.bias"
    assert keys["densenet121.out.0.weight"] == "classifier.weight" and len(keys) == 606
    keys = LAYOUTS["torchvision ResNet50"].keys
    assert keys["conv.1._mean"] == "bn1.running_mean" and keys["block.15.conv3.0.weight"] == "layer4.2.conv3.weight"
    assert keys["block.3.shortcut.1._variance"] == "layer2.0.downsample.1.running_var" and len(keys) == 267


# --- reading -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("recipe, model, name", [
    (CHEXNET, "densenet121", "paddle.vision DenseNet121"), (COVID, "resnet18", "paddle.vision ResNet18")])
def test_paddle_vision_models_give_the_same_scores(tmp_path, recipe, model, name):
    theirs = randomised(getattr(paddle.vision.models, model)(num_classes=3))
    paddle.save(theirs.state_dict(), str(tmp_path / "a.pdparams"))
    converted = convert(recipe, tmp_path / "a.pdparams", class_names=["a", "b", "c"])
    assert converted.layout.source == name
    save(converted, tmp_path / "b.pdparams", recipe, "paddle")
    restored = restore(recipe, tmp_path / "b.pdparams", None, {})
    x = paddle.to_tensor(np.random.default_rng(0).standard_normal((1, 3, 64, 64), "float32"))
    with paddle.no_grad():
        difference = theirs(x) - restored.model.logits(restored.model.features(x))
    assert np.abs(difference.numpy()).max() < 1e-5 and restored.class_names == ("a", "b", "c")


def old_chexnet_names(key):
    """As the CheXNet of 2017 wrote them on several GPUs."""
    key = re.sub(r"(denselayer\d+\.)(norm|conv)([12])\.", r"\1\2.\3.", key).replace("classifier.", "classifier.0.")
    return f"module.densenet121.{key}"


@pytest.mark.parametrize("rename", [lambda key: key, lambda key: f"module.{key}", old_chexnet_names,
                                    lambda key: f"model.backbone.{key}"])
def test_chexnet_from_pytorch(tmp_path, chexnet, rename):
    state = arrays(chexnet)
    theirs = torch_names(state, LAYOUTS["torchvision DenseNet121"])
    theirs["features.norm0.num_batches_tracked"] = np.int64(5)
    write_torch(tmp_path / "a.pth", {rename(key): value for key, value in theirs.items()})
    converted = convert(CHEXNET, tmp_path / "a.pth")
    assert converted.layout.arch == {"layers": 121}
    assert set(converted.state) == set(state) and all((converted.state[key] == state[key]).all() for key in state)
    assert converted.meta["class_names"] == list(CHEXNET.class_names)
    assert converted.meta["preprocess"] == CHEXNET.preprocess.to_dict()


def test_the_published_paddle_layout_gets_its_metadata(tmp_path, chexnet):
    save_weights(chexnet, tmp_path / "model_torch.pdparams")
    converted = convert(CHEXNET, tmp_path / "model_torch.pdparams")
    assert converted.layout.source == "CheXNet 121 of this project" and converted.meta["recipe"] == "chexnet"


def test_what_the_file_says_of_itself_is_kept(tmp_path, resnet):
    said = Preprocess(resize=128, crop=None).to_dict()
    save_weights(resnet, tmp_path / "a.pdparams", {"recipe": "covid_resnet", "class_names": list("abcd"), "note": 1,
                                                   "preprocess": said})
    converted = convert(COVID, tmp_path / "a.pdparams")
    assert converted.meta == {"recipe": "covid_resnet", "arch": {"layers": 18}, "class_names": list("abcd"), "note": 1,
                              "preprocess": said}
    converted = convert(COVID, tmp_path / "a.pdparams", list("wxyz"), preprocess=Preprocess())
    assert converted.meta["class_names"] == list("wxyz") and converted.meta["preprocess"] == Preprocess().to_dict()
    with pytest.raises(InputError, match="was trained as covid_resnet, not chexnet"):
        convert(CHEXNET, tmp_path / "a.pdparams")
    with pytest.raises(InputError, match="has 4 outputs, and 2 class names were given"):
        convert(COVID, tmp_path / "a.pdparams", ["a", "b"])


def test_outputs_that_nobody_named(tmp_path):
    save_weights(randomised(ResNet(18, 3)), tmp_path / "a.pdparams")
    assert convert(COVID, tmp_path / "a.pdparams").meta["class_names"] == ["class_0", "class_1", "class_2"]


def test_backbone_alone(tmp_path, resnet):
    theirs = torch_names(arrays(resnet), LAYOUTS["torchvision ResNet18"])
    head = {key: value for key, value in theirs.items() if key.startswith("fc.")}
    body = {key: value for key, value in theirs.items() if key not in head}
    other = {"fc.0.weight": np.zeros((7, 512), "f4"), "fc.2.bias": np.zeros(3, "f4")}
    for state in (theirs, body, {**body, **other}):
        write_torch(tmp_path / "a.pth", state)
        converted = convert(COVID, tmp_path / "a.pth", backbone=True)
        assert set(converted.state) == {key for key in arrays(resnet) if not key.startswith("fc.")}
        assert "class_names" not in converted.meta
    write_torch(tmp_path / "a.pth", body)
    with pytest.raises(InputError, match=r"looks like torchvision ResNet18, but 2 of its keys are missing \(fc.weight, "
                                         r"fc.bias\): convert the rest with --backbone"):
        convert(COVID, tmp_path / "a.pth")
    write_torch(tmp_path / "a.pth", {**body, **other})
    with pytest.raises(InputError, match=r"missing \(fc.weight.* left over \(fc.0.weight, fc.2.bias\).*--backbone"):
        convert(COVID, tmp_path / "a.pth")


def test_what_does_not_fit_is_named(tmp_path, resnet):
    layout = LAYOUTS["torchvision ResNet18"]
    theirs = torch_names(arrays(resnet), layout)

    def refused(state, said):
        write_torch(tmp_path / "a.pth", state)
        with pytest.raises(InputError, match=said) as error:
            convert(COVID, tmp_path / "a.pth")
        assert str(tmp_path / "a.pth") in str(error.value)
    without = {key: value for key, value in theirs.items() if key != "layer1.0.bn1.running_mean"}
    refused(without, r"1 of its keys are missing \(layer1.0.bn1.running_mean\): it belongs to another variant")
    refused({**theirs, "aux.weight": np.zeros(1, "f4")}, r"1 of its keys are left over \(aux.weight\)")
    refused({"a": np.zeros(1, "f4"), "b": np.zeros(1, "f4")}, r"keys \(a, b\) of no architecture that covid_resnet")
    refused({**theirs, "conv1.weight": np.zeros((64, 3, 3, 3), "f4")}, "'conv.0.weight' has shape")
    refused({**theirs, "fc.weight": np.zeros(4, "f4")}, "'fc.weight' has shape")
    refused({**theirs, "bn1.bias": np.full(64, np.nan, "f4")}, "NaN")


def test_nearest_is_told_by_keys_alone():
    for source, layout in LAYOUTS.items():
        state = dict.fromkeys(layout.keys.values())
        found, _ = recognise(Path("x"), state, recipe_of(source), backbone=False)
        assert found.source == source


# --- and back ------------------------------------------------------------------------------------------------------

def test_to_torch_and_back(tmp_path, chexnet):
    save_weights(chexnet, tmp_path / "a.pdparams", {"class_names": [f"c{index}" for index in range(14)]})
    save(convert(CHEXNET, tmp_path / "a.pdparams"), tmp_path / "a.pth", CHEXNET, "torch")
    state, _ = read_torch(tmp_path / "a.pth")
    assert len(state) == 727 and state["classifier.weight"].shape == (14, 1024)      # as torchvision 0.29 has them
    assert state["features.norm5.num_batches_tracked"].dtype == np.int64
    assert (state["classifier.weight"] == chexnet.classifier.weight.numpy().T).all()
    save(convert(CHEXNET, tmp_path / "a.pth"), tmp_path / "b.pdparams", CHEXNET, "paddle")
    back, meta = read_weights(tmp_path / "b.pdparams")
    own = arrays(chexnet)
    assert list(back) == list(own) and all(back[key].tobytes() == own[key].tobytes() for key in own)
    assert meta["class_names"][3] == "c3"


def test_no_counterpart_in_torchvision(tmp_path):
    save_weights(randomised(CheXNet(1, layers=264)), tmp_path / "a.pdparams")
    with pytest.raises(InputError, match="torchvision has no counterpart of chexnet with layers 264"):
        save(convert(CHEXNET, tmp_path / "a.pdparams"), tmp_path / "a.pth", CHEXNET, "torch")
    assert not (tmp_path / "a.pth").exists()


# --- the command ---------------------------------------------------------------------------------------------------

def call(*arguments, status=0):
    done = subprocess.run([sys.executable, str(ROOT / "tools" / "convert.py"), *map(str, arguments)],
                          capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    assert done.returncode == status and "Traceback" not in done.stderr, done.stderr
    return done.stdout if status == 0 else done.stderr


def test_the_command(tmp_path, resnet):
    write_torch(tmp_path / "a.pth", torch_names(arrays(resnet), LAYOUTS["torchvision ResNet18"]))
    assert "fc.weight" in call("--list", tmp_path / "a.pth") and not (tmp_path / "new").exists()
    out = call("covid_resnet", tmp_path / "a.pth", tmp_path / "new" / "a.pdparams", "--class_names", "A,B,C,D")
    assert "is torchvision ResNet18: 102 weights, 4 classes (A, B, C, D)" in out
    assert restore(COVID, tmp_path / "new" / "a.pdparams", None, {}).class_names == tuple("ABCD")
    before = (tmp_path / "new" / "a.pdparams").read_bytes()
    error = call("covid_resnet", tmp_path / "a.pth", tmp_path / "new" / "a.pdparams", status=2)
    assert "exists" in error and "--overwrite" in error and (tmp_path / "new" / "a.pdparams").read_bytes() == before


def test_help_teaches_and_does_without_paddle(tmp_path):
    (tmp_path / "paddle.py").write_text("raise SystemExit('Paddle was imported')")
    command = [sys.executable, str(ROOT / "tools" / "convert.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0 and "examples:" in done.stdout and "--to torch" in done.stdout
