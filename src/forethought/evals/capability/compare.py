"""The base model and the defended one on the same questions, with the same prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from forethought.engine.local import LocalModel
from forethought.errors import ConfigError, ModelError
from forethought.evals.capability.items import ItemScore
from forethought.evals.capability.model import ForethoughtLM, base_of
from forethought.evals.capability.questions import Kind, Question, QuestionSet
from forethought.evals.capability.run import CapabilityConfig, chosen_questions, score_set
from forethought.evals.capability.summary import accuracy, chance_level, is_informative, set_figures
from forethought.evals.metrics import Figure
from forethought.records import Record

BASE, DEFENDED = "base", "defended"


class SetResult(Record):
    """One question set, scored."""

    name: str
    kind: Kind
    questions: tuple[Question, ...]
    scores: dict[str, tuple[ItemScore, ...]]
    """By model, `base` and `defended`, in the order of the questions."""
    chance: float | None
    """What guessing gets; None for questions without options."""
    informative: bool | None
    """Whether the base model is above chance; None where there is no accuracy or no base."""

    def figures(self) -> list[Figure]:
        """All figures of this set, by stable names."""
        return set_figures(self.name, self.questions, dict(self.scores))


def compare_models(
    local: LocalModel, key: str, sets: Sequence[QuestionSet], config: CapabilityConfig, folder: Path,
    base: LocalModel | None = None, base_key: str = "", batch_size: int = 16,
    on_done: Callable[[int], None] | None = None,
) -> list[SetResult]:  # fmt: skip
    """Scores of the model and, where it was trained, of its base. A model that wasn't is the base itself.

    `key`, `base_key` tell models apart between runs. `base` None is the base that stands beside the adapter.
    `on_done` as in score_set, over both models. Raises ConfigError for plain prompts to a
    model that thinks.
    """
    if local.thinks and config.prompt == "plain":
        raise ConfigError("--prompt plain", "a model that thinks does so in its chat template", "Use --prompt chat")

    def scored(model: LocalModel, its_key: str) -> list[tuple[ItemScore, ...]]:
        lm = ForethoughtLM(model, batch_size, config.think_budget)
        return [tuple(score_set(lm, its_key, qset, config, folder, on_done)) for qset in sets]

    found: dict[str, list[tuple[ItemScore, ...]]] = {}
    if not local.trained:
        found[BASE] = scored(local, key)
    else:
        if base is not None:
            found[BASE] = scored(base, base_key)
        elif has_base(local):
            with base_of(local) as own:
                found[BASE] = scored(own, base_key or f"base of {key}")
        found[DEFENDED] = scored(local, key)
    return [
        _result(qset, config, {name: lists[place] for name, lists in found.items()}) for place, qset in enumerate(sets)
    ]


def has_base(local: LocalModel) -> bool:
    """Whether the base model can be had from a defended one: False for merged and fully trained models."""
    try:
        with base_of(local):
            return True
    except ModelError:
        return False


def _result(qset: QuestionSet, config: CapabilityConfig, scores: dict[str, tuple[ItemScore, ...]]) -> SetResult:
    questions, _ = chosen_questions(qset, config)
    chance = chance_level(questions)
    base = scores.get(BASE)
    judged = base is not None and any(score.correct is not None for score in base)
    informative = is_informative(accuracy(base), chance) if base is not None and judged else None
    return SetResult(
        name=qset.name, kind=qset.kind, questions=tuple(questions), scores=scores, chance=chance,
        informative=informative,
    )  # fmt: skip
