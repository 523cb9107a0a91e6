"""R2D2 as a training method: the pool of harmful requests, and the harmless rows beside it.

The paper's: a pool of requests, GCG steps on some of them before every training step, some of the suffixes thrown away
now and then; losses away from the wanted string, toward a refusal, and of supervised rows, all of weight 1. Ours: an
adapter unless the recipe trains all weights, as the paper does; the rows' own harmless answers in place of a chat data
set, and their own refusals in place of one sentence; the wanted string is GCG's opening ("Sure, here is ..."), so that
no harmful answer is needed. The default pool is small: `refreshing(PAPER)` is a procedure with the paper's. A budget of
tokens is for the harmless rows: what the pool reads comes on top.
"""

from __future__ import annotations

import dataclasses
import random

from forethought.errors import InputError, ModelError
from forethought.evals.attacks.adaptive.base import opening_of
from forethought.train.config import TrainConfig
from forethought.train.methods.base import Job, Material, Procedure, tunable_method
from forethought.train.methods.supervised import original, paired, unreasoned
from forethought.train.objectives.base import Objective
from forethought.train.objectives.suffix_pool import PoolSetting
from forethought.train.objectives.suffixes import Case, SuffixObjective, slot_of
from forethought.train.rows import TokenRow

POOL = "suffixes.jsonl"
"""In the training's folder: the suffixes that each step found."""


def harmless(material: Material) -> list[TokenRow]:
    """The harmless answers; harmful requests come from the pool."""
    return unreasoned(material, lambda example: example.term == "benign")


def pool_of(material: Material, setting: PoolSetting) -> tuple[Case, ...]:
    """Harmful requests drawn by seed, undisguised and with a refusal, behind which a suffix can stand."""
    found = []
    for example in material.examples:
        if example.term != "refusal" or not example.answer or not original(example):
            continue
        try:
            slot_of(material.tokenizer, example.request, setting.length)
        except ModelError:
            continue
        found.append(Case(request=example.request, target_string=opening_of(example.request), refusal=example.answer))
    places = sorted(random.Random(f"{setting.seed}:pool").sample(range(len(found)), min(setting.size, len(found))))
    return tuple(found[place] for place in places)


def refreshing(setting: PoolSetting) -> Procedure:
    """A procedure that trains with such a pool. It raises InputError where no request can be attacked."""

    def train_refreshing(job: Job) -> dict[str, float]:
        from forethought.train.run import train_rows

        seeded = setting.model_copy(update={"seed": job.material.seed})
        cases = pool_of(job.material, seeded)
        if not cases:
            raise InputError(
                f"method '{job.method.name}'",
                "finds no harmful request that a suffix can be put behind",
                "Give rows with undisguised harmful requests and refusals",
            )
        job.say(f"pool: {len(cases)} harmful requests, {min(seeded.updated, len(cases))} of them attacked a step")
        journal, tokenizer = job.out / POOL, job.material.tokenizer

        def objective(config: TrainConfig, n_layers: int) -> Objective:
            return SuffixObjective(cases, seeded, tokenizer, journal, config.benign_weight)

        plain = job.method.model_copy(update={"procedure": None, "objective": objective})
        return train_rows(dataclasses.replace(job, method=plain)) | {"pool": float(len(cases))}

    return train_refreshing


R2D2 = tunable_method(
    PoolSetting(),
    refreshing,
    name="r2d2",
    title="R2D2: adversarial suffixes kept up with the model",
    paper="Mazeika et al. 2024, arXiv 2402.04249",
    rows=harmless,
    objective=paired,
    thinks=False,
)
