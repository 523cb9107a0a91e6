"""`forethought plan`: what it counts, what it assumes aloud, and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forethought.cli import app
from forethought.errors import ConfigError, InputError, ModelError
from forethought.pipeline.run import run
from forethought.records import write_jsonl
from tests.pipeline.test_own_policy import own_file, policy_file
from tests.tiny import harmful_example, harmless_example, tiny_folder
from tests.training.test_fit import make_rows

PAPER = Path(__file__).resolve().parents[2] / "recipes" / "paper-llama-3.1-8b.yaml"
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
    args = ["plan", str(recipe), "--model", "llama-8b", "--on", "h100", "--device-gib", "24", "--longest", "1024"]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0, done.output
    assert "8,030,261,248" in done.output
    assert "Does not fit. What would: gradient_checkpointing: true" in done.output
    assert "Assumed:" in done.output


@pytest.mark.parametrize(
    ("args", "parameters", "trained"),
    [
        (["--on", "h100", "--devices", "2"], "8,030,261,248", "54,525,952"),
        # Rank 64 on q and o (8192 by 8192) and on k and v (1024 by 8192), in 80 layers.
        (["--model", "llama-70b", "--on", "h100", "--devices", "8", "--sharded"], "70,553,706,496", "262,144,000"),
    ],
)
def test_the_papers_recipe_is_planned_with_its_assumptions(args: list[str], parameters: str, trained: str) -> None:
    done = CliRunner().invoke(app, ["plan", str(PAPER), *args])
    assert done.exit_code == 0, done.output
    assert parameters in done.output
    assert trained in done.output
    assert "14,982" in done.output
    assert "Fits." in done.output
    said = done.output[done.output.index("Assumed:") :]
    for part in (
        "9,988 harmful and 9,988 harmless rows by the sources' limits, none dropped",
        "50% of them harmful; the longest 1024",
        "tokens counted by the tokenizer of embedded",
        "989 TFLOP/s a device at most, 35% of it reached",
        "frozen weights of 2 bytes; 10% of memory left to the framework",
    ):
        assert part in said


def test_this_machine_is_planned_for_unless_another_is_named(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It said 2.6e-06 hours, on an H100 that was not there."""
    monkeypatch.setattr("forethought.research.footprint._memory_gib", lambda: 7.5)
    monkeypatch.setattr("forethought.research.footprint._measured_tflops", lambda: 0.2)
    monkeypatch.setattr("forethought.research.footprint._has_gpu", lambda: False)
    found = json.loads(CliRunner().invoke(app, ["plan", str(recipe), "--json", "--row-tokens", "50"]).output)
    rate = 0.2e12 * 0.6
    assert found["device_gib"] == 7.5
    assert found["hours"] == pytest.approx(20_000 * found["footprint"]["flops_a_token"] / rate / 3600)
    assert any("on this machine" in said for said in found["assumptions"])
    other = json.loads(CliRunner().invoke(app, ["plan", str(recipe), "--json", "--on", "a100"]).output)
    assert other["device_gib"] == 80
    assert not any("on this machine" in said for said in other["assumptions"])


def test_the_recipe_is_shown_with_what_it_does_not_name(recipe: Path) -> None:
    done = CliRunner().invoke(app, ["plan", str(recipe)])
    for line in ("checkpoint_steps: 20", "rank: 4", "styled_share: 0.6", "max_false_refusal: 0.04"):
        assert line in done.output


def test_plan_says_what_a_run_would_stop_at(recipe: Path, tmp_path: Path) -> None:
    """A plan of this recipe ended in an error about a rule id, and of a missing file it knew nothing."""
    policy_file(tmp_path, "Prices", "Addresses")
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(text + f"policy: {tmp_path}/policy.yaml\n", encoding="utf-8")
    found = json.loads(CliRunner().invoke(app, ["plan", str(recipe), "--json"]).output)
    assert ["no request to learn from" in stop for stop in found["stops"]] == [True]
    with pytest.raises(ConfigError, match="no request to learn from"):
        run(recipe, out=tmp_path / "out")
    recipe.write_text(text.replace("shipped:harmful", str(own_file(tmp_path))), encoding="utf-8")
    assert json.loads(CliRunner().invoke(app, ["plan", str(recipe), "--json"]).output)["stops"] == []
    (tmp_path / "own.csv").unlink()
    done = CliRunner().invoke(app, ["plan", str(recipe)])
    assert "A run would stop: " in done.output
    assert "own.csv" in done.output


