"""What a built set holds, in one pass: counts, lengths and a few rows, redacted unless asked."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field

from forethought.policy import Policy
from forethought.records import Example, Record
from forethought.report.redact import redact

_EDGES = (5, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500)
_PER_GROUP = 4
"""Rows shown of each kind, plain and restyled apart."""
PLAIN = "as they are"
"""How rows that no operator restyled are called among the operators."""


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
    """What the build recorded, see `forethought.data.card.BuildFacts`; empty where nothing was."""

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
    counted = _Counted()
    shown = _Reservoirs(seed)
    for example in examples:
        counted.add(example)
        shown.offer(example)
    titles = {rule.id: f"{rule.id} {rule.title}" for rule in policy.rules} if policy else {}
    return DataSummary(
        rows=counted.labels.total(),
        harmful=counted.labels[True],
        harmless=counted.labels[False],
        styled=counted.states["styled"],
        thought_only=counted.states["thought_only"],
        cut=counted.states["cut"],
        dropped=dict(sorted(dropped.items(), key=lambda item: (-item[1], item[0]))),
        rules=_counts(counted.rules, titles),
        operators=_counts(counted.operators, {}),
        sources=_counts(counted.sources, {}),
        kinds=_counts(counted.kinds, {}),
        lengths={name: _lengths(words) for name, words in counted.words.items() if words},
        samples=tuple(_sample(example, show_harmful) for example in shown.drawn()),
        facts=dict(facts or {}),
    )


def _is_harmful(example: Example) -> bool:
    return example.term == "refusal"


class _Counted:
    """Counters that one pass fills."""

    def __init__(self) -> None:
        self.labels: Counter[bool] = Counter()
        self.states: Counter[str] = Counter()
        self.rules: Counter[tuple[str, bool]] = Counter()
        self.operators: Counter[tuple[str, bool]] = Counter()
        self.sources: Counter[tuple[str, bool]] = Counter()
        self.kinds: Counter[tuple[str, bool]] = Counter()
        self.words: dict[str, Counter[int]] = {"request": Counter(), "intent": Counter(), "answer": Counter()}

    def add(self, example: Example) -> None:
        request, harmful = example.request, _is_harmful(example)
        self.labels[harmful] += 1
        self.states["styled"] += request.operator is not None
        self.states["thought_only"] += not example.answer
        self.states["cut"] += bool(example.answer) and not example.answer_complete
        self.rules.update((rule, harmful) for rule in set(example.reasoning.violated))
        self.operators[request.operator or PLAIN, harmful] += 1
        self.sources[request.source or "not stated", harmful] += 1
        self.kinds[_kind(example), harmful] += 1
        self.words["request"][len(request.text.split())] += 1
        self.words["intent"][len(example.reasoning.intent.split())] += 1
        if example.answer:
            self.words["answer"][len(example.answer.split())] += 1


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
    ordered = sorted(words.items())
    bins = Counter(_bin(length) for length, count in ordered for _ in range(count))
    names = [_bin(edge - 1) for edge in _EDGES] + [_bin(_EDGES[-1])]
    filled = [place for place, name in enumerate(names) if bins[name]]
    return Lengths(
        median=_quantile(ordered, 0.5),
        ninety=_quantile(ordered, 0.9),
        longest=ordered[-1][0],
        bins=tuple((name, bins[name]) for name in names[filled[0] : filled[-1] + 1]),
    )


def _bin(length: int) -> str:
    low = 0
    for edge in _EDGES:
        if length < edge:
            return f"{low}-{edge - 1}"
        low = edge
    return f"{low}+"


def _quantile(ordered: list[tuple[int, int]], share: float) -> int:
    """The shortest length that at least this share of the texts do not exceed."""
    total = sum(count for _, count in ordered)
    passed = 0
    for length, count in ordered:
        passed += count
        if passed >= share * total:
            return length
    return ordered[-1][0]


class _Reservoirs:
    """A few rows of every group, each row with the same chance (algorithm R, Vitter 1985)."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._groups: dict[tuple[str, bool], list[Example]] = {}
        self._seen: Counter[tuple[str, bool]] = Counter()

    def offer(self, example: Example) -> None:
        group = (_kind(example), example.request.operator is not None)
        rows = self._groups.setdefault(group, [])
        self._seen[group] += 1
        if len(rows) < _PER_GROUP:
            rows.append(example)
        elif (place := self._rng.randrange(self._seen[group])) < _PER_GROUP:
            rows[place] = example

    def drawn(self) -> list[Example]:
        return [example for group in sorted(self._groups) for example in self._groups[group]]


def _sample(example: Example, show_harmful: bool) -> Sample:
    # Intent and refusal of a harmful request quote it; a row without a label may be harmful.
    hide = not show_harmful and (_is_harmful(example) or example.request.harmful is not False)

    def shown(text: str) -> str:
        return redact(text) if hide else text

    request = example.request
    return Sample(
        kind=_kind(example),
        source=request.source,
        operator=request.operator or "",
        verdict=example.reasoning.verdict,
        rules=example.reasoning.violated,
        request=shown(request.text),
        plain=shown(request.plain) if request.operator else "",
        intent=shown(example.reasoning.intent),
        deliberation=shown(example.reasoning.deliberation),
        answer=shown(example.answer),
        redacted=hide,
    )
