"""CheXNet: published keys, published maps, data in the published format, AUROC."""
import json

import numpy as np
import paddle
import pytest

from chexnet.data import ChestXrayDataSet
from chexnet.densenet import DenseNet, DenseNet121
from chexnet.lists import patient_of
from chexnet.model import CheXNet, CheXNetCAM
from chexnet.recipe import CheXNetRecipe
from chexnet.utility import AUROC, CLASS_NAMES, N_CLASSES
from cxr.data.images import read_image
from cxr.errors import InputError
from cxr.visual.image_files import save_picture
from cxr.weights import load_weights, save_weights


def small(model_class=CheXNetCAM, **options):
    """CheXNet on a DenseNet121, random weights, in eval mode."""
    paddle.seed(1)
    model = model_class(N_CLASSES, backbone_pretrained=False, **options)
    model.eval()
    return model


@pytest.mark.parametrize("model_class", [CheXNet, CheXNetCAM])
def test_keys_and_shapes_are_the_published_ones_in_order(reference_dir, model_class):
    published = json.loads((reference_dir / "chexnet_keys.json").read_text())
    own = {key: list(value.shape) for key, value in model_class(N_CLASSES).state_dict().items()}
    assert list(own) == list(published)
    assert own == published


def test_reference_scores_and_maps_from_a_weights_file(seeded_checkpoint, reference_dir, data_dir):
    model = CheXNetCAM(N_CLASSES, backbone_pretrained=False)
    assert load_weights(model, seeded_checkpoint) == {}
    model.eval()
    reference = np.load(reference_dir / "chexnet_seed1.npz")
    names = sorted({key.split(".")[0] for key in reference.files})
    assert len(names) == 3
    for name in names:
        image = read_image(data_dir / "published_cams" / f"{name}.png")
        with paddle.no_grad():
            scores, cams = model(paddle.to_tensor(CheXNetRecipe.cam_preprocess(image)[None]))
        assert np.abs(scores.numpy()[0] - reference[f"{name}.scores"]).max() < 1e-4
        off = np.abs(cams.numpy()[0].astype(int) - reference[f"{name}.cams"].astype(int))
        assert (off <= 1).mean() >= 0.995


# Parameters with 1000 classes, as published for these networks; Paddle counts the running statistics apart.
@pytest.mark.parametrize("layers, millions", [(121, 7.979), (161, 28.681), (169, 14.149), (201, 20.014), (264, 33.338)])
def test_sizes_of_the_densenets(layers, millions):
    trainable = sum(int(np.prod(p.shape)) for p in DenseNet(layers).parameters() if not p.stop_gradient)
    assert trainable / 1e6 == pytest.approx(millions, abs=0.001)


def test_unknown_size_is_refused():
    with pytest.raises(ValueError, match="121, 161, 169, 201, 264 layers, not 50"):
        DenseNet(50)
    with pytest.raises(ValueError, match="not 50"):
        CheXNet(14, layers=50)
    with pytest.raises(ValueError, match="no checksum"):
        DenseNet121(pretrained=True)


def test_backbone_from_a_file(tmp_path):
    donor = DenseNet121()
    save_weights(donor, tmp_path / "imagenet.pdparams")
    taken = CheXNet(14, backbone_pretrained=str(tmp_path / "imagenet.pdparams"))
    key = "db_conv_2.conv2_1.bn_ac_func1._conv.weight"
    assert np.array_equal(taken.densenet121.state_dict()[key].numpy(), donor.state_dict()[key].numpy())


def test_forward_is_head_of_features_and_scores_are_sigmoids_of_logits():
    model = small(CheXNet)
    x = paddle.randn([2, 3, 64, 96])
    with paddle.no_grad():
        features = model.features(x)
        assert features.shape == [2, 1024, 2, 3]
        assert np.array_equal(model(x).numpy(), model.head(features).numpy())
        assert np.allclose(model(x).numpy(), 1 / (1 + np.exp(-model.logits(features).numpy())), atol=1e-6)


