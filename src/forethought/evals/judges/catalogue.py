"""Judges by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from forethought.errors import ConfigError
from forethought.evals.judges.base import Judge, Measure
from forethought.evals.judges.embedded import shipped_judge, trained_judge
from forethought.evals.judges.keywords import KeywordJudge
from forethought.evals.judges.rules import RuleJudge

JUDGES: dict[str, Callable[[], Judge]] = {
    "keywords": KeywordJudge,
    "rules": RuleJudge,
    "refusal": lambda: shipped_judge("refused"),
    "harm": lambda: shipped_judge("harmful"),
    "keywords-harm": lambda: KeywordJudge("harmful"),
    "rules-harm": lambda: RuleJudge("harmful"),
}


def get_judge(name_or_path: str) -> Judge:
    """A judge by name, or by the folder that `forethought judge train` wrote.

    Raises ConfigError for a name that is neither.
    """
    if name_or_path in JUDGES:
        return JUDGES[name_or_path]()
    if Path(name_or_path).is_dir():
        return trained_judge(Path(name_or_path))
    raise ConfigError(
        name_or_path, "is neither a judge's name nor a folder", f"Use one of {', '.join(JUDGES)}, or a trained folder"
    )


def baseline(measure: Measure) -> Judge:
    """The keyword list for a measure, which every judge is shown beside."""
    return KeywordJudge(measure)
