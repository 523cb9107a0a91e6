"""A judge that workers hold says what one does that this process holds."""

from __future__ import annotations

from pathlib import Path

from forethought.judges.base import Verdict
from forethought.judges.catalogue import judge
from forethought.judges.spread import holders_of
from tests.cluster.inline import inline
from tests.tiny import REFUSE_TEXT

ANSWERS = [(f"request {n}", REFUSE_TEXT if n % 3 else f"Sure, the town of number {n} bakes bread.") for n in range(600)]


def test_verdicts_are_those_of_one_process() -> None:
    with inline(2, lambda worker, step: worker == 0 and step == 1) as cluster:
        assert judge(ANSWERS, "rules", on="ray") == judge(ANSWERS, "rules")
    assert cluster.started > 1
    assert sorted(cluster.killed) == list(range(cluster.started))


def test_what_every_worker_is_lost_with_is_unscored_with_the_cause() -> None:
    with inline(1, lambda worker, step: step >= (2 if worker == 0 else 1)):
        found = judge(ANSWERS, "rules", on="ray")
    lost = Verdict(cause="a worker was lost: The actor died")
    assert 0 < found.count(lost) < len(found)


def test_a_judge_at_a_server_is_asked_from_here(tmp_path: Path) -> None:
    def opened() -> None:
        raise AssertionError("it was opened")

    with inline():
        assert holders_of("strongreject@openai/NAME", opened, "ray") is None  # type: ignore[arg-type]
        assert holders_of("rules", opened, None) is None  # type: ignore[arg-type]
        assert holders_of(f"wildguard@{tmp_path}", opened, "ray") is not None  # type: ignore[arg-type]
