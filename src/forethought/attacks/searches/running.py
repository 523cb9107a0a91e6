"""One search that is being carried out: its generator, its budget, and what is counted of it."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from forethought.attacks.base import Attacked
from forethought.attacks.searches.base import (
    Ask,
    Compute,
    Goal,
    Grade,
    Method,
    Question,
    Questions,
    Reply,
    Score,
    Tools,
    Write,
)
from forethought.attacks.searches.outcome import Ended, Outcome
from forethought.errors import ForethoughtError
from forethought.records import Record
from forethought.store import Store

_IDLE = 200
"""So many rounds in a row of nothing but writes, or of nothing at all, end a search: it would go on for ever."""
_KINDS = (Ask, Score, Grade, Write, Compute)
ReplyKind = Literal["response", "verdict", "log_prob", "text", "made"]


class StoredReply(Record):
    """One reply as it stands on disk, under the hash of all that it depends on."""

    kind: ReplyKind
    value: Any = None
    """What JSON holds; None where there was no reply."""
    cause: str = ""
    """Why there was none."""


def digest(*parts: Any) -> str:
    """32 hexadecimal digits of anything that JSON holds."""
    joined = json.dumps(parts, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class RunningSearch:
    """A search under way. Its pending questions are answered by whoever drives it."""

    def __init__(self, key: str, method: Method, goal: Goal, budget: int, seed: int, tools: Tools, kept: Store) -> None:
        """Starts it, up to its first questions. It may end at once, or break down. `kept` holds its replies."""
        self.key, self.method, self.goal, self.budget, self.kept = key, method, goal, budget, kept
        self.pending: tuple[Question, ...] = ()
        self.ended: Ended | None = None
        self.past = ""
        """Hash of all replies so far."""
        self._seen: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._causes: Counter[str] = Counter()
        self._notes: dict[str, int] = {}
        self._first_success: int | None = None
        self._best: dict[str, Any] = {}
        self._best_rank = (False, 0)
        self._cost: float | None = None
        self._cause = ""
        self._idle = 0
        rng = random.Random(f"{seed}:{method.name}:{goal.request.id}")
        try:
            self._run = method.search(goal, rng, method.options, tools)
            self._take(next(self._run))
        except StopIteration:
            self.ended = "end"
        except Exception as error:
            self.break_down(error)

    def keep(self, key: str, reply: StoredReply) -> StoredReply:
        """Keeps a reply, and gives it back as it will be read: a search sees the same on its first run and later."""
        self.kept.add(key, reply)
        return StoredReply.model_validate_json(reply.model_dump_json())

    def ordinal(self, content: str) -> int:
        """How often this search has asked the same before."""
        self._seen[content] += 1
        return self._seen[content] - 1

    def break_down(self, error: Exception) -> None:
        """Ends it as failed; other searches go on."""
        said = str(error).splitlines()[0] if str(error) else ""
        self._cause = said if isinstance(error, ForethoughtError) else f"{type(error).__name__}: {said}".rstrip(": ")
        self.ended, self.pending = "error", ()

    def go_on(self, replies: Sequence[Reply]) -> None:
        """Counts the replies, in the order of the pending questions, and gives them to the search."""
        for question, reply in zip(self.pending, replies, strict=True):
            self._count(question, reply)
        if self.queries >= self.budget:
            self._run.close()
            self.ended, self.pending = "budget", ()
            return
        try:
            self._take(self._run.send(replies))
        except StopIteration:
            self.ended, self.pending = "end", ()
        except Exception as error:
            self.break_down(error)

    @property
    def queries(self) -> int:
        """Queries so far."""
        return self._counts["asks"] + self._counts["scores"] + self._counts["grades"]

    @property
    def broken(self) -> bool:
        """Whether one of them got through."""
        return self._first_success is not None

    def spent(self, reply: Reply, tokens: int = 0, cost: float | None = None) -> None:
        """Counts the tokens of a reply, and what a writer's text cost."""
        if reply.response is not None:
            self._counts["prompt_tokens"] += reply.response.prompt_tokens
            self._counts["made_tokens"] += reply.response.reasoning_tokens + reply.response.answer_tokens
        self._counts["writer_tokens"] += tokens
        if cost is not None:
            self._cost = (self._cost or 0.0) + cost

    def outcome(self) -> Outcome:
        """What is recorded of it; only after it has ended."""
        assert self.ended is not None
        no_verdict = self._causes.most_common(1)[0][0] if self._causes else "it got no answer to judge"
        cause = self._cause or ("" if self._counts["verdicts"] or self.broken else no_verdict)
        fields: dict[str, Any] = {
            "key": self.key,
            "method": self.method.name,
            "goal": self.goal.request.id,
            "harmful": self.goal.request.harmful,
            "budget": self.budget,
            "ended": self.ended,
            "queries": self.queries,
            "first_success": self._first_success,
            "causes": dict(sorted(self._causes.items())),
            "notes": self._notes,
            "cost": self._cost,
            "cause": cause,
        }
        return Outcome(**{**fields, **self._counts, **self._best})

    def _take(self, questions: Questions) -> None:
        """Makes questions the pending ones, cut where the budget ends."""
        left = self.budget - self.queries
        taken: list[Question] = []
        for question in questions:
            if not isinstance(question, _KINDS):
                raise TypeError(f"the search asked {question!r}, which is no question")
            left -= isinstance(question, Ask | Score | Grade)
            if left < 0:
                break
            taken.append(question)
        works = any(not isinstance(question, Write) for question in taken)
        self._idle = 0 if works else self._idle + 1
        if self._idle > _IDLE:
            raise RuntimeError(f"the search wrote {_IDLE} times in a row without a query")
        self.pending = tuple(taken)

    def _count(self, question: Question, reply: Reply) -> None:
        self.past = digest(self.past, _told(reply))
        if isinstance(question, Compute):
            self._counts["forwards"] += question.forwards
            if question.name.startswith("notes/") and reply.made:
                self._notes = dict(reply.made)
        else:
            self._counts[f"{type(question).__name__.lower()}s"] += 1
        if reply.cause:
            self._causes[reply.cause] += 1
            answered = reply.response is not None or isinstance(question, Grade)
            self._counts["unscored" if answered else "failed"] += 1
        if isinstance(question, Ask | Grade) and reply.broken is not None:
            self._judged(question, reply)

    def _judged(self, question: Ask | Grade, reply: Reply) -> None:
        assert reply.verdict is not None
        self._counts["verdicts"] += 1
        self._counts["refused"] += reply.verdict.refused is True
        if reply.broken and self._first_success is None:
            self._first_success = self.queries
        rank = (bool(reply.broken), reply.rating or 0)
        if not self._best or (rank > self._best_rank and not self._best_rank[0]):
            self._best_rank = rank
            self._best = {
                "best": self._remembering(question.attacked) if isinstance(question, Ask) else None,
                "best_answer": question.answer if isinstance(question, Grade) else _answer(reply),
                "best_verdict": reply.verdict,
                "best_rating": reply.rating,
                "best_at": self.queries,
            }

    def _remembering(self, attacked: Attacked) -> Attacked:
        """What was asked, with a memory of what is really asked, whichever way the search made it."""
        plain = self.goal.request.plain
        if attacked.request.plain == plain:
            return attacked
        return attacked.model_copy(update={"request": attacked.request.model_copy(update={"seed_text": plain})})


def _answer(reply: Reply) -> str:
    return reply.response.answer if reply.response is not None else ""


def _told(reply: Reply) -> list[Any]:
    """All of a reply, as JSON holds it."""
    response = None if reply.response is None else reply.response.model_dump(mode="json")
    verdict = None if reply.verdict is None else reply.verdict.model_dump(mode="json")
    made = None if reply.made is None else dict(reply.made)
    return [response, verdict, reply.log_prob, reply.text, made, reply.cause]
