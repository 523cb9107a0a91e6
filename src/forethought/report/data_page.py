"""What a built set holds, in one pass, and its page: harmful text is redacted unless asked."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from forethought.policy import Policy
from forethought.records import Example, Record
from forethought.redaction import shown
from forethought.report.page import write_page

_EDGES = (5, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500)
_PER_GROUP = 4
"""Rows shown of each kind, plain and restyled apart."""
_PANELS = {"rules": "Rules broken", "sources": "Sources", "kinds": "Kinds", "operators": "Styles"}
"""What rows are counted by, and how the page calls it."""
PLAIN = "as they are"
"""How rows that no operator restyled are called among the operators."""
UNSTATED = "not stated"
"""How rows that name no source are called among the sources."""


class Count(Record):
    """Rows of one label, harmful and harmless apart: a style that only harmful rows wear is learned as harm."""

    label: str
    harmful: int = 0
    harmless: int = 0

    @property
    def rows(self) -> int:
        return self.harmful + self.harmless


class Lengths(Record):
    """How long some text is, in words."""

    median: int
    """In the middle when sorted; the lower of two."""
    ninety: int
    """Nine of ten are no longer."""
    longest: int
    bins: tuple[tuple[str, int], ...]
    """Range of words to rows; empty ranges at the ends are left out."""


class Sample(Record):
    """One row as a person reads it."""

    kind: str
    source: str
    operator: str
    verdict: str
    rules: tuple[str, ...]
    request: str
    plain: str = ""
    """What is really asked, when restyled."""
    intent: str
    deliberation: str = ""
    answer: str
    redacted: bool


class DataSummary(Record):
    """A built set at a glance."""

    rows: int
    harmful: int
    harmless: int
    styled: int
    thought_only: int
    cut: int
    """Rows whose answer was cut at a length."""
    dropped: dict[str, int]
    """Cause to rows that did not pass verification, the most frequent first."""
    rules: tuple[Count, ...]
    """Rows by rule that is broken; a row can break several."""
    operators: tuple[Count, ...]
    sources: tuple[Count, ...]
    kinds: tuple[Count, ...]
    lengths: dict[str, Lengths]
    """`request`, `intent`, `answer`; those of which there is none are left out."""
    samples: tuple[Sample, ...]
    facts: dict[str, Any] = Field(default_factory=dict)
    """What the build recorded, see `forethought.data.export.BuildFacts`; empty where nothing was."""

    @property
    def verified_share(self) -> float | None:
        """Share of taught rows that passed verification, 0 to 1; None where there were none."""
        taught = self.rows + sum(self.dropped.values())
        return self.rows / taught if taught else None


def summarise(
    examples: Iterable[Example],
    dropped: Mapping[str, int],
    facts: Mapping[str, Any] | None = None,
    policy: Policy | None = None,
    show_harmful: bool = False,
    seed: int = 0,
) -> DataSummary:
    """The summary of a set, read once and never held. Harmful text is redacted unless `show_harmful`.

    `policy` gives the rules their titles. Which rows are shown depends on the seed alone.
    """
    labels: Counter[bool] = Counter()
    states: Counter[str] = Counter()
    counts: dict[str, Counter[tuple[str, bool]]] = {panel: Counter() for panel in _PANELS}
    words: dict[str, Counter[int]] = {name: Counter() for name in ("request", "intent", "answer")}
    rng, drawn, met = random.Random(seed), dict[tuple[str, bool], list[Example]](), Counter[tuple[str, bool]]()
    for example in examples:
        request, harmful = example.request, _is_harmful(example)
        labels[harmful] += 1
        states["styled"] += request.operator is not None
        states["thought_only"] += not example.answer
        states["cut"] += bool(example.answer) and not example.answer_complete
        counts["rules"].update((rule, harmful) for rule in set(example.reasoning.violated))
        counts["operators"][request.operator or PLAIN, harmful] += 1
        counts["sources"][request.source or UNSTATED, harmful] += 1
        counts["kinds"][_kind(example), harmful] += 1
        texts = {"request": request.text, "intent": example.reasoning.intent, "answer": example.answer}
        for name, text in texts.items():
            if text or name != "answer":  # a row may teach the thought alone
                words[name][len(text.split())] += 1
        # A few rows of every group, each row with the same chance (algorithm R, Vitter 1985).
        group = (_kind(example), request.operator is not None)
        shown_of = drawn.setdefault(group, [])
        met[group] += 1
        if len(shown_of) < _PER_GROUP:
            shown_of.append(example)
        elif (place := rng.randrange(met[group])) < _PER_GROUP:
            shown_of[place] = example
    titles = {rule.id: f"{rule.id} {rule.title}" for rule in policy.rules} if policy else {}
    return DataSummary(
        rows=labels.total(),
        harmful=labels[True],
        harmless=labels[False],
        styled=states["styled"],
        thought_only=states["thought_only"],
        cut=states["cut"],
        dropped=dict(sorted(dropped.items(), key=lambda item: (-item[1], item[0]))),
        **{panel: _counts(counts[panel], titles) for panel in _PANELS},
        lengths={name: _lengths(found) for name, found in words.items() if found},
        samples=tuple(_sample(example, show_harmful) for group in sorted(drawn) for example in drawn[group]),
        facts=dict(facts or {}),
    )


def _is_harmful(example: Example) -> bool:
    return example.term == "refusal"


def _kind(example: Example) -> str:
    return example.request.kind or ("harmful" if _is_harmful(example) else "harmless")


def _counts(counts: Counter[tuple[str, bool]], titles: Mapping[str, str]) -> tuple[Count, ...]:
    """The most frequent first, then by name."""
    labels = {label for label, _ in counts}
    found = [
        Count(label=titles.get(label, label), harmful=counts[label, True], harmless=counts[label, False])
        for label in labels
    ]
    return tuple(sorted(found, key=lambda count: (-count.rows, count.label)))


def _lengths(words: Counter[int]) -> Lengths:
    lengths, rows = np.array(sorted(words.items())).T
    found, _ = np.histogram(lengths, [0, *_EDGES, np.inf], weights=rows)
    names = [f"{low}-{high - 1}" for low, high in pairwise((0, *_EDGES))] + [f"{_EDGES[-1]}+"]
    filled = np.flatnonzero(found)
    median, ninety = np.quantile(lengths, [0.5, 0.9], weights=rows, method="inverted_cdf")
    return Lengths(
        median=int(median),
        ninety=int(ninety),
        longest=int(lengths[-1]),
        bins=tuple((names[place], int(found[place])) for place in range(filled[0], filled[-1] + 1)),
    )


def _sample(example: Example, show_harmful: bool) -> Sample:
    # A row without a label may be harmful.
    harmful = None if _is_harmful(example) else example.request.harmful

    def as_shown(text: str) -> str:
        return shown(text, harmful, show_harmful)

    request = example.request
    return Sample(
        kind=_kind(example),
        source=request.source,
        operator=request.operator or "",
        verdict=example.reasoning.verdict,
        rules=example.reasoning.violated,
        request=as_shown(request.text),
        plain=as_shown(request.plain) if request.operator else "",
        intent=as_shown(example.reasoning.intent),
        deliberation=as_shown(example.reasoning.deliberation),
        answer=as_shown(example.answer),
        redacted=harmful is not False and not show_harmful,
    )


def write_data_page(path: Path, summary: DataSummary) -> None:
    """Writes the page, whole or not at all."""
    panels = [(title, getattr(summary, panel)) for panel, title in _PANELS.items()]
    redacted = any(sample.redacted for sample in summary.samples)
    title = summary.facts.get("name") or "Built set"
    write_page(path, "data", title, summary=summary, facts=summary.facts, panels=panels, redacted=redacted)
