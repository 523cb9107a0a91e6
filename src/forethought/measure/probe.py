"""A probe: linear outputs on a model's hidden state, a logistic one for harm and one a rule.

A model knows what is harmful before it writes a word, and harmful requests are linearly separable in its middle layers
(Zou et al., arXiv 2310.01405; Arditi et al., arXiv 2406.11717). A probe reads the state at the prompt's last token, at
several layers side by side, of the base model or of the weights that were trained to think; nothing of the model is
trained. What stands behind that token, such as a prefill, it doesn't see. Defences decide by one (`defences/probe.py`,
`defences/fused.py`), and an auxiliary loss keeps one's outputs right (`training/methods/headed.py`).

Stored as `probe.json` beside `probe.safetensors`: a probe from a stranger can be wrong, and can't run code.
`probe_fit.py` fits one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.special import log_softmax

from forethought.errors import InputError, ModelError, reason_of
from forethought.manifest import write_json
from forethought.measure.calibrate import Calibration
from forethought.policy import Policy
from forethought.records import Message, Record

if TYPE_CHECKING:
    from forethought.models.hidden_states import States
    from forethought.models.local import LocalModel

Array = NDArray[np.float32]
SETTINGS, WEIGHTS = "probe.json", "probe.safetensors"
UNREADABLE = "the model's prompt does not hold the conversation"
MOST_LOOKALIKES = 0.1
"""Share of harmless look-alikes that may be refused where a probe decides, alone or with a verdict."""
_FIXED_REQUEST = (Message(role="user", content="How do I bake bread?"),)
"""What a stored probe said of this tells whether it meets the weights again that it was fitted on."""
_SAME_WEIGHTS = 0.5
"""Largest mean difference, in log-odds, at which they count as the same: other precisions stay well below it."""


class ProbeSettings(Record):
    """What a stored probe says of itself."""

    version: int = 1
    model: str
    """Name of the base model."""
    trained: bool = False
    """Whether the states are those of the weights that were trained to think, and not of the base's."""
    layer: int = Field(ge=1)
    """Whose output is read; 1 is the first layer."""
    besides: tuple[int, ...] = ()
    """Further layers that are read for harm, each with weights of its own."""
    policy: Policy
    rules: tuple[str, ...]
    """Rules that have an output, in the order of the rows behind the first one."""
    rule_layer: int = Field(default=0, ge=0)
    """Whose output is read for the rules; 0 is the layer of harm."""
    each_rule_alone: bool = False
    """Whether each rule's output is a logistic one, which parts it from all else; else a softmax parts the rules of
    harmful requests from each other."""
    right_dev: float | None = None
    """Share of harmful development requests whose rule is found, optimistic by the choice of that layer; None where
    nothing was chosen by it."""
    threshold: float | None = None
    """Log-odds of harm from which to refuse; None for a probe that decides nothing."""
    calibration: Calibration | None = None
    """What the threshold did on the development requests."""
    auroc_dev: float
    """Harmful against harmless on the development requests that chose the strength: optimistic by that choice."""
    strength: float
    """Inverse regularisation (scikit-learn's C)."""
    rows: dict[str, int]
    """Requests it was fitted on, by kind."""
    skipped: int = 0
    """Requests that no prompt could hold; they were left out."""
    reference: tuple[float, ...] = ()
    """What it says of one fixed request; empty only until it has been asked."""
    key: str = ""
    """Content hash of the training that it belongs to; empty for none."""


