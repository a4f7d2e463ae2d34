"""Losses and weights with numbers that can be checked by hand."""
import numpy as np
import paddle
import pytest

from cxr.training.losses import Loss, balanced_weights, epoch_order, hits, image_weights

LOG2, WRONG, RIGHT = np.log(2), np.log1p(np.exp(2)), np.log1p(np.exp(-2))


def losses(logits, labels, activation, *options):
    return Loss(activation, *options)(paddle.to_tensor(logits), paddle.to_tensor(labels)).numpy().tolist()


def test_softmax_is_the_negative_log_likelihood():
    logits, labels = [[0.0, 0.0], [2.0, 0.0], [2.0, 0.0]], [[1], [0], [1]]
    assert losses(logits, labels, "softmax") == pytest.approx([LOG2, RIGHT, WRONG], abs=1e-6)
    assert losses([[200.0, 0.0]], [[1]], "softmax") == [200.0]                # where the probability rounds to 0
    assert losses(logits, labels, "softmax", 0.5) == pytest.approx(           # 3/4 of the label, 1/4 of the other
        [LOG2, 0.75 * RIGHT + 0.25 * WRONG, 0.25 * RIGHT + 0.75 * WRONG], abs=1e-6)
    weights = np.array([3, 0.5], "float32")
    assert losses(logits, labels, "softmax", 0, weights) == pytest.approx([LOG2 / 2, 3 * RIGHT, WRONG / 2], abs=1e-6)


def test_sigmoid_is_the_mean_over_the_findings():
    logits, labels = [[0.0, 2.0], [-2.0, -200.0]], np.array([[1, 1], [1, 1]], "float32")
    assert losses(logits, labels, "sigmoid") == pytest.approx([(LOG2 + RIGHT) / 2, (WRONG + 200) / 2], abs=1e-5)
    assert losses([[2.0]], np.ones((1, 1), "float32"), "sigmoid", 0.5) == pytest.approx([0.75 * RIGHT + 0.25 * WRONG])
    weights = np.array([[0.5, 5], [2, 7]], "float32")                         # absent, present
    assert losses([[0.0, 0.0]], np.array([[1, 0]], "float32"), "sigmoid", 0, weights) == pytest.approx(
        [(2 * LOG2 + 5 * LOG2) / 2])


def test_hits_by_hand():
    assert hits(paddle.to_tensor([[0.0, 0.0], [2.0, 3.0]]), paddle.to_tensor([[1], [1]]), "softmax").tolist() == [0, 1]
    assert hits(paddle.to_tensor([[0.0, 3.0]]), paddle.to_tensor([[1.0, 1.0]]), "sigmoid").tolist() == [0.5]


def test_balanced_weights_have_the_mean_one():
    labels = np.array([0, 0, 0, 2])                                           # class 1 has no image
    weights = balanced_weights(labels, 3, "softmax")
    assert weights == pytest.approx([4 / 6, 1, 2]) and weights[labels].mean() == pytest.approx(1)
    labels = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]], "float32")   # the second never, the third always
    weights = balanced_weights(labels, 3, "sigmoid")
    assert weights == pytest.approx(np.array([[4 / 6, 1, 1], [2, 1, 1]]))
    assert np.where(labels > 0, weights[1], weights[0]).mean(axis=0) == pytest.approx([1, 1, 1])


def test_rare_classes_are_drawn_as_often_as_common_ones():
    labels = np.repeat([0, 1, 2], [900, 90, 10])
    drawn = labels[epoch_order(1000, 0, 1, image_weights(labels, "softmax"))]
    assert (np.abs(np.bincount(drawn) - 1000 / 3) < 60).all()
    findings = np.zeros((1000, 2), "float32")
    findings[:100, 0] = findings[90:110, 1] = 1                              # 890 healthy, ten with both
    weights = image_weights(findings, "sigmoid")
    assert weights.sum() == pytest.approx(1) and weights[110:].sum() == pytest.approx(weights[90:110].sum())


def test_an_epoch_depends_on_seed_and_number_alone():
    order = epoch_order(50, 1, 2)
    assert sorted(order) == list(range(50)) and np.array_equal(order, epoch_order(50, 1, 2))
    assert not np.array_equal(order, epoch_order(50, 1, 3)) and not np.array_equal(order, epoch_order(50, 0, 2))
