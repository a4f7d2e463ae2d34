"""The commands as a user calls them: exit status, what is printed, what lies in the folder afterwards."""
import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cxr.data import phantom
from cxr.data.images import read_image
from cxr.metrics.thresholds import read_operating
from cxr.training.resume import read as read_checkpoint
from cxr.utils.files import sha256

ROOT = Path(__file__).resolve().parent.parent


def call(*arguments, status=0, cwd=None):
    """Run `tools/...` and return (stdout, stderr); fails unless it ends with `status` and without a traceback."""
    command, *rest = map(str, arguments)
    done = subprocess.run([sys.executable, str(ROOT / "tools" / command), *rest], capture_output=True, text=True,
                          cwd=cwd, timeout=500, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("command", ["train.py", "eval.py", "cam.py", "demo.py", "serve.py"])
def test_help_teaches_and_does_without_paddle(command, tmp_path):
    (tmp_path / "paddle.py").write_text("raise SystemExit('Paddle was imported')")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    pages = [["--help"]]
    if command not in ("demo.py", "serve.py"):
        pages += [[name, "--help"] for name in ("chexnet", "covid_resnet", "pneumonia")]
    for page in pages:
        done = subprocess.run([sys.executable, str(ROOT / "tools" / command), *page], capture_output=True, text=True,
                              env=environ)
        assert done.returncode == 0 and "examples:" in done.stdout and f"python tools/{command}" in done.stdout


def test_cam_of_chexnet_scores_as_the_reference(seeded_checkpoint, reference_dir, data_dir, tmp_path):
    reference = np.load(reference_dir / "chexnet_seed1.npz")
    image = data_dir / "published_cams" / "00000001_000.png"
    out, _ = call("cam.py", "chexnet", image, "--ckpt", seeded_checkpoint, "--save_dir", tmp_path)
    row, = csv.DictReader((tmp_path / "scores.csv").open())
    assert row.pop("image") == "00000001_000.png"
    assert np.abs(np.array([float(score) for score in row.values()]) - reference["00000001_000.scores"]).max() < 1e-4
    assert f"{100 * reference['00000001_000.scores'][1]:.2f} %" in out
    assert read_image(tmp_path / "00000001_000.png").shape == (672, 1120, 3)


class Hostile:
    """What `paddle.load` would run."""

    def __reduce__(self):
        return os.system, ("touch hacked",)


def test_cam_refuses_bad_input_with_a_sentence(seeded_checkpoint, tmp_path):
    (tmp_path / "x.png").write_text("no image")
    (tmp_path / "none").mkdir()
    (tmp_path / "bad.pdparams").write_bytes(pickle.dumps({"fc.weight": Hostile()}))
    _, error = call("cam.py", "chexnet", "x.png", "--ckpt", seeded_checkpoint, status=2, cwd=tmp_path)
    assert "x.png holds text, not an image" in error and "1 of 1 images could not be done" in error
    _, error = call("cam.py", "chexnet", "none", "--ckpt", seeded_checkpoint, status=2, cwd=tmp_path)
    assert error.strip().count("\n") == 0 and "none holds no images" in error
    _, error = call("cam.py", "chexnet", "x.png", "--ckpt", "bad.pdparams", status=2, cwd=tmp_path)
    assert "bad.pdparams is refused" in error and "system" in error and not (tmp_path / "hacked").exists()
    _, error = call("cam.py", "covid_resnet", "x.png", "--ckpt", seeded_checkpoint, status=2, cwd=tmp_path)
    assert "keys are missing (conv.0.weight" in error and "are unexpected (densenet121." in error
    if not (ROOT / "pretrained_models" / "model_paddle.pdparams").exists():
        _, error = call("cam.py", "chexnet", "x.png", status=2, cwd=tmp_path)
        assert "157762232cedb82c18ed4a1347b94a87fc323b5a" in error and "--ckpt" in error


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    phantom.write_folder(folder, per_class=10, size=128)
    return folder


@pytest.fixture(scope="module")
def trained(phantoms, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    out, error = call("train.py", "covid_resnet", "--data_dir", phantoms, "--layers", 18, "--epoch", 2,
                      "--batch_size", 10, "--save_dir", folder, "--max_steps", 4)
    return folder, out, error


def test_train_prints_progress_tables_and_where_things_are(trained):
    folder, out, error = trained
    assert "by patient" in out and "Epoch 1/2: train loss" in out and "| Pneumothorax" in out
    assert "epoch 1/2:" in error and "\r" not in error                        # a log file gets lines, not a bar
    assert {path.name for path in folder.iterdir()} == {
        ".lock", "best.pdparams", "last.pdparams", "resume.ckpt", "history.csv", "curves.png", "train.txt", "val.txt",
        "test.txt"}


def test_augment_changes_what_is_trained_on(trained, phantoms, tmp_path):
    """The first loss is that of the same untrained weights: it differs if the images do, and not otherwise."""
    def first_loss(folder):
        return read_checkpoint(folder).facts["history"]["losses"][0]
    for flag in ("--augment", "--no_augment"):
        call("train.py", "covid_resnet", "--data_dir", phantoms, "--layers", 18, "--epoch", 2, "--batch_size", 10,
             "--save_dir", tmp_path / flag, "--max_steps", 1, flag)
    published, none, some = (first_loss(folder) for folder in (trained[0], tmp_path / "--no_augment",
                                                               tmp_path / "--augment"))
    assert published == none != some


def test_train_goes_on_only_as_it_was_begun(trained, phantoms):
    folder, _, _ = trained
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    again = ["train.py", "covid_resnet", "--data_dir", phantoms, "--layers", 18, "--epoch", 2, "--batch_size", 10,
             "--save_dir", folder]
    _, error = call(*again, status=2)
    assert "holds a run already" in error and "--resume" in error and "--overwrite" in error
    _, error = call(*again, "--resume", "--learning_rate", 0.1, status=2)
    assert "was begun with --learning_rate 0.01, not --learning_rate 0.1" in error
    _, error = call(*again, "--resume", "--overwrite", status=2)
    assert "contradict each other" in error
    out, _ = call(*again, "--resume", "--max_steps", 4, "--num_workers", 0)
    assert "is complete: it has made 4 steps" in out
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_eval_and_cam_need_no_flags_that_train_was_given(trained, phantoms, tmp_path):
    folder, _, _ = trained
    out, _ = call("eval.py", "covid_resnet", "--data_dir", phantoms, "--ckpt", folder / "best.pdparams")
    assert "| Cardiomegaly" in out and "F1_Score" in out and "accuracy" in out
    assert {"report.html", "report.md", "report.json", "confusion.png"} <= {p.name for p in (folder / "eval").iterdir()}
    assert sha256(folder / "best.pdparams") in (folder / "eval" / "report.md").read_text()
    rows = list(csv.DictReader((folder / "eval" / "predictions.csv").open()))
    assert len(rows) == len((folder / "test.txt").read_text().splitlines())
    probabilities = np.array([[float(row[f"prob_{name}"]) for name in phantom.CLASS_NAMES] for row in rows])
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert [row["predicted"] for row in rows] == [phantom.CLASS_NAMES[k] for k in probabilities.argmax(axis=1)]
    out, _ = call("cam.py", "covid_resnet", phantoms / "Nodule", "--ckpt", folder / "best.pdparams", "--layer",
                  "block.7", "--save_dir", tmp_path)
    assert "10 pictures and scores.csv" in out and len(list(tmp_path.glob("*.png"))) == 10
    assert read_image(tmp_path / "Nodule-0001.png").shape == (224, 448, 3)


def test_unknown_layer_names_close_ones(trained, phantoms):
    _, error = call("cam.py", "covid_resnet", phantoms / "Nodule", "--ckpt", trained[0] / "best.pdparams", "--layer",
                    "block.77", status=2)
    assert "close names: block.7" in error


def test_layers_are_listed_with_their_shapes(tmp_path):
    out, _ = call("cam.py", "covid_resnet", "--list_layers", "--layers", 18)
    assert any(line.split() == ["block.7", "BasicBlock", "[1,", "512,", "7,", "7]"] for line in out.splitlines())


def test_chexnet_trains_and_evaluates_on_published_lists(data_dir, tmp_path):
    nih = data_dir / "nih14"
    for name, lines in (("train", 6), ("val", 4)):
        text = (nih / f"{name}_list.txt").read_text().splitlines()[:lines]
        (tmp_path / f"{name}_list.txt").write_text("\n".join(text) + "\n")
    call("train.py", "chexnet", "--data_dir", nih / "images", "--train_list", tmp_path / "train_list.txt", "--val_list",
         tmp_path / "val_list.txt", "--batch_size", 3, "--epoch", 1, "--save_dir", tmp_path / "run")
    out, _ = call("eval.py", "chexnet", "--data_dir", nih / "images", "--test_list", tmp_path / "val_list.txt",
                  "--ckpt", tmp_path / "run" / "best.pdparams", "--ten_crop")
    assert "4 images, ten crops" in out and "| Cardiomegaly       |      3 |" in out
    out, _ = call("eval.py", "chexnet", "--data_dir", nih / "images", "--val_list", tmp_path / "val_list.txt", "--ckpt",
                  tmp_path / "run" / "best.pdparams", "--fit", "sensitivity=0.9")
    assert "by the rule sensitivity 0.90" in out and "best.thresholds.json" in out
    assert read_operating(tmp_path / "run" / "best.pdparams").prevalence["Cardiomegaly"] == 0.75
    header, first, *_ = csv.reader((tmp_path / "run" / "eval" / "predictions.csv").open())
    assert header[:3] == ["image", "label_Atelectasis", "label_Cardiomegaly"] and first[0] == "00000001_000.png"


def test_bad_lists_are_named(tmp_path, phantoms):
    (tmp_path / "list.txt").write_text("a.png 1 0\n")
    _, error = call("train.py", "chexnet", "--data_dir", tmp_path, "--train_list", tmp_path / "list.txt", "--val_list",
                    tmp_path / "list.txt", "--save_dir", tmp_path / "run", status=2)
    assert "list.txt, line 1: 2 labels where 14 are needed" in error
    _, error = call("train.py", "covid_resnet", "--data_dir", tmp_path / "nowhere", status=2)
    assert "nowhere is no folder" in error
    _, error = call("eval.py", "covid_resnet", "--data_dir", phantoms, "--ckpt", tmp_path / "no.pdparams", status=2)
    assert "no.pdparams does not exist" in error
    assert not (tmp_path / "run").exists()


def test_a_place_that_cannot_be_written_is_refused_before_the_work(phantoms, tmp_path):
    (tmp_path / "file").write_text("no folder")
    _, error = call("train.py", "covid_resnet", "--data_dir", phantoms, "--layers", 18, "--save_dir", tmp_path / "file",
                    status=2)
    assert "file cannot be written to" in error and "another --save_dir" in error and "epoch 1" not in error
    _, error = call("cam.py", "covid_resnet", phantoms, "--save_dir", tmp_path / "file", status=2)
    assert "file cannot be written to" in error and "another --save_dir" in error


def test_listed_layers_are_those_of_the_checkpoint(trained):
    out, _ = call("cam.py", "covid_resnet", "--list_layers", "--ckpt", trained[0] / "best.pdparams")
    assert any(line.startswith("block.7 ") for line in out.splitlines()) and "block.8 " not in out


def test_a_closed_pipe_is_no_error(tmp_path):
    command = f"{sys.executable} {ROOT / 'tools' / 'cam.py'} covid_resnet --list_layers | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""


def test_patients_of_other_names_are_refused(phantoms, tmp_path):
    (tmp_path / "sources.csv").write_text("file,patient\nx.png,1\n")
    _, error = call("train.py", "covid_resnet", "--data_dir", phantoms, "--patients", tmp_path / "sources.csv",
                    "--save_dir", tmp_path / "run", status=2)
    assert "knows the patient of none of the images" in error


def test_guided_and_faithfulness(trained, phantoms, tmp_path):
    out, error = call("cam.py", "covid_resnet", phantoms / "Nodule" / "Nodule-0001.png", "--ckpt",
                      trained[0] / "best.pdparams", "--guided", "--faithfulness", "--save_dir", tmp_path)
    assert read_image(tmp_path / "Nodule-0001.guided.png").shape == (224, 448, 3)
    assert all(name in out for name in ("deletion", "insertion", "average_drop", "road", "Random map", "to conv.0"))


def test_cam_for_other_systems(trained, phantoms, tmp_path):
    pytest.importorskip("pydicom", reason="needs the extra dicom")
    checkpoint = trained[0] / "best.pdparams"
    image = phantoms / "Nodule" / "Nodule-0001.png"
    (tmp_path / "older.png").touch()
    out, _ = call("cam.py", "covid_resnet", image, "--ckpt", checkpoint, "--json", "--npz", "--dicom", "--scale",
                  "shared", "--classes", "all", "--save_dir", tmp_path)
    assert "1 picture and scores.csv are in" in out and "1 older picture lies there too" in out
    told = json.loads((tmp_path / "Nodule-0001.json").read_text())
    assert told["image"]["sha256"] == sha256(image) and told["model"]["checkpoint_sha256"] == sha256(checkpoint)
    assert told["model"]["checkpoint"] == "best.pdparams" and told["method"]["layer"] == "block.7"
    assert told["method"]["name"] == "gradcam" and told["method"]["scale"] == "shared"
    assert [finding["called"] for finding in told["findings"]] == [True] + [False] * (len(told["findings"]) - 1)
    assert str(tmp_path) not in json.dumps(told) and str(phantoms) not in json.dumps(told)
    assert (tmp_path / "Nodule-0001.npz").exists() and (tmp_path / "Nodule-0001.cam.dcm").exists()
    _, error = call("cam.py", "covid_resnet", image, "--ckpt", checkpoint, "--keep_identity", status=2)
    assert "--keep_identity says what goes into DICOM files: add --dicom" in error


def test_cam_in_bfloat16_says_what_it_costs(trained, phantoms, tmp_path):
    checkpoint = trained[0] / "best.pdparams"
    (tmp_path / "Nodule-0000.png").write_bytes(b"no image")
    for number in range(1, 4):
        shutil.copy(phantoms / "Nodule" / f"Nodule-000{number}.png", tmp_path)
    out, error = call("cam.py", "covid_resnet", tmp_path, "--ckpt", checkpoint, "--precision", "bfloat16", "--json",
                      "--save_dir", tmp_path / "cams", status=2)
    assert "bfloat16 against float32 on 3 images: probabilities differ by at most" in out and "Nodule-0000.png" in error
    assert json.loads((tmp_path / "cams" / "Nodule-0001.json").read_text())["method"]["precision"] == "bfloat16"
    for plain in (["--engine", "dygraph"], ["--layer", "block.3"], ["--faithfulness"]):
        _, error = call("cam.py", "covid_resnet", phantoms / "Nodule", "--ckpt", checkpoint, "--precision", "bfloat16",
                        *plain, "--save_dir", tmp_path / "none", status=2)
        assert f"{' '.join(plain)} runs the network in plain Paddle" in error
    assert not list((tmp_path / "none").rglob("*.png"))
    out, error = call("cam.py", "covid_resnet", tmp_path / "Nodule-0000.png", "--ckpt", checkpoint, "--precision",
                      "bfloat16", "--save_dir", tmp_path / "none", status=2)
    assert "none of the images can be read" in out and "Nodule-0000.png" in error


@pytest.mark.parametrize("method", ["eigencam", "scorecam"])
def test_methods_of_another_kind(trained, phantoms, tmp_path, method):
    extra = ["--top_k", 4] if method == "scorecam" else []
    call("cam.py", "covid_resnet", phantoms / "Nodule" / "Nodule-0001.png", "--ckpt", trained[0] / "best.pdparams",
         "--method", method, "--save_dir", tmp_path, *extra)
    assert read_image(tmp_path / "Nodule-0001.png").shape == (224, 448, 3)


def test_demo_runs_from_anywhere(tmp_path):
    out, _ = call("demo.py", "--save_dir", tmp_path, "--per_class", 20, "--epoch", 1, cwd=tmp_path)
    assert "Grad-CAM's peak lies in the true box" in out and "chance is" in out
    assert read_image(tmp_path / "demo.png").shape == (1024, 1024, 3)
    assert len(list((tmp_path / "cams").rglob("*.png"))) == len((tmp_path / "test.txt").read_text().splitlines())


def test_eval_asks_where_the_model_looks(trained, phantoms, tmp_path):
    ckpt = trained[0] / "best.pdparams"
    out, _ = call("eval.py", "covid_resnet", "--data_dir", phantoms, "--ckpt", ckpt, "--boxes", phantoms / "boxes.csv",
                  "--shortcut", "--method", "gradcam,eigencam", "--resamples", 50, "--save_dir", tmp_path)
    for text in ("40 boxes of 40 findings", "| average box", "Does the model look at the chest", "Outside thorax"):
        assert text in out, text
    for name in ("localisation.csv", "localisation_findings.csv", "localisation.png", "localisation_methods.png",
                 "shortcut.csv", "shortcut_gradcam.png", "shortcut_eigencam.png"):
        assert (tmp_path / name).stat().st_size > 0, name
    values = json.loads((tmp_path / "report.json").read_text())
    assert values["localisation"]["groups"]["test list"]["findings"] == len(
        (trained[0] / "test.txt").read_text().splitlines())
    assert 0 < values["shortcut"]["maps"]["gradcam"]["all"]["border"]["share"] < 1
    assert 'id="localisation"' in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_eval_refuses_boxes_that_are_of_no_use_before_the_work(trained, phantoms, tmp_path):
    ckpt, boxes = trained[0] / "best.pdparams", phantoms / "boxes.csv"
    same = ("eval.py", "covid_resnet", "--data_dir", phantoms, "--ckpt", ckpt)
    _, error = call(*same, "--boxes", tmp_path / "no.csv", status=2)
    assert "no.csv cannot be read" in error and "evaluate" not in error
    _, error = call(*same, "--boxes", boxes, "--fit", "youden", status=2)
    assert "without --predictions" in error
    (tmp_path / "other.csv").write_text("file,label,x,y,w,h\na.png,Nodule,1,2,3,4\nb.png,Fracture,1,2,3,4\n")
    _, error = call(*same, "--boxes", tmp_path / "other.csv", "--save_dir", tmp_path, status=2)
    assert "of the 2 boxes 1 are of images that are not in" in error and "1 of classes" in error


def test_eval_of_chexnet_holds_maps_against_published_boxes(seeded_checkpoint, data_dir, tmp_path):
    nih = data_dir / "nih14"
    lines = (nih / "BBox_List_2017.csv").read_text().splitlines()
    chosen = [line for line in lines if line.split(",")[0] in ("00010277_000.png", "00000193_019.png")]
    (tmp_path / "boxes.csv").write_text("\n".join([lines[0], *chosen]) + "\n")
    (tmp_path / "list.txt").write_text("".join(line for line in (nih / "test_list.txt").open() if "00000193_" in line))
    out, _ = call("eval.py", "chexnet", "--data_dir", nih / "images", "--test_list", tmp_path / "list.txt", "--ckpt",
                  seeded_checkpoint, "--boxes", tmp_path / "boxes.csv", "--top_k", 1, "--resamples", 50, "--save_dir",
                  tmp_path)
    assert "5 boxes of 5 findings on 2 images of 2 patients. 1 of the images" in " ".join(out.split())
    assert "scorecam (1 channels)" in out and "| eigengradcam" in out
    rows = {(row["class"], row["map"]): row for row in csv.DictReader((tmp_path / "localisation_findings.csv").open())}
    # 225.85 ... on 1024 pixels; / 4 - 16 in the view of 224.
    areas = {name: float(rows[name, "uniform map"]["mass"]) * 224 * 224 for name in ("Infiltration", "Mass")}
    assert areas["Infiltration"] == pytest.approx(271.93 * 221.87 / 16, rel=1e-4)
    assert areas["Mass"] == pytest.approx(540.44 * 277.62 / 16, rel=1e-4)
