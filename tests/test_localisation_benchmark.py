"""A whole list of boxes: what is used and what is counted, baselines and thresholds without leak, figures by hand."""
import copy
import csv
import json
from argparse import Namespace
from dataclasses import FrozenInstanceError
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cxr.data import phantom
from cxr.data.boxes import ExpertBox, Geometry, clip, coverage, read_boxes, scale_box
from cxr.data.images import read_image
from cxr.data.transforms import Preprocess
from cxr.errors import InputError
from cxr.evaluation.report import Picture, printed, save_report
from cxr.localisation.benchmark import (
    ALL,
    HELD_OUT,
    Finding,
    _AverageBoxes,
    collect_findings,
    figures,
    groups,
    measure_findings,
    summarise,
    tuned,
)
from cxr.localisation.maps import MapMaker, choose_methods, pad_classes
from cxr.localisation.report import findings_to_draw, localisation_report

NAMES = phantom.CLASS_NAMES
# 136 -> 128 -> the centre 112: the boxes are scaled, moved and cut.
PREPROCESS = Preprocess(resize=128, crop=112)


class Planted:
    """A map maker that knows where the signs are: `right` maps are their boxes, `wrong` ones all the rest."""
    titles = {"right": "right", "wrong": "wrong"}
    methods = titles

    def __init__(self, folder, size, preprocess=PREPROCESS):
        self.calls, self.known = 0, {}
        for name, box in phantom.read_boxes(folder / "boxes.csv").items():
            geometry = Geometry.of(preprocess, (size, size))
            seen = clip(geometry.to_view(box), geometry.view)
            x = preprocess(read_image(folder / name))
            self.known[x.tobytes()] = coverage([seen] if seen else [], geometry.view)

    def __call__(self, x, classes):
        self.calls += 1
        right = np.stack([self.known[image.tobytes()] for image in x])[:, None].repeat(classes.shape[1], axis=1)
        return {"right": right.astype("float32"), "wrong": (1 - right).astype("float32")}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    phantom.write_folder(folder, per_class=4, size=128)
    return folder


def patients_of(names):
    return ["-".join(name.split("/")) for name in names]


def run(folder, rows, map_maker, **options):
    listed = collect_findings(rows, NAMES, folder, patients_of, {"Fluid": "Effusion"})
    return listed, measure_findings(map_maker, PREPROCESS, listed, folder, None, batch_size=3, workers=0,
                                    keep=findings_to_draw(listed.findings, ["right", "wrong"], "right"), **options)


def test_planted_boxes(phantoms):
    map_maker = Planted(phantoms, 128)
    listed, measured = run(phantoms, read_boxes(phantoms / "boxes.csv"), map_maker, tolerance=0)
    assert len(measured.findings) == 16 and map_maker.calls == 6               # 16 images, 3 at a time
    patients = [finding.patient for finding in measured.findings]
    right, wrong = (figures(measured.measures[name], patients) for name in ("right", "wrong"))
    for name in ("hit", "near", "mass", "region_iou.fixed", "region_iou.otsu", "region_iou.tuned", "box_iou.fixed",
                 "box_iou.tuned", "box_iobb.otsu", "box_iou.tuned>=0.5"):
        assert right[name] == pytest.approx(1), name
    for name in ("hit", "near", "mass", "region_iou.fixed", "region_iou.tuned", "region_iobb.otsu"):
        assert wrong[name] == pytest.approx(0), name
    whole = 112 * 112
    covered = np.array([sum(box[2] * box[3] for box in own.boxes) for own in measured.findings])
    assert figures(measured.measures["uniform map"], patients)["mass"] == pytest.approx(covered / whole)
    assert measured.clipped == sum(min(box[0], box[1]) < 8 or max(box[0] + box[2], box[1] + box[3]) > 120
                                  for (box,) in (finding.boxes for finding in listed.findings)) > 0


def test_boxes_of_another_resolution_lie_in_the_same_place(phantoms):
    rows = read_boxes(phantoms / "boxes.csv")
    large = [ExpertBox(row.image, row.label, tuple(8 * value for value in row.box)) for row in rows]
    listed = collect_findings(large, NAMES, phantoms, patients_of, {})
    measured = measure_findings(Planted(phantoms, 128), PREPROCESS, listed, phantoms, 1024, workers=0)
    assert all(own.hit == own.mass == 1 for own in measured.measures["right"])


