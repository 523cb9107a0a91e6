"""SCoT with rule heads: a middle layer is held to what the base model knows of a request before it writes a word.

Logistic heads, one for harm and one a rule, are fitted on the base model's states of *undisguised* requests. Training
then asks that they stay right on every row, disguised ones among them: the layer learns to know a disguised request as
it knows the plain one.

Their loss is deep supervision (Lee et al. 2014, arXiv 1409.5185) where harm is the plainest, at the prompt's last
token. The heads stay frozen: a head that was trained along could follow the state wherever it drifts, and nothing would
hold the state itself.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from forethought.chat import encode_prompt
from forethought.errors import ConfigError, InputError
from forethought.manifest import key_of
from forethought.policy import Policy
from forethought.records import Example
from forethought.training.config import TrainConfig, is_first
from forethought.training.methods.base import Job, TrainingMethod
from forethought.training.methods.supervised import SCOT_PAPER, original, unreasoned
from forethought.training.objective import Batch, Objective, Step, layers_of

if TYPE_CHECKING:
    import torch

    from forethought.measure.probe import Probe
    from forethought.measure.probe_fit import Labels
    from forethought.models.local import LocalModel


Targets = NDArray[np.float32]
"""Of one request, (heads): 1 where it is harmful or breaks the head's rule, 0 where not, nan where nobody knows."""


