"""The call: targets, scales, sizes, layers, and the errors that name a broken contract."""
import numpy as np
import paddle
import pytest
from cam_models import ClosedNet, FusedNet, SmallNet, SplitNet, TwoBranches, images, seeded

from cxr.cam import CAM, METHODS, AblationCAM, EigenCAM, GradCAM, LayerCAM, ScoreCAM, list_layers
from cxr.errors import InputError


@pytest.fixture()
def net():
    return seeded(SmallNet())


@pytest.mark.parametrize("method", METHODS)
def test_shape_type_and_range(method):
    cam = METHODS[method](seeded(ClosedNet()), "relu3")
    x = images(2, 40)[:, :, :32]
    for maps in (cam(x), cam(x, 3), cam(x, [0, 1]), cam(x, "all")[:, 2]):
        assert maps.shape == (2, 32, 40) and maps.dtype == np.float32
        assert maps.min() >= 0 and maps.max() <= 1
    assert cam.raw.shape == (2, 5, 8, 10)


def test_targets_are_the_same_however_they_are_given(net):
    cam, x = GradCAM(net, "relu3"), images()
    highest = net(x).numpy().argmax(1)
    expected = cam(x, list(highest))
    for targets in (None, highest, paddle.to_tensor(highest), lambda s: s.max(1)):
        np.testing.assert_allclose(cam(x, targets), expected, atol=1e-6)
    np.testing.assert_array_equal(cam(x, np.int64(2)), cam(x, [2, 2]))


@pytest.mark.parametrize("targets", [5, -1, [0], [0, 5], 1.5, "some", [[0, 1]], [], {}, [[[0]], [[0]]],
                                     [[0], [0, 1]]])
def test_bad_targets(net, targets):
    with pytest.raises(InputError, match="targets"):
        GradCAM(net, "relu3")(images(), targets)


@pytest.mark.parametrize("method", ["gradcam", "scorecam", "ablationcam"])
def test_callable_targets(net, method):
    cam, x = METHODS[method](net, "relu3"), images()
    np.testing.assert_allclose(cam(x, lambda scores: scores[:, 1]), cam(x, 1), atol=1e-6)
    with pytest.raises(InputError, match="callable"):
        cam(x, lambda scores: scores.sum())


def test_a_model_that_gives_no_class_scores():
    class Detector(SmallNet):
        def forward(self, x):
            return {"boxes": super().forward(x)}

    detector, x = seeded(Detector()), images()
    assert EigenCAM(detector, "relu3")(x).shape == (2, 64, 64)
    with pytest.raises(InputError, match="dict, not class scores"):
        GradCAM(detector, "relu3")(x)
    np.testing.assert_allclose(GradCAM(detector, "relu3")(x, lambda out: out["boxes"][:, 0]),
                               GradCAM(seeded(SmallNet()), "relu3")(x, 0), atol=1e-6)


def test_shared_scale_keeps_the_order_of_magnitudes(net):
    cam = GradCAM(net, "relu3")
    shared = cam(images(), "all", scale="shared")
    peaks, raw_peaks = shared.max((2, 3)), np.maximum(cam.raw, 0).max((2, 3))
    assert shared.max() == 1 and (peaks < 0.99).sum() > 5
    assert peaks.ravel()[raw_peaks.argmax()] == peaks.max()
    one_by_one = cam(images(), "all").max((2, 3))
    np.testing.assert_allclose(one_by_one[raw_peaks > 0], 1, atol=1e-6)


def test_cam_keeps_negative_evidence_as_published_and_relu_drops_it():
    x, model = images(), seeded(ClosedNet())
    gradcam = GradCAM(model, "relu3")(x, "all")
    dropped = CAM(model, "relu3", relu=True)(x, "all")
    low, high = dropped.min((2, 3), keepdims=True), dropped.max((2, 3), keepdims=True)
    np.testing.assert_allclose((dropped - low) / np.maximum(high - low, 1e-9), gradcam, atol=1e-4)
    assert np.abs(CAM(model, "relu3")(x, "all") - gradcam).max() > 0.1


