"""A training run before it is run: what it takes, whether that fits, and what would make it fit."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field
from transformers import AutoConfig

from forethought.errors import ConfigError, ModelError
from forethought.models.weights import resolve_model
from forethought.records import Record
from forethought.research.planner.footprint import Devices, Footprint, footprint
from forethought.training.config import TrainConfig
from forethought.training.rows import IGNORED, TokenRow
from forethought.yamlfile import parse_yaml, read_text


class Amount(Record):
    """How much there is to train on, one epoch."""

    rows: int = Field(ge=1)
    tokens: int = Field(ge=1)
    """Prompts included, padding left out."""
    longest: int = Field(ge=1)
    """Tokens of the longest row."""
    taught_share: float = Field(gt=0.0, le=1.0)
    """Share of tokens that bear loss."""


def counted(rows: Sequence[TokenRow]) -> Amount:
    """The amount of some rows, at least one."""
    tokens = sum(row.length for row in rows)
    taught = sum(label != IGNORED for row in rows for label in row.labels)
    return Amount(
        rows=len(rows), tokens=tokens, longest=max(row.length for row in rows), taught_share=max(taught, 1) / tokens
    )


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


HEADROOM = 0.1
"""Share of a device's memory that is left to the framework, its kernels and fragmentation."""
_MOST_DEVICES = 64


class Plan(Record):
    """What a run takes."""

    model: str
    rows: int
    tokens: int
    """Of all epochs."""
    steps: int
    devices: Devices
    device_gib: float
    """Memory of one device."""
    footprint: Footprint
    needed_gib: float
    """Of one device, all parts together."""
    fits: bool
    fix: str
    """What would make it fit; empty where it does."""
    hours: float
    assumptions: tuple[str, ...] = ()


def plan(
    name: str,
    architecture: Any,
    config: TrainConfig,
    amount: Amount,
    devices: Devices,
    device_gib: float,
    flops_a_second: float,
    assumptions: tuple[str, ...] = (),
) -> Plan:
    """The plan for training a model of a transformers config; `flops_a_second` is that of one device."""
    found = footprint(architecture, config, amount.longest, amount.taught_share, devices)
    tokens = round(amount.tokens * config.epochs)
    fits = _fits(found, device_gib)
    return Plan(
        model=name,
        rows=amount.rows,
        tokens=tokens,
        steps=math.ceil(math.ceil(amount.rows / config.batch_size) * config.epochs),
        devices=devices,
        device_gib=device_gib,
        footprint=found,
        needed_gib=found.device_gib,
        fits=fits,
        fix="" if fits else _fix(architecture, config, amount, devices, device_gib),
        hours=hours(tokens, found.flops_a_token, flops_a_second * devices.n),
        assumptions=assumptions,
    )


def _fits(found: Footprint, device_gib: float) -> bool:
    return found.device_gib <= (1.0 - HEADROOM) * device_gib


def _fix(architecture: Any, config: TrainConfig, amount: Amount, devices: Devices, device_gib: float) -> str:
    """The first change that makes it fit, those that cost least before those that cost more."""
    for said, changed, spread in _changes(config, devices):
        found = footprint(architecture, changed, amount.longest, amount.taught_share, spread)
        if _fits(found, device_gib):
            return f"{said}: {found.device_gib:.1f} GiB a device"
    return f"no setting makes it fit into {device_gib:g} GiB on up to {_MOST_DEVICES} devices"


def _changes(config: TrainConfig, devices: Devices) -> Iterator[tuple[str, TrainConfig, Devices]]:
    again = config.model_copy(update={"gradient_checkpointing": True})
    sharded = devices.model_copy(update={"sharded": True})
    if not config.gradient_checkpointing:
        yield "gradient_checkpointing: true", again, devices
    if devices.n > 1 and not devices.sharded:
        yield "shard (FSDP2 or ZeRO-3, --sharded)", config, sharded
        yield "shard, with gradient_checkpointing: true", again, sharded
    one_each = again.model_copy(update={"batch_size": devices.n})
    if config.batch_size > devices.n:
        said = f"batch_size: {devices.n}, with gradient_checkpointing: true"
        yield said, one_each, devices
        if devices.n > 1 and not devices.sharded:
            yield f"shard, {said}", one_each, sharded
    n = devices.n * 2
    while n <= _MOST_DEVICES:
        yield (
            f"--devices {n} --sharded, with gradient_checkpointing: true and batch_size: {n}",
            again.model_copy(update={"batch_size": n}),
            sharded.model_copy(update={"n": n}),
        )
        n *= 2


_STEPS = 3


def hours(tokens: float, flops_a_token: float, flops_a_second: float) -> float:
    """Hours of training on so many tokens, all epochs counted; `flops_a_second` is that of all devices together."""
    return tokens * flops_a_token / flops_a_second / 3600.0


def measured_flops_a_second(base: str, rows: Sequence[TokenRow], config: TrainConfig, flops_a_token: float) -> float:
    """What this machine does: three steps are trained, the first is left out, and the result is thrown away.

    Raises ConfigError for fewer rows than that takes.
    """
    from forethought.training.fit import train

    needed = _STEPS * config.batch_size
    if len(rows) < needed:
        raise ConfigError("--measure", f"needs {needed} rows of examples, there are {len(rows)}", "Build more rows")
    # Evenly spaced: rows of a kind stand together.
    chosen = list(rows[:: len(rows) // needed][:needed])
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        once = config.model_copy(update={"epochs": 1.0, "checkpoint_steps": 1000})
        train(base, chosen, once, Path(folder), lambda *_: times.append(time.perf_counter()))
    tokens = sum(row.length for row in chosen) * (_STEPS - 1) / _STEPS
    return tokens * flops_a_token / (times[-1] - times[0])
