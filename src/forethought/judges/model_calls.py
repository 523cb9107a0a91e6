"""Text of a judged model inside a judge's prompt: data between fences that it can't close, and never instructions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from forethought.errors import ModelError
from forethought.judges.base import EMPTY, Item, Opening, Verdict, nothing_said
from forethought.models.callspec import Call, CallSettings, Progress, Reject
from forethought.records import Message
from forethought.refusal import refusal_outcome

if TYPE_CHECKING:
    from inspect_ai.model import Model, ResponseSchema

NO_VERDICT = "the judge's answer is no verdict"
SAID_NOTHING = "the judge said nothing"
REFUSED_TO_JUDGE = "the judge refused to judge"

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


# Asking a model that judges: each call ends in a finding or in the cause why there is none, in bounded time.

T = TypeVar("T")
Part = Literal["answer", "reasoning"]
"""What of an item is judged."""

JUDGE_SETTINGS = CallSettings(temperature=0.0, attempts=2, timeout_s=60, max_retries=3)
"""Greedy, a second attempt for an answer that is no verdict, and a few seconds of patience with a busy server."""
NO_REASONING = "no reasoning to judge"
TOO_LONG = "too long for the judge"
STOPPED_ANSWERING = "the judge stopped answering"
_SILENT = 20
"""So many calls settled one after another without any answer, and the rest is not asked."""
_MOST_CHARACTERS = 60_000
"""Longest text that is sent, about 15,000 tokens. A longer one is not cut: the harm may stand in what is left out."""


def unaskable(text: str) -> tuple[str, bool]:
    """(cause, gibberish) for an answer that no model needs to be asked about; the cause is empty for all others."""
    cause = nothing_said(text)
    if not cause and len(text) > _MOST_CHARACTERS:
        return TOO_LONG, False
    return cause, bool(cause) and cause != EMPTY


def settings_for(opening: Opening) -> CallSettings:
    """How a judge of the catalogue asks its model."""
    return JUDGE_SETTINGS.model_copy(update={"base_url": opening.base_url})


@dataclass(frozen=True)
class Asked:
    """Who is asked, and how; a judge's own part is the prompt and the reading of the answer."""

    model: str | Model
    journal: Path
    """Keeps every answer that was paid for."""
    settings: CallSettings


def ask_about(
    items: Sequence[Item],
    part: Part,
    whom: Asked,
    prompt: Callable[[str, str], tuple[Message, ...]],
    read: Callable[[str], T | Reject],
    schema: Callable[[], ResponseSchema],
    max_tokens: int,
) -> list[T | Verdict]:
    """What was read of each item, in order; an unscored verdict where nothing was asked, or nothing could be read.

    `prompt` takes the request and the text that is judged, an item's answer or its reasoning. Raises ModelError when
    the model can't be used at all.
    """
    found: dict[int, T | Verdict] = {}
    calls: list[Call] = []
    for place, item in enumerate(items):
        text = item.answer if part == "answer" else item.reasoning
        cause, gibberish = unaskable(text)
        if part == "reasoning" and not text.strip():
            cause, gibberish = NO_REASONING, False
        if cause:
            found[place] = Verdict(cause=cause, gibberish=gibberish)
        else:
            calls.append(Call(key=str(place), messages=prompt(item.request, text), max_tokens=max_tokens))
    answers = ask(
        whom.model,
        calls,
        whom.journal,
        whom.settings,
        lambda key, text: read(text),
        schema() if calls else None,
    )
    for key, answer in answers.items():
        found[int(key)] = Verdict(cause=answer.cause) if isinstance(answer, Reject) else answer
    return [found[place] for place in range(len(items))]


def ask(
    model: str | Model,
    calls: Sequence[Call],
    journal: Path,
    settings: CallSettings,
    read: Callable[[str, str], T | Reject],
    schema: ResponseSchema | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, T | Reject]:
    """What was read from each call's answer, by key; a Reject holds the cause where nothing could be read.

    A server that dies midway leaves the calls that it did not answer rejected. Raises ModelError when the model
    never answered at all: then the set-up is broken.
    """
    if not calls:
        return {}
    from forethought.models.calls import run_calls  # inspect takes a second to import

    watch: _Watch[T] = _Watch(read, on_progress)
    try:
        results = run_calls(model, calls, journal, settings, watch.accept, schema, watch.progress)
    except ModelError as error:
        if not watch.answered:
            raise
        cause = error.rule if error.rule == STOPPED_ANSWERING else f"{STOPPED_ANSWERING} ({error.rule})"
        return {call.key: watch.found.get(call.key, Reject(cause)) for call in calls}
    dropped = {key: Reject(cause) for key, cause in results.dropped.items()}
    return {call.key: results.values[call.key] if call.key in results.values else dropped[call.key] for call in calls}


class _Watch(Generic[T]):
    """Remembers what was read, and ends a run whose server answers nothing any more.

    Without it each of the remaining calls would wait through all its retries: an hour for a thousand.
    """

    def __init__(self, read: Callable[[str, str], T | Reject], on_progress: Callable[[Progress], None] | None) -> None:
        self._read, self._on_progress = read, on_progress
        self.found: dict[str, T | Reject] = {}
        self.answered = 0
        self._done_when_answered = 0

    def accept(self, key: str, text: str) -> T | Reject:
        self.found[key] = self._read(key, text)
        return self.found[key]

    def progress(self, progress: Progress) -> None:
        answers = progress.usage.calls + progress.usage.reused
        if answers > self.answered:
            self.answered, self._done_when_answered = answers, progress.done
        if self._on_progress is not None:
            self._on_progress(progress)
        if self.answered and progress.done - self._done_when_answered >= _SILENT:
            raise ModelError("judge", STOPPED_ANSWERING, "Check its server, then judge again: answers so far are kept")
