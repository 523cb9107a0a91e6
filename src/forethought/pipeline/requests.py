"""Stage 1: from sources to disjoint sets of requests with their rules, away from every evaluation set known.

Whether requests and policy go together is told before anything is loaded; of own files a few rows are read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from forethought.cluster import Here, Workers, in_chunks
from forethought.data.classify import Assignment, RuleClassifier, assign, best_kind, reads, rules_by_name
from forethought.data.dedupe import (
    decontaminate,
    evaluation_set,
    known_evaluation_sets,
    remove_duplicates,
    removed_by_cause,
)
from forethought.data.shipped import PAIRS, under
from forethought.data.sources import SHIPPED, SourceSpec, cap_per_rule, load_requests, load_split, sample
from forethought.errors import ConfigError, ForethoughtError, StageError
from forethought.language import language_of, languages
from forethought.manifest import write_json
from forethought.pipeline.recipe import DataConfig, Recipe
from forethought.policy import Policy, default_policy
from forethought.progress import Progress
from forethought.records import Request, Split, write_jsonl

OVERLAPS, REMOVED = "overlaps.json", "removed.json"
_HEAD = 2000
"""Rows of an own file in which rules are looked for."""
_REMOTE = ("hub:",)


def check_rules(recipe: Recipe, policy: Policy, say: Callable[[str], None]) -> None:
    """What `check_recipe` says of the rules, for a build as well."""
    check_held_out(recipe.data, policy)
    for rule in without_examples(recipe, policy):
        fix = "give `examples` in the policy, or requests with a column that names it"
        say(f"Rule {rule}: no example, it is told by its title and description alone; {fix}")


def missing(recipe: Recipe) -> dict[str, str]:
    """By source that can't be read, why; sets of the hub are not asked for."""
    found: dict[str, str] = {}
    for spec in recipe.data.sources:
        try:
            if not spec.path.startswith(_REMOTE):
                next(_head(spec), None)
        except ForethoughtError as error:
            found[spec.path] = f"{error.rule}. {error.fix}"
    return found


def without_examples(recipe: Recipe, policy: Policy) -> list[str]:
    """Rules, as `S1 Refund fraud`, that no example stands for: none of the policy's, no request that names them.

    Own requests that name no rule are told apart by the policy's own words, so that nothing is missing for certain
    there. Raises ConfigError where no request can break any rule: all of them are of another policy's.
    """
    if policy.hash == default_policy().hash:
        return []
    named: Counter[str] = Counter()
    unnamed = remote = 0
    for spec in (*recipe.data.harmful, *recipe.data.labelled):
        if spec.path.startswith(_REMOTE):
            remote += 1
            continue
        try:
            rows = [row for row in islice(_head(spec), _HEAD) if row.harmful is not False]
        except ForethoughtError:
            remote += 1  # told by the stage that reads it
            continue
        for row in under(policy, rows)[0]:
            sure, choices = (row.rules, ()) if row.rules else rules_by_name(row, policy)
            named.update({*sure, *(rule for choice in choices for rule in choice)})
            unnamed += not sure and not choices
    if not named and not unnamed and not remote:
        titles = ", ".join(f"{rule.id} {rule.title}" for rule in policy.rules)
        raise ConfigError(
            f"policy '{policy.name}'",
            f"has no request to learn from: all harmful ones break rules that it lacks (it has {titles})",
            "Give requests that break them: forethought run YOUR_FILE --policy FILE, with a column that names the rule",
        )
    return [f"{rule.id} {rule.title}" for rule in policy.rules if not rule.examples and not named[rule.id]]


def _head(spec: SourceSpec) -> Iterator[Request]:
    if spec.path.startswith(SHIPPED):
        return load_requests(spec, True)
    return islice(load_requests(spec.model_copy(update={"limit": None}), True), _HEAD)


def check_held_out(data: DataConfig, policy: Policy) -> None:
    """Raises ConfigError for a rule that is to be held out and is not there."""
    for rule in data.held_out_rules:
        if rule not in policy.rule_ids:
            raise ConfigError(
                f"data.held_out_rules: {rule}", "the policy has no such rule", f"Use {', '.join(policy.rule_ids)}"
            )


