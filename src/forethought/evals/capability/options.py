"""The options of a question, in the shapes that question files have them, and which of them is right."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from forethought.records import Record

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NUMBERED = re.compile(r"(?i)^(?:sol|option|choice|ending|op)[_ ]?([0-9]|[a-j])$|^([a-j])$")


class Options(Record):
    """The options of one question, in order."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    """What the file calls them: letters or numbers; letters where it names none."""
    right: tuple[int, ...] | None = None
    """Indices of the right ones, where the options themselves say so (TruthfulQA's `mc1_targets`)."""


def numbered_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """Columns that hold one option each (`sol1 sol2`, `option_a option_b`, `A B C D`), in order."""
    stems: dict[str, list[str]] = {}
    for column in columns:
        if found := _NUMBERED.match(column):
            mark = found.group(1) or found.group(2)
            stems.setdefault(column[: len(column) - len(mark)].lower(), []).append(column)
    groups = [sorted(group, key=str.lower) for group in stems.values() if len(group) >= 2]
    return tuple(sorted(groups, key=len)[-1]) if groups else ()


def read_options(value: Any) -> Options | None:
    """Options from a cell: a list, text and label lists, a label-to-text object, or lines that begin with letters.

    None where the cell holds no two options.
    """
    if isinstance(value, Mapping):
        return _from_object(value)
    if isinstance(value, str):
        texts, labels = _lines(value)
        return _options(texts, labels)
    if isinstance(value, Sequence) and value:
        if all(isinstance(item, Mapping) for item in value):
            return _options([str(item.get("text", "")) for item in value], [str(i.get("label", "")) for i in value])
        texts, labels = _lines("\n".join(str(item) for item in value))
        if len(texts) == len(value):  # each item carries its own letter
            return _options(texts, labels)
        return _options([str(item) for item in value], [])
    return None


def _from_object(value: Mapping[str, Any]) -> Options | None:
    by_key = {str(key).lower(): item for key, item in value.items()}
    texts = by_key.get("text", by_key.get("choices"))
    if not isinstance(texts, Sequence) or isinstance(texts, str):
        return _options([str(item) for item in value.values()], [str(key) for key in value])
    labels = list(by_key.get("label", by_key.get("labels")) or [])
    if "choices" in by_key and set(labels) <= {0, 1}:  # 1 marks a right option
        right = tuple(place for place, label in enumerate(labels) if label == 1)
        made = _options([str(text) for text in texts], [])
        return made.model_copy(update={"right": right}) if made is not None else None
    return _options([str(text) for text in texts], [str(label) for label in labels])


def _options(texts: Sequence[str], labels: Sequence[str]) -> Options | None:
    if len(texts) < 2 or len(texts) > len(LETTERS) or not all(text.strip() for text in texts):
        return None
    named = tuple(label.strip() for label in labels)
    if len(named) != len(texts) or not all(named):
        named = tuple(LETTERS[: len(texts)])
    return Options(texts=tuple(text.strip() for text in texts), labels=named)


def _lines(text: str) -> tuple[list[str], list[str]]:
    """Options in text whose lines begin with A, B, C in turn; a line that doesn't goes on with the one before."""
    texts: list[str] = []
    for line in text.strip().splitlines():
        letter = LETTERS[len(texts)] if len(texts) < len(LETTERS) else "\0"
        found = re.match(rf"\s*\(?{letter}\s*[.):]\s*(.*)$", line)
        if found:
            texts.append(found.group(1))
        elif texts:
            texts[-1] = f"{texts[-1]}\n{line}"
        else:
            return [], []
    return texts, list(LETTERS[: len(texts)])


def right_option(answer: Any, options: Options, counts_from: int | None) -> tuple[int, ...]:
    """Indices of the options that `answer` names: by label, by text, by letter and text, or by number.

    `counts_from` is 0 or 1 for answers that are bare numbers, None where the file leaves it open.
    Empty where the answer names none of them.
    """
    if isinstance(answer, Sequence) and not isinstance(answer, str):
        found = [right_option(item, options, counts_from) for item in answer]
        return tuple(sorted({place for places in found for place in places})) if all(found) else ()
    said = str(answer).strip()
    if said in options.labels and not isinstance(answer, int):
        return (options.labels.index(said),)
    same = [place for place, text in enumerate(options.texts) if _plain(text) == _plain(said)]
    if len(same) == 1:
        return (same[0],)
    if re.fullmatch(r"\d+", said):
        place = int(said) - (counts_from if counts_from is not None else 10**6)
        return (place,) if 0 <= place < len(options.texts) else ()
    if lettered := re.match(r"\(?([A-Za-z])\s*(?:[.):]\s*(.*))?$", said, re.DOTALL):
        place = LETTERS.find(lettered.group(1).upper())
        text = lettered.group(2)
        if 0 <= place < len(options.texts) and (not text or _plain(text) == _plain(options.texts[place])):
            return (place,)
    return ()


def number_base(answers: Sequence[Any], sizes: Sequence[int]) -> int | None:
    """Whether bare-number answers count options from 0 or from 1, over a whole file; None where both would fit.

    `sizes[i]`: number of options of question i.
    """
    numbers = [(int(str(a)), n) for a, n in zip(answers, sizes, strict=True) if re.fullmatch(r"\s*\d+\s*", str(a))]
    from_0 = all(number < n for number, n in numbers)
    from_1 = all(1 <= number <= n for number, n in numbers)
    if from_0 == from_1:
        return None
    return 0 if from_0 else 1


def _plain(text: str) -> str:
    return " ".join(text.split()).rstrip(".").lower()