def test_several_models_are_held_against_one_list(phantoms):
    listed = collect_findings(read_boxes(phantoms / "boxes.csv"), NAMES, phantoms, patients_of, {})
    before = copy.deepcopy(listed)
    for side in (112, 56):
        preprocess = Preprocess(resize=(side, side), crop=None)
        measured = measure_findings(Planted(phantoms, 128, preprocess), preprocess, listed, phantoms, None, workers=0)
        assert listed == before
        for finding, seen in zip(listed.findings, measured.findings):
            assert seen.boxes == tuple(scale_box(box, (128, 128), (side, side)) for box in finding.boxes)
            assert len(seen.boxes) == seen.number == 1
        assert all(figure.hit == 1 for figure in measured.measures["right"])
    with pytest.raises(FrozenInstanceError):
        listed.findings[0].boxes = ()


def test_what_cannot_be_used_is_counted(phantoms):
    rows = [ExpertBox("Nodule/Nodule-0001.png", "Nodule", (40.0, 40.0, 20.0, 20.0)),
            ExpertBox("Nodule/Nodule-0001.png", "Nodule", (0.0, 0.0, 8.0, 8.0)),           # just outside the crop
            ExpertBox("Nodule/Nodule-0001.png", "Fluid", (100.0, 60.0, 28.0, 20.0)),       # cut at 120
            ExpertBox("Nodule/Nodule-0002.png", "Cardiomegaly", (0.0, 0.0, 5.0, 5.0)),
            ExpertBox("Nodule/Nodule-0002.png", "Fracture", (1.0, 1.0, 5.0, 5.0)),
            ExpertBox("Nodule/gone.png", "Nodule", (1.0, 1.0, 5.0, 5.0))]
    listed, measured = run(phantoms, rows, Planted(phantoms, 128))
    assert listed.unknown == {"Fracture": 1} and listed.missing == {"Nodule/gone.png": 1}
    assert [(own.label, own.number, list(own.boxes)) for own in measured.findings] == [
        (0, 1, []), (1, 1, [(92, 52, 20, 20)]), (2, 2, [(32, 32, 20, 20)])]
    assert (measured.clipped, measured.outside, measured.alone) == (1, 2, 3)
    assert measured.measures["average box"][0].hit == measured.measures["right"][0].mass == 0   # nothing to be hit
    text = printed(localisation_report(measured, listed, NAMES, Planted.titles, "right", set()).section)
    for sentence in ("4 boxes of 3 findings on 2 images of 2 patients", "0 of the images are in the test list",
                     "Fracture (1)", "Nodule/gone.png", "the part inside counts: 1;", "count as missed: 2."):
        assert sentence in " ".join(text.split()), sentence


def test_the_average_box_does_not_know_the_patient_s_own():
    def finding(label, patient, box):
        return Finding("", label, patient, 1, (box,))

    findings = [finding(0, "a", (0, 0, 10, 10)), finding(0, "a", (2, 2, 10, 10)), finding(0, "b", (40, 40, 20, 20)),
                finding(1, "b", (80, 80, 8, 8))]
    averages = _AverageBoxes(findings)
    assert averages(findings[0], 0) == averages(findings[1], 0) == (40, 40, 20, 20)
    assert averages(findings[2], 0) == (1, 1, 10, 10)
    assert averages(findings[3], 1) is None and averages(findings[3], None) == (1, 1, 10, 10)
    assert averages(findings[0], None) == (60, 60, 14, 14)


def test_thresholds_are_tuned_on_other_patients():
    scores = np.array([[1, 0, .4], [0, 1, .4], [0, .1, .5]])
    assert tuned(scores, ["a", "b", "c"]).tolist() == [1, 0, 0]               # their own best: 0, 1, 2
    assert tuned(scores, ["a", "b", "b"]).tolist() == [1, 0, 0]
    assert tuned(scores, ["a", "a", "a"]).tolist() == [-1, -1, -1]            # nobody else to ask
    # Changing a patient's own scores never changes the threshold that the patient is given.
    rng = np.random.default_rng(0)
    scores, patients = rng.random((30, 19)), rng.integers(0, 9, 30)
    before = tuned(scores, patients)
    scores[patients == 4] = rng.random(((patients == 4).sum(), 19))
    assert (tuned(scores, patients)[patients == 4] == before[patients == 4]).all()


def test_means_leave_out_what_is_undefined_and_need_two_patients():
    table = {"m": {"mass": np.array([0.2, 0.4, np.nan, 0.9])}}
    result = summarise(table, np.arange(4), list("aabb"))["m"]["mass"]
    assert result[0] == pytest.approx(0.5) and result[1] == pytest.approx(0.3) and result[2] == pytest.approx(0.9)
    alone = summarise(table, np.arange(2), list("aabb"))["m"]["mass"]
    assert alone[0] == pytest.approx(0.3) and np.isnan(alone[1:]).all()


