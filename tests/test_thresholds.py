"""The operating point beside the weights: it belongs to them, and damage is said in a sentence."""
import json
import math

import pytest

from cxr.errors import InputError
from cxr.thresholds import Operating, operating_path, read_operating, write_operating

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
