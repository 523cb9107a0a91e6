"""Foreign tables: which column of a source holds what, and what its cells say.

Columns are guessed from names and contents, overridden one noun at a time. A column that
promises an answer (`target` of AdvBench begins with "Sure") and a rejected answer are never
taken for the set's own. Cells are read in the forms in which sets are published: labels,
categories, conversations.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from forethought.data.files import WORDS, Row, words_in
from forethought.data.json_files import is_turns
from forethought.errors import InputError
from forethought.records import Message, Record

_NAMES, _NAME_WORDS, _CELLS = WORDS["names"], WORDS["name_words"], WORDS["cells"]
_INVERTED = WORDS["special"]["inverted"]
_ASKS = re.compile(
    r"(?i)\s*(how|what|why|where|which|who|when|can|could|should|is|are|do|does|did|write|give|explain|list|describe|create|"
    r"tell|help|make|provide|suggest|develop|teach|show|generate|find|draft)\b"
)
_ROLES = {word: role for role in ("user", "assistant", "system") for word in (role, *_CELLS[role])}
_SPEAKER = re.compile(r"(?:\A|\n)\s*(Human|User|Assistant|System):[ \t]*")
_STARTS = re.compile(r"\s*(?:Human|User|System):")

_TURN_KEYS, _SPEAKERS = ("role", "content"), ("user", "assistant", "system")
NOUNS = (*_TURN_KEYS, *_SPEAKERS)
"""What may be said of turns, beside the columns: `role=who`, `content=says`, `user=customer`, `assistant=agent`."""


class ColumnMapping(Record):
    """Which column holds what. None: the source has no such column."""

    text: str | None = None
    messages: str | None = None
    """A whole conversation; what it ends with after the last user turn is the answer."""
    history: str | None = None
    """Earlier turns, before the text."""
    system: str | None = None
    answer: str | None = None
    category: str | None = None
    label: str | None = None
    context: str | None = None
    """What is appended to the text."""
    turns: dict[str, str] = Field(default_factory=dict)
    """What the turns of its conversations call things, where that is told: `renamed` knows it."""

    def __str__(self) -> str:
        columns = self.model_dump(exclude={"turns"}) | self.turns
        return ", ".join(f"{noun}={column}" for noun, column in columns.items() if column)

    @property
    def inverted(self) -> bool:
        """Whether a bare `true` in the label column means harmless, as in `is_safe`."""
        return self.label is not None and _key(self.label.rpartition(".")[2]) in _INVERTED


def guess_mapping(rows: Sequence[Row], overrides: dict[str, str], name: str) -> ColumnMapping:
    """The mapping for a source, guessed from its first rows.

    Raises InputError when an override names no column or a column of labels that can't
    be told, or when no column reads like requests.
    """
    turns = {noun: word for noun, word in overrides.items() if noun in NOUNS}
    overrides = {noun: column for noun, column in overrides.items() if noun not in turns}
    named, rows = rows, [flat(renamed(row, turns) if turns else row) for row in rows]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for noun, column in overrides.items():
        if noun not in _NAMES:
            raise InputError(noun, "is not something a column can hold", f"Use one of {', '.join((*_NAMES, *NOUNS))}")
        if column not in columns:
            raise InputError(f"{name}: column '{column}'", "there is no such column", f"It has {', '.join(columns)}")
    chosen: dict[str, str] = dict(overrides)
    for noun in _NAMES:
        if noun not in chosen:
            for column in _candidates(noun, columns):
                if column not in chosen.values() and _plausible(noun, column, rows):
                    chosen[noun] = column
                    break
    if "messages" in chosen and "messages" not in overrides:
        chosen.pop("text", None) if "text" not in overrides else chosen.pop("messages")
    if "text" not in chosen and "messages" not in chosen:
        # A preferred conversation, as preference sets without a prompt column have it, else the wordiest column.
        preferred = [column for column in columns if _key(column) == "chosen" and _plausible("messages", column, rows)]
        if preferred:
            chosen.pop("answer", None)
            chosen["messages"] = preferred[0]
        else:
            never = WORDS["special"]["never"]
            free = [column for column in columns if column not in chosen.values() and _key(column) not in never]
            chosen["text"] = _wordiest(rows, free, columns, name, advice(named))
    mapping = ColumnMapping.model_validate(chosen | {"turns": turns})
    if "label" in overrides and not _plausible("label", overrides["label"], rows):
        fix = "Use 0 and 1, true and false, or safe and unsafe"
        raise InputError(f"{name}: column '{mapping.label}'", "holds no labels that can be told", fix)
    return mapping


def _key(column: str) -> str:
    """A column's name in snake case: `SemanticCategory`, `semantic category` and `semantic_category` are one."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column)
    return re.sub(r"[^a-z0-9]+", "_", parted.lower()).strip("_")