@dataclass(frozen=True)
class RuleHeadsObjective:
    """Another objective's loss, and that of frozen heads on the state at each prompt's last token."""

    inner: Objective
    layer: int
    """Whose output the heads read; 1 is the first layer."""
    weights: Targets = field(repr=False, compare=False)
    """(heads, hidden size), the first head for harm."""
    biases: Targets = field(repr=False, compare=False)
    """(heads)."""
    targets: Mapping[tuple[int, ...], Targets] = field(repr=False, compare=False)
    """By the token ids of a prompt. A row whose prompt is none of these has no part in the heads' loss."""
    digest: str
    """Content hash of heads and targets: a stopped training must not go on with others."""
    weight: float
    """Of the heads' loss, beside 1 for the inner one."""

    def loss(self, model: Any, batch: Batch, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        """Inner loss + weight * (harm + rules), each the balanced cross-entropy of its heads.

        Raises ConfigError where no trained weights stand below the heads' layer: nothing could be supervised.
        """
        import torch

        kept: list[torch.Tensor] = []
        with _listening(layers_of(model)[self.layer - 1], kept):
            loss, values = self.inner.loss(model, batch, step)
        hidden = kept[0]  # B T H
        if torch.is_grad_enabled() and not hidden.requires_grad:
            raise ConfigError(
                f"layer {self.layer} of the rule heads", "stands below all trained layers", "Lower train.skip_layers"
            )
        places, positions, targets = self._known(batch)
        states = hidden[places, positions].float()  # N H
        weights, biases, balance, target = (
            torch.as_tensor(array, device=hidden.device)
            for array in (self.weights, self.biases, self._balance, targets)
        )
        heads, found = head_loss(states @ weights.T + biases, target, balance, step)
        return loss + self.weight * heads, values | found

    def _known(self, batch: Batch) -> tuple[list[int], list[int], Targets]:
        """(rows of the batch, place of each one's last prompt token, their targets of shape (rows, heads))."""
        lengths = batch["attention_mask"].sum(1).tolist()
        places, positions, targets = [], [], []
        for place, (ids, length) in enumerate(zip(batch["input_ids"].tolist(), lengths, strict=True)):
            for n_prompt in self._prompt_lengths:  # the longest first: a prompt may begin with another
                found = self.targets.get(tuple(ids[:n_prompt])) if n_prompt < length else None
                if found is not None:
                    places.append(place)
                    positions.append(n_prompt - 1)
                    targets.append(found)
                    break
        stacked = np.stack(targets) if targets else np.zeros((0, len(self.biases)), dtype=np.float32)
        return places, positions, stacked

    @cached_property
    def _prompt_lengths(self) -> list[int]:
        return sorted({len(prompt) for prompt in self.targets}, reverse=True)

    @cached_property
    def _balance(self) -> Targets:
        return balance_of(np.stack(list(self.targets.values())))


def balance_of(targets: Targets) -> Targets:
    """Weights of absent and present, shape (2, heads), from targets (requests, heads): both weigh alike in a head.

    As scikit-learn's `balanced`, with which the heads are fitted: n / 2 n_class. A class without requests weighs 1.
    """
    known = ~np.isnan(targets)
    present = np.nansum(targets, axis=0)
    total = known.sum(axis=0)
    counts = np.stack([total - present, present])
    return np.where(counts > 0, total / np.maximum(2 * counts, 1), 1.0).astype(np.float32)


def head_loss(
    logits: torch.Tensor,  # N heads
    targets: torch.Tensor,  # N heads, nan where unknown
    balance: torch.Tensor,  # 2 heads
    step: Step | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Mean of the harm head's cross-entropies plus mean of the rule heads', over what is known in all processes.

    Returns the loss and the value of each part, `head_harm` and `head_rules`; a part without known targets is left out.
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    step = step or Step()
    known = ~targets.isnan()
    target = targets.nan_to_num()
    each = binary_cross_entropy_with_logits(logits, target, reduction="none")
    each = each * torch.where(target > 0.5, balance[1], balance[0]) * known
    sums = torch.stack([each[:, 0].sum(), each[:, 1:].sum()])
    counts = step.summed(torch.stack([known[:, 0].sum(), known[:, 1:].sum()]).to(sums.dtype))
    totals = step.summed(sums.detach())
    loss = logits.sum() * 0.0  # a batch without a known prompt still has its part in the graph
    values: dict[str, float] = {}
    for number, name in enumerate(("head_harm", "head_rules")):
        if counts[number] > 0:
            loss = loss + sums[number] * step.processes / counts[number]
            values[name] = float(totals[number] / counts[number])
    return loss, values


@contextlib.contextmanager
def _listening(layer: Any, kept: list[torch.Tensor]) -> Iterator[None]:
    """While it lasts, what the layer puts out is kept as it is: an operation in here would be checkpointed with it."""

    def keep(module: Any, inputs: Any, output: Any) -> None:
        kept.append(output[0] if isinstance(output, tuple) else output)

    handle = layer.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()


HEADS_FOLDER = "heads"
"""Beside the adapter: the heads that supervised it."""
HEADS_WEIGHT = 0.2
"""Of the heads' loss, beside 1 for the thought's."""
_DEV_OF = 5
"""One family in so many chooses the heads' layer and strength."""


def train_headed(job: Job, weight: float = HEADS_WEIGHT) -> dict[str, float]:
    """Fits the heads, stores them beside the adapter, and trains with their loss. Stored ones are used again.

    `weight` is that of their loss, beside 1 for the method's own.

    Raises InputError where the examples hold no harmful or no harmless request.
    """
    from forethought.training.run import train_rows

    tokenizer, examples = job.material.tokenizer, job.material.examples
    prompts = {tuple(encode_prompt(tokenizer, one.request.messages)): one for one in examples}  # one example each
    heads = _heads(job, prompts)
    settings = heads.settings
    job.progress.say(
        f"rule heads: layer {settings.layer}, one for harm and {len(settings.rules)} for rules;"
        f" AUROC on held-out families {settings.auroc_dev:.2f}"
    )
    targets = _targets_of(prompts, settings.rules)
    told = repr([(prompt, own.tolist()) for prompt, own in sorted(targets.items())]).encode()
    digest = hashlib.sha256(heads.weights.tobytes() + heads.biases.tobytes() + told).hexdigest()[:16]

    def objective(config: TrainConfig, n_layers: int) -> Objective:
        inner = job.method.objective(config, n_layers)
        return RuleHeadsObjective(inner, settings.layer, heads.weights, heads.biases, targets, digest, weight)

    return train_rows(job.with_method(objective=objective))


def _heads(job: Job, prompts: Mapping[tuple[int, ...], Example]) -> Probe:
    """The heads stored beside the adapter where they are of this training, else fitted ones, which are stored."""
    from forethought.measure.probe import load_probe
    from forethought.models.local import LocalModel

    folder = job.out / HEADS_FOLDER
    labels = [[one.term, list(_rules(one)), one.request.operator] for one in prompts.values()]
    key = key_of([job.base, [list(prompt) for prompt in prompts], labels, job.config.skip_layers, job.config.method])
    try:
        stored = load_probe(folder)
        if stored.settings.key == key:
            return stored
    except InputError:
        pass  # none there yet, or half of them: they are fitted again
    # No loss on the output of layers that training leaves as they are could teach anything.
    lowest = job.config.skip_layers if job.config.method == "lora" else 0
    heads = fit_heads(LocalModel.load(job.base), prompts, job.material.policy, lowest, key)
    if is_first():
        heads.save(folder)
    return heads


def fit_heads(
    model: LocalModel,
    prompts: Mapping[tuple[int, ...], Example],
    policy: Policy,
    lowest: int = 0,
    key: str = "",
) -> Probe:
    """Heads on the base model's states of the undisguised prompts; a fifth of the families chooses the layer.

    Raises InputError where harmful or harmless prompts are missing.
    """
    from forethought.measure.probe import Probe, ProbeSettings
    from forethought.measure.probe_fit import choose_layer, fit_each, layers_at, rule_targets
    from forethought.models.hidden_states import last_states, layer_count

    plain = [(prompt, one) for prompt, one in prompts.items() if original(one)]
    harmful = np.array([one.term == "refusal" for _, one in plain], dtype=bool)
    if not harmful.any() or harmful.all():
        raise InputError(
            f"{len(plain)} undisguised training requests", "hold no harmful or no harmless one", "Give rows of both"
        )
    layers = layers_at(layer_count(model), lowest)
    states = last_states(model, [prompt for prompt, _ in plain], layers)
    dev = _dev([one for _, one in plain], harmful)
    fit = ~dev if dev.any() else np.ones(len(plain), dtype=bool)
    chooses = dev if dev.any() else fit
    area, layer, strength = choose_layer(
        {at: own[fit] for at, own in states.items()}, harmful[fit],
        {at: own[chooses] for at, own in states.items()}, harmful[chooses],
    )  # fmt: skip
    rules, targets = rule_targets(harmful, [_rules(one) for _, one in plain], policy.rule_ids)
    weights, biases = fit_each(states[layer], targets, strength)
    settings = ProbeSettings(
        model=model.name,
        layer=layer,
        policy=policy,
        rules=rules,
        each_rule_alone=True,
        strength=strength,
        auroc_dev=area,
        rows=dict(sorted(Counter("harmful" if bad else "harmless" for bad in harmful).items())),
        key=key,
    )
    return Probe.fitted(settings, weights, biases, model)


def _dev(examples: Sequence[Example], harmful: Labels) -> NDArray[np.bool_]:
    """Which examples choose the layer: whole families. None where either side would be left without both labels."""
    families = [one.request.cluster for one in examples]
    dev = np.array([int(hashlib.sha256(name.encode()).hexdigest(), 16) % _DEV_OF == 0 for name in families], dtype=bool)
    sides = (harmful[dev], harmful[~dev])
    return dev if all(side.any() and not side.all() for side in sides) else np.zeros(len(dev), dtype=bool)


def _rules(example: Example) -> tuple[str, ...]:
    """The rules that a row breaks: the request's own, else those that its reasoning names."""
    return (example.request.rules or example.reasoning.violated) if example.term == "refusal" else ()


def _targets_of(prompts: Mapping[tuple[int, ...], Example], rules: Sequence[str]) -> dict[tuple[int, ...], Targets]:
    """What the heads are to say of each prompt, as the heads have their rules."""
    found = {}
    for prompt, one in prompts.items():
        broken = _rules(one)
        unknown = one.term == "refusal" and not broken
        own = [float("nan") if unknown else float(rule in broken) for rule in rules]
        found[prompt] = np.array([float(one.term == "refusal"), *own], dtype=np.float32)
    return found


HEADED = TrainingMethod(
    name="scot_headed",
    title="SCoT with rule heads on a middle layer",
    paper=f"ours; auxiliary heads: Lee et al. 2014, arXiv 1409.5185, on {SCOT_PAPER}",
    cost="as SCoT, and heads fitted on the base model's states of undisguised requests",
    when_to_choose="the base model knows a plain request for harmful, and disguises hide it",
    procedure=lambda job, _: train_headed(job),
    one_run=True,
)
REFUSAL_HEADED = TrainingMethod(
    name="refusal_headed",
    title="Refusal training with variants and rule heads",
    paper="ours; auxiliary heads: Lee et al. 2014, arXiv 1409.5185, on refusal training with variants",
    cost="as refusal training, and heads fitted on the base model's states of undisguised requests",
    when_to_choose="to see what `scot_headed` owes to its heads alone",
    rows=unreasoned,
    thinks=False,
    procedure=lambda job, _: train_headed(job),
    one_run=True,
)
"""The control of `scot_headed`: what the heads do by themselves."""


METHODS = (HEADED, REFUSAL_HEADED)
