"""A plan put to a model, whole or as much as fits a time, and its answers put to judges; nothing is asked twice."""

from __future__ import annotations

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from pydantic import Field, ValidationError

from forethought.attacks.base import Attack
from forethought.attacks.catalogue import Preparation
from forethought.attempts.plan import PlanSummary, make_plan, write_plan
from forethought.attempts.records import Attempt, Judged, PlannedAttempt, Replies, planned, read_judged, verdicts_file
from forethought.cluster.holders import Holders
from forethought.data.behaviors import Behavior, sample
from forethought.errors import ConfigError, InputError, ModelError, StageError
from forethought.judges.base import Item, Judge, Verdict
from forethought.judges.catalogue import default_judge, judged_by
from forethought.manifest import key_of, write_json
from forethought.models.callspec import Price, cost_of
from forethought.models.conversation import Conversation, Failed, Respondent, Response
from forethought.records import Message, Record
from forethought.store import Store, locked

WINDOW = 4096
"""Conversations put to the model at once: dozens of batches, so that the emptying of the last one weighs little."""
_DEAD_WINDOWS = 2
"""So many windows in a row without one response, and a run stops: what is left waits for the next run."""
_SETTINGS_FILE = "run.json"
_TOGETHER_FILE = "together.json"
"""What a model that decodes side by side is being asked; there while it is, so that a killed run asks it again."""
_STOPPED = "the model stopped answering"
OnProgress = Callable[[int], None]
"""Told of so many attempts more that are done."""


class RunCounts(Record):
    """What a run did, in conversations."""

    reused: int = 0
    """Whose response was there already."""
    answered: int = 0
    """That got one in this run."""
    failed: int = 0
    """That got none, in spite of a second try."""
    causes: dict[str, int] = Field(default_factory=dict)
    """Why."""
    seconds: float = 0.0
    stopped: str = ""
    """Why the run ended before the plan did; empty where it didn't. What was not asked is unscored."""


def run_suite(
    folder: Path,
    respondent: Respondent,
    max_answer_tokens: int = 128,
    on_progress: OnProgress | None = None,
    window: int = WINDOW,
) -> RunCounts:
    """Asks all of a folder's plan that has no response yet.

    A run that was killed goes on where it was; what a local model was asked side by side is asked so again, and its
    replies are to the last digit those of a run in one piece. What failed is asked once more at the end, and again by
    the next run. `on_progress(n)`: n more attempts are finished. Raises ModelError where the model never answers
    anything, ConfigError where the folder holds another model's replies, StageError where another run writes there.
    """
    with Replies(folder, write=True) as kept:
        _check_settings(folder, {"model": respondent.name, "max_answer_tokens": max_answer_tokens}, len(kept))
        return _Run(folder, respondent, max_answer_tokens, kept, on_progress, window).go()


def ask_rows(
    folder: Path,
    respondent: Respondent,
    rows: Sequence[Attempt],
    max_answer_tokens: int,
    on_progress: OnProgress | None = None,
    what: str = "",
) -> None:
    """Plans these attempts in a folder and asks all of them; a run that was stopped goes on where it was.

    Raises StageError, which names `what`, where the model stops answering on the way, ModelError where it never does.
    """
    attacks = tuple(dict.fromkeys(row.attack for row in rows))
    n_harmful = sum(row.request.harmful is True for row in rows)
    start = PlanSummary(attacks=attacks, harmful=n_harmful, harmless=len(rows) - n_harmful)
    write_plan(folder, (PlannedAttempt.model_validate(row.model_dump()) for row in rows), start)
    counts = run_suite(folder, respondent, max_answer_tokens, on_progress)
    if counts.stopped:
        raise StageError(what or folder, f"did not finish ({counts.stopped})", "Run the command again: it resumes")


