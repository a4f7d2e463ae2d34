"""Charts: what is drawn where, and the numbers behind it."""
import numpy as np
import pytest

from cxr.metrics.calibration import reliability
from cxr.visual import charts


def coloured(image):
    """Pixels of the own colour (blue)."""
    pixels = image.astype(int)
    return (pixels[..., 2] - pixels[..., 0] > 60).sum()


def test_wilson_by_hand():
    low, high = charts.wilson(np.array([0.5, 0, 1]), np.array([100, 10, 10]))
    assert (low[0], high[0]) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert (low[1], high[1]) == pytest.approx((0, 0.2775), abs=1e-4)
    assert (low[2], high[2]) == pytest.approx((0.7225, 1), abs=1e-4)


def test_thinned_curves_keep_their_ends_and_their_shape():
    x = np.sort(np.random.default_rng(0).random(30000))
    y = x ** 0.3
    few_x, few_y = charts.thinned(x, y)
    assert len(few_x) <= 502 and (few_x[0], few_x[-1]) == (x[0], x[-1])
    assert np.abs(np.interp(x, few_x, few_y) - y).max() < 0.01
    assert charts.thinned(x[:9], y[:9])[0] is not None and len(charts.thinned(x[:9], y[:9])[0]) == 9


@pytest.mark.parametrize("classes", [1, 4, 5, 7, 14])
@pytest.mark.parametrize("chart", [charts.roc, charts.precision_recall])
def test_a_panel_for_every_class(classes, chart):
    rng = np.random.default_rng(0)
    truth = rng.random((60, classes)) < 0.4
    image = chart(rng.random((60, classes)), truth, [f"class {k}" for k in range(classes)])
    assert image.dtype == np.uint8 and image.shape[2] == 3 and image.shape[1] <= 1600
    assert coloured(image) > 100 * classes


def test_undefined_curves_are_said_not_drawn():
    scores, truth = np.array([[.1], [.9]]), np.array([[False], [False]])
    assert coloured(charts.roc(scores, truth, ["x"])) == 0
    assert coloured(charts.precision_recall(scores, truth, ["x"])) == 0


def test_reliability_with_temperature_has_a_second_colour():
    rng = np.random.default_rng(0)
    curve = reliability(rng.random(300), rng.random(300) < 0.5)
    alone, both = charts.calibration([curve], ["x"]), charts.calibration([curve], ["x"], [curve])
    orange = [((image[..., 0].astype(int) - image[..., 2]) > 60).sum() for image in (alone, both)]
    assert orange[0] == 0 and orange[1] > 100


def test_confusion_is_coloured_by_the_share_of_its_row():
    image = charts.confusion(np.array([[1000, 0], [0, 1]]), ["a", "b"])
    dark = (image.sum(axis=2) < 250).any(axis=1)
    assert image.ndim == 3 and dark.any()
    swapped = charts.confusion(np.array([[1, 0], [0, 1000]]), ["a", "b"])
    # The colours are the same: only the numbers in the cells differ.
    assert (image != swapped).any(axis=2).mean() < 0.01
    charts.confusion(np.array([[0, 0], [1, 2]]), ["a", "b"])                 # 0/0 in a row


def test_intervals_leave_nan_out_and_show_others():
    figures = {"a": (.8, .7, .9), "b": (np.nan,) * 3}
    alone = charts.intervals(figures, "AUROC")
    assert coloured(alone) > 200
    assert charts.intervals(figures, "AUROC", {"theirs": {"a": .75}}, chance=.5).shape[1] == alone.shape[1]
