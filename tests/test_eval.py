"""`tools/eval.py` on stored predictions: the whole report, without Paddle."""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from chexnet.labels import CLASS_NAMES
from chexnet.recipe import CheXNetRecipe
from cxr.evaluation.run import Bootstrap, judge_predictions, read_stored
from cxr.metrics.thresholds import Operating, write_operating

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def call(tmp_path):
    """`call(*arguments, status=0)`: run eval.py where importing Paddle ends the process; (stdout, stderr)."""
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap" / "paddle.py").write_text("raise SystemExit('Paddle was imported')")

    def run(*arguments, status=0):
        done = subprocess.run([sys.executable, str(ROOT / "tools" / "eval.py"), *map(str, arguments)], text=True,
                              capture_output=True, env={**os.environ, "PYTHONPATH": str(tmp_path / "trap")})
        assert done.returncode == status and "Traceback" not in done.stderr, done.stdout + done.stderr
        return done.stdout, done.stderr
    return run


def write_table(path, names, scores, title="prob_{}", classes=CLASS_NAMES, first="image"):
    lines = [",".join([first, *(title.format(name) for name in classes)])]
    lines += [",".join([name, *(f"{score:.6f}" for score in row)]) for name, row in zip(names, scores)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def chest(tmp_path):
    """A list of 80 images of 20 patients, and scores that know something of it."""
    rng = np.random.default_rng(0)
    names = [f"{index // 4 + 1:08d}_{index % 4:03d}.png" for index in range(80)]
    labels = rng.random((80, 14)) < 0.3
    (tmp_path / "list.txt").write_text("".join(f"{name} {' '.join(map(str, row.astype(int)))}\n"
                                               for name, row in zip(names, labels)))
    return names, labels, np.clip(rng.normal(0.3, 0.1, (80, 14)) + 0.15 * labels, 0.01, 0.99).round(2)


def test_report_of_stored_predictions(call, chest, tmp_path):
    names, labels, scores = chest
    order = np.random.default_rng(1).permutation(80)
    path = write_table(tmp_path / "theirs.csv", [names[i] for i in order], scores[order], "{}", first="file")
    out, _ = call("chexnet", "--predictions", path, "--labels", tmp_path / "list.txt", "--save_dir", tmp_path / "out")
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    for k, name in enumerate(CLASS_NAMES):
        area = roc_auc_score(labels[:, k], scores[:, k])
        assert stored["ranking"][name]["AUROC"]["value"] == pytest.approx(area, abs=1e-12)
        assert f"{area:.3f} (" in out
    assert stored["data"]["Images"] == 80 and stored["data"]["Patients"] == 20
    assert "not comparable with Paddle-CheXNet (22,433 images) and CheXNet paper" in stored["data"]["Remarks"][0]
    assert {item.name for item in (tmp_path / "out").iterdir()} == {
        "report.html", "report.md", "report.json", "auroc.png", "roc.png", "precision_recall.png", "reliability.png"}
    assert (tmp_path / "out" / "report.html").read_text().count("data:image/png;base64,") == 4


def test_missing_extra_and_duplicate_images_are_counted_and_named(call, chest, tmp_path):
    names, _, scores = chest
    path = write_table(tmp_path / "p.csv", [*names[3:], "other.png", names[5]], [*scores[3:], scores[0], scores[5]])
    out, _ = call("chexnet", "--predictions", path, "--labels", tmp_path / "list.txt")
    assert "on 77 images" in out
    for text in (out, (tmp_path / "report" / "report.md").read_text()):
        assert f": 3 ({', '.join(names[:3])})." in text and ": 1 (other.png)." in text and f": 1 ({names[5]})." in text


def test_thresholds_of_a_checkpoint_judge_stored_predictions(call, chest, tmp_path):
    names, labels, scores = chest
    ckpt = tmp_path / "best.pdparams"
    ckpt.write_bytes(b"weights")
    write_operating(ckpt, Operating(dict.fromkeys(CLASS_NAMES, 0.35), dict.fromkeys(CLASS_NAMES, 0.3), "youden", "val",
                                    0.5))
    path = write_table(tmp_path / "p.csv", names, scores)
    out, _ = call("chexnet", "--predictions", path, "--labels", tmp_path / "list.txt", "--ckpt", ckpt)
    stored = json.loads((tmp_path / "report" / "report.json").read_text())
    assert stored["decisions"]["stored thresholds"]["Mass"]["TP"] == (labels[:, 4] & (scores[:, 4] >= 0.35)).sum()
    assert "by the stored thresholds" in out and "temperature 0.500" in stored["calibration"]
    ckpt.write_bytes(b"other")
    _, error = call("chexnet", "--predictions", path, "--labels", tmp_path / "list.txt", "--ckpt", ckpt, status=2)
    assert "was fitted to other weights" in error and error.count("\n") == 1


def test_stored_predictions_are_judged_without_flags(chest, tmp_path):
    names, labels, scores = chest
    path = write_table(tmp_path / "p.csv", names[::-1], scores[::-1])
    patients = [name.split("_")[0] for name in names]
    stored = read_stored(CheXNetRecipe(), [path], tmp_path / "list.txt", None, lambda asked: patients)
    assert stored.names == names and stored.remarks == [] and np.allclose(stored.cases[0].scores, scores)
    judgement = judge_predictions(CheXNetRecipe(), stored, None, Bootstrap(resamples=40, seed=1))
    assert judgement.title == "chexnet: p.csv on list.txt" and f"{path} on 80 images: loss" in judgement.text
    assert [section.name for section in judgement.sections] == ["data", "ranking", "decisions", "calibration"]
    assert "40 resamples of the 20 patients (seed 1)" in judgement.sections[1].blocks[0]


def test_two_systems_are_compared(call, chest, tmp_path):
    names, labels, scores = chest
    good = write_table(tmp_path / "good.csv", names, 0.5 * scores + 0.4 * labels)
    weak = write_table(tmp_path / "weak.csv", names[1:], scores[1:])
    out, _ = call("chexnet", "--compare", good, weak, "--labels", tmp_path / "list.txt", "--save_dir", tmp_path / "out")
    stored = json.loads((tmp_path / "out" / "report.json").read_text())["difference_AUROC"]["Mean"]
    assert stored["good"] == 1 and stored["difference"]["low"] > 0 and stored["p"] == pytest.approx(2 / 1001)
    assert "good minus weak on 79 images" in out and "weak.csv: images of the list without a prediction" in out


def test_exclusive_classes_and_their_patients(call, tmp_path):
    names = [f"A/{index}.png" for index in range(30)]
    (tmp_path / "list.txt").write_text("".join(f"{name} {index % 2}\n" for index, name in enumerate(names)))
    (tmp_path / "patients.csv").write_text("file,patient\n" + "".join(f"{n},p{i // 3}\n" for i, n in enumerate(names)))
    share = np.random.default_rng(0).random(30)
    path = write_table(tmp_path / "p.csv", names, np.column_stack([share, 1 - share]), "{}", ["sick", "well"])
    call("covid_resnet", "--predictions", path, "--labels", tmp_path / "list.txt", "--class_names", "sick,well",
         "--patients", tmp_path / "patients.csv")
    stored = json.loads((tmp_path / "report" / "report.json").read_text())
    assert stored["data"]["Patients"] == 10 and np.sum(stored["decisions"]["confusion"]) == 30
    assert "Other classes, so not comparable with COVID notebook" in stored["data"]["Remarks"][0]


def test_saturated_probabilities_keep_their_ranks(call, tmp_path):
    tiny = [1e-13, 1e-20, 1e-15, 1e-30, 1e-14, 0.0]
    names = [f"A/{index}.png" for index in range(6)]
    (tmp_path / "list.txt").write_text("".join(f"{name} {label}\n" for name, label in zip(names, (0, 1, 1, 1, 0, 0))))
    (tmp_path / "p.csv").write_text("image,sick,well\n" + "".join(f"{n},{p},{1 - p}\n" for n, p in zip(names, tiny)))
    call("covid_resnet", "--predictions", tmp_path / "p.csv", "--labels", tmp_path / "list.txt", "--class_names",
         "sick,well")
    stored = json.loads((tmp_path / "report" / "report.json").read_text())
    assert stored["ranking"]["sick"]["AUROC"]["value"] == pytest.approx(6 / 9)


def test_published_columns_stand_beside_a_set_of_that_size(call, tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 2119)
    names = [f"COVID/{index}.png" for index in range(2119)]
    (tmp_path / "list.txt").write_text("".join(f"{name} {label}\n" for name, label in zip(names, labels)))
    scores = 0.6 * np.eye(4)[labels] + 0.1
    path = write_table(tmp_path / "p.csv", names, scores, classes=("COVID", "LungOpacity", "Normal", "ViralPneumonia"))
    call("covid_resnet", "--predictions", path, "--labels", tmp_path / "list.txt", "--resamples", 50)
    text = (tmp_path / "report" / "report.md").read_text()
    assert "accuracy 1.000 (1.000 to 1.000); COVID notebook 0.965" in text and "| COVID notebook |" in text
    assert "An interval without width" in text and "Every image counts as a patient of its own" in text


@pytest.mark.parametrize("arguments, told", [
    (["--predictions", "p.csv"], "name the list with --labels"),
    (["--compare", "p.csv", "p.csv", "--labels", "list.txt"], "--compare names p.csv twice"),
    (["--predictions", "no.csv", "--labels", "list.txt"], "no.csv does not exist"),
    (["--predictions", "p.csv", "--labels", "no.txt"], "no.txt does not exist"),
    (["--predictions", "short.csv", "--labels", "list.txt"], "has no column prob_<class> or <class> for Hernia"),
    (["--predictions", "nan.csv", "--labels", "list.txt"], "line 3 (00000001_001.png): Atelectasis has the value nan"),
])
def test_bad_input_gets_a_sentence(call, chest, tmp_path, monkeypatch, arguments, told):
    names, _, scores = chest
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "p.csv", names, scores)
    write_table(tmp_path / "short.csv", names, scores[:, :13], classes=CLASS_NAMES[:13])
    scores[1, 0] = np.nan
    write_table(tmp_path / "nan.csv", names, scores)
    _, error = call("chexnet", *arguments, status=2)
    assert told in error and error.count("\n") == 1
