"""Which rules do harmful requests break? By their own labels, else by category name, else by a classifier.

Rules are assigned to requests known to be harmful; whether they are is not decided here.

The classifier is linear, with calibrated probabilities. It is trained on the policy's
examples and, where the rules are the default policy's, on the shipped rule examples and
the training families of the shipped set. Two kinds: `text` (TF-IDF, complement naive
Bayes: Rennie et al. 2003) and `embedded` (the same and a ridge regression on hidden
states of the embedded model, added up). Scores become probabilities by a weight for each
model, set on texts whose family the models had not seen (temperature scaling: Guo et al. 2017).

It reads the language of its texts. Requests in another get their rule by the words of that language's file
(`languages/*.yaml`), and none where those can't tell: never one at random.

TF-IDF needs nothing and reads thousands of texts a second. The mean hidden state of a middle
layer knows words that no training text holds; it needs the embedded model's package and reads
some thirty short texts a second on a core. What either is made of is loaded when it is trained:
most sets name their categories and need none.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forethought.data.shipped import shipped_requests
from forethought.errors import ConfigError
from forethought.language import ENGLISH, language, language_of, languages
from forethought.manifest import replacing
from forethought.policy import Policy, default_policy
from forethought.records import Request

Kind = Literal["text", "embedded"]
CHUNK = 5000
"""Requests of a stream that are held at once while their rules are found."""
EMBEDDED_FROM, EMBEDDED_LIMIT = 30, 4_000
"""From and up to so many requests the embedded model reads them. For fewer, loading it takes longer than
it is worth; for more, reading takes over a minute on two cores. Those go to TF-IDF."""
SECOND_SHARE = 0.8
"""A second rule is kept when it is at least so likely as this share of the first's probability."""
_Named = tuple[tuple[str, ...], tuple[frozenset[str], ...]]
"""Rules that a request's names stand for alone, and the choices that wide names leave; no choice: any rule."""


@dataclass
class Assignment:
    """Requests with their rules, and how they came by them."""

    requests: list[Request] = field(default_factory=list)
    """In their order, without the unsure ones; harmless ones unchanged."""
    unsure: list[Request] = field(default_factory=list)
    """Harmful requests whose most likely rule lies below the floor: left out, and without rules."""
    untold: list[Request] = field(default_factory=list)
    """Harmful requests in a language that the classifier can't read, whose words tell no rule: left out, likewise."""
    by_classifier: int = 0
    """How many the classifier decided, those it left unsure included."""
    narrowed: int = 0
    """How many of these had a wide category name, among whose rules it chose."""
    classifier: RuleClassifier | None = None
    """The classifier that decided, for a caller that goes on with more requests."""


def rules_by_name(request: Request, policy: Policy) -> _Named:
    """Rules that its category names stand for alone, and the choices that wide names leave.

    `Self-Harm` stands for one rule. `Illicit / Criminal Behavior` stands for several of
    which a request breaks one or another: which, the name doesn't say. A wide name of
    which a sure rule is part leaves no choice. Of a policy of one rule that one is broken.
    """
    if len(policy.rules) == 1:
        return policy.rule_ids, ()
    # With or without the code before the name: `S10: Hate`, `O9: Privacy Infringement`.
    bare = [re.sub(r"^\s*[A-Za-z]{0,2}\d+\s*[:.)-]\s*", "", label) for label in request.categories]
    pairs = zip(request.categories, bare, strict=True)
    named = [policy.rules_for_category(label) or policy.rules_for_category(name) for label, name in pairs]
    sure = tuple(dict.fromkeys(rules[0] for rules in named if len(rules) == 1))
    wide = [frozenset(rules) for rules in named if len(rules) > 1 and not set(rules) & set(sure)]
    return sure, tuple(dict.fromkeys(wide))


def best_kind(n_requests: int) -> Kind:
    """`embedded` where its package is installed and the number of requests makes it worth while, else `text`."""
    from forethought.models.weights import embedded_available  # with it comes PyTorch, which most sets don't need

    return "embedded" if EMBEDDED_FROM <= n_requests <= EMBEDDED_LIMIT and embedded_available() else "text"


