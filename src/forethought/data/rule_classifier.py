"""Which rule does a harmful text break? A linear classifier with calibrated probabilities.

Trained on the policy's examples and, where the rules are the default policy's, on the
shipped rule examples and the training families of the shipped set. Two kinds: `text`
(TF-IDF, complement naive Bayes: Rennie et al. 2003) and `embedded` (the same and a ridge
regression on hidden states of the embedded model, added up). Scores become probabilities
by a weight for each model, set on texts whose family the models had not seen (temperature
scaling: Guo et al. 2017).

TF-IDF needs nothing and reads thousands of texts a second. The mean hidden state of a middle
layer knows words that no training text holds; it needs the embedded model's package and reads
some thirty short texts a second on a core.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import RidgeClassifier
from sklearn.naive_bayes import ComplementNB
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler

from forethought.data.shipped import shipped_requests
from forethought.errors import ConfigError
from forethought.models.weights import cache_folder, embedded_model
from forethought.policy import Policy, default_policy
from forethought.records import Record, Request

Kind = Literal["text", "embedded"]
_CHUNK = 4_096
_FOLDS = 5
_DEFAULT_WEIGHTS: dict[int, tuple[float, ...]] = {1: (2.3,), 2: (0.9, 5.0)}
"""For policies with too few examples to set them: about what the default policy's examples give, by models."""
_MAX_LABELLED: dict[Kind, int] = {"text": 5_000, "embedded": 1_000}
"""Labelled requests that are used, evenly spread: reading them is what costs."""
_MIN_TEXTS, _MIN_PER_RULE = 100, 5
LAYER = 8
"""Layers of the embedded model (of 30) that are run: chosen by cross-validation, and a quarter of the time."""
MAX_CHARACTERS = 2_000
"""A text is read up to here: the request stands in it, and memory stays flat."""
_MAX_TOKENS = 160
_BATCH = 32


class _Labelled(Record):
    """A training text."""

    text: str
    rule: str
    family: str


class RuleClassifier:
    """Texts to rule ids. Deterministic for a policy, its kind and its examples."""

    def __init__(self, policy: Policy, labelled: Sequence[Request] = (), kind: Kind = "text") -> None:
        """Trains on the policy's examples, the shipped texts, and `labelled` requests with known rules.

        `text` needs nothing; `embedded` needs the embedded model's package (ModelError
        without it) and is meant for thousands of texts, not millions. Raises ConfigError
        when fewer than two rules have an example.
        """
        self.rules = policy.rule_ids
        """The columns of `probabilities`, in the policy's order."""
        own = _own_rows(policy)
        rows = own + _labelled_rows(labelled, policy, _MAX_LABELLED[kind])
        if len({row.rule for row in rows}) < 2:
            raise ConfigError(policy.name, "has a single rule: nothing to tell apart", "Add rules or label the set")
        self._embed = EmbeddedFeatures() if kind == "embedded" else None
        inputs = self._training_inputs([row.text for row in rows], len(own))
        names = np.array([self.rules.index(row.rule) for row in rows])
        self._models = _fitted(inputs, names)
        self.weights = _weights(inputs, names, [row.family for row in rows])
        """What each model's scores are multiplied by before the softmax: an inverse temperature each."""

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """(texts, rules): how likely each rule is the one a text breaks; rows add up to 1.

        Read in chunks: memory beyond the result doesn't grow with the number of texts.
        """
        found = np.zeros((len(texts), len(self.rules)))
        for start in range(0, len(texts), _CHUNK):
            chunk = [text[:MAX_CHARACTERS] for text in texts[start : start + _CHUNK]]
            scores = _scores(self._models, self._inputs(chunk))
            found[start : start + _CHUNK] = softmax(_weighted(scores, self.weights), axis=1)
        return found

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The most likely rule id for each text."""
        return [self.rules[index] for index in self.probabilities(texts).argmax(axis=1)]

    def _inputs(self, texts: list[str]) -> list[Any]:
        """What each model takes: the texts, and for the second their hidden states."""
        return [np.array(texts, dtype=object), *([] if self._embed is None else [self._embed(texts)])]

    def _training_inputs(self, texts: list[str], n_own: int) -> list[Any]:
        """As `_inputs`. The first `n_own` are the policy's and ours: read once, then kept in the cache."""
        if self._embed is None:
            return self._inputs(texts)
        states = np.vstack([cached_features(self._embed, texts[:n_own]), self._embed(texts[n_own:])])
        return [np.array(texts, dtype=object), states]


def _own_rows(policy: Policy) -> list[_Labelled]:
    """The policy's texts and the shipped ones. A rule's own words are a text: every rule has one."""
    rows = []
    for rule in policy.rules:
        for text in (f"{rule.title}. {rule.description}", *rule.examples):
            rows.append(_Labelled(text=text, rule=rule.id, family=text))
    if same_rules(policy):
        shipped = [*shipped_requests("harmful", "train"), *shipped_requests("rules")]
        rows += _labelled_rows(shipped, policy, len(shipped))
    return rows


