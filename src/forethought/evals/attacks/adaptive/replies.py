"""What an attacker wrote, read with suspicion: into a message to the attacked model, or a cause why it is none."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from json_repair import repair_json

from forethought.evals.attacks.rewriter import EMPTY, REFUSED, Unfit, read_rewrite
from forethought.records import Record
from forethought.refusal import refusal_outcome

NOT_JSON = "the attacker wrote no JSON that holds a message"


@dataclass(frozen=True)
class Form:
    """The JSON object that an attacker is asked for."""

    message: str
    """Key of the text for the attacked model."""
    remarks: tuple[str, ...]
    """Keys of what the attacker says to itself; they may be missing."""


class Turn(Record):
    """A message that the attacker wrote."""

    text: str
    """For the attacked model."""
    as_written: str
    """The JSON for the attacker's own history, remarks included."""
    plain: bool = False
    """True where there was no JSON and the whole text was taken."""


def without_thought(text: str) -> str:
    """The text after a reasoning model's thought; empty where the thought doesn't end."""
    said = re.sub(r"(?s)\A\s*<think>.*?</think>", "", text).strip()
    return "" if said.startswith("<think>") else said


def read_turn(text: str, form: Form) -> Turn | Unfit:
    """The message of an attacker's JSON, damaged JSON repaired; Unfit with few different causes else."""
    said = without_thought(text)
    if not said:
        return Unfit(EMPTY)
    found = _object(said, form)
    message = found.get(form.message)
    # A small model copies the form that it is shown, dots and all.
    if isinstance(message, str) and any(character.isalnum() for character in message):
        kept = {key: found[key] for key in (*form.remarks, form.message) if isinstance(found.get(key), str)}
        return Turn(text=message.strip(), as_written=json.dumps(kept, ensure_ascii=False))
    # Before the JSON alone: what stands in it may quote the words of a refusal, to rule them out.
    return Unfit(REFUSED if refusal_outcome(said.partition("{")[0])[0] == "refused" else NOT_JSON)


def read_plain(text: str, form: Form, original: str) -> Turn | Unfit:
    """The whole text as the message, for attackers that don't write JSON. Broken JSON is none."""
    said = without_thought(text)
    if "{" in said:
        return Unfit(NOT_JSON)
    message = read_rewrite(said, original, changes_words=False)
    if isinstance(message, Unfit):
        return message
    if not any(character.isalnum() for character in message):
        return Unfit(EMPTY)
    as_written = json.dumps({form.message: message}, ensure_ascii=False)
    return Turn(text=message, as_written=as_written, plain=True)


def _object(said: str, form: Form) -> dict[str, Any]:
    """The first JSON object with a message in it, strictly read where that goes; else an empty one."""
    body = re.sub(r"(?s)\A```(?:json)?\s*(.*?)\s*```\Z", r"\1", said)
    try:
        loaded: Any = json.loads(body)
    except (ValueError, RecursionError):
        loaded = _repaired(body[body.index("{") :]) if "{" in body else None
    found = loaded if isinstance(loaded, list) else [loaded]
    return next((one for one in found if isinstance(one, dict) and form.message in one), {})


def _repaired(body: str) -> Any:
    try:
        return repair_json(body, return_objects=True, skip_json_loads=True)
    except (ValueError, RecursionError):
        return None