@dataclass
class _Run:
    """One run's state; numbers and ids, and the conversations of one window."""

    folder: Path
    respondent: Respondent
    max_answer_tokens: int
    kept: Replies
    on_progress: OnProgress | None
    window: int
    answered: int = 0
    reused: int = 0
    causes: dict[str, str] = field(default_factory=dict)
    """By conversation that has no response after its last asking."""
    stopped: str = ""
    dead: int = 0
    """Windows in a row without a response."""
    resumed: set[str] = field(default_factory=set)
    """What was asked again because a run was killed while it was asked."""

    def go(self) -> RunCounts:
        """Everything without a response, and what failed once more, unless nothing was answered: it may be back."""
        start, self._had, self._lock = time.monotonic(), len(self.kept), threading.Lock()
        self._ask_interrupted()
        self._ask_all()
        reused = self.reused
        if self.causes and self.answered and not self.stopped:
            self.dead, self.on_progress = 0, None
            self._ask_all(again=True)
        return RunCounts(
            reused=reused,
            answered=self.answered,
            failed=len(self.causes),
            causes=dict(Counter(self.causes.values()).most_common()),
            seconds=time.monotonic() - start,
            stopped=self.stopped,
        )

    def _ask_all(self, again: bool = False) -> None:
        """Those that were never asked before those that failed in earlier runs: what is asked together is then the
        same whether a run was stopped or not."""
        able = self.respondent.able
        for failed in (False,) if again else (False, True):
            waiting = self._pending(failed, again)
            while not self.stopped and (part := list(islice(waiting, (able.together or self.window) * able.beside))):
                self._ask(dict(part))

    def _ask_interrupted(self) -> None:
        """What a run was killed at, replies that came before included where others beside them are missing: they are
        kept, and decoded beside those again."""
        path, able = self.folder / _TOGETHER_FILE, self.respondent.able
        if not able.together or not path.is_file():
            return
        keys = json.loads(path.read_text(encoding="utf-8"))
        known = set(keys)
        asked = {row.asked: row.conversation for row in planned(self.folder) if not row.cause and row.asked in known}
        self.resumed = {key for key in asked if key not in self.kept}
        parts = (keys[start : start + able.together] for start in range(0, len(keys), able.together))
        groups = (group for group in parts if self.resumed.intersection(group))
        while some := list(islice(groups, able.beside)):
            self._ask({key: asked[key] for group in some for key in group if key in asked})

    def _pending(self, failed: bool, again: bool) -> Iterator[tuple[str, Conversation]]:
        """Conversations to ask, each once however many attempts share it: those that `failed` in an earlier run, or
        the others; `again`: those of this run."""
        seen: set[str] = set()
        for row in planned(self.folder):
            if row.cause:
                continue
            asked = row.asked
            if asked in seen:
                if not failed:
                    self._progress()
            elif asked in self.kept:
                if not failed and asked not in self.resumed:
                    self.reused += 1
                    self._progress()
            elif again or (asked not in self.causes and self.kept.has_failed(asked) is failed):
                yield asked, row.conversation
            seen.add(asked)

    def _progress(self) -> None:
        if self.on_progress is not None:
            self.on_progress(1)

    def _ask(self, part: dict[str, Conversation]) -> None:
        before, keys = self.answered, list(part)
        if self.respondent.able.together:
            write_json(self.folder / _TOGETHER_FILE, keys)
        told: set[int] = set()

        def on_reply(place: int, reply: Response | Failed) -> None:
            told.add(place)
            self._keep(keys[place], reply)

        try:
            replies = list(self.respondent.reply(list(part.values()), self.max_answer_tokens, on_reply))
        except ModelError as error:
            if not self.answered and not self._had:
                raise
            self.stopped = str(error)  # it answered before: what is left waits, unscored, for the next run
            replies = [Failed(cause=str(error))] * len(part)
        for place, reply in enumerate(replies):
            if place not in told:
                self._keep(keys[place], reply)
        if not self.stopped:
            (self.folder / _TOGETHER_FILE).unlink(missing_ok=True)
        self.dead = 0 if self.answered > before else self.dead + 1
        if self.dead >= _DEAD_WINDOWS:
            self.stopped = _STOPPED

    def _keep(self, asked: str, reply: Response | Failed) -> None:
        with self._lock:
            if not self.kept.keep(asked, reply):
                return
            if isinstance(reply, Failed):
                self.causes[asked] = reply.cause
            else:
                self.causes.pop(asked, None)
                self.answered += 1
            self._progress()


