"""`forethought sweep` through its command, and what stands in its file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import Result

from forethought.errors import ConfigError
from forethought.metrics import Figure
from forethought.records import Request, read_jsonl
from forethought.research.cell import Cell
from forethought.research.config import MethodEntry, Sweep, load_sweep, method_of
from forethought.research.figures import missing_of, sweep_figures
from forethought.research.rows import SweepRow
from forethought.research.run import _Cells, unfitted
from forethought.training.methods.hidden_states import LatentObjective
from tests.research.sweep_content import EVALUATE, sweep_content, sweep_file
from tests.shell import run_here


@pytest.mark.slow
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
    file = sweep_file(tmp_path, methods=methods, prompts=[], wrappers=[], budgets=[5], goals=goals)
    done = here(file, tmp_path / "out")
    assert done.exit_code == 1
    assert "1 of 2 goals met" in done.stdout
    assert "not measured" in done.stdout
    held = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "is not there to be excluded" in held["missing"]["auroc_unseen_odd"]
    assert "no row fits" in held["missing"]["auroc_unseen_refusal"]
    assert "its weights are not here" in held["missing"]["auroc_unseen_split"]
    assert any(figure["name"].endswith("_base") for figure in held["figures"])


@pytest.mark.slow
def test_a_method_trains_on_a_source_more_and_never_on_what_the_sweep_tests(
    tmp_path: Path, here: Callable[..., Result]
) -> None:
    pairs = {"labelled": [{"path": "shipped:borderline_pairs", "limit": 40}], "max_harmless": None}
    fewer = {"harmless": [{"path": "shipped:lookalike"}]}
    changed = [{"id": name, "after": "refusal", "data": data} for name, data in (("paired", pairs), ("odd", fewer))]
    methods = ["refusal", *changed]
    out = tmp_path / "out"
    here(sweep_file(tmp_path, methods=methods, prompts=[], wrappers=[], goals=[]), out)
    held = json.loads((out / "results.json").read_text())
    assert "of the requests that the sweep tests" in held["missing"]["auroc_unseen_odd"]
    own, paired = (
        {Request.model_validate_json(line).id for line in (file / "1-select/train.jsonl").read_text().splitlines()}
        for file in (next(out.glob("*-s0/data")), _data_of(out, "shipped:borderline_pairs"))
    )
    assert own < paired
    cells = {cell.defence: cell for cell in read_jsonl(out / "cells.jsonl", Cell)}
    assert {"refusal", "paired"} <= cells.keys()
    assert cells["paired"].key != cells["refusal"].key


def _data_of(out: Path, source: str) -> Path:
    """The data folder whose stages name a source."""
    (found,) = [file for file in out.glob("*-s0/data-*") if source in (file / "1-select/manifest.json").read_text()]
    return found


@pytest.mark.slow
def test_answers_are_asked_for_anew_where_a_defences_options_change(
    tmp_path: Path, here: Callable[..., Result]
) -> None:
    several = "self_reminder | unforged:words=5"
    for wrapper, kept in (("unforged", False), ("unforged", True), ("unforged:words=5", False), (several, False)):
        file = sweep_file(tmp_path, methods=[], prompts=[], wrappers=[wrapper])
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
    done = here(sweep_file(tmp_path), tmp_path / "out", "--plan")
    assert done.exit_code == 0
    assert "scot_split" in done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": ["scott"]}, "no such method"),
        ({"methods": ["scot", "scot"]}, "stands twice"),
        ({"methods": [{"name": "scot", "train": {"rank": 0}}]}, "train, at 'rank'"),
        ({"methods": [{"name": "latent_adversarial", "objective": {"steps": 4}}]}, "objective.steps"),
        ({"methods": [{"name": "scot_hardened", "procedure": {"rounds": 0}}]}, "rounds"),
        ({"methods": [{"name": "scot", "procedure": {"rounds": 1}}]}, "no settings of its own"),
        ({"prompts": ["be_nice"]}, "no such prompting defence"),
        ({"wrappers": ["armour"]}, "no such defence at inference"),
        ({"wrappers": ["smooth_llm:10", "smooth_llm:20"]}, "smooth_llm stands twice"),
        ({"methods": [{"name": "scot", "around": "armour"}]}, "no such defence at inference"),
        ({"methods": [{"name": "scot", "around": "fused | armour"}]}, "no such defence at inference"),
        ({"methods": [{"name": "scot", "around": "fused | unforged:words=0"}]}, "greater than or equal to 1"),
        ({"evaluate": EVALUATE | {"searches": [{"method": "pair"}]}}, "needs attacker"),
        ({"evaluate": EVALUATE | {"searches": [{"method": "gcg"}]}}, "gcg stands twice"),
        ({"evaluate": EVALUATE | {"searches": [{"method": "luck"}]}}, "no such search"),
        ({"methods": [{"id": "a", "weights_of": "scot"}]}, "no entry before it"),
        ({"goals": [{"figure": "auroc_unseen_scot"}]}, "either `least` or `most`"),
        ({"methods": ["scot", {"id": "a", "weights_of": "scot", "train": {"rank": 4}}]}, "can't train otherwise"),
        ({"methods": [{"name": "refusal", "answer_with": "base"}]}, "nothing decides"),
        ({"methods": [{"name": "scot", "build": {"max_tokens": 9000}}]}, "holds rows to its budgets"),
        ({"methods": [{"name": "scot", "data": {"labeled": []}}]}, "method 'scot', data"),
        ({"methods": [{"name": "scot_hardened", "passes": 2}]}, "shares its budget out by itself"),
        ({"methods": ["scot", {"id": "a", "weights_of": "scot", "passes": 2}]}, "can't train otherwise"),
        ({"methods": [{"name": "refusal", "think_budget": 9}]}, "refusal has no thought"),
    ],
)
def test_what_would_fail_hours_later_is_told_at_once(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_sweep(sweep_file(tmp_path, **changes))


def test_an_attack_that_needs_an_attacker_is_told_at_once(tmp_path: Path) -> None:
    evaluate = EVALUATE | {"attacks": ["poems"]}
    with pytest.raises(ConfigError, match="needs attacker"):
        load_sweep(sweep_file(tmp_path, evaluate=evaluate))


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


def test_a_seed_that_is_missing_is_told_beside_the_mean_of_the_others() -> None:
    row = SweepRow(
        defence="scot", title="SCoT", base="b", seed=0, budget=10, tokens=9, train_seconds=1.0,
        figures=(Figure(name="auroc_unseen", value=0.5, low=0.4, high=0.6, n=20),),
    )  # fmt: skip
    left = row.model_copy(update={"seed": 1, "figures": (), "missing": "not run yet"})
    absent = left.model_copy(update={"defence": "refusal"})
    assert missing_of([row, left, absent]) == {
        "auroc_unseen_scot_b_s1_b10": "not run yet", "auroc_unseen_refusal": "not run yet",
    }  # fmt: skip
    assert {"auroc_unseen_scot", "auroc_unseen_scot_b_s0_b10"} <= {one.name for one in sweep_figures([row, left])}


@pytest.mark.parametrize(
    ("lender", "shared"),
    [
        ("scot", True),
        ({"name": "scot", "think_budget": 9, "threshold": 1.0}, True),
        ({"name": "scot", "passes": 2}, False),
        ({"name": "scot", "train": {"rank": 4}}, False),
        ({"id": "scot", "name": "scot_no_benign"}, False),
        ({"id": "other", "name": "scot"}, False),
    ],
)
def test_weights_are_shared_by_a_method_where_they_would_come_out_the_same(lender: Any, shared: bool) -> None:
    sweep = Sweep.model_validate(sweep_content(methods=[lender, "scot_split"]))
    assert sweep.trains_plainly("scot") is shared
    trained = object()
    cells = SimpleNamespace(_sweep=sweep, _weights={("scot", 9): trained}, _lenders={})
    found = _Cells._shared(cast(Any, cells), sweep.methods[1], "scot", 9)
    assert found is (trained if shared else None)


def test_only_names_a_defence_of_the_sweep(tmp_path: Path) -> None:
    done = run_here("sweep", sweep_file(tmp_path), "--out", tmp_path / "out", "--only", "scott")
    assert done.code == 2
    assert "--only scott" in done.err
    assert "linear_probe" in done.err
