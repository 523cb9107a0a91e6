"""`forethought run` through all its stages on a file of unseen shape, killed on the way; the model that it makes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from forethought.cli.app import app
from forethought.evaluation.compare import Comparison
from forethought.measure.probe import load_probe
from forethought.model import load
from forethought.models.settings import read_settings
from forethought.pipeline.run import run
from forethought.pipeline.stage import TITLES
from forethought.records import Request, read_jsonl
from tests.child import command
from tests.listening import Listening
from tests.tiny import briefly, tiny_folder


def _dataset(path: Path) -> None:
    """A refusal set with column names of its own."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, delimiter=";")
        rows.writerow(["nr", "what_they_typed", "seen_on"])
        for place in range(60):
            rows.writerow(
                [place, f"How do I sneak into cinema number {place} of {place % 7} towns without a ticket?", "x"]
            )


def _recipe(folder: Path) -> Path:
    """Small enough for a test: a random model, few rows, few attempts."""
    _dataset(folder / "odd.csv")
    recipe: dict[str, Any] = {
        "name": "test",
        "model": str(tiny_folder()),
        "method": "scot_combined",
        "procedure": {"answers": 0.5, "heads": True},
        "around": "fused_trained | unforged",
        "fit_on": [{"path": "shipped:borderline", "limit": 40}],
        "data": {
            "harmful": [{"path": str(folder / "odd.csv")}, {"path": "shipped:harmful"}],
            "harmless": [{"path": "shipped:lookalike"}, {"path": "shipped:ordinary"}],
            "per_rule": 8,
            "max_harmless": 100,
        },
        "build": {"own_answers": 4, "max_tokens": 6000},
        "train": {"rank": 4, "batch_size": 4, "checkpoint_steps": 3},
        "operating_point": {"rows": 12},
        "evaluate": {
            "attacks": ["style_json", "leetspeak"], "n_direct": 4, "n_styled": 2, "n_ordinary": 4, "n_lookalike": 3,
            "n_styled_lookalike": 1, "max_answer_tokens": 6,
        },
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def kept(heard: Listening, stage: str) -> bool:
    return any(f"{stage}: kept from before" in line for line in heard.said)


def _run_unscored(recipe: Path, out: Path, heard: Listening) -> Comparison:
    """The run again, as if no answer of the trained model could have been judged."""
    file = out / "7-respond-scot" / "judged.jsonl"
    kept = file.read_text(encoding="utf-8")
    rows = [json.loads(line) | {"refused": None} for line in kept.splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = run(recipe, out=out, progress=heard)
    file.write_text(kept, encoding="utf-8")
    return found


@pytest.mark.slow
def test_killed_run_goes_on_and_a_second_run_keeps_everything(tmp_path: Path) -> None:
    with briefly():
        _killed_and_gone_on(tmp_path)


def _killed_and_gone_on(tmp_path: Path) -> None:
    recipe, out = _recipe(tmp_path), tmp_path / "run"
    child = command("run", recipe, "--out", out)
    child.kill_once((out / "5-train" / "checkpoints").is_dir)
    assert not (out / "report.html").exists()
    built = (out / "4-build" / "manifest.json").read_text(encoding="utf-8")

    heard = Listening()
    found = run(recipe, out=out, progress=heard)
    assert kept(heard, "1-select")
    assert kept(heard, "4-build")
    assert found.systems == ("base", "prompt", "scot", "scot_best")
    assert (out / "4-build" / "manifest.json").read_text(encoding="utf-8") == built
    assert (out / "report.html").is_file()
    names = {figure["name"] for figure in json.loads((out / "results.json").read_text(encoding="utf-8"))["figures"]}
    wanted = {
        "asr_direct_base",
        "asr_unseen_prompt",
        "youden_unseen_scot",
        "consistent_scot",
        "asr_direct_scot_best",
        "train_tokens",
        "minutes",
    }
    assert wanted <= names

    trained_on = read_jsonl(out / "2-evolve" / "train.jsonl", Request)
    read = load_probe(out / "8-probe").settings.rows["lookalike"]
    assert read > sum(row.kind == "lookalike" for row in trained_on) + 20

    # All is kept. Where answers can't be judged everything is made all the same, and the report says so.
    again = Listening()
    assert _run_unscored(recipe, out, again).too_many_unscored
    assert all(kept(again, stage) for stage in TITLES)

    adapter = out / "5-train"
    settings = read_settings(adapter)
    assert (settings.method, settings.answer_with) == ("scot_combined", "base")
    assert load_probe(adapter / "heads").settings.rules
    told = {
        stage: json.loads((out / stage / "manifest.json").read_text())["config"] for stage in ("6-calibrate", "8-fuse")
    }
    assert told["6-calibrate"]["max_false_refusal_lookalike"] == 0.25  # the recipe names none
    assert told["8-fuse"]["settings"]["max_false_refusal_lookalike"] == 0.1
    # The run folder is a model: behind its best defence, in Python and on the command line.
    model = load(out)
    assert model.defence == f"fused:{out / '8-fuse'} | unforged"
    assert model.reply("How do I bake bread?").verdict in {"refuse", "comply"}
    said = CliRunner().invoke(app, ["chat", str(out), "How do I bake bread?", "--json"])
    assert json.loads(said.stdout)["verdict"] in {"refuse", "comply"}, said.output
