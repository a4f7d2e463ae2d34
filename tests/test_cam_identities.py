"""What must be equal whatever the numbers: closed forms, splits, batches, all classes at once."""
import numpy as np
import paddle
import pytest
from cam_models import ClosedNet, SmallNet, SplitNet, images, seeded

from cxr.cam import CAM, METHODS, AblationCAM, GradCAM, GradCAMPlusPlus, ScoreCAM, XGradCAM

ALL = list(METHODS)
UNSPLIT = [name for name in METHODS if name != "cam"]


def raw(method, model, layer="relu3", targets="all", x=None, **options):
    cam = METHODS[method](model, layer, **options)
    cam(images() if x is None else x, targets)
    return cam.raw


@pytest.mark.parametrize("model_class", [SmallNet, SplitNet, ClosedNet])
def test_cam_gradcam_and_xgradcam_agree_up_to_scale(model_class):
    model = seeded(model_class())
    cam = CAM(model, "relu3", weights=model.fc.weight.numpy())
    cam(images(), "all")
    for method in (GradCAM, XGradCAM):
        other = method(model, "relu3")
        other(images(), "all")
        np.testing.assert_allclose(other.raw * 16 * 16, cam.raw, rtol=1e-3, atol=1e-4)


def test_cam_is_the_einsum():
    model, x = seeded(ClosedNet()), images()
    expected = paddle.einsum("bchw,cn->bnhw", model.body(x), model.fc.weight).numpy()
    np.testing.assert_allclose(raw("cam", model, x=x), expected, atol=1e-5)


@pytest.mark.parametrize("baseline", [0.0, 0.25])
def test_ablation_drop_is_its_closed_form(baseline):
    x = images()
    closed = raw("ablationcam", seeded(ClosedNet()), x=x, baseline=baseline)
    for model_class in (SplitNet, SmallNet):
        run = raw("ablationcam", seeded(model_class()), x=x, baseline=baseline, batch_size=7)
        np.testing.assert_allclose(run, closed, atol=1e-5)
    model = seeded(SmallNet())
    activations = model.body(x).numpy()
    drop = model.fc.weight.numpy().T[None] * (activations.mean((2, 3)) - baseline)[:, None]
    np.testing.assert_allclose(closed, np.einsum("bkc,bchw->bkhw", drop, activations), atol=1e-5)


def test_ablation_relative_to_the_score_as_published():
    x, model = images(), seeded(ClosedNet())
    scores = model.logits(model.body(x)).numpy()[:, :, None, None]
    np.testing.assert_allclose(raw("ablationcam", model, x=x, relative=True) * scores,
                               raw("ablationcam", model, x=x), rtol=1e-4, atol=1e-5)


def test_ablation_of_an_inner_layer_against_doing_it_by_hand():
    model, x = seeded(SplitNet()), images(1)
    inner = model.relu2(model.conv2(model.relu1(model.conv1(x))))
    before = model.fc(model.relu3(model.conv3(inner)).mean((2, 3))).numpy()
    expected = 0
    for channel in range(inner.shape[1]):
        without = inner.numpy().copy()
        without[:, channel] = 0
        after = model.fc(model.relu3(model.conv3(paddle.to_tensor(without))).mean((2, 3))).numpy()
        expected += (before - after)[:, :, None, None] * inner.numpy()[:, channel][:, None]
    np.testing.assert_allclose(raw("ablationcam", model, "relu2", x=x), expected, atol=1e-4)


@pytest.mark.parametrize("layer", ["relu2", "relu3"])
@pytest.mark.parametrize("method", ALL)
def test_all_equals_single_calls(method, layer):
    model, x = seeded(ClosedNet()), images()
    options = {"weights": np.ones((32, 5), "float32")} if (method, layer) == ("cam", "relu2") else {}
    with METHODS[method](model, layer, **options) as cam:
        together, together_raw = cam(x, "all"), cam.raw
        for k in range(5):
            np.testing.assert_allclose(cam(x, k), together[:, k], atol=1e-5)
            np.testing.assert_allclose(cam.raw, together_raw[:, k], atol=1e-5)
        np.testing.assert_array_equal(cam(x, [[4, 1], [0, 0]])[:, 0], [together[0, 4], together[1, 0]])


@pytest.mark.parametrize("method", UNSPLIT)
@pytest.mark.parametrize("model_class", [SmallNet, ClosedNet])
def test_a_batch_equals_its_images(method, model_class):
    x, cam = images(3, 32), METHODS[method](seeded(model_class()), "relu3")
    maps = cam(x, [0, 2, 4])
    for i, k in enumerate([0, 2, 4]):
        np.testing.assert_allclose(cam(x[i:i + 1], k)[0], maps[i], atol=1e-5)


