"""YAML files that people write: read, checked against a schema, and every mistake told in one line."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from forethought.errors import ConfigError

Schema = TypeVar("Schema", bound=BaseModel)
Shape = TypeVar("Shape")
_EXTENDS = "extends"
_QUICK = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where PyYAML has it, ten times as fast: a build reads dozens of files."""


def load_yaml(text: str) -> Any:
    """What a YAML text says. Raises yaml.YAMLError."""
    try:
        return yaml.load(text, Loader=_QUICK)
    except yaml.YAMLError:
        return yaml.safe_load(text)  # its messages show the line


def read_text(path: Path, noun: str, hint: str) -> str:
    """The file's text. Raises ConfigError when it is missing or not UTF-8; `hint` says what to give instead."""
    if not path.is_file():
        raise ConfigError(path, f"there is no such {noun}", hint)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(path, "is not UTF-8 text", "Save it as UTF-8") from None


def shipped_yaml(name: str, shape: type[Shape]) -> Shape:
    """A file of the package, such as `data/columns.yaml`, as a record or a mapping of the given shape."""
    text = resources.files("forethought").joinpath(name).read_text(encoding="utf-8")
    return TypeAdapter(shape).validate_python(load_yaml(text))


def shipped_texts(folder: str) -> dict[str, str]:
    """The YAML files of a folder of the package by name, found by looking: a new one is one new file."""
    files = sorted(resources.files("forethought").joinpath(folder).iterdir(), key=lambda file: file.name)
    return {one.name.removesuffix(".yaml"): one.read_text("utf-8") for one in files if one.name.endswith(".yaml")}


def shipped_or_own(name: str | Path, folder: str, noun: str, schema: type[Schema], needs: str, page: str) -> Schema:
    """A file of the user's, or one of a folder of the package by its name; `needs` and `page` as in `parse_yaml`.

    Raises ConfigError where it is neither, and for a bad file.
    """
    shipped = shipped_texts(folder)
    if str(name) in shipped and not Path(name).is_file():
        return parse_yaml(shipped[str(name)], f"{folder}/{name}.yaml", noun, schema, needs, page)
    text = read_text(Path(name), noun, f"Give a YAML file, or one of {', '.join(shipped)}")
    return parse_yaml(text, str(name), noun, schema, needs, page)


def parse_yaml(text: str, name: str, noun: str, schema: type[Schema], needs: str, page: str) -> Schema:
    """The text as a record of the schema.

    `needs` names the keys that it can't do without, `page` the document that describes it.
    Raises ConfigError that names the place of the first fault.
    """
    return validated(_mapping(text, name, noun, needs, page), name, schema, page)


def load_extended(
    path: Path, noun: str, hint: str, schema: type[Schema], needs: str, page: str, shipped: Path | None = None
) -> Schema:
    """A file that may name another under `extends`, from whose folder the path counts: that one, with its own keys in
    place of the other's. Mappings are merged key by key, all else is replaced. What is not there is looked for in the
    folder `shipped`.

    Raises ConfigError as `read_text` and `parse_yaml` do, and for files that extend each other in a circle.
    """
    read: dict[Path, dict[str, Any]] = {}
    """By file, the one that is asked for first."""
    target: Path | None = path
    while target is not None:
        own = _mapping(read_text(target, noun, hint), str(target), noun, needs, page)
        read[target.resolve()] = own
        other = own.pop(_EXTENDS, None)
        if not isinstance(other, str | None):
            raise ConfigError(f"{target}, at '{_EXTENDS}'", "is not the path of a file", f"See {page} for the fields")
        below = None if other is None else target.parent / other
        if below is not None and shipped is not None and not below.is_file() and (shipped / str(other)).is_file():
            below = shipped / str(other)
        if below is not None and below.resolve() in read:
            place = f"{target}, at '{_EXTENDS}'"
            raise ConfigError(place, f"{other} extends this file in its turn", "Leave one of them out")
        target = below
    return validated(reduce(merged, reversed(read.values())), str(path), schema, page)


def validated(loaded: dict[str, Any], name: str, schema: type[Schema], page: str) -> Schema:
    """A mapping as a record of the schema. Raises ConfigError that names the place of the first fault."""
    try:
        return schema.model_validate(loaded)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{name}, at '{place}'" if place else name, first["msg"], f"See {page} for the fields"
        ) from None


def _mapping(text: str, name: str, noun: str, needs: str, page: str) -> dict[str, Any]:
    try:
        loaded = load_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            name, f"is not valid YAML ({' '.join(str(error).split())})", "Mend the line it names"
        ) from None
    if not isinstance(loaded, dict):
        raise ConfigError(name, f"is not a {noun}", f"It needs {needs}; see {page}")
    return loaded


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings; where both hold a key, mappings are merged in turn and of all else the second one's stands."""
    both = dict(under)
    for key, value in over.items():
        below = under.get(key)
        both[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return both