def _labelled_rows(labelled: Sequence[Request], policy: Policy, most: int) -> list[_Labelled]:
    """Requests with a known rule, evenly spread where there are more than `most`."""
    known = [request for request in labelled if request.rules and request.rules[0] in policy.rule_ids]
    rows = []
    for request in known[:: max(1, -(-len(known) // max(1, most)))]:
        text = request.plain[:MAX_CHARACTERS]
        rows.append(_Labelled(text=text, rule=request.rules[0], family=request.family or text))
    return rows


def same_rules(policy: Policy) -> bool:
    """Whether rule ids mean what the shipped texts mean by them."""
    shipped = {rule.id: rule.title for rule in default_policy().rules}
    return all(shipped.get(rule.id) == rule.title for rule in policy.rules)


def _new_models(n_inputs: int) -> list[Any]:
    """Settings chosen by cross-validation over the shipped training families; see docs/rules.md."""
    models = [
        make_pipeline(text_features(), ComplementNB(alpha=0.3)),
        make_pipeline(StandardScaler(), RidgeClassifier(alpha=300.0, class_weight="balanced")),
    ]
    return models[:n_inputs]


def _fitted(inputs: list[Any], names: NDArray[np.int64]) -> list[Any]:
    return [model.fit(one, names) for model, one in zip(_new_models(len(inputs)), inputs, strict=True)]


def _scores(models: list[Any], inputs: list[Any]) -> list[NDArray[np.float64]]:
    """(texts, rules) for each fitted model. Every rule has a training text, so that columns are rules."""
    scores: list[NDArray[np.float64]] = [models[0].predict_log_proba(inputs[0])]
    for model, one in zip(models[1:], inputs[1:], strict=True):
        found = model.decision_function(one)
        scores.append(np.stack([-found, found], axis=1) if found.ndim == 1 else found)  # two rules share one score
    return scores


def _weighted(scores: list[NDArray[np.float64]], weights: Sequence[float]) -> NDArray[np.float64]:
    found = np.zeros_like(scores[0])
    for weight, one in zip(weights, scores, strict=True):
        found += weight * one
    return found


def _weights(inputs: list[Any], names: NDArray[np.int64], families: list[str]) -> tuple[float, ...]:
    """The weights at which held-out families are least surprising."""
    start = _DEFAULT_WEIGHTS[len(inputs)]
    if len(names) < _MIN_TEXTS or min(Counter(names.tolist()).values()) < _MIN_PER_RULE:
        return start
    folds = np.array([int(hashlib.sha256(family.encode()).hexdigest()[:8], 16) % _FOLDS for family in families])
    by_fold, truth = [], []
    for fold in range(_FOLDS):
        kept, left_out = folds != fold, folds == fold
        if len(set(names[kept])) == len(set(names)) and left_out.any():
            models = _fitted([one[kept] for one in inputs], names[kept])
            by_fold.append(_scores(models, [one[left_out] for one in inputs]))
            truth.append(names[left_out])
    if not by_fold:
        return start
    held_out, right = [np.concatenate(parts) for parts in zip(*by_fold, strict=True)], np.concatenate(truth)

    def surprise(log_weights: NDArray[np.float64]) -> float:
        logs = log_softmax(_weighted(held_out, np.exp(log_weights).tolist()), axis=1)
        return -float(logs[np.arange(len(right)), right].mean())

    found = minimize(surprise, np.log(start), method="Nelder-Mead").x
    return tuple(float(weight) for weight in np.exp(found))


def text_features() -> Any:
    """TF-IDF of words, word pairs and pieces of three to five characters, not yet fitted."""
    return make_union(
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)),
        TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(3, 5), max_features=40_000),
    )


class EmbeddedFeatures:
    """Texts to mean hidden states after `LAYER` layers of the embedded model, in float32."""

    def __init__(self) -> None:
        """Keeps the first layers alone. Raises ModelError when the model's package is not installed."""
        import torch
        from transformers import AutoModel, AutoTokenizer

        folder = embedded_model()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        self._model.layers = self._model.layers[:LAYER]
        self._model.config.num_hidden_layers = LAYER
        self._model.norm = torch.nn.Identity()  # made for the last layer's states, not for the eighth's

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(texts, hidden size). Batches hold texts of one length, so that little is padding."""
        ids = [self._ids(text) for text in texts]
        order = sorted(range(len(ids)), key=lambda index: (len(ids[index]), index))
        found = np.zeros((len(ids), int(self._model.config.hidden_size)), dtype=np.float32)
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            found[batch] = self._means([ids[index] for index in batch])
        return found

    def _ids(self, text: str) -> list[int]:
        """Tokens of a text; an empty text is its end alone."""
        ids: list[int] = self._tokenizer(text[:MAX_CHARACTERS], add_special_tokens=False)["input_ids"][:_MAX_TOKENS]
        return ids or [int(self._tokenizer.eos_token_id)]

    def _means(self, batch: list[list[int]]) -> NDArray[np.float32]:
        import torch

        longest = max(len(row) for row in batch)
        tokens = torch.zeros(len(batch), longest, dtype=torch.long)  # B T
        mask = torch.zeros(len(batch), longest)
        for place, row in enumerate(batch):
            tokens[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
        with torch.inference_mode():
            hidden = self._model(input_ids=tokens, attention_mask=mask.long(), use_cache=False).last_hidden_state
        means: NDArray[np.float32] = ((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).numpy()
        return means


def cached_features(features: EmbeddedFeatures, texts: Sequence[str]) -> NDArray[np.float32]:
    """Features of training texts, from the cache folder where these very texts were read before."""
    key = hashlib.sha256("\x1e".join([f"1 {LAYER} {_MAX_TOKENS} {_BATCH}", *texts]).encode()).hexdigest()[:16]
    file = cache_folder() / "rule-features" / f"{key}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):  # there is none, or what stands there is damaged
        kept: NDArray[np.float32] = np.load(file, allow_pickle=False)
        if kept.ndim == 2 and len(kept) == len(texts):
            return kept
    found = features(texts)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{key}.part-{os.getpid()}.npy")
    np.save(part, found)
    os.replace(part, file)
    return found
