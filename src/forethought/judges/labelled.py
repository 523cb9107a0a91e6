"""Files of answers that people have labelled, of any column names: what judges are trained and measured on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import yaml

from forethought.data.files import Row
from forethought.data.readers import read_rows
from forethought.errors import InputError
from forethought.judges.base import Item, Measure, data_text
from forethought.records import Record

Label = Literal["positive", "partial", "negative"]
"""Does the answer do what the measure asks for: refuse, or help with harm. `partial` is a partial refusal."""

_NAMES: dict[str, list[str]] = yaml.safe_load(data_text("columns.yaml"))
"""Names that a column for each role is known by."""
_REFUSAL_NAMES = ("refus",)
_HARM_NAMES = ("harm", "jail", "unsafe")
_REVERSED_NAMES = ("is_safe", "safe", "harmless", "complied", "compliance")
"""Columns whose true value says the opposite of their measure: safe is not harmful, complied is not refused."""
_TRUE = {"1", "1.0", "true", "yes", "y", "t"}
_FALSE = {"0", "0.0", "false", "no", "n", "f"}


class Columns(Record):
    """Which column holds what; None is guessed from the names."""

    answer: str | None = None
    request: str | None = None
    label: str | None = None
    positive: tuple[str, ...] = ()
    """Label values that are positive, whatever they are called; every other value is negative."""


class LabelledItem(Record):
    """An answer and what people said of it."""

    item: Item
    label: Label | None
    """None where the label could not be read."""
    source: str
    """The file it stands in."""
    cause: str = ""
    """Why there is no label."""


def labelled_items(spec: str, measure: Measure, columns: Columns | None = None) -> list[LabelledItem]:
    """Every answer of a source, with its label for the measure.

    Raises InputError that names the columns there are, where one can't be found, and where no
    label can be read. A row whose label can't be read is kept with the cause.
    """
    given = columns or Columns()
    found: dict[tuple[str, ...], Columns] = {}
    items = []
    for name, row in read_rows(spec):
        names = tuple(row)
        if names not in found:
            found[names] = resolve(names, given, measure, name)
        items.append(_labelled(row, found[names], measure, name))
    if not any(item.label for item in items):
        seen = ", ".join(f"'{cause}'" for cause, _ in Counter(item.cause for item in items).most_common(3))
        raise InputError(spec, f"no label can be read ({seen})", "Say which values are positive: --positive VALUE")
    return items


def labelled_files(files: Sequence[str], measure: Measure, columns: Columns | None = None) -> list[LabelledItem]:
    """The answers of several sources, as `labelled_items` reads each."""
    return [item for file in files for item in labelled_items(file, measure, columns)]


def resolve(names: Sequence[str], given: Columns, measure: Measure, file: str) -> Columns:
    """The columns of a file, by the caller's word, else by their names."""
    for wanted in (given.answer, given.request, given.label):
        if wanted is not None and wanted not in names:
            raise InputError(file, f"has no column '{wanted}'", f"It has: {', '.join(names)}")
    answer = given.answer or _first(names, _NAMES["answer"])
    label = given.label or _label_column(names, measure)
    for role, column in (("answer", answer), ("label", label)):
        if column is None:
            raise InputError(
                file, f"no {role} column is known among {', '.join(names)}", f"Name it: --column {role}=NAME"
            )
    request = given.request or _first(names, _NAMES["request"])
    return Columns(answer=answer, request=request, label=label, positive=given.positive)


def _first(names: Sequence[str], known: Sequence[str]) -> str | None:
    lowered = {_plain(name): name for name in reversed(names)}
    return next((lowered[name] for name in known if name in lowered), None)


def _label_column(names: Sequence[str], measure: Measure) -> str | None:
    """A column named for the measure goes before one with a general name."""
    own = _REFUSAL_NAMES if measure == "refused" else _HARM_NAMES
    other = _HARM_NAMES if measure == "refused" else _REFUSAL_NAMES
    known = [name for name in _NAMES["label"] if not any(part in name for part in other)]
    return _first(names, [name for name in known if any(part in name for part in own)]) or _first(names, known)


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_").lstrip("\ufeff")


def _labelled(row: Row, columns: Columns, measure: Measure, file: str) -> LabelledItem:
    assert columns.answer is not None
    assert columns.label is not None
    answer, request = row.get(columns.answer), row.get(columns.request) if columns.request else ""
    raw = row.get(columns.label)
    label = read_label(raw, measure, columns.label, columns.positive)
    cause = "" if label else ("the label is empty" if raw in (None, "") else str(raw)[:40])
    item = Item(request=_text(request), answer=_text(answer))
    return LabelledItem(item=item, label=label, source=Path(file).name, cause=cause)


def _text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else str(value)


def read_label(value: object, measure: Measure, column: str = "", positive: Sequence[str] = ()) -> Label | None:
    """One label value: `1`, `true`, `2_full_refusal`, `unsafe`, `partial refusal`…; None where it can't be read."""
    text = _text(value).strip().lower()
    if positive:
        return None if not text else "positive" if text in {p.strip().lower() for p in positive} else "negative"
    if text in _TRUE | _FALSE:
        yes = text in _TRUE
        return "positive" if yes != (_plain(column) in _REVERSED_NAMES) else "negative"
    words = text.replace("_", " ").replace("-", " ")
    return _refusal_word(words) if measure == "refused" else _harm_word(words)


def _refusal_word(words: str) -> Label | None:
    if "partial" in words:
        return "partial"
    if any(
        word in words for word in ("not refus", "no refus", "non refus", "complian", "complied", "comply", "answered")
    ):
        return "negative"
    return "positive" if "refus" in words or "reject" in words or "declin" in words else None


def _harm_word(words: str) -> Label | None:
    if any(word in words for word in ("unsafe", "not safe")):
        return "positive"
    harmless = ("safe", "harmless", "unharmful", "not harm", "benign", "refus", "not jail", "failed", "unsuccess")
    if any(word in words for word in harmless):
        return "negative"
    return (
        "positive" if any(word in words for word in ("harm", "jail", "success", "full compliance", "toxic")) else None
    )


def truths(items: Sequence[LabelledItem], partial_counts: bool = True) -> list[bool | None]:
    """Labels as booleans: partial refusals are refusals where `partial_counts`, else compliances."""
    value: Mapping[Label | None, bool | None] = {
        "positive": True,
        "negative": False,
        "partial": partial_counts,
        None: None,
    }
    return [value[item.label] for item in items]
