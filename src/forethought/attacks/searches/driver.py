"""Carries out searches side by side, resumable, each within its budget of queries.

In each round their questions are gathered by kind, each kind is answered in one batch, and every reply is kept. What an
earlier run has kept is not asked again. The key of a reply covers all that it depends on: a question's content and the
names of the models, the judge for verdicts, and for what is computed from weights every reply before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from forethought.attacks.searches.base import (
    Ask,
    Compute,
    Goal,
    Grade,
    Method,
    Question,
    Reply,
    Score,
    Tools,
    Write,
    digest,
    why_not,
)
from forethought.attacks.searches.models import TextModel, log_probs_of
from forethought.attacks.searches.outcome import (
    Outcome,
    ReplyKind,
    RunningSearch,
    SearchProgress,
    SearchRun,
    SearchSettings,
    StoredReply,
    broken_by,
    rating_of,
)
from forethought.errors import ModelError
from forethought.judges.base import Item, Judge, Verdict
from forethought.models.conversation import Failed, Respondent, Response
from forethought.store import Store, read_store, rewrite

_SYNC_THREADS = 8
AQuestion = TypeVar("AQuestion", bound=Question)


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

    def judge_of(self, search: RunningSearch) -> Judge:
        """Who judges the answers of a search."""
        harmless = search.goal.request.harmful is False
        return self.harmless_judge if harmless and self.harmless_judge is not None else self.judge

    def names(self, max_answer_tokens: int) -> list[str]:
        """All that an outcome depends on besides the search itself."""
        writers = [writer.name if writer is not None else "" for writer in (self.attacker, self.evaluator)]
        judges = [f"{judge.name}:{judge.measure}" for judge in (self.judge, self.harmless_judge or self.judge)]
        return [self.target.name, str(max_answer_tokens), *judges, *writers]


@dataclass
class _Slot(Generic[AQuestion]):
    """A question of a search on its way to a reply."""

    search: RunningSearch
    question: AQuestion
    key: str
    kept: StoredReply | None = None
    verdict: StoredReply | None = None

    def keep(self, kind: ReplyKind, value: Any, cause: str = "") -> None:
        """The reply, or why there is none."""
        self.kept = self.search.keep(self.key, StoredReply(kind=kind, value=value, cause=cause))

    @property
    def response(self) -> Response | None:
        """Of an Ask, where it got one."""
        there = isinstance(self.question, Ask) and self.kept is not None and self.kept.value is not None
        return Response.model_validate(self.kept.value) if there and self.kept is not None else None

    @property
    def item(self) -> Item | None:
        """What a judge is given: the answer alone, beside what is really asked; None where nothing is to be judged."""
        asked = self.search.goal.request.plain
        if isinstance(self.question, Grade):
            return Item(request=asked, conversation=self.question.request.messages, answer=self.question.answer)
        if isinstance(self.question, Ask) and (response := self.response) is not None:
            return Item(request=asked, conversation=self.question.attacked.messages, answer=response.answer)
        return None


def _of(slots: Sequence[_Slot[Any]], kind: type[AQuestion]) -> list[_Slot[AQuestion]]:
    """Those of a kind that have no reply yet, and whose search has not broken down."""
    return [one for one in slots if isinstance(one.question, kind) and one.kept is None and one.search.ended is None]


class Rounds:
    """Answers the pending questions of searches, round by round."""

    def __init__(self, parties: Parties, max_answer_tokens: int) -> None:
        self._parties, self._max_answer_tokens = parties, max_answer_tokens
        self._target_worked = False

    def answer(self, searches: Sequence[RunningSearch]) -> list[list[Reply]]:
        """The replies to each search's pending questions, on disk when this returns.

        A search whose Compute raises has broken down, and gets none. Raises ModelError where a model never worked.
        """
        slots = [_Slot(one, question, self._key(one, question)) for one in searches for question in one.pending]
        for slot in slots:
            slot.kept = slot.search.kept.read(slot.key, StoredReply)
        self._compute(_of(slots, Compute))
        for role, writer in (("attacker", self._parties.attacker), ("evaluator", self._parties.evaluator)):
            self._write(role, writer, [slot for slot in _of(slots, Write) if slot.question.role == role])
        self._score(_of(slots, Score))
        self._ask(_of(slots, Ask))
        judged = [(slot, item) for slot in slots if slot.search.ended is None and (item := slot.item) is not None]
        judges = [self._parties.judge_of(slot.search) for slot, _ in judged]
        for judge in {id(judge): judge for judge in judges}.values():
            self._judge(judge, [one for one, its in zip(judged, judges, strict=True) if its is judge])
        with ThreadPoolExecutor(_SYNC_THREADS) as pool:  # a disk takes many syncs in hardly more time than one
            list(pool.map(lambda search: search.kept.sync(), searches))
        replies: dict[int, list[Reply]] = {id(search): [] for search in searches}
        for slot in slots:
            if slot.search.ended is None:
                replies[id(slot.search)].append(self._reply(slot))
        return [replies[id(search)] for search in searches]

    def _key(self, search: RunningSearch, question: Question) -> str:
        target = self._parties.target.name
        content: list[Any] = [type(question).__name__]
        if isinstance(question, Ask):
            content += [target, self._max_answer_tokens, question.attacked.conversation.model_dump()]
        elif isinstance(question, Score):
            conversation = question.attacked.conversation.model_dump()
            content += [target, conversation, question.target_string, question.first_only]
        elif isinstance(question, Write):
            writer = self._parties.attacker if question.role == "attacker" else self._parties.evaluator
            content += [writer.name if writer is not None else "", question.model_dump()]
        elif isinstance(question, Compute):
            content += [target, question.name, search.past]
        else:
            content += [question.model_dump()]
        said = digest(content)
        return digest(said, search.ordinal(said))

    def _compute(self, slots: Sequence[_Slot[Compute]]) -> None:
        for slot in slots:
            if slot.search.ended is not None:
                continue  # another work of it has just failed
            try:
                slot.keep("made", slot.question.work())
            except Exception as error:
                slot.search.break_down(error)

    def _write(self, role: str, writer: TextModel | None, slots: Sequence[_Slot[Write]]) -> None:
        def told(place: int, reply: Reply) -> None:
            value = {"text": reply.text, "tokens": reply.tokens}
            slots[place].keep("text", value if reply.text is not None else None, reply.cause)

        if writer is not None and slots:
            writer.write([slot.question for slot in slots], told)
        for slot in slots:
            if slot.kept is None:
                slot.keep("text", None, f"there is no {role}" if writer is None else f"the {role} gave no text")

    def _score(self, slots: Sequence[_Slot[Score]]) -> None:
        if not slots:
            return
        for slot, found in zip(slots, log_probs_of(self._parties.target, [one.question for one in slots]), strict=True):
            if isinstance(found, Failed):
                slot.keep("log_prob", None, found.cause)
            else:
                slot.keep("log_prob", found)

    def _ask(self, slots: Sequence[_Slot[Ask]]) -> None:
        if not slots:
            return

        def told(place: int, reply: Response | Failed) -> None:
            if slots[place].kept is None:
                if isinstance(reply, Failed):
                    slots[place].keep("response", None, reply.cause)
                else:
                    slots[place].keep("response", reply.model_dump(mode="json"))

        try:
            conversations = [slot.question.attacked.conversation for slot in slots]
            replies = self._parties.target.reply(conversations, self._max_answer_tokens, told)
        except ModelError as error:
            # A server that is gone in the middle fails these queries; one that never worked is a broken set-up.
            if not self._target_worked:
                raise
            replies = [Failed(cause=error.rule)] * len(slots)
        self._target_worked = True
        for place, reply in enumerate(replies):  # for those who tell only at the end
            told(place, reply)

    def _judge(self, judge: Judge, judged: Sequence[tuple[_Slot[Any], Item]]) -> None:
        """Verdicts on all answers; equal ones of a round are judged once."""
        keys = [digest("Verdict", judge.name, judge.measure, item.model_dump(mode="json")) for _, item in judged]
        waiting: dict[str, Item] = {}
        for key, (slot, item) in zip(keys, judged, strict=True):
            slot.verdict = slot.search.kept.read(key, StoredReply)
            if slot.verdict is None:
                waiting[key] = item
        found = dict(zip(waiting, judge.judge(list(waiting.values())), strict=True)) if waiting else {}
        for key, (slot, _) in zip(keys, judged, strict=True):
            if slot.verdict is None:
                value = found[key].model_dump(mode="json")
                slot.verdict = slot.search.keep(key, StoredReply(kind="verdict", value=value, cause=found[key].cause))

    def _reply(self, slot: _Slot[Any]) -> Reply:
        if slot.verdict is not None:
            verdict, search = Verdict.model_validate(slot.verdict.value), slot.search
            measure = self._parties.judge_of(search).measure
            broken, cause = broken_by(verdict, measure, search.goal.request.harmful)
            rating = rating_of(verdict, measure, broken)
            return Reply(response=slot.response, verdict=verdict, broken=broken, rating=rating, cause=cause)
        kept = slot.kept
        if kept is None or kept.value is None:
            return Reply(cause=kept.cause if kept is not None else "there is nothing to judge")
        if isinstance(slot.question, Score):
            return Reply(log_prob=kept.value)
        if isinstance(slot.question, Compute):
            return Reply(made=kept.value)
        return Reply(text=kept.value["text"], tokens=kept.value.get("tokens", 0))


OUTCOMES_FILE = "outcomes.jsonl"
_REPLIES = "searches"


@dataclass(frozen=True)
class Searching:
    """All that searches are carried out with in one process."""

    methods: Sequence[Method]
    parties: Parties
    tools: Tools
    settings: SearchSettings

    def prepared(self, goals: Sequence[Goal]) -> Searching:
        """With the goals that universal attacks are optimised for: those not harmless, where none are named."""
        if self.tools.group:
            return self
        group = tuple(goal for goal in goals if goal.request.harmful is not False)
        return replace(self, tools=replace(self.tools, group=group))

    @property
    def not_run(self) -> dict[str, str]:
        """Methods that can't be run here, with the cause."""
        parties, found = self.parties, {}
        for method in self.methods:
            cause = why_not(method, self.tools, parties.attacker is not None, parties.evaluator is not None)
            if not cause and method.multi_turn and parties.judge.measure == "refused":
                cause = "needs a judge of harm: a harmless first turn that is answered is no success"
            if cause:
                found[method.name] = cause
        return found


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
    searching = Searching(methods, parties, tools, settings).prepared(goals)
    not_run, rounds = searching.not_run, Rounds(parties, settings.max_answer_tokens)
    with State(folder, settings, searching.tools) as state:
        state.add_all(methods, goals, not_run, parties.names(settings.max_answer_tokens))
        while state.fill():
            for search, replies in zip(state.alive, rounds.answer(state.alive), strict=True):
                if search.ended is None:
                    search.go_on(replies)
            state.settle()
            if on_progress is not None:
                on_progress(state.progress())
    return state.run(not_run)


