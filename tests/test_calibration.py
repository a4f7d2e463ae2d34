"""Reliability and temperature, by hand and against what the data were drawn with."""
import numpy as np
import pytest
from scipy.special import expit, softmax

from cxr.metrics.calibration import at_temperature, fit_temperature, logits_from_scores, reliability
from cxr.metrics.classification import log_loss, scores_from_logits


def test_expected_calibration_error_by_hand():
    # Bins of a half: (.1, .3) came true once in two, (.6, .9, 1) twice in three.
    curve = reliability(np.array([.1, .3, .6, .9, 1]), np.array([0, 1, 1, 0, 1]), bins=2)
    assert curve.said == pytest.approx([.2, 2.5 / 3]) and curve.happened == pytest.approx([.5, 2 / 3])
    assert curve.count.tolist() == [2, 3]
    assert curve.error == pytest.approx((2 * .3 + 3 * (2.5 / 3 - 2 / 3)) / 5)


def test_bin_edges_belong_to_the_upper_bin_and_empty_bins_are_left_out():
    curve = reliability(np.array([0, .5, 1]), np.array([0, 1, 1]), bins=4)
    assert curve.said.tolist() == [0, .5, 1] and curve.error == pytest.approx(.5 / 3)
    assert np.isnan(reliability(np.array([]), np.array([])).error)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_logits_come_back_from_probabilities(activation):
    logits = np.random.default_rng(0).normal(0, 3, (50, 1, 4))
    scores = scores_from_logits(logits, activation)
    back = logits_from_scores(scores, activation)
    assert scores_from_logits(back, activation) == pytest.approx(scores, abs=1e-12)
    assert at_temperature(scores, 2.5, activation) == pytest.approx(scores_from_logits(logits / 2.5, activation))
    assert at_temperature(scores, 1, activation) is scores
    assert np.isfinite(logits_from_scores(np.array([[0.0, 1.0]]), activation)).all()


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_temperature_that_spoilt_the_probabilities_is_found(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20000, 3))
    labels = rng.random(logits.shape) < expit(logits)
    found = fit_temperature(expit(logits * temperature), labels, "sigmoid")
    assert found == pytest.approx(temperature, rel=0.05)
    classes = np.array([rng.choice(3, p=row) for row in softmax(logits[:4000], axis=1)])
    assert fit_temperature(softmax(logits[:4000] * temperature, axis=1), classes, "softmax") == pytest.approx(
        temperature, rel=0.1)


def test_no_other_temperature_has_a_lower_loss():
    rng = np.random.default_rng(1)
    scores, labels = rng.random((200, 2)), rng.random((200, 2)) < 0.3
    scores = np.where(labels, scores ** 0.5, scores)
    found = fit_temperature(scores, labels, "sigmoid")
    loss = {t: log_loss(logits_from_scores(scores, "sigmoid") / t, labels, "sigmoid")
            for t in (found, 0.98 * found, 1.02 * found)}
    assert min(loss, key=loss.get) == found


@pytest.mark.parametrize("scores", [[.9, .8, .2, .1], [.1, .2, .8, .9]])
def test_without_a_lowest_point_it_stays_at_one_and_says_so(scores):
    with pytest.warns(UserWarning, match="no temperature fits"):
        assert fit_temperature(np.array(scores)[:, None], np.array([[1], [1], [0], [0]]), "sigmoid") == 1
