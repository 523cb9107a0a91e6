"""R2D2: robust refusal dynamic defence, Mazeika et al. 2024, arXiv 2402.04249.

Besides harmless rows, each step learns from harmful requests with an adversarial suffix that GCG has just brought up to
the weights of that moment: away from the string that the attack wants, toward the refusal.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from forethought.chat import Tokenizer, encode_completion
from forethought.engine.local import LocalModel
from forethought.evals.attacks.adaptive.base import Goal
from forethought.evals.attacks.adaptive.suffix import Slot, encode_text, find_slot
from forethought.evals.attacks.adaptive.weights.gcg import Setting, State, problem
from forethought.evals.attacks.adaptive.weights.gcg import step as gcg_step
from forethought.records import Record, Request
from forethought.train.objectives.base import Batch, Step
from forethought.train.objectives.latent import unlikely
from forethought.train.objectives.paired import paired_loss
from forethought.train.objectives.suffix_pool import Ids, PoolSetting, SuffixPool
from forethought.train.objectives.weights import bare, inputs_of
from forethought.train.rows import IGNORED, TERMS, TokenRow, collate

_INIT = "!"
_UNLIKELY_ENOUGH = -5.0
"""Log-probability below which a token of the wanted string is left alone, as in HarmBench's code."""


class Case(Record):
    """A harmful request of the pool."""

    request: Request
    target_string: str
    """What the attack wants the answer to open with."""
    refusal: str


@dataclass(frozen=True)
class SuffixObjective:
    """The paired loss of the batch, and away and toward losses on what the pool gives this step."""

    cases: tuple[Case, ...]
    setting: PoolSetting
    tokenizer: Tokenizer = field(repr=False)
    journal: Path = field(repr=False)
    """Where the pool is kept; beside the checkpoints, and not part of what the training is."""
    benign_weight: float = 1.0
    away_weight: float = 1.0
    toward_weight: float = 1.0
    columns: tuple[str, ...] = ()
    pool: SuffixPool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pool", SuffixPool(self.setting, len(self.cases), self.journal))

    def loss(self, model: Any, batch: Batch, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        """Every process does the same for the pool, so that all know it; the batch alone is divided."""
        suffixes = self.pool.before(step.number)
        changed = {place: self.refreshed(model, place, suffixes.get(place, ()), step.number)
                   for place in self.pool.chosen(step.number)}  # fmt: skip
        self.pool.keep(step.number, changed)
        out = model(**inputs_of(batch), taught_only=True)
        loss, values = paired_loss(out.log_probs, out.taught, batch["term"], self.benign_weight, step)
        away_rows, toward_rows = zip(*(self.rows(place, ids) for place, ids in changed.items()), strict=True)
        out = model(**_inputs(away_rows, batch), taught_only=True)
        away = away_loss(out.log_probs, out.taught)
        out = model(**_inputs(toward_rows, batch), taught_only=True)
        toward = -out.log_probs.sum() / out.taught.sum()
        values |= {"away": float(away.detach()), "toward": float(toward.detach())}
        return loss + self.away_weight * away + self.toward_weight * toward, values

    def refreshed(self, model: Any, place: int, ids: Ids, number: int) -> Ids:
        """A suffix after some GCG steps on the model as it is; deterministic given the weights, place and number."""
        if self.setting.gcg_steps == 0:
            return ids
        case, own = self.cases[place], bare(model)
        setting = Setting(
            candidates=self.setting.candidates, top_k=self.setting.top_k, length=self.setting.length, init=_INIT
        )
        seed = f"{self.setting.seed}:{number}:{place}"
        with _evaluating(own):
            attacked = LocalModel(own, self.tokenizer, None)
            goal = Goal(case.request, case.target_string)
            # A problem of its own each time: it remembers what the weights made of the prompt.
            made = problem([goal], attacked, "think", setting, seed)
            first = ids or made.slots[0].first
            state = State(ids=first, loss=math.inf, best=first, best_loss=math.inf, text="")
            for inner in range(self.setting.gcg_steps):
                state = gcg_step(made, state, inner)
        return state.best

    def rows(self, place: int, ids: Ids) -> tuple[TokenRow, TokenRow]:
        """(the wanted string, the refusal) behind the request with its suffix."""
        case = self.cases[place]
        slot = slot_of(self.tokenizer, case.request, self.setting.length)
        prompt = (*slot.head, *(ids or slot.first), *slot.tail)
        wanted = encode_text(self.tokenizer, case.target_string)
        return _row(prompt, wanted), _row(prompt, tuple(encode_completion(self.tokenizer, case.refusal)))


def slot_of(tokenizer: Tokenizer, request: Request, length: int) -> Slot:
    """Where a request's suffix stands. Raises ModelError where the tokenizer leaves no room for one."""
    return find_slot(tokenizer, request.messages, f" {_INIT}" * length)


def away_loss(log_probs: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
    """Mean of -log(1 - p) over the taught tokens; those that are unlikely enough count nothing. Shapes (rows, n)."""
    likely = taught & (log_probs.detach() >= _UNLIKELY_ENOUGH)
    return (unlikely(log_probs) * likely).sum() / taught.sum()


def _row(prompt: Ids, completion: Ids) -> TokenRow:
    labels = (*([IGNORED] * len(prompt)), *completion)
    return TokenRow(input_ids=(*prompt, *completion), labels=labels, term=TERMS.index("refusal"))


def _inputs(rows: Sequence[TokenRow], batch: Batch) -> Batch:
    device = batch["input_ids"].device
    return {name: value.to(device) for name, value in inputs_of(collate([row.model_dump() for row in rows], 0)).items()}


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Without dropout while it lasts, and as it was afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