def test_files_and_pictures(phantoms, tmp_path):
    listed, measured = run(phantoms, read_boxes(phantoms / "boxes.csv"), Planted(phantoms, 128))
    held_out = {"Nodule/Nodule-0001.png", "Nodule/Nodule-0002.png"}
    members = groups(measured, NAMES, held_out)
    assert list(members) == [ALL, HELD_OUT, *NAMES] and len(members[HELD_OUT]) == 2
    result = localisation_report(measured, listed, NAMES, Planted.titles, "right", held_out)
    result.save(tmp_path)
    save_report(tmp_path, "phantoms", [result.section])
    rows = list(csv.DictReader((tmp_path / "localisation.csv").open()))
    hit, = (row for row in rows if (row["group"], row["map"], row["figure"]) == ("Nodule", "right", "hit"))
    assert (hit["mean"], hit["low"], hit["high"]) == ("1", "1", "1")
    every = list(csv.DictReader((tmp_path / "localisation_findings.csv").open()))
    assert len(every) == 16 * 5 and sum(int(row["in_test_list"]) for row in every) == 2 * 5
    values = json.loads((tmp_path / "report.json").read_text())["localisation"]
    assert values["groups"]["all"]["boxes"] == 16 and values["groups"]["all"]["maps"]["wrong"]["hit"][0] == 0
    # 16 tiles in 3 rows of 6 below a heading; the first finding of 4 classes, two methods each.
    assert read_image(tmp_path / "localisation.png").shape == (24 + 3 * 112, 6 * 112, 3)
    assert read_image(tmp_path / "localisation_methods.png").shape == (24 + 4 * 168, 2 * 168, 3)
    assert {block.name for block in result.section.blocks if isinstance(block, Picture)} == {
        "localisation", "localisation_methods"}


def test_pictures_come_in_the_order_of_classes(phantoms):
    box = (40.0, 40.0, 20.0, 20.0)
    rows = [ExpertBox(image, label, box) for image, label in (
        ("Nodule/Nodule-0001.png", "Cardiomegaly"), ("Nodule/Nodule-0001.png", "Nodule"),
        ("Nodule/Nodule-0002.png", "Effusion"))]
    _, measured = run(phantoms, rows, Planted(phantoms, 128))
    assert [measured.findings[index].label for index in measured.kept] == [0, 1, 2]


def test_methods_are_chosen_by_name(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "tools")
    from eval import Evidence
    assert len(choose_methods("all")) == 9 and choose_methods("all", "cam") == ["cam"]
    assert choose_methods("GradCAM, cam,cam") == ["gradcam", "cam"]
    flags = {"box_size": 0, "top_k": 32, "tolerance": 15, "method": "all", "boxes": None}
    with pytest.raises(InputError, match="no method 'gradkam'"):
        Evidence(None, Namespace(**{**flags, "method": "gradkam"}))
    with pytest.raises(InputError, match="cannot be negative"):
        Evidence(None, Namespace(**{**flags, "box_size": -1}))
    assert pad_classes([[1], [2, 0]]).tolist() == [[1, 1], [2, 0]]


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_the_mapper_gives_the_methods_own_maps_from_one_forward(activation):
    import paddle

    from cxr.cam import EigenCAM, GradCAM, ScoreCAM

    class Small(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.activation, self.forwards = activation, 0
            self.conv, self.relu = paddle.nn.Conv2D(3, 8, 3, stride=4), paddle.nn.ReLU()
            self.classifier = paddle.nn.Linear(8, 4)

        def features(self, x):
            self.forwards += len(x)
            return self.relu(self.conv(x))

        def logits(self, features):
            return self.classifier(features.mean([2, 3]))

        def head(self, features):
            return getattr(paddle.nn.functional, activation)(self.logits(features))

        def forward(self, x):
            return self.head(self.features(x))

    paddle.seed(0)
    model, x = Small(), np.random.default_rng(0).random((2, 3, 32, 32), "float32")
    classes = np.array([[1, 3], [0, 0]])
    map_maker = MapMaker(model, ["gradcam", "eigencam", "scorecam"], "dygraph", top_k=3)
    maps = map_maker(x, classes)
    assert model.forwards == 2 + 2 * 3                                        # one each, and three masks for ScoreCAM
    assert map_maker.titles["scorecam"] == "scorecam (3 channels)"
    for name, method in (("gradcam", GradCAM), ("eigencam", EigenCAM), ("scorecam", partial(ScoreCAM, top_k=3))):
        assert maps[name] == pytest.approx(method(model, model.relu)(x, classes), abs=1e-5)
    other = map_maker(x[::-1].copy(), classes[::-1])                             # not those of the batch before
    assert other["gradcam"] == pytest.approx(maps["gradcam"][::-1], abs=1e-5)
