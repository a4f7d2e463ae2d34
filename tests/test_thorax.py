"""The classical thorax estimate: against the known lungs of phantoms, and for plausibility on real X-rays."""
import numpy as np
import pytest

from cxr.data import phantom
from cxr.data.images import read_image
from cxr.data.transforms import resize
from cxr.localisation.thorax import estimate


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_lungs_of_phantoms_where_truth_is_known():
    shown = [phantom.draw(label, seed, 224) for label in range(len(phantom.CLASS_NAMES)) for seed in range(4)]
    estimates = [estimate(own.image) for own in shown]
    scores = [dice(found.lungs, own.lungs) for found, own in zip(estimates, shown)]
    assert all(found.found for found in estimates)
    assert np.mean(scores) > 0.83 and min(scores) > 0.6                       # measured on 16: 0.86
    assert np.mean([(found.thorax & own.lungs).sum() / own.lungs.sum() for found, own in zip(estimates, shown)]) > 0.93


def test_masks_are_nested_and_fit_the_picture():
    image = phantom.draw(1, 2, 200).image[:, 10:180]
    for picture in (image, np.repeat(image[..., None], 3, axis=2)):
        found = estimate(picture)
        for mask in (found.body, found.lungs, found.thorax):
            assert mask.shape == image.shape and mask.dtype == bool
        # Up to the rounding of the enlargement.
        assert (found.lungs & ~found.thorax).mean() < 0.002 and (found.thorax & ~found.body).mean() < 0.002


@pytest.mark.parametrize("picture", [
    np.zeros((64, 64), np.uint8), np.full((64, 96), 255, np.uint8),
    np.random.default_rng(0).integers(0, 256, (80, 64, 3), dtype=np.uint8),
    np.tile(np.arange(96, dtype=np.uint8), (50, 1)),
], ids=["black", "white", "noise", "ramp"])
def test_what_is_no_chest_gets_fixed_ellipses_and_says_so(picture):
    found = estimate(picture)
    assert not found.found and found.lungs.shape == picture.shape[:2]
    assert 0.15 < found.lungs.mean() < 0.5 and found.lungs.mean() < found.thorax.mean() < 0.8


def test_air_beside_neck_and_arms_is_no_lung():
    image = phantom.draw(0, 1, 224, sign=False).image
    framed = np.zeros((300, 300), np.uint8)
    framed[60:284, 38:262] = image
    found = estimate(framed)
    assert found.found and not found.lungs[:50].any() and not found.lungs[:, :30].any()
    assert found.body[:50].mean() < 0.2


@pytest.mark.parametrize("folder, least", [("nih14/images", 0.8), ("covid4/COVID", 0.8), ("chest_xray/test", 0.6)])
def test_real_images(data_dir, folder, least):
    paths = sorted(path for path in (data_dir / folder).rglob("*") if path.is_file())[::7][:24]
    estimates = [estimate(resize(read_image(path), (224, 224), True)) for path in paths]
    assert np.mean([own.found for own in estimates]) >= least
    # Air beside neck and arms is as dark as lungs; where it is taken for them, they reach the picture's edge.
    assert np.mean([own.lungs[:6].any() or own.lungs[:, [0, 1, -2, -1]].any() for own in estimates]) < 0.3
    assert all(0.15 < own.thorax.mean() < 0.85 for own in estimates)
    assert all(own.lungs[:, :112].any() and own.lungs[:, 112:].any() for own in estimates)
