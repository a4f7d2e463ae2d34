"""Splits that are unfair in known ways."""
import csv
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from chexnet.recipe import CheXNetRecipe
from covid_resnet.recipe import CovidResNetRecipe
from cxr.data import class_folders, phantom
from cxr.data.dataset import XrayDataset
from cxr.data.images import read_image
from cxr.data.lists import sources_of
from cxr.errors import InputError
from cxr.evaluation import split_audit as room
from cxr.evaluation.split_audit import COLUMNS, audit, concerns, draw_duplicates, write_checks

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("COVID", "Normal")


class Names:
    """A split of which only the names are there."""

    def __init__(self, names, labels, class_names=CLASSES):
        self.names, self.labels, self.class_names = list(names), np.asarray(labels), class_names
        self.paths = [Path("/nowhere", name) for name in self.names]

    def __len__(self):
        return len(self.names)

    def picture(self, index):
        return read_image(self.paths[index])


def named(name, checks):
    return next((check for check in checks if check.name == name), None)


def quick(splits, patients=None, sources=None):
    return audit(splits, patients, sources, limit_seconds=5)


# --- patients ------------------------------------------------------------------------------------------------------

def test_patients_in_two_splits():
    splits = {"train": Names("abcd", [0, 0, 1, 1]), "val": Names("efg", [0, 1, 1]), "test": Names("h", [0])}
    patients = dict(zip("abcdefgh", ["p1", "p1", "p2", "p3", "p4", "p2", "g", "p2"]))     # g: its own name, so unknown
    found = named("patients", quick(splits, patients))
    assert found.worrying
    assert found.sentence.startswith("1 of 4 patients are in more than one split (such as p2 in train and val)")
    assert found.rows == [("train", "c", "val", "f", "patient p2"), ("train", "c", "test", "h", "patient p2")]
    apart = named("patients", quick(splits, {**patients, "f": "p9", "h": "p8"}))
    assert not apart.worrying and "no patient of 6 is in two splits" in apart.sentence
    assert named("patients", quick(splits, dict(zip("abcdefgh", "abcdefgh")))) is None
    assert named("patients", quick(splits)) is None


def test_patients_of_nih_names():
    names = ["00000001_000.png", "00000001_001.png", "00000002_000.png"]
    splits = {"train": Names(names[:1], [[1, 0]]), "val": Names(names[1:], [[0, 0], [0, 1]])}
    sentence, = concerns(splits, dict(zip(names, CheXNetRecipe().patients(None, names))))
    assert "1 of 2 patients are in more than one split" in sentence


# --- class against source ------------------------------------------------------------------------------------------

def test_a_source_that_gives_the_class_away():
    splits = {"train": Names("abcdefgh", [0, 0, 0, 0, 1, 1, 1, 1])}
    found = named("sources", quick(splits, sources=dict(zip("abcdefgh", "xxxxyyyy"))))
    assert found.worrying and found.sentence == (
        "knowing the source alone gives 100% accuracy, where always naming the most frequent class gives 50% (Cramer's "
        "V 1.00, 2 sources): a model may learn the hospital instead of the disease")
    assert [row[-1] for row in found.rows] == ["source x: COVID 4", "source y: Normal 4"]


def test_a_source_that_says_nothing():
    splits = {"train": Names("abcdefgh", [0, 1] * 4)}
    found = named("sources", quick(splits, sources=dict(zip("abcdefgh", "xxxxyyyy"))))
    assert not found.worrying and "Cramer's V 0.00" in found.sentence


def test_no_image_votes_for_its_own_class():
    """Sources of two images with different classes tell nothing, though each source's majority is right by half."""
    splits = {"train": Names("abcdefgh", [0, 1, 0, 1, 0, 1, 0, 1])}
    found = named("sources", quick(splits, sources=dict(zip("abcdefgh", "xxyyzzww"))))
    assert "gives 0% accuracy" in found.sentence and not found.worrying


@pytest.mark.parametrize("sources", [dict(zip("abcd", "xxxx")), dict(zip("abcd", "wxyz")), {}, {"q": "x"}])
def test_one_source_or_one_for_each_image_is_no_source(sources):
    assert named("sources", quick({"train": Names("abcd", [0, 0, 1, 1])}, sources=sources)) is None


