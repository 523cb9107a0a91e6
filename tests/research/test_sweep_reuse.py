"""What weights said is not thought again where only their operating point changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from forethought.attempts.records import Judged
from forethought.cli.terminal import Terminal, console
from forethought.manifest import write_json
from forethought.models.local import LocalModel
from forethought.pipeline.fitting import Fitting, calibrate, read_calibration, recall, take_over
from forethought.pipeline.recipe import OperatingPoint
from forethought.pipeline.run import reuse_replies
from forethought.pipeline.stage import MANIFEST, StageRunner
from forethought.policy import default_policy
from forethought.progress import Progress
from forethought.reasoning import Decision
from forethought.records import write_jsonl
from forethought.research.cell import ATTACK, TRAIN, Cell, CellStages
from forethought.research.config import load_sweep
from forethought.research.log import Log
from forethought.research.run import run_cells
from forethought.research.sweep import run_sweep
from tests.judged import judged_one, request_of
from tests.research.sweep_content import EVALUATE, sweep_file
from tests.tiny import tiny_adapter, tiny_folder


def _said(number: int, decision: Decision, log_odds: float | None) -> Judged:
    request = request_of(f"Help me copy film number {number}", True)
    return judged_one(request, decision == "refuse", ("direct",), decision=decision, log_odds=log_odds)


def test_what_the_model_s_own_threshold_decides_otherwise_is_asked_anew(tmp_path: Path) -> None:
    model = LocalModel.load(str(tiny_folder()), tiny_adapter(tmp_path / "scot", threshold=0.5))
    kept = [_said(0, "comply", 0.2), _said(1, "refuse", 0.7)]
    lost = [_said(2, "refuse", 0.2), _said(3, "comply", 0.7), _said(4, "refuse", None)]
    reuse_replies(model, [*kept, *lost], max_tokens=8)
    assert model.known_replies == {(one.attempt.conversation, 8): one.response for one in kept}


def test_thoughts_of_the_calibration_are_known_to_whoever_takes_it_over(tmp_path: Path) -> None:
    adapter = tiny_adapter(tmp_path / "scot", threshold=0.5)
    dev = [request_of(f"Help me copy film number {n}", True) for n in range(3)]
    dev += [request_of(f"Explain how bakers bake loaf number {n}", False) for n in range(5)]
    first, second, bare = (tmp_path / name for name in ("first", "second", "bare"))
    for folder in (first, second, bare):
        folder.mkdir()
    with Terminal(console).bar("calibrate") as bar:
        chosen = calibrate(LocalModel.load(str(tiny_folder()), adapter), dev, OperatingPoint(rows=12), first, bar)
    assert take_over(bare, second) is None
    assert take_over(first, second) == chosen == read_calibration(second)

    model = LocalModel.load(str(tiny_folder()), adapter)
    recall(model, bare)
    assert model.known_replies == {}
    recall(model, second)
    known = {one.messages for one, length in model.known_replies if length == 0}
    assert len(known) == 7  # of each kind at most a third of twelve
    assert known >= {row.messages for row in dev[:3]}
    assert known <= {row.messages for row in dev}
    marked = {key: said.model_copy(update={"log_odds": 9.0}) for key, said in model.known_replies.items()}
    model.known_replies.update(marked)
    assert {one.log_odds for one in model.think(list(known))} == {9.0}


@pytest.mark.parametrize(
    ("trained", "attacked", "tokens", "reused"),
    [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z", 8, True),
        ("2026-01-01T00:05:00Z", "2026-01-01T00:00:00Z", 8, False),  # trained again since
        ("2026-01-01T00:00:00Z", "", 8, False),  # never finished
        ("2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z", 16, False),  # answers of another length
    ],
)
def test_an_attack_is_heard_again_of_the_same_weights_alone(
    tmp_path: Path, trained: str, attacked: str, tokens: int, reused: bool
) -> None:
    rows = [_said(0, "comply", 0.2)]
    folder = tmp_path / "scot"
    for stage, finished in ((TRAIN, trained), (ATTACK, attacked)):
        (folder / stage).mkdir(parents=True)
        note = {"config": {"max_answer_tokens": tokens}, **({"finished": finished} if finished else {})}
        write_json(folder / stage / MANIFEST, note)
    write_jsonl(folder / ATTACK / "judged.jsonl", rows)
    sweep = SimpleNamespace(evaluate=SimpleNamespace(max_answer_tokens=8))
    setting = SimpleNamespace(folder=tmp_path, key="", stage=lambda name: name)
    stages = CellStages(cast(Any, sweep), cast(Any, setting), "scot", Progress())
    assert stages.said_before() == (rows if reused else [])


def test_a_probe_of_the_same_weights_is_copied_and_nothing_is_read_for_it(tmp_path: Path) -> None:
    rows = [request_of(f"Help me copy film number {n}", True) for n in range(4)]
    rows += [request_of(f"Explain how bakers bake loaf number {n}", False) for n in range(4)]

    def fitting(name: str, model: Callable[[], LocalModel]) -> Fitting:
        stages = StageRunner(tmp_path / name, lambda line: None)
        return Fitting(model, rows, rows, default_policy(), OperatingPoint(), stages, Progress())

    def unread() -> LocalModel:
        raise AssertionError("the model is not to be opened")

    first = fitting("first", lambda: LocalModel.load(str(tiny_folder()))).probe("probe", rows)
    second = fitting("second", unread).probe("probe", rows, fitted=first)
    asked = fitting("third", lambda: LocalModel.load(str(tiny_folder()))).probe("probe", rows)
    kept = {place: json.loads((place / "manifest.json").read_text())["key"] for place in (first, second, asked)}
    assert len(set(kept.values())) == 1  # where a probe comes from changes no key
    for file in ("probe.json", "probe.safetensors"):
        assert (second / file).read_bytes() == (first / file).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["sweep", "method"])
def test_weights_whose_answers_another_run_kept_are_trained_for_what_has_to_be_asked_anew(
    tmp_path: Path, whose: str
) -> None:
    own = {"id": "own", "weights_of": "scot", "around": "fused_trained"}
    changes = {"methods": ["scot", own], "prompts": [], "wrappers": [], "reference": "own", "goals": []}
    before = load_sweep(sweep_file(tmp_path, **changes))
    run_sweep(before, tmp_path / "before")
    besides: dict[str, Any] = {"fit_on": [{"path": "shipped:borderline", "limit": 20}]}
    fewer = {"id": "fewer", "fit_on": [{"path": "shipped:borderline", "limit": 5}]}
    changed = besides if whose == "sweep" else {"methods": ["scot", own | besides, own | fewer]}
    sweep = load_sweep(sweep_file(tmp_path, **changes | changed))
    fitted = [entry.label for entry in sweep.methods[1:]]
    said = run_cells(sweep, tmp_path / "new", Progress(), so_far=True, log=Log(tmp_path / "before"))
    assert [one.defence for one in said.cells if one.missing] == fitted
    done = run_cells(sweep, tmp_path / "new", Progress(), log=Log(tmp_path / "before"))
    anew = [(name, False) for name in fitted]
    assert [(one.defence, one.logged) for one in done.cells] == [("base", False), ("scot", True), *anew]
    assert not any(one.missing for one in done.cells)
    (trained,) = (tmp_path / "new").glob("*-s0/scot-*")
    assert {one.name for one in trained.iterdir() if one.is_dir()} == {"train", "calibrate"}
    read = [
        sum(
            json.loads((next((tmp_path / run).glob(f"*-s0/{name}-*")) / "probe" / "probe.json").read_text())[
                "rows"
            ].values()
        )
        for run, name in (("before", "own"), *(("new", name) for name in reversed(fitted)))
    ]
    assert read[0] < read[-1] <= read[0] + 20
    assert read == sorted(set(read))  # each entry's probe reads its own
    told = run_cells(sweep, tmp_path / "new", Progress(), so_far=True, log=Log(tmp_path / "before"))
    assert not any(one.missing for one in told.cells)


@pytest.mark.slow
def test_what_another_run_was_not_put_to_yet_is_asked_here(tmp_path: Path) -> None:
    best_of_n = {"method": "best_of_n:n=2", "defences": ["linear_probe"], "goals": 1, "budget": 1}
    changes = {
        "methods": [],
        "prompts": [],
        "reference": "linear_probe",
        "evaluate": EVALUATE | {"searches": [best_of_n]},
    }
    sweep = load_sweep(sweep_file(tmp_path, **changes))
    run_sweep(sweep, tmp_path / "before")

    def logged() -> list[bool]:
        found = run_cells(sweep, tmp_path / "new", Progress(), log=Log(tmp_path / "before"))
        return [one.logged for one in found.cells]

    assert logged() == [False, True]
    cells = tmp_path / "before" / "cells.jsonl"
    told = [json.loads(line) | {"outcomes": {}} for line in cells.read_text().splitlines()]
    write_jsonl(cells, [Cell.model_validate(one) for one in told])  # as if it had been told before the search
    assert logged() == [False, False]
