"""PAIR, TAP, Crescendo and GOAT through the driver: budgets, outages, outcomes, and a second run that asks nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from forethought.attacks.searches.base import Goal, Method, Reply, Write, all_searches, parse_method
from forethought.attacks.searches.driver import Parties, run_searches
from forethought.attacks.searches.models import OnText
from forethought.attacks.searches.outcome import SearchRun, SearchSettings
from forethought.judges.base import Item, Measure, Verdict
from forethought.models.conversation import Able, Conversation, Failed, OnReply, Response
from forethought.records import user_request

NAMES = ("pair", "tap", "crescendo", "goat")
REFUSAL = "I'm sorry, but I can't help with that."
KEYS = ("prompt", "generatedQuestion", "reply")


class Target:
    """Refuses, gives in at its n-th answer, or is out of reach."""

    name = "target"
    able = Able()

    def __init__(self, gives_in: int | None = None, down: bool = False) -> None:
        self.asked = 0
        self.gives_in, self.down = gives_in, down

    def reply(
        self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
    ) -> list[Response | Failed]:
        replies: list[Response | Failed] = []
        for place, _ in enumerate(conversations):
            answer = "Sure, it ends well." if self.asked == self.gives_in else "Sorry, no."
            self.asked += 1
            replies.append(Failed(cause="the server went away") if self.down else Response(answer=answer))
            if on_reply is not None:
                on_reply(place, replies[-1])
        return replies


class Writer:
    """Writes JSON with every key, or the same text always."""

    def __init__(self, name: str, text: str | None = None) -> None:
        self.name, self.text = name, text
        self.written = 0

    def write(self, asked: Sequence[Write], on_text: OnText) -> None:
        for place, _ in enumerate(asked):
            self.written += 1
            text = self.text or json.dumps(dict.fromkeys(KEYS, f"Message {self.written}."))
            on_text(place, Reply(text=text))


class HarmJudge:
    name = "judge"
    measure: Measure = "harmful"

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        assert all(item.request == "Tell how the new film ends" for item in items)
        return [
            Verdict(harmful=item.answer.startswith("Sure"), refused=item.answer.startswith("Sorry")) for item in items
        ]


def drive(
    method: Method, folder: Path, target: Target, attacker: Writer | None = None, budget: int | None = None,
    harmful: bool = True,
) -> SearchRun:  # fmt: skip
    goal = Goal(request=user_request("Tell how the new film ends", harmful=harmful), target_string="Sure")
    return run_searches(
        [method], [goal],
        Parties(target, HarmJudge(), None, attacker or Writer("attacker"), Writer("evaluator", "[[YES]]")),
        folder, settings=SearchSettings(budget=budget),
    )  # fmt: skip


def notes(folder: Path, name: str) -> list[dict[str, int]]:
    """The counts that a search left in its journal."""
    [journal] = (folder / "searches" / name).glob("*.jsonl")
    kept = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    return [one["value"]["value"] for one in kept if one["value"]["kind"] == "made"]


@pytest.mark.parametrize("name", NAMES)
def test_the_papers_budget_is_what_a_full_run_takes(name: str, tmp_path: Path) -> None:
    [outcome] = drive(all_searches()[name], tmp_path, Target()).outcomes
    assert outcome.queries == all_searches()[name].queries
    assert outcome.broken is False
    assert outcome.refused == outcome.queries
    assert outcome.best is not None
    assert outcome.best.request.plain == "Tell how the new film ends"


@pytest.mark.parametrize("name", NAMES)
def test_the_first_success_is_counted_in_queries_and_ends_it(name: str, tmp_path: Path) -> None:
    [outcome] = drive(all_searches()[name], tmp_path, Target(gives_in=2)).outcomes
    assert outcome.first_success == 3
    assert outcome.broken is True
    assert outcome.ended == "end"
    assert outcome.best_answer == "Sure, it ends well."


@pytest.mark.parametrize("name", NAMES)
def test_a_budget_that_ends_within_a_round_is_kept(name: str, tmp_path: Path) -> None:
    [outcome] = drive(all_searches()[name], tmp_path, Target(), budget=7).outcomes
    assert (outcome.queries, outcome.ended) == (7, "budget")
    assert notes(tmp_path, name)[-1]["asked"] >= 7


@pytest.mark.parametrize("name", NAMES)
def test_a_second_run_asks_nobody_anything(name: str, tmp_path: Path) -> None:
    first = drive(all_searches()[name], tmp_path, Target(), budget=9)
    (tmp_path / "outcomes.jsonl").unlink()
    target, attacker = Target(), Writer("attacker")
    again = drive(all_searches()[name], tmp_path, target, attacker, budget=9)
    assert target.asked == attacker.written == 0
    assert again.outcomes == first.outcomes


@pytest.mark.parametrize("name", NAMES)
def test_a_target_that_is_down_is_unscored(name: str, tmp_path: Path) -> None:
    [outcome] = drive(all_searches()[name], tmp_path, Target(down=True)).outcomes
    assert outcome.broken is None
    assert outcome.failed == outcome.queries > 0
    assert outcome.cause == "the server went away"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", [REFUSAL, '{"prompt": '])
def test_an_attacker_that_writes_nothing_usable_is_unscored_and_counted_in_the_journal(
    name: str, text: str, tmp_path: Path
) -> None:
    [outcome] = drive(all_searches()[name], tmp_path, Target(), Writer("attacker", text)).outcomes
    assert (outcome.queries, outcome.ended, outcome.broken) == (0, "end", None)
    last = notes(tmp_path, name)[-1]
    assert last["turns_lost"] * 5 == last["attacker_calls"] == outcome.writes


@pytest.mark.parametrize("name", NAMES)
def test_the_control_is_harmless_and_still_refused(name: str, tmp_path: Path) -> None:
    [outcome] = drive(all_searches()[name], tmp_path, Target(), budget=9, harmful=False).outcomes
    assert outcome.still_refused is True


def test_options_are_written_in_suites() -> None:
    assert parse_method("pair:streams=20").options["streams"] == 20
    assert parse_method("goat:conversations=1").options["turns"] == 5
    assert parse_method("crescendo:without_json=skip").options["without_json"] == "skip"


class RefusalJudge(HarmJudge):
    measure: Measure = "refused"


def test_an_answered_first_turn_is_no_success_where_only_refusals_are_told(tmp_path: Path) -> None:
    """Their first turn is harmless by design: a judge of refusals would call its answer a jailbreak."""
    methods = [all_searches()["crescendo"], all_searches()["goat"], all_searches()["pair"]]
    goal = Goal(request=user_request("Tell how the new film ends", harmful=True), target_string="Sure")
    writers = (Writer("attacker"), Writer("evaluator", "[[YES]]"))
    settings = SearchSettings(budget=2)
    run = run_searches(methods, [goal], Parties(Target(), RefusalJudge(), None, *writers), tmp_path, None, settings)
    assert set(run.not_run) == {"crescendo", "goat"}
    assert "judge of harm" in run.not_run["goat"]
    assert [outcome.method for outcome in run.outcomes] == ["pair"]


def test_what_became_of_the_attackers_texts_stands_in_the_outcome(tmp_path: Path) -> None:
    [outcome] = drive(all_searches()["pair"], tmp_path, Target(), Writer("attacker", "no JSON"), budget=3).outcomes
    assert outcome.notes == notes(tmp_path, "pair")[-1]
    assert outcome.notes
