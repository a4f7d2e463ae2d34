"""Every number of pytorch-grad-cam 1.5.7 in `reference/cam_seed1.npz`, with and without the split."""
import numpy as np
import pytest
from cam_models import REFERENCE, ClosedNet, SmallNet, SplitNet, reference_net

from cxr.cam import METHODS, GuidedBackprop

FILE = REFERENCE / "cam_seed1.npz"
pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"{FILE} is not there (see CXR_DATA)")
ENTRIES = [f"{method}{option}"
           for method in ("gradcam", "gradcampp", "scorecam", "xgradcam", "ablationcam", "eigencam",
                          "eigengradcam", "layercam")
           for option in ("", ".aug_smooth", ".eigen_smooth")
           if (method, option) not in {("scorecam", ".aug_smooth"), ("ablationcam", ".aug_smooth")}]


@pytest.fixture(scope="module")
def reference():
    with np.load(FILE) as file:
        return dict(file)


@pytest.mark.parametrize("model_class", [SmallNet, SplitNet, ClosedNet])
@pytest.mark.parametrize("entry", ENTRIES)
def test_entry(reference, entry, model_class):
    method, _, option = entry.partition(".")
    method = METHODS[method.replace("pp", "++")]

    class Opposite(method):
        """With the sign that the rule does not choose; the reference leaves that of eigen maps to chance."""
        def _saliency(self, *arguments):
            return [-layer for layer in super()._saliency(*arguments)]

    def difference(method):
        cam = method(reference_net(model_class), "relu3")
        maps = cam(reference["input"], reference["classes"], **({option: True} if option else {}))
        return np.abs(maps - reference[entry]).max((1, 2))

    differences = difference(method)
    if "eigen" in entry:
        differences = np.minimum(differences, difference(Opposite))
    assert differences.max() < 1e-5


@pytest.mark.parametrize("model_class", [SmallNet, SplitNet, ClosedNet])
def test_two_layers(reference, model_class):
    cam = METHODS["gradcam"](reference_net(model_class), ["relu2", "relu3"])
    maps = cam(reference["input"], reference["classes"])
    np.testing.assert_allclose(maps, reference["gradcam.layers_relu2_relu3"], atol=1e-5)
    assert [layer.shape for layer in cam.raw] == [(2, 16, 16), (2, 16, 16)]


def test_guided_backprop(reference):
    gradients = GuidedBackprop(reference_net())(reference["input"], reference["classes"])
    np.testing.assert_allclose(gradients, reference["guided_backprop"], atol=1e-7)


def test_every_entry_is_compared(reference):
    compared = {*ENTRIES, "gradcam.layers_relu2_relu3", "guided_backprop", "input", "logits", "classes"}
    assert set(reference) == compared


def test_logits_and_highest_class(reference):
    cam = METHODS["gradcam"](reference_net(SplitNet), "relu3")
    cam(reference["input"])
    np.testing.assert_allclose(cam.scores.numpy(), reference["logits"], atol=1e-5)
    np.testing.assert_allclose(cam.outputs.numpy(), 1 / (1 + np.exp(-reference["logits"])), atol=1e-5)
    assert cam.classes[:, 0].tolist() == reference["classes"].tolist()
