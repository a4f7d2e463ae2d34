"""The operating point beside the weights: it belongs to them, and damage is said in a sentence."""
import json
import math

import numpy as np
import pytest

from cxr.errors import InputError
from cxr.metrics.rates import decisions
from cxr.metrics.thresholds import (
    Operating,
    choose_threshold,
    fit_operating,
    operating_path,
    operating_table,
    parse_rule,
    read_operating,
    write_operating,
)

POINT = Operating({"Mass": 0.25, "Hernia": math.nan}, {"Mass": 0.05, "Hernia": 0.0}, "youden", "val_list.txt", 1.5)


@pytest.fixture
def ckpt(tmp_path):
    path = tmp_path / "best.pdparams"
    path.write_bytes(b"weights")
    return path


def test_an_operating_point_comes_back(ckpt):
    assert read_operating(ckpt) is None
    assert write_operating(ckpt, POINT) == operating_path(ckpt) == ckpt.with_name("best.thresholds.json")
    back = read_operating(ckpt)
    assert back.thresholds["Mass"] == 0.25 and math.isnan(back.thresholds["Hernia"])
    assert (back.prevalence, back.rule, back.fitted_on, back.temperature) == (
        POINT.prevalence, "youden", "val_list.txt", 1.5)


def test_it_belongs_to_its_weights(ckpt):
    write_operating(ckpt, POINT)
    ckpt.write_bytes(b"other weights")
    with pytest.raises(InputError, match="best.thresholds.json was fitted to other weights than .*best.pdparams"):
        read_operating(ckpt)


@pytest.mark.parametrize("change, told", [
    ({"thresholds": {"Mass": 1.5, "Hernia": None}}, "numbers that cannot be"),
    ({"thresholds": {"Nodule": 0.5}}, "numbers that cannot be"),
    ({"thresholds": {"Mass": "high"}}, "does not hold what it should"),
    ({"thresholds": [0.5]}, "does not hold what it should"),
    ({"temperature": 0}, "numbers that cannot be"),
    ({"rule": ...}, "KeyError: 'rule'"),
    (None, "does not hold what it should"),
])
def test_damage_is_said(ckpt, change, told):
    path = write_operating(ckpt, POINT)
    stored = json.loads(path.read_text())
    stored = {key: value for key, value in {**stored, **change}.items() if value is not ...} if change else []
    path.write_text(json.dumps(stored))
    with pytest.raises(InputError, match=told):
        read_operating(ckpt)
    path.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_operating(ckpt)


# --- fitting -------------------------------------------------------------------------------------------------------

SCORES = np.array([.9, .8, .7, .6, .5, .4, .3, .2])
POSITIVE = np.array([1, 0, 1, 1, 0, 0, 1, 0], bool)


def test_youden_by_hand():
    # Sensitivity - false alarms at .9 ... .2: 1/4, 0, 1/4, 2/4, 1/4, 0, 1/4, 0
    assert choose_threshold(SCORES, POSITIVE) == .6


def test_of_equally_good_thresholds_the_highest():
    assert choose_threshold(np.array([.9, .5, .4, .1]), np.array([1, 0, 1, 0])) == .9


@pytest.mark.parametrize("sensitivity, threshold", [(.25, .9), (.26, .7), (.75, .6), (.76, .3), (1, .3)])
def test_fixed_sensitivity_is_the_highest_threshold_that_reaches_it(sensitivity, threshold):
    assert choose_threshold(SCORES, POSITIVE, sensitivity) == threshold


def test_useless_scores_still_give_a_finite_threshold_and_one_kind_of_image_none():
    assert choose_threshold(np.array([.1, .9]), np.array([1, 0])) in (.1, .9)
    assert math.isnan(choose_threshold(SCORES, np.zeros(8, bool))) and math.isnan(
        choose_threshold(SCORES, np.ones(8, bool)))


def test_rules():
    assert parse_rule("youden") is None and parse_rule("sensitivity=0.90") == 0.9
    for text in ("sensitivity", "sensitivity=0", "sensitivity=1.1", "sensitivity=nan", "best", "0.9"):
        with pytest.raises(InputError, match="write youden, or sensitivity=0.90"):
            parse_rule(text)


def test_fit_of_findings_and_of_exclusive_classes():
    scores = np.column_stack([SCORES, SCORES, SCORES])
    labels = np.column_stack([POSITIVE, ~POSITIVE, np.zeros(8)])
    with pytest.warns(UserWarning, match="no temperature fits"):        # the same scores for a finding and its opposite
        fitted = fit_operating(scores, labels, ["a", "b", "c"], "sigmoid", "sensitivity=0.75", "val.txt")
    assert fitted.thresholds["a"] == .6 and math.isnan(fitted.thresholds["c"])
    assert fitted.prevalence == {"a": .5, "b": .5, "c": 0} and fitted.rule == "sensitivity 0.75"
    table = operating_table(fitted, scores, labels, ["a", "b", "c"], "sigmoid")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if "|" in line]
    assert cells[1] == ["a", "4", "0.5000", "0.6000", "0.7500", "0.7500"] and cells[3][3:] == ["nan"] * 3
    exclusive = np.array([[.8, .2], [.6, .4], [.3, .7], [.55, .45]])
    fitted = fit_operating(exclusive, np.array([0, 1, 1, 0]), ["a", "b"], "softmax", "youden", "val.txt")
    assert fitted.thresholds == {} and fitted.prevalence == {"a": .5, "b": .5} and fitted.temperature > 0
    assert "Threshold" not in operating_table(fitted, exclusive, np.array([0, 1, 1, 0]), ["a", "b"], "softmax")


def test_one_rule_says_what_is_called():
    """A score at its threshold is called, none without one; of exclusive classes the highest, the first of equals."""
    scores = np.array([[0.5, 0.4999, 0.9], [0.1, 0.8, 0.8]])
    assert decisions(scores, "sigmoid", [0.5, 0.5, np.nan]).tolist() == [[True, False, False], [False, True, False]]
    assert decisions(scores, "softmax", np.nan).tolist() == [[False, False, True], [False, True, False]]
    assert decisions(scores[:0], "softmax", 0.5).shape == (0, 3)
