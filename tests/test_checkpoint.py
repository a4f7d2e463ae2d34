"""Checkpoints of a run: the same bits after a kill at any moment, whatever is damaged, full or taken."""
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from training_models import TINY, Squares, last, same, train, weights

from cxr.data.transforms import Augment, Preprocess
from cxr.errors import InputError
from cxr.training import resume
from cxr.training.resume import NEWEST, PREVIOUS, Saved, claim, read, write
from cxr.weights.paddle_files import read_weights

ROOT = Path(__file__).resolve().parent.parent
AUGMENT = Augment(Preprocess(resize=40, crop=32))


class Killed(BaseException):
    """Ends a run where a kill would: nothing of ours catches it."""


def kill_after(monkeypatch, writes):
    """Let the run die right after the given number of checkpoints."""
    left, original = [writes], resume.write

    def dying(*arguments):
        original(*arguments)
        left[0] -= 1
        if not left[0]:
            raise Killed
    monkeypatch.setattr(resume, "write", dying)


@pytest.mark.parametrize("adam", [False, True])
def test_a_run_killed_after_any_step_ends_with_the_same_bits(tmp_path, monkeypatch, adam):
    options = {"adam": adam, "transform": AUGMENT, "save_every": 0, "accumulate": 2, "batch_size": 4}
    whole, history = train(tmp_path / "whole", tmp_path, dropout=0.5, **options)
    assert not (tmp_path / "whole" / PREVIOUS).exists()
    for writes in range(1, 13):                   # at the start, after each of 9 steps, and at the end of 3 epochs
        folder = tmp_path / str(writes)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_after(patch, writes)
            train(folder, tmp_path, dropout=0.5, **options)
        model, resumed = train(folder, tmp_path, dropout=0.5, resume=True, **options)
        assert same(weights(model), weights(whole)), writes
        for name in ("best.pdparams", "last.pdparams"):
            assert same(*(read_weights(own / name)[0] for own in (folder, tmp_path / "whole")))
        timeless = [[{key: row[key] for key in row if key != "seconds"} for row in own.rows]
                    for own in (history, resumed)]
        assert timeless[0] == timeless[1] and resumed.losses == history.losses


def test_a_run_taken_up_and_killed_before_its_next_step_loses_nothing(tmp_path, monkeypatch):
    train(tmp_path / "whole", tmp_path, adam=True)
    for start in (True, False):                   # after the last step of an epoch; then once its figures are kept
        with monkeypatch.context() as patch, pytest.raises(Killed):
            kill_after(patch, 4 if start else 1)
            train(tmp_path / "run", tmp_path, adam=True, save_every=0, resume=True)
    assert read(tmp_path / "run").facts["position"]["done"] == 0
    train(tmp_path / "run", tmp_path, adam=True, resume=True)
    assert same(last(tmp_path / "run"), last(tmp_path / "whole"))


