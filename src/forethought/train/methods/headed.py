"""SCoT with rule heads: a middle layer is held to what the base model knows of a request before it writes a word.

Logistic heads, one for harm and one a rule, are fitted on the base model's states of *undisguised* requests. Training
then asks that they stay right on every row, disguised ones among them: the layer learns to know a disguised request as
it knows the plain one.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from forethought.chat import encode_prompt
from forethought.engine.hidden_states import last_states, layer_count
from forethought.engine.local import LocalModel
from forethought.errors import InputError
from forethought.evals.probe import Probe, ProbeSettings, load_probe
from forethought.evals.probe_fit import Labels, choose_layer, fit_each, layers_at, rule_targets
from forethought.manifest import key_of
from forethought.policy import Policy
from forethought.records import Example
from forethought.train.config import TrainConfig, is_first
from forethought.train.methods.base import Job, Material, TrainingMethod
from forethought.train.methods.supervised import original, paired, reasoned, unreasoned
from forethought.train.objectives.base import Objective
from forethought.train.objectives.rule_heads import RuleHeadsObjective, Targets
from forethought.train.run import train_rows

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
    prompts = _prompts(job.material)
    heads = _heads(job, prompts)
    settings = heads.settings
    job.say(
        f"rule heads: layer {settings.layer}, one for harm and {len(settings.rules)} for rules;"
        f" AUROC on held-out families {settings.auroc_dev:.2f}"
    )
    targets = _targets_of(prompts, settings.rules)
    digest = hashlib.sha256(heads.weights.tobytes() + heads.biases.tobytes() + _bytes_of(targets)).hexdigest()[:16]

    def objective(config: TrainConfig, n_layers: int) -> Objective:
        inner = job.method.objective(config, n_layers)
        return RuleHeadsObjective(inner, settings.layer, heads.weights, heads.biases, targets, digest, weight)

    plain = job.method.model_copy(update={"procedure": None, "objective": objective})
    return train_rows(dataclasses.replace(job, method=plain))


def _prompts(material: Material) -> dict[tuple[int, ...], Example]:
    """One example a prompt, by its token ids."""
    return {tuple(encode_prompt(material.tokenizer, one.request.messages)): one for one in material.examples}


def _heads(job: Job, prompts: Mapping[tuple[int, ...], Example]) -> Probe:
    """The heads stored beside the adapter where they are of this training, else fitted ones, which are stored."""
    folder = job.out / HEADS_FOLDER
    labels = [[one.term, list(_rules(one)), one.request.operator] for one in prompts.values()]
    key = key_of([job.base, [list(prompt) for prompt in prompts], labels, job.config.skip_layers, job.config.method])
    try:
        stored = load_probe(folder)
        if stored.settings.key == key:
            return stored
    except InputError:
        pass  # none there yet, or half of them: they are fitted again
    heads = fit_heads(LocalModel.load(job.base), prompts, job.material.policy, _lowest(job.config), key)
    if is_first():
        heads.save(folder)
    return heads


def _lowest(config: TrainConfig) -> int:
    """Layers from the bottom that training leaves as they are: no loss on their output could teach anything."""
    return config.skip_layers if config.method == "lora" else 0


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
    families = [one.request.family or one.request.twin or one.request.seed_id for one in examples]
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


def _bytes_of(targets: Mapping[tuple[int, ...], Targets]) -> bytes:
    return repr([(prompt, own.tolist()) for prompt, own in sorted(targets.items())]).encode()


HEADED = TrainingMethod(
    name="scot_headed",
    title="SCoT with rule heads on a middle layer",
    paper="Auxiliary heads after Lee et al. 2014, arXiv 1409.5185, on SCoT, Yang et al. 2025, arXiv 2501.19180",
    rows=reasoned,
    objective=paired,
    procedure=train_headed,
)
REFUSAL_HEADED = TrainingMethod(
    name="refusal_headed",
    title="Refusal training with variants and rule heads",
    paper="Auxiliary heads after Lee et al. 2014, arXiv 1409.5185, on SCoT's ablation without reasoning",
    rows=unreasoned,
    objective=paired,
    thinks=False,
    procedure=train_headed,
)
"""The control of `scot_headed`: what the heads do by themselves."""