def select(
    data: DataConfig,
    policy: Policy,
    out: Path,
    progress: Progress,
    classify: bool = True,
    workers: Workers | None = None,
) -> dict[str, Any]:
    """Loads the sources, finds each harmful request's rules, and writes disjoint train, dev and test sets.

    Without `classify`, a request whose categories name no rule keeps none, in whatever language: the teacher finds it.
    """
    workers = workers or Here()
    check_held_out(data, policy)
    skipped: Counter[str] = Counter()
    foreign: Counter[str] = Counter()

    def load(specs: Sequence[SourceSpec], label: bool) -> dict[Split, list[Request]]:
        parts = load_split(
            specs,
            label,
            data.held_out_share,
            data.dev_share,
            progress.mapping,
            lambda cause, where: skipped.update([cause]),
        )
        for split, rows in parts.items():
            parts[split], left_out = under(policy, rows)
            foreign.update({f"{split}: no rule of the policy for {rule}": count for rule, count in left_out.items()})
        return parts

    harmful, harmless = load((*data.harmful, *data.labelled), True), load((*data.harmless, *data.labelled), False)
    left: Counter[str] = Counter()
    spoken = _spoken([row.plain for side in (harmful, harmless) for rows in side.values() for row in rows], workers)
    if classify:
        harmful, harmless = _served(harmful, spoken, left), _served(harmless, spoken, left)
    tested = [*load(data.test_harmful, True).values(), *load(data.test_harmless, False).values()]
    ruled, asked, unsure = _ruled(harmful, policy, data.min_rule_probability, classify, spoken, left, workers)
    _warn(ruled["train"], harmless["train"], spoken, left, progress)
    ready, apart = _chosen(ruled, harmless, data)
    # What is not trained on for its rule is tested: the domain that nobody has seen is the larger for it.
    tested_only = [*(request for rows in tested for request in rows), *apart]
    counts = _write_apart(ready, tested_only, data, out, left, foreign, workers)
    extra = {"skipped": skipped.total(), "unsure_of_rule": unsure, "held_out_by_rule": len(apart)}
    extra["of_no_rule_of_the_policy"] = foreign.total()
    return counts | {"rules_by_classifier": asked} | {name: count for name, count in extra.items() if count}


_UNTOLD = "whose rule can't be told in their language"
_ASK_A_MODEL = "A model as the teacher knows more languages: --teacher PROVIDER/MODEL. Categories name rules, too"


def _spoken(texts: Sequence[str], workers: Workers) -> dict[str, str]:
    """The language of each text."""
    found = in_chunks(workers, _languages, texts)
    return dict(zip(texts, (code for chunk in found for code in chunk), strict=True))


def _languages(texts: Sequence[str]) -> list[str]:
    return [language_of(text) for text in texts]


def _served(
    requests: dict[Split, list[Request]], spoken: Mapping[str, str], left: Counter[str]
) -> dict[Split, list[Request]]:
    """Those in a language that thoughts and refusals can be written in; the others are counted by language."""
    kept: dict[Split, list[Request]] = {split: [] for split in requests}
    for split, rows in requests.items():
        for row in rows:
            if (code := spoken[row.plain]) in languages():
                kept[split].append(row)
            else:
                left[f"in a language that is not served ({code})"] += 1
    return kept


def without_rules(
    harmful: Sequence[Request], harmless: Sequence[Request], rules: Sequence[str]
) -> tuple[list[Request], list[Request]]:
    """(harmful requests that break none of the rules, harmless ones that are no look-alike of one that does)."""
    held_out = [request for request in harmful if set(request.rules) & set(rules)]
    twins = {request.twin for request in held_out if request.twin}
    kept = [request for request in harmful if not set(request.rules) & set(rules)]
    return kept, [request for request in harmless if not request.twin or request.twin not in twins]


def _ruled(
    harmful: dict[Split, list[Request]],
    policy: Policy,
    floor: float,
    classify: bool,
    spoken: Mapping[str, str],
    left: Counter[str],
    workers: Workers,
) -> tuple[dict[Split, list[Request]], int, int]:
    """(harmful requests with their rules, how many the classifier decided, how many it was unsure of and left out).

    One classifier for all splits; it learns from the training split's names alone, and not from shipped pairs, so that
    other requests get the same rules with them and without. What it can't read, and no words tell, is counted in
    `left`.
    """
    if not classify:
        named = {
            split: [r.model_copy(update={"rules": r.rules or rules_by_name(r, policy)[0]}) for r in rows]
            for split, rows in harmful.items()
        }
        return named, 0, 0
    first = {split: [rules_by_name(r, policy) for r in rows] for split, rows in harmful.items()}
    n_open = sum(
        bool(choices or not sure) and not r.rules and reads(policy, spoken[r.plain])
        for split, rows in harmful.items()
        for r, (sure, choices) in zip(rows, first[split], strict=True)
    )
    classifier = None
    if n_open:
        known = [
            r if r.rules else r.model_copy(update={"rules": sure})
            for r, (sure, choices) in zip(harmful["train"], first["train"], strict=True)
            if len(r.rules or sure) == 1 and not choices and r.source != PAIRS
        ]
        classifier = RuleClassifier(policy, known, best_kind(n_open))
    found = {split: in_chunks(workers, _assigned, rows, policy, classifier, floor) for split, rows in harmful.items()}
    every = [one for chunks in found.values() for one in chunks]
    left.update(f"{_UNTOLD} ({spoken[r.plain]})" for one in every for r in one.untold)
    return (
        {split: [request for one in chunks for request in one.requests] for split, chunks in found.items()},
        sum(one.by_classifier for one in every),
        sum(len(one.unsure) for one in every),
    )


