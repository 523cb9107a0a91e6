"""A linear probe: heads on a model's hidden state, a logistic one for harm and a softmax over the rules.

A model knows what is harmful before it writes a word, and harmful requests are linearly separable in its middle layers
(Zou et al., arXiv 2310.01405; Arditi et al., arXiv 2406.11717). The heads read the state at the prompt's last token,
of the base model or of the weights that were trained to think; nothing of the model is trained. What stands behind that
token, such as a prefill, they don't see.

Stored as `probe.json` beside `probe.safetensors`: a probe from a stranger can be wrong, and can't run code.
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

from forethought.defences.base import Checked, InputFilter, unscored
from forethought.defences.rule_refusal import rule_refusal
from forethought.engine.conversation import Conversation, Respondent
from forethought.engine.hidden_states import States, last_states, layer_count, prompt_ids
from forethought.errors import InputError, ModelError
from forethought.evals.calibrate import Calibration
from forethought.manifest import write_json
from forethought.policy import Policy
from forethought.records import Message, Record

if TYPE_CHECKING:
    from forethought.engine.local import LocalModel

Array = NDArray[np.float32]
SETTINGS, WEIGHTS = "probe.json", "probe.safetensors"
UNREADABLE = "the model's prompt does not hold the conversation"
PROBE_OF_THE_PROBE = (Message(role="user", content="How do I bake bread?"),)
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
    policy: Policy
    rules: tuple[str, ...]
    """Rules that have a head, in the order of the rows behind the first one."""
    rule_layer: int = Field(default=0, ge=0)
    """Whose output the rules' heads read; 0 is the layer of harm."""
    right_dev: float | None = None
    """Share of harmful development requests whose rule is found, optimistic by the choice of that layer."""
    threshold: float
    """Log-odds of harm from which to refuse."""
    calibration: Calibration
    auroc_dev: float
    """Harmful against harmless on the development requests that chose the layer: optimistic by that choice."""
    strength: float
    """Inverse regularisation (scikit-learn's C), chosen with the layer."""
    rows: dict[str, int]
    """Requests it was fitted on, by kind."""
    skipped: int = 0
    """Requests that no prompt could hold; they were left out."""
    reference: tuple[float, ...]
    """Its log-odds for one fixed request."""


class LinearProbe:
    """Fitted heads: weights (1 + rules, hidden size) and biases (1 + rules), the first row for harm."""

    def __init__(self, settings: ProbeSettings, weights: Array, biases: Array) -> None:
        self.settings, self.weights, self.biases = settings, weights, biases

    @property
    def layers(self) -> tuple[int, int]:
        """(layer that harm is read at, layer that the rules are read at)."""
        return self.settings.layer, self.settings.rule_layer or self.settings.layer

    def of_states(self, states: Mapping[int, States]) -> Array:
        """From hidden states, by layer of shape (states, hidden size), to what `log_odds` returns."""
        harm, rules = (states[layer] for layer in self.layers)
        odds = harm @ self.weights[:1].T + self.biases[:1]
        if len(self.biases) == 1:
            return odds
        of_rules: Array = log_softmax(rules @ self.weights[1:].T + self.biases[1:], axis=1)
        return np.concatenate([odds, of_rules], axis=1)

    def log_odds(self, model: LocalModel, conversations: Sequence[Sequence[Message]]) -> Array:
        """(conversations, 1 + rules): log-odds (natural) of harm, then, where it is harmful, the log-probability of
        each rule; nan where a prompt can't be had."""
        found = np.full((len(conversations), len(self.biases)), np.nan, dtype=np.float32)
        prompts = [prompt_ids(model, conversation) for conversation in conversations]
        readable = [place for place, ids in enumerate(prompts) if ids is not None]
        if readable:
            ids, layers = [prompts[place] or [] for place in readable], sorted(set(self.layers))
            states = last_states(model, ids, layers, self.settings.trained)
            found[readable] = self.of_states(states)
        return found

    def rule(self, log_odds: Array) -> str:
        """The likeliest rule of one row of `log_odds`; empty for a probe without rule heads."""
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
        fix = "Fit a probe on this model"
        width = int(model.base_weights.config.hidden_size)
        if width != self.weights.shape[1] or layer_count(model) < max(self.layers):
            raise ModelError(model.name, f"has another shape than {self.settings.model}, which the probe is for", fix)
        now = self.log_odds(model, [PROBE_OF_THE_PROBE])[0]
        if not np.abs(now - np.array(self.settings.reference)).mean() <= _SAME_WEIGHTS:
            raise ModelError(model.name, f"has other weights than {self.settings.model}, which the probe is for", fix)


def load_probe(folder: Path) -> LinearProbe:
    """Reads a stored probe. Raises InputError where the folder holds none or it is damaged."""
    if not (folder / SETTINGS).is_file() or not (folder / WEIGHTS).is_file():
        raise InputError(folder, "holds no linear probe", "Fit one: fit_probe(...).save(FOLDER)")
    try:
        settings = ProbeSettings.model_validate(json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
        stored = load_file(str(folder / WEIGHTS))
        weights, biases = stored["weights"], stored["biases"]
    except (ValidationError, ValueError, KeyError, OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(folder, f"is a damaged probe ({reason})", "Fit it again") from None
    heads = 1 + len(settings.rules)
    fits = weights.ndim == 2 and weights.shape[0] == heads and biases.shape == (heads,)
    if not fits or len(settings.reference) != heads or not set(settings.rules) <= set(settings.policy.rule_ids):
        raise InputError(folder, "is a damaged probe (its parts don't fit together)", "Fit it again")
    if not (np.isfinite(weights).all() and np.isfinite(biases).all()):
        raise InputError(folder, "is a damaged probe (weights that are no numbers)", "Fit it again")
    return LinearProbe(settings, weights.astype(np.float32), biases.astype(np.float32))


class ProbeDefence(InputFilter):
    """A model that is not shown what the probe finds harmful."""

    def __init__(
        self,
        inner: Respondent,
        probe: LinearProbe,
        reader: LocalModel,
        threshold: float | None = None,
        fail_closed: bool = True,
    ) -> None:
        """`reader` holds the weights that the probe was fitted on; `threshold` None is the probe's own.

        Raises ModelError for other weights.
        """
        super().__init__(inner, "trained_probe" if probe.settings.trained else "linear_probe")
        probe.check_model(reader)
        self.probe, self._reader, self._fail_closed = probe, reader, fail_closed
        self.threshold = probe.settings.threshold if threshold is None else threshold

    def check(self, conversations: Sequence[Conversation]) -> list[Checked]:
        """Log-odds of harm; a refusal names the likeliest rule."""
        rows = self.probe.log_odds(self._reader, [conversation.messages for conversation in conversations])
        return [
            self._checked(conversation, row) if np.isfinite(row).all() else unscored(UNREADABLE, self._fail_closed)
            for conversation, row in zip(conversations, rows, strict=True)
        ]

    def _checked(self, conversation: Conversation, row: Array) -> Checked:
        score = float(row[0])
        if score < self.threshold:
            return Checked(score=score, refuses=False)
        rule = self.probe.rule(row)
        answer = rule_refusal(self.probe.settings.policy, rule, conversation)
        return Checked(score=score, refuses=True, answer=answer, rules=(rule,) if rule else ())
