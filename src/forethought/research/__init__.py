"""`forethought sweep`: many defences on the same data, budget and attacks, resumable, in one table."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from forethought.records import Record


class PlanSettings(Record, use_attribute_docstrings=True):
    """What is planned for, besides the recipe."""

    model: str | None = None
    """In the recipe's place: llama-1b, llama-8b, mistral-7b or llama-70b (no weights needed), or a folder."""
    examples: Path | None = None
    """Built rows (examples.jsonl), to count. Default: the recipe's token budget."""
    rows: int | None = Field(default=None, ge=1)
    """Rows, without examples. Default: the budget, or the sources' limits."""
    row_tokens: int | None = Field(default=None, ge=1)
    """Mean tokens of a row, without examples. Default: of shipped requests."""
    longest: int = Field(default=1024, ge=2)
    """Tokens of the longest row, without examples."""
    devices: int = Field(default=1, ge=1)
    """Devices that share the run."""
    sharded: bool = False
    """Weights divided among devices: FSDP2, ZeRO-3."""
    on: str | None = None
    """What it is to run on: h100, h200, a100, rtx4090. Default: this machine."""
    device_gib: float | None = Field(default=None, gt=0)
    """Memory of a device, in GiB. Default: as it has."""
    tflops: float | None = Field(default=None, gt=0)
    """Peak of a device, 10^12 operations a second. Default: as it does."""
    mfu: float | None = Field(default=None, gt=0, le=1)
    """Share of the peak that training reaches. Default: 0.35, of this processor's 0.6."""
    measure: bool = False
    """Train three steps here and take the rate from them; with examples."""
    prompts: int | None = Field(default=None, ge=1)
    """Prompts that a teacher is asked about: also says nodes, hours and dollars for that."""
    rate: float | None = Field(default=None, gt=0)
    """Tokens that one server of the teacher writes a second, all its requests together."""
    node_servers: int = Field(default=1, ge=1)
    """Servers of the teacher on a node: of 8 GPUs, 2 with 4 GPUs each."""
    nodes: int | None = Field(default=None, ge=1)
    """Nodes. Default: as many as finish within the hours."""
    within_hours: float = Field(default=24.0, gt=0)
    """Hours to finish within."""
    node_dollars: float | None = Field(default=None, gt=0)
    """US dollars for an hour of a node."""