def _check_settings(folder: Path, settings: dict[str, object], n_replies: int) -> None:
    """Replies of another model, or of another length, must not be taken for this one's."""
    path = folder / _SETTINGS_FILE
    if n_replies and path.is_file():
        held = json.loads(path.read_text(encoding="utf-8"))
        if held != settings:
            raise ConfigError(folder, f"holds replies of {held}, not of {settings}", "Give another folder")
    write_json(path, settings)


def cost_in_all(folder: Path, price: Price | None) -> float | None:
    """US dollars for a folder's replies: each conversation is asked once, and counts once. None without a price."""
    read, written = 0, 0
    with Replies(folder) as replies:
        for asked in {row.asked for row in planned(folder) if not row.cause}:
            reply = replies.get(asked)
            if isinstance(reply, Response):
                read += reply.prompt_tokens
                written += reply.reasoning_tokens + reply.answer_tokens
    return cost_of(read, written, 0, price)


# The replies of a run, judged: any number of judges, at any time, without asking the model again.


def judge_run(
    folder: Path,
    judge: Judge,
    batch: int = 256,
    on_progress: OnProgress | None = None,
    holders: Holders | None = None,
) -> None:
    """Judges what a folder's plan was answered and keeps the verdicts in `folder`/judged/JUDGE.jsonl.

    The answer alone is judged, never the reasoning. Harmless requests are judged by refusal: by `judge` where it
    measures refusal, else by the default judge. Verdicts that are there are kept, those that
    were left undecided are tried again. `on_progress(n)`: n more attempts are judged. `holders` are workers of a
    cluster that hold the same judge and do it in its place. Raises StageError where another process judges into the
    same file.
    """
    path = verdicts_file(folder, judge.name)
    with locked(path.with_suffix(".lock")), Replies(folder) as replies, Store(path, write=True) as verdicts:
        waiting = _unjudged(folder, replies, verdicts, on_progress)
        parts = iter(lambda: list(islice(waiting, batch)), [])
        here = ((part, _verdicts(judge, part)) for part in parts)
        judged = here if holders is None else judged_by(holders, _verdicts, parts)
        for part, found in judged:
            for (row, _), verdict in zip(part, found, strict=True):
                if verdicts.read(row.id, Verdict) != verdict:
                    verdicts.add(row.id, verdict)
            if on_progress is not None:
                on_progress(len(part))


_Part = list[tuple[PlannedAttempt, Item]]


def _verdicts(judge: Judge, part: _Part) -> list[Verdict]:
    """One verdict a row, in order."""
    plain = judge if judge.measure == "refused" else default_judge()
    found: dict[str, Verdict] = {}
    for chosen in [judge] if judge is plain else [judge, plain]:
        rows = [one for one in part if chosen is (plain if one[0].request.harmful is False else judge)]
        said = chosen.judge([item for _, item in rows]) if rows else []
        found |= {row.id: verdict for (row, _), verdict in zip(rows, said, strict=True)}
    return [found[row.id] for row, _ in part]


def _unjudged(
    folder: Path, replies: Replies, verdicts: Store, on_progress: OnProgress | None
) -> Iterator[tuple[PlannedAttempt, Item]]:
    for row in planned(folder):
        if row.cause:
            continue
        reply, known = replies.get(row.asked), verdicts.read(row.id, Verdict)
        if isinstance(reply, Response) and (known is None or known.cause):
            yield row, Item(request=row.request.plain, conversation=row.request.messages, answer=reply.answer)
        elif on_progress is not None:
            on_progress(1)


