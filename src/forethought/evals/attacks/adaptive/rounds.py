"""One round of all searches: their questions gathered by kind, each kind answered in one batch, every reply kept.

What an earlier run has kept is not asked again. The key of a reply covers all that it depends on: a question's content
and the names of the models, the judge for verdicts, and for what is computed from weights every reply before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from forethought.engine.conversation import Failed, Respondent, Response
from forethought.errors import ModelError
from forethought.evals.attacks.adaptive.base import Ask, Compute, Grade, Question, Reply, Score, Write
from forethought.evals.attacks.adaptive.journal import Kept, ReplyKind, digest
from forethought.evals.attacks.adaptive.judging import broken_by, rating_of
from forethought.evals.attacks.adaptive.live import Live
from forethought.evals.attacks.adaptive.targets import TextModel, Written, log_probs_of
from forethought.evals.judges.base import Item, Judge, Verdict

_SYNC_THREADS = 8


@dataclass
class _Slot:
    """A question of a search on its way to a reply."""

    live: Live
    question: Question
    key: str
    kept: Kept | None = None
    verdict: Kept | None = None


@dataclass(frozen=True)
class Parties:
    """Everyone who answers."""

    target: Respondent
    judge: Judge
    harmless_judge: Judge
    """Judges the answers to harmless requests."""
    attacker: TextModel | None
    evaluator: TextModel | None
    max_answer_tokens: int

    def writer(self, question: Write) -> TextModel | None:
        """Who writes a text."""
        return self.attacker if question.role == "attacker" else self.evaluator

    def judge_of(self, live: Live) -> Judge:
        """Who judges the answers of a search."""
        return self.harmless_judge if live.goal.request.harmful is False else self.judge

    @property
    def names(self) -> list[str]:
        """All that an outcome depends on besides the search itself."""
        writers = [writer.name if writer is not None else "" for writer in (self.attacker, self.evaluator)]
        judges = [f"{judge.name}:{judge.measure}" for judge in (self.judge, self.harmless_judge)]
        return [self.target.name, str(self.max_answer_tokens), *judges, *writers]


class Rounds:
    """Answers the pending questions of searches, round by round."""

    def __init__(self, parties: Parties) -> None:
        self._of = parties
        self.asked: Counter[str] = Counter()
        """Questions put, by kind of reply."""
        self.reused = 0
        """Replies that an earlier run had kept."""
        self._target_worked = False

    def answer(self, lives: Sequence[Live]) -> list[list[Reply]]:
        """The replies to each search's pending questions, on disk when this returns.

        A search whose Compute raises has broken down, and gets none. Raises ModelError where a model never worked.
        """
        slots = [_Slot(live, question, self._key(live, question)) for live in lives for question in live.pending]
        for slot in slots:
            slot.kept = slot.live.journal.get(slot.key)
            self.reused += slot.kept is not None
        self._compute([slot for slot in slots if slot.kept is None and isinstance(slot.question, Compute)])
        slots = [slot for slot in slots if slot.live.ended is None]
        new = [slot for slot in slots if slot.kept is None]
        for role in ("attacker", "evaluator"):
            self._write([slot for slot in new if isinstance(slot.question, Write) and slot.question.role == role])
        self._score([slot for slot in new if isinstance(slot.question, Score)])
        self._ask([slot for slot in new if isinstance(slot.question, Ask)])
        for judge in {id(judge): judge for judge in (self._of.judge, self._of.harmless_judge)}.values():
            self._judge(judge, [slot for slot in slots if self._of.judge_of(slot.live) is judge and _item(slot)])
        _sync(lives)
        replies: dict[int, list[Reply]] = {id(live): [] for live in lives}
        for slot in slots:
            replies[id(slot.live)].append(self._reply(slot))
        return [replies[id(live)] for live in lives]

    def _key(self, live: Live, question: Question) -> str:
        names = self._of
        content: list[Any] = [type(question).__name__]
        if isinstance(question, Ask):
            content += [names.target.name, names.max_answer_tokens, question.attacked.conversation.model_dump()]
        elif isinstance(question, Score):
            conversation = question.attacked.conversation.model_dump()
            content += [names.target.name, conversation, question.target_string, question.first_only]
        elif isinstance(question, Write):
            writer = names.writer(question)
            content += [writer.name if writer is not None else "", question.model_dump()]
        elif isinstance(question, Compute):
            content += [names.target.name, question.name, live.past]
        else:
            content += [question.model_dump()]
        said = digest(content)
        return digest(said, live.ordinal(said))

    def _keep(self, slot: _Slot, kind: ReplyKind, value: Any, cause: str = "") -> None:
        slot.kept = slot.live.journal.put(Kept(key=slot.key, kind=kind, value=value, cause=cause))

    def _compute(self, slots: Iterable[_Slot]) -> None:
        for slot in slots:
            assert isinstance(slot.question, Compute)
            if slot.live.ended is not None:
                continue
            try:
                self._keep(slot, "made", slot.question.work())
            except Exception as error:
                slot.live.break_down(error)
            self.asked["made"] += 1

    def _write(self, slots: Sequence[_Slot]) -> None:
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

    def _score(self, slots: Sequence[_Slot]) -> None:
        questions = [slot.question for slot in slots if isinstance(slot.question, Score)]
        if not questions:
            return
        for slot, found in zip(slots, log_probs_of(self._of.target, questions), strict=True):
            failed = isinstance(found, Failed)
            self._keep(slot, "log_prob", None if failed else found, found.cause if isinstance(found, Failed) else "")
        self.asked["log_prob"] += len(slots)

    def _ask(self, slots: Sequence[_Slot]) -> None:
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
            replies = self._of.target.reply(conversations, self._of.max_answer_tokens, told)
        except ModelError as error:
            # A server that is gone in the middle fails these queries; one that never worked is a broken set-up.
            if not self._target_worked:
                raise
            replies = [Failed(cause=error.rule)] * len(slots)
        self._target_worked = True
        for place, reply in enumerate(replies):  # for those who tell only at the end
            told(place, reply)

    def _judge(self, judge: Judge, slots: Sequence[_Slot]) -> None:
        """Verdicts on all answers; equal ones of a round are judged once."""
        waiting: dict[str, Item] = {}
        keys = []
        for slot in slots:
            item = _item(slot)
            assert item is not None
            keys.append(digest("Verdict", judge.name, judge.measure, item.model_dump(mode="json")))
            slot.verdict = slot.live.journal.get(keys[-1])
            if slot.verdict is None:
                waiting[keys[-1]] = item
        found = dict(zip(waiting, judge.judge(list(waiting.values())), strict=True)) if waiting else {}
        self.asked["verdict"] += len(found)
        for slot, key in zip(slots, keys, strict=True):
            if slot.verdict is None:
                verdict = found[key]
                kept = Kept(key=key, kind="verdict", value=verdict.model_dump(mode="json"), cause=verdict.cause)
                slot.verdict = slot.live.journal.put(kept)

    def _reply(self, slot: _Slot) -> Reply:
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
            slot.live.spent(reply, kept.value.get("tokens", 0), kept.value.get("cost"))
            return reply
        slot.live.spent(reply)
        return reply

    def _judged(self, slot: _Slot, kept: Kept) -> Reply:
        verdict = Verdict.model_validate(kept.value)
        measure = self._of.judge_of(slot.live).measure
        broken, cause = broken_by(verdict, measure, slot.live.goal.request.harmful)
        response = Response.model_validate(slot.kept.value) if slot.kept is not None else None
        return Reply(
            response=response,
            verdict=verdict,
            broken=broken,
            rating=rating_of(verdict, measure, broken),
            cause=cause,
        )


def _item(slot: _Slot) -> Item | None:
    """What a judge is given: the answer alone, beside what is really asked; None where there is nothing to judge."""
    asked = slot.live.goal.request.plain
    if isinstance(slot.question, Grade):
        return Item(request=asked, conversation=slot.question.request.messages, answer=slot.question.answer)
    if isinstance(slot.question, Ask) and slot.kept is not None and slot.kept.value is not None:
        response = Response.model_validate(slot.kept.value)
        return Item(request=asked, conversation=slot.question.attacked.messages, answer=response.answer)
    return None


def _sync(lives: Sequence[Live]) -> None:
    """All journals at once: a disk takes many syncs in hardly more time than one."""
    with ThreadPoolExecutor(_SYNC_THREADS) as pool:
        list(pool.map(lambda live: live.journal.sync(), lives))
