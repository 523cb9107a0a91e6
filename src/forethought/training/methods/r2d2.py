"""R2D2: robust refusal dynamic defence, Mazeika et al. 2024, arXiv 2402.04249.

Besides harmless rows, each step learns from harmful requests with an adversarial suffix that GCG has just brought up to
the weights of that moment: away from the string that the attack wants, toward the refusal.

The paper's: a pool of requests, GCG steps on some of them before every training step, some of the suffixes thrown away
now and then; losses away from the wanted string, toward a refusal, and of supervised rows, all of weight 1. Ours: an
adapter unless the recipe trains all weights, as the paper does; the rows' own harmless answers in place of a chat data
set, and their own refusals in place of one sentence; the wanted string is GCG's opening ("Sure, here is ..."), so that
no harmful answer is needed. The default pool is small: `PAPER` has the paper's. A budget of
tokens is for the harmless rows: what the pool reads comes on top.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from forethought.chat import Tokenizer, encode_completion
from forethought.errors import InputError, ModelError
from forethought.records import Record, Request
from forethought.store import Store, read_store, rewrite
from forethought.training.config import TrainConfig, is_first
from forethought.training.methods.base import Job, Material, TrainingMethod
from forethought.training.methods.hidden_states import unlikely
from forethought.training.methods.supervised import original, unreasoned
from forethought.training.objective import Batch, Objective, Step, bare, evaluating, inputs_of, paired_loss
from forethought.training.rows import TokenRow, collate, taught_after

if TYPE_CHECKING:
    import torch

    from forethought.attacks.searches.suffix import Slot


Ids = tuple[int, ...]


class PoolSetting(Record):
    """How the pool is kept up. The defaults suit a small model on two cores; `PAPER` is R2D2's own."""

    size: int = Field(default=8, ge=1)
    """Harmful requests with a suffix each."""
    updated: int = Field(default=1, ge=1)
    """Requests of the pool that each training step attacks and learns from."""
    gcg_steps: int = Field(default=1, ge=0)
    """GCG steps that each of them gets, on the weights of that moment."""
    candidates: int = Field(default=32, ge=1)
    """Suffixes tried a GCG step."""
    top_k: int = Field(default=64, ge=1)
    """Tokens at each place that candidates are drawn from."""
    length: int = Field(default=20, ge=1)
    """Tokens of a suffix."""
    reset_every: int = Field(default=50, ge=1)
    """Training steps after which a share of the suffixes begins anew."""
    reset_share: float = Field(default=0.2, ge=0.0, le=1.0)
    seed: int = 0


PAPER = PoolSetting(size=180, updated=8, gcg_steps=5, candidates=512, top_k=256)
"""Of section 5 and appendix of Mazeika et al. 2024, arXiv 2402.04249, over 2,000 steps of full fine-tuning."""


class _Changes(Record):
    """What one training step changed."""

    suffixes: dict[int, Ids]
    """By place in the pool; an empty suffix is the first one again."""


