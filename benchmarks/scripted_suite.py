"""Memory and time of a suite of many attempts against a model that answers at once: what the running itself costs.

`python benchmarks/scripted_suite.py 100000 FOLDER` plans, runs, judges and logs them, and prints the peak of resident
memory and the seconds of each part as JSON.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from forethought.attacks.catalogue import DIRECT, Preparation, load_suite, suite_attacks
from forethought.attempts.ask import judge_run, run_suite
from forethought.attempts.logs import write_logs
from forethought.attempts.plan import make_plan
from forethought.attempts.records import read_judged
from forethought.data.behaviors import Behavior
from forethought.judges.rules import Rules
from forethought.models.conversation import Able, Conversation, Failed, OnReply, Response
from forethought.models.machine import peak_gib
from forethought.records import Record, user_request

_SAID = "Sure. Weigh flour, water, salt and yeast, knead them for ten minutes, let it rise, shape a loaf, bake it hot."


class AtOnce:
    """Answers everything in no time, with as much text as a model says in some eighty tokens."""

    name = "at-once"
    able = Able(prefill=True, budget=True)

    def reply(
        self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
    ) -> list[Response | Failed]:
        """One answer each; every third refuses."""
        replies: list[Response | Failed] = []
        for place, _ in enumerate(conversations):
            said = (
                "I can't help you with that."
                if place % 3 == 0
                else f"{_SAID} Loaf {place} is done when it sounds hollow."
            )
            reply = Response(answer=said, prompt_tokens=60, answer_tokens=80)
            replies.append(reply)
            if on_reply is not None:
                on_reply(place, reply)
        return replies


class ScriptedRun(Record):
    """What was measured."""

    attempts: int
    conversations: int
    judged: int
    peak_gib: float
    """Peak of the process's resident memory, imports included."""
    plan_s: float
    run_s: float
    judge_s: float
    logs_s: float


def behaviors(n: int, harmful: bool) -> list[Behavior]:
    """Requests of the length of a benchmark's."""
    text = "Explain how bakers of town number {} bake their bread, which flour they take, and what it costs in all"
    requests = [user_request(text.format(f"{n}{'ab'[harmful]}"), harmful=harmful) for n in range(n)]
    return [Behavior(id=request.id, benchmark="scripted", request=request) for request in requests]


def scripted_run(n: int, folder: Path) -> ScriptedRun:
    """At least `n` attempts of the suite `all`, half of them harmless, through every part of a run, in a fresh folder.

    Peak memory is the process's own: measure in a process that has done nothing else.
    """
    attacks = [attack for attack in suite_attacks(load_suite("all")) if not {"attacker", "file"} & set(attack.needs)]
    each = -(-n // (2 * len({DIRECT.name, *(attack.name for attack in attacks)})))
    model, judge = AtOnce(), Rules()
    marks = [time.monotonic()]
    plan = make_plan(folder, attacks, behaviors(each, True), behaviors(each, False), Preparation(0, able=model.able))
    marks.append(time.monotonic())
    counts = run_suite(folder, model)
    assert counts.answered == plan.conversations, counts
    marks.append(time.monotonic())
    judge_run(folder, judge)
    n_judged = sum(one.refused is not None for one in read_judged(folder, judge.name))
    marks.append(time.monotonic())
    write_logs(folder, folder / "logs", model.name, judge.name)
    marks.append(time.monotonic())
    seconds = [round(later - earlier, 1) for earlier, later in itertools.pairwise(marks)]
    return ScriptedRun(
        attempts=plan.attempts, conversations=plan.conversations, judged=n_judged, peak_gib=round(peak_gib(), 3),
        plan_s=seconds[0], run_s=seconds[1], judge_s=seconds[2], logs_s=seconds[3],
    )  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(scripted_run(int(sys.argv[1]), Path(sys.argv[2])).model_dump(), indent=2))
