"""A suite within a time: behaviours are left out, attacks never, and the plan is fixed before anything is looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from forethought.attacks.catalogue import Preparation, parse_attack
from forethought.attempts.ask import Fit, fit, make_plan_in_time, run_suite, shrink
from forethought.attempts.plan import PlanSummary
from forethought.data.behaviors import Behavior
from forethought.errors import InputError, ModelError
from forethought.models.conversation import Conversation, Failed
from tests.attempts.suite_plans import answer, behavior, rows
from tests.scripted import Scripted

ATTACKS = [parse_attack(name) for name in ("style_json", "leetspeak", "translate:fr")]
ROOT = Path(__file__).resolve().parents[2]


def made(n: int, what: str) -> list[Behavior]:
    return [behavior(f"Explain {what} number {k}", category=f"c{k % 4}") for k in range(n)]


def fitted(seconds: float, rate: float = 10.0, n_harmful: int = 100, n_harmless: int = 50) -> Fit:
    return fit(3, (n_harmful, n_harmless), seconds, rate)


def test_both_labels_shrink_alike_by_hand() -> None:
    """45 s at 10/s are 450 attempts: with no attack and two attacks, 150 behaviours, which is all of them."""
    assert (fitted(45).harmful, fitted(45).harmless) == (100, 50)
    half = fitted(22.5)
    assert (half.harmful, half.harmless, half.attempts, half.fits) == (50, 25, 225, True)
    assert fitted(1e9).harmful == 100


@pytest.mark.parametrize("seconds", [0.7, 1.0, 3.3, 7.9, 20.0, 44.9])
def test_what_fits_never_takes_longer(seconds: float) -> None:
    found = fitted(seconds)
    assert found.harmful >= 1
    assert found.harmless >= 1
    assert found.attempts <= 10 * seconds


def test_when_not_even_one_behaviour_fits_it_says_so_and_keeps_every_attack() -> None:
    least = fitted(0.5)
    assert (least.harmful, least.harmless, least.attacks, least.fits) == (1, 1, 3, False)
    assert "the least there is, and it takes 1 s" in str(least)
    assert fitted(3.0, n_harmless=0).harmless == 0


def test_samples_are_nested_and_stratified() -> None:
    whole = made(40, "films")
    ids = [{one.id for one in shrink(whole, n, 0)} for n in (2, 8, 20, 40)]
    assert [len(one) for one in ids] == [2, 8, 20, 40]
    assert ids[0] < ids[1] < ids[2] < ids[3]
    assert {one.says("category") for one in shrink(whole, 4, 0)} == {"c0", "c1", "c2", "c3"}


class Clock:
    """A tenth of a second an answer."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def __call__(self, conversation: Conversation) -> str:
        self.now += 0.1
        return answer(conversation)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr("forethought.attempts.ask.time.monotonic", one.monotonic)
    return one


def in_time(folder: Path, model: Scripted, seconds: float) -> tuple[PlanSummary, Fit]:
    return make_plan_in_time(folder, ATTACKS, made(40, "films"), made(40, "bread"), Preparation(), model, seconds)


def test_a_run_takes_the_time_that_was_given(tmp_path: Path, clock: Clock) -> None:
    model = Scripted(clock)
    summary, chosen = in_time(tmp_path, model, 12.1)
    pilot = len(model.asked)
    assert pilot == 12  # two behaviours of each label, plain and under the two attacks that can be run
    assert chosen.rate == pytest.approx(10.0)
    assert (chosen.harmful, chosen.harmless, chosen.fits) == (20, 20, True)
    assert summary.attempts == 120
    assert summary.not_run == {"translate:fr": {"needs an attacker model": 40}}
    counts = run_suite(tmp_path, model)
    assert counts.reused == pilot  # what the rate was measured on counts
    assert clock.now == pytest.approx(12.0)
    assert {row.attack for row in rows(tmp_path)} == {"direct", "style_json", "leetspeak", "translate:fr"}
    written = json.loads((tmp_path / "budget.json").read_text(encoding="utf-8"))
    assert written["fit"]["harmful"] == 20
    assert "20 of 40 harmful" in written["says"]


def test_a_run_taken_up_again_keeps_its_plan(tmp_path: Path, clock: Clock) -> None:
    in_time(tmp_path, Scripted(clock), 12.1)
    before = (tmp_path / "plan.jsonl").read_bytes()
    slow = Scripted(clock)
    in_time(tmp_path, slow, 12.1)
    assert slow.calls == []
    assert (tmp_path / "plan.jsonl").read_bytes() == before
    _, other = in_time(tmp_path, Scripted(clock), 6.0)  # another time is another plan
    assert other.harmful < 20


def test_too_short_a_time_keeps_one_behaviour_under_every_attack(tmp_path: Path, clock: Clock) -> None:
    summary, chosen = in_time(tmp_path, Scripted(clock), 0.3)
    assert not chosen.fits
    assert summary.attempts == 6


def test_a_pilot_that_was_answered_before_is_made_larger(tmp_path: Path, clock: Clock) -> None:
    in_time(tmp_path, Scripted(clock), 0.3)
    (tmp_path / "budget.json").unlink()
    model = Scripted(clock)
    _, chosen = in_time(tmp_path, model, 12.0)
    assert len(model.asked) == 18  # of one, two and four behaviours of each label the first was asked before
    assert chosen.rate == pytest.approx(10.0)


def test_what_was_answered_before_fits_in_any_time(tmp_path: Path, clock: Clock) -> None:
    in_time(tmp_path, Scripted(clock), 1e6)
    run_suite(tmp_path, Scripted(clock))
    (tmp_path / "budget.json").unlink()
    silent = Scripted(clock)
    for _ in range(2):  # the second time from the file
        summary, chosen = in_time(tmp_path, silent, 0.1)
        assert silent.asked == []
        assert summary.attempts == 240
        assert chosen.attempts == 240
        assert str(chosen).endswith("all answered before: fits in 0 s")


def test_a_model_without_an_answer_has_no_rate(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(ModelError, match="gone"):
        in_time(tmp_path, Scripted(lambda one: Failed(cause="gone")), 12.1)


def test_a_damaged_budget_is_named(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "budget.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="damaged"):
        in_time(tmp_path, Scripted(clock), 12.1)


@pytest.mark.slow
def test_the_scripted_suite_goes_through_every_part(tmp_path: Path) -> None:
    file = ROOT / "benchmarks" / "scripted_suite.py"
    done = subprocess.run(
        [sys.executable, str(file), "300", str(tmp_path / "run")], capture_output=True, text=True, check=True
    )
    measured = json.loads(done.stdout)
    assert measured["attempts"] >= 300
    assert measured["judged"] == measured["attempts"]
    assert measured["peak_gib"] < 0.5
