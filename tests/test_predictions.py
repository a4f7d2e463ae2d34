"""Predictions as files: written, read from any system, and matched to a list by name."""
import csv

import numpy as np
import pytest

from cxr.data.lists import LabelList
from cxr.errors import InputError
from cxr.evaluation.predictions import Predictions, match, match_all, read_predictions, write_predictions
from cxr.metrics.classification import scores_from_logits

EXCLUSIVE = np.log([[[.7, .2, .1]], [[.6, .3, .1]], [[.1, .8, .1]], [[.5, .4, .1]], [[.2, .7, .1]]])


def logit(p):
    p = np.asarray(p, "float64")
    return np.log(p) - np.log1p(-p)


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_predictions_of_exclusive_classes(tmp_path):
    write_predictions(tmp_path / "p.csv", ["ä, b.png", "c.png"], EXCLUSIVE[1:3], np.array([1, 1]), ["a", "b", "c"],
                      "softmax")
    header, first, second = rows_of(tmp_path / "p.csv")
    assert header == ["image", "label", "predicted", "prob_a", "prob_b", "prob_c"]
    assert first[:3] == ["ä, b.png", "b", "a"] and second[:3] == ["c.png", "b", "b"]
    assert [float(cell) for cell in first[3:]] == pytest.approx([.6, .3, .1], abs=1e-6)


def test_predictions_of_independent_findings(tmp_path):
    write_predictions(tmp_path / "p.csv", ["a.png"], logit([[[.9, .2], [.7, .4]]]), np.array([[1.0, 0.0]]), ["x", "y"],
                      "sigmoid")
    header, row = rows_of(tmp_path / "p.csv")
    assert header == ["image", "label_x", "label_y", "prob_x", "prob_y"]
    assert row[:3] == ["a.png", "1", "0"] and [float(cell) for cell in row[3:]] == pytest.approx([.8, .3])


# --- reading -------------------------------------------------------------------------------------------------------

def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_what_was_written_is_read_with_its_ranks(tmp_path):
    logits = np.array([[[20.0, -3]], [[20.0001, 3]], [[-20, 0]]], "float32")
    write_predictions(tmp_path / "p.csv", ["a", "b", "c"], logits, np.zeros((3, 2)), ["x", "y"], "sigmoid")
    back = read_predictions(tmp_path / "p.csv", ["x", "y"], "sigmoid")
    scores = scores_from_logits(logits, "sigmoid")
    assert back.names == ["a", "b", "c"] and back.scores == pytest.approx(scores, rel=1e-8)
    assert scores.dtype == "float32" and (back.scores.astype("float32") == scores).all()


@pytest.mark.parametrize("text", [
    "image,prob_x,prob_y\na.png,0.1,0.9\n",
    "file,y,x\na.png,0.9,0.1\n",                               # other order, bare names, first column
    "id,x,y,image\n7,0.1,0.9,a.png\n",                         # the column `image` wherever it is
    "\ufeffimage,x,prob_x,y,note\n\na.png,7,0.1,0.9,hello\n\n",  # a byte-order mark, empty lines, more columns
])
def test_forms_of_other_systems(tmp_path, text):
    found = read_predictions(written(tmp_path / "p.csv", text), ["x", "y"], "sigmoid")
    assert found.names == ["a.png"] and found.scores.tolist() == [[0.1, 0.9]] and found.duplicates == []


