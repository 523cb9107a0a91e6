"""Shapes of models, without their weights: known by name, or read from a model's config."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from forethought.engine.embedded import resolve_model
from forethought.errors import ModelError
from forethought.records import Record
from forethought.yamlfile import parse_yaml, read_text

_FILE = Path(__file__).with_name("architectures.yaml")


class Shape(Record):
    """One entry of architectures.yaml."""

    source: str
    """The model whose config these fields are from."""
    parameters: int
    config: dict[str, Any]
    """Fields of its transformers config, `model_type` among them."""


class _Shapes(Record):
    shapes: dict[str, Shape]


@lru_cache(maxsize=1)
def known_shapes() -> dict[str, Shape]:
    """All entries of architectures.yaml, by name."""
    text = read_text(_FILE, "file", "Install forethought again")
    return parse_yaml(text, _FILE.name, "list of shapes", _Shapes, "shapes", "docs/plan.md").shapes


def known_shape(name: str) -> Shape | None:
    """The entry of this name (`llama-8b`), or of the model that it is from (its hub name)."""
    by_source = {shape.source: shape for shape in known_shapes().values()}
    return known_shapes().get(name) or by_source.get(name)


def architecture(name: str) -> Any:
    """The transformers config of a known shape, a folder, a hub name, or `embedded`. Raises ModelError.

    A hub name whose shape is known is not looked up.
    """
    shape = known_shape(name)
    if shape is not None:
        fields = dict(shape.config)
        return AutoConfig.for_model(fields.pop("model_type"), **fields)
    try:
        return AutoConfig.from_pretrained(resolve_model(name))
    except (OSError, ValueError) as error:
        known = ", ".join(known_shapes())
        fix = f"Give a folder, a hub name, or one of: {known}"
        raise ModelError(name, f"has no config ({str(error).splitlines()[0]})", fix) from error
