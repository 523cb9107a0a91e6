"""Question files of any common shape as questions: options, a number, a short answer, an open answer, instructions.

Columns are guessed by name, shown, and can be overridden one at a time. A row that
can't be read is left out and counted with its cause; a question is never guessed at.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from forethought.data.files import Row
from forethought.data.readers import read_rows
from forethought.errors import InputError
from forethought.records import Record
from forethought.yamlfile import shipped_yaml

Kind = Literal["choice", "number", "short", "open", "instructions"]
_NAMES = shipped_yaml("measure/capability/columns.yaml", dict[str, list[str]])
_SHORT_WORDS = 4
"""Longest accepted answer, in words, that can be looked for in a model's text."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NUMBERED = re.compile(r"(?i)^(?:sol|option|choice|ending|op)[_ ]?([0-9]|[a-j])$|^([a-j])$")


class Question(Record):
    """One item of a task."""

    text: str
    choices: tuple[str, ...] = ()
    right: tuple[int, ...] = ()
    """Indices of the right choices."""
    answers: tuple[str, ...] = ()
    """Accepted answers, or the reference answer of an open question."""
    group: str = ""
    """Subject or category, for the sample's strata."""
    checks: tuple[str, ...] = ()
    """Instruction kinds that IFEval verifies; their arguments in `check_arguments`, as JSON."""
    check_arguments: str = ""

    @property
    def id(self) -> str:
        """Content id, 12 hexadecimal digits."""
        content = json.dumps([self.text, self.choices, self.right, self.answers, self.checks], ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()[:12]


class QuestionSet(Record):
    """The questions of one file, all of one kind, each once."""

    name: str
    """The file's name as figures carry it: lower case, digits and underscores."""
    kind: Kind
    questions: tuple[Question, ...]
    columns: dict[str, str]
    """Which column was taken for what."""
    left_out: dict[str, int]
    """Rows left out, by cause."""


def load_questions(path: str, overrides: Mapping[str, str] | None = None) -> QuestionSet:
    """Reads a question file. `overrides` maps question, options, answer, context or group to a column.

    Raises InputError where there is no such column, or no row can be read as a question.
    """
    rows = [row for _, row in read_rows(path)]
    columns = guess_columns(rows, overrides or {}, path)
    kind, questions, left_out = _read(rows, columns)
    unique = {question.id: question for question in questions}
    if len(unique) < len(questions):
        left_out["the same question again"] += len(questions) - len(unique)
    if not unique:
        causes = ", ".join(f"{cause} ({count})" for cause, count in left_out.most_common(3))
        raise InputError(path, f"no row can be read as a question: {causes}", "Name its columns: --column answer=NAME")
    name = re.sub(r"[^a-z0-9]+", "_", Path(path).stem.lower()).strip("_")
    return QuestionSet(name=name, kind=kind, questions=tuple(unique.values()), columns=columns, left_out=dict(left_out))


def guess_columns(rows: Sequence[Row], overrides: Mapping[str, str], path: str) -> dict[str, str]:
    """Noun to column. `options` may name several, joined by commas, where each holds one option."""
    columns = list(dict.fromkeys(key for row in rows[:200] for key in row))
    for noun, column in overrides.items():
        if noun not in _NAMES:
            raise InputError(noun, "is not something a question has", f"Use one of {', '.join(_NAMES)}")
        for one in column.split(","):
            if one not in columns:
                raise InputError(f"{path}: column '{one}'", "there is no such column", f"It has {', '.join(columns)}")
    chosen = dict(overrides)
    by_key = {re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_"): column for column in columns}
    for noun, names in _NAMES.items():
        if noun not in chosen:
            free = (by_key[name] for name in names if name in by_key and by_key[name] not in chosen.values())
            if (found := next(free, None)) is not None:
                chosen[noun] = found
    if "options" not in chosen and (numbered := numbered_columns(columns)):
        chosen["options"] = ",".join(numbered)
    if "question" not in chosen:
        raise InputError(
            path, f"no column reads like questions (it has {', '.join(columns)})", "Name it: --column question=NAME"
        )
    if chosen.get("context") == chosen["question"]:
        chosen.pop("context")
    return chosen


_Read = Callable[[Row], dict[str, Any] | str]
"""From a row to the fields of its question beside text and group, or to the cause why it is none."""


def _read(rows: Sequence[Row], columns: Mapping[str, str]) -> tuple[Kind, list[Question], Counter[str]]:
    """(kind of the questions, the questions, why the other rows are none)."""
    kind, read = _reader(rows, columns)
    questions: list[Question] = []
    left_out: Counter[str] = Counter()
    for row in rows:
        text, group = _text(row, columns), row.get(columns.get("group", ""))
        fields = read(row) if text else "no question"
        if isinstance(fields, str):
            left_out[fields] += 1
        else:
            questions.append(Question(text=text, group=str(group) if isinstance(group, str | int) else "", **fields))
    return kind, questions, left_out


def _reader(rows: Sequence[Row], columns: Mapping[str, str]) -> tuple[Kind, _Read]:
    """The kind of a file's questions, and what reads one of its rows."""
    if all("instruction_id_list" in row for row in rows):
        return "instructions", _instructions
    answer = columns.get("answer", "")
    if all(isinstance(row.get(answer), bool) for row in rows):
        return "choice", lambda row: {"choices": ("no", "yes"), "right": (1 if row[answer] else 0,)}
    if "options" in columns:
        options = [_row_options(row, columns["options"]) for row in rows]
        base = number_base([row.get(answer) for row in rows], [len(one.texts) if one else 0 for one in options])
        return "choice", lambda row: _choice(row.get(answer), _row_options(row, columns["options"]), base)
    if not answer:
        return "open", lambda row: "no column with answers"
    answered = [found for row in rows if (found := _answers(row.get(answer)))]
    if answered and sum(final_number(found[0]) is not None for found in answered) >= 0.9 * len(answered):
        return "number", lambda row: _number(_answers(row.get(answer)))
    shorts = sum(any(map(_is_short, found)) for found in answered)
    kind: Kind = "short" if answered and shorts >= 0.9 * len(answered) else "open"
    return kind, lambda row: _worded(_answers(row.get(answer)), kind)


def _text(row: Row, columns: Mapping[str, str]) -> str:
    text = str(row.get(columns["question"]) or "").strip()
    context = row.get(columns.get("context", ""))
    if not text or not isinstance(context, str) or not context.strip():
        return text
    # An instruction's input follows it; a passage stands before its question.
    return f"{text}\n\n{context.strip()}" if columns["context"].lower() == "input" else f"{context.strip()}\n\n{text}"


def _row_options(row: Row, column: str) -> Options | None:
    if "," in column and column not in row:
        return read_options([row[one] for one in column.split(",") if row.get(one) not in (None, "")])
    return read_options(row.get(column))


def _choice(answer: Any, options: Options | None, counts_from: int | None) -> dict[str, Any] | str:
    if options is None:
        return "no two options"
    right = options.right
    if right is None:
        if answer in (None, ""):
            return "no answer"
        right = right_option(answer, options, counts_from)
        if not right and counts_from is None and re.fullmatch(r"\d+", str(answer).strip()):
            return "a numbered answer, and the file leaves open whether it counts from 0 or 1"
    return {"choices": options.texts, "right": right} if right else "an answer that is none of the options"


def _number(answers: Sequence[str]) -> dict[str, Any] | str:
    number = final_number(answers[0]) if answers else None
    return "no number in the answer" if number is None else {"answers": (number, answers[0])}


def _worded(answers: Sequence[str], kind: Kind) -> dict[str, Any] | str:
    kept = tuple(one for one in answers if kind != "short" or _is_short(one))
    return {"answers": kept} if kept else "no answer"


def _is_short(answer: str) -> bool:
    return len(answer.split()) <= _SHORT_WORDS


def _instructions(row: Row) -> dict[str, Any] | str:
    checks, arguments = row["instruction_id_list"], row.get("kwargs")
    if not isinstance(checks, list) or not isinstance(arguments, list) or len(checks) != len(arguments):
        return "no list of instructions with their arguments"
    return {"checks": tuple(map(str, checks)), "check_arguments": json.dumps(arguments)}


def _answers(value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(str(item).strip() for item in items if item not in (None, "") and str(item).strip())


def final_number(answer: str) -> str | None:
    """The number that a worked answer ends with (after `####`), or that the answer is; None where there is none."""
    said = answer.rpartition("####")[2] if "####" in answer else answer
    said = said.strip().replace(",", "").replace("$", "").rstrip(".")
    return said if re.fullmatch(r"-?\d+(?:\.\d+)?", said) else None


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
