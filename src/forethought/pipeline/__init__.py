"""From data to a training set, a model, a report: recipes, and stages that are kept."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from forethought.records import Record


class BuildSettings(Record, use_attribute_docstrings=True):
    """What is wanted instead of the recipe's settings; None and empty leave those."""

    harmless: tuple[str, ...] = ()
    """A harmless dataset, in place of the shipped ones."""
    text_column: str | None = None
    """Column that holds the requests, where the guess is wrong."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Column of text, category, label, ..., or what turns and labels are called, where the guess is wrong."""
    teacher: str | None = None
    """`rules` (no model), `own` (the dataset's reasoning), or a model as inspect-ai names it: openai/NAME …"""
    base_url: str | None = None
    """Address of the teacher's OpenAI-compatible server."""
    concurrency: int | None = Field(default=None, ge=1)
    """Teacher calls at once."""
    price_in: float | None = Field(default=None, ge=0)
    """US dollars for a million input tokens of the teacher."""
    price_out: float | None = Field(default=None, ge=0)
    """US dollars for a million output tokens of the teacher."""
    policy: Path | None = None
    """Policy file. Default: the shipped policy."""
    answers: str | None = None
    """Answers of harmless rows: own (the model's), source (the dataset's), none."""
    model: str | None = None
    """Target model, for its own answers."""
    format: str | None = None
    """think or paper."""
    detail: str | None = None
    """short (the rules that apply) or full (all of them)."""
    variants: float | None = Field(default=None, ge=0)
    """Restyled rows beside each original."""
    twins: float | None = Field(default=None, ge=0, le=1)
    """Share of harmful rows that get a harmless look-alike."""
    operator_folder: Path | None = None
    """A folder with operators of your own."""
    against: tuple[str, ...] = ()
    """An evaluation set that no row may be near."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many requests from each source."""
    seed: int | None = None
    """Seed of every draw."""
