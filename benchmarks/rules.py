"""How often does the rule classifier name the right rule? On sets that it was not trained on.

    python benchmarks/rules.py [--star1 FILE] [--do-not-answer FOLDER] [--kind text|embedded]

Shipped: the held-out families, one rule each; F1 is the mean over the 13 rules. STAR-1 and
Do-Not-Answer name categories, of which some stand for several rules: a prediction is right
when it is one of the rules of one of a request's categories, and F1 is the mean over
categories (those that stand for the same rules count as one). Requests whose categories
stand for no rule are left out. A set that is not given is skipped. Prints one JSON object;
intervals are percentiles of 1,000 bootstrap draws of families (shipped) or requests.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import f1_score

from forethought.data.classify import RuleClassifier, assign
from forethought.data.shipped import shipped_requests
from forethought.data.sources import SourceSpec, load_requests
from forethought.policy import Policy, default_policy
from forethought.records import Request

DRAWS = 1_000
WIDE_NAMES = (
    "Violence / Physical Harm",
    "Illicit / Criminal Behavior",
    "Harassment / Hate / Discrimination",
    "Sexual / Adult",
)
"""STAR-1's names that stand for several rules."""
Labels = Sequence[str]


def macro_f1(truth: Labels, predicted: Labels) -> float:
    """Mean F1 over the classes that stand in the truth."""
    classes = sorted(set(truth))
    return float(f1_score(truth, predicted, labels=classes, average="macro", zero_division=0))


def accuracy(truth: Labels, predicted: Labels) -> float:
    """Share that is right."""
    return float(np.mean([a == b for a, b in zip(truth, predicted, strict=True)]))


def figures(name: str, truth: Labels, predicted: Labels, groups: Labels) -> list[dict[str, Any]]:
    """F1 and accuracy with intervals; rows of one group are drawn together."""
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    pool = [members[group] for group in sorted(members)]
    rng = np.random.default_rng(0)
    draws = [
        [index for place in rng.integers(len(pool), size=len(pool)) for index in pool[place]] for _ in range(DRAWS)
    ]
    found = []
    measures: dict[str, Callable[[Labels, Labels], float]] = {"rule_f1": macro_f1, "rule_accuracy": accuracy}
    for measure, compute in measures.items():
        values = [compute([truth[i] for i in draw], [predicted[i] for i in draw]) for draw in draws]
        low, high = np.percentile(values, [2.5, 97.5])
        value = compute(truth, predicted)
        ends = {"low": round(min(float(low), value), 4), "high": round(max(float(high), value), 4)}
        found.append({"name": f"{measure}_{name}", "value": round(value, 4), **ends, "n": len(truth), "unit": "share"})
    return found


def confusion(truth: Labels, predicted: Labels, names: Sequence[str]) -> str:
    """Counts as a markdown table: a row for each true rule, a column for each predicted one."""
    counts = Counter(zip(truth, predicted, strict=True))
    lines = ["| true | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    for one in names:
        lines.append(f"| {one} | " + " | ".join(str(counts[one, other] or "") for other in names) + " |")
    return "\n".join(lines)


def by_category(requests: Sequence[Request], predicted: Labels, policy: Policy) -> tuple[list[str], list[str]]:
    """(true, predicted) categories, each written as its rules joined by +.

    True is the first category that allows the prediction, else the first; a wrong
    prediction counts for the first category of the set that has its rule.
    """
    allowed = [
        [rules for label in request.categories if (rules := policy.rules_for_category(label))] for request in requests
    ]
    known = sorted({rules for one in allowed for rules in one})
    truth, found = [], []
    for one, rule in zip(allowed, predicted, strict=True):
        right = next((rules for rules in one if rule in rules), None)
        elsewhere = next((rules for rules in known if rule in rules), ())
        truth.append("+".join(right or one[0]))
        found.append("+".join(right or elsewhere))
    return truth, found


def within_wide_names(requests: Sequence[Request], policy: Policy, classifier: RuleClassifier) -> dict[str, list[int]]:
    """[right, requests] by wide name: requests with one known rule that are given the name in its place."""
    found = {}
    for name in WIDE_NAMES:
        ruled = [request for request in requests if request.rules[0] in policy.rules_for_category(name)]
        named = [request.model_copy(update={"rules": (), "categories": (name,)}) for request in ruled]
        chosen = assign(named, policy, classifier).requests
        found[name] = [sum(a.rules == b.rules for a, b in zip(ruled, chosen, strict=True)), len(ruled)]
    return found


def read(path: str, policy: Policy) -> tuple[list[Request], int]:
    """(requests with a category that stands for a rule, how many have none)."""
    requests = list(load_requests(SourceSpec(path=path), True))
    kept = [r for r in requests if any(policy.rules_for_category(label) for label in r.categories)]
    return kept, len(requests) - len(kept)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--star1")
    parser.add_argument("--do-not-answer")
    parser.add_argument("--kind", choices=("text", "embedded"), default="text")
    options = parser.parse_args()
    policy = default_policy()
    start = time.perf_counter()
    classifier = RuleClassifier(policy, kind=options.kind)
    fit_s = time.perf_counter() - start

    held_out = shipped_requests("harmful", "test")
    truth = [request.rules[0] for request in held_out]
    predicted = classifier.predict([request.text for request in held_out])
    printed: dict[str, Any] = {"kind": options.kind, "weights": [round(weight, 4) for weight in classifier.weights]}
    printed["figures"] = figures("shipped", truth, predicted, [request.family for request in held_out])
    printed["confusion_shipped"] = confusion(truth, predicted, classifier.rules)
    printed["right_within_wide_names"] = within_wide_names(held_out, policy, classifier)
    texts = [request.text for request in shipped_requests("harmful", "train")] * (20 if options.kind == "text" else 1)
    start = time.perf_counter()
    classifier.probabilities(texts)
    printed["texts_per_s"] = round(len(texts) / (time.perf_counter() - start))
    printed["fit_s"] = round(fit_s, 2)
    for name, path in (("star1", options.star1), ("do_not_answer", options.do_not_answer)):
        if path is None:
            continue
        requests, without = read(path, policy)
        found = classifier.predict([request.text for request in requests])
        true_names, found_names = by_category(requests, found, policy)
        printed["figures"] += figures(name, true_names, found_names, [request.id for request in requests])
        named = assign(requests, policy, classifier)
        printed[name] = {"without_a_category_that_stands_for_a_rule": without, "narrowed": named.narrowed}
        printed[f"confusion_{name}"] = confusion(true_names, found_names, sorted({*true_names, *found_names}))
    print(json.dumps(printed, indent=2))


if __name__ == "__main__":
    main()
