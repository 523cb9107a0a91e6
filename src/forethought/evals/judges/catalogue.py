"""Judges by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from forethought.errors import ConfigError
from forethought.evals.judges.base import Judge, Measure
from forethought.evals.judges.embedded import shipped_judge, trained_judge
from forethought.evals.judges.keywords import KeywordJudge
from forethought.evals.judges.rules import RuleJudge
from forethought.policy import Policy

JUDGES: dict[str, Callable[[], Judge]] = {
    "keywords": KeywordJudge,
    "rules": RuleJudge,
    "refusal": lambda: shipped_judge("refused"),
    "harm": lambda: shipped_judge("harmful"),
    "keywords-harm": lambda: KeywordJudge("harmful"),
    "rules-harm": lambda: RuleJudge("harmful"),
}


JOURNAL = Path("judge-calls.jsonl")
"""Where the answers of judges that are models are kept, unless told otherwise: judging again pays nothing."""


def get_judge(
    name_or_path: str,
    measure: Measure = "harmful",
    journal: Path = JOURNAL,
    base_url: str | None = None,
    policy: Policy | None = None,
) -> Judge:
    """A judge by name, by the folder that `forethought judge train` wrote, or a model as ROLE@MODEL.

    `measure` is for guards, which decide both; `journal`, `base_url` and `policy` are for
    judges that are models. Raises ConfigError for a name that is none of these.
    """
    if "@" in name_or_path:
        from forethought.evals.judges.model_calls import JUDGE_SETTINGS
        from forethought.evals.judges.model_judges import model_judge

        settings = JUDGE_SETTINGS.model_copy(update={"base_url": base_url})
        return model_judge(name_or_path, journal, settings, policy, measure)
    if name_or_path in JUDGES:
        return JUDGES[name_or_path]()
    if Path(name_or_path).is_dir():
        return trained_judge(Path(name_or_path))
    raise ConfigError(
        name_or_path,
        "is neither a judge's name nor a folder",
        f"Use one of {', '.join(JUDGES)}, a trained folder, or ROLE@MODEL (docs/graders.md)",
    )


def baseline(measure: Measure) -> Judge:
    """The keyword list for a measure, which every judge is shown beside."""
    return KeywordJudge(measure)