def test_cam_of_numbers_checked_by_hand():
    features = paddle.to_tensor([[[[0.0, 1.0]], [[2.0, 0.0]]]])            # one image, two channels, 1 x 2
    weights = paddle.to_tensor([[1.0, 0.0, 0.0], [1.0, 0.0, -1.0]])        # two channels, three classes
    # class 0: 2, 1 -> 1, 0;  class 1: 0, 0 -> flat;  class 2: -2, 0 -> 0, 1
    cams = CheXNetCAM.cam(features, weights, [1, 2]).numpy()
    assert cams.dtype == np.uint8
    assert cams.tolist() == [[[[255, 0]], [[0, 0]], [[0, 255]]]]


def test_a_flat_map_is_never_nan_on_the_way():
    features, weights = paddle.ones([1, 2, 3, 3]), paddle.ones([2, 1])
    paddle.set_flags({"FLAGS_check_nan_inf": True})            # the cast to uint8 would hide it
    try:
        cams = CheXNetCAM.cam(features, weights, [6, 6])
    finally:
        paddle.set_flags({"FLAGS_check_nan_inf": False})
    assert not cams.numpy().any()


def test_many_models_in_one_process_and_nothing_stale():
    first, second = small(), small(layers=169)
    x, other = paddle.randn([1, 3, 64, 64]), paddle.randn([2, 3, 64, 64])
    with paddle.no_grad():
        scores, cams = first(x)
        second(other)
        first(other)
        again, cams_again = first(x)
    assert cams.shape == [1, 14, 64, 64]
    assert np.array_equal(scores.numpy(), again.numpy())
    assert np.array_equal(cams.numpy(), cams_again.numpy())
    assert not first.densenet121.batch_norm._forward_post_hooks


def test_hook_is_gone_after_a_failed_forward():
    model = small()
    with pytest.raises(Exception):                                         # noqa: B017  Paddle's own error
        model(paddle.randn([1, 5, 64, 64]))
    assert not model.densenet121.batch_norm._forward_post_hooks


# ------------------------------------------------------------------ data

@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        save_picture(tmp_path / name, np.full((40, 50, 3), 90, np.uint8))
    return tmp_path


def write_list(folder, *lines):
    (folder / "list.txt").write_text("\n".join(lines) + "\n")
    return folder / "list.txt"


ZEROS = " ".join("0" * 14)


def test_data_set_in_the_published_format(folder):
    dataset = ChestXrayDataSet(folder, write_list(folder, "a.png 1" + " 0" * 13, "", f"b.png {ZEROS}"))
    image, label = dataset[0]
    assert len(dataset) == 2 and dataset.class_names == tuple(CLASS_NAMES)
    assert image.mode == "RGB" and image.size == (50, 40)
    assert label.dtype == np.float32 and label.tolist() == [1] + [0] * 13


@pytest.mark.parametrize("line, sentence", [
    ("b.png 1 0", "line 2: 2 labels where 14 are needed"),
    ("b.png" + " 0" * 13 + " 2", "line 2: the label '2' is neither 0 nor 1"),
    ("b.png" + " 0" * 13 + " -1", "line 2: the label '-1' is neither 0 nor 1"),
    ("c.png " + ZEROS, r"line 2: .*c\.png does not exist"),
    ("a.png " + ZEROS, r"line 2: a\.png is listed already in line 1"),
])
def test_bad_lines_are_named(folder, line, sentence):
    with pytest.raises(InputError, match=sentence):
        ChestXrayDataSet(folder, write_list(folder, f"a.png {ZEROS}", line))


def test_missing_and_empty_lists_are_named(folder):
    with pytest.raises(InputError, match="nolist.txt does not exist"):
        ChestXrayDataSet(folder, folder / "nolist.txt")
    with pytest.raises(InputError, match="is empty"):
        ChestXrayDataSet(folder, write_list(folder, ""))