def test_a_class_that_does_not_occur():
    splits = {"train": Names("abcd", [0, 0, 0, 0])}
    found = named("sources", quick(splits, sources=dict(zip("abcd", "xxyy"))))
    assert "Cramer's V nan" in found.sentence and not found.worrying


def test_findings_that_are_there_or_not():
    labels = [[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0]]
    splits = {"train": Names("abcdefgh", labels, ("Mass", "Nodule", "Hernia"))}
    found = named("sources", quick(splits, sources=dict(zip("abcdefgh", "xxxyyyyy"))))
    assert found.worrying and "tells Mass with a balanced accuracy of 100%" in found.sentence
    assert found.rows[2][-1] == "Hernia: balanced accuracy 0.500"          # nobody has it


def test_the_table_of_sources(tmp_path):
    assert sources_of(tmp_path) is None
    (tmp_path / "sources.csv").write_text("file,source_file,patient\na,hannover/png/1.png,p\nb,00001_002.png,q\n")
    assert sources_of(tmp_path) == {"a": "hannover", "b": "#_#.png"}
    assert sources_of(tmp_path, column="patient") == {"a": "p", "b": "q"}
    (tmp_path / "other.csv").write_text("file,source\na,x\n")
    assert sources_of(tmp_path, tmp_path / "other.csv") == {"a": "x"}
    with pytest.raises(InputError, match="needs the columns `file` and `site`"):
        sources_of(tmp_path, column="site")
    with pytest.raises(InputError, match="none.csv is no readable table"):
        sources_of(tmp_path, tmp_path / "none.csv")


# --- copies --------------------------------------------------------------------------------------------------------

@pytest.fixture
def leaky(tmp_path):
    """Two splits of phantoms; of 8 in `val` one is a resized copy from `train`, with the other class."""
    phantom.write_folder(tmp_path, per_class=4, size=128)
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    train, val = names[:8], names[8:]
    cv2.imwrite(str(tmp_path / "copy.jpg"), cv2.resize(cv2.imread(str(tmp_path / train[3])), (200, 200)))
    return {"train": XrayDataset(tmp_path, train, np.zeros(8, int), CLASSES),
            "val": XrayDataset(tmp_path, [*val, "copy.jpg"], np.ones(9, int), CLASSES)}, train[3]


def test_a_resized_copy_with_another_label(leaky, tmp_path):
    splits, original = leaky
    checks = audit(splits, workers=2)
    copies, labels = named("duplicates", checks), named("labels", checks)
    assert copies.sentence.startswith("1 pairs of images in different splits show the same radiograph (such as "
                                      f"{original}")
    assert labels.worrying and [row[:4] for row in labels.rows] == [("train", original, "val", "copy.jpg")]
    assert labels.rows[0][-1] == "COVID / Normal"
    assert named("duplicates", audit({"all": splits["train"]})).worrying is False

    write_checks(tmp_path / "findings.csv", checks)
    header, first, *_ = csv.reader((tmp_path / "findings.csv").open())
    assert header == list(COLUMNS) and first[:5] == ["duplicates", "train", original, "val", "copy.jpg"]
    assert draw_duplicates(tmp_path / "pairs.png", splits, checks) == 1
    assert read_image(tmp_path / "pairs.png").shape == (224, 448, 3)
    assert draw_duplicates(tmp_path / "none.png", splits, []) == 0 and not (tmp_path / "none.png").exists()


def test_a_small_set_is_compared_in_full_under_the_limit(leaky):
    assert "show the same radiograph" in named("duplicates", audit(*leaky[:1], limit_seconds=60)).sentence


def test_a_large_set_is_compared_by_bytes_alone(leaky, tmp_path, monkeypatch):
    splits, original = leaky
    (tmp_path / "copy.jpg").write_bytes((tmp_path / original).read_bytes())
    same = bytearray((tmp_path / original).read_bytes())
    same[20] ^= 1                                                           # of one size, and alike in the middle
    (tmp_path / splits["val"].names[0]).write_bytes(same)
    monkeypatch.setattr(room, "_fingerprints", lambda *_: None)             # as if there were no time
    checks = audit(splits, limit_seconds=60)
    assert [row[:4] for row in named("duplicates", checks).rows] == [("train", original, "val", "copy.jpg")]
    assert "are the same file" in named("duplicates", checks).sentence and len(named("labels", checks).rows) == 1


