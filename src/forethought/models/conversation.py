"""What is put to a model and what comes back, whoever stands behind it: a local model, a server, a defended model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, runtime_checkable

from pydantic import Field

from forethought.policy import Policy
from forethought.reasoning import Decision, Format, Parsed, SafetyReasoning, markers, parse
from forethought.records import Message, Record

NO_VERDICT = "the model's turn was begun for it: no verdict was read"
PREFILLED_VERDICT = "the verdict was put into the model's turn"
LED = "the verdict had to be asked for"
"""Causes of a response."""


class Conversation(Record):
    """What a model is given."""

    messages: tuple[Message, ...]
    """Up to the turn of the model."""
    prefill: str = ""
    """Text of the model's own turn from which it goes on, thought markers included. Empty: it starts itself."""
    think_budget: int | None = None
    """Tokens of thought after which the thought is cut; None is the model's own."""
    temperature: float = Field(default=0.0, ge=0.0, exclude_if=lambda value: value == 0.0)
    """What logits are divided by before a token is drawn; 0 takes the likeliest. For models that can sample."""
    sample_seed: int = Field(default=0, exclude_if=lambda value: value == 0)
    """Which sample it is: the same one is the same text. Without meaning at temperature 0.

    Neither is dumped where it is 0: keys made of a greedy conversation are as if there were no sampling.
    """
    strict: bool = Field(default=False, exclude_if=lambda value: not value)
    """Whether doubt counts against it: defences with a score raise that by their calibration's `strict_by`."""


class Response(Record):
    """What a model said to one conversation, reasoning and answer apart."""

    reasoning_text: str = ""
    reasoning: SafetyReasoning | None = None
    """None for a model that doesn't think, and when unparsed."""
    answer: str
    decision: Decision | None = None
    """The verdict that was acted on; None for a model that doesn't think."""
    log_odds: float | None = None
    """Natural log-odds of refusing against complying at the verdict."""
    cause: str = ""
    """Why the reasoning is unparsed, or that the verdict had to be asked for."""
    named: tuple[str, ...] = Field(default=(), exclude_if=lambda value: not value)
    """Rules that the refusal names, where a defence that doesn't think wrote it."""
    prompt_tokens: int = Field(default=0, ge=0)
    reasoning_tokens: int = Field(default=0, ge=0)
    answer_tokens: int = Field(default=0, ge=0)

    @property
    def rules_named(self) -> tuple[str, ...]:
        """Rules that its thought, or the defence that refused, says are violated."""
        return self.reasoning.violated if self.reasoning is not None else self.named


class Unanswered(Response):
    """A response whose answer is left to whoever asked: what it would be decoded from."""

    prompt: tuple[int, ...]
    """Token ids that the answer goes on from."""
    by_thinker: bool
    """Whether the weights that think answer, and not those that stand beside them for answers."""


class Failed(Record):
    """A conversation that the model gave no response to: never a refusal, and never safe."""

    cause: str


class Able(Record):
    """What a model and its engine can do."""

    prefill: bool = False
    """Whether its turn can be begun for it."""
    budget: bool = False
    """Whether its thought can be cut at a number of tokens."""
    log_probs: bool = False
    """Whether it tells the log-probability of a text in its turn."""
    sampling: bool = False
    """Whether it heeds a conversation's temperature and seed."""
    together: int = 0
    """So many conversations are asked side by side, always the same ones: what is decoded beside one moves the last
    digits of its log-odds, and a run that goes on has to give what one in a single piece gives. 0: each is alone."""
    beside: int = 1
    """So many times as many are asked for at once, where several hold the model."""


OnReply = Callable[[int, Response | Failed], None]
"""(place in what was asked, what came back), as soon as it is there and in any order."""


class Respondent(Protocol):
    """Anything that conversations can be put to."""

    name: str
    """How reports call it."""

    @property
    def able(self) -> Able:
        """What it can do."""
        ...

    def reply(
        self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
    ) -> list[Response | Failed]:
        """One reply a conversation, in order; each is told to `on_reply` the moment it is there.

        A conversation without a response is Failed with its cause. Raises ModelError only where nothing works at all.
        """
        ...


@runtime_checkable
class TellsLogProbs(Protocol):
    """A Respondent that tells how likely its turn is to open with a text (`able.log_probs`)."""

    def log_probs(
        self,
        conversations: Sequence[Conversation],
        target_strings: Sequence[str],
        first_only: Sequence[bool] | bool = False,
    ) -> list[float]:
        """Natural logarithms, summed over the tokens of each text, or of its first token alone."""
        ...


# What a prefill opens. It leaves a model that thinks in one of three states:
#
# - the thought is *open*, with no verdict in it: the model thinks on, still watched, and its verdict is read at
#   the anchor;
# - it is *decided*: the thought is open and holds a verdict. There is nothing left to read: the decision is the one
#   that was put there, without log-odds, and the weights that think also answer;
# - the *answer* has begun, after a thought that was closed or without one: the defence's verdict is bypassed, and the
#   weights that think go on unwatched. That is what an attacker with access to the prompt gets.
#
# What the prefill holds belongs to the response: its thought to the reasoning, its answer to the answer. Tokens are
# counted where they were generated.


class Opened(Record):
    """How a prefill leaves the turn of a model that thinks."""

    state: Literal["open", "decided", "answer"] = "open"
    parsed: Parsed | None = None
    """Its thought; None where there is none."""
    answer: str = ""
    """Its part of the answer, as it stands."""

    @property
    def decision(self) -> Decision | None:
        """The verdict that the prefill holds."""
        return self.parsed.reasoning.verdict if self.parsed is not None and self.parsed.reasoning is not None else None


def opened_by(prefill: str, policy: Policy, fmt: Format) -> Opened:
    """What a prefill opens. An empty one opens nothing: the model thinks from its start."""
    if not prefill:
        return Opened()
    opening, closing = markers(fmt)
    _, begins, rest = prefill.partition(opening)
    if not begins:
        return Opened(state="answer", answer=prefill)
    # A heading begins a line; a tag closes anywhere.
    pattern = rf"(?m)^{re.escape(closing)}\b" if closing.startswith("#") else re.escape(closing)
    ends = list(re.finditer(pattern, rest))
    if ends:
        thought, answer = rest[: ends[-1].start()], rest[ends[-1].end() :]
        return Opened(state="answer", parsed=parse(f"{opening}{thought}", policy), answer=answer.lstrip())
    parsed = parse(prefill, policy)
    undecided = parsed.reasoning is None and parsed.cause == "no verdict in the reasoning"
    return Opened(state="open" if undecided else "decided", parsed=parsed)
