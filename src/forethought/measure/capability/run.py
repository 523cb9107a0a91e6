"""Question sets put to the base model and to the defended one, with the same prompts.

A set is scored in pieces through lm-eval, and every item is kept.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lm_eval.evaluator import evaluate

from forethought.errors import ConfigError, InputError, ModelError
from forethought.manifest import key_of
from forethought.measure.capability import CapabilityConfig
from forethought.measure.capability.model import ForethoughtLM, base_of
from forethought.measure.capability.questions import Kind, Question, QuestionSet
from forethought.measure.capability.summary import (
    ItemScore,
    accuracy,
    chance_level,
    is_informative,
    sample_questions,
    set_figures,
)
from forethought.measure.capability.tasks import build_task
from forethought.metrics import Figure
from forethought.models.local import LocalModel
from forethought.records import Record
from forethought.store import Store

_PIECE = 32
"""Questions scored between two writes."""
BASE, DEFENDED = "base", "defended"


def chosen_questions(qset: QuestionSet, config: CapabilityConfig) -> tuple[list[Question], list[Question]]:
    """(questions to ask, worked examples), never the same ones.

    Raises InputError where the set is too small for both.
    """
    ordered = sample_questions(qset.questions, None, config.seed)
    if config.shots >= len(ordered):
        rule = f"holds {len(ordered)} questions, too few for {config.shots} worked examples"
        raise InputError(qset.name, rule, "Take fewer: --shots")
    # From the far end of the order, so that the questions asked don't depend on the number of examples.
    shots = ordered[len(ordered) - config.shots :]
    return ordered[: len(ordered) - config.shots][: config.limit], shots


def score_set(
    lm: ForethoughtLM, model: str, qset: QuestionSet, config: CapabilityConfig, folder: Path,
    on_done: Callable[[int], None] | None = None,
) -> list[ItemScore]:  # fmt: skip
    """One score a question, in the order of `chosen_questions`; items stand in a file in `folder`.

    `model` tells models apart (see `model_key`): a changed model, prompt or file is scored anew.
    `on_done(n)`: n more questions are finished, those read from an earlier run included.
    """
    questions, shots = chosen_questions(qset, config)
    asked = config.model_dump(exclude={"limit", "seed"}) | {"shots": [shot.id for shot in shots]}
    file = folder / f"{qset.name}-{key_of([model, qset.kind, asked])}.jsonl"
    with Store(file, write=True) as store:
        done = store.records(ItemScore)
        waiting = [question for question in questions if question.id not in done]
        if on_done is not None and len(waiting) < len(questions):
            on_done(len(questions) - len(waiting))
        waiting.sort(key=lambda question: (-_length(question), question.id))
        for start in range(0, len(waiting), _PIECE):
            piece = waiting[start : start + _PIECE]
            for score in score_piece(lm, qset.name, qset.kind, piece, shots, config):
                done[score.id] = score
                store.add(score.id, score)
            if on_done is not None:
                on_done(len(piece))
    return [done[question.id] for question in questions]


def _length(question: Question) -> int:
    return len(question.text) + max((len(choice) for choice in question.choices), default=0)


def score_piece(
    lm: ForethoughtLM, name: str, kind: Kind, questions: Sequence[Question], shots: Sequence[Question],
    config: CapabilityConfig,
) -> list[ItemScore]:  # fmt: skip
    """Scores of a few questions, through lm-eval's own evaluate."""
    task = build_task(name, kind, questions, config, shots)
    with _without_bars():
        results = evaluate(
            lm,
            {"tasks": {name: task}, "groups": {}, "group_map": {}},
            bootstrap_iters=0,
            apply_chat_template=config.prompt == "chat",
            fewshot_as_multiturn=True,
        )
    samples = {int(sample["doc_id"]): sample for sample in results["samples"][name]}
    return [_item(question, samples[place], lm, config) for place, question in enumerate(questions)]


def _item(question: Question, sample: dict[str, Any], lm: ForethoughtLM, config: CapabilityConfig) -> ItemScore:
    refused = lm.refused(sample["arguments"][0][0])
    if config.form == "generate":
        right = None if math.isnan(sample["acc"]) else bool(sample["acc"])
        cause = "" if right is not None or not question.checks else "a checker of IFEval lacks its language data"
        return ItemScore(id=question.id, correct=right, refused=refused, answer=str(sample["resps"][0][0]), cause=cause)
    likelihoods = () if refused else tuple(float(resps[0][0]) for resps in sample["resps"])
    if question.choices:
        by_length = bool(sample["acc_norm"]) if config.choices == "text" else bool(sample["acc"])
        return ItemScore(
            id=question.id, correct=by_length, correct_raw=bool(sample["acc"]), refused=refused,
            log_likelihoods=likelihoods,
        )  # fmt: skip
    n_bytes = len(sample["arguments"][0][1].encode())
    bits = -likelihoods[0] / math.log(2) / n_bytes if likelihoods else None
    return ItemScore(id=question.id, refused=refused, log_likelihoods=likelihoods, bits_per_byte=bits)


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """lm-eval draws bars of its own for every step; ours shows questions."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


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
    config = config.prompted(local.trained)
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
