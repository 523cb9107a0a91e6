"""One step of Greedy Coordinate Gradient: gradient, candidates that change one token, the best of them (2307.15043)."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from forethought.evals.attacks.adaptive.base import Goal
from forethought.evals.attacks.adaptive.gcg_targets import Aim, targets
from forethought.evals.attacks.adaptive.gcg_tokens import Slot, find_slot, printable_ids, suffix_texts, survivors
from forethought.evals.attacks.adaptive.gradients import TargetLoss
from forethought.records import Record

if TYPE_CHECKING:
    from forethought.engine.local import LocalModel


class Setting(Record):
    """How the search goes; the defaults are the paper's."""

    candidates: int = 512
    """Suffixes tried a step (B)."""
    top_k: int = 256
    """Tokens with the steepest gradient at each place, of which candidates are drawn (k)."""
    length: int = 20
    """Tokens of the suffix."""
    init: str = "!"
    """What it is filled with at first."""
    buffer: int = 0
    """Best suffixes kept; each step goes on from the best of them. 0: from the best of the last step's candidates."""
    mellowmax: bool = False
    progressive: bool = True
    """Of several goals, one more is taken in whenever greedy decoding opens all so far with their target strings."""
    first_goals: int = 1
    """Goals to begin with, where progressive."""


class State(Record):
    """Where a search stands: all that the next step needs."""

    ids: tuple[int, ...]
    """The suffix that the next step changes."""
    loss: float
    """Of `ids`, in nats a token; of several goals or targets, the mean over them."""
    best: tuple[int, ...]
    best_loss: float
    text: str
    """The best suffix, as it is put behind the request."""
    hit: bool = False
    """Whether greedy decoding opens with the target string after `ids`, for every goal taken in."""
    goals: int = 1
    """How many goals are taken in."""
    buffer: tuple[tuple[float, tuple[int, ...]], ...] = ()
    """(loss, ids), best first."""


@dataclass
class Problem:
    """What is minimised: one suffix's loss over the goals and their targets."""

    tokenizer: Any
    slots: Sequence[Slot]
    """One a goal."""
    losses: Sequence[Sequence[TargetLoss]]
    """For each goal, one a target."""
    allowed: Sequence[int]
    """Token ids that a suffix may hold."""
    setting: Setting
    seed: str
    device: Any = field(default="cpu")

    def taken(self, goals: int) -> list[TargetLoss]:
        """The losses of the first goals."""
        return [loss for one in self.losses[:goals] for loss in one]

    def tensor(self, rows: Any) -> torch.Tensor:
        return torch.tensor(rows, device=self.device, dtype=torch.long)

    def loss(self, rows: torch.Tensor, current: torch.Tensor, goals: int) -> torch.Tensor:
        """Mean loss of each suffix over what is taken in. Shapes (B, n) and (B,); never NaN."""
        losses = self.taken(goals)
        total = sum((one.losses(rows, current) for one in losses), torch.zeros(len(rows), device=self.device))
        return torch.nan_to_num(total / len(losses), nan=math.inf)


def problem(goals: Sequence[Goal], model: LocalModel, aim: Aim, setting: Setting, seed: str) -> Problem:
    """Raises ModelError where the chat template or the tokenizer leaves no room for a suffix."""
    first = f" {setting.init}" * setting.length
    slots, losses = [], []
    for goal in goals:
        slot = find_slot(model.tokenizer, goal.request.messages, first)
        slots.append(slot)
        losses.append(
            [
                TargetLoss(
                    model.base_weights if target.base else model.model,
                    slot.head,
                    (*slot.tail, *target.forced),
                    target.wanted,
                    mellowmax=setting.mellowmax,
                    context=model.adapter_off if target.base else contextlib.nullcontext,
                )
                for target in targets(goal, model, aim)
            ]
        )
    allowed = printable_ids(model.tokenizer)
    return Problem(model.tokenizer, slots, losses, allowed, setting, seed, model.model.device)


