"""The recipes for builds that users copy: their commands are ours, and do what they say."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.evaluation.test_acceptance import files, refusing
from tests.shell import run_here

FOLDER = Path(__file__).resolve().parents[2] / "recipes/ci"


def _commands(value: Any) -> Iterator[str]:
    """Every command of ours that stands anywhere in a recipe."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _commands(one)
    elif isinstance(value, str) and value.startswith("forethought "):
        yield value


@pytest.mark.parametrize("recipe", sorted(FOLDER.glob("*.yml")), ids=lambda file: file.name)
def test_the_commands_of_a_recipe_run_and_fail_by_their_limits(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "safety").mkdir()
    for name, file in zip(("traffic", "harmful"), files(tmp_path, 30), strict=True):
        Path(file).rename(tmp_path / f"safety/{name}.jsonl")
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    commands = [one.replace("$LAST", "").replace('"$MODEL"', "v1") for one in _commands(content)]
    assert commands
    for command in commands:
        for refused, code in ((0, 0), (20, 1)):
            monkeypatch.setattr(
                "forethought.model.load", lambda where, refused=refused, **how: refusing(range(refused))
            )
            arguments = shlex.split(command)[1:]
            if "--last" in arguments:
                assert run_here("check", "v1", *arguments[2:6], "--out", "runs/last").code == 0
            done = run_here(*arguments)
            assert done.code == code, done.out + done.err
            for file in re.findall(r"runs/check/[\w.]+\w", recipe.read_text(encoding="utf-8")):
                assert (tmp_path / file).is_file(), file
            for folder in ("check", "last"):
                shutil.rmtree(tmp_path / "runs" / folder, ignore_errors=True)
