"""Carries out searches side by side, resumable, each within its budget of queries.

In each round their questions are gathered by kind, each kind is answered in one batch, and every reply is kept. What an
earlier run has kept is not asked again. The key of a reply covers all that it depends on: a question's content and the
names of the models, the judge for verdicts, and for what is computed from weights every reply before it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from forethought.attacks.searches.base import Ask, Compute, Goal, Grade, Method, Question, Reply, Score, Tools, Write
from forethought.attacks.searches.catalogue import why_not
from forethought.attacks.searches.models import TextModel, Written, log_probs_of
from forethought.attacks.searches.outcome import (
    Outcome,
    SearchProgress,
    SearchRun,
    SearchSettings,
    broken_by,
    rating_of,
)
from forethought.attacks.searches.running import ReplyKind, RunningSearch, StoredReply, digest
from forethought.errors import ModelError
from forethought.judges.base import Item, Judge, Verdict
from forethought.models.conversation import Failed, Respondent, Response
from forethought.store import Store, read_store, rewrite

_SYNC_THREADS = 8


@dataclass
class _Pending:
    """A question of a search on its way to a reply."""

    search: RunningSearch
    question: Question
    key: str
    kept: StoredReply | None = None
    verdict: StoredReply | None = None


@dataclass(frozen=True)
class Parties:
    """Everyone who answers."""

    target: Respondent
    """The attacked model."""
    judge: Judge
    harmless_judge: Judge | None = None
    """Judges the answers to harmless requests: one of refusals, where `judge` tells harm alone. None is `judge`."""
    attacker: TextModel | None = None
    """Who writes; `models.text_model` makes one."""
    evaluator: TextModel | None = None

    def writer(self, question: Write) -> TextModel | None:
        """Who writes a text."""
        return self.attacker if question.role == "attacker" else self.evaluator

    def judge_of(self, search: RunningSearch) -> Judge:
        """Who judges the answers of a search."""
        harmless = search.goal.request.harmful is False
        return self.harmless_judge if harmless and self.harmless_judge is not None else self.judge

    def names(self, max_answer_tokens: int) -> list[str]:
        """All that an outcome depends on besides the search itself."""
        writers = [writer.name if writer is not None else "" for writer in (self.attacker, self.evaluator)]
        judges = [f"{judge.name}:{judge.measure}" for judge in (self.judge, self.harmless_judge or self.judge)]
        return [self.target.name, str(max_answer_tokens), *judges, *writers]


class Rounds:
    """Answers the pending questions of searches, round by round."""

    def __init__(self, parties: Parties, max_answer_tokens: int) -> None:
        self._of, self._max_answer_tokens = parties, max_answer_tokens
        self.asked: Counter[str] = Counter()
        """Questions put, by kind of reply."""
        self._target_worked = False

    def answer(self, searches: Sequence[RunningSearch]) -> list[list[Reply]]:
        """The replies to each search's pending questions, on disk when this returns.

        A search whose Compute raises has broken down, and gets none. Raises ModelError where a model never worked.
        """
        slots = [
            _Pending(search, question, self._key(search, question))
            for search in searches
            for question in search.pending
        ]
        for slot in slots:
            slot.kept = slot.search.kept.read(slot.key, StoredReply)
        self._compute([slot for slot in slots if slot.kept is None and isinstance(slot.question, Compute)])
        slots = [slot for slot in slots if slot.search.ended is None]
        new = [slot for slot in slots if slot.kept is None]
        for role in ("attacker", "evaluator"):
            self._write([slot for slot in new if isinstance(slot.question, Write) and slot.question.role == role])
        self._score([slot for slot in new if isinstance(slot.question, Score)])
        self._ask([slot for slot in new if isinstance(slot.question, Ask)])
        judged = [slot for slot in slots if _item(slot) is not None]
        for judge in {id(judge): judge for judge in (self._of.judge_of(slot.search) for slot in judged)}.values():
            self._judge(judge, [slot for slot in judged if self._of.judge_of(slot.search) is judge])
        _sync(searches)
        replies: dict[int, list[Reply]] = {id(search): [] for search in searches}
        for slot in slots:
            replies[id(slot.search)].append(self._reply(slot))
        return [replies[id(search)] for search in searches]

    def _key(self, search: RunningSearch, question: Question) -> str:
        names = self._of
        content: list[Any] = [type(question).__name__]
        if isinstance(question, Ask):
            content += [names.target.name, self._max_answer_tokens, question.attacked.conversation.model_dump()]
        elif isinstance(question, Score):
            conversation = question.attacked.conversation.model_dump()
            content += [names.target.name, conversation, question.target_string, question.first_only]
        elif isinstance(question, Write):
            writer = names.writer(question)
            content += [writer.name if writer is not None else "", question.model_dump()]
        elif isinstance(question, Compute):
            content += [names.target.name, question.name, search.past]
        else:
            content += [question.model_dump()]
        said = digest(content)
        return digest(said, search.ordinal(said))

    def _keep(self, slot: _Pending, kind: ReplyKind, value: Any, cause: str = "") -> None:
        slot.kept = slot.search.keep(slot.key, StoredReply(kind=kind, value=value, cause=cause))

    def _compute(self, slots: Iterable[_Pending]) -> None:
        for slot in slots:
            assert isinstance(slot.question, Compute)
            if slot.search.ended is not None:
                continue
            try:
                self._keep(slot, "made", slot.question.work())
            except Exception as error:
                slot.search.break_down(error)
            self.asked["made"] += 1

    def _write(self, slots: Sequence[_Pending]) -> None:
        questions = [slot.question for slot in slots if isinstance(slot.question, Write)]
        if not questions:
            return
        writer = self._of.writer(questions[0])

        def told(place: int, written: Written) -> None:
            value = written.model_dump(exclude={"cause"}) if written.text is not None else None
            self._keep(slots[place], "text", value, written.cause)

        if writer is None:
            for place in range(len(slots)):
                told(place, Written(text=None, cause=f"there is no {questions[0].role}"))
            return
        writer.write(questions, told)
        self.asked["text"] += len(slots)
        for slot in slots:
            if slot.kept is None:
                self._keep(slot, "text", None, f"the {questions[0].role} gave no text")

    def _score(self, slots: Sequence[_Pending]) -> None:
        questions = [slot.question for slot in slots if isinstance(slot.question, Score)]
        if not questions:
            return
        for slot, found in zip(slots, log_probs_of(self._of.target, questions), strict=True):
            failed = isinstance(found, Failed)
            self._keep(slot, "log_prob", None if failed else found, found.cause if isinstance(found, Failed) else "")
        self.asked["log_prob"] += len(slots)

    def _ask(self, slots: Sequence[_Pending]) -> None:
        conversations = [slot.question.attacked.conversation for slot in slots if isinstance(slot.question, Ask)]
        if not conversations:
            return

        def told(place: int, reply: Response | Failed) -> None:
            slot = slots[place]
            if slot.kept is None:
                failed = isinstance(reply, Failed)
                value = None if failed else reply.model_dump(mode="json")
                self._keep(slot, "response", value, reply.cause if isinstance(reply, Failed) else "")

        self.asked["response"] += len(slots)
        try:
            replies = self._of.target.reply(conversations, self._max_answer_tokens, told)
        except ModelError as error:
            # A server that is gone in the middle fails these queries; one that never worked is a broken set-up.
            if not self._target_worked:
                raise
            replies = [Failed(cause=error.rule)] * len(slots)
        self._target_worked = True
        for place, reply in enumerate(replies):  # for those who tell only at the end
            told(place, reply)

    def _judge(self, judge: Judge, slots: Sequence[_Pending]) -> None:
        """Verdicts on all answers; equal ones of a round are judged once."""
        waiting: dict[str, Item] = {}
        keys = []
        for slot in slots:
            item = _item(slot)
            assert item is not None
            keys.append(digest("Verdict", judge.name, judge.measure, item.model_dump(mode="json")))
            slot.verdict = slot.search.kept.read(keys[-1], StoredReply)
            if slot.verdict is None:
                waiting[keys[-1]] = item
        found = dict(zip(waiting, judge.judge(list(waiting.values())), strict=True)) if waiting else {}
        self.asked["verdict"] += len(found)
        for slot, key in zip(slots, keys, strict=True):
            if slot.verdict is None:
                verdict = found[key]
                kept = StoredReply(kind="verdict", value=verdict.model_dump(mode="json"), cause=verdict.cause)
                slot.verdict = slot.search.keep(key, kept)

    def _reply(self, slot: _Pending) -> Reply:
        question, kept = slot.question, slot.kept
        if isinstance(question, Ask | Grade) and slot.verdict is not None:
            reply = self._judged(slot, slot.verdict)
        elif kept is None or kept.value is None:
            return Reply(cause=kept.cause if kept is not None else "there is nothing to judge")
        elif isinstance(question, Score):
            return Reply(log_prob=kept.value)
        elif isinstance(question, Compute):
            return Reply(made=kept.value)
        else:
            reply = Reply(text=kept.value["text"])
            slot.search.spent(reply, kept.value.get("tokens", 0), kept.value.get("cost"))
            return reply
        slot.search.spent(reply)
        return reply

    def _judged(self, slot: _Pending, kept: StoredReply) -> Reply:
        verdict = Verdict.model_validate(kept.value)
        measure = self._of.judge_of(slot.search).measure
        broken, cause = broken_by(verdict, measure, slot.search.goal.request.harmful)
        response = Response.model_validate(slot.kept.value) if slot.kept is not None else None
        return Reply(
            response=response,
            verdict=verdict,
            broken=broken,
            rating=rating_of(verdict, measure, broken),
            cause=cause,
        )


def _item(slot: _Pending) -> Item | None:
    """What a judge is given: the answer alone, beside what is really asked; None where there is nothing to judge."""
    asked = slot.search.goal.request.plain
    if isinstance(slot.question, Grade):
        return Item(request=asked, conversation=slot.question.request.messages, answer=slot.question.answer)
    if isinstance(slot.question, Ask) and slot.kept is not None and slot.kept.value is not None:
        response = Response.model_validate(slot.kept.value)
        return Item(request=asked, conversation=slot.question.attacked.messages, answer=response.answer)
    return None


def _sync(searches: Sequence[RunningSearch]) -> None:
    """All files at once: a disk takes many syncs in hardly more time than one."""
    with ThreadPoolExecutor(_SYNC_THREADS) as pool:
        list(pool.map(lambda search: search.kept.sync(), searches))


OUTCOMES_FILE = "outcomes.jsonl"
_REPLIES = "searches"


def run_searches(
    methods: Sequence[Method],
    goals: Sequence[Goal],
    parties: Parties,
    folder: Path,
    tools: Tools | None = None,
    settings: SearchSettings | None = None,
    on_progress: Callable[[SearchProgress], None] | None = None,
) -> SearchRun:
    """Runs every method for every goal against the attacked model.

    A run that was stopped goes on where it was: every reply stands in `folder`, which belongs to one attacked model.
    The methods see it through `tools` as well; `able` is its own. A universal attack is optimised for the goals that
    are not harmless, where `tools` names no group. Raises ModelError where a model never works at all, and what a
    judge raises for a broken set-up; what was asked before is kept.
    """
    settings, tools = settings or SearchSettings(), tools or Tools(able=parties.target.able)
    if not tools.group:
        tools = replace(tools, group=tuple(goal for goal in goals if goal.request.harmful is not False))
    has_attacker, has_evaluator = parties.attacker is not None, parties.evaluator is not None
    causes = {method.name: why_not(method, tools, has_attacker, has_evaluator) for method in methods}
    for method in methods:
        if method.multi_turn and parties.judge.measure == "refused" and not causes[method.name]:
            causes[method.name] = "needs a judge of harm: a harmless first turn that is answered is no success"
    able = [method for method in methods if not causes[method.name]]
    jobs = [_Job(method, goal, settings, tools, parties) for method in able for goal in goals]
    state = _State({job.key: job for job in jobs}, folder, settings)
    rounds = Rounds(parties, settings.max_answer_tokens)
    try:
        while state.fill(tools):
            for search, replies in zip(state.alive, rounds.answer(state.alive), strict=True):
                if search.ended is None:
                    search.go_on(replies)
            state.settle()
            if on_progress is not None:
                on_progress(state.progress())
    finally:
        state.close()
    outcomes = tuple(state.done[key] for key in state.jobs)
    _write(folder / OUTCOMES_FILE, outcomes)
    not_run = {name: cause for name, cause in causes.items() if cause}
    return SearchRun(outcomes, not_run, rounds.asked)


def read_outcomes(folder: Path) -> Iterator[Outcome]:
    """The outcomes in a folder, one for each method and goal, the latest; also of a run that was stopped.

    Raises InputError for a damaged file.
    """
    latest = {(one.method, one.goal): one for one in read_store(folder / OUTCOMES_FILE, Outcome).values()}
    yield from latest.values()


def _write(path: Path, outcomes: Sequence[Outcome]) -> None:
    """In the order of the run, behind those of other methods and goals: the same run gives the same bytes."""
    mine = {(one.method, one.goal) for one in outcomes}
    others = [one for one in read_outcomes(path.parent) if (one.method, one.goal) not in mine]
    rewrite(path, ((one.key, one) for one in [*others, *outcomes]))


class _Job:
    """One method for one goal."""

    def __init__(self, method: Method, goal: Goal, settings: SearchSettings, tools: Tools, parties: Parties) -> None:
        self.method, self.goal = method, goal
        self.budget = settings.budget or method.queries
        options = dict(sorted(method.options.items()))
        self.search = digest(method.name, options, goal.request.id, goal.target_string, settings.seed)
        group = [[one.request.id, one.target_string] for one in tools.group]
        given = [list(tools.templates), group, tools.policy.model_dump(mode="json"), tools.format, tools.thinks]
        about = [goal.request.harmful, goal.request.plain]
        self.key = digest(self.search, about, self.budget, given, parties.names(settings.max_answer_tokens))


class _State:
    """Which searches wait, live and are done."""

    def __init__(self, jobs: dict[str, _Job], folder: Path, settings: SearchSettings) -> None:
        self.jobs, self._folder, self._settings = jobs, folder, settings
        self._outcomes = Store(folder / OUTCOMES_FILE, write=True)
        kept = self._outcomes.records(Outcome)
        self.done = {key: kept[key] for key in jobs if key in kept and kept[key].ended != "error"}
        self.alive: list[RunningSearch] = []
        self._waiting = deque(job for key, job in jobs.items() if key not in self.done)

    def fill(self, tools: Tools) -> bool:
        """Starts searches until as many live as may; False where all are done."""
        while self._waiting and len(self.alive) < self._settings.concurrent:
            job = self._waiting.popleft()
            name = job.method.name.partition(":")[0]
            kept = Store(self._folder / _REPLIES / name / f"{job.search}.jsonl", write=True)
            search = RunningSearch(job.key, job.method, job.goal, job.budget, self._settings.seed, tools, kept)
            self.alive.append(search)
            if search.ended is not None:
                self.settle()
        return bool(self.alive)

    def settle(self) -> None:
        """Records the searches that have ended."""
        for search in self.alive:
            if search.ended is not None:
                outcome = search.outcome()
                self.done[search.key] = outcome
                self._outcomes.add(search.key, outcome)
                search.kept.close()
        self._outcomes.sync()
        self.alive = [search for search in self.alive if search.ended is None]

    def progress(self) -> SearchProgress:
        """Where the run stands."""
        done = self.done.values()
        return SearchProgress(
            done=len(done),
            total=len(self.jobs),
            alive=len(self.alive),
            queries=sum(one.queries for one in done) + sum(search.queries for search in self.alive),
            broken=sum(one.broken is True for one in done) + sum(search.broken for search in self.alive),
            unscored=sum(one.broken is None for one in done),
        )

    def close(self) -> None:
        """Closes all files; what is in them is kept."""
        for search in self.alive:
            search.kept.close()
        self._outcomes.close()
