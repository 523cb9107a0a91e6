"""One step of Greedy Coordinate Gradient on a model's weights: gradient, candidates, the best of them (2307.15043).

What makes it fast: the fixed head of the prompt goes through the model once; candidates differ from the current suffix
in one token, so that sorted by the place of it each batch shares all that stands before; and logits are computed where
the target is predicted and nowhere else.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.nn.functional import cross_entropy
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from forethought.attacks.searches.base import Goal, harmless_thought
from forethought.attacks.searches.suffix import (
    Ids,
    Slot,
    encode_text,
    find_slot,
    printable_ids,
    suffix_texts,
    survivors,
)
from forethought.reasoning import markers
from forethought.records import Record

if TYPE_CHECKING:
    from forethought.models.local import LocalModel

KeyValues = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values by layer, each of shape (1, heads, tokens, head size)."""
_CPU_ROWS = 32
"""Sequences a batch on a processor: more gain nothing there, and share less of the suffix."""
_GPU_ROWS = 128


class _Shared(DynamicLayer):  # type: ignore[misc]
    """Cached keys and values of one sequence that all rows of a batch begin with; what a batch adds is not kept."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.device = keys, values, keys.device
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = key_states.shape[0]
        assert self.keys is not None
        assert self.values is not None
        return (
            torch.cat([self.keys.expand(rows, -1, -1, -1), key_states], dim=-2),
            torch.cat([self.values.expand(rows, -1, -1, -1), value_states], dim=-2),
        )


class TargetLoss:
    """Mean negative log-likelihood of a target string, in nats a token, as a function of the suffix before it."""

    def __init__(
        self,
        weights: Any,
        head: Sequence[int],
        tail: Sequence[int],
        target: Sequence[int],
        *,
        mellowmax: bool = False,
        context: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        """`weights`: a transformers causal language model; `context` is entered for each of its passes.

        The model reads head, suffix, tail and target. `mellowmax`: that of the target's negated logits takes the place
        of the likelihood (nanoGCG's option).
        """
        self.weights = weights
        self.target = torch.tensor(target, device=weights.device)  # T
        self._head = torch.tensor(head, device=weights.device, dtype=torch.long)
        self._tail = torch.tensor([*tail, *target[:-1]], device=weights.device, dtype=torch.long)
        self._mellowmax = mellowmax
        self._context = context
        self._rows = _GPU_ROWS if weights.device.type == "cuda" else _CPU_ROWS

    @cached_property
    def _head_cache(self) -> KeyValues:
        # Not in inference mode: the gradient's pass reads it too.
        with torch.inference_mode(False), torch.no_grad():
            return self._read(self._head, [])

    def losses(self, suffixes: torch.Tensor, current: torch.Tensor | None = None) -> torch.Tensor:
        """Loss of each suffix. Shapes (B, n) and (B,).

        `current` (n): the suffix that they are made from; what a batch has in common with it is computed once.
        """
        found = torch.empty(len(suffixes), device=self.weights.device)
        shared = suffixes[0] if current is None else current
        with torch.inference_mode(), self._passes():
            cache = self._read(shared[:-1], self._head_cache) if len(shared) > 1 else self._head_cache
            start = _first_change(suffixes, shared)
            order = start.argsort(stable=True)
            place = 0
            while place < len(order):
                batch = order[place : place + self._rows]
                try:
                    # Copied out of inference mode's tensors by assignment.
                    found[batch] = self._batch(suffixes[batch], cache, int(start[batch[0]]))
                except torch.OutOfMemoryError:
                    if self._rows == 1:
                        raise
                    self._rows //= 2
                    continue
                place += len(batch)
        return found

    def gradient(self, suffix: torch.Tensor) -> torch.Tensor:
        """Gradient of the loss by the one-hot vectors of a suffix (n). Shape (n, V), in float32.

        It is the gradient by the embeddings times the embedding matrix. For a model that scales its embeddings it is
        right up to that factor, which orders tokens alike.
        """
        embed = self.weights.get_input_embeddings()
        with self._passes(), torch.enable_grad():
            own = embed(suffix).detach().requires_grad_()
            given = torch.cat([own, embed(self._tail).detach()])[None]
            logits = self._logits({"inputs_embeds": given}, self._head_cache)
            (by_embedding,) = torch.autograd.grad(self._loss(logits).sum(), own)  # n H
        with torch.no_grad():
            found: torch.Tensor = by_embedding.float() @ embed.weight.float().T
            return found

    def predicted(self, suffix: torch.Tensor) -> bool:
        """Whether greedy decoding writes the target string after this suffix (n)."""
        with torch.inference_mode(), self._passes():
            logits = self._logits({"input_ids": torch.cat([suffix, self._tail])[None]}, self._head_cache)
            return bool((logits[0].argmax(-1) == self.target).all())

    def _batch(self, suffixes: torch.Tensor, cache: KeyValues, start: int) -> torch.Tensor:
        cut = len(self._head) + start
        known = [(keys[:, :, :cut], values[:, :, :cut]) for keys, values in cache]
        ids = torch.cat([suffixes[:, start:], self._tail.expand(len(suffixes), -1)], dim=1)
        return self._loss(self._logits({"input_ids": ids}, known))

    def _logits(self, given: dict[str, torch.Tensor], known: KeyValues) -> torch.Tensor:
        """Logits that predict the target. Shape (B, T, V)."""
        cache, kept = Cache(layers=[_Shared(keys, values) for keys, values in known]), len(self.target)
        made = self.weights(**given, past_key_values=cache, use_cache=True, logits_to_keep=kept)
        logits: torch.Tensor = made.logits[:, -kept:].float()
        return logits

    def _loss(self, logits: torch.Tensor) -> torch.Tensor:
        """Shape (B,)."""
        rows, kept, _ = logits.shape
        if self._mellowmax:
            wanted = logits.gather(-1, self.target.expand(rows, -1)[..., None])[..., 0]  # B T
            return torch.logsumexp(-wanted, dim=-1) - torch.log(torch.tensor(float(kept)))
        labels = self.target.repeat(rows)
        return cross_entropy(logits.reshape(rows * kept, -1), labels, reduction="none").view(rows, kept).mean(-1)

    def _read(self, ids: torch.Tensor, known: KeyValues) -> KeyValues:
        """Keys and values of what is known and some tokens more."""
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(known):
            cache.update(keys, values, layer)
        self.weights(input_ids=ids[None], past_key_values=cache, use_cache=True, logits_to_keep=1)
        return [(layer.keys, layer.values) for layer in cache.layers]

    @contextlib.contextmanager
    def _passes(self) -> Iterator[None]:
        """The model's passes take place in here."""
        # Of the last of many positions torch would make a product for each row, with a copy of the vocabulary's matrix.
        output = self.weights.get_output_embeddings()
        hook = output.register_forward_pre_hook(lambda module, args: (args[0].contiguous(), *args[1:]))
        try:
            with self._context():
                yield
        finally:
            hook.remove()


def _first_change(suffixes: torch.Tensor, current: torch.Tensor) -> torch.Tensor:
    """Place of the first token of each suffix that is another than in `current`. Shape (B,), the last where none is."""
    differs = suffixes != current  # B n
    last = torch.full((len(suffixes),), suffixes.shape[1] - 1, device=suffixes.device)
    return torch.where(differs.any(-1), differs.int().argmax(-1), last)


AimKind = Literal["think", "skip"]
"""For a model that thinks: through a thought that finds nothing wrong, or into the answer at once."""


@dataclass(frozen=True)
class Target:
    """A string that the model is to write, right after its prompt."""

    forced: Ids
    """Tokens that the engine puts at the beginning of the model's turn; nothing has to make them likely."""
    wanted: Ids
    """Tokens of the string."""
    base: bool = False
    """True where the base model's weights write it."""


def targets(goal: Goal, model: LocalModel, aim: AimKind) -> tuple[Target, ...]:
    """What has to be likely for the attack to get through; the loss is summed over them.

    - A model that doesn't think opens its turn with the target string (GCG as published), whatever the aim.
    - `think`: after the forced opening marker, the thought it would write about a harmless request (intent, verdict
      "comply", closing marker), and the target string. With split answering the thought is one target and the answer,
      which the base model writes without the thought, is another.
    - `skip`: the target string where the thought would begin. The engine leads the model from there to a verdict.
    """
    answer = encode_text(model.tokenizer, goal.target_string)
    settings = model.thinking
    if settings is None:
        return (Target(forced=(), wanted=answer),)
    opening, closing = markers(settings.format)
    forced = encode_text(model.tokenizer, opening + "\n")
    if aim == "skip":
        return (Target(forced, answer),)
    thought = harmless_thought(goal.request, settings.policy, settings.format, settings.detail)
    if settings.answer_with == "base":
        thought = thought[: thought.rindex(closing) + len(closing)]
        return Target(forced, _after(model, forced, thought)), Target((), answer, base=True)
    return (Target(forced, _after(model, forced, thought + goal.target_string)),)


def _after(model: LocalModel, forced: Ids, text: str) -> Ids:
    """Tokens of a turn behind those that are forced."""
    whole = encode_text(model.tokenizer, text)
    if whole[: len(forced)] == forced:
        return whole[len(forced) :]
    opening = markers(model.settings.format)[0] if model.settings else ""
    return encode_text(model.tokenizer, text.removeprefix(opening + "\n"))


def passes(model: LocalModel, aim: AimKind) -> int:
    """How many targets there are, and so how many passes of a model one suffix takes."""
    settings = model.thinking
    return 2 if settings is not None and aim == "think" and settings.answer_with == "base" else 1


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
    loss: Literal["cross_entropy", "mellowmax"] = "cross_entropy"
    progressive: bool = True
    """Of several goals, one more is taken in whenever greedy decoding opens all so far with their target strings."""


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


def problem(goals: Sequence[Goal], model: LocalModel, aim: AimKind, setting: Setting, seed: str) -> Problem:
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
                    mellowmax=setting.loss == "mellowmax",
                    context=model.adapter_off if target.base else contextlib.nullcontext,
                )
                for target in targets(goal, model, aim)
            ]
        )
    allowed = printable_ids(model.tokenizer)
    return Problem(model.tokenizer, slots, losses, allowed, setting, seed, model.model.device)


