"""The model's own turn: what a prefill has opened already, and what was decoded read back as a response.

A prefill leaves a model that thinks in one of three states:

- the thought is *open*, with no verdict in it: the model thinks on, still watched, and its verdict is read at
  the anchor;
- it is *decided*: the thought is open and holds a verdict. There is nothing left to read: the decision is the one that
  was put there, without log-odds, and the weights that think also answer;
- the *answer* has begun, after a thought that was closed or without one: the defence's verdict is bypassed, and the
  weights that think go on unwatched. That is what an attacker with access to the prompt gets.

What the prefill holds belongs to the response: its thought to the reasoning, its answer to the answer. Tokens are
counted where they were generated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from forethought.engine.conversation import Response
from forethought.engine.decode import Row
from forethought.policy import Policy
from forethought.reasoning import Decision, Format, Parsed, markers, parse
from forethought.records import Record

NO_VERDICT = "the model's turn was begun for it: no verdict was read"
PREFILLED_VERDICT = "the verdict was put into the model's turn"
LED = "the verdict had to be asked for"


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


@dataclass(frozen=True)
class Turn:
    """A turn to be decoded."""

    places: list[int]
    """Where in what was asked its conversation stands."""
    row: Row
    prompt: list[int]
    """Token ids of the conversation, without anything of the model's own turn."""
    own: str
    """What the model's turn begins with: the prefill, or the thought's opening marker."""
    opened: Opened
    temperature: float = 0.0
    sample_seed: int = 0

    @property
    def sample(self) -> tuple[float, int]:
        """Temperature and seed that its answer is drawn with; all greedy ones are the same."""
        return (self.temperature, self.sample_seed) if self.temperature else (0.0, 0)


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


def read_answer_turn(opened: Opened, text: str, prompt_tokens: int, made_tokens: int) -> Response:
    """A turn whose answer had begun: `text` is all of it after the thought, the prefill's part included."""
    parsed = opened.parsed
    return Response(
        reasoning_text=parsed.reasoning_text if parsed is not None else "",
        reasoning=parsed.reasoning if parsed is not None else None,
        answer=text,
        decision=opened.decision,
        cause=PREFILLED_VERDICT if opened.decision is not None else NO_VERDICT,
        prompt_tokens=prompt_tokens,
        answer_tokens=made_tokens,
    )


def behind(thought: Response | None, answer: Response) -> Response:
    """An answer as the whole response, or behind the thought that allowed it."""
    if thought is None:
        return answer
    return thought.model_copy(update={"answer": answer.answer, "answer_tokens": answer.answer_tokens})
