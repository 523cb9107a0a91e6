"""The comparison at the terminal: every column is there, however narrow it is."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

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
    assert shown.count("(0.00 to 0.90)") == len(SYSTEMS)
    assert ("0.30 (0.00 to 0.90)" in shown) == (width == 140)
