"""Conversations under other names: which key of a turn says who speaks, which holds the text, and who is who."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from forethought.data.files import WORDS, Row, words_in

_KEYS, SPEAKERS = ("role", "content"), ("user", "assistant", "system")
NOUNS = (*_KEYS, *SPEAKERS)
"""What may be said of turns, beside the columns: `role=who`, `content=says`, `user=customer`, `assistant=agent`."""


def renamed(value: Any, said: Mapping[str, str]) -> Any:
    """A cell or row whose turns have the names that every conversation has; what is no turn stays as it is."""
    if isinstance(value, list):
        return [renamed(one, said) for one in value]
    if not isinstance(value, dict):
        return value
    role, content = (_at(value, said[noun]) if noun in said else _first(value, noun) for noun in _KEYS)
    if role is None or content is None:
        return {key: renamed(one, said) for key, one in value.items()}
    names = {said[noun].lower(): noun for noun in SPEAKERS if noun in said}
    return {"role": names.get(str(role).strip().lower(), role), "content": content}


def _at(turn: Row, place: str) -> Any:
    """What stands at a place such as `who.kind`."""
    found: Any = turn
    for key in place.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _first(turn: Row, noun: str) -> Any:
    known = WORDS["turns"]["roles" if noun == "role" else "texts"]
    return next((turn[key] for key in known if key in turn), None)


def advice(rows: Sequence[Row]) -> str:
    """The options that would have the rows' conversations read; empty where they hold none.

    Of the speakers of a conversation the first is taken for the user.
    """
    for turns in (found for row in rows for found in _lists(row)):
        leaves = [dict(_leaves(turn)) for turn in turns]
        shared = [key for key in leaves[0] if all(key in turn for turn in leaves)]
        worded = {key: sum(words_in(turn[key]) for turn in leaves) for key in shared}
        content = max(worded, key=worded.__getitem__, default="")
        roles = [key for key in shared if key != content and 1 < len({turn[key] for turn in leaves}) <= len(SPEAKERS)]
        if not roles:
            continue
        speakers = list(dict.fromkeys(turn[roles[0]] for turn in leaves))[:2]
        said = {"role": roles[0], "content": content} | dict(zip(SPEAKERS, speakers, strict=False))
        known = {"role": WORDS["turns"]["roles"], "content": WORDS["turns"]["texts"]}
        needed = {noun: name for noun, name in said.items() if name not in known.get(noun, (noun,))}
        return " ".join(f"--column {noun}={name}" for noun, name in needed.items())
    return ""


def _lists(value: Any) -> Iterator[list[Row]]:
    """Every list of two or more objects in it."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, list) and len(value) > 1 and all(isinstance(one, dict) for one in value):
        yield value
    for one in inner:
        yield from _lists(one)


def _leaves(turn: Row, before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in turn.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{before}{key}.")
        elif isinstance(value, str):
            yield before + key, value
