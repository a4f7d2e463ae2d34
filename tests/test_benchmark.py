"""Timing: ratios by hand, and a table of them."""
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import _race  # noqa: E402
from _race import Timing, Worker, race, save_timings, timing_table  # noqa: E402

from cxr.errors import InputError  # noqa: E402


def test_candidates_take_turns_and_ratios_are_round_by_round(monkeypatch):
    calls, clock = [], iter([0, 4, 10, 12, 20, 28, 30, 32, 40, 42, 50, 54])   # begin, end, begin, end, ...
    monkeypatch.setattr(_race.time, "perf_counter", lambda: next(clock))
    plain, ours = race({"plain": lambda: calls.append("p"), "ours": lambda: calls.append("o")}, rounds=3, warmup=1)
    assert calls == ["p", "o"] * 4
    assert plain.seconds == (4, 8, 2) and ours.seconds == (2, 2, 4)
    assert plain.median == 4 and plain.ratio == 1
    assert ours.ratio == 2                                                    # median of 2, 4 and 0.5


def test_table_and_json(tmp_path):
    timings = [Timing("plain", (0.2, 0.4, 0.3), 1.0), Timing("ours", (0.1, 0.1, 0.2), 3.0)]
    table = timing_table("step", timings, images=6)
    assert [cell.strip() for cell in table.splitlines()[4].strip("|").split("|")] == [
        "ours", "100.0", "100.0 - 200.0", "60.0", "3.00"]
    save_timings(tmp_path / "t.json", {"step": timings})
    saved = json.loads((tmp_path / "t.json").read_text())
    assert saved["timings"]["step"]["ours"] == {"seconds": [0.1, 0.1, 0.2], "ratio": 3.0}
    assert saved["machine"]["paddle"] and int(saved["machine"]["cores"]) >= 1
    assert timings[0].median == pytest.approx(0.3)


ECHO = "import sys\nprint('ready', flush=True)\nfor line in sys.stdin:\n    print('done', flush=True)\n"


def test_another_process_takes_turns():
    worker = Worker([sys.executable, "-c", ECHO], {"X": "1"})
    assert len(race({"peer": worker, "ours": lambda: None}, rounds=3)[0].seconds) == 3
    worker.close()
    assert worker._process.returncode == 0


@pytest.mark.parametrize("code", ["", "print('hello', flush=True)", "print('ready', flush=True)"])
def test_a_peer_that_does_not_keep_to_the_rules_is_named(code):
    with pytest.raises(InputError, match="ended, or said .* a peer prints `ready`"):
        worker = Worker([sys.executable, "-c", code], {})
        worker()
        worker()


def test_a_peer_that_has_ended_is_named():
    worker = Worker([sys.executable, "-c", "print('ready', flush=True)"], {})
    worker._process.wait()
    with pytest.raises(InputError, match="ended, or said '' where 'a line' was due"):
        worker()
    worker.close()
