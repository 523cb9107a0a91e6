"""The comparison at the terminal: every column is there, however narrow it is."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from forethought.cli import bars
from forethought.cli.bars import written
from forethought.cli.terminal import Terminal
from forethought.metrics import Figure

SYSTEMS = ("base", "prompt", "scot", "scot_best")


@pytest.mark.parametrize("width", [80, 140])
def test_all_systems_and_their_intervals_are_shown(width: int) -> None:
    figures = [
        Figure(name=f"youden_unseen_{system}", value=0.1 * place, low=0.0, high=0.9, n=10)
        for place, system in enumerate(SYSTEMS)
    ]
    out = io.StringIO()
    Terminal(Console(file=out, width=width)).table(figures, SYSTEMS)
    shown = out.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    for title in ("base model", "safety prompt", "SCoT, best"):
        assert title in shown
    assert shown.count("(0.00 to 0.90)" if width == 140 else "0.00..0.90") == len(SYSTEMS)
    assert ("0.30 (0.00 to 0.90)" in shown) == (width == 140)


def test_a_bar_moves_before_its_first_step_and_tells_the_time_that_is_left() -> None:
    """Rows of a batch end together: until then nothing is done, and all the same something happens."""
    out = io.StringIO()
    with Terminal(Console(file=out, width=80, force_terminal=True, color_system=None)).bar("attacks") as bar:
        bar.total(150)
        time.sleep(0.5)
        waiting = out.getvalue()
        bar.advance(75)
        time.sleep(0.5)
    frames = [line for line in waiting.replace("\r", "\n").splitlines() if "0/150" in line]
    assert len(set(frames)) > 2
    assert " left" not in waiting
    assert "75/150" in out.getvalue()
    assert " left" in out.getvalue()


def test_where_nothing_can_be_drawn_a_line_a_minute_is_written() -> None:
    """Work of hours is started with its output in a file: what stands there says how far it is."""
    out, now = io.StringIO(), [0.0]
    with written(Console(file=out, width=80), "attacks [1]", lambda: now[0]) as bar:
        bar.total(1500)
        for second in range(1, 151):
            now[0] = float(second)
            bar.advance(10, "2.0 rows/s")
    assert out.getvalue().splitlines() == [
        "attacks [1]: 600 of 1,500, 0:01:00, 0:01:30 left, 2.0 rows/s",
        "attacks [1]: 1,200 of 1,500, 0:02:00, 0:00:30 left, 2.0 rows/s",
    ]


def test_work_of_seconds_writes_nothing_and_work_of_unknown_length_how_far_it_is() -> None:
    out, now = io.StringIO(), [0.0]
    with written(Console(file=out, width=80), "reading", lambda: now[0]) as bar:
        bar.show(3, 9)
        bar.show(9, 9)
    assert not out.getvalue()
    with written(Console(file=out, width=80), "reading", lambda: now[0]) as bar:
        bar.total(None)
        now[0] = 90.0
        bar.advance(1_000_000)
    assert out.getvalue() == "reading: 1,000,000, 0:01:30\n"


def test_the_terminal_draws_where_it_can_and_writes_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "_EVERY", 0.0)
    for is_terminal, said in ((True, "1/4"), (False, "attacks: 1 of 4, 0:00:00")):
        out = io.StringIO()
        shown = Console(file=out, width=80, force_terminal=is_terminal, color_system=None)
        with Terminal(shown).bar("attacks") as bar:
            bar.show(1, 4)
        assert said in out.getvalue()
        assert ("\x1b" in out.getvalue()) is is_terminal