def _candidates(noun: str, columns: list[str]) -> Iterator[str]:
    """Columns whose name promises the noun, the best first: their own name, then that of a nested member."""
    whole = {_key(column): column for column in reversed(columns)}
    leaf = {_key(column.rpartition(".")[2]): column for column in reversed(columns) if "." in column}
    for by_key in (whole, leaf):
        yield from (by_key[name] for name in _NAMES[noun] if name in by_key)
    yield from (column for column in columns if set(_NAME_WORDS.get(noun, ())) & set(_key(column).split("_")))


def _plausible(noun: str, column: str, rows: Sequence[Row]) -> bool:
    """Whether what stands in a column can be what its name promises."""
    present = _filled(rows, column)
    checks: dict[str, Callable[[list[Any]], bool]] = {
        "text": lambda values: any(_is_text(value) for value in values),
        "messages": lambda values: all(turns_of(value) is not None for value in values),
        "history": lambda values: all(pairs_of(value) is not None for value in values),
        "system": lambda values: all(isinstance(value, str) for value in values),
        "answer": lambda values: any(isinstance(value, str | list) for value in values),
        "category": lambda values: any(isinstance(value, str | list | dict | int) for value in values),
        "label": lambda values: _are_labels(values, _key(column.rpartition(".")[2]) in _INVERTED),
        "context": lambda values: any(isinstance(value, str) for value in values),
    }
    return bool(present) and checks[noun](present)


def _filled(rows: Sequence[Row], column: str) -> list[Any]:
    return [row[column] for row in rows if not is_blank(row.get(column))]


def _is_text(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, str) and words_in(item) > 1 for item in value)
    return isinstance(value, str) and words_in(value) > 1


def _are_labels(values: list[Any], inverted: bool) -> bool:
    """Most say harmful or harmless, and no number says anything else: classes from 0 to 4 are no labels."""
    told = [label_of(value, inverted) for value in values]
    strange = [value for value, label in zip(values, told, strict=True) if label is None]
    numbers = any(re.fullmatch(r"[-+]?\d+(\.\d+)?", str(value).strip()) for value in strange)
    return len(strange) * 2 <= len(values) and not numbers


def _wordiest(rows: Sequence[Row], free: list[str], columns: list[str], name: str, of_turns: str) -> str:
    """The column that reads most like requests: text of several words, seldom repeated, of moderate length.

    `of_turns`: what would have conversations under other names read; for the error where there is no such column.
    """

    def fitness(column: str) -> float:
        listed = [item for value in _filled(rows, column) for item in (value if isinstance(value, list) else [value])]
        worded = [text for text in listed if isinstance(text, str) and words_in(text) >= 3]
        if len(worded) < max(1, len(rows) // 2):
            return 0.0
        asks = sum(bool(_ASKS.match(text)) or text.rstrip().endswith(("?", "\uff1f")) for text in worded) / len(worded)
        short = sum(words_in(text) <= 60 for text in worded) / len(worded)
        return float(len(set(worded)) / len(worded) * (0.2 + asks + 0.3 * short))

    best = max(free, key=fitness, default="")
    if not best or fitness(best) == 0.0:
        fault = f"no column reads like requests (it has {', '.join(columns) or 'none'})"
        texts = [column for column in columns if any(isinstance(value, str) for value in _filled(rows, column))]
        fix = f"Name it: --text-column {' or '.join(texts[:3])}" if texts else "Give a file that holds requests"
        raise InputError(name, fault, f"Say what its turns are: {of_turns}" if of_turns else fix)
    return best


def turns_of(value: object) -> list[Any] | None:
    """The turns that a cell holds, or None where it holds no conversation.

    Read are lists of turns (role and content, from and value, with content as text or
    as blocks), lists of texts that take turns, either of them as JSON text or under
    `messages`, and transcripts of the form "Human: ... Assistant: ...".
    """
    if isinstance(value, str):
        start = value.lstrip()[:1]
        if start in ("[", "{"):
            try:
                return turns_of(json.loads(value))
            except json.JSONDecodeError:
                return None
        return transcript(value)
    if isinstance(value, dict):
        inner = value.get("messages", value.get("conversations"))
        return inner if is_turns(inner) else None
    if isinstance(value, list) and value and (is_turns(value) or all(isinstance(turn, str) for turn in value)):
        return value
    return None


def transcript(text: str) -> list[dict[str, str]] | None:
    """The turns of a text "Human: ... Assistant: ..."; None where it is none."""
    if not _STARTS.match(text) or "Assistant:" not in text:
        return None
    parts = _SPEAKER.split(text)[1:]
    return [{"role": role, "content": said.strip()} for role, said in zip(parts[::2], parts[1::2], strict=True)]


def pairs_of(value: object) -> list[Any] | None:
    """Earlier turns as a `history` column holds them: turns, or pairs of a prompt and its answer."""
    if isinstance(value, list) and value and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value):
        named = [(("user", asked), ("assistant", said)) for asked, said in value]
        return [{"role": role, "content": text} for pair in named for role, text in pair]
    return turns_of(value)


