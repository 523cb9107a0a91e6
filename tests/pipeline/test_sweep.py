"""`forethought sweep` through its command: every kind of defence, killed on the way, kept, and one method more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from forethought.cli.app import app
from forethought.commands.shared import console
from forethought.defences.fusion import load_fusion
from forethought.engine.settings import read_settings
from forethought.errors import ConfigError
from forethought.evals.metrics import Figure
from forethought.evals.suite.records import Judged
from forethought.pipeline.sweep.around import unfitted
from forethought.pipeline.sweep.config import MethodEntry, Sweep, load_sweep, method_of
from forethought.pipeline.sweep.report import sweep_figures
from forethought.pipeline.sweep.workers import cells_for_workers, end_with_parent, lenders
from forethought.records import read_jsonl
from forethought.report.sweep_rows import SweepRow
from forethought.train.objectives.latent import LatentObjective
from tests.pipeline.sweep_content import sweep_content
from tests.tiny import tiny_folder

FIGURES = (
    "auroc_unseen", "youden_unseen", "youden_unseen_low", "refused_styled_harmless", "asr_unseen",
    "asr_direct", "asr_reasoning", "refused_lookalike", "refused_ordinary", "capability",
)  # fmt: skip


def _write(folder: Path, **changes: Any) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep_content(**changes)), encoding="utf-8")
    return path


def _run(file: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "forethought.cli", "sweep", str(file), "--out", str(out), *more]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}, check=False)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command in this process: one of its own takes ten seconds to start."""
    monkeypatch.setattr(console, "width", 200)

    def run(file: Path, out: Path, *more: str) -> Result:
        return CliRunner().invoke(app, ["sweep", str(file), "--out", str(out), *more])

    return run