def test_unreadable_images(leaky, tmp_path):
    splits, original = leaky
    (tmp_path / original).write_text("no image")
    with pytest.raises(InputError, match="holds text, not an image"):
        audit(splits)
    assert "are the same file" in named("duplicates", audit(splits, limit_seconds=60)).sentence


class Slow(Names):
    def picture(self, index):
        time.sleep(0.2)
        return np.zeros((8, 8), np.uint8)


def test_images_that_would_take_too_long_are_not_begun():
    """A few are tried, and the time that is left goes to what is quicker."""
    splits = {"train": Slow(map(str, range(100)), np.zeros(100, int))}
    began = time.monotonic()
    found = named("duplicates", audit(splits, limit_seconds=8))
    assert "as far as time allowed" not in found.sentence and "are the same file" in found.sentence
    assert time.monotonic() - began < 8


def test_the_limit_is_kept():
    """112,120 images that take 0.2 s each, patients and sources of all: judged in seconds, without the images."""
    names = [f"{number // 4:08d}_{number % 4:03d}.png" for number in range(112_120)]
    labels = np.random.default_rng(0).random((112_120, 14)) < 0.05
    splits = {"train": Slow(names[:90_000], labels[:90_000], CheXNetRecipe.class_names),
              "val": Slow(names[90_000:], labels[90_000:], CheXNetRecipe.class_names)}
    patients = {name: name[:8] for name in names}
    sources = {name: f"device {int(name[:8]) % 7}" for name in names}
    began = time.monotonic()
    checks = audit(splits, patients, sources, limit_seconds=1)
    assert time.monotonic() - began < 20                                     # measured 2; the machine may be busy
    assert [check.name for check in checks] == ["patients", "sources", "duplicates"]
    assert "no patient of 28030" in checks[0].sentence and not checks[1].worrying


# --- the command ---------------------------------------------------------------------------------------------------

def audited(data_dir, save_dir, *extra):
    command = [sys.executable, str(ROOT / "tools" / "audit.py"), "covid_resnet", "--data_dir", str(data_dir),
               "--save_dir", str(save_dir), *extra]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done


def test_the_command(leaky, tmp_path):
    done = audited(tmp_path, tmp_path / "out")
    assert "no patient of" in done.stdout and "no images in different splits show the same radiograph" in done.stdout
    assert "Audited train" in done.stdout and (tmp_path / "out" / "findings.csv").exists()


def test_a_run_keeps_the_lists_that_it_was_trained_on(tmp_path):
    """An audit of its folder once wrote another split over them, and `eval` then judged images of the training."""
    phantom.write_folder(tmp_path / "xrays", per_class=12, size=64)
    recipe, data_dir, run = CovidResNetRecipe(), tmp_path / "xrays", tmp_path / "run"

    def flags(**options):
        return SimpleNamespace(**{"data_dir": data_dir, "save_dir": run, "train_list": None, "val_list": None,
                                  "test_list": None, "patients": None, "seed": 1, "resume": False, **options})
    run.mkdir()
    (run / "test.txt").write_text("of an earlier split 0\n")
    split = recipe.split(flags())
    train_set, _ = recipe.train_sets(flags(), split)
    assert split.origin == "made" and [path.name for path in run.iterdir()] == ["test.txt"]
    split.keep(run)
    lists = {path.name: path.read_bytes() for path in run.iterdir()}
    assert sorted(lists) == ["test.txt", "train.txt", "val.txt"] and b"earlier" not in lists["test.txt"]
    assert recipe.train_sets(flags(resume=True))[0].names == train_set.names
    done = audited(data_dir, run)
    assert f"Split as the lists in {run} have it" in done.stdout
    assert f"test {len(lists['test.txt'].splitlines())} " in done.stdout
    assert {path.name: path.read_bytes() for path in run.glob("*.txt")} == lists
    done = audited(data_dir, tmp_path / "new", "--seed", "1")
    assert f"Split train {len(train_set)}, " in done.stdout and "no test set" not in done.stdout
    assert not list((tmp_path / "new").glob("*.txt"))


def test_the_test_list_of_an_earlier_split_goes_with_the_user_s_own_lists(tmp_path):
    (tmp_path / "test.txt").write_text("COVID/a.png 0\n")
    lists = {"train": tmp_path / "train.txt", "val": tmp_path / "val.txt"}
    kept = class_folders.Split("given", lists, CLASSES).keep(tmp_path)
    assert kept.lists == lists and not (tmp_path / "test.txt").exists()