def start(problem: Problem) -> State:
    """The first suffix and its loss."""
    return _widened(
        problem, _from(problem, problem.slots[0].first, 1 if problem.setting.progressive else len(problem.slots))
    )


def _from(problem: Problem, ids: Ids, goals: int) -> State:
    """The state of a search that begins with a suffix, with so many goals taken in."""
    row = problem.tensor(ids)
    loss = float(problem.loss(row[None], row, goals)[0])
    text = suffix_texts(problem.tokenizer, problem.slots[0], [ids])[0]
    return State(
        ids=ids, loss=loss, best=ids, best_loss=loss, text=text, goals=goals, hit=_hit(problem, row, goals),
        buffer=((loss, ids),),
    )  # fmt: skip


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
    return _from(problem, state.ids, state.goals + 1)


def _kept(
    buffer: Sequence[tuple[float, tuple[int, ...]]], loss: float, ids: tuple[int, ...], size: int
) -> tuple[tuple[float, tuple[int, ...]], ...]:
    """The buffer with one suffix more, or in place of its worst where that is worse."""
    if size == 0:
        return ((loss, ids),)
    if any(ids == known for _, known in buffer):
        return tuple(buffer)
    return tuple(sorted([*buffer, (loss, ids)], key=lambda entry: entry[0])[:size])
