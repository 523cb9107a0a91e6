"""The sets that ship with the project: minimal pairs and ordinary requests.

`contrast`: a harmful request and a harmless look-alike that shares its words, over
all rules of the default policy. `ordinary`: everyday requests. Families (scenarios)
are split into train, dev and test, so that no held-out scenario is trained on.

Beside them stand the rule examples: one-line harmful requests that teach the rule
classifier, and as `shipped:rules` what a breach of each rule is called. They belong to no
set above, have no look-alikes, and are for training alone. And the calibration requests:
everyday requests, a scenario each, that no model is trained or tested on, so that a
threshold set on them holds for new requests. And `trivia`: short questions of general
knowledge, for training and development. Harmful rows are mostly short questions, too:
without these a model learns that a short question is a harmful one. And `broad`: what many
kinds of people write to an assistant (mails, code, sums, role play, tasks about a text, long
texts, eleven languages, sensitive subjects), in as many habits of writing, likewise for
training and development. Of it a threshold can rest on kinds that a model has not met.
And `borderline`: look-alikes without a harmful twin, of more kinds than the pairs have
(words with two meanings, games, definitions, history, groups of people, nonsense, law,
health), likewise for training and development. `borderline_pairs` are minimal pairs of the same
kinds, each look-alike with the harmful request that shares its words, for training and development
as well: more look-alikes alone moved what a probe takes for harmful, and told no better what is.
`plain_pairs` are many more of them, short and in plain words, for a probe: training on them takes
tokens that disguises need.

Last, short questions with known answers: what a model must still be able to do behind a defence.

Under a policy that is not theirs, rules of requests are told by title, and what it has no rule for is left out.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources
from typing import Any

from forethought.errors import ConfigError
from forethought.policy import Policy, Rule, default_policy
from forethought.records import Request, Split, user_request

_TEST_SHARE, _DEV_SHARE = 0.25, 0.10
_SETS: dict[str, tuple[str, ...]] = {
    "harmful": ("harmful",),
    "lookalike": ("lookalike",),
    "contrast": ("harmful", "lookalike"),
    "ordinary": ("ordinary",),
}
"""Sets with splits to the kinds of their requests."""
_WITH_SPLITS = ("contrast_a.jsonl", "contrast_b.jsonl", "ordinary.jsonl")
"""Their files. The others stand apart: a row more in them moves no family from one split to another."""
_ONE_SPLIT: dict[str, Split] = {"calibration": "dev", "rules": "train"}
"""Sets that are one split alone."""
_DEV_OF = {"trivia": 5, "broad": 3, "borderline": 4, "borderline_pairs": 4, "plain_pairs": 4}
"""Sets without tests; of so many of their families one is for development."""
PAIRS = "shipped pairs"
"""What requests of `borderline_pairs` and `plain_pairs` say that they are from: limits on a source count them apart."""
SOURCES = frozenset({"shipped", "shipped rule examples", PAIRS})
"""What requests of shipped sets say that they are from: their rules are the default policy's."""
RULE_EXAMPLE = "rule example"
"""Category of the requests of `rules`, by which a build can leave them out."""
SAMPLE, FURTHER = "capability.jsonl", "questions.jsonl"
"""The fixed sample that stands in every plan, and more of the kind, asked where a small loss has to be seen: of forty
questions one is 2.5 points."""


def _read(name: str) -> list[dict[str, Any]]:
    file = resources.files("forethought").joinpath("data", name)
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


@lru_cache(maxsize=1)
def _rows() -> list[dict[str, Any]]:
    """Rows of all sets with splits."""
    return [row for name in _WITH_SPLITS for row in _read(f"shipped/{name}")]


@lru_cache(maxsize=1)
def _splits() -> dict[str, Split]:
    """Family to split, stratified by rule or task. Depends on names alone: adding a family moves few others."""
    groups: dict[str, set[str]] = defaultdict(set)
    for row in _rows():
        groups[row.get("rule") or row["task"]].add(row["family"])
    splits: dict[str, Split] = {}
    for families in groups.values():
        ordered = sorted(families, key=lambda family: hashlib.sha256(family.encode()).hexdigest())
        n_test, n_dev = round(_TEST_SHARE * len(ordered)), max(1, round(_DEV_SHARE * len(ordered)))
        for position, family in enumerate(ordered):
            splits.setdefault(family, "test" if position < n_test else "dev" if position < n_test + n_dev else "train")
    return splits


