"""Any refusal or instruction set as Requests, by a small column mapping.

The mapping is guessed from names and contents, shown, and can be overridden one
column at a time. A column that promises an answer (`target` of AdvBench begins
with "Sure") is never taken for the set's own refusal.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from forethought.data.readers import CONVERSATION_COLUMNS, Row, read_datasets, read_rows
from forethought.errors import InputError
from forethought.records import Message, Record, Request

_NAMES: dict[str, tuple[str, ...]] = {
    "text": (
        "question", "prompt", "request", "goal", "behavior", "behaviour", "instruction", "query",
        "mutated_prompt", "forbidden_prompt", "user", "text", "input",
    ),
    "messages": CONVERSATION_COLUMNS,
    "answer": ("response", "output", "answer", "completion", "refusal", "reply"),
    "category": (
        "category", "categories", "intents", "semanticcategory", "semantic_category", "policy", "harm_category",
        "risk_area", "topic", "violated_rule", "hazard", "hazard_category",
    ),
    "label": ("harmful", "is_harmful", "is_malicious", "label", "unsafe", "prompt_label", "prompt_harm_label"),
    "context": ("contextstring", "context", "context_string"),
}  # fmt: skip
_HARMFUL = {"1", "true", "yes", "harmful", "unsafe", "malicious", "harm", "toxic", "violating"}
_HARMLESS = {"0", "false", "no", "harmless", "safe", "benign", "unharmful", "ok", "none"}


class Mapping(Record):
    """Which column holds what. None: the source has no such column."""

    text: str | None = None
    messages: str | None = None
    answer: str | None = None
    category: str | None = None
    label: str | None = None
    context: str | None = None

    def __str__(self) -> str:
        return ", ".join(f"{noun}={column}" for noun, column in self.model_dump().items() if column)


class SourceSpec(Record):
    """A source in a recipe: what to read and, where guessing fails, which column is which."""

    path: str
    """File, folder, glob, `wheel::member`, `pkg:NAME/path`, `hub:NAME@split`, `disk:PATH` or `shipped:SET`."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Overrides of the guessed mapping, such as `{text: my_column}`."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many rows, spread evenly over the source; None is all."""


def guess_mapping(rows: Sequence[Row], overrides: dict[str, str], name: str) -> Mapping:
    """The mapping for a source, guessed from its first rows.

    Raises InputError when an override names no column, or no column reads like requests.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for noun, column in overrides.items():
        if noun not in _NAMES:
            raise InputError(noun, "is not something a column can hold", f"Use one of {', '.join(_NAMES)}")
        if column not in columns:
            raise InputError(f"{name}: column '{column}'", "there is no such column", f"It has {', '.join(columns)}")
    chosen: dict[str, str] = dict(overrides)
    by_key = {re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_"): column for column in columns}
    for noun, names in _NAMES.items():
        if noun not in chosen:
            found = next((by_key[key] for key in names if key in by_key and by_key[key] not in chosen.values()), None)
            if found is not None and _plausible(noun, [row.get(found) for row in rows]):
                chosen[noun] = found
    if "messages" in chosen and "messages" not in overrides:
        chosen.pop("text", None) if "text" not in overrides else chosen.pop("messages")
    if "text" not in chosen and "messages" not in chosen:
        chosen["text"] = _wordiest(rows, columns, name)
    return Mapping.model_validate(chosen)


def _plausible(noun: str, values: list[Any]) -> bool:
    """Whether what stands in a column can be what its name promises."""
    present = [value for value in values if value not in (None, "")]
    if not present:
        return False
    if noun == "label":
        return all(_label(value) is not None for value in present)
    if noun == "text":
        return any(isinstance(value, str) and " " in value for value in present)
    if noun == "messages":
        return all(isinstance(value, list) and value and isinstance(value[0], dict) for value in present)
    return True


def _wordiest(rows: Sequence[Row], columns: list[str], name: str) -> str:
    """The column that reads most like requests: text of several words, seldom repeated, of moderate length."""

    def fitness(column: str) -> float:
        texts = [row[column] for row in rows if isinstance(row.get(column), str) and row[column].strip()]
        worded = [text for text in texts if len(text.split()) >= 3]
        if len(worded) < max(1, len(rows) // 2):
            return 0.0
        asks = sum(bool(_ASKS.match(text)) or text.rstrip().endswith("?") for text in worded) / len(worded)
        short = sum(len(text.split()) <= 60 for text in worded) / len(worded)
        return float(len(set(worded)) / len(worded) * (0.2 + asks + 0.3 * short))

    best = max(columns, key=fitness, default="")
    if not best or fitness(best) == 0.0:
        raise InputError(
            name,
            f"no column reads like requests (it has {', '.join(columns) or 'none'})",
            "Name it: --text-column NAME",
        )
    return best


_ASKS = re.compile(
    r"(?i)\s*(how|what|why|where|which|who|when|can|could|should|is|are|do|does|write|give|explain|list|describe|create|"
    r"tell|help|make|provide|suggest|develop|teach|show|generate|find|draft)\b"
)


def load_requests(spec: SourceSpec, harmful: bool | None, on_mapping: Any = None) -> Iterator[Request]:
    """Streams a source as Requests.

    `harmful` is what the user says of the whole source; a label column in it wins row
    by row. `on_mapping(name, mapping)` is called once a file, so that a caller can
    show what was guessed. Rows without text are skipped. Raises InputError for an
    unreadable or empty source.
    """
    found = False
    read = read_datasets if spec.path.startswith(("hub:", "disk:")) else read_rows
    for name, rows in itertools.groupby(read(spec.path), key=lambda pair: pair[0]):
        stream = (row for _, row in rows)
        head = list(itertools.islice(stream, 200))
        mapping = guess_mapping(head, spec.columns, name)
        if on_mapping is not None:
            on_mapping(name, mapping)
        for request in _requests(itertools.chain(head, stream), mapping, Path(name).name, harmful):
            found = True
            yield request
    if not found:
        raise InputError(spec.path, "holds no request", "Check that its text column is filled, or name another column")


def _requests(rows: Iterable[Row], mapping: Mapping, source: str, harmful: bool | None) -> Iterator[Request]:
    for row in rows:
        messages = _messages(row, mapping)
        if messages is None:
            continue
        label = _label(row.get(mapping.label)) if mapping.label else None
        categories = _categories(row.get(mapping.category)) if mapping.category else ()
        is_harmful = label if label is not None else harmful
        answer = row.get(mapping.answer) if mapping.answer else None
        yield Request(
            messages=messages,
            harmful=is_harmful,
            categories=categories,
            source=source,
            kind="harmful" if is_harmful else "ordinary",
            answer=answer if isinstance(answer, str) and answer.strip() else None,
        )


def _messages(row: Row, mapping: Mapping) -> tuple[Message, ...] | None:
    if mapping.messages:
        turns = row.get(mapping.messages) or []
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            raise InputError(
                f"column '{mapping.messages}'", "does not hold conversations", "It needs a list of role and content"
            )
        messages = [_turn(turn) for turn in turns]
        while messages and messages[-1].role != "user":
            messages.pop()
        return tuple(messages) or None
    text = row.get(mapping.text or "")
    if not isinstance(text, str) or not text.strip():
        return None
    text = _sound(text).strip()
    extra = row.get(mapping.context) if mapping.context else row.get("input") if mapping.text == "instruction" else None
    if isinstance(extra, str) and extra.strip():
        text = f"{text}\n\n{_sound(extra).strip()}"
    return (Message(role="user", content=text),)


_ROLES = {
    "human": "user", "prompter": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant",
    "developer": "system",
}  # fmt: skip


def _turn(turn: dict[str, Any]) -> Message:
    role = str(turn.get("role", turn.get("from", "user"))).lower()
    content = str(turn.get("content", turn.get("value", turn.get("text", ""))))
    role = _ROLES.get(role, role)
    if role not in {"system", "user", "assistant"}:
        raise InputError(f"role '{role}'", "is not one a chat can have", "Rename it to system, user or assistant")
    return Message.model_validate({"role": role, "content": _sound(content)})


def _sound(text: str) -> str:
    """The text without halves of surrogate pairs: cut emoji in JSON, which nothing can encode."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _label(value: object) -> bool | None:
    if value is None:  # a missing label is not the label "none"
        return None
    key = str(value).strip().lower().removesuffix(".0")
    return True if key in _HARMFUL else False if key in _HARMLESS else None


def _categories(value: object) -> tuple[str, ...]:
    if isinstance(value, list | tuple):
        return tuple(str(item) for item in value if str(item).strip())
    return (str(value),) if value not in (None, "") else ()