def test_published_lists_of_real_images(data_dir):
    dataset = ChestXrayDataSet(data_dir / "nih14" / "images", data_dir / "nih14" / "val_list.txt",
                               CheXNetRecipe.preprocess)
    assert len(dataset) == 197
    image, label = dataset[0]
    assert image.shape == (3, 224, 224) and label[1] == 1                  # 00000001_000: Cardiomegaly


# ------------------------------------------------------------------ AUROC

def test_auroc_over_batches_is_that_of_the_whole():
    metric = AUROC(2, ["A", "B"])
    # A: positives .9, .4, negatives .5, .1 -> 3 of 4 pairs right; B: a tie counts half -> 3.5 of 4
    metric.update(paddle.to_tensor([[0.9, 0.8], [0.5, 0.25]]), paddle.to_tensor([[1.0, 1.0], [0.0, 0.0]]))
    metric.update(np.array([[0.4, 0.25], [0.1, 0.1]]), np.array([[1, 1], [0, 0]]))
    assert metric.accumulate() == [0.75, 0.875, 0.8125]
    assert metric.name() == ["AUROC_A", "AUROC_B", "AUROC_avg"]
    metric.reset()
    assert np.isnan(metric.accumulate()).all()


def test_auroc_leaves_undefined_classes_out_with_a_warning():
    metric = AUROC(3, ["A", "B", "C"])
    metric.update(np.array([[0.9, 0.1, 0.5], [0.1, 0.2, 0.5]]), np.array([[1, 0, 1], [0, 0, 1]]))
    with pytest.warns(UserWarning, match=r"B \(no positives\), C \(no negatives\)"):
        a, b, c, mean = metric.accumulate()
    assert (a, mean) == (1.0, 1.0) and np.isnan([b, c]).all()


def test_auroc_refuses_other_shapes():
    with pytest.raises(ValueError, match="must both be"):
        AUROC(2, ["A", "B"]).update(np.zeros((4, 3)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="1 class names for 2"):
        AUROC(2, ["A"])


class Pairs(paddle.io.Dataset):
    """Eight random inputs whose two labels alternate."""

    def __getitem__(self, index):
        return np.random.default_rng(index).random(3, "float32"), np.array([index % 2, (index + 1) % 2], "float32")

    def __len__(self):
        return 8


def test_auroc_in_paddle_model():
    model = paddle.Model(paddle.nn.Sequential(paddle.nn.Linear(3, 2), paddle.nn.Sigmoid()))
    model.prepare(loss=paddle.nn.BCELoss(), metrics=AUROC(2, ["A", "B"]))
    result = model.evaluate(Pairs(), batch_size=3, verbose=0)
    scores = np.concatenate(model.predict(Pairs(), batch_size=3, stack_outputs=True, verbose=0)[0]).reshape(8, 2)
    labels = np.array([Pairs()[i][1] for i in range(8)])
    pairs = scores[labels[:, 0] == 1, 0][:, None] > scores[labels[:, 0] == 0, 0][None]
    assert result["AUROC_A"] == pairs.mean()


# --- lists and published figures -----------------------------------------------------------------------------------

@pytest.mark.parametrize("name, patient", [
    ("00000001_000.png", "00000001"), ("images/00030805_012.jpg", "00030805"), ("a\\00000002_001.png", "00000002"),
    ("img_001.png", "img_001.png"), ("000000012_000.png", "000000012_000.png"), ("x.png", "x.png"),
])
def test_patient_of_a_name(name, patient):
    assert patient_of(name) == patient


def test_published_figures_average_to_the_published_mean():
    for column in CheXNetRecipe.published_figures:
        areas = [column.values[f"AUROC_{name}"] for name in CLASS_NAMES]
        assert np.mean(areas) == pytest.approx(column.values["AUROC_avg"], abs=6e-4)
