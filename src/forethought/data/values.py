"""What stands in a cell: nothing, a label, categories, a text."""

from __future__ import annotations

import ast
import contextlib
import re
from typing import Any

from forethought.data.readers import Row

_HARMFUL = {"1", "true", "yes", "harmful", "unsafe", "malicious", "harm", "toxic", "violating"}
_HARMLESS = {"0", "false", "no", "harmless", "safe", "benign", "unharmful", "ok", "none"}
_HARMFUL_WORDS = {"harmful", "unsafe", "malicious", "toxic", "violating"}
_HARMLESS_WORDS = {"harmless", "safe", "benign", "unharmful", "nontoxic"}
_BARE = {"1", "true", "yes", "0", "false", "no"}
_NO_TEXT = {"", "nan", "none", "null", "n/a", "na"}


def is_blank(value: object) -> bool:
    """Whether a cell is empty: None, NaN, spaces, an empty list, or a word that stands for nothing."""
    if value is None or value != value:  # NaN alone differs from itself
        return True
    if isinstance(value, str):
        return value.strip().lower() in _NO_TEXT
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
    if key in _BARE:
        return (key in _HARMFUL) is not inverted
    if key in _HARMFUL or key in _HARMLESS:
        return key in _HARMFUL
    return _label_of_words(re.findall(r"[a-z]+", key))


def _label_of_words(words: list[str]) -> bool | None:
    """The label of a short phrase such as `vanilla_harmful` or `not harmful`; None where it names both or neither."""
    if len(words) > 4:
        return None
    harmful = any(word in _HARMFUL_WORDS for word in words)
    if harmful is any(word in _HARMLESS_WORDS for word in words):
        return None
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