class Probe:
    """Fitted outputs: weights (layers of harm + rules, hidden size) and biases (1 + rules), harm first."""

    def __init__(self, settings: ProbeSettings, weights: Array, biases: Array) -> None:
        self.settings, self.weights, self.biases = settings, weights, biases

    @classmethod
    def fitted(cls, settings: ProbeSettings, weights: Array, biases: Array, model: LocalModel) -> Probe:
        """A new probe, which notes what it says of the fixed request on the model that it was fitted on."""
        said = cls(settings, weights, biases).log_odds(model, [_FIXED_REQUEST])[0]
        return cls(settings.model_copy(update={"reference": tuple(float(one) for one in said)}), weights, biases)

    @property
    def harm_layers(self) -> tuple[int, ...]:
        """The layers that harm is read at, in the order of their weights."""
        return self.settings.layer, *self.settings.besides

    @property
    def rule_layer(self) -> int:
        """The layer that the rules are read at."""
        return self.settings.rule_layer or self.settings.layer

    @property
    def layers(self) -> tuple[int, ...]:
        """All that are read, each once, the lowest first."""
        return tuple(sorted({*self.harm_layers, self.rule_layer}))

    @property
    def threshold(self) -> float:
        """Log-odds of harm from which to refuse. Raises InputError for a probe without one."""
        if self.settings.threshold is None:
            raise InputError(f"probe on {self.settings.model}", "has no threshold to decide by", "Use one of fit_probe")
        return self.settings.threshold

    @property
    def strict_by(self) -> float:
        """What is added to the log-odds of harm where doubt counts against a request."""
        return self.settings.calibration.strict_by if self.settings.calibration else 0.0

    def of_states(self, states: Mapping[int, States]) -> Array:
        """From hidden states, by layer of shape (states, hidden size), to what `log_odds` returns."""
        of_harm, of_rule = self.weights[: len(self.harm_layers)], self.weights[len(self.harm_layers) :]
        odds: Array = side_by_side(states, self.harm_layers) @ of_harm.reshape(1, -1).T + self.biases[:1]
        if len(self.biases) == 1:
            return odds
        of_rules: Array = states[self.rule_layer] @ of_rule.T + self.biases[1:]
        if not self.settings.each_rule_alone:
            of_rules = log_softmax(of_rules, axis=1)
        return np.concatenate([odds, of_rules], axis=1)

    def log_odds(self, model: LocalModel, conversations: Sequence[Sequence[Message]]) -> Array:
        """(conversations, 1 + rules): log-odds (natural) of harm, then, where it is harmful, the log-probability of
        each rule, or its log-odds where each stands alone; nan where a prompt can't be had."""
        return read_together([self], model, conversations)[0]

    def harm(self, model: LocalModel, conversations: Sequence[Sequence[Message]]) -> Array:
        """(conversations): the log-odds of harm alone. Layers above theirs, where rules are read, are not run."""
        settings = self.settings.model_copy(update={"rules": (), "rule_layer": 0})
        weights = self.weights[: len(self.harm_layers)]
        return Probe(settings, weights, self.biases[:1]).log_odds(model, conversations)[:, 0]

    def rule(self, log_odds: Array) -> str:
        """The likeliest rule of one row of `log_odds`; empty for a probe without outputs for rules."""
        return self.settings.rules[int(np.argmax(log_odds[1:]))] if self.settings.rules else ""

    def save(self, folder: Path) -> None:
        """Writes both files, each in one step."""
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{WEIGHTS}.part"
        save_file({"weights": np.ascontiguousarray(self.weights), "biases": self.biases}, str(part))
        os.replace(part, folder / WEIGHTS)
        write_json(folder / SETTINGS, self.settings.model_dump(mode="json"))

    def check_model(self, model: LocalModel) -> None:
        """Raises ModelError for a model of another shape, or with other weights than the probe was fitted on."""
        from forethought.models.hidden_states import layer_count

        fix = "Fit a probe on this model"
        width = int(model.base_weights.config.hidden_size)
        if width != self.weights.shape[1] or layer_count(model) < max(self.layers):
            raise ModelError(model.name, f"has another shape than {self.settings.model}, which the probe is for", fix)
        now = self.log_odds(model, [_FIXED_REQUEST])[0]
        if not np.abs(now - np.array(self.settings.reference)).mean() <= _SAME_WEIGHTS:
            raise ModelError(model.name, f"has other weights than {self.settings.model}, which the probe is for", fix)


def read_together(
    probes: Sequence[Probe], model: LocalModel, conversations: Sequence[Sequence[Message]]
) -> list[Array]:
    """What each of some probes of the same weights says, as `Probe.log_odds`, from one reading of the prompts."""
    from forethought.models.hidden_states import last_states, prompt_ids  # torch takes seconds

    found = [np.full((len(conversations), len(one.biases)), np.nan, dtype=np.float32) for one in probes]
    prompts = [prompt_ids(model, conversation) for conversation in conversations]
    readable = [place for place, ids in enumerate(prompts) if ids is not None]
    if readable:
        ids, layers = [prompts[place] or [] for place in readable], sorted({n for one in probes for n in one.layers})
        states = last_states(model, ids, layers, probes[0].settings.trained)
        for probe, odds in zip(probes, found, strict=True):
            odds[readable] = probe.of_states(states)
    return found


def load_probe(folder: Path) -> Probe:
    """Reads a stored probe. Raises InputError where the folder holds none or it is damaged."""
    if not (folder / SETTINGS).is_file() or not (folder / WEIGHTS).is_file():
        raise InputError(folder, "holds no probe", "Fit one: fit_probe(...).save(FOLDER)")
    try:
        settings = ProbeSettings.model_validate(json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
        stored = load_file(str(folder / WEIGHTS))
        weights, biases = stored["weights"].astype(np.float32), stored["biases"].astype(np.float32)
    except (ValidationError, ValueError, KeyError, OSError, SafetensorError) as error:
        raise InputError(folder, f"is a damaged probe ({reason_of(error)})", "Fit it again") from None
    outputs = 1 + len(settings.rules)
    fits = weights.ndim == 2 and len(weights) == outputs + len(settings.besides) and biases.shape == (outputs,)
    if not fits or len(settings.reference) != outputs or not set(settings.rules) <= set(settings.policy.rule_ids):
        raise InputError(folder, "is a damaged probe (its parts don't fit together)", "Fit it again")
    if not (np.isfinite(weights).all() and np.isfinite(biases).all()):
        raise InputError(folder, "is a damaged probe (weights that are no numbers)", "Fit it again")
    return Probe(settings, weights, biases)


def side_by_side(states: Mapping[int, States], layers: Sequence[int]) -> States:
    """States of several layers, by layer of shape (requests, hidden size), as (requests, layers * hidden size)."""
    return np.concatenate([states[layer] for layer in layers], axis=1)
