"""Tokens: the ready transforms, and every method on a tiny ViT and a tiny windowed pyramid."""
from functools import partial

import numpy as np
import paddle
import pytest
from cam_models import TinyPyramid, TinyViT, images, seeded

from cxr.cam import CAM, METHODS, AblationCAM, GradCAM, pvt_tokens, swin_tokens, vit_tokens
from cxr.errors import InputError

WITHOUT_CLASSIFIER = [name for name in METHODS if name != "cam"]


def test_where_the_tokens_go():
    tokens = paddle.arange(2 * 7 * 3, dtype="float32").reshape([2, 7, 3])
    grid = vit_tokens(tokens, height=2, width=3).numpy()
    assert grid.shape == (2, 3, 2, 3)
    assert grid[1, 2, 1, 0] == tokens.numpy()[1, 1 + 3, 2]          # row 1, column 0; one token is dropped
    np.testing.assert_array_equal(vit_tokens(tokens, width=3), grid)
    np.testing.assert_array_equal(vit_tokens(tokens, height=2), grid)
    np.testing.assert_array_equal(pvt_tokens(tokens[:, 1:], 2, 3), grid)
    np.testing.assert_array_equal(swin_tokens(tokens[:, 1:], 2, 3), grid)
    np.testing.assert_array_equal(swin_tokens(tokens[:, 1:].reshape([2, 2, 3, 3])), grid)
    assert vit_tokens(tokens[:, :6], skip=2).shape == [2, 3, 2, 2]


@pytest.mark.parametrize("transform, count", [(vit_tokens, 16), (pvt_tokens, 17),
                                              (partial(swin_tokens, height=3), 16)])
def test_tokens_that_fill_no_grid(transform, count):
    with pytest.raises(InputError, match="do not fill a grid"):
        transform(paddle.zeros([1, count, 3]))


def test_maps_given_to_a_token_transform():
    with pytest.raises(InputError, match="tokens must be"):
        vit_tokens(paddle.zeros([1, 3, 4, 4]))


@pytest.mark.parametrize("method", WITHOUT_CLASSIFIER)
@pytest.mark.parametrize("model, layer, transform", [
    (TinyViT, "blocks.1.norm1", vit_tokens), (TinyViT, "blocks.0", partial(vit_tokens, height=4)),
    (TinyPyramid, "stage1", swin_tokens), (TinyPyramid, "norm", pvt_tokens)])
def test_every_method(method, model, layer, transform):
    x = images(2, 32)
    with METHODS[method](seeded(model()), layer, transform) as cam:
        maps = cam(x, "all")
        for k in range(4):
            np.testing.assert_allclose(cam(x, k), maps[:, k], atol=1e-4)
    assert maps.shape == (2, 4, 32, 32) and np.isfinite(maps).all() and maps.any()


def test_gradcam_on_mean_pooled_tokens_by_hand():
    model, x = seeded(TinyPyramid()), images(2, 32)
    cam = GradCAM(model, "norm", pvt_tokens)
    cam(x, 3)
    kept = []
    hook = model.norm.register_forward_post_hook(lambda layer, inputs, output: kept.append(output))
    model(x)
    hook.remove()
    expected = kept[0].numpy() @ model.head.weight.numpy()[:, 3] / 16
    np.testing.assert_allclose(cam.raw, expected.reshape(2, 4, 4), rtol=1e-4, atol=1e-6)
    weighted = CAM(model, "norm", pvt_tokens, weights=model.head.weight.numpy())
    weighted(x, 3)
    np.testing.assert_allclose(weighted.raw, 16 * cam.raw, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model, layer, transform, tokens", [
    (TinyViT, "blocks.0", vit_tokens, slice(1, None)), (TinyPyramid, "stage1", pvt_tokens, slice(None))])
def test_ablation_takes_a_channel_out_of_the_patches_alone(model, layer, transform, tokens):
    model, x = seeded(model()), images(1, 32)
    cam = AblationCAM(model, layer, transform)
    cam(x, 0)
    target, kept = dict(model.named_sublayers())[layer], []
    hook = target.register_forward_post_hook(lambda layer, inputs, output: kept.append(output.numpy()))
    before = model(x).numpy()[0, 0]
    hook.remove()
    expected = 0
    for channel in range(kept[0].shape[2]):
        without = kept[0].copy()
        without[:, tokens, channel] = 0
        hook = target.register_forward_post_hook(lambda *_, without=without: paddle.to_tensor(without))
        expected = expected + (before - model(x).numpy()[0, 0]) * kept[0][0, tokens, channel]
        hook.remove()
    np.testing.assert_allclose(cam.raw[0].ravel(), expected, atol=1e-5)


def test_after_the_last_attention_the_patches_have_no_influence():
    with pytest.raises(InputError, match="before the last attention"):
        GradCAM(seeded(TinyViT()), "norm", vit_tokens)(images(2, 32))


def test_tokens_without_a_transform():
    with pytest.raises(InputError, match="reshape_transform"):
        GradCAM(seeded(TinyViT()), "blocks.0")(images(2, 32))
