"""A bar on a terminal, a few plain lines in a log."""
import io
import sys

import pytest

from cxr.utils.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lines_of(capsys):
    text = capsys.readouterr().err
    assert "\r" not in text and "\x1b" not in text              # nothing that moves a cursor
    assert text.endswith("\n") and "\n\n" not in text
    return text.splitlines()


def test_a_log_gets_two_lines_of_a_short_loop(capsys):
    assert list(progress(range(100), desc="eval")) == list(range(100))
    first, last = lines_of(capsys)
    assert first.startswith("eval:   0%") and "0/100" in first
    assert last.startswith("eval: 100%") and "100/100" in last and "image/s" in last


def test_a_log_gets_a_line_every_fifteen_seconds(capsys, monkeypatch):
    import tqdm.std

    now = [1000.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
    for _ in progress(range(100), desc="train", unit="batch"):
        now[0] += 1.0
    lines = lines_of(capsys)
    assert 6 <= len(lines) <= 9                                # 100 s
    assert "batch" in lines[-1]


def test_loops_in_loops(capsys):
    for _ in progress(range(2), desc="outer"):
        list(progress(range(3), desc="inner"))
    assert [line.split(":")[0] for line in lines_of(capsys)] == ["outer", "inner", "inner", "inner", "inner", "outer"]


def test_figures_and_updates_by_hand(capsys):
    with progress(None, total=4, desc="cam") as bar:
        for _ in range(4):
            bar.update()
            bar.set_postfix(loss="0.25", refresh=False)
    first, last = lines_of(capsys)
    assert "4/4" in last and "loss=0.25" in last


def test_an_exception_ends_the_line_where_it_was(capsys):
    with pytest.raises(ValueError), progress(range(10), desc="cam") as bar:
        for index in bar:
            if index == 4:
                raise ValueError
    assert "4/10" in lines_of(capsys)[-1]


def test_a_loop_without_a_length(capsys):
    assert list(progress(iter("abc"))) == ["a", "b", "c"]
    assert "3image" in lines_of(capsys)[-1]
    assert list(progress([])) == []
    lines_of(capsys)


def test_a_terminal_gets_a_bar_that_vanishes(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    list(progress(range(10), desc="eval"))
    text = terminal.getvalue()
    assert "\reval:" in text and "\n" not in text and text.endswith("\r")