def test_aug_smooth_explains_the_class_of_the_image_itself(net):
    cam, x = GradCAM(net, "relu3"), images()
    highest = net(x).numpy().argmax(1)
    np.testing.assert_array_equal(cam(x, aug_smooth=True), cam(x, highest, aug_smooth=True))
    mirrored = cam(x.flip(-1), highest, aug_smooth=True)
    np.testing.assert_allclose(mirrored[..., ::-1], cam(x, highest, aug_smooth=True), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_flat_maps_are_zeros_not_nan(method):
    model = seeded(ClosedNet())
    model.conv3.weight.set_value(0 * model.conv3.weight)             # the same activation everywhere
    maps = METHODS[method](model, "relu3")(images(), "all")
    assert maps.shape == (2, 5, 64, 64) and not maps.any()


def test_layer_by_name_by_object_and_several(net):
    x = images()
    by_name = GradCAM(net, "relu3")(x)
    np.testing.assert_array_equal(GradCAM(net, net.relu3)(x), by_name)
    np.testing.assert_array_equal(GradCAM(net, ["relu3"])(x), by_name)
    np.testing.assert_allclose(GradCAM(net, ["relu3", "relu3"])(x), by_name, atol=1e-6)
    several = LayerCAM(net, ["relu1", net.relu3])
    several(x, "all")
    assert [layer.shape for layer in several.raw] == [(2, 5, 32, 32), (2, 5, 16, 16)]


@pytest.mark.parametrize("target, message", [
    ("relu33", "relu3"), ("conv", "conv1"), ([], "empty"), (3, "dotted name"),
    (paddle.nn.ReLU(), "no sublayer"), (["relu3", "nil"], "nil")])
def test_unknown_layers(net, target, message):
    with pytest.raises(InputError, match=message):
        GradCAM(net, target)


def test_a_layer_called_several_times_counts_with_its_last_call():
    class Reused(SmallNet):
        def body(self, x):
            return self.relu1(self.conv3(self.relu1(self.conv2(self.relu1(self.conv1(x))))))

    for method in ("gradcam", "ablationcam", "scorecam"):
        reused, own = METHODS[method](seeded(Reused()), "relu1"), METHODS[method](seeded(SmallNet()), "relu3")
        np.testing.assert_allclose(reused(images(), "all"), own(images(), "all"), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_that_is_never_reached(method):
    with pytest.raises(InputError, match="never reaches layer 'unused'"):
        METHODS[method](TwoBranches(), "unused")(images())


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("cam", "eigencam", "scorecam")])
def test_a_layer_without_influence_on_the_class(method):
    with METHODS[method](seeded(TwoBranches()), "right") as cam:
        with pytest.raises(InputError, match="'right' has no influence"):
            cam(images(), 0)
        assert cam(images(), 1).any()
        maps = cam(images(), "all")                                  # one class of the two is explained
        assert not maps[:, 0].any() and maps[:, 1].any()


def test_a_score_that_was_detached():
    class Detached(SmallNet):
        @paddle.no_grad()
        def forward(self, x):
            return super().forward(x)

    with pytest.raises(InputError, match="differentiable"):
        GradCAM(Detached(), "relu3")(images())


def test_layers_that_give_no_map(net):
    with pytest.raises(InputError, match="'fc' gives .2, 5., which is no .B, C, h, w. map"):
        GradCAM(net, "fc")(images())
    with pytest.raises(InputError, match="1 x 1"):
        GradCAM(net, "relu3")(images(2, 4))
    net.relu3.register_forward_post_hook(lambda layer, inputs, output: (output, output))
    with pytest.raises(InputError, match="tuple, not a tensor"):
        GradCAM(net, "relu3")(images())


@pytest.mark.parametrize("x", [np.zeros((3, 8, 8), "float32"), np.zeros((0, 3, 8, 8), "float32"),
                               np.zeros((1, 3, 8, 8), "int64")])
def test_bad_images(net, x):
    with pytest.raises(InputError, match="images must be floats"):
        GradCAM(net, "relu3")(x)


def test_nan_is_reported_not_painted(net):
    with pytest.raises(InputError, match="finite"):
        EigenCAM(net, "relu3")(images() * float("nan"))
    net.fc.weight.set_value(net.fc.weight * float("nan"))
    with pytest.raises(InputError, match="weights"):
        GradCAM(net, "relu3")(images(), 0)


def test_bad_options(net):
    with pytest.raises(InputError, match="scale"):
        GradCAM(net, "relu3")(images(), scale="none")
    for method, options in ((ScoreCAM, {"batch_size": 0}), (ScoreCAM, {"top_k": 0}),
                            (AblationCAM, {"batch_size": 0})):
        with pytest.raises(InputError, match="at least 1"):
            method(net, "relu3", **options)
    with pytest.raises(InputError, match="CAM needs"):
        CAM(net, "relu3")(images())
    with pytest.raises(InputError, match="do not fit"):
        CAM(net, "relu3", weights=np.zeros((3, 5)))(images())


def test_list_layers():
    rows = list_layers(FusedNet(), (3, 32, 32))
    assert rows[:2] == [("conv1", "Conv2D", (1, 8, 16, 16)), ("norm", "BatchNorm", (1, 8, 16, 16))]
    assert list_layers(TwoBranches(), (2, 3, 8, 8))[-1] == ("unused", "Conv2D", None)
    assert list_layers(SplitNet(), (3, 16, 16))[-1] == ("fc", "Linear", (1, 5))
