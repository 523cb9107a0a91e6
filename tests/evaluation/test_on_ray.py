"""Attacks and comparisons over workers: the rows of one process, and a worker of a real Ray that is killed."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from forethought.attacks.searches.driver import read_outcomes
from forethought.attempts.ask import run_suite
from forethought.cluster import connect
from forethought.evaluation.attack import attack, rejudge
from forethought.evaluation.compare import compare
from forethought.evaluation.inputs import AttackSettings
from forethought.models.spread import Spread
from tests.cluster.inline import inline
from tests.evaluation.dying import DiesOnce
from tests.tiny import tiny_folder

pytestmark = pytest.mark.slow
SETTINGS = AttackSettings(
    attacks=("misspelling", "answer_prefill", "best_of_n"), n=3, goals=1, query_budget=4, max_answer_tokens=4
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("here") / "run"
    attack(tiny_folder(), SETTINGS, out=out)
    return out


def lines(path: Path) -> dict[str, Any]:
    return {line["id"]: line["value"] for line in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def test_an_attack_is_that_of_one_process(here: Path, tmp_path: Path) -> None:
    with inline() as cluster:
        found = attack(tiny_folder(), SETTINGS, out=tmp_path, on="ray")
        assert cluster.given
    assert lines(tmp_path / "replies.jsonl") == lines(here / "replies.jsonl")
    assert (tmp_path / "plan.jsonl").read_bytes() == (here / "plan.jsonl").read_bytes()
    judged = Path("judged") / f"{found.judge.name}.jsonl"
    assert lines(tmp_path / judged) == lines(here / judged)
    runs = [json.loads((folder / "attack.json").read_text()) | {"attempts_per_s": None} for folder in (here, tmp_path)]
    assert runs[0] == runs[1]
    searched = [[one.model_dump() for one in read_outcomes(folder / "searches")] for folder in (here, tmp_path)]
    assert searched[0] == searched[1]
    assert {one["method"].partition(":")[0] for one in searched[0]} == {"best_of_n"}
    with inline() as cluster:
        again = rejudge(tmp_path, AttackSettings(judge="keywords"), on="ray")
        assert cluster.given
    assert again.unscored < 1


def test_a_killed_worker_loses_nothing(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a real Ray, as the others are not: its one worker dies, and another takes its place."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 1}')
    shutil.copy(here / "plan.jsonl", tmp_path)
    with connect("ray"), closing(Spread("ray", partial(DiesOnce, tiny_folder(), tmp_path / "died"))) as spread:
        counts = run_suite(tmp_path, spread, SETTINGS.max_answer_tokens)
    assert (tmp_path / "died").exists()
    assert counts.failed == 0
    assert lines(tmp_path / "replies.jsonl") == lines(here / "replies.jsonl")


def test_a_comparison_lets_go_of_each_system_before_the_next(tmp_path: Path) -> None:
    settings = AttackSettings(attacks=("misspelling",), n=2, max_answer_tokens=4)
    with inline() as cluster:
        found = compare({"one": tiny_folder(), "two": tiny_folder()}, settings, out=tmp_path, on="ray")
    assert found.unscored < 1
    assert (cluster.started, sorted(cluster.killed)) == (2, [0, 1])
