"""Replies of a run judged, logged and priced: the answer alone, again without asking, and failures never safe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from inspect_ai.log import read_eval_log

from forethought.attacks.base import Attack
from forethought.attempts.ask import cost_in_all, judge_run, run_suite
from forethought.attempts.logs import write_logs
from forethought.attempts.plan import make_plan
from forethought.attempts.records import Judged, planned, read_judged
from forethought.errors import StageError
from forethought.judges.base import Item, Measure, Verdict
from forethought.judges.rules import Rules
from forethought.models.callspec import Price
from forethought.models.conversation import Conversation, Failed, Response
from tests.attempts.suite_plans import HARMFUL, answer, behavior, plan
from tests.scripted import Scripted


class Reads:
    """A judge that remembers what it was given; an answer with `film` is harmful to it."""

    def __init__(self, measure: Measure = "harmful", name: str = "reads") -> None:
        self.name, self.measure = name, measure
        self.calls: list[list[Item]] = []

    @property
    def items(self) -> list[Item]:
        return [item for call in self.calls for item in call]

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        self.calls.append(list(items))
        return [Verdict(harmful="film" in item.answer) for item in items]


def ran(folder: Path, *attacks: str) -> Path:
    plan(folder, *attacks)
    run_suite(folder, Scripted(answer))
    return folder


def test_verdicts_stand_with_their_attempts(tmp_path: Path) -> None:
    judge_run(ran(tmp_path, "style_json"), Rules())
    found = list(read_judged(tmp_path, "rules"))
    assert [one.attempt for one in found] == [row.attempt for row in planned(tmp_path)]
    assert {one.attempt.request.harmful: one.refused for one in found} == {True: True, False: False}
    assert all(type(one) is Judged and one.verdict == Verdict(refused=one.refused, partial=False) for one in found)
    assert all(type(one.attempt).__name__ == "Attempt" for one in found)


def test_a_judge_reads_what_is_really_asked_and_the_answer_alone(tmp_path: Path) -> None:
    def thinks(conversation: Conversation) -> Response:
        return Response(answer="About that film:", reasoning_text="I refuse", prompt_tokens=1)

    plan(tmp_path, "base64", harmful=HARMFUL[:1], harmless=[])
    run_suite(tmp_path, Scripted(thinks))
    judge = Reads()
    judge_run(tmp_path, judge)
    assert [item.request for item in judge.items] == [HARMFUL[0]] * 2
    assert [item.answer for item in judge.items] == ["About that film:"] * 2
    assert not any(item.reasoning for item in judge.items)
    assert {item.asked for item in judge.items} == {row.request.text for row in planned(tmp_path)}


def test_harmless_rows_go_to_the_judge_of_refusals(tmp_path: Path) -> None:
    judge = Reads()
    judge_run(ran(tmp_path), judge)
    assert {item.request for item in judge.items} == set(HARMFUL)
    found = list(read_judged(tmp_path, "reads"))
    harmless = [one for one in found if one.attempt.request.harmful is False]
    assert {one.refused for one in harmless} == {False}
    assert {one.verdict.harmful for one in found if one.verdict and one.attempt.request.harmful} == {False}


def test_judging_is_in_batches_and_goes_on_where_it_was(tmp_path: Path) -> None:
    ran(tmp_path, "style_json")

    class Breaks(Reads):
        def judge(self, items: Sequence[Item]) -> list[Verdict]:
            if len(self.calls) == 2:
                raise RuntimeError("stopped")
            return super().judge(items)

    broken = Breaks("refused")
    with pytest.raises(RuntimeError):
        judge_run(tmp_path, broken, batch=3)
    assert [len(call) for call in broken.calls] == [3, 3]
    whole, told = Reads("refused"), list[int]()
    judge_run(tmp_path, whole, batch=3, on_progress=told.append)
    assert len(whole.items) == 10
    assert sum(told) == 16
    again = Reads("refused")
    judge_run(tmp_path, again)
    assert again.calls == []


def test_an_undecided_verdict_is_tried_again(tmp_path: Path) -> None:
    class Down(Reads):
        def judge(self, items: Sequence[Item]) -> list[Verdict]:
            self.calls.append(list(items))
            return [Verdict(cause="the judge timed out") for _ in items]

    ran(tmp_path)
    for _ in range(2):
        judge_run(tmp_path, Down("refused"))
    assert {one.cause for one in read_judged(tmp_path, "reads")} == {"the judge timed out"}
    assert len((tmp_path / "judged" / "reads.jsonl").read_text(encoding="utf-8").splitlines()) == 8
    judge_run(tmp_path, Reads("refused"))
    assert {one.cause for one in read_judged(tmp_path, "reads")} == {""}


def test_another_judge_asks_no_model(tmp_path: Path) -> None:
    ran(tmp_path)
    before = (tmp_path / "replies.jsonl").read_bytes()
    judge_run(tmp_path, Rules())
    judge_run(tmp_path, Reads(name="grader@vendor/model"))
    judge_run(tmp_path, Reads(name="grader@vendor_model"))
    assert len(list((tmp_path / "judged").glob("*.jsonl"))) == 3
    assert (tmp_path / "replies.jsonl").read_bytes() == before


def test_failures_and_what_was_not_asked_are_unscored_and_not_run_is_left_out(tmp_path: Path) -> None:
    def half(conversation: Conversation) -> str | Failed:
        return Failed(cause="the server is gone") if "film" in conversation.messages[-1].content else "Sure. " + "x y z"

    plan(tmp_path, "translate:fr")
    run_suite(tmp_path, Scripted(half))
    judge_run(tmp_path, Rules())
    found = list(read_judged(tmp_path, "rules"))
    assert len(found) == 8
    failed = [one for one in found if one.attempt.request.harmful]
    assert all((one.response, one.refused, one.verdict) == (None, None, None) for one in failed)
    assert {one.cause for one in failed} == {"the server is gone"}
    assert {one.cause for one in read_judged(tmp_path) if one.response} == {"not judged"}


def test_reading_a_judge_that_has_not_judged_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="'harm'"):
        next(read_judged(ran(tmp_path), "harm"))


def test_old_rows_of_judged_files_are_still_read() -> None:
    old = {
        "attempt": {"id": "direct/x", "attack": "direct", "request": {"messages": []}, "cells": ["direct"]},
        "response": None,
        "refused": None,
    }
    assert Judged.model_validate(old).attempt.prefill == ""


def test_logs_hold_everything_in_shards(tmp_path: Path) -> None:
    plan(tmp_path, "style_json", "answer_prefill")
    run_suite(tmp_path, Scripted(lambda one: Failed(cause="gone") if "JSON" in str(one.messages) else answer(one)))
    judge_run(tmp_path, Rules())
    price = Price(input=1.0, output=2.0)
    paths = write_logs(tmp_path, tmp_path / "logs", "org/m", "rules", shard=6, price=price)
    assert [path.name for path in paths] == ["org_m-0001.eval", "org_m-0002.eval", "org_m-0003.eval"]
    samples = {str(sample.id): sample for path in paths for sample in read_eval_log(str(path)).samples or []}
    judged = list(read_judged(tmp_path, "rules"))
    assert sorted(samples) == sorted(one.attempt.id for one in judged)
    for one in judged:
        sample = samples[one.attempt.id]
        assert sample.metadata["attack"] == one.attempt.attack
        assert sample.metadata["lineage"] == list(one.attempt.lineage)
        assert sample.metadata["cells"] == list(one.attempt.cells)
        assert sample.scores is not None
        value = sample.scores["rules"].value
        assert value == {True: "refused", False: "complied", None: "unscored"}[one.refused]
        if one.response is None:
            assert sample.output.error == "gone"
        else:
            assert sample.output.completion == one.response.answer
            assert sample.metadata["cost"] == pytest.approx((5 + 2 * 7) / 1e6)
    header = read_eval_log(str(paths[0]), header_only=True)
    assert header.status == "success"
    assert header.results is not None
    assert header.results.scores[0].unscored_samples == sum(one.refused is None for one in judged[:6])


def test_logs_that_hold_the_same_are_kept_and_stale_ones_go(tmp_path: Path) -> None:
    ran(tmp_path, "style_json")
    judge_run(tmp_path, Rules())
    out = tmp_path / "logs"
    paths = write_logs(tmp_path, out, "m", "rules", shard=4)
    times = [path.stat().st_mtime_ns for path in paths]
    paths[1].write_bytes(paths[1].read_bytes()[:100])  # a kill in mid write
    assert write_logs(tmp_path, out, "m", "rules", shard=4) == paths
    assert [path.stat().st_mtime_ns == time for path, time in zip(paths, times, strict=True)] == [
        True,
        False,
        True,
        True,
    ]
    assert write_logs(tmp_path, out, "m", "rules", shard=100) == paths[:1]
    assert sorted(out.glob("*.eval")) == paths[:1]


def test_cost_by_hand(tmp_path: Path) -> None:
    """Each conversation: 5 tokens of prompt, 7 of answer; at 10 and 20 dollars a million that is 190 millionths."""
    ran(tmp_path, "style_json")
    assert cost_in_all(tmp_path, Price(input=10.0, output=20.0)) == pytest.approx(16 * 190e-6)
    assert cost_in_all(tmp_path, None) is None


def test_a_shared_conversation_is_paid_for_once(tmp_path: Path) -> None:
    same = Attack(name="same", title="Changes nothing", paper="none", kind="template")
    make_plan(tmp_path, [same], [behavior(HARMFUL[0])], [])
    run_suite(tmp_path, Scripted(answer))
    assert cost_in_all(tmp_path, Price(input=10.0, output=20.0)) == pytest.approx(190e-6)


def test_the_files_are_json_lines(tmp_path: Path) -> None:
    judge_run(ran(tmp_path), Rules())
    for name in ("plan.jsonl", "replies.jsonl", "judged/rules.jsonl"):
        assert all(json.loads(line) for line in (tmp_path / name).read_text(encoding="utf-8").splitlines())