@pytest.mark.parametrize("text, told", [
    ("", "no column prob_<class> or <class> for x, y; its columns are none"),
    ("image,x\na.png,1\n", "no column prob_<class> or <class> for y; its columns are image, x"),
    ("image,x,y,x\na.png,1,1,1\n", "2 columns x: keep one"),
    ("image,x,y\n", "a header and no images"),
    ("image,x,y\na.png,0.1\n", "line 2 has only 2 of 3 cells"),
    ("image,x,y\na.png,0.1,\n", "line 2 .a.png.: could not convert string to float"),
    ("image,x,y\na.png,0.1,0.2\n\nb.png,nan,0.2\n", "line 4 .b.png.: x has the value nan"),
    ("image,x,y\na.png,0.1,0.2\nb.png,0.1,1.5\nc.png,-1,0\n", "line 3 .b.png.: y has the value 1.5.*2 such cells"),
    ("image,x,y\na.png,0.1,0.2\na.png,0.1,0.3\n", "different predictions for one image once .a.png."),
])
def test_bad_files_get_a_sentence(tmp_path, text, told):
    with pytest.raises(InputError, match=f"p.csv.*{told}"):
        read_predictions(written(tmp_path / "p.csv", text), ["x", "y"], "sigmoid")


def test_exclusive_probabilities_sum_to_one(tmp_path):
    path = written(tmp_path / "p.csv", "image,x,y\na,0.3,0.7\nb,0.3,0.6\n")
    assert len(read_predictions(path, ["x", "y"], "sigmoid").names) == 2
    with pytest.raises(InputError, match="line 3 .b.: the probabilities of exclusive classes sum to 0.900"):
        read_predictions(path, ["x", "y"], "softmax")


def test_missing_files(tmp_path):
    with pytest.raises(InputError, match="no.csv does not exist"):
        read_predictions(tmp_path / "no.csv", ["x"], "sigmoid")
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="no readable table"):
        read_predictions(tmp_path / "p.csv", ["x"], "sigmoid")


# --- matching ------------------------------------------------------------------------------------------------------

LISTED = LabelList(["a", "b", "c", "d"], [1, 2, 3, 4], np.arange(4))


def test_images_are_matched_by_name_and_the_rest_is_named(tmp_path):
    text = "image,x\nd,0.4\nz,0.9\nb,0.2\nd,0.4\na,0.1\n"
    matched = match("p.csv", read_predictions(written(tmp_path / "p.csv", text), ["x"], "sigmoid"), LISTED)
    assert matched.rows.tolist() == [0, 1, 3] and matched.scores[:, 0].tolist() == [0.1, 0.2, 0.4]
    missing, extra, duplicates = matched.remarks("p.csv")
    assert missing.startswith("p.csv: images of the list without a prediction, ") and missing.endswith(": 1 (c).")
    assert extra == "p.csv: images that are not in the list, ignored: 1 (z)."
    assert duplicates == "p.csv: rows that repeat an image with the same numbers, ignored: 1 (d)."


def test_long_lists_of_names_are_cut():
    predictions = Predictions(["a", *(f"x{n}" for n in range(9))], np.zeros((10, 1)), [])
    assert match("p", predictions, LISTED).remarks("p")[1].endswith("ignored: 9 (x0, x1, x2, x3, x4 and 4 more).")


def test_none_of_the_images(tmp_path):
    with pytest.raises(InputError, match="p.csv has predictions for none of the images in the list: it names z"):
        match("p.csv", Predictions(["z"], np.zeros((1, 1)), []), LISTED)


def test_two_systems_are_compared_on_what_both_predict():
    first = Predictions(["d", "b", "a"], np.array([[.4], [.2], [.1]]), [])
    second = Predictions(["b", "c", "d"], np.array([[.6], [.7], [.8]]), [])
    rows, (a, b), remarks = match_all(["p", "q"], [first, second], LISTED)
    assert rows.tolist() == [1, 3] and a[:, 0].tolist() == [.2, .4] and b[:, 0].tolist() == [.6, .8]
    assert [(remark[0], remark[-6:]) for remark in remarks] == [("p", "1 (c)."), ("q", "1 (a).")]
    with pytest.raises(InputError, match="no image of the list in common"):
        match_all(["p", "q"], [Predictions(["a"], np.zeros((1, 1)), []), Predictions(["b"], np.zeros((1, 1)), [])],
                   LISTED)