def shipped_requests(name: str, split: Split | None = None) -> list[Request]:
    """The requests of a shipped set: `harmful`, `lookalike`, `contrast` (both), `ordinary`, `trivia`, `broad`,
    `borderline`, `borderline_pairs`, `plain_pairs`, `calibration` or `rules`.

    `split` None is all of them; `calibration` is development requests alone, `rules` training requests alone, `trivia`,
    `broad`, `borderline` and both kinds of pairs have none for tests.
    Raises ConfigError for another name.
    """
    if name in _ONE_SPLIT and split not in (None, _ONE_SPLIT[name]):
        return []
    if name in _ONE_SPLIT:
        rows = _read("shipped/calibration.jsonl" if name == "calibration" else "shipped/rule_examples.jsonl")
    elif name in _DEV_OF:
        rows = _read(f"shipped/{name}.jsonl")
        if split is not None:
            digests = [hashlib.sha256(row["family"].encode()).hexdigest()[:8] for row in rows]
            splits = ["train" if int(digest, 16) % _DEV_OF[name] else "dev" for digest in digests]
            rows = [row for row, own in zip(rows, splits, strict=True) if own == split]
    elif name in _SETS:
        rows = [row for row in _rows() if split in (None, _splits()[row["family"]])]
    else:
        known = [*_SETS, *_DEV_OF, *_ONE_SPLIT]
        raise ConfigError(f"shipped:{name}", "there is no such shipped set", f"Use one of {', '.join(known)}")
    source = PAIRS if name.endswith("_pairs") else "shipped"
    found = (request for row in rows for request in _requests(row, source))
    return [request for request in found if request.kind in _SETS.get(name, (request.kind,))]


def _requests(row: dict[str, Any], source: str) -> list[Request]:
    if "rule" in row and "text" in row:  # one-line harmful requests with the one rule that they break most
        common = {"categories": (RULE_EXAMPLE,), "source": "shipped rule examples"}
        return [user_request(row["text"], harmful=True, kind="harmful", rules=(row["rule"],), **common)]
    twin = hashlib.sha256(f"{row.get('harmful', '')}".encode()).hexdigest()[:12]
    shared = {"source": source, "family": row["family"]} | ({} if "text" in row else {"twin": twin})
    if "text" in row:
        kind, of = ("lookalike", row["kind"]) if "kind" in row else ("ordinary", row["task"])
        return [user_request(row["text"], harmful=False, kind=kind, categories=(of,), **shared)]
    return [
        user_request(row["harmful"], harmful=True, kind="harmful", rules=(row["rule"],), **shared),
        user_request(row["harmless"], harmful=False, kind="lookalike", categories=(row["kind"],), **shared),
    ]


def under(policy: Policy, requests: Iterable[Request]) -> tuple[list[Request], Counter[str]]:
    """(the requests with rules of this policy, how many were left out by the rule that it lacks).

    The ids of shipped requests are the default policy's, whatever this one calls so; those of others are this one's, or
    names that it knows. A request whose rules it names in several ways is left to the classifier.
    """
    kept: list[Request] = []
    left_out: Counter[str] = Counter()
    same = {rule.id: _same(policy, rule) for rule in default_policy().rules}
    for request in requests:
        names = [_name(request, rule) for rule in request.rules]
        if request.source in SOURCES:
            known = [rule for rule in request.rules if same[rule]]
        else:
            known = [rule for rule in request.rules if rule in policy.rule_ids]
        if len(known) == len(request.rules):
            kept.append(request)
            continue
        meant = [found for name in names for found in (policy.rules_for_category(name),) if found]
        if not known and not meant:
            left_out[names[0]] += 1
            continue
        sure = tuple(dict.fromkeys([*known, *(found[0] for found in meant if len(found) == 1)]))
        update = {"rules": sure} if sure else {"rules": (), "categories": (*request.categories, *names)}
        kept.append(request.model_copy(update=update))
    return kept, left_out


def _same(policy: Policy, rule: Rule) -> bool:
    return rule.id in policy.rule_ids and policy.rule(rule.id).title == rule.title


def _name(request: Request, rule: str) -> str:
    """What a policy may know a rule by: of shipped requests its title, else what stands there."""
    return default_policy().rule(rule).title if request.source in SOURCES else rule


@lru_cache
def accepted_answers(file: str) -> dict[str, tuple[str, ...]]:
    """The questions of SAMPLE or FURTHER, and the answers that are right, in lower case."""
    return {row["text"]: tuple(row["accepted"]) for row in _read(file)}
