"""YAML files that people write: read, checked against a schema, and every mistake told in one line."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from forethought.errors import ConfigError

Schema = TypeVar("Schema", bound=BaseModel)


def read_text(path: Path, noun: str, hint: str) -> str:
    """The file's text. Raises ConfigError when it is missing or not UTF-8; `hint` says what to give instead."""
    if not path.is_file():
        raise ConfigError(path, f"there is no such {noun}", hint)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(path, "is not UTF-8 text", "Save it as UTF-8") from None


def parse_yaml(text: str, name: str, noun: str, schema: type[Schema], needs: str, page: str) -> Schema:
    """The text as a record of the schema.

    `needs` names the keys that it can't do without, `page` the document that describes it.
    Raises ConfigError that names the place of the first fault.
    """
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            name, f"is not valid YAML ({' '.join(str(error).split())})", "Mend the line it names"
        ) from None
    if not isinstance(loaded, dict):
        raise ConfigError(name, f"is not a {noun}", f"It needs {needs}; see {page}")
    try:
        return schema.model_validate(loaded)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{name}, at '{place}'" if place else name, first["msg"], f"See {page} for the fields"
        ) from None
