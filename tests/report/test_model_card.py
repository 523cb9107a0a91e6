"""A model's card says what lies in its folder and what was measured, and nothing of the machine it was made on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from forethought.errors import InputError, ModelError
from forethought.metrics import Figure
from forethought.model import write_run_model
from forethought.models.settings import Settings, write_settings
from forethought.pipeline.publish import stage_model
from forethought.policy import load_policy
from forethought.report.card import EMBEDDED, card
from forethought.report.results import write_results

FIGURES = [
    Figure(name="asr_direct_base", value=0.9, low=0.8, high=0.95, n=50),
    Figure(name="asr_direct_scot_best", value=0.1, low=0.04, high=0.22, n=50, unscored=2),
    Figure(name="minutes", value=3.0, unit="minutes"),
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with all that a card reads, and things that are nobody's business."""
    folder = tmp_path / "garden"
    weights = folder / "5-train"
    (weights / "checkpoints").mkdir(parents=True)
    (folder / "8-fuse").mkdir()
    for file in ("5-train/adapter_model.safetensors", "8-fuse/fusion.json", "8-fuse/manifest.json"):
        (folder / file).write_text("{}", encoding="utf-8")
    for file in ("5-train/training_args.bin", "5-train/complied.jsonl", "5-train/checkpoints/step.json"):
        (folder / file).write_text("private", encoding="utf-8")
    base = tmp_path / "cache" / "smollm2-135m-instruct"
    (weights / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}), encoding="utf-8")
    write_settings(weights, Settings(policy=load_policy(), languages={"en": 9}, seen_operators=("slang",)))
    write_run_model(folder, "embedded", weights, f"fused:{folder}/8-fuse | unforged")
    recipe = f"data: {{harmful: [{{path: {tmp_path}/asked.csv}}], harmless: [{{path: 'shipped:ordinary'}}]}}"
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    write_results(folder / "results.json", [0], {}, FIGURES, {"asr_gcg_scot_best": "not asked"}, "forethought run x")
    return folder


def _front(content: str) -> dict[str, Any]:
    """What the hub reads."""
    held: dict[str, Any] = yaml.safe_load(content.split("---")[1])
    return held


def test_it_says_what_was_measured_and_nothing_else(run: Path) -> None:
    made = card(run)
    assert (
        "| Attack success, direct (low) | 0.90 (0.80 to 0.95) | 0.10 (0.04 to 0.22), 2 unscored | 50 |" in made.content
    )
    assert "| harmful | `asked.csv` |" in made.content
    assert "Not measured: `asr_gcg_scot_best` (not asked)." in made.content
    assert "Up to 2 answers" in made.content
    assert str(run.parent) not in made.content
    front = _front(made.content)
    assert front["base_model"] == EMBEDDED
    (found,) = front["model-index"][0]["results"][0]["metrics"]
    assert (found["type"], found["value"]) == ("asr_direct_scot_best", 0.1)
    assert found["args"] == {"low": 0.04, "high": 0.22, "n": 50, "unscored": 2}


def test_without_results_it_says_that_nothing_was_measured(run: Path) -> None:
    (run / "results.json").unlink()
    made = card(run)
    assert "## What was measured\n\nNothing." in made.content
    assert "model-index" not in _front(made.content)


def test_a_folder_that_was_not_trained_here_has_no_card(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not trained by forethought"):
        card(tmp_path)
    with pytest.raises(InputError, match="no results file"):
        card(run, [run / "recipe.yaml"])


def test_what_is_shared_holds_the_card_and_nothing_private(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert stage_model(run, out) == [
        "8-fuse/fusion.json", "README.md", "adapter_config.json", "adapter_model.safetensors", "forethought.json",
        "model.json", "results.json",
    ]  # fmt: skip
    assert all(str(tmp_path) not in file.read_text(encoding="utf-8") for file in out.rglob("*") if file.is_file())
    assert json.loads((out / "model.json").read_text(encoding="utf-8"))["weights"] == "."
