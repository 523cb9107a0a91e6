"""What stands beside a trained model: how it was trained, whether and how it thinks, where its operating point is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from forethought.errors import ModelError
from forethought.language import UNKNOWN, language_of
from forethought.manifest import write_json
from forethought.policy import Policy
from forethought.reasoning import Detail, Format
from forethought.records import Record

EMBEDDED = "embedded"
"""The name by which recipes and commands ask for the embedded model."""
SETTINGS_FILE = "forethought.json"
"""Beside the adapter: how the model was trained and where its operating point is."""
THINK_BUDGET = 64
"""Tokens of thought after which a verdict is asked for, of a model that says nothing else."""


class Settings(Record):
    """What has to be known to use a trained model as it was trained."""

    policy: Policy
    method: str = "scot"
    """Name of the training method."""
    thinks: bool = True
    """Whether it was taught to reason before it answers. Without a thought there is no verdict and no threshold."""
    format: Format = "think"
    detail: Detail = "short"
    answer_with: Literal["adapter", "base"] = "base"
    """What answers after the verdict `comply`; a model that does not think answers with its own weights."""
    think_budget: int = Field(default=THINK_BUDGET, ge=1)
    """Tokens of thought after which a verdict is asked for: with some room, those of the thoughts it was taught."""
    threshold: float = 0.0
    """Verdict log-odds (natural logarithm) from which the model refuses."""
    threshold_note: str = "not calibrated"
    """How the threshold was set."""
    seen_operators: tuple[str, ...] = ()
    """Styles it was trained on: an evaluation reports these apart."""
    languages: dict[str, int] = Field(default_factory=dict, exclude_if=lambda value: not value)
    """ISO 639 codes of the languages that it was taught to think in, with the rows of each; empty where not known."""

    def unlearned(self, texts: Iterable[str]) -> str:
        """A line about texts in languages that it was not taught to think in; empty where there are none."""
        others = Counter(language_of(text) for text in texts) if self.languages else Counter()
        strange = {code: count for code, count in others.most_common() if code not in (*self.languages, UNKNOWN)}
        if not strange:
            return ""
        told = ", ".join(f"{count} in {code}" for code, count in strange.items())
        taught = ", ".join(self.languages)
        return f"Requests in languages that it was not taught to think in (it was in {taught}): {told}"


def read_settings(folder: Path) -> Settings:
    """The settings beside a trained model. Raises ModelError when there are none."""
    settings = settings_if_any(folder)
    if settings is None:
        raise ModelError(
            folder, f"has no {SETTINGS_FILE}: it was not trained by forethought", "Train it with: forethought train"
        )
    return settings


def settings_if_any(folder: Path) -> Settings | None:
    """The settings in a folder, or None. Raises ModelError for damaged ones."""
    file = folder / SETTINGS_FILE
    if not file.is_file():
        return None
    try:
        return Settings.model_validate_json(file.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise ModelError(file, error.errors()[0]["msg"], "Train the model again") from None


def write_settings(folder: Path, settings: Settings) -> None:
    """Writes the settings beside a trained model, replacing the file in one step."""
    write_json(folder / SETTINGS_FILE, settings.model_dump(mode="json"))
