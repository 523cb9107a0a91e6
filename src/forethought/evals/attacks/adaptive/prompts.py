"""What attacker and evaluator are told: texts in `prompts/*.yaml`, filled in one pass."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources

from forethought.errors import ConfigError
from forethought.evals.judges.untrusted import fence_mark, fenced
from forethought.records import Record
from forethought.yamlfile import parse_yaml

_PLACE = re.compile(r"\{([a-z_]+)\}")  # not the braces of the JSON that a text shows
_FOLDER = "evals/attacks/adaptive/prompts"


class _Prompts(Record):
    source: str
    """Whose method the texts follow. The words are this project's own."""
    texts: dict[str, str]


@lru_cache(maxsize=16)
def prompts(name: str) -> Mapping[str, str]:
    """The texts of a method by name. Raises ConfigError for a file that can't be read as such."""
    file = resources.files("forethought").joinpath(f"{_FOLDER}/{name}.yaml")
    text = file.read_text(encoding="utf-8")
    return parse_yaml(
        text, f"prompts/{name}.yaml", "prompt file", _Prompts, "source and texts", "docs/attacks.md"
    ).texts


def fill(template: str, values: Mapping[str, str | int]) -> str:
    """The template with each `{name}` replaced, once: what stands in a value is never read as a place.

    Raises ConfigError for a place that has no value.
    """

    def value(place: re.Match[str]) -> str:
        if place[1] not in values:
            raise ConfigError(f"'{place[0]}' in a prompt", "has no value", f"Use {', '.join(sorted(values))}")
        return str(values[place[1]])

    return _PLACE.sub(value, template).strip()


def shown(name: str, text: str) -> str:
    """A text of a benchmark or a model, between tags that it can't close."""
    return fenced(name, fence_mark(text), text.strip() or "(empty)")
