"""The table of a sweep: it fits, the best is first, and what is missing says why."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from forethought.metrics import Figure
from forethought.research.report import sweep_table
from forethought.research.rows import SweepRow
from tests.report.examples import example, figure, missing_row, sweep_row


def _printed(rows: list[SweepRow], width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(sweep_table(rows, width))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def _line(lines: list[str], start: str) -> int:
    return next(place for place, line in enumerate(lines) if line.startswith(start))


@pytest.mark.parametrize("width", [120, 80])
def test_fits(width: int) -> None:
    rows = [*example(), sweep_row("scot_no_styled_benign", 0.1, 0.45), sweep_row("scot_constant_refusal", 0.4, 0.5)]
    lines = _printed(rows, width)
    assert max(map(len, lines)) <= width
    assert "\u2026" not in "\n".join(lines)  # nothing is cut off
    for row in rows:
        _line(lines, row.defence + " ")  # and no name is broken


def test_a_line_a_defence_best_first() -> None:
    lines = _printed(example(), 120)
    order = [_line(lines, name + " ") for name in ("scot", "scot_split", "refusal_augmented", "base", "r2d2")]
    assert order == sorted(order)
    assert lines[order[1]].split() == [
        "scot_split", "0.82", "0.16", "0.64", "[.59", ".69]", "0.20", "0.16", "0.16", "0.16", "0.16", "0.20", "0.20",
        "0.40", "57k", "11",
    ]  # fmt: skip
    # Over three seeds: J is 0.60, 0.66 and 0.72; half the range stands below.
    assert lines[order[0]].split()[:4] == ["scot", "0.83", "0.14", "0.66"]
    assert lines[order[0] + 1].split() == ["±.03", "±.06", "±.06", "±.00", *["±.06"] * 4, "±.00", "±.00", "±.00"]


def test_what_is_missing_is_a_dash_with_its_reason_below() -> None:
    rows = [*example(), missing_row("scot_split", "was [bold]killed[/bold]", seed=1)]
    lines = _printed(rows, 120)
    assert lines[_line(lines, "r2d2 ")].split() == ["r2d2", *["-"] * 13]
    assert lines[_line(lines, "prompt ")].split()[:3] == ["prompt", "-", "-"]
    assert _line(lines, "Missing: r2d2: needs an accelerator") > _line(lines, "latent_adversarial")
    _line(lines, "Missing: scot_split: seed 1: was [bold]killed[/bold]")
    _line(lines, "prompt: self_reminder was the best prompt")


def test_narrow_terminal_stacks_two_figures_in_a_cell() -> None:
    rows = [sweep_row("scot", 0.84, 0.2), sweep_row("refusal", 0.9, 0.6)]
    lines = _printed(rows, 80)
    first = _line(lines, "scot ")
    assert lines[first].split() == ["scot", "0.82", "0.64", "0.16", "0.16", "0.20", "0.20"]
    assert lines[first + 1].split() == [
        "57k", "tokens,", "11", "min", "0.16", "[.59", ".69]", "0.16", "0.16", "0.20", "0.40",
    ]  # fmt: skip


def test_unscored_is_neither_safe_nor_hidden() -> None:
    lost = Figure(name="asr_gcg", value=math.nan, n=0, unscored=40)
    few = figure("asr_direct", 0.1, n=199, unscored=1)
    lines = _printed([sweep_row("scot", 0.8, 0.2, more=(lost, few))], 120)
    assert lines[_line(lines, "scot ")].split()[10] == "?"
    text = " ".join(lines)
    assert "?: no answer could be scored." in text
    assert "41 of 720 answers are unscored and in no share." in text
    assert "not to be relied on: scot ASR GCG (100%)." in text
    assert "unscored" not in " ".join(_printed([sweep_row("scot", 0.8, 0.2)], 120))


def test_bases_stand_apart() -> None:
    rows = [sweep_row("scot", 0.8), sweep_row("scot", 0.5, base="large"), sweep_row("refusal", 0.6)]
    lines = _printed(rows, 120)
    order = [_line(lines, start) for start in ("small", "scot ", "refusal ", "large")]
    assert order == sorted(order)
    assert lines[order[-1] + 1].startswith("scot ")


def test_width_is_that_of_the_terminal_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns, count in ((80, 7), (140, 14)):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert len(sweep_table(example()).columns) == count