def run_defence(
    name: str,
    respondent: Respondent,
    attempts: Sequence[Attempt],
    log_dir: Path,
    system: str | None = None,
    max_answer_tokens: int = 32,
    on_progress: OnProgress | None = None,
) -> list[Judged]:
    """Puts every attempt to a defence and judges the answers, in the plan's order.

    Plan, replies and verdicts stand in `log_dir`, and logs for `inspect view` beside them. A run that was stopped
    goes on where it was; what failed is asked again by the next run. `on_progress(n)` is told of attempts as they
    finish. Raises StageError when the model stops answering on the way, ModelError when it never answers.
    """
    rows = [_with_system(attempt, system) if system else attempt for attempt in attempts]
    ask_rows(log_dir, respondent, rows, max_answer_tokens, on_progress, f"evaluation of {name}")
    judge = default_judge()
    judge_run(log_dir, judge)
    from forethought.attempts.logs import write_logs  # inspect's log module takes half a second to import

    write_logs(log_dir, log_dir, name, judge.name)
    found = {one.attempt.id: one for one in read_judged(log_dir, judge.name)}
    return [found[attempt.id].model_copy(update={"attempt": attempt}) for attempt in attempts]


def _with_system(attempt: Attempt, system: str) -> Attempt:
    """A defence's system prompt stands before the conversation."""
    turns = (Message(role="system", content=system), *attempt.request.messages)
    return attempt.model_copy(update={"request": attempt.request.model_copy(update={"messages": turns})})


# A suite within a time: fewer behaviours under every attack, never fewer attacks.
#
# The rate is measured on a small plan of all the attacks; then the plan is fixed, before anything that was answered has
# been looked at. Samples are nested: what the small plan asked is a part of the larger one, and counts.

BUDGET_FILE = "budget.json"
_ENOUGH = 128
"""Answers on which a rate is measured: a model that decodes in batches is slow on few."""
_SHARE = 0.05
"""Of the time, the part after which measuring ends even so."""


class Fit(Record):
    """How much of a benchmark fits in a time."""

    seconds: float
    """The time there is."""
    rate: float
    """Attempts a second, as measured; infinite where everything was answered before."""
    attacks: int
    """All that can be run, no attack at all among them."""
    harmful: int
    """Behaviours kept, of `of_harmful`."""
    of_harmful: int
    harmless: int
    of_harmless: int
    fits: bool
    """False where even one behaviour of each label under every attack takes longer: so many are kept then."""

    @property
    def attempts(self) -> int:
        """How many attempts that makes."""
        return self.attacks * (self.harmful + self.harmless)

    def __str__(self) -> str:
        speed = "all answered before" if math.isinf(self.rate) else f"at {self.rate:.1f}/s"
        text = (
            f"{self.harmful} of {self.of_harmful} harmful and {self.harmless} of {self.of_harmless} harmless behaviours"
            f" under each of {self.attacks} attacks, {self.attempts} attempts, {speed}"
        )
        if self.fits:
            return f"{text}: fits in {self.seconds:.0f} s"
        return f"{text}: the least there is, and it takes {self.attempts / self.rate:.0f} s, not {self.seconds:.0f}"


def fit(n_attacks: int, sides: tuple[int, int], seconds: float, rate: float) -> Fit:
    """How many behaviours fit in a time at a rate of attempts a second, both labels shrunk alike, at least one each.

    `n_attacks`: those that can be run, no attack at all among them; none is dropped. `sides`: how many harmful and
    harmless behaviours there are.
    """
    whole = sum(sides)
    room = int(min(rate * seconds / n_attacks, whole))
    share = room / whole if whole else 0.0
    # Rounded down: rounding both up could pass the limit.
    harmful, harmless = (min(side, max(1, math.floor(share * side + 1e-9))) for side in sides)
    return Fit(
        seconds=seconds,
        rate=rate,
        attacks=n_attacks,
        harmful=harmful,
        of_harmful=sides[0],
        harmless=harmless,
        of_harmless=sides[1],
        fits=n_attacks * (harmful + harmless) <= rate * seconds * (1 + 1e-9),
    )


