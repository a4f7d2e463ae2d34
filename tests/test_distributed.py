"""Two processes on the CPU (gloo) do what one does."""
import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from training_models import Squares, same

from cxr.data import phantom
from cxr.errors import InputError
from cxr.training.resume import read
from cxr.utils import distributed
from cxr.weights.paddle_files import read_weights

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2"]


def start(command, tmp_path, *status):
    """Run a command of one or two processes, which ends with one of `status` (none: 0); standard output and error."""
    if command[0] is LAUNCH:
        command = [*LAUNCH, "--log_dir", tmp_path / "log", *command[1:]]
    for _ in range(3):                           # gloo's processes miss each other now and then, and that is said
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, cwd=ROOT)
        if "could not connect to each other" not in done.stdout + done.stderr:
            break
    assert done.returncode in (status or (0,)), done.stdout + done.stderr
    return done.stdout + done.stderr


def trained(tmp_path, name, processes, *arguments):
    program = [LAUNCH] if processes == 2 else [sys.executable]
    out = start([*program, ROOT / "tests" / "several_processes.py", tmp_path / name, tmp_path, *arguments], tmp_path)
    return out, read(tmp_path / name)


@pytest.fixture
def pictures(tmp_path):
    Squares(tmp_path)


def test_processes_that_miss_each_other_are_a_sentence(monkeypatch):
    import paddle
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")

    def refused():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:784] connect [127.0.0.1]:7565: Connection refused")
    monkeypatch.setattr(paddle.distributed, "init_parallel_env", refused)
    with pytest.raises(InputError, match="could not connect to each other .*Connection refused.*command again"):
        distributed.start()


def test_one_process_needs_nothing():
    assert (distributed.rank(), distributed.world(), distributed.gather(3)) == (0, 1, [3])
    part = np.arange(6).reshape(3, 2)
    assert distributed.share([1, 2, 3]) == [1, 2, 3] and distributed.merge(part, 3) is part


@pytest.mark.usefixtures("pictures")
def test_two_processes_lose_what_one_loses_with_twice_the_batch(tmp_path):
    """To 1e-5: only the order of the sums differs. Without batch norm, whose batches are those of a process."""
    _, one = trained(tmp_path, "one", 1, 1, "plain")
    out, two = trained(tmp_path, "two", 2, 1, "plain")
    _, four = trained(tmp_path, "four", 2, 2, "plain")                        # and each in two batches a step
    assert out.count("Epoch 1/3") == 1 and "rank 0 saw [2, 4]" in out and "rank 1" not in out
    for other in (two, four):
        for first, second in zip(one.facts["history"]["rows"], other.facts["history"]["rows"]):
            assert {**first, "seconds": 0} == pytest.approx({**second, "seconds": 0}, abs=1e-5)
        assert one.facts["history"]["losses"] == pytest.approx(other.facts["history"]["losses"], abs=1e-5)
        for key, value in one.arrays.items():
            assert np.allclose(value, other.arrays[key], atol=1e-5), key


@pytest.mark.usefixtures("pictures")
def test_two_processes_stopped_and_resumed_end_with_the_same_bits(tmp_path):
    trained(tmp_path, "whole", 2, 1, "batch_norm")
    trained(tmp_path, "run", 2, 1, "batch_norm", 4)
    out, _ = trained(tmp_path, "run", 2, 1, "batch_norm")
    assert "Going on after 1 of 3 steps of epoch 2" in out
    assert same(*(read_weights(tmp_path / name / "last.pdparams")[0] for name in ("whole", "run")))


def test_commands_share_their_images(tmp_path):
    """eval and cam in two processes write what one writes; train makes its split and writes once."""
    data = tmp_path / "data"
    phantom.write_folder(data, per_class=10, size=64)
    out = start([LAUNCH, "tools/train.py", "covid_resnet", "--data_dir", data, "--layers", 18, "--epoch", 1,
                 "--batch_size", 4, "--save_dir", tmp_path / "run", "--num_workers", 0], tmp_path)
    assert out.count("by patient") == out.count("Epoch 1/1") == out.count("Best epoch 1") == 1
    (data / "Nodule" / "broken.png").write_text("no image")
    for name, program in (("one", sys.executable), ("two", LAUNCH)):
        start([program, "tools/eval.py", "covid_resnet", "--data_dir", data, "--ckpt", tmp_path / "run" /
               "best.pdparams", "--test_list", tmp_path / "run" / "test.txt", "--save_dir", tmp_path / name, "--engine",
               "dygraph"], tmp_path)
        said = start([program, "tools/cam.py", "covid_resnet", data / "Nodule", "--ckpt", tmp_path / "run" /
                      "best.pdparams", "--save_dir", tmp_path / name / "cams", "--engine", "dygraph", "--batch_size",
                      1], tmp_path, 2)
        assert "10 pictures and scores.csv" in said and "1 of 11 images could not be done" in said
    for name in ("predictions.csv", "cams/scores.csv"):
        (header, *rows), (again, *others) = (list(csv.reader((tmp_path / folder / name).open()))
                                             for folder in ("one", "two"))
        assert header == again and [row[0] for row in rows] == [row[0] for row in others]
        places = [place for place, title in enumerate(header) if title not in ("image", "label", "predicted")]
        assert np.allclose(*(np.array([[float(row[place]) for place in places] for row in own])
                             for own in (rows, others)), atol=1e-6)
    assert len(list((tmp_path / "two" / "cams").glob("*.png"))) == 10


def test_a_sentence_and_not_three_tries(tmp_path):
    # The launcher stops the slower process, and may end with that one's status, 241.
    out = start([LAUNCH, "tools/train.py", "pneumonia", "--data_dir", tmp_path / "none"], tmp_path, 2, 241)
    assert "none/train is no folder" in out and "Traceback" not in out and out.count("Run Pod") == 1