def test_a_killed_process_ends_with_the_same_bytes(data_dir, tmp_path):
    """Three kills of a ResNet18 on 24 X-rays, at random moments; then its files equal those of a run in peace.

    A watcher that is slow on a busy machine lets it make more steps: few kills leave enough of the twelve.
    """
    def start(name):
        return subprocess.Popen([sys.executable, str(ROOT / "tests" / "killed_training.py"), data_dir,
                                 tmp_path / name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    def written():
        path = tmp_path / "run" / NEWEST
        try:
            return path.stat().st_mtime_ns
        except FileNotFoundError:                 # between the two renames
            return 0

    whole = start("whole")
    assert whole.communicate()[0].count("Precision") == 2 and whole.returncode == 0
    moments = random.Random(3)
    for _ in range(3):
        process = start("run")
        process.stdout.readline()                 # it has read the checkpoint, if there is one
        for _ in range(moments.randint(1, 2)):    # and makes a step or two
            before = written()
            while written() in (0, before) and process.poll() is None:
                time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.3))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    last = start("run")
    assert "Going on after" in last.communicate()[0] and last.returncode == 0
    for name in ("best.pdparams", "last.pdparams"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not list((tmp_path / "run").glob("*.tmp"))


# ------------------------------------------------------------------ the file

def test_what_is_written_is_read(tmp_path):
    saved = Saved({"model/a": np.arange(6, dtype="float32").reshape(2, 3), "optimizer/a/b_0": np.ones(1)},
                  {"position": {"step": 3, "rate": 0.1}, "history": {"losses": [0.1, float("nan")]}})
    write(tmp_path, saved)
    again = read(tmp_path)
    assert list(again.arrays) == list(saved.arrays) and again.facts["position"] == saved.facts["position"]
    assert all(np.array_equal(again.arrays[key], value) for key, value in saved.arrays.items())
    assert np.isnan(again.facts["history"]["losses"][1])


def numbered(folder, *numbers):
    for number in numbers:
        write(folder, Saved({"model/a": np.full(100, number, "float32")}, {"number": number}))


@pytest.mark.parametrize("damage", ["cut", "empty", "bit", "checksum", "missing"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, damage):
    numbered(tmp_path, 1, 2, 3)
    assert read(tmp_path).facts == {"number": 3}
    content = bytearray((tmp_path / NEWEST).read_bytes())
    if damage == "bit":
        content[len(content) // 2] ^= 1
    elif damage == "checksum":
        content[-1] = ord("0") if content[-1] != ord("0") else ord("1")
    (tmp_path / NEWEST).write_bytes({"cut": content[:-200], "empty": b""}.get(damage, content))
    if damage == "missing":                       # killed between the two renames
        (tmp_path / NEWEST).unlink()
        assert read(tmp_path).facts == {"number": 2}
    else:
        with pytest.warns(UserWarning, match="resume.ckpt is damaged, .*; going on from the one before it"):
            assert read(tmp_path).facts == {"number": 2}
        (tmp_path / PREVIOUS).write_bytes(b"x" * 500)
        with pytest.raises(InputError, match="no checkpoint in .* can be used: .*resume.ckpt .*resume.previous"):
            read(tmp_path)


def test_a_run_goes_on_from_the_one_before_and_ends_alike(tmp_path, monkeypatch):
    train(tmp_path / "whole", tmp_path)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 5)
        train(tmp_path / "run", tmp_path, save_every=0)
    (tmp_path / "run" / NEWEST).write_bytes(b"half")
    with pytest.warns(UserWarning, match="going on from the one before"):
        train(tmp_path / "run", tmp_path, resume=True)
    assert same(last(tmp_path / "run"), last(tmp_path / "whole"))


def test_a_checkpoint_runs_no_code(tmp_path, monkeypatch):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'hacked'}",)
    monkeypatch.setattr(resume, "write_state", lambda file, *_: __import__("pickle").dump({"a": Hostile()}, file))
    numbered(tmp_path, 1)
    with pytest.raises(InputError, match="system"):
        read(tmp_path)
    assert not (tmp_path / "hacked").exists()


# ------------------------------------------------------------------ the disk

def test_a_full_disk_is_a_sentence_and_loses_nothing(tmp_path, monkeypatch):
    train(tmp_path / "whole", tmp_path)
    original, left = resume.write_state, [4]

    def filling(file, *rest):
        left[0] -= 1
        if left[0] < 0:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        original(file, *rest)
    with monkeypatch.context() as patch, pytest.raises(InputError, match="No space left on device.*--resume; the last"):
        patch.setattr(resume, "write_state", filling)
        train(tmp_path / "run", tmp_path, save_every=0)
    assert not list((tmp_path / "run").glob("*.tmp"))
    train(tmp_path / "run", tmp_path, resume=True)
    assert same(last(tmp_path / "run"), last(tmp_path / "whole"))


def test_a_disk_that_is_really_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        with pytest.raises(InputError, match="run cannot be written to .No space left on device.: free some space"):
            train(disk / "run", tmp_path, epochs=1000)                        # until the curves no longer fit
        kept = read(disk / "run").facts["position"]
        subprocess.run(["mount", "-o", "remount,size=9m", disk], check=True)
        _, history = train(disk / "run", tmp_path, epochs=1000, resume=True, max_steps=kept["step"] + 3)
        assert history.rows[-1]["epoch"] == kept["epoch"] + kept["done"] // 3
    finally:
        subprocess.run(["umount", disk], check=True)


# ------------------------------------------------------------------ the folder

def test_a_folder_with_a_run_is_not_written_over(tmp_path, capsys):
    train(tmp_path / "run", tmp_path, epochs=1)
    before = (tmp_path / "run" / "best.pdparams").read_bytes()
    with pytest.raises(InputError, match="holds a run already: .*--resume.*--save_dir.*--overwrite"):
        train(tmp_path / "run", tmp_path, epochs=1)
    assert (tmp_path / "run" / "best.pdparams").read_bytes() == before
    train(tmp_path / "run", tmp_path, epochs=1, overwrite=True)
    (tmp_path / "run" / NEWEST).unlink()
    with pytest.raises(InputError, match="a run without a checkpoint"):
        train(tmp_path / "run", tmp_path, epochs=1, resume=True)
    train(tmp_path / "new", tmp_path, epochs=1, resume=True)                  # killed before it began: begin


@pytest.mark.parametrize("flag, value, sentence", [
    ("--seed", 1, "--seed 0, not --seed 1"), ("--amp", True, "no --amp, not --amp"),
    ("--backbone", "x", "no --backbone, not --backbone x"), ("--layers", 18, "--layers 50, not --layers 18")])
def test_another_run_is_not_a_continuation(tmp_path, flag, value, sentence):
    flags = {"--seed": 0, "--amp": False, "--backbone": None, "--layers": 50}
    train(tmp_path / "run", tmp_path, max_steps=1, identity=flags)
    with pytest.raises(InputError, match=f"begun with {sentence}: go on as it was begun"):
        train(tmp_path / "run", tmp_path, resume=True, identity={**flags, flag: value})


def test_other_images_are_not_a_continuation(tmp_path, monkeypatch):
    train(tmp_path / "run", tmp_path, max_steps=1)

    class Fewer(Squares):
        def __init__(self, folder, transform=TINY):
            super().__init__(folder, 18, transform)
    monkeypatch.setattr("training_models.Squares", Fewer)
    with pytest.raises(InputError, match=r"begun with the training images \(20, checksum .* not .* \(18, checksum"):
        train(tmp_path / "run", tmp_path, resume=True)


def test_one_training_a_folder_and_no_lock_of_the_dead(tmp_path):
    code = ("import sys, time; sys.path.insert(0, sys.argv[1])\nfrom cxr.training.resume import claim\n"
            "with claim(sys.argv[2]):\n    print('held', flush=True)\n    time.sleep(60)")
    holder = subprocess.Popen([sys.executable, "-c", code, str(ROOT), str(tmp_path / "run")], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    try:
        with pytest.raises(InputError, match="another process trains into"), claim(tmp_path / "run"):
            pass
    finally:
        holder.kill()
        holder.communicate()
    (tmp_path / "run" / f".{'0' * 32}.tmp").write_bytes(b"what the dead had begun")
    with claim(tmp_path / "run") as saved:
        assert saved is None
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_nothing_is_left_of_a_folder_that_nothing_came_of(tmp_path):
    with pytest.raises(KeyError), claim(tmp_path / "a" / "run"):
        raise KeyError
    assert not (tmp_path / "a" / "run").exists()
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="file cannot be written to .*another --save_dir"), claim(tmp_path / "file"):
        pass
