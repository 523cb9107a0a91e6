"""The second stage: which training requests become rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from forethought.data.sources import SourceSpec
from forethought.errors import ConfigError
from forethought.pipeline.evolve import Teaching, evolve_rows
from forethought.pipeline.recipe import BuildConfig, DataConfig, Recipe
from forethought.pipeline.requests import select
from forethought.policy import default_policy
from forethought.progress import Progress
from forethought.records import Request, read_jsonl

DATA = DataConfig(
    harmful=(SourceSpec(path="shipped:harmful"),), harmless=(SourceSpec(path="shipped:ordinary"),), max_harmless=400
)


def _tasks(tmp_path: Path, *left_out: str) -> set[str]:
    selected, out = tmp_path / "select", tmp_path / "-".join(["out", *left_out])
    selected.mkdir(exist_ok=True)
    out.mkdir()
    select(DATA, default_policy(), selected, Progress())
    recipe = Recipe(name="x", data=DATA, build=BuildConfig(leave_out=left_out))
    teaching = Teaching(journal=tmp_path / "journal.jsonl", progress=Progress())
    evolve_rows(recipe, default_policy(), selected, out, teaching)
    rows = read_jsonl(out / "train.jsonl", Request)
    return {task for row in rows if row.harmful is False for task in row.categories}


def test_a_category_is_left_out_and_the_others_stay(tmp_path: Path) -> None:
    assert _tasks(tmp_path) - _tasks(tmp_path, "sums", "code") == {"sums", "code"}


def test_a_category_that_no_request_has_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="category 'riddles'"):
        _tasks(tmp_path, "riddles")


def test_settings_without_it_are_as_they_were() -> None:
    assert "leave_out" not in BuildConfig().model_dump()  # a stage's key holds them