def start(problem: Problem) -> State:
    """The first suffix and its loss."""
    setting, ids = problem.setting, problem.slots[0].first
    goals = min(setting.first_goals, len(problem.slots)) if setting.progressive else len(problem.slots)
    row = problem.tensor(ids)
    loss = float(problem.loss(row[None], row, goals)[0])
    text = suffix_texts(problem.tokenizer, problem.slots[0], [ids])[0]
    state = State(
        ids=ids, loss=loss, best=ids, best_loss=loss, text=text, goals=goals, hit=_hit(problem, row, goals),
        buffer=((loss, ids),),
    )  # fmt: skip
    return _widened(problem, state)


def step(problem: Problem, state: State, number: int) -> State:
    """The state after step `number`. Deterministic given the state, the number and the problem's seed."""
    rng = random.Random(f"{problem.seed}:{number}")
    current = problem.tensor(state.ids)
    rows = candidates(state.ids, _gradient(problem, current, state.goals), problem, rng)
    if not rows:  # none is read back as itself: other ones are drawn in the next step
        return state
    losses = problem.loss(problem.tensor(rows), current, state.goals)
    place = int(losses.argmin())
    loss, ids = float(losses[place]), rows[place]
    if not math.isfinite(loss):
        return state
    buffer = _kept(state.buffer, loss, ids, problem.setting.buffer)
    loss, ids = buffer[0]
    found = state.model_copy(update={"ids": ids, "loss": loss, "buffer": buffer})
    if loss < state.best_loss:
        text = suffix_texts(problem.tokenizer, problem.slots[0], [ids])[0]
        found = found.model_copy(update={"best": ids, "best_loss": loss, "text": text})
    hit = _hit(problem, problem.tensor(ids), state.goals)
    return _widened(problem, found.model_copy(update={"hit": hit}))


def candidates(
    ids: Sequence[int], gradient: torch.Tensor, problem: Problem, rng: random.Random
) -> list[tuple[int, ...]]:
    """Suffixes that differ in one token, drawn as in Algorithm 1 of the paper; no two alike, all read back as they are.

    `gradient`: shape (n, V).
    """
    allowed = problem.tensor(problem.allowed)
    top_k = min(problem.setting.top_k, len(allowed))
    steepest = allowed[(-gradient[:, allowed]).topk(top_k, dim=1).indices].tolist()  # n k
    drawn: dict[tuple[int, ...], None] = {}
    for _ in range(problem.setting.candidates):
        place = rng.randrange(len(ids))
        token = steepest[place][rng.randrange(top_k)]
        drawn[(*ids[:place], token, *ids[place + 1 :])] = None
    rows = list(drawn)
    return [row for row, kept in zip(rows, survivors(problem.tokenizer, problem.slots, rows), strict=True) if kept]


def _gradient(problem: Problem, current: torch.Tensor, goals: int) -> torch.Tensor:
    """Shape (n, V). Of several losses, the sum of their gradients at unit length (section 2.2 of the paper)."""
    gradients = [loss.gradient(current) for loss in problem.taken(goals)]
    if len(gradients) == 1:
        return gradients[0]
    return torch.stack([one / one.norm().clamp(min=1e-12) for one in gradients]).sum(0)


def _hit(problem: Problem, ids: torch.Tensor, goals: int) -> bool:
    return all(loss.predicted(ids) for loss in problem.taken(goals))


def _widened(problem: Problem, state: State) -> State:
    """With one goal more, where all so far are reached (Algorithm 2); the losses are of the wider problem then."""
    if not (problem.setting.progressive and state.hit and state.goals < len(problem.slots)):
        return state
    goals = state.goals + 1
    row = problem.tensor(state.ids)
    loss = float(problem.loss(row[None], row, goals)[0])
    text = suffix_texts(problem.tokenizer, problem.slots[0], [state.ids])[0]
    return State(
        ids=state.ids, loss=loss, best=state.ids, best_loss=loss, text=text, goals=goals,
        hit=_hit(problem, row, goals), buffer=((loss, state.ids),),
    )  # fmt: skip


def _kept(
    buffer: Sequence[tuple[float, tuple[int, ...]]], loss: float, ids: tuple[int, ...], size: int
) -> tuple[tuple[float, tuple[int, ...]], ...]:
    """The buffer with one suffix more, or in place of its worst where that is worse."""
    if size == 0:
        return ((loss, ids),)
    if any(ids == known for _, known in buffer):
        return tuple(buffer)
    return tuple(sorted([*buffer, (loss, ids)], key=lambda entry: entry[0])[:size])
