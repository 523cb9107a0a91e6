"""Logistic heads on hidden states: fitting one, choosing the layer it reads, and several of them stored together.

The yardstick for what a model knows before it writes a word (Zou et al., arXiv 2310.01405), and what an auxiliary loss
keeps decodable (`train/objectives/rule_heads.py`). Stored as `heads.json` beside `heads.safetensors`: heads from a
stranger can be wrong, and can't run code.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression

from forethought.engine.hidden_states import States
from forethought.errors import InputError
from forethought.evals.metrics import auroc
from forethought.manifest import write_json
from forethought.records import Record

Array = NDArray[np.float32]
Labels = NDArray[np.bool_]
SETTINGS, WEIGHTS = "heads.json", "heads.safetensors"
DEPTHS = (0.5, 0.6, 0.7, 0.8)
"""Where in the stack of layers a head is looked for: harm is the plainest in the middle and above."""
STRENGTHS = (0.001, 0.01, 0.1)
"""Values tried for the inverse regularisation (scikit-learn's C), on standardised states."""
FEWEST_OF_A_RULE = 3
"""Requests of a rule below which it gets no head."""


class HeadSettings(Record):
    """What stored heads say of themselves."""

    version: int = 1
    model: str
    """Name of the base model whose states they were fitted on."""
    layer: int = Field(ge=1)
    """Whose output they read; 1 is the first layer."""
    rules: tuple[str, ...]
    """Rules that have a head, in the order of the rows behind the first one, which is for harm."""
    strength: float
    """Inverse regularisation, chosen with the layer."""
    auroc_dev: float
    """Of the harm head on the requests that chose layer and strength: optimistic by that choice."""
    rows: dict[str, int]
    """Requests that they were fitted on, by label."""
    key: str = ""
    """Content hash of the training that they belong to; empty for none."""


class Heads:
    """Fitted heads: weights (1 + rules, hidden size) and biases (1 + rules), the first row for harm."""

    def __init__(self, settings: HeadSettings, weights: Array, biases: Array) -> None:
        self.settings, self.weights, self.biases = settings, weights, biases

    def of_states(self, states: States) -> Array:
        """Log-odds (natural) from hidden states: (states, hidden size) to (states, 1 + rules)."""
        return states @ self.weights.T + self.biases

    def save(self, folder: Path) -> None:
        """Writes both files, each in one step."""
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{WEIGHTS}.part"
        save_file({"weights": np.ascontiguousarray(self.weights), "biases": self.biases}, str(part))
        os.replace(part, folder / WEIGHTS)
        write_json(folder / SETTINGS, self.settings.model_dump(mode="json"))


def load_heads(folder: Path) -> Heads:
    """Reads stored heads. Raises InputError where the folder holds none or they are damaged."""
    if not (folder / SETTINGS).is_file() or not (folder / WEIGHTS).is_file():
        raise InputError(folder, "holds no heads", "Train with --method scot_headed")
    try:
        settings = HeadSettings.model_validate(json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
        stored = load_file(str(folder / WEIGHTS))
        weights, biases = stored["weights"].astype(np.float32), stored["biases"].astype(np.float32)
    except (ValidationError, ValueError, KeyError, OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(folder, f"holds damaged heads ({reason})", "Train again") from None
    n_heads = 1 + len(settings.rules)
    if weights.ndim != 2 or weights.shape[0] != n_heads or biases.shape != (n_heads,):
        raise InputError(folder, "holds damaged heads (their parts don't fit together)", "Train again")
    if not (np.isfinite(weights).all() and np.isfinite(biases).all()):
        raise InputError(folder, "holds damaged heads (weights that are no numbers)", "Train again")
    return Heads(settings, weights, biases)


def fit_head(states: States, target: Labels, strength: float) -> tuple[NDArray[np.float64], float]:
    """(weights, bias) of a logistic head on the states as they are: the standardisation is folded in."""
    mean = states.mean(axis=0, dtype=np.float64)
    scale = states.std(axis=0, dtype=np.float64)
    scale[scale < 1e-6] = 1.0
    model: Any = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)
    model.fit((states - mean) / scale, target)
    weights = model.coef_[0] / scale
    return weights, float(model.intercept_[0] - weights @ mean)


def fit_classes(
    states: States, classes: NDArray[np.intp], strength: float, weight: NDArray[np.float64] | None = None
) -> tuple[Array, Array]:
    """(weights (classes, hidden size), biases (classes)) of one softmax over the classes 0 to n - 1, of states as they
    are. `weight` is that of each row; all classes have to be there.

    Classes are told apart from each other alone, unlike by heads that each part one class from all else.
    """
    n_classes = int(classes.max()) + 1
    if n_classes == 1:
        return np.zeros((1, states.shape[1]), dtype=np.float32), np.zeros(1, dtype=np.float32)
    mean = states.mean(axis=0, dtype=np.float64)
    scale = states.std(axis=0, dtype=np.float64)
    scale[scale < 1e-6] = 1.0
    model: Any = LogisticRegression(C=strength, max_iter=500)
    model.fit((states - mean) / scale, classes, sample_weight=weight)
    weights, biases = model.coef_ / scale, model.intercept_
    if n_classes == 2:  # scikit-learn keeps one row then, for the second class
        weights, biases = np.concatenate([0 * weights, weights]), np.concatenate([0 * biases, biases])
    return weights.astype(np.float32), (biases - weights @ mean).astype(np.float32)


def choose_layer(
    fit: Mapping[int, States],
    fit_harmful: Labels,
    dev: Mapping[int, States],
    dev_harmful: Labels,
    strengths: Sequence[float] = STRENGTHS,
) -> tuple[float, int, float]:
    """(AUROC, layer, strength) of the head that separates the `dev` states best; a tie goes to the lower ones.

    Both mappings are layer to states (requests, hidden size).
    """
    found = []
    for layer in fit:
        for strength in strengths:
            weights, bias = fit_head(fit[layer], fit_harmful, strength)
            scores = dev[layer] @ weights + bias
            found.append((auroc(list(scores[dev_harmful]), list(scores[~dev_harmful])), layer, strength))
    return max(found, key=lambda one: (round(one[0], 6), -one[1], -one[2]))


def layers_at(n_layers: int, above: int = 0, depths: Sequence[float] = DEPTHS) -> tuple[int, ...]:
    """Layers at these depths, each once; those that are not above `above` are moved right above it."""
    return tuple(sorted({min(n_layers, max(above + 1, round(n_layers * depth))) for depth in depths}))


def rule_targets(
    harmful: Labels, rules_of: Sequence[Sequence[str]], rule_ids: Sequence[str]
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """(rules with enough requests, targets of shape (requests, 1 + rules)): 1, 0, or nan where it is not known.

    A harmful request whose rules nobody named may break any: its rules are not known.
    """
    counts = Counter(rule for bad, rules in zip(harmful, rules_of, strict=True) if bad for rule in set(rules))
    kept = tuple(rule for rule in rule_ids if counts[rule] >= FEWEST_OF_A_RULE)
    targets = np.zeros((len(harmful), 1 + len(kept)), dtype=np.float32)
    targets[:, 0] = harmful
    for row, (bad, rules) in enumerate(zip(harmful, rules_of, strict=True)):
        if bad:
            targets[row, 1:] = [rule in rules for rule in kept] if rules else np.nan
    return kept, targets


def fit_all(states: States, targets: NDArray[np.float32], strength: float) -> tuple[Array, Array]:
    """Weights (heads, hidden size) and biases (heads), one head a column of the targets; nan rows are left out."""
    heads = []
    for column in targets.T:
        known = ~np.isnan(column)
        heads.append(fit_head(states[known], column[known] > 0.5, strength))
    weights = np.stack([head[0] for head in heads]).astype(np.float32)
    return weights, np.array([head[1] for head in heads], dtype=np.float32)