def shrink(behaviors: Sequence[Behavior], n: int, seed: int, by: str = "category") -> list[Behavior]:
    """At most `n` behaviours, stratified; a smaller sample is a part of a larger one."""
    return sample(behaviors, n, seed, by) if 0 < n < len(behaviors) else list(behaviors[:n])


def make_plan_in_time(
    folder: Path,
    attacks: Sequence[Attack],
    harmful: Sequence[Behavior],
    harmless: Sequence[Behavior],
    how: Preparation,
    respondent: Respondent,
    seconds: float,
    by: str = "category",
    max_answer_tokens: int = 128,
    on_progress: OnProgress | None = None,
) -> tuple[PlanSummary, Fit]:
    """`make_plan` with as many behaviours as a model answers in `seconds`, its measurement included.

    What was decided stands in `folder`/budget.json and holds for every later call with the same inputs, so that a run
    which is taken up again keeps its plan. Raises what `make_plan` and `run_suite` raise, and ModelError where the
    model answers nothing that a rate could be measured on.
    """

    def plan(n_harmful: int, n_harmless: int) -> PlanSummary:
        kept = shrink(harmful, n_harmful, how.seed, by), shrink(harmless, n_harmless, how.seed, by)
        return make_plan(folder, attacks, *kept, replace(how, able=respondent.able))

    def pilot(n_harmful: int, n_harmless: int) -> tuple[PlanSummary, RunCounts]:
        return plan(n_harmful, n_harmless), run_suite(folder, respondent, max_answer_tokens, on_progress)

    ids = [[behavior.request.id for behavior in side] for side in (harmful, harmless)]
    told = key_of([[one.name for one in attacks], ids, how.seed, seconds, by, max_answer_tokens, respondent.name])
    chosen = _decided(folder, told)
    if chosen is None:
        chosen = _measured((len(harmful), len(harmless)), seconds, pilot, respondent.name)
        write_json(folder / BUDGET_FILE, {"inputs": told, "fit": chosen.model_dump(mode="json"), "says": str(chosen)})
    return plan(chosen.harmful, chosen.harmless), chosen


def _measured(
    whole: tuple[int, int], seconds: float, pilot: Callable[[int, int], tuple[PlanSummary, RunCounts]], model: str
) -> Fit:
    """What fits, by the rate of a plan that is doubled until the rate can be told."""
    size, spent, asked = 1, 0.0, 0
    while True:
        sides = min(size, whole[0]), min(size, whole[1])
        summary, counts = pilot(*sides)
        spent, asked = spent + counts.seconds, asked + counts.answered
        if counts.failed or counts.stopped or not (counts.answered or counts.reused):
            if not counts.answered:
                cause = counts.stopped or next(iter(counts.causes), "nothing could be asked")
                raise ModelError(model, f"gave no answer to measure a rate on ({cause})", "Try again")
        elif sides == whole and not counts.answered:
            return fit(_runnable(summary), whole, seconds, math.inf)
        if counts.answered and (sides == whole or asked >= _ENOUGH or spent >= _SHARE * seconds):
            break
        size *= 2  # too few yet, or an earlier run asked them already
    rate = counts.answered / counts.seconds
    # What was asked already takes no more time: the time left is for the rest.
    in_all = max(seconds - spent, 0.0) + summary.conversations / rate
    found = fit(_runnable(summary), whole, in_all, rate)
    return found.model_copy(update={"seconds": seconds, "fits": found.fits and spent <= seconds})


def _runnable(summary: PlanSummary) -> int:
    """How many attacks can be carried out on at least one request."""
    blocked = {attack: sum(causes.values()) for attack, causes in summary.not_run.items()}
    return sum(blocked.get(attack, 0) < summary.harmful + summary.harmless for attack in summary.attacks)


def _decided(folder: Path, told: str) -> Fit | None:
    path = folder / BUDGET_FILE
    if not path.is_file():
        return None
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return Fit.model_validate(held["fit"]) if held["inputs"] == told else None
    except (json.JSONDecodeError, KeyError, TypeError, ValidationError):
        raise InputError(path, "is damaged", "Delete it: the rate is measured again") from None
