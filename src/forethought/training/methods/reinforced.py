"""Group-relative policy optimisation after SCoT has taught the model to think: GRPO on a reward that is a rule.

The trainer is loaded when it trains: a list of methods needs none.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from forethought.chat import encode_completion
from forethought.errors import ConfigError
from forethought.models.settings import Settings, read_settings, write_settings
from forethought.training.config import is_first
from forethought.training.methods.base import Job, Material, TrainingMethod
from forethought.training.methods.supervised import SCOT
from forethought.training.reward import RLSettings

SFT = "sft"
"""Folder of the supervised model, below that of the training."""
_ANSWER_TOKENS = 48
"""Room for an answer behind the longest thought: enough to tell whether it refuses."""


def reinforce(job: Job, settings: RLSettings) -> dict[str, float]:
    """SCoT by example, then GRPO from there."""
    from forethought.training.grpo import in_order, optimise

    if job.config.quantize is not None:
        value, rule = f"quantize: {job.config.quantize}", f"is not kept while '{job.method.name}' draws turns"
        raise ConfigError(value, rule, "Leave it out")
    in_order(job.material.examples, settings, job.config.seed)  # fails before the first training, not after it
    start = supervised_first(job)
    counts = optimise(start, job, fitting(settings, _longest_thought(job.material)))
    if is_first():
        write_settings(job.out, _settings(job, read_settings(start)))
    return counts


def supervised_first(job: Job) -> Path:
    """The supervised model's folder; one that is finished is not trained again."""
    from forethought.training.run import train_rows

    out = job.out / SFT
    train_rows(dataclasses.replace(job, method=SCOT, out=out))
    return out


def _settings(job: Job, supervised: Settings) -> Settings:
    """Those of the supervised model; turns were drawn in every style of the rows, whatever the budget left of them."""
    styles = (example.request.operator for example in job.material.examples)
    seen = sorted({*supervised.seen_operators, *(style for style in styles if style is not None)})
    update = {"method": job.method.name, "answer_with": job.method.answer_with, "seen_operators": tuple(seen)}
    return supervised.model_copy(update=update)


def fitting(settings: RLSettings, thought_tokens: int) -> RLSettings:
    """The settings for rows whose longest thought has so many tokens: what they teach costs no reward, and fits."""
    free = max(settings.weights.free_tokens, thought_tokens)
    weights = settings.weights.model_copy(update={"free_tokens": free})
    longest = max(settings.max_new_tokens, thought_tokens + _ANSWER_TOKENS)
    return settings.model_copy(update={"weights": weights, "max_new_tokens": longest})


def _longest_thought(material: Material) -> int:
    """Tokens of the longest thought that is taught."""
    thoughts = (material.thought(example) for example in material.examples)
    return max((len(encode_completion(material.tokenizer, thought, end=False)) for thought in thoughts), default=0)


REINFORCED = TrainingMethod(
    name="scot_rl",
    title="SCoT with a verifiable reward (GRPO)",
    paper="ours, with GRPO: Shao et al. 2024, arXiv 2402.03300",
    cost="sampled thoughts for every step, after SCoT",
    when_to_choose="over-refusal stays too high after SCoT, and compute is at hand",
    procedure=reinforce,
    procedure_settings=RLSettings(),
)
METHODS = (REINFORCED,)
