"""`forethought benchmark` through its command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from forethought.cli.benchmark import benchmark as benchmark_command
from forethought.data.benchmarks import layouts
from forethought.errors import ConfigError, InputError
from tests.data.benchmarks.rows import (
    KNOT,
    harmbench,
    write_csv,
)


def shown(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(benchmark_command)
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160"}, catch_exceptions=True)


def test_the_command_shows_layout_counts_and_redacted_samples(tmp_path: Path) -> None:
    result = shown(str(harmbench(tmp_path)))
    assert result.exit_code == 0
    for part in (
        "layout harmbench: request=Behavior",
        "3 behaviours",
        "1 with a context",
        "copyright",
        "characters redacted",
    ):
        assert part in result.output
    assert KNOT not in result.output
    assert KNOT in shown(str(harmbench(tmp_path)), "--show-harmful").output


def test_the_command_without_a_file_lists_the_layouts() -> None:
    output = shown().output
    assert all(name in output for name in layouts())


def test_the_command_counts_what_was_left_out(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "rows.csv", [{"harm_area": "Ropes", "prompt": KNOT}, {"harm_area": "Ropes", "prompt": ""}]
    )
    assert isinstance(shown(str(path)).exception, InputError)
    output = shown(str(path), "--skip-bad").output
    assert "1 malformed rows left out" in output
    assert "line 3: has no text in prompt" in output


def test_the_command_refuses_a_column_without_a_noun(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", [{"ask": KNOT, "area": "ropes"}])
    assert isinstance(shown(str(path), "--column", "ask").exception, ConfigError)
    assert "1 unlabelled" in shown(str(path), "--column", "text=ask").output
    assert "unlabelled;" not in shown(str(path), "--column", "text=ask", "--harmful").output
