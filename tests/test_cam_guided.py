"""Guided backpropagation through ReLUs of every spelling, and the product with a map."""
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from cam_models import FusedNet, SmallNet, SplitNet, TinyViT, UnfusedNet, images, seeded
from paddle import nn

from cxr.cam import GuidedBackprop
from cxr.cam.guided import times, to_picture
from cxr.errors import InputError


class Pixelwise(nn.Layer):
    """score = sum(w relu(v relu(x))), pixel by pixel, so that the rule can be followed by eye."""

    def __init__(self, v, w):
        super().__init__()
        self.v, self.w = (paddle.to_tensor(row, dtype="float32").reshape([1, 1, 1, -1]) for row in (v, w))

    def forward(self, x):
        return (self.w * F.relu(self.v * F.relu(x))).sum((2, 3))


def test_the_rule_by_hand():
    x = np.array([1, -1, 2, 3, 1], "float32").reshape(1, 1, 1, 5)
    #       passes; x < 0; w < 0: no positive gradient; v < 0: inner ReLU is shut; passes
    guided = GuidedBackprop(Pixelwise(v=[2, 2, 2, -2, 5], w=[3, 3, -3, 3, 1]))(x)
    assert guided.shape == (1, 1, 5, 1)
    np.testing.assert_allclose(guided.ravel(), [6, 0, 0, 0, 5])


def test_a_relu_that_feeds_two_layers_rectifies_the_sum():
    class Fork(nn.Layer):
        def forward(self, x):
            y = F.relu(x)
            return (3 * y - 2 * y).sum((2, 3))

    np.testing.assert_allclose(GuidedBackprop(Fork())(paddle.ones([1, 1, 2, 2])), 1)


def test_fused_and_functional_and_in_place_relus_equal_layers():
    fused, unfused = seeded(FusedNet()), seeded(UnfusedNet())
    x = images()
    np.testing.assert_allclose(fused(x).numpy(), unfused(x).numpy(), atol=1e-6)
    guided = GuidedBackprop(fused)(x, "all")
    np.testing.assert_allclose(guided, GuidedBackprop(unfused)(x, "all"), atol=1e-7)
    x.stop_gradient = False
    fused.eval()
    plain = paddle.grad(fused(x)[:, 0].sum(), x)[0].numpy().transpose(0, 2, 3, 1)
    assert np.abs(guided[:, 0] - plain).max() > 0.1 * np.abs(plain).max()


def test_targets():
    model, x = seeded(SplitNet()), images()
    guided = GuidedBackprop(model)
    every = guided(x, "all")
    assert every.shape == (2, 5, 64, 64, 3) and guided.scores.shape == [2, 5]
    highest = guided.scores.numpy().argmax(1)
    for targets in (None, highest):
        np.testing.assert_allclose(guided(x, targets), every[[0, 1], highest], atol=1e-7)
    np.testing.assert_allclose(guided(x, lambda scores: 2 * scores[:, 1]), 2 * every[:, 1], atol=1e-6)


def test_the_logit_of_a_split_model_is_explained():
    x = images()
    expected = GuidedBackprop(seeded(SmallNet()))(x, 0)
    np.testing.assert_allclose(GuidedBackprop(seeded(SplitNet()))(x, 0), expected, atol=1e-7)


def test_it_says_when_it_cannot():
    with pytest.raises(InputError, match="no ReLU"):
        GuidedBackprop(seeded(TinyViT()))(images(1, 32))

    class Compiled(nn.ReLU):
        def forward(self, x):
            return paddle.clip(x, min=0)                # a ReLU that is not Paddle's operator

    model = seeded(SmallNet())
    model.relu2 = Compiled()
    before = paddle._C_ops.relu
    with pytest.raises(InputError, match="ReLU inside Compiled"):
        GuidedBackprop(model)(images())
    assert paddle._C_ops.relu is before


def test_detached_score():
    class Detached(SmallNet):
        def forward(self, x):
            return super().forward(x).detach()

    with pytest.raises(InputError, match="differentiable"):
        GuidedBackprop(Detached())(images())


def test_product_and_picture():
    gradients = np.random.default_rng(0).normal(3, 7, (1, 4, 4, 3)).astype("float32")
    maps = np.zeros((1, 4, 4), "float32")
    maps[0, 1, 2] = 0.5
    product = times(gradients, maps)
    np.testing.assert_allclose(product[0, 1, 2], gradients[0, 1, 2] / 2)
    assert np.count_nonzero(product) == 3
    picture = to_picture(gradients[0])
    assert picture.dtype == np.uint8 and abs(picture.mean() - 127) < 2 and abs(picture.std() - 25.5) < 2
    assert (to_picture(np.zeros((2, 2, 3))) == 127).all()
