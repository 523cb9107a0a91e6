"""A judge that is a model by one name, as commands and recipes write it: ROLE@MODEL."""

from __future__ import annotations

from pathlib import Path

from forethought.engine.calls import CallSettings
from forethought.errors import ConfigError
from forethought.evals.judges.base import Judge, Measure
from forethought.evals.judges.graders import Grader
from forethought.evals.judges.guard_templates import GUARDS
from forethought.evals.judges.guards import Guard, ServedGuard, local_guard
from forethought.evals.judges.model_calls import JUDGE_SETTINGS
from forethought.evals.judges.policy_judge import PolicyJudge, safeguard_judge
from forethought.evals.judges.rubrics import rubric_names
from forethought.policy import Policy, default_policy


def model_judge(
    name: str,
    journal: Path,
    settings: CallSettings = JUDGE_SETTINGS,
    policy: Policy | None = None,
    measure: Measure = "harmful",
) -> Judge:
    """The judge called ROLE@MODEL.

    ROLE is a rubric (`strongreject`, `harmbench`, `refusal`, or a YAML file), `policy`, `gpt-oss-safeguard` or a guard
    (`llama-guard`, `wildguard`, `shieldgemma`, `qwen3guard`). MODEL is an inspect model name, or for a guard the folder
    of one. `measure` is for guards that decide both. Raises ConfigError for any other name.
    """
    role, at, model = name.partition("@")
    if not at or not role or not model:
        raise ConfigError(f"judge '{name}'", "is not ROLE@MODEL", "Write for example strongreject@openai/NAME")
    if role == "policy":
        return PolicyJudge(policy or default_policy(), model, journal, settings)
    if role == "gpt-oss-safeguard":
        return safeguard_judge(policy or default_policy(), model, journal, settings)
    if role in GUARDS and Path(model).is_dir():
        return local_guard(Path(model), role, measure, policy)
    if role in GUARDS:
        return Guard(role, ServedGuard(model, journal, settings), measure, policy)
    if role in rubric_names() or role.endswith((".yaml", ".yml")):
        return Grader(role, model, journal, settings)
    roles = ", ".join((*rubric_names(), "policy", "gpt-oss-safeguard", *GUARDS))
    raise ConfigError(f"judge '{name}'", f"has no role '{role}'", f"Use one of {roles}, or a rubric's YAML file")
