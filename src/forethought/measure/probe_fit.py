"""Fits a probe (`probe.py`): which layers, how strong a penalty, the threshold, and what tells rules apart.

Fitting one takes minutes on two cores for a small model, and no gradient of the model. Harm is the plainest in the
middle of the stack; what kind of harm it is, somewhat above.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from forethought.errors import InputError
from forethought.measure.calibrate import kind_of, threshold_on
from forethought.measure.probe import MOST_LOOKALIKES, Array, Probe, ProbeSettings, side_by_side
from forethought.metrics import auroc
from forethought.policy import Policy, default_policy
from forethought.records import Record, Request

if TYPE_CHECKING:
    from forethought.cluster.holders import Holders
    from forethought.models.hidden_states import States
    from forethought.models.local import LocalModel

Labels = NDArray[np.bool_]
HEAD_DEPTHS = (0.5, 0.6, 0.7, 0.8)
"""Where in the stack of layers rule heads are looked for."""
_PROBE_DEPTHS = (0.6, 0.7, 0.8)
"""Where a probe that decides reads."""
STRENGTHS = (0.001, 0.01, 0.1)
"""Values tried for the inverse regularisation (scikit-learn's C), on standardised states."""
RULE_STRENGTHS = (0.0003, 0.001, 0.003)
"""The same, of what tells rules apart; the middle one first."""
FEWEST_OF_A_RULE = 3
"""Requests of a rule below which it gets no output."""
_CHUNK = 1024
"""Requests whose prompts are read at a time, for progress."""


class FitSettings(Record):
    """How to fit."""

    layers: tuple[int, ...] = ()
    """Layers to read, 1 being the first; empty: three at 60 to 80 % of the depth."""
    trained: bool = False
    """Whether to read the weights that were trained to think, and not the base's."""
    strengths: tuple[float, ...] = STRENGTHS
    """Inverse regularisations to choose from."""
    max_false_refusal: float = 0.02
    """Share of harmless development requests that the threshold may refuse."""
    max_false_refusal_lookalike: float = MOST_LOOKALIKES
    """The same for look-alikes."""


@dataclass(frozen=True)
class _Rows:
    """Requests with known labels and, by layer, their states (rows, hidden size)."""

    requests: list[Request]
    harmful: Labels
    states: dict[int, States]

    @property
    def rules(self) -> list[tuple[str, ...]]:
        """The rules that each breaks; none of harmless ones."""
        return [one.rules if one.harmful else () for one in self.requests]


def fit_probe(
    model: LocalModel,
    train: Sequence[Request],
    dev: Sequence[Request],
    policy: Policy | None = None,
    settings: FitSettings | None = None,
    on_progress: Callable[[int], None] | None = None,
    holders: Holders | None = None,
) -> Probe:
    """A probe fitted on `train`; `dev`, of other families, chooses the strength and sets the threshold.

    Requests without a label are left out. Rules are learnt from harmful requests with known rules, against each other.
    `on_progress(n)` reports requests read. `holders` are workers of a cluster that hold the same model and read its
    states. Deterministic. Raises InputError where harmful or harmless requests are missing on either side.
    """
    from forethought.models.hidden_states import layer_count

    policy, settings = policy or default_policy(), settings or FitSettings()
    n_layers = layer_count(model)
    layers = settings.layers or layers_at(n_layers, depths=_PROBE_DEPTHS)
    if wrong := [layer for layer in layers if not 1 <= layer <= n_layers]:
        raise InputError(f"layer {wrong[0]}", f"the model has {n_layers}", f"Use 1 to {n_layers}")
    fitted_on, skipped_train = _read(model, train, layers, settings.trained, "training", on_progress, holders)
    held_out, skipped_dev = _read(model, dev, layers, settings.trained, "development", on_progress, holders)
    fit, chooses = side_by_side(fitted_on.states, layers), side_by_side(held_out.states, layers)
    area, _, strength = choose_layer(
        {layers[0]: fit}, fitted_on.harmful, {layers[0]: chooses}, held_out.harmful, settings.strengths
    )
    harm, bias = fit_head(fit, fitted_on.harmful, strength)
    ruled = fit_rules(fitted_on.states, fitted_on.rules, held_out.states, held_out.rules, policy.rule_ids)
    weights = np.concatenate([harm.astype(np.float32).reshape(len(layers), -1), ruled.weights])
    biases = np.concatenate([np.array([bias], dtype=np.float32), ruled.biases])
    scores = (chooses @ harm.astype(np.float32) + biases[0]).tolist()
    calibration = threshold_on(
        held_out.requests, scores, settings.max_false_refusal, settings.max_false_refusal_lookalike
    )
    described = ProbeSettings(
        model=model.name,
        trained=settings.trained,
        layer=layers[0],
        besides=layers[1:],
        policy=policy,
        rules=ruled.rules,
        rule_layer=ruled.layer,
        right_dev=ruled.right_dev,
        threshold=calibration.threshold,
        calibration=calibration,
        auroc_dev=area,
        strength=strength,
        rows=dict(sorted(Counter(kind_of(request) for request in fitted_on.requests).items())),
        skipped=skipped_train + skipped_dev,
    )
    return Probe.fitted(described, weights, biases, model)


def _read(
    model: LocalModel,
    requests: Sequence[Request],
    layers: Sequence[int],
    trained: bool,
    noun: str,
    on_progress: Callable[[int], None] | None,
    holders: Holders | None,
) -> tuple[_Rows, int]:
    """Labelled requests with their states, and how many could not be read."""
    from forethought.models.hidden_states import last_states, prompt_ids
    from forethought.models.spread import states_in_order

    labelled = [request for request in requests if request.harmful is not None]
    prompts = [prompt_ids(model, request.messages) for request in labelled]
    kept = [request for request, ids in zip(labelled, prompts, strict=True) if ids is not None]
    harmful = np.array([bool(request.harmful) for request in kept], dtype=bool)
    if not harmful.any() or harmful.all():
        raise InputError(
            f"{len(kept)} {noun} requests", "hold no harmful or no harmless one", "Give both, with their labels"
        )
    readable = [ids for ids in prompts if ids is not None]
    parts: dict[int, list[States]] = {layer: [] for layer in layers}
    chunks = [readable[start : start + _CHUNK] for start in range(0, len(readable), _CHUNK)]
    here = (last_states(model, chunk, layers, trained) for chunk in chunks)
    read = here if holders is None else states_in_order(holders, chunks, layers, trained)
    for chunk, found in zip(chunks, read, strict=True):
        for layer, states in found.items():
            parts[layer].append(states)
        if on_progress is not None:
            on_progress(len(chunk))
    whole = {layer: np.concatenate(states) for layer, states in parts.items()}
    return _Rows(kept, harmful, whole), len(labelled) - len(kept)


@dataclass(frozen=True)
class RuleFit:
    """Fitted weights (rules, hidden size) and biases (rules); without rules there are none, and the layer is 0."""

    rules: tuple[str, ...]
    layer: int
    strength: float
    weights: Array
    biases: Array
    right_dev: float | None
    """Share of the development requests whose rule is found: optimistic, since they chose layer and strength."""


def fit_rules(
    fit: Mapping[int, States],
    fit_rules_of: Sequence[Sequence[str]],
    dev: Mapping[int, States],
    dev_rules_of: Sequence[Sequence[str]],
    rule_ids: Sequence[str],
    strengths: Sequence[float] = RULE_STRENGTHS,
) -> RuleFit:
    """The best of the layers, then of the strengths; without rules where none has requests enough.

    Both mappings are layer to states (requests, hidden size); a request without rules, harmless ones among them, has
    no part. One with several rules is one request of each, in parts. A tie goes to the lower.
    """
    counts = Counter(rule for rules in fit_rules_of for rule in set(rules))
    kept = tuple(rule for rule in rule_ids if counts[rule] >= FEWEST_OF_A_RULE)
    if not kept:
        width = next(iter(fit.values())).shape[1]
        return RuleFit((), 0, 0.0, np.zeros((0, width), np.float32), np.zeros(0, np.float32), None)
    taught = [
        (row, kept.index(rule), 1 / len(known))
        for row, rules in enumerate(fit_rules_of)
        for known in [[rule for rule in dict.fromkeys(rules) if rule in kept]]
        for rule in known
    ]
    rows, classes, weight = (np.array(column) for column in zip(*taught, strict=True))

    def fitted(layer: int, strength: float) -> RuleFit:
        weights, biases = fit_classes(fit[layer][rows], classes, strength, weight)
        right = _right(dev[layer] @ weights.T + biases, dev_rules_of, kept)
        return RuleFit(kept, layer, strength, weights, biases, right)

    def rank(one: RuleFit) -> tuple[float, int, float]:
        return round(one.right_dev or 0.0, 6), -one.layer, -one.strength

    middle = sorted(strengths)[len(strengths) // 2]
    best = max((fitted(layer, middle) for layer in fit), key=rank)
    return max([best, *(fitted(best.layer, strength) for strength in strengths if strength != middle)], key=rank)


def _right(scores: Array, rules_of: Sequence[Sequence[str]], kept: Sequence[str]) -> float:
    """Share of the requests with rules whose highest score is of one of theirs; 0 without any."""
    found = [kept[int(place)] in rules for place, rules in zip(scores.argmax(1), rules_of, strict=True) if rules]
    return float(np.mean(found)) if found else 0.0


def fit_head(states: States, target: Labels, strength: float) -> tuple[NDArray[np.float64], float]:
    """(weights, bias) of a logistic head on the states as they are: the standardisation is folded in."""
    mean, scale, model = *_spread(states), _logistic(strength, class_weight="balanced", max_iter=2000)
    model.fit((states - mean) / scale, target)
    weights = model.coef_[0] / scale
    return weights, float(model.intercept_[0] - weights @ mean)


def _logistic(strength: float, **how: Any) -> Any:
    from sklearn.linear_model import LogisticRegression  # takes a second

    return LogisticRegression(C=strength, **how)


def _spread(states: States) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(mean, standard deviation) of each number of the states; what does not vary is divided by nothing."""
    scale = states.std(axis=0, dtype=np.float64)
    scale[scale < 1e-6] = 1.0
    return states.mean(axis=0, dtype=np.float64), scale


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
    mean, scale, model = *_spread(states), _logistic(strength, max_iter=500)
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


def layers_at(n_layers: int, above: int = 0, depths: Sequence[float] = HEAD_DEPTHS) -> tuple[int, ...]:
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


def fit_each(states: States, targets: NDArray[np.float32], strength: float) -> tuple[Array, Array]:
    """Weights (heads, hidden size) and biases (heads), one head a column of the targets; nan rows are left out."""
    heads = []
    for column in targets.T:
        known = ~np.isnan(column)
        heads.append(fit_head(states[known], column[known] > 0.5, strength))
    weights = np.stack([head[0] for head in heads]).astype(np.float32)
    return weights, np.array([head[1] for head in heads], dtype=np.float32)
