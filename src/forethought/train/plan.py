"""A training run before it is run: what it takes, whether that fits, and what would make it fit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from forethought.records import Record
from forethought.train.amount import Amount
from forethought.train.config import TrainConfig
from forethought.train.duration import hours
from forethought.train.footprint import Devices, Footprint, footprint

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
