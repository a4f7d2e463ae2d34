"""How good is it: figures small enough to check by hand."""
import math
import warnings

import numpy as np
import pytest

from cxr.metrics.classification import auroc, evaluate, headline, log_loss, scores_from_logits


def column(*values):
    return np.array(values)[:, None]


def logit(p):
    p = np.asarray(p, "float64")
    return np.log(p) - np.log1p(-p)


# --- AUROC ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("scores, labels, area", [
    ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75),              # pairs right: 3 of 4
    ([0.1, 0.5, 0.5, 0.8], [0, 0, 1, 1], 0.875),              # a tie counts half: 3.5 of 4
    ([0.5, 0.5, 0.5], [0, 1, 1], 0.5),
    ([0.1, 0.2, 0.9], [0, 0, 1], 1.0), ([0.9, 0.8, 0.1], [0, 0, 1], 0.0),
    ([0.2, 0.2, 0.3, 0.1, 0.3], [1, 0, 1, 0, 0], 4 / 6),      # (.5 + 1 + 0) + (1 + 1 + .5) of 6
])
def test_auroc_by_hand(scores, labels, area):
    for kind in (int, float, bool):
        assert auroc(column(*scores), column(*labels).astype(kind), ["x"])[0] == pytest.approx(area, abs=1e-12)


def test_auroc_without_positives_or_negatives_is_nan_and_said():
    scores = np.array([[0.1, 0.2, 0.3], [0.6, 0.3, 0.1]])
    labels = np.array([[0, 0, 1], [1, 0, 1]])
    with pytest.warns(UserWarning, match=r"undefined.*Hernia \(no positives\), Mass \(no negatives\)") as said:
        areas = auroc(scores, labels, ["Edema", "Hernia", "Mass"])
    assert len(said) == 1
    assert areas[0] == 1 and np.isnan(areas[1:]).all()


def test_auroc_warns_of_nothing_else():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        auroc(column(0.1, 0.2), column(0, 1), ["x"])


# --- scores and loss -----------------------------------------------------------------------------------------------

def test_ten_crops_average_probabilities_not_logits():
    logits = np.array([[[math.log(9)], [-math.log(9)], [math.log(9)]]])             # 0.9, 0.1, 0.9
    assert scores_from_logits(logits, "sigmoid")[0, 0] == pytest.approx(1.9 / 3)
    logits = np.log([[[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]])
    assert scores_from_logits(logits, "softmax")[0].tolist() == pytest.approx([0.3, 0.2, 0.5])


@pytest.mark.parametrize("crops", [1, 3, 10])
def test_log_loss_equals_the_plain_formula(crops):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (7, crops, 4))
    labels = rng.integers(0, 2, (7, 4))
    p = (1 / (1 + np.exp(-logits))).mean(axis=1)
    plain = -np.mean(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    assert log_loss(logits, labels, "sigmoid") == pytest.approx(plain, rel=1e-12)
    classes = rng.integers(0, 4, 7)
    p = (np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)).mean(axis=1)
    plain = -np.mean([np.log(p[row, label]) for row, label in enumerate(classes)])
    assert log_loss(logits, classes, "softmax") == pytest.approx(plain, rel=1e-12)


def test_log_loss_of_confident_errors_stays_finite():
    logits = np.array([[[100.0]]], "float32")
    assert log_loss(logits, column(0), "sigmoid") == pytest.approx(100)
    assert log_loss(logits, column(1), "sigmoid") == pytest.approx(0, abs=1e-30)
    assert log_loss(np.array([[[0, 1000.0]]], "float32"), np.array([0]), "softmax") == pytest.approx(1000)


# --- reports -------------------------------------------------------------------------------------------------------

EXCLUSIVE = np.log([[[.7, .2, .1]], [[.6, .3, .1]], [[.1, .8, .1]], [[.5, .4, .1]], [[.2, .7, .1]]])


def test_exclusive_classes_by_hand():
    with pytest.warns(UserWarning, match="c .no positives"):
        report = evaluate(EXCLUSIVE, np.array([0, 0, 1, 1, 0]), ["a", "b", "c"], "softmax")
    values = report.values
    #                       predicted a b c
    assert report.confusion.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert values["accuracy"] == pytest.approx(3 / 5)
    assert values["precision_a"] == pytest.approx(2 / 3) and values["recall_a"] == pytest.approx(2 / 3)
    assert values["precision_b"] == values["recall_b"] == values["F1_b"] == pytest.approx(1 / 2)
    assert values["F1_a"] == pytest.approx(2 / 3)
    # a: scores .7 .6 .2 against .1 .5: right 2 + 2 + 1 of 6; b: .8 .4 against .2 .3 .7: 3 + 2 of 6
    assert [values["AUROC_a"], values["AUROC_b"]] == pytest.approx([5 / 6] * 2)
    assert math.isnan(values["AUROC_c"]) and values["AUROC_avg"] == pytest.approx(5 / 6)
    assert values["loss"] == pytest.approx(-np.log([.7, .6, .8, .4, .2]).mean())


def test_nought_by_nought_is_nan():
    with pytest.warns(UserWarning):
        values = evaluate(EXCLUSIVE[:2], np.array([0, 1]), ["a", "b", "c"], "softmax").values
    assert math.isnan(values["precision_b"]) and values["recall_b"] == 0 and values["F1_b"] == 0
    assert math.isnan(values["precision_c"]) and math.isnan(values["recall_c"]) and math.isnan(values["F1_c"])


def test_independent_findings_by_hand():
    logits = logit([[.9, .2], [.5, .6], [.4, .7], [.1, .1]])[:, None]
    labels = np.array([[1, 0], [1, 1], [0, 0], [1, 1]])
    report = evaluate(logits, labels, ["x", "y"], "sigmoid")
    assert report.confusion is None
    assert report.values["accuracy"] == pytest.approx(5 / 8)                # wrong: x4, y3, y4
    assert report.values["precision_x"] == 1 and report.values["recall_x"] == pytest.approx(2 / 3)     # 0.5 is a yes
    assert report.values["precision_y"] == report.values["recall_y"] == pytest.approx(1 / 2)
    assert report.values["AUROC_x"] == pytest.approx(2 / 3) and report.values["AUROC_y"] == pytest.approx(1 / 4)
    assert report.values["AUROC_avg"] == pytest.approx((2 / 3 + 1 / 4) / 2)


def test_labels_of_any_number_type():
    logits = logit([[.9, .2], [.5, .6], [.4, .7], [.1, .1]])[:, None].astype("float32")
    labels = np.array([[1, 0], [1, 1], [0, 0], [1, 1]])
    reports = [evaluate(logits, labels.astype(kind), ["x", "y"], "sigmoid").values for kind in ("int64", "f4", bool)]
    assert reports[0] == reports[1] == reports[2]


def test_table():
    with pytest.warns(UserWarning):
        table = evaluate(EXCLUSIVE[:4], np.array([0, 0, 1, 1]), ["COVID", "Normal", "Lung"], "softmax").table
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if "|" in line]
    assert cells == [["Type", "Images", "Precision", "Recall", "F1_Score", "AUROC"],
                     ["COVID", "2", "0.667", "1.000", "0.800", "1.000"],
                     ["Normal", "2", "1.000", "0.500", "0.667", "1.000"],
                     ["Lung", "0", "nan", "nan", "nan", "nan"]]


def test_headline():
    values = {"loss": 0.18249, "accuracy": 0.965, "AUROC_avg": float("nan")}
    assert headline(values) == "loss 0.1825, accuracy 0.9650, mean AUROC nan"