def test_a_budget_larger_than_the_sources_is_not_filled(recipe: Path) -> None:
    """Ten harmful and ten harmless requests make as many rows as the recipe has of each, whatever the budget."""
    sources = _DATA.replace("shipped:harmful", "shipped:harmful, limit: 10")
    sources = sources.replace("shipped:ordinary", "shipped:ordinary, limit: 10")
    text = recipe.read_text(encoding="utf-8").replace(_DATA, sources)
    recipe.write_text(text.replace("max_tokens: 10000", "max_tokens: 900000"), encoding="utf-8")
    done = CliRunner().invoke(app, ["plan", str(recipe), "--json", "--row-tokens", "50"])
    assert done.exit_code == 0, done.output
    # One and a fifth of harmful rows, one and a tenth of harmless ones.
    assert json.loads(done.output)["rows"] == 12 + 11


def test_rows_that_have_to_be_solved_are_counted(recipe: Path) -> None:
    """Beside ten of each: all of them, and longer ones."""
    sources = _DATA.replace("shipped:harmful", "shipped:harmful, limit: 10")
    sources = sources.replace("shipped:ordinary", "shipped:ordinary, limit: 10")
    plain = (
        recipe.read_text(encoding="utf-8").replace(_DATA, sources).replace("{max_tokens: 10000}", "{styled_share: 0}")
    )
    solve = "{solve: {disguises: [notes], rows: 40, skill: 20}, styled_share: 0}"
    found = []
    for text in (plain, plain.replace("{styled_share: 0}", solve)):
        recipe.write_text(text, encoding="utf-8")
        found.append(json.loads(CliRunner().invoke(app, ["plan", str(recipe), "--json"]).output))
    assert found[1]["rows"] - found[0]["rows"] == 60
    assert found[1]["tokens"] / found[1]["rows"] > found[0]["tokens"] / found[0]["rows"]
    assert any("60 that have to be solved" in said for said in found[1]["assumptions"])


@pytest.mark.parametrize(
    ("old", "new", "args", "kind", "parts"),
    [
        ("", "", ["--model", "./none"], ModelError, ("./none: has no config", "Give a folder", "one of: llama-1b")),
        ("rank: 4", "rank: 0", [], ConfigError, ("train.rank", "greater than or equal to 1", "docs/run.md")),
        ("rank: 4", "skip_layers: 2", [], ConfigError, ("skip_layers: 2: leaves none", "Skip fewer than 2")),
    ],
)
def test_bad_input_names_value_rule_and_fix(
    recipe: Path, old: str, new: str, args: list[str], kind: type[Exception], parts: tuple[str, ...]
) -> None:
    recipe.write_text(recipe.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    error = CliRunner().invoke(app, ["plan", str(recipe), *args]).exception
    assert isinstance(error, kind)
    assert all(part in str(error) for part in parts), str(error)


@pytest.mark.parametrize("args", [["--devices", "0"], ["--mfu", "2"], ["--rows", "0"], ["--longest", "1"]])
def test_options_out_of_range_are_refused(recipe: Path, args: list[str]) -> None:
    done = CliRunner().invoke(app, ["plan", str(recipe), *args])
    assert done.exit_code == 2
    assert args[0] in done.output


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    error = CliRunner().invoke(app, ["plan", str(tmp_path / "none.yaml")]).exception
    assert isinstance(error, ConfigError)
    assert "recipes/quickstart.yaml" in str(error)


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


def test_nodes_hours_and_dollars_for_so_many_prompts(recipe: Path) -> None:
    args = ["plan", str(recipe), "--json", "--row-tokens", "50", "--tflops", "1", "--prompts", "1000000"]
    asked = [*args, "--rate", "1000", "--node-servers", "2", "--node-dollars", "50"]
    by_nodes = json.loads(CliRunner().invoke(app, [*asked, "--nodes", "4"]).output)["teaching"]
    hours = by_nodes["output_tokens"] / 1000 / 3600 / 2 / 4
    assert by_nodes["hours"] == pytest.approx(hours)
    assert by_nodes["dollars"] == pytest.approx(4 * 50 * hours)
    by_hours = json.loads(CliRunner().invoke(app, [*asked, "--within-hours", "3"]).output)["teaching"]
    assert by_hours["hours"] <= 3 < by_hours["hours"] * by_hours["nodes"] / (by_hours["nodes"] - 1)
    with pytest.raises(ConfigError, match="needs --rate"):
        CliRunner().invoke(app, args, catch_exceptions=False)