class SuffixPool:
    """Suffixes by place in the pool, as they stand before a training step.

    Each step's changes are a line of a file, so that a run that goes on from a checkpoint has the very pool that it
    had there: lines of later steps, which are to be done again, are taken back.
    """

    def __init__(self, setting: PoolSetting, size: int, file: Path) -> None:
        self._setting, self._size, self._file = setting, size, file
        self._suffixes: dict[int, Ids] = {}
        self._next: int | None = None

    def before(self, step: int) -> Mapping[int, Ids]:
        """The suffixes by place, resets of this step done; a place that is missing has the first suffix.

        Raises ModelError where steps before this one are not in the file.
        """
        if self._next != step:
            self._read(step)
        for place in self.reset_at(step):
            self._suffixes.pop(place, None)
        return self._suffixes

    def chosen(self, step: int) -> list[int]:
        """Places that a training step attacks; by seed and step alone."""
        rng = random.Random(f"{self._setting.seed}:chosen:{step}")
        return sorted(rng.sample(range(self._size), min(self._setting.updated, self._size)))

    def reset_at(self, step: int) -> list[int]:
        """Places whose suffix begins anew before a training step; by seed and step alone."""
        if step == 0 or step % self._setting.reset_every:
            return []
        rng = random.Random(f"{self._setting.seed}:reset:{step}")
        return sorted(rng.sample(range(self._size), round(self._setting.reset_share * self._size)))

    def keep(self, step: int, changed: Mapping[int, Ids]) -> None:
        """Puts a step's new suffixes into the pool and the file."""
        self._suffixes |= changed
        self._next = step + 1
        if is_first():  # of several processes, all of which find the same, one writes
            with Store(self._file, write=True) as store:
                store.add(str(step), _Changes(suffixes=dict(changed)))

    def _read(self, step: int) -> None:
        # A last line that a kill cut short is of a step that no checkpoint holds.
        kept = {int(key): changes for key, changes in read_store(self._file, _Changes).items() if int(key) < step}
        if list(kept) != list(range(step)):
            raise ModelError(
                self._file,
                f"lacks suffixes of steps before {step}, at which training goes on",
                "Train into another folder, or delete this one's checkpoints",
            )
        if is_first() and self._file.is_file():
            rewrite(self._file, ((str(one), changes) for one, changes in kept.items()))
        self._suffixes = {}
        for one, changes in kept.items():
            for place in self.reset_at(one):
                self._suffixes.pop(place, None)
            self._suffixes |= changes.suffixes


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
        from forethought.attacks.searches.base import Goal
        from forethought.attacks.searches.weights.gcg import Setting, State, problem
        from forethought.attacks.searches.weights.gcg import step as gcg_step
        from forethought.models.local import LocalModel

        if self.setting.gcg_steps == 0:
            return ids
        case, own = self.cases[place], bare(model)
        setting = Setting(
            candidates=self.setting.candidates, top_k=self.setting.top_k, length=self.setting.length, init=_INIT
        )
        seed = f"{self.setting.seed}:{number}:{place}"
        with evaluating(own):
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
        from forethought.attacks.searches.suffix import encode_text

        case = self.cases[place]
        slot = slot_of(self.tokenizer, case.request, self.setting.length)
        prompt = (*slot.head, *(ids or slot.first), *slot.tail)
        wanted = encode_text(self.tokenizer, case.target_string)
        refusal = encode_completion(self.tokenizer, case.refusal)
        return taught_after(prompt, wanted, "refusal"), taught_after(prompt, refusal, "refusal")


def slot_of(tokenizer: Tokenizer, request: Request, length: int) -> Slot:
    """Where a request's suffix stands. Raises ModelError where the tokenizer leaves no room for one."""
    from forethought.attacks.searches.suffix import find_slot

    return find_slot(tokenizer, request.messages, f" {_INIT}" * length)


def away_loss(log_probs: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
    """Mean of -log(1 - p) over the taught tokens; those that are unlikely enough count nothing. Shapes (rows, n)."""
    likely = taught & (log_probs.detach() >= _UNLIKELY_ENOUGH)
    return (unlikely(log_probs) * likely).sum() / taught.sum()


def _inputs(rows: Sequence[TokenRow], batch: Batch) -> Batch:
    device = batch["input_ids"].device
    return {name: value.to(device) for name, value in inputs_of(collate([row.model_dump() for row in rows], 0)).items()}


POOL = "suffixes.jsonl"
"""In the training's folder: the suffixes that each step found."""


def harmless(material: Material) -> list[TokenRow]:
    """The harmless answers; harmful requests come from the pool."""
    return unreasoned(material, lambda example: example.term == "benign")


def pool_of(material: Material, setting: PoolSetting) -> tuple[Case, ...]:
    """Harmful requests drawn by seed, undisguised and with a refusal, behind which a suffix can stand."""
    from forethought.attacks.searches.base import opening_of

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


def train_refreshing(job: Job, setting: PoolSetting) -> dict[str, float]:
    """Trains with such a pool. Raises InputError where no request can be attacked."""
    from forethought.training.run import train_rows

    seeded = setting.model_copy(update={"seed": job.material.seed})
    cases = pool_of(job.material, seeded)
    if not cases:
        raise InputError(
            f"method '{job.method.name}'",
            "finds no harmful request that a suffix can be put behind",
            "Give rows with undisguised harmful requests and refusals",
        )
    job.progress.say(f"pool: {len(cases)} harmful requests, {min(seeded.updated, len(cases))} of them attacked a step")
    journal, tokenizer = job.out / POOL, job.material.tokenizer

    def objective(config: TrainConfig, n_layers: int) -> Objective:
        return SuffixObjective(cases, seeded, tokenizer, journal, config.benign_weight)

    return train_rows(job.with_method(objective=objective)) | {"pool": float(len(cases))}


R2D2 = TrainingMethod(
    name="r2d2",
    title="R2D2: adversarial suffixes kept up with the model",
    paper="Mazeika et al. 2024, arXiv 2402.04249",
    cost="GCG on one suffix before each step, some 35 passes; some 600 times that with the paper's settings",
    when_to_choose="GCG is the attack that matters and accelerators are at hand",
    rows=harmless,
    thinks=False,
    procedure=train_refreshing,
    procedure_settings=PoolSetting(),
)
METHODS = (R2D2,)
