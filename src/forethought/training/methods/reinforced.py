"""Methods that learn from the model's own thoughts, after SCoT has taught it to think.

Trainers are loaded when one trains: a list of methods needs none.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from forethought.chat import encode_completion
from forethought.errors import ConfigError
from forethought.models.settings import Settings, read_settings, write_settings
from forethought.reasoning import render
from forethought.training.config import is_first
from forethought.training.methods.base import Job, Material, Procedure, tunable_method
from forethought.training.methods.supervised import SCOT, affordable, paired, reasoned
from forethought.training.rl.reward import RejectionSettings, RLSettings

if TYPE_CHECKING:
    from forethought.training.trainer import OnStep

SFT = "sft"
"""Folder of the supervised model, below that of the training."""
_ANSWER_TOKENS = 48
"""Room for an answer behind the longest thought: enough to tell whether it refuses."""
_MORE = 1.15
"""Share of the token budget whose rows are thought about: a model's own intents may be shorter than those written."""


def reinforced(settings: RLSettings) -> Procedure:
    """SCoT by example, then GRPO from there."""

    def procedure(job: Job) -> dict[str, float]:
        from forethought.training.rl.grpo import in_order, optimise, unsupported

        unsupported(job.config)
        in_order(job.material.examples, settings, job.config.seed)  # fails before the first training, not after it
        start, done = _supervised(job, settings.steps)
        further = fitting(settings, _longest_thought(job.material))
        counts = optimise(start, dataclasses.replace(job, on_step=_after(job, done)), further)
        if is_first():
            write_settings(job.out, _settings(job, read_settings(start)))
        return counts

    return procedure


def rejecting(settings: RejectionSettings) -> Procedure:
    """SCoT by example, thoughts sampled from it, and SCoT again with those that reached the right verdict."""

    def procedure(job: Job) -> dict[str, float]:
        from forethought.training.rl.rejection import own_thoughts
        from forethought.training.run import train_rows

        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(f"method '{job.method.name}'", "samples in one process", "Start it without a launcher")
        start, done = _supervised(job, None)
        room = None if job.max_tokens is None else int(_MORE * job.max_tokens)
        chosen = affordable(job.material, room)
        examples = own_thoughts(start, chosen, settings, job.out, job.material.seed, job.say)
        material = dataclasses.replace(job.material, examples=examples)
        return train_rows(dataclasses.replace(job, material=material, on_step=_after(job, done)))

    return procedure


def _supervised(job: Job, further_steps: int | None) -> tuple[Path, int]:
    """The supervised model's folder and its steps; one that is finished is not trained again.

    Its steps are told with those that follow in the total; None is as many again.
    """
    from forethought.training.run import train_rows

    out, told = job.out / SFT, job.on_step

    def on_step(step: int, steps: int, losses: dict[str, float]) -> None:
        if told is not None:
            told(step, steps + (steps if further_steps is None else further_steps), losses)

    counts = train_rows(dataclasses.replace(job, method=SCOT, out=out, on_step=on_step))
    return out, int(counts["steps"])


def _after(job: Job, done: int) -> OnStep | None:
    """Tells steps as those after `done` others."""
    told = job.on_step
    return None if told is None else lambda step, steps, losses: told(done + step, done + steps, losses)


def _settings(job: Job, supervised: Settings) -> Settings:
    """Those of the supervised model; turns were drawn in every style of the rows, whatever the budget left of them."""
    styles = (example.request.operator for example in job.material.examples)
    seen = sorted({*supervised.seen_operators, *(style for style in styles if style is not None)})
    update = {"method": job.method.name, "answer_with": job.method.answer_with, "seen_operators": tuple(seen)}
    return supervised.model_copy(update=update)


def fitting(settings: RLSettings, thought_tokens: int) -> RLSettings:
    """The settings for rows whose longest thought has so many tokens: what they teach costs no reward, and fits."""
    free = max(settings.weights.free_tokens, thought_tokens)
    return settings.model_copy(
        update={
            "weights": settings.weights.model_copy(update={"free_tokens": free}),
            "max_new_tokens": max(settings.max_new_tokens, thought_tokens + _ANSWER_TOKENS),
        }
    )


def _longest_thought(material: Material) -> int:
    """Tokens of the longest thought that is taught."""
    thoughts = [
        render(example.reasoning, material.policy, material.format, material.detail, material.seed)
        for example in material.examples
    ]
    return max((len(encode_completion(material.tokenizer, thought, end=False)) for thought in thoughts), default=0)


REINFORCED = tunable_method(
    RLSettings(),
    reinforced,
    name="scot_rl",
    title="SCoT with a verifiable reward (GRPO)",
    paper="ours, with GRPO: Shao et al. 2024, arXiv 2402.03300",
    cost="sampled thoughts for every step, after SCoT",
    when_to_choose="over-refusal stays too high after SCoT, and compute is at hand",
    rows=reasoned,
    objective=paired,
)
REJECTION = tunable_method(
    RejectionSettings(),
    rejecting,
    name="scot_rejection",
    title="SCoT on its own right thoughts (rejection sampling)",
    paper="ours, with rejection sampling: Yuan et al. 2023, arXiv 2308.01825",
    cost="SCoT twice, and four thoughts sampled for each row in between",
    when_to_choose="intents written by rules don't sound like the model, and compute is at hand",
    rows=reasoned,
    objective=paired,
)


METHODS = (REINFORCED, REJECTION)