def test_a_killed_sweep_goes_on_and_a_method_more_is_that_method_alone(
    tmp_path: Path, here: Callable[..., Result]
) -> None:
    best_of = {"id": "scot_best", "weights_of": "scot", "around": "fused"}
    read = {"id": "read", "weights_of": "scot", "around": "fused_intent"}
    own = {"id": "own", "weights_of": "scot", "around": "fused_trained | unforged"}
    at_two = {"id": "at_two", "weights_of": "scot", "threshold": 2.0, "answer_with": "base"}
    methods = ["scot", "scot_split", "refusal", best_of, read, own, at_two]
    file, out = _write(tmp_path, methods=methods), tmp_path / "out"
    command = [sys.executable, "-m", "forethought.cli", "sweep", str(file), "--out", str(out)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    scot = out / f"{tiny_folder().name}-s0" / "scot-b1500"
    for _ in range(2400):
        if (scot / "attack" / "manifest.json").is_file() or child.poll() is not None:
            break
        time.sleep(0.05)
    assert child.poll() is None, "the sweep ended before it could be killed"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    weights = scot / "train" / "adapter_model.safetensors"
    before = weights.stat().st_mtime_ns

    done = here(file, out)
    assert "Report:" in done.output, done.output
    assert weights.stat().st_mtime_ns == before, "a finished training was done again"
    names = {figure["name"] for figure in json.loads((out / "results.json").read_text())["figures"]}
    for defence in ("base", "prompt", "linear_probe", "scot", "scot_split", "refusal", "scot_best"):
        assert {f"{name}_{defence}" for name in FIGURES} <= names | _unscored(out), defence
    assert ("asr_matched_refusal" in names) == ("refused_styled_harmless_scot" in names)
    assert "asr_gcg_scot" in names | _unscored(out)
    assert "asr_gcg_refusal" not in names
    assert {f"latency_{one}" for one in ("prompt", "linear_probe", "scot", "refusal", "scot_best")} <= names
    assert {"asr_best_of_n_refusal", "asr_best_of_n_scot_best"} <= names | _unscored(out)
    # Split answering shares its weights, and so does what has a fusion around it.
    split = scot.with_name("scot_split-b1500") / "train"
    assert (split / "adapter_model.safetensors").read_bytes() == weights.read_bytes()
    assert json.loads((split / "forethought.json").read_text())["answer_with"] == "base"
    best = scot.with_name("scot_best-b1500")
    assert (best / "train" / "adapter_model.safetensors").read_bytes() == weights.read_bytes()
    assert load_fusion(best / "fuse")[0].n_calibration > 1
    assert not load_fusion(best / "fuse")[0].reads_intent
    for name, trained in (("read", False), ("own", True)):
        fusion, probe = load_fusion(scot.with_name(f"{name}-b1500") / "fuse")
        assert fusion.reads_intent
        assert probe.settings.trained is trained
    given = scot.with_name("at_two-b1500") / "train"
    assert (given / "adapter_model.safetensors").read_bytes() == weights.read_bytes()
    assert (read_settings(given).threshold, read_settings(given).answer_with) == (2.0, "base")
    assert read_settings(scot / "train").threshold != 2.0
    # What the lender of the weights said is taken over where all else is the same, and decided anew at a threshold.
    lent, decided = (_log_odds(scot.with_name(name) / "attack") for name in ("scot-b1500", "at_two-b1500"))
    assert {name: odds for name, (odds, _) in lent.items()} == {name: odds for name, (odds, _) in decided.items()}
    assert decided
    assert all(decision == ("refuse" if odds >= 2.0 else "comply") for odds, decision in decided.values())

    asked = sweep_content()["evaluate"] | {"n_questions": 3}
    further = _write(tmp_path, methods=[*methods, "scot_no_benign"], evaluate=asked)
    now = here(further, out, "--so-far")
    assert now.exit_code == 1
    assert json.loads((out / "results.json").read_text())["missing"]["auroc_unseen_scot_no_benign"] == "not run yet"
    assert not (scot / "questions").exists(), "what is not done yet was done for a report of what is"
    more = here(further, out)
    assert (scot / "questions" / "manifest.json").is_file()
    assert "scot_no_benign-b1500 train" in more.stdout.replace("\n", " ")
    kept = [line for line in more.stdout.splitlines() if "kept from before" in line]
    assert any("scot-b1500 train" in line for line in kept)
    assert weights.stat().st_mtime_ns == before


def _log_odds(attack: Path) -> dict[str, tuple[float, str | None]]:
    """By attempt: the verdict's log-odds and what was decided, where there is a verdict."""
    found = [(row.attempt.id, row.response) for row in read_jsonl(attack / "judged.jsonl", Judged)]
    return {name: (said.log_odds, said.decision) for name, said in found if said and said.log_odds is not None}


def _unscored(out: Path) -> set[str]:
    """A random model's answers are often garbled: such figures are missing with their reason."""
    return set(json.loads((out / "results.json").read_text()).get("missing", {}))


def test_a_method_that_finds_no_rows_is_missing_and_the_others_go_on(
    tmp_path: Path, here: Callable[..., Result]
) -> None:
    no_such_style = {"operators": ["slang"], "exclude_operators": ["formal"]}
    split = {"id": "split", "name": "scot_split", "weights_of": "refusal"}
    methods = [{"id": "odd", "name": "refusal", "build": no_such_style}, "refusal", split]
    goals = [
        {"figure": "asr_direct_base", "most": 1.0, "why": "of the base"},
        {"figure": "auroc_unseen_odd", "least": 0.5},
    ]
    file = _write(tmp_path, methods=methods, prompts=[], wrappers=[], budgets=[5], goals=goals)
    done = here(file, tmp_path / "out")
    assert done.exit_code == 1
    assert "1 of 2 goals met" in done.stdout
    assert "not measured" in done.stdout
    held = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "is not there to be excluded" in held["missing"]["auroc_unseen_odd"]
    assert "no row fits" in held["missing"]["auroc_unseen_refusal"]
    assert "that one was not trained" in held["missing"]["auroc_unseen_split"]
    assert any(figure["name"].endswith("_base") for figure in held["figures"])


def test_answers_are_asked_for_anew_where_a_defences_options_change(
    tmp_path: Path, here: Callable[..., Result]
) -> None:
    evaluate = sweep_content()["evaluate"] | {"searches": [], "latency": None, "reasoning": []}
    evaluate["gcg"] = {"defences": []}
    several = "self_reminder | unforged:words=5"
    for wrapper, kept in (("unforged", False), ("unforged", True), ("unforged:words=5", False), (several, False)):
        file = _write(tmp_path, methods=[], prompts=[], wrappers=[wrapper], evaluate=evaluate)
        said = here(file, tmp_path / "out").stdout.replace("\n", " ")
        assert ("unforged attack: kept from before" in said) is kept, wrapper
    names = {figure["name"] for figure in json.loads((tmp_path / "out" / "results.json").read_text())["figures"]}
    assert "asr_direct_self_reminder_unforged" in names


@pytest.mark.parametrize(
    ("spec", "beside"),
    [
        ("fused_trained", ""), ("linear_probe", ""), ("fused_trained | unforged", "unforged"),
        ("self_consistency:frames=2", "self_consistency:frames=2"), ("fused:kept", "fused:kept"),
    ],
)  # fmt: skip
def test_what_of_a_defence_no_stage_stands_for(spec: str, beside: str) -> None:
    assert unfitted(spec) == beside


def test_the_plan_is_shown_and_nothing_is_run(tmp_path: Path, here: Callable[..., Result]) -> None:
    done = here(_write(tmp_path), tmp_path / "out", "--plan")
    assert done.exit_code == 0
    assert "scot_split" in done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": ["scott"]}, "no such method"),
        ({"methods": ["scot", "scot"]}, "stands twice"),
        ({"methods": [{"name": "scot", "train": {"rank": 0}}]}, "train.rank"),
        ({"methods": [{"name": "latent_adversarial", "objective": {"steps": 4}}]}, "objective.steps"),
        ({"methods": [{"name": "scot_hardened", "procedure": {"rounds": 0}}]}, "rounds"),
        ({"methods": [{"name": "scot", "procedure": {"rounds": 1}}]}, "no settings of its own"),
        ({"prompts": ["be_nice"]}, "no such prompting defence"),
        ({"wrappers": ["armour"]}, "no such defence at inference"),
        ({"wrappers": ["smooth_llm:10", "smooth_llm:20"]}, "smooth_llm stands twice"),
        ({"methods": [{"name": "scot", "around": "armour"}]}, "no such defence at inference"),
        ({"methods": [{"name": "scot", "around": "fused | armour"}]}, "no such defence at inference"),
        ({"methods": [{"name": "scot", "around": "fused | unforged:words=0"}]}, "greater than or equal to 1"),
        ({"evaluate": sweep_content()["evaluate"] | {"searches": [{"method": "pair"}]}}, "needs attacker"),
        ({"evaluate": sweep_content()["evaluate"] | {"searches": [{"method": "gcg"}]}}, "gcg stands twice"),
        ({"evaluate": sweep_content()["evaluate"] | {"searches": [{"method": "luck"}]}}, "no such search"),
        ({"methods": [{"id": "a", "weights_of": "scot"}]}, "no entry before it"),
        ({"goals": [{"figure": "auroc_unseen_scot"}]}, "either `least` or `most`"),
        ({"methods": ["scot", {"id": "a", "weights_of": "scot", "train": {"rank": 4}}]}, "can't train otherwise"),
    ],
)
def test_what_would_fail_hours_later_is_told_at_once(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_sweep(_write(tmp_path, **changes))


def test_an_attack_that_needs_an_attacker_is_told_at_once(tmp_path: Path) -> None:
    evaluate = sweep_content()["evaluate"] | {"attacks": ["poems"]}
    with pytest.raises(ConfigError, match="needs attacker"):
        load_sweep(_write(tmp_path, evaluate=evaluate))


def test_a_method_takes_its_own_objective_and_training_settings() -> None:
    sweep = Sweep.model_validate(sweep_content())
    entry = MethodEntry(name="latent_adversarial", train={"rank": 3}, objective={"inner_steps": 2})
    method, config = method_of(sweep, entry, sweep.bases[0], seed=5)
    objective = method.objective(config, 2)
    assert isinstance(objective, LatentObjective)
    assert objective.inner_steps == 2
    assert (config.rank, config.batch_size, config.seed) == (3, 4, 5)


def test_seeds_are_averaged_under_the_plain_name() -> None:
    rows = [
        SweepRow(
            defence="scot", title="SCoT", base="b", seed=seed, budget=10, tokens=9, train_seconds=1.0,
            figures=(Figure(name="auroc_unseen", value=value, low=value - 0.1, high=value + 0.1, n=20),),
        )
        for seed, value in ((0, 0.5), (1, 0.7))
    ]  # fmt: skip
    found = {figure.name: figure for figure in sweep_figures(rows)}
    assert found["auroc_unseen_scot_b_s0_b10"].value == 0.5
    mean = found["auroc_unseen_scot"]
    assert mean.value == pytest.approx(0.6)
    assert mean.low is not None
    assert mean.low < 0.4  # two seeds that far apart say little
    assert mean.n == 40
    assert {figure.name for figure in sweep_figures(rows[:1])} == {
        "auroc_unseen_scot", "train_tokens_scot", "train_seconds_scot",
    }  # fmt: skip


def test_workers_do_the_cells_and_one_that_fails_is_missing_with_its_reason(tmp_path: Path) -> None:
    methods = ["refusal", {"id": "starved", "name": "refusal", "train": {"skip_layers": 40}}]
    file, out = _write(tmp_path, methods=methods, prompts=[], wrappers=[]), tmp_path / "out"
    done = _run(file, out, "--workers", "2")
    said = done.stdout.replace("\n", " ")
    assert "refusal: done" in said, said + done.stderr
    assert "starved: ended with 1, see workers/starved.log" in said
    assert "train: kept from before" in said, "the worker's training was done again"
    assert "skip_layers: 40" in (out / "workers" / "starved.log").read_text()
    results = json.loads((out / "results.json").read_text())
    assert "asr_direct_refusal" in {figure["name"] for figure in results["figures"]}
    assert "skip_layers" in results["missing"]["auroc_unseen_starved"]


def test_a_worker_ends_with_its_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setenv("FORETHOUGHT_PARENT", str(os.getppid()))
    end_with_parent(ended.append)
    time.sleep(0.1)
    assert not ended
    monkeypatch.setattr(os, "getppid", lambda: 1)
    for _ in range(40):
        if ended:
            break
        time.sleep(0.1)
    assert ended == [1]


def test_a_defence_that_shares_weights_waits_for_them() -> None:
    sweep = Sweep.model_validate(sweep_content())
    assert lenders(sweep, ["scot_split", "refusal"]) == ["scot"]
    assert cells_for_workers(sweep) == ["prompt", "linear_probe", "scot", "refusal"]
    best = {"id": "best", "weights_of": "split"}
    chained = Sweep.model_validate(sweep_content(methods=["scot", {"id": "split", "weights_of": "scot"}, best]))
    assert lenders(chained, ["best"]) == ["scot", "split"]


def test_only_names_a_defence_of_the_sweep(tmp_path: Path) -> None:
    done = _run(_write(tmp_path), tmp_path / "out", "--only", "scott")
    assert done.returncode == 2
    assert "--only scott" in done.stderr + done.stdout
    assert "linear_probe" in done.stderr + done.stdout