def assign(
    requests: Sequence[Request],
    policy: Policy,
    classifier: RuleClassifier | None = None,
    min_rule_probability: float = 0.0,
    kind: Kind | None = None,
) -> Assignment:
    """Gives harmful requests without rules the rules they break.

    `classifier` None trains one when it is needed, on the requests that names settle as
    well; pass one to work through a stream in chunks. `kind` is what it is trained to
    see; None is the better one for so many requests. Requests whose most likely rule has
    a probability below `min_rule_probability` (0 to 1) are left out and counted. Raises
    ConfigError for a rule id that the policy does not have.
    """
    found = Assignment(classifier=classifier)
    ruled: list[Request | None] = []
    undecided: dict[int, _Named] = {}
    for place, request in enumerate(requests):
        if request.harmful and not request.rules:
            named = sure, choices = rules_by_name(request, policy)
            if sure and not choices:
                rules = sure
            elif reads(policy, language_of(request.plain)):
                undecided[place] = named
                rules = ()
            elif not (rules := by_words(request, named, policy)):
                found.untold.append(request)
                ruled.append(None)
                continue
            request = request.model_copy(update={"rules": rules})
        for rule in request.rules:
            policy.rule(rule)  # raises for an id that the policy does not have
        ruled.append(request)
    if undecided:
        if classifier is None:
            known = [request for request in ruled if request and request.harmful and len(request.rules) == 1]
            classifier = found.classifier = RuleClassifier(policy, known, kind or best_kind(len(undecided)))
        texts = [requests[place].plain for place in undecided]
        for (place, named), row in zip(undecided.items(), classifier.probabilities(texts), strict=True):
            ruled[place] = _decide(requests[place], named, row, classifier.rules, min_rule_probability, found)
    found.requests = [request for request in ruled if request is not None]
    return found


def reads(policy: Policy, code: str) -> bool:
    """Whether the classifier can read a language: English, or that of a policy of somebody's own."""
    return code == ENGLISH or 2 * sum(language_of(r.description) == code for r in policy.rules) > len(policy.rules)


def by_words(request: Request, named: _Named, policy: Policy) -> tuple[str, ...]:
    """Rules by words of the request's language, among those that its names leave open; none where they can't tell.

    Its category names are read first, as `Betrug` or `暴力`, then the request itself.
    """
    (sure, choices), code = named, language_of(request.plain)
    if code not in languages():
        return sure
    among = frozenset().union(*choices) if choices else frozenset(policy.rule_ids)
    texts = (*([] if sure or choices else request.categories), request.plain)
    told = (language(code).rules_of(text, policy, among) for text in texts)
    return tuple(dict.fromkeys((*sure, *next((rules for rules in told if rules), ()))))


def _decide(
    request: Request, named: _Named, row: NDArray[np.float64], ids: tuple[str, ...], floor: float, found: Assignment
) -> Request | None:
    """The request with its rules; None when it is unsure. Counts in `found`."""
    sure, choices = named
    found.by_classifier += 1
    found.narrowed += bool(choices)
    rules = list(sure)
    sure_enough = True
    for choice in choices or (frozenset(ids),):
        among = [index for index in np.argsort(-row, kind="stable") if ids[index] in choice]
        share = row[among] / max(row[among].sum(), 1e-12)
        sure_enough &= bool(share[0] >= floor)
        rules.append(ids[among[0]])
        if not choices and len(among) > 1 and share[1] >= SECOND_SHARE * share[0]:
            rules.append(ids[among[1]])
    if not sure_enough and not sure:
        found.unsure.append(request)
        return None
    return request.model_copy(update={"rules": tuple(dict.fromkeys(rules))})


def with_rules(requests: Iterable[Request], policy: Policy, on_classified: Callable[[int], None]) -> Iterator[Request]:
    """The requests with their rules, in memory that does not grow with their number; harmless ones unchanged.

    The classifier is fitted once, on the policy's examples and on the requests with a known rule of the chunk that
    first needs it; `on_classified(n)` is told how many it decided. One whose rule can't be told keeps none. A set of
    one chunk gets the same rules as from `assign`. Raises ConfigError for a rule that the policy lacks.
    """
    stream, classifier = iter(requests), None
    while chunk := list(itertools.islice(stream, CHUNK)):
        # The quick classifier: the better one reads some thirty texts a second.
        found = assign(chunk, policy, classifier, kind="text")
        classifier = found.classifier
        on_classified(found.by_classifier)
        yield from found.requests
        yield from found.untold


# The classifier

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