def _assigned(
    requests: Sequence[Request], policy: Policy, classifier: RuleClassifier | None, floor: float
) -> Assignment:
    """Without the classifier, which need not travel back."""
    return replace(assign(requests, policy, classifier, floor), classifier=None)


def _warn(
    harmful: Sequence[Request],
    harmless: Sequence[Request],
    spoken: Mapping[str, str],
    left: Counter[str],
    progress: Progress,
) -> None:
    """Says what was left out, and which languages of training rows have harmful requests alone."""
    if left:
        causes = ", ".join(f"{count} {cause}" for cause, count in left.most_common())
        progress.say(f"[yellow]{left.total()} requests were left out: {causes}. {_ASK_A_MODEL}.[/]")
    alone = {spoken[r.plain] for r in harmful} - {spoken[r.plain] for r in harmless}
    if alone:
        told = "a model learns to refuse the language itself. Give harmless ones in it: --harmless FILE"
        progress.say(
            f"[yellow]Harmful requests in {', '.join(sorted(alone))} have no harmless ones beside them: {told}.[/]"
        )


def _chosen(
    harmful: Mapping[Split, list[Request]], harmless: Mapping[Split, list[Request]], data: DataConfig
) -> tuple[dict[Split, list[Request]], list[Request]]:
    """(the rows of each split within their limits, what is kept out of training and development for its rule).

    Shipped pairs of such a rule are not tested either: a test set stays the same with them and without.
    """
    ready: dict[Split, list[Request]] = {}
    apart: list[Request] = []
    for split, found in harmful.items():
        rows, others = found, harmless[split]
        if split != "test":
            rows, others = without_rules(found, harmless[split], data.held_out_rules)
            kept = {row.id for row in (*rows, *others)}
            apart += [row for row in (*found, *harmless[split]) if row.id not in kept and row.source != PAIRS]
        if split == "train" and data.per_rule:
            pairs = [row for row in rows if row.source == PAIRS]  # each has its look-alike: none drowns anything
            rows = [*cap_per_rule([row for row in rows if row.source != PAIRS], data.per_rule), *pairs]
        ready[split] = [*rows, *(_capped_by_source(others, data.max_harmless) if data.max_harmless else others)]
    return ready, apart


def _write_apart(
    ready: dict[Split, list[Request]],
    tested_only: Sequence[Request],
    data: DataConfig,
    out: Path,
    removed: Counter[str],
    left_out: Mapping[str, int],
    workers: Workers,
) -> dict[str, Any]:
    """Removes near duplicates within each set and across them, and writes what was removed because of what, with what
    was `removed` before; beside it what was left out as another policy's.
    """
    test, removed_test = remove_duplicates([*ready["test"], *tested_only])
    dev, removed_dev = remove_duplicates(ready["dev"], against=test)
    evaluation = {"test rows of this run": test, "development rows of this run": dev} | known_evaluation_sets()
    for path in data.against:
        evaluation |= evaluation_set(path)
    train, report = decontaminate(ready["train"], evaluation, workers, out)
    for split, counts in (("test", removed_test), ("dev", removed_dev), ("train", removed_by_cause(report))):
        removed.update({f"{split}: {cause}": count for cause, count in counts.items()})
    _need(train, test, data.held_out_share > 0)
    for split, rows in (("train", train), ("dev", dev), ("test", test)):
        write_jsonl(out / f"{split}.jsonl", rows)
    write_json(out / REMOVED, dict((removed + Counter(left_out)).most_common()))
    write_json(out / OVERLAPS, report.model_dump(mode="json"))
    return {"train": len(train), "dev": len(dev), "test": len(test), "removed": sum(removed.values())}


def what_was_removed(selected: Path) -> str:
    """What a page says of test requests in training, from what the selection removed."""
    removed: dict[str, int] = json.loads((selected / REMOVED).read_text(encoding="utf-8"))
    near = sum(count for cause, count in removed.items() if cause.startswith("train: near an evaluation request"))
    return f"{near} training requests that were near a test request, word by word, were removed before training."


def _capped_by_source(requests: Sequence[Request], most: int) -> list[Request]:
    names = dict.fromkeys(request.source for request in requests)
    return [r for name in names for r in sample([q for q in requests if q.source == name], most)]


def _need(train: Sequence[Request], test: Sequence[Request], tested: bool) -> None:
    for split, rows, least in (("train", train, 8), ("test", test, 2 if tested else 0)):
        for label in (True, False):
            count = sum(request.harmful is label for request in rows)
            if count < least:
                kind = "harmful" if label else "harmless"
                raise StageError(
                    f"{count} {kind} requests to {split} on",
                    f"at least {least} are needed, after duplicates are removed",
                    "Add a source, or lower data.held_out_share",
                )
