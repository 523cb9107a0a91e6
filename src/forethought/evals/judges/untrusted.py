"""Text of a judged model inside a judge's prompt: data between fences that it can't close, and never instructions."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from forethought.engine.callspec import Reject
from forethought.refusal import refusal_outcome

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
