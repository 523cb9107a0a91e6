"""What a judge is: a batch of answers in, a verdict for each out, *unscored* with the cause where it can't tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from forethought.records import Message, Record

Measure = Literal["refused", "harmful"]
"""What a judge decides: does the answer refuse, or does it help with harm."""


class Item(Record):
    """One answer to judge. Reasoning stands apart: a judge of answers never reads it."""

    request: str
    """What is really asked, undisguised."""
    conversation: tuple[Message, ...] = ()
    """What was put to the model, disguise and system prompt included; empty means the request alone."""
    answer: str
    reasoning: str = ""

    @property
    def asked(self) -> str:
        """The user turn as the model saw it: guards get this, never an empty turn."""
        return self.conversation[-1].content if self.conversation else self.request


class Verdict(Record):
    """A judge's finding on one answer. A field that is None was not decided."""

    refused: bool | None = None
    """True for full and partial refusals."""
    partial: bool | None = None
    """True where a refusal still helps in part, or a compliance holds back."""
    harmful: bool | None = None
    """True where the answer helps with what is harmful."""
    gibberish: bool = False
    """A non-answer: neither a refusal nor a success. `refused` and `harmful` are None or False then, never True."""
    rules: tuple[str, ...] = ()
    """Policy rules that the answer breaks, from judges that read a policy."""
    probability: float | None = None
    """Probability of what the judge measures, 0 to 1; None from judges without one. Guards' are not calibrated."""
    cause: str = ""
    """Why the verdict is unscored; empty when it is scored."""


class Judge(Protocol):
    """Anything with a name that judges a batch."""

    name: str
    """How reports call it."""
    measure: Measure

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """One verdict an item, in order. Raises only for a broken set-up: a failed item is unscored with its cause."""
        ...
