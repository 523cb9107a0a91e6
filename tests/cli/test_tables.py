"""Tables at a terminal: nothing is cut off, however narrow it is; commands to copy stand on one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from forethought import cli
from forethought.cli import terminal
from forethought.cli.terminal import show_figures, show_table

FIGURE = "0.30 (0.00 to 0.90)"


@pytest.fixture(params=[80, 120, 200])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(terminal.console, "_width", request.param)
    width: int = request.param
    return width


def test_figures_and_their_intervals_fit(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    columns = ("attack", "success (low)", "harmless refused (low)", "Youden's J (high)", "AUROC (high)", "unscored")
    rows = [(("A title of its group",), "bold"), (("An attack of some length *", *[FIGURE] * 4, "0"), None)]
    show_figures(columns, rows, caption="95 % intervals")
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    assert shown.count(FIGURE) == (4 if width == 200 else 0)
    assert shown.count("0.00..0.90") == (0 if width == 200 else 4)


def test_long_words_are_folded(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("name", "columns"), [("a", "very_long_column_name_" * 12)])
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width


def test_commands_of_the_help_fit_80_columns() -> None:
    found = [
        (file.name, line)
        for file in Path(cli.__file__).parent.glob("*.py")
        for line in re.findall(r"(?m)^      (forethought .*)$", file.read_text(encoding="utf-8"))
    ]
    assert len(found) > 25
    assert [(name, line) for name, line in found if len(line) > 78] == []