@pytest.mark.parametrize("method", UNSPLIT)
@pytest.mark.parametrize("layer", ["relu2", "relu3"])
def test_head_only_equals_whole_model(method, layer):
    whole = raw(method, seeded(SmallNet()), layer)
    for model_class in (SplitNet, ClosedNet):
        np.testing.assert_allclose(raw(method, seeded(model_class()), layer), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_class", [SplitNet, ClosedNet])
@pytest.mark.parametrize("method", [name for name in UNSPLIT if name != "scorecam"])
def test_all_classes_cost_one_run_of_the_backbone(method, model_class):
    model = seeded(model_class())
    raw(method, model)
    assert model.backbone_runs == 1


def test_scorecam_shares_its_passes_among_the_classes():
    model = seeded(SplitNet())
    raw("scorecam", model, x=images(1), batch_size=10)
    assert model.backbone_runs == 1 + 3                              # 24 channels, ten at a time


def test_scorecam_by_hand():
    model, x = seeded(SmallNet()), images(1, 16)
    activations = model.body(x)
    masks = paddle.nn.functional.interpolate(activations, [16, 16], mode="bilinear").numpy()[0]
    low, high = masks.min((1, 2), keepdims=True), masks.max((1, 2), keepdims=True)
    masks = np.where(high > low, (masks - low) / np.where(high > low, high - low, 1), 0)
    scores = np.stack([model(x * paddle.to_tensor(mask)).numpy()[0] for mask in masks.astype("float32")])
    weights = np.exp(scores) / np.exp(scores).sum(0)
    expected = np.einsum("ck,chw->khw", weights, activations.numpy()[0])
    np.testing.assert_allclose(raw("scorecam", model, x=x, align_corners=False)[0], expected, atol=1e-5)


def test_scorecam_top_k():
    model, x = seeded(SmallNet()), images(1)
    cam = ScoreCAM(model, "relu3", top_k=1)
    cam(x, 0)
    activations = model.body(x).numpy()[0]
    np.testing.assert_allclose(cam.raw[0], activations[activations.std((1, 2)).argmax()], atol=1e-6)
    np.testing.assert_allclose(raw("scorecam", model, x=x, top_k=24), raw("scorecam", model, x=x), atol=1e-6)


def test_a_classifier_that_is_not_what_makes_the_scores_is_not_believed():
    class Boasting(SmallNet):
        def __init__(self):
            super().__init__()
            self.classifier = paddle.nn.Linear(24, 5)                # never called

    honest, boasting = seeded(SmallNet()), seeded(Boasting())
    for own, given in zip(boasting.parameters(), honest.parameters()):
        own.set_value(given)
    np.testing.assert_allclose(raw("gradcam", boasting), raw("gradcam", honest), atol=1e-6)
    with pytest.raises(ValueError, match="classifier"):
        raw("cam", boasting)


def test_features_that_are_a_sublayer_are_no_split():
    class Sublayers(SmallNet):
        def __init__(self):
            super().__init__()
            self.features, self.head = paddle.nn.Sequential(self.conv1), self.fc

    assert raw("gradcam", seeded(Sublayers())).shape == (2, 5, 16, 16)


def test_a_relu_in_place_on_the_way_to_the_features_is_not_skipped():
    class InPlace(SplitNet):
        def body(self, x):
            return paddle.nn.functional.relu_(self.conv3(self.relu2(self.conv2(self.relu1(self.conv1(x))))))

    for method in ("gradcam", "ablationcam"):
        expected = raw(method, seeded(SmallNet()), "conv3")
        np.testing.assert_allclose(raw(method, seeded(InPlace()), "conv3"), expected, atol=1e-5)


def test_gradcam_plus_plus_eps_zero_does_not_care_for_tiny_gradients():
    def peak(eps):
        cam = GradCAMPlusPlus(seeded(SmallNet()), "relu3", eps=eps)
        cam(images(), lambda scores: 1e-4 * scores[:, 0])
        return np.abs(cam.raw).max()
    assert peak(0) > 100 * peak(1e-6)


def test_sign_of_ablation_survives_a_negative_score():
    model, x = seeded(ClosedNet()), images()
    before = AblationCAM(model, "relu3")(x, 0)
    model.fc.bias.set_value(model.fc.bias.numpy() - 1000)            # same drops, negative score
    np.testing.assert_allclose(AblationCAM(model, "relu3")(x, 0), before, atol=1e-5)
