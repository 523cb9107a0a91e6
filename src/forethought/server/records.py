"""What the server's parts hand to each other: who asks, what is asked, what was decided, what is answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from forethought.model import RuleNamed
from forethought.reasoning import Decision
from forethought.records import Message, Record

Permission = Literal["ask", "reasoning", "intent", "tighten", "prefill", "base", "metrics"]
"""To ask the defended model; to see its thought; to see what it takes the intent for; to ask with a stricter threshold;
to begin the assistant's turn; to ask the model without its defence; to read `/metrics`
and `/drift`."""
Finish = Literal["stop", "length", "tool_calls"]


class Caller(Record):
    """Who asks."""

    id: str = "anyone"
    """A name for logs and limits, and never the key."""
    may: frozenset[Permission] = frozenset({"ask", "reasoning", "intent", "tighten", "base", "metrics"})

    def allows(self, permission: Permission) -> bool:
        return permission in self.may


class Asked(Record):
    """A conversation as it is put to the model, rendered from roles by the server."""

    messages: tuple[Message, ...]
    """What is judged, up to the turn of the model; control tokens in it are neutralised."""
    answered: tuple[Message, ...] = ()
    """What is answered, where that is more: tools or a schema stand in its system prompt."""
    prefill: str = ""
    """How the caller begins the answer. The thought comes first all the same, and judges it as well."""
    threshold: float | None = Field(default=None, ge=0, le=1)
    """Probability of refusing from which to refuse, where that is stricter than the model's own."""
    base: bool = False
    """Whether the undefended base model is asked."""

    @property
    def to_answer(self) -> tuple[Message, ...]:
        """The conversation that the answer follows."""
        return self.answered or self.messages

    @property
    def judged(self) -> list[tuple[Message, ...]]:
        """The conversation, and with it all else that its answer will be shown: what is refused in one is refused."""
        found = [self.messages, *([self.answered] if self.answered else [])]
        if self.prefill:  # as one message more of the user
            *before, last = self.messages
            text = f"{last.content}\n\n{self.prefill}" if last.role == "user" else self.prefill
            turns = before if last.role == "user" else self.messages
            found.append((*turns, Message(role="user", content=text)))
        return found


class Options(Record):
    """How an answer is written. None of it touches the thought."""

    max_tokens: int = Field(ge=1)
    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = 0
    stop: tuple[str, ...] = ()
    logit_bias: dict[int, float] = Field(default_factory=dict)
    grammar: dict[str, Any] | None = None
    """JSON schema that the answer has to follow; an empty one is any JSON object."""


class Verdict(Record):
    """What was decided about a conversation, and how it came to that."""

    decision: Decision | None
    """None for a model that gives no verdict."""
    score: float | None = None
    """Log-odds of refusing, by what decides; None where there is none."""
    limit: float | None = None
    """The score from which it refuses."""
    probability: float | None = None
    threshold: float | None = None
    """Score and limit as probabilities of refusing."""
    rules: tuple[RuleNamed, ...] = ()
    """Rules that are found violated."""
    intent: str = ""
    cause: str = ""
    """Why it was refused without a readable thought, or what decided in its place; empty where neither was so."""
    thought: str = ""
    refusal: str = ""
    """What is answered in place of an answer; empty where it complies."""
    policy: str = ""
    """Name, version and hash of the policy."""
    prompt_tokens: int = 0
    thought_tokens: int = 0
    refusal_tokens: int = 0
    after: tuple[int, ...] = ()
    """Token ids that the answer goes on from, where the model is in this process."""
    by_thinker: bool = False
    """Whether the weights that thought answer as well."""
    answer: str = ""
    """The answer, where it had to be there before the verdict was."""
    answer_tokens: int = 0

    @property
    def refused(self) -> bool:
        return self.decision == "refuse"

    @property
    def centred(self) -> float | None:
        """The probability moved so that 0.5 is the threshold; None without a score."""
        from forethought.model import share

        return None if self.score is None or self.limit is None else share(self.score - self.limit)


class Call(Record):
    """A call of a tool that an answer makes."""

    name: str
    arguments: str
    """JSON."""


class Piece(Record):
    """The next part of an answer."""

    text: str = ""
    tokens: int = 0
    """Tokens of the answer up to here."""
    calls: tuple[Call, ...] = ()
    """What the whole answer calls, with its last piece; there is no text then."""
    finish: Finish | None = None
    """Why it ended, with the last piece."""


@dataclass(frozen=True)
class Event:
    """What happened to a request: for the audit log, metrics and logs. It bears no thought, answer or key, and of the
    prompt its hash and its redacted opening."""

    kind: Literal["started", "decided", "first_token", "done", "failed", "cancelled", "turned_away"]
    request: str
    """Id of the request, as its response has it."""
    caller: str
    path: str
    seconds: float = 0.0
    """Since the request began."""
    status: int = 200
    verdict: Verdict | None = None
    """From `decided` on. Whoever writes it down leaves out its thought, intent and refusal."""
    prompt_tokens: int = 0
    thought_tokens: int = 0
    answer_tokens: int = 0
    cause: str = ""
    asked: str = ""
    """Content id of the conversation, as `Request.id` has it."""
    opening: str = ""
    """First words of its last turn; the rest is redacted."""
    base: bool = False
    """Whether the undefended model was asked."""
