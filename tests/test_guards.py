"""Figures that cannot be are refused, at the place and through the commands' own loop."""
import numpy as np
import pytest

from cxr.device import guards
from cxr.device.guards import SameScores, check_loss, check_probabilities, check_share
from cxr.errors import InputError
from cxr.metrics.classification import evaluate, evaluate_scores


@pytest.mark.parametrize("value", [0, 1, 0.5, 1 + 5e-5, -5e-5])
def test_shares(value):
    check_share(value, "the accuracy")


@pytest.mark.parametrize("value", [2.1082, 1.001, -0.01, float("nan"), float("inf")])
def test_what_is_no_share(value):
    with pytest.raises(InputError, match="the accuracy is .*computes wrong numbers: go on with --device cpu"):
        check_share(value, "the accuracy")


def test_losses():
    for value in (0, 3.5, float("nan"), float("inf")):       # the latter two have sentences of their own
        check_loss(value, "the loss")
    with pytest.raises(InputError, match="the loss is -0.2000"):
        check_loss(-0.2, "the loss")


@pytest.mark.parametrize("scores, activation, said", [
    ([[0.5, 0.5], [0.1, 0.9]], "softmax", None), ([[0.5, 0.4995]], "softmax", None), ([[0.9, 0.9]], "sigmoid", None),
    (np.zeros((0, 2)), "softmax", None),
    ([[0.5, 0.5], [0, 0]], "softmax", "sum to 0.0000"), ([[0.5, 0.6]], "softmax", "sum to 1.1000"),
    ([[1.2, 0.1]], "sigmoid", "between 0.1000 and 1.2000"), ([[-0.1, 1.1]], "softmax", "between"),
    ([[np.nan, 0.1]], "sigmoid", "between nan")])
def test_probabilities(scores, activation, said):
    if said is None:
        check_probabilities(np.array(scores, float), activation, "they")
    else:
        with pytest.raises(InputError, match=said):
            check_probabilities(np.array(scores, float), activation, "they")


def test_an_evaluation_of_logits_refuses_what_is_no_probability():
    with pytest.raises(InputError, match="between nan and nan"):
        evaluate(np.full((2, 1, 2), np.nan), np.array([0, 1]), ("a", "b"), "softmax")


def test_probabilities_that_another_system_rounded_are_nobodys_device():
    """What `cxr.evaluation.predictions` accepts is judged."""
    report = evaluate_scores(np.array([[0.9, 0.095], [0.1, 0.9]]), np.array([0, 1]), ("a", "b"), "softmax", 1.0)
    assert report.values["accuracy"] == 1


@pytest.mark.parametrize("batches", [78, 390, 3000])
def test_a_perfect_epoch_in_many_small_batches_is_no_impossible_one(batches):
    total = np.zeros(1, "float32")
    for _ in range(batches):
        total += np.float32(16 / (16 * batches))
    check_share(float(total[0]), "the accuracy")


IMAGES = np.arange(12, dtype="float32").reshape(3, 4)


def seen(images, scores):
    same = SameScores()
    for image, score in zip(images, scores):                 # batches of one
        same.see(np.array([image]), np.array([score]))
    return same


def test_equal_scores_of_different_images_are_refused_on_a_device_that_nobody_checked(monkeypatch):
    same = seen(IMAGES, np.zeros((3, 2)))
    with pytest.raises(InputError, match="3 different images have scores that are equal to the last bit on gpu:7"):
        same.check("gpu:7")
    with pytest.warns(UserWarning, match="3 different images.*its figures mean nothing"):
        same.check("cpu")
    same.check("cpu")                                        # once is enough
    monkeypatch.setattr(guards, "checked", lambda device: True)
    with pytest.warns(UserWarning, match="does not look at its input"):
        seen(IMAGES, np.zeros((3, 2))).check("gpu:7")


@pytest.mark.parametrize("images, scores", [
    (IMAGES, np.float32([[0, 1], [0, 1], [0, np.nextafter(np.float32(1), np.float32(2))]])),     # the last bit differs
    (IMAGES[[0, 0, 0]], np.zeros((3, 2))), (IMAGES[:1], np.zeros((1, 2))), (IMAGES[:0], np.zeros((0, 2)))])
def test_nothing_is_said_where_all_is_well(images, scores, recwarn):
    seen(images, scores).check("gpu:7")
    assert not recwarn
