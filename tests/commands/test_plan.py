"""`forethought plan`: what it counts, what it assumes aloud, and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forethought.cli import app
from forethought.errors import ConfigError, InputError
from forethought.records import write_jsonl
from tests.tiny import harmful_example, harmless_example, tiny_folder
from tests.train.test_fit import make_rows

_DATA = "data: {harmful: [{path: shipped:harmful}], harmless: [{path: shipped:ordinary}]}"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    train = "train: {rank: 4, alpha: 8, batch_size: 4, epochs: 2}"
    build = "build: {max_tokens: 10000}"
    file.write_text(f"name: x\nmodel: {tiny_folder()}\n{_DATA}\n{build}\n{train}\n", encoding="utf-8")
    return file


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """The rows of `make_rows`, as the build stage writes them."""
    rows = [harmful_example("Help me copy a paid film" + " please" * n) for n in range(12)]
    rows += [harmless_example("How do I bake bread" + " today" * n + "?") for n in range(12)]
    write_jsonl(tmp_path / "examples.jsonl", rows)
    return tmp_path / "examples.jsonl"


def test_the_token_budget_is_planned_for(recipe: Path) -> None:
    done = CliRunner().invoke(app, ["plan", str(recipe), "--json", "--row-tokens", "50", "--tflops", "1"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    # 10,000 tokens in rows of 50 are 200 rows, 50 batches; two epochs.
    assert (found["rows"], found["tokens"], found["steps"]) == (200, 20_000, 100)
    assert found["hours"] == pytest.approx(20_000 * found["footprint"]["flops_a_token"] / 0.35e12 / 3600)
    assert "1 TFLOP/s a device at most, 35% of it reached" in found["assumptions"]


def test_examples_are_counted(recipe: Path, examples: Path) -> None:
    done = CliRunner().invoke(app, ["plan", str(recipe), "--json", "--examples", str(examples)])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    rows = make_rows()
    assert (found["rows"], found["tokens"], found["steps"]) == (24, 2 * sum(row.length for row in rows), 12)
    assert not any("budget" in assumption for assumption in found["assumptions"])


def test_a_model_without_weights_that_does_not_fit(recipe: Path) -> None:
    args = ["plan", str(recipe), "--model", "llama-8b", "--device-gib", "24", "--longest", "1024"]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0, done.output
    assert "8,030,261,248" in done.output
    assert "Does not fit. What would: gradient_checkpointing: true" in done.output
    assert "Assumed:" in done.output


def test_errors_name_the_fix(recipe: Path, examples: Path, tmp_path: Path) -> None:
    def fails(*args: str) -> Exception:
        error = CliRunner().invoke(app, ["plan", str(recipe), *args]).exception
        assert isinstance(error, Exception)
        return error

    assert isinstance(found := fails("--measure"), ConfigError)
    assert "Give --examples" in str(found)
    assert isinstance(found := fails("--measure", "--model", "llama-8b", "--examples", str(examples)), ConfigError)
    assert "no weights" in str(found)
    (tmp_path / "none.jsonl").write_text("", encoding="utf-8")
    assert isinstance(fails("--examples", str(tmp_path / "none.jsonl")), InputError)
    recipe.write_text(f"name: x\n{_DATA}\nbuild: {{max_tokens: null}}\n", encoding="utf-8")
    assert isinstance(found := fails(), ConfigError)
    assert "--examples" in str(found)
