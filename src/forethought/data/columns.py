"""Foreign tables: which column of a source holds what.

Columns are guessed from names and contents, overridden one noun at a time. A column that
promises an answer (`target` of AdvBench begins with "Sure") and a rejected answer are never
taken for the set's own. What cells say is in `cells.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from forethought.data.cells import flat, is_blank, label_of, pairs_of, says_label, turns_of
from forethought.data.files import WORDS, Row, words_in
from forethought.errors import InputError
from forethought.records import Record

_NAMES, _NAME_WORDS = WORDS["names"], WORDS["name_words"]
_INVERTED, _NEVER, _OF_ANSWERS = (WORDS["special"][kind] for kind in ("inverted", "never", "of_answers"))
_ASKS = re.compile(
    r"(?i)\s*(how|what|why|where|which|who|when|can|could|should|is|are|do|does|did|write|give|explain|list|describe|create|"
    r"tell|help|make|provide|suggest|develop|teach|show|generate|find|draft)\b"
)

_TURN_KEYS, _SPEAKERS, _SIDES = ("role", "content"), ("user", "assistant", "system"), ("harmful", "harmless")
NOUNS = (*_TURN_KEYS, *_SPEAKERS, *_SIDES)
"""What may be said beside the columns. Of turns: `role=who`, `content=says`, `user=customer`, `assistant=agent`. Of
labels: `harmful=ja`, `harmless=nein`."""
_FEW, _MOST_SHOWN = 4, 8
"""Most different cells, and words of one, in a column that may hold labels; most columns that are named as not read."""


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
    labels: dict[str, str] = Field(default_factory=dict)
    """Which cells of its labels are harmful and harmless, where that is told: `label_of` knows it."""
    none_is_label: bool = False
    """Whether a written `none` among its labels is one: beside words, not beside 0 and 1."""
    unread: tuple[str, ...] = ()
    """Its other columns."""
    one_sided: tuple[str, ...] = ()
    """Of the unread ones those whose cells are all words for the same label: further rows may say the other."""

    def __str__(self) -> str:
        apart = {"turns", "labels", "none_is_label", "unread", "one_sided"}
        columns = self.model_dump(exclude=apart) | self.turns | self.labels
        read = ", ".join(f"{noun}={column}" for noun, column in columns.items() if column)
        more = len(self.unread) - _MOST_SHOWN
        left = [*self.unread[:_MOST_SHOWN], *([f"{more} more"] if more > 0 else [])]
        return f"{read} (not read: {', '.join(left)})" if left else read

    @property
    def inverted(self) -> bool:
        """Whether a bare `true` in the label column means harmless, as in `is_safe`."""
        return self.label is not None and _key(self.label.rpartition(".")[2]) in _INVERTED


def guess_mapping(rows: Sequence[Row], overrides: Mapping[str, str], name: str) -> ColumnMapping:
    """The mapping for a source, guessed from its first rows.

    Raises InputError when an override names no column or a column of labels that can't
    be told, or when no column reads like requests.
    """
    return _Guess(rows, overrides, name).mapping()


class _Guess:
    """The first rows of a source, what was said of its columns, and which of them are taken for what."""

    def __init__(self, rows: Sequence[Row], overrides: Mapping[str, str], name: str) -> None:
        words = {noun: word for noun, word in overrides.items() if noun in NOUNS}
        self.turns = {noun: word for noun, word in words.items() if noun not in _SIDES}
        self.labels = {side: cells for side, cells in words.items() if side in _SIDES}
        self.said = {noun: column for noun, column in overrides.items() if noun not in words}
        self.name, self.given = name, rows
        self.rows = [flat(renamed(row, self.turns) if self.turns else row) for row in rows]
        self.columns = list(dict.fromkeys(key for row in self.rows for key in row))
        self.chosen = dict(self.said)

    def mapping(self) -> ColumnMapping:
        """Raises InputError as `guess_mapping` does."""
        for noun, column in self.said.items():
            if noun not in _NAMES:
                known = ", ".join((*_NAMES, *NOUNS))
                raise InputError(noun, "is not something a column can hold", f"Use one of {known}")
            if column not in self.columns:
                there = f"It has {', '.join(self.columns)}"
                raise InputError(f"{self.name}: column '{column}'", "there is no such column", there)
        self._by_names()
        self._requests()
        self._labels()
        label = self.chosen.get("label")
        more = {
            "turns": self.turns,
            "labels": self.labels,
            "none_is_label": label is not None and any(map(says_label, _filled(self.rows, label))),
            "unread": self._unread(),
            "one_sided": () if label else tuple(self._in_words()),
        }
        return ColumnMapping.model_validate(self.chosen | more)

    def _by_names(self) -> None:
        """Each noun's column by its name, where what stands in it can be that."""
        for noun in _NAMES:
            if noun not in self.chosen:
                for column in _candidates(noun, self.columns):
                    if column not in self.chosen.values() and self._plausible(noun, column):
                        self.chosen[noun] = column
                        break
        if "messages" in self.chosen and "messages" not in self.said:
            self.chosen.pop("text" if "text" not in self.said else "messages", None)

    def _requests(self) -> None:
        """A preferred conversation, as preference sets without a prompt column have it, else the wordiest column."""
        if "text" in self.chosen or "messages" in self.chosen:
            return
        preferred = [one for one in self.columns if _key(one) == "chosen" and self._plausible("messages", one)]
        if preferred:
            self.chosen.pop("answer", None)
            self.chosen["messages"] = preferred[0]
        else:
            taken = self.chosen.values()
            free = [column for column in self.columns if column not in taken and _key(column) not in _NEVER]
            self.chosen["text"] = _wordiest(self.rows, free, self.columns, self.name, advice(self.given))

    def _labels(self) -> None:
        """Labels under another name where both sides are said in words, and whether what was said of them is there."""
        two_sided = (column for column, sides in self._in_words().items() if len(sides) == 2)
        if "label" not in self.chosen and (found := next(two_sided, None)):
            self.chosen = {noun: column for noun, column in self.chosen.items() if column != found} | {"label": found}
        if "label" not in self.chosen and self.labels:
            told = " ".join(f"{side}={cells}" for side, cells in self.labels.items())
            raise InputError(f"{self.name}: {told}", "no column of labels is known", "Name it: --column label=NAME")
        said = self.said.get("label")
        if said is not None and not self._plausible("label", said):
            fix = _advised_labels(_filled(self.rows, said))
            raise InputError(f"{self.name}: column '{said}'", "holds no labels that can be told", fix)

    def _in_words(self) -> dict[str, set[bool | None]]:
        """Columns of which every cell is a word for harmful or for harmless, with what they say."""
        taken = {column for noun, column in self.chosen.items() if noun != "category"} | {*self.said.values()}
        found: dict[str, set[bool | None]] = {}
        for column in self.columns:
            cells = _filled(self.rows, column)
            free = column not in taken and not {*_OF_ANSWERS} & {*_key(column).split("_")}
            if free and cells and all(map(says_label, cells)):
                found[column] = {label_of(cell) for cell in cells}
        return found

    def _unread(self) -> tuple[str, ...]:
        """The columns, nested ones as the object that they stand in, of which nothing is read."""
        read = {column.partition(".")[0] for column in self.chosen.values()} | {*self.chosen.values()}
        if self.chosen.get("text", "").lower() == "instruction":
            read.add("input")
        return tuple(key for key in dict.fromkeys(key for row in self.given for key in row) if key not in read)

    def _plausible(self, noun: str, column: str) -> bool:
        """Whether what stands in a column can be what its name promises."""
        present = _filled(self.rows, column)
        checks: dict[str, Callable[[list[Any]], bool]] = {
            "text": lambda values: any(_is_text(value) for value in values),
            "messages": lambda values: all(turns_of(value) is not None for value in values),
            "history": lambda values: all(pairs_of(value) is not None for value in values),
            "system": lambda values: all(isinstance(value, str) for value in values),
            "answer": lambda values: any(isinstance(value, str | list) for value in values),
            "category": lambda values: any(isinstance(value, str | list | dict | int) for value in values),
            "label": lambda values: _are_labels(values, _key(column.rpartition(".")[2]) in _INVERTED, self.labels),
            "context": lambda values: any(isinstance(value, str) for value in values),
        }
        return bool(present) and checks[noun](present)


def _advised_labels(cells: Sequence[Any]) -> str:
    """How to say what cells mean that are no labels that are known."""
    few = list(dict.fromkeys(str(cell).strip() for cell in cells))
    if 1 < len(few) <= _FEW and all(words_in(cell) <= _FEW for cell in few):
        return f"Say which of {', '.join(few)} is which: --column harmful=... --column harmless=..."
    return "Use 0 and 1, or safe and unsafe; or say what is what: --column harmful=WORD, or --column 'harmful=>=0.5'"


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


def _filled(rows: Sequence[Row], column: str) -> list[Any]:
    return [row[column] for row in rows if not is_blank(row.get(column))]


def _is_text(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, str) and words_in(item) > 1 for item in value)
    return isinstance(value, str) and words_in(value) > 1


def _are_labels(values: list[Any], inverted: bool, said: Mapping[str, str]) -> bool:
    """Most say harmful or harmless, and no number says anything else: classes from 0 to 4 are no labels. Where it is
    told which cells say so, one that does."""
    if said:
        return any(label_of(value, said=said) is not None for value in values)
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
