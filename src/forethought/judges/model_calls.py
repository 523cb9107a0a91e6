"""Judges that ask a model: each call ends in a verdict or in the cause why there is none, in bounded time.

Text of a judged model inside a judge's prompt is data between fences that it can't close, and never instructions.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from forethought.errors import ModelError
from forethought.judges.base import JUDGE_SETTINGS, Item, Measure, Verdict, judge_the_rest, not_judged
from forethought.models.callspec import Call, CallProgress, CallSettings, Reject
from forethought.records import Message
from forethought.refusal import refusal_outcome

if TYPE_CHECKING:
    from inspect_ai.model import Model, ResponseSchema

T = TypeVar("T")
NO_VERDICT = "the judge's answer is no verdict"
SAID_NOTHING = "the judge said nothing"
REFUSED_TO_JUDGE = "the judge refused to judge"
NO_REASONING = "no reasoning to judge"
TOO_LONG = "too long for the judge"
STOPPED_ANSWERING = "the judge stopped answering"
_MOST_CHARACTERS = 60_000
"""Longest text that is sent, about 15,000 tokens. A longer one is not cut: the harm may stand in what is left out."""
_MARKERS = re.compile(
    r"<(?=\|[^\n<>]{1,40}\|>|/?s>|/?(?:bos|eos|pad|unk|think)>|(?:start|end)_of_turn>|<?/?SYS>|/?(?:BEGIN|END)\s)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS)\])",
    re.IGNORECASE,
)
"""First characters of what chat templates and guards are made of: servers read these inside a text, too."""


def neutral(text: str) -> str:
    """The text with the control marks of chat templates broken by a space, so that none of them is one any more."""
    return _MARKERS.sub(lambda match: match[0] + " ", text)


def fence_mark(*texts: str) -> str:
    """12 hexadecimal digits that no text can hold to close its fence with: they are a hash of all the texts.

    A judge that is asked about the same texts again is asked the same, so that its answer is found in the journal.
    """
    return hashlib.sha256("\x1f".join(texts).encode("utf-8", "replace")).hexdigest()[:12]


def fenced(name: str, mark: str, text: str) -> str:
    """The text between tags that carry the mark."""
    return f"<{name}-{mark}>\n{neutral(text)}\n</{name}-{mark}>"


def read_object(text: str) -> dict[str, Any] | Reject:
    """The JSON object that is the whole of a judge's answer or its last line; nothing is searched for inside others."""
    said = re.sub(r"\A\s*<think>.*?</think>", "", text, flags=re.DOTALL).strip()
    if not said:
        return Reject(SAID_NOTHING, "it was empty; write the JSON object")
    fence = re.fullmatch(r"```(?:json)?\s*(\{.*\})\s*```", said, flags=re.DOTALL)
    candidates = [fence[1]] if fence else [said, said.splitlines()[-1].strip()]
    for candidate in candidates:
        try:
            found = json.loads(candidate, object_pairs_hook=_no_key_twice)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    if refusal_outcome(said)[0] == "refused":
        return Reject(REFUSED_TO_JUDGE, "you are to judge the texts, not to help with them; write the JSON object")
    return Reject(NO_VERDICT, "it is not the one JSON object that was asked for")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    """JSON schema of a verdict: every field required and no others, as providers' strict mode wants it."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


@dataclass(frozen=True)
class Instructions:
    """What a model that judges is told, and how its answer is read."""

    name: str
    system: str
    """The system turn; the same for every call, so that prefix caches hit."""
    reminder: str
    """Told again after the texts."""
    schema: dict[str, Any]
    """JSON schema of the verdict."""
    read: Callable[[str], Verdict | Reject]
    max_tokens: int


@dataclass
class ModelJudge:
    """A judge that asks a model. It sees the request as really asked and one text, never answer and reasoning both."""

    name: str
    measure: Measure
    told: Instructions
    model: str | Model
    journal: Path
    """Keeps every answer that was paid for."""
    settings: CallSettings = JUDGE_SETTINGS
    part: Literal["answer", "reasoning"] = "answer"
    """What of an item is judged: its answer, or what its thought gives away."""

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """One verdict an item; raises ModelError when the model can't be used at all."""
        return judge_the_rest(items, self._ask, not_sent if self.part == "answer" else _thought_not_sent)

    def _ask(self, items: Sequence[Item]) -> list[Verdict]:
        calls = [
            Call(key=str(place), messages=self.prompt(item), max_tokens=self.told.max_tokens)
            for place, item in enumerate(items)
        ]
        schema = _response_schema(self.told.schema) if calls else None

        def read(key: str, text: str) -> Verdict | Reject:
            return self.told.read(text)

        found = ask(self.model, calls, self.journal, self.settings, read, schema)
        return [Verdict(cause=one.cause) if isinstance(one, Reject) else one for one in found.values()]

    def prompt(self, item: Item) -> tuple[Message, Message]:
        """The conversation of one call: what never changes first, then the texts as data, then the task again."""
        text = item.answer if self.part == "answer" else item.reasoning
        mark = fence_mark(self.told.name, item.request, text)
        parts = (
            f"The texts stand between tags marked {mark}.",
            fenced("request", mark, item.request),
            fenced("answer" if self.part == "answer" else "text", mark, text),
            self.told.reminder,
        )
        return Message(role="system", content=self.told.system), Message(role="user", content="\n\n".join(parts))


def not_sent(item: Item) -> Verdict | None:
    """The verdict on an answer that no model needs to be asked about; None for all others."""
    return not_judged(item) or (Verdict(cause=TOO_LONG) if len(item.answer) > _MOST_CHARACTERS else None)


def _thought_not_sent(item: Item) -> Verdict | None:
    if not item.reasoning.strip():
        return Verdict(cause=NO_REASONING)
    return not_sent(item.model_copy(update={"answer": item.reasoning}))


def _response_schema(schema: dict[str, Any]) -> ResponseSchema:
    """The schema as a provider is asked to follow it."""
    from inspect_ai.model import ResponseSchema
    from inspect_ai.util import JSONSchema

    return ResponseSchema(name="verdict", json_schema=JSONSchema.model_validate(schema), strict=True)


def ask(
    model: str | Model,
    calls: Sequence[Call],
    journal: Path,
    settings: CallSettings,
    read: Callable[[str, str], T | Reject],
    schema: ResponseSchema | None = None,
    on_progress: Callable[[CallProgress], None] | None = None,
) -> dict[str, T | Reject]:
    """What was read from each call's answer, by key, in order; a Reject holds the cause where nothing could be read.

    A server that dies midway leaves the calls that it did not answer rejected. Raises ModelError when the model never
    answered at all: then the set-up is broken.
    """
    if not calls:
        return {}
    from forethought.models.calls import run_calls  # inspect takes a second to import

    found: dict[str, T | Reject] = {}

    def accept(key: str, text: str) -> T | Reject:
        found[key] = read(key, text)
        return found[key]

    try:
        results = run_calls(model, calls, journal, settings, accept, schema, on_progress)
    except ModelError as error:
        if not found:
            raise
        return {call.key: found.get(call.key, Reject(f"{STOPPED_ANSWERING} ({error.rule})")) for call in calls}
    dropped = {key: Reject(cause) for key, cause in results.dropped.items()}
    return {call.key: (results.values | dropped)[call.key] for call in calls}