@dataclass
class Waiting:
    """A search that has not begun, and where its replies stand."""

    key: str
    method: Method
    goal: Goal
    budget: int
    file: Path


class State(ExitStack):
    """Which searches wait, live and are done. Closed, all files are; what is in them is kept."""

    def __init__(self, folder: Path, settings: SearchSettings, tools: Tools) -> None:
        super().__init__()
        self._folder, self.settings, self.tools = folder, settings, tools
        self.outcomes = self.enter_context(Store(folder / OUTCOMES_FILE, write=True))
        self._known = self.outcomes.records(Outcome)
        self.keys: dict[str, None] = {}
        self.done: dict[str, Outcome] = {}
        self.alive: list[RunningSearch] = []
        self.waiting: deque[Waiting] = deque()

    def add_all(
        self, methods: Sequence[Method], goals: Sequence[Goal], not_run: Mapping[str, str], names: Sequence[str]
    ) -> None:
        """Every method that can be run, for every goal."""
        for method in methods:
            for goal in goals if method.name not in not_run else ():
                self.add(method, goal, names)

    def add(self, method: Method, goal: Goal, names: Sequence[str]) -> None:
        """One method for one goal more; one that an earlier run has carried out is done."""
        settings, tools = self.settings, self.tools
        budget, options = settings.budget or method.queries, dict(sorted(method.options.items()))
        search = digest(method.name, options, goal.request.id, goal.target_string, settings.seed)
        group = [[one.request.id, one.target_string] for one in tools.group]
        given = [list(tools.templates), group, tools.policy.model_dump(mode="json"), tools.format, tools.thinks]
        key = digest(search, [goal.request.harmful, goal.request.plain], budget, given, names)

        if key in self._known and self._known[key].ended != "error":
            self.done[key] = self._known[key]
        elif key not in self.keys:
            file = self._folder / _REPLIES / method.name.partition(":")[0] / f"{search}.jsonl"
            self.waiting.append(Waiting(key, method, goal, budget, file))
        self.keys[key] = None

    def fill(self) -> bool:
        """Starts searches until as many live as may; False where all are done."""
        while self.waiting and len(self.alive) < self.settings.concurrent:
            one, seed = self.waiting.popleft(), self.settings.seed
            kept = Store(one.file, write=True)
            search = RunningSearch(one.key, one.method, one.goal, one.budget, seed, self.tools, kept)
            self.callback(search.kept.close)
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
                self.outcomes.add(search.key, outcome)
                search.kept.close()
        self.outcomes.sync()
        self.alive = [search for search in self.alive if search.ended is None]

    def run(self, not_run: dict[str, str]) -> SearchRun:
        """What came of all."""
        outcomes = tuple(self.done[key] for key in self.keys)
        _write(self._folder / OUTCOMES_FILE, outcomes)
        return SearchRun(outcomes, not_run)

    def progress(self) -> SearchProgress:
        """Where the run stands."""
        done = self.done.values()
        return SearchProgress(
            done=len(done),
            total=len(self.keys),
            alive=len(self.alive),
            queries=sum(one.queries for one in done) + sum(search.queries for search in self.alive),
            broken=sum(one.broken is True for one in done) + sum(search.broken for search in self.alive),
            unscored=sum(one.broken is None for one in done),
        )


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
