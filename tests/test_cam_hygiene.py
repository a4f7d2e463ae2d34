"""Nothing leaks: the model is after a call what it was before, also after an exception."""
import gc

import numpy as np
import paddle
import pytest
from cam_models import ClosedNet, FusedNet, SmallNet, SplitNet, images, seeded

from cxr.cam import METHODS, EigenCAM, GradCAM, GuidedBackprop, ScoreCAM

EXPLAINERS = {name: lambda model, method=method: method(model, "relu3") for name, method in METHODS.items()}
EXPLAINERS["guided"] = GuidedBackprop


def state(model):
    """Everything of a model that a careless toolbox changes."""
    layers = model.sublayers(include_self=True)
    return ([layer.training for layer in layers],
            [(list(layer._forward_post_hooks), list(layer._forward_pre_hooks)) for layer in layers],
            [id(layer) for layer in layers],
            [p.stop_gradient for p in model.parameters()],
            [None if p.grad is None else p.grad.numpy().tolist() for p in model.parameters()],
            {key: value.numpy().tolist() for key, value in model.state_dict().items()},
            paddle._C_ops.relu, paddle._legacy_C_ops.relu, paddle.is_grad_enabled())


@pytest.fixture(params=[SmallNet, SplitNet, ClosedNet])
def model(request):
    """In mixed modes, part frozen, with a hook and a gradient of its owner's."""
    model = seeded(request.param())
    model.train()
    model.conv2.eval()
    model.conv1.weight.stop_gradient = True
    model.relu3.register_forward_post_hook(lambda layer, inputs, output: None)
    model(images()).sum().backward()
    return model


@pytest.mark.parametrize("name", EXPLAINERS)
def test_a_call_changes_nothing(model, name):
    if name == "cam" and not isinstance(model, ClosedNet):
        pytest.skip("CAM needs the classifier")
    before = state(model)
    with EXPLAINERS[name](model) as explain:
        explain(images(), "all")
        assert state(model) == before
    assert state(model) == before


@pytest.mark.parametrize("name", EXPLAINERS)
def test_nor_does_a_call_that_fails(model, name):
    before = state(model)
    explain = EXPLAINERS[name](model)
    with pytest.raises(ValueError):
        explain(images(), 99)                                        # fails after the forward pass
    with pytest.raises((ValueError, RuntimeError)):
        explain(images()[:, :2])                                     # fails within it
    assert state(model) == before


def test_a_failing_callable(model):
    before = state(model)

    def fails(scores):
        raise KeyError("mine")

    for method in ("gradcam", "ablationcam", "scorecam"):
        with pytest.raises(KeyError, match="mine"):
            METHODS[method](model, "relu3")(images(), fails)
    assert state(model) == before


def test_two_toolboxes_on_one_model(model):
    alone = [GradCAM(model, "relu3")(images()), EigenCAM(model, "relu2")(images())]
    with GradCAM(model, "relu3") as first, EigenCAM(model, "relu2") as second:
        for _ in range(2):
            np.testing.assert_array_equal(first(images()), alone[0])
            np.testing.assert_array_equal(second(images()), alone[1])


@pytest.mark.parametrize("name", [name for name in EXPLAINERS if name != "cam"])
def test_frozen_parameters_and_no_grad_change_no_map(model, name):
    expected = EXPLAINERS[name](model)(images(), "all")
    for parameter in model.parameters():
        parameter.stop_gradient = True
    with paddle.no_grad():
        np.testing.assert_array_equal(EXPLAINERS[name](model)(images(), "all"), expected)


@pytest.mark.parametrize("explainer", [lambda model: GradCAM(model, "norm"), GuidedBackprop])
def test_a_model_in_training_mode_is_explained_as_in_evaluation(explainer):
    model, x = seeded(FusedNet()), images()
    model.eval()
    expected = explainer(model)(x, "all")
    model.train()
    before = state(model)                                            # with the running statistics
    np.testing.assert_array_equal(explainer(model)(x, "all"), expected)
    assert state(model) == before


@pytest.mark.parametrize("net", [SmallNet, SplitNet, ClosedNet])
def test_nothing_upstream_of_the_target_is_recorded(net):
    model, upstream, downstream = seeded(net()), [], []
    model.conv3.register_forward_post_hook(lambda layer, x, output: upstream.append(output.stop_gradient))
    model.fc.register_forward_post_hook(lambda layer, x, output: downstream.append(output.stop_gradient))
    GradCAM(model, "relu3")(images())
    assert upstream == [True] and downstream[0] is False


def test_a_call_between_forward_and_backward_does_not_disturb_training():
    def gradients(interrupt):
        model = seeded(SmallNet())
        loss = model(images()).square().mean()
        if interrupt:
            GradCAM(model, "relu2")(images(), "all")
        loss.backward()
        return [parameter.grad.numpy() for parameter in model.parameters()]

    for with_call, without in zip(gradients(True), gradients(False)):
        np.testing.assert_array_equal(with_call, without)


def test_the_images_are_not_touched():
    x = images()
    x.stop_gradient = False
    before = x.numpy().copy()
    for explain in (GradCAM(seeded(SmallNet()), "relu3"), GuidedBackprop(seeded(SmallNet()))):
        explain(x)
    assert not x.stop_gradient and x.grad is None
    np.testing.assert_array_equal(x.numpy(), before)


def test_closing_lets_go_and_the_toolbox_can_be_used_again():
    with GradCAM(seeded(SmallNet()), "relu3") as cam:
        cam(images())
        assert cam.raw is not None
    assert cam.raw is None and cam.outputs is None
    assert cam(images()).shape == (2, 64, 64)
    with pytest.raises(ValueError):
        cam(images(), 99)
    assert cam.raw is None                                           # nothing stale after a failure


@pytest.mark.parametrize("name", EXPLAINERS)
def test_memory_is_steady(name):
    explain, x = EXPLAINERS[name](seeded(ClosedNet())), images(1, 32)

    def allocated():
        gc.collect()
        return paddle.base.core.host_memory_stat_current_value("Allocated", 0)

    explain(x, "all")
    before = allocated()
    for _ in range(5):
        explain(x, "all")
    assert allocated() == before                                     # to the byte


def test_the_progress_bar(capsys):
    pytest.importorskip("tqdm")
    ScoreCAM(seeded(SmallNet()), "relu3", progress=True)(images(1, 16), 0)
    assert "ScoreCAM" in capsys.readouterr().err
    ScoreCAM(seeded(SmallNet()), "relu3")(images(1, 16), 0)
    assert capsys.readouterr().err == ""