class _Labelled(NamedTuple):
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
        self.weights: tuple[float, ...]
        """What each model's scores are multiplied by before the softmax: an inverse temperature each."""
        if self._embed is None:
            self._models, self.weights = _of_texts(tuple(rows), self.rules)
        else:  # the policy's texts and ours are read once, then kept in the cache
            texts = [row.text for row in rows]
            states = np.vstack([cached_features(self._embed, texts[: len(own)]), self._embed(texts[len(own) :])])
            self._models, self.weights = _trained(rows, self.rules, states)

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """(texts, rules): how likely each rule is the one a text breaks; rows add up to 1.

        Read in chunks: memory beyond the result doesn't grow with the number of texts.
        """
        from scipy.special import softmax

        found = np.zeros((len(texts), len(self.rules)))
        for start in range(0, len(texts), _CHUNK):
            chunk = [text[:MAX_CHARACTERS] for text in texts[start : start + _CHUNK]]
            scores = _scores(self._models, self._inputs(chunk))
            found[start : start + _CHUNK] = softmax(
                sum(w * one for w, one in zip(self.weights, scores, strict=True)), axis=1
            )
        return found

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The most likely rule id for each text."""
        return [self.rules[index] for index in self.probabilities(texts).argmax(axis=1)]

    def _inputs(self, texts: list[str]) -> list[Any]:
        """What each model takes: the texts, and for the second their hidden states."""
        return [np.array(texts, dtype=object), *([] if self._embed is None else [self._embed(texts)])]


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


def _trained(
    rows: Sequence[_Labelled], rules: Sequence[str], *states: NDArray[np.float32]
) -> tuple[list[Any], tuple[float, ...]]:
    """A model of the texts, and one of their states where there are some; and the weight of each."""
    inputs: list[Any] = [np.array([row.text for row in rows], dtype=object), *states]
    names = np.array([rules.index(row.rule) for row in rows])
    return _fitted(inputs, names), _weights(inputs, names, [row.family for row in rows])


@lru_cache(maxsize=4)
def _of_texts(rows: tuple[_Labelled, ...], rules: tuple[str, ...]) -> tuple[list[Any], tuple[float, ...]]:
    """As `_trained`, once a process: a sweep builds rows for every seed."""
    return _trained(rows, rules)


def _fitted(inputs: list[Any], names: NDArray[np.int64]) -> list[Any]:
    """A model for each input, with settings cross-validated over the shipped families; see docs/policy.md."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import RidgeClassifier
    from sklearn.naive_bayes import ComplementNB
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import StandardScaler

    features = make_union(
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)),
        TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(3, 5), max_features=40_000),
    )
    models = [
        make_pipeline(features, ComplementNB(alpha=0.3)),
        make_pipeline(StandardScaler(), RidgeClassifier(alpha=300.0, class_weight="balanced")),
    ]
    return [model.fit(one, names) for model, one in zip(models, inputs, strict=False)]


def _scores(models: list[Any], inputs: list[Any]) -> list[NDArray[np.float64]]:
    """(texts, rules) for each fitted model. Every rule has a training text, so that columns are rules."""
    scores: list[NDArray[np.float64]] = [models[0].predict_log_proba(inputs[0])]
    for model, one in zip(models[1:], inputs[1:], strict=True):
        found = model.decision_function(one)
        scores.append(np.stack([-found, found], axis=1) if found.ndim == 1 else found)  # two rules share one score
    return scores


def _weights(inputs: list[Any], names: NDArray[np.int64], families: list[str]) -> tuple[float, ...]:
    """The weights at which held-out families are least surprising."""
    from scipy.optimize import minimize
    from scipy.special import log_softmax

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
        logs = log_softmax(sum(w * one for w, one in zip(np.exp(log_weights), held_out, strict=True)), axis=1)
        return -float(logs[np.arange(len(right)), right].mean())

    found = minimize(surprise, np.log(start), method="Nelder-Mead").x
    return tuple(float(weight) for weight in np.exp(found))


class EmbeddedFeatures:
    """Texts to mean hidden states after `LAYER` layers of the embedded model, in float32."""

    def __init__(self) -> None:
        """Keeps the first layers alone. Raises ModelError when the model's package is not installed."""
        import torch
        from transformers import AutoModel, AutoTokenizer

        from forethought.models.weights import embedded_model

        folder = embedded_model()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        self._model.layers = self._model.layers[:LAYER]
        self._model.config.num_hidden_layers = LAYER
        self._model.norm = torch.nn.Identity()  # made for the last layer's states, not for the eighth's

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(texts, hidden size). Batches hold texts of one length, so that little is padding."""
        ids = [
            self._tokenizer(text[:MAX_CHARACTERS], add_special_tokens=False)["input_ids"][:_MAX_TOKENS]
            or [int(self._tokenizer.eos_token_id)]  # an empty text is its end alone
            for text in texts
        ]
        order = sorted(range(len(ids)), key=lambda index: (len(ids[index]), index))
        found = np.zeros((len(ids), int(self._model.config.hidden_size)), dtype=np.float32)
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            found[batch] = self._means([ids[index] for index in batch])
        return found

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
    from forethought.models.weights import cache_folder

    file = cache_folder() / "rule-features" / f"{key}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):  # there is none, or what stands there is damaged
        kept: NDArray[np.float32] = np.load(file, allow_pickle=False)
        if kept.ndim == 2 and len(kept) == len(texts):
            return kept
    found = features(texts)
    with replacing(file, shared=True) as part, part.open("wb") as opened:
        np.save(opened, found)
    return found