def messages_of(turns: list[Any]) -> list[Message]:
    """Turns as messages; those without text are left out. Raises InputError for a role that no chat has."""
    messages: list[Message] = []
    for number, turn in enumerate(turns):
        if isinstance(turn, str):
            role, text = ("user", "assistant")[number % 2], turn
        else:
            named = next((turn[key] for key in WORDS["turns"]["roles"] if key in turn), "user")
            role = str(named.get("role", "") if isinstance(named, dict) else named).lower()
            text = _content(next((turn[key] for key in WORDS["turns"]["texts"] if key in turn), ""))
        if role not in _ROLES:
            fix = f"Say who that is: --column user={role}, or assistant or system"
            raise InputError(f"role '{role}'", "is not one a chat can have", fix)
        if text.strip():
            messages.append(Message.model_validate({"role": _ROLES[role], "content": sound(text)}))
    return messages


def _content(value: object) -> str:
    """The text of a turn: itself, or its blocks of text without images and tool calls."""
    if isinstance(value, dict):
        value = value.get("parts", value.get("text"))
    if isinstance(value, list):
        texts = [block.get("text") if isinstance(block, dict) else block for block in value]
        return "\n\n".join(text for text in texts if isinstance(text, str) and text.strip())
    return value if isinstance(value, str) else "" if is_blank(value) else str(value)


def is_blank(value: object) -> bool:
    """Whether a cell is empty: None, NaN, spaces, an empty list, or a word that stands for nothing."""
    if value is None or value != value:  # NaN alone differs from itself
        return True
    if isinstance(value, str):
        return value.strip().lower() in _CELLS["empty"]
    return isinstance(value, list | tuple | dict) and not value


def label_of(value: object, inverted: bool = False) -> bool | None:
    """True for harmful, False for harmless, None where it says neither.

    `inverted` is for a column such as `is_safe`: there a bare `true` or `1` means harmless.
    """
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if value is None or value != value or isinstance(value, list | tuple | dict):
        return None  # a missing label is not the label "none"
    key = str(value).strip().lower().removesuffix(".0")
    harmful = key in _CELLS["harmful"]
    if harmful or key in _CELLS["harmless"]:
        return harmful is not (inverted and key in _CELLS["bare"])
    words = re.findall(r"[a-z]+", key)  # a short phrase such as `vanilla_harmful` or `not harmful`
    if len(words) > 4:
        return None
    harmful = any(word in _CELLS["harmful_words"] for word in words)
    if harmful is any(word in _CELLS["harmless_words"] for word in words):
        return None  # it names both or neither
    return harmful is not any(word in ("not", "non") for word in words)


def categories_of(value: object) -> tuple[str, ...]:
    """Category names of a cell: a word, a list, a list written as text, or flags by name."""
    if isinstance(value, str) and value.strip()[:1] == "[":
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value.strip())
    if isinstance(value, dict):
        value = [name for name, flag in value.items() if flag is True or flag == 1]
    if isinstance(value, list | tuple):
        return tuple(str(item) for item in value if not is_blank(item))
    return () if is_blank(value) else (str(value).strip(),)


def sound(text: str) -> str:
    """The text without halves of surrogate pairs: cut emoji in JSON, which nothing can encode."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def flat(row: Row) -> Row:
    """The row with the members of nested objects as columns of their own: `label.harmful`."""
    if not any(isinstance(value, dict) for value in row.values()):
        return row
    added: dict[str, Any] = {}
    for column, value in row.items():
        if isinstance(value, dict):
            for key, inner in value.items():
                added[f"{column}.{key}"] = inner
                if isinstance(inner, dict):
                    added |= {f"{column}.{key}.{last}": cell for last, cell in inner.items()}
    return added | row


# Conversations under other names: which key of a turn says who speaks, which holds the text, and who is who.


def renamed(value: Any, said: Mapping[str, str]) -> Any:
    """A cell or row whose turns have the names that every conversation has; what is no turn stays as it is."""
    if isinstance(value, list):
        return [renamed(one, said) for one in value]
    if not isinstance(value, dict):
        return value
    role, content = (_at(value, said[noun]) if noun in said else _first(value, noun) for noun in _TURN_KEYS)
    if role is None or content is None:
        return {key: renamed(one, said) for key, one in value.items()}
    names = {said[noun].lower(): noun for noun in _SPEAKERS if noun in said}
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
        roles = [key for key in shared if key != content and 1 < len({turn[key] for turn in leaves}) <= len(_SPEAKERS)]
        if not roles:
            continue
        speakers = list(dict.fromkeys(turn[roles[0]] for turn in leaves))[:2]
        said = {"role": roles[0], "content": content} | dict(zip(_SPEAKERS, speakers, strict=False))
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
