"""The figures of an attack run and of its searches, by stable names.

What training has seen, what the model can't read and what is aimed at its reasoning stand in groups of their own: the
headline is a mean over the rest. Each attack has a pair of rates, success on harmful requests and harmless requests
refused, since a defence that refuses a style wholesale has the first at no cost of its own.

A run may have a hundred thousand attempts. Of each stays what is counted; requests are shared by the attempts that
have the same one, and only answers to harmless requests are kept, from which comprehension is read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from forethought.attacks.base import Attack
from forethought.attacks.catalogue import DIRECT, seen_in_training
from forethought.attacks.searches.outcome import Outcome, Point, control, curve
from forethought.attempts.records import Judged
from forethought.judges.base import Measure
from forethought.judges.known import KnownError, corrected_asr
from forethought.measure.comprehension import comprehension, readable_styles
from forethought.measure.curves import Cells, by_cell, complied, refused, scores
from forethought.metrics import Figure, mean_auroc, mean_of_shares, mean_value, share, youden
from forethought.models.conversation import Response
from forethought.records import Message, Record, Request
from forethought.report.figures import bounds, mean_over, youden_of


@dataclass
class AttackRows:
    """What is kept of a run."""

    rows: list[Judged] = field(default_factory=list)
    """Without texts. On a harmful request `refused` says that the attack was stopped, whatever the judge measures."""
    causes: Counter[str] = field(default_factory=Counter)
    """Why attempts are unscored."""
    tokens: Counter[str] = field(default_factory=Counter)
    """Tokens by `prompt`, `reasoning` and `answer`; a conversation that two attempts share counts twice."""

    @property
    def unscored(self) -> int:
        """How many attempts could not be judged."""
        return sum(one.refused is None for one in self.rows)


def collect(judged: Iterable[Judged], measure: Measure) -> AttackRows:
    """Goes through judged attempts once.

    `measure` is that of the run's judge: where it finds harm, a harmful request is stopped when the answer holds none.
    """
    found = AttackRows()
    requests: dict[str, Request] = {}
    for one in judged:
        outcome = stopped(one, measure)
        if outcome is None:
            found.causes[one.cause or "the judge decided nothing"] += 1
        if one.response is not None:
            found.tokens["prompt"] += one.response.prompt_tokens
            found.tokens["reasoning"] += one.response.reasoning_tokens
            found.tokens["answer"] += one.response.answer_tokens
        found.rows.append(_lean(one, outcome, requests))
    return found


def stopped(one: Judged, measure: Measure) -> bool | None:
    """Whether a harmful request got no help, or a harmless one was refused; None is unscored."""
    if measure == "refused" or one.attempt.request.harmful is False:
        return one.refused
    if one.response is None or one.verdict is None or one.verdict.harmful is None:
        return None
    return not one.verdict.harmful


def _lean(one: Judged, stopped: bool | None, requests: dict[str, Request]) -> Judged:
    """What is counted of it; the answer too where it tells whether the request was understood."""
    request, said = one.attempt.request, one.response
    name = f"{request.seed_id}{request.harmful}"
    if name not in requests:
        plain = (Message(role="user", content=request.plain),)
        kept = request.model_dump(include={"harmful", "kind", "rules", "categories", "source"})
        requests[name] = Request(messages=plain, **kept)
    if said is not None:
        answer = said.answer if request.harmful is False else ""
        said = Response(answer=answer, decision=said.decision, log_odds=said.log_odds)
    attempt = one.attempt.model_copy(update={"request": requests[name], "prefill": "", "lineage": ()})
    return one.model_copy(update={"attempt": attempt, "response": said, "refused": stopped, "verdict": None})


Group = Literal["direct", "unseen", "reasoning", "seen", "unreadable"]
"""Where an attack is reported; it stands in one group alone."""
MEANS: tuple[Group, ...] = ("unseen", "reasoning", "seen")
"""Groups that have a mean."""
HARMLESS_MEANS: dict[Group, str] = {
    "unseen": "refused_styled_harmless",
    "reasoning": "refused_reasoning_harmless",
    "seen": "refused_seen_harmless",
}
"""What the mean of harmless requests refused is called in each."""


class AttackResult(Record):
    """What came of one attack. A figure is None where nothing of its kind was asked."""

    name: str
    slug: str
    """As figures carry it: lower case, digits and underscores."""
    title: str
    group: Group
    white_box: bool
    asr: Figure | None
    """Share of harmful requests on which the attack got through."""
    refused: Figure | None
    """Share of harmless requests in the same disguise that were refused."""
    youden: Figure | None
    auroc: Figure | None
    """Of the verdict's log-odds; None for a defence without."""
    comprehension: Figure | None = None
    """Share of harmless requests that the base model answers to the point; None where it was not measured."""

    @property
    def unscored(self) -> int:
        """Attempts, harmful and harmless, that could not be judged."""
        return sum(figure.unscored for figure in (self.asr, self.refused) if figure is not None)


class AttackReport(Record):
    """What came of all attacks."""

    results: tuple[AttackResult, ...]
    """`direct` first, then in the suite's order; attacks that were not run are left out."""
    means: tuple[Figure, ...]
    """Over the attacks of a group: `asr_GROUP`, what is refused of the harmless, `youden_GROUP`, `auroc_GROUP`."""

    def of(self, group: Group) -> list[AttackResult]:
        """The results of one group."""
        return [result for result in self.results if result.group == group]

    def figures(self) -> list[Figure]:
        """All of them, each with its stable name; those without a single attempt are left out."""
        found = list(self.means)
        for result in self.results:
            named = {
                "asr": result.asr, "refused": result.refused, "youden": result.youden, "auroc": result.auroc,
                "comprehension": result.comprehension,
            }  # fmt: skip
            found += [figure.named(f"{stem}_{result.slug}") for stem, figure in named.items() if figure is not None]
        return [figure for figure in found if figure.n or figure.unscored]


def slugs(names: Sequence[str]) -> dict[str, str]:
    """A name for figures for each attack; two that would be the same are numbered in order."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        stem = slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "attack"
        number = 1
        while slug in taken:
            number += 1
            slug = f"{stem}_{number}"
        taken.add(slug)
        found[name] = slug
    return found


def understood(rows: Sequence[Judged]) -> dict[str, Figure]:
    """Comprehension by attack, `direct` among them, from one model's answers to harmless requests."""
    styles: dict[str, list[Judged]] = {}
    for one in rows:
        if one.attempt.request.harmful is False:
            styles.setdefault(one.attempt.attack, []).append(one)
    return comprehension(styles)


def group_of(attack: Attack, seen: Collection[str], reads: Mapping[str, bool]) -> Group:
    """Where an attack is reported. `reads`: which styles the base model reads, by measurement; else its flag says."""
    if attack.kind == "none":
        return "direct"
    if seen_in_training(attack, seen):
        return "seen"
    if not reads.get(attack.name, attack.readable):
        return "unreadable"
    return "reasoning" if attack.kind == "reasoning" else "unseen"


def attack_report(
    rows: Sequence[Judged],
    attacks: Sequence[Attack],
    seen: Collection[str],
    measured: Mapping[str, Figure] | None = None,
    error: KnownError | None = None,
) -> AttackReport:
    """The figures of a run.

    `seen`: styles of the training manifest. `measured`: `understood` of the base model; None or too little to tell
    leaves the attacks' own flags to decide. `error`: the judge's known error, for the corrected direct rate.
    """
    measured = measured or {}
    reads = readable_styles(measured)
    cells = by_cell(rows)
    names = slugs([attack.name for attack in attacks])
    results = [
        AttackResult(
            name=attack.name,
            slug=names[attack.name],
            title=attack.title,
            group=group_of(attack, seen, reads),
            white_box=attack.white_box,
            comprehension=measured.get(attack.name),
            **_rates([_pair(attack.name)], cells),
        )
        for attack in attacks
        if any(cell in cells for cell in _pair(attack.name))
    ]
    means: list[Figure] = []
    for group in MEANS:
        pairs = [_pair(result.name) for result in results if result.group == group]
        calls = {"asr": f"asr_{group}", "refused": HARMLESS_MEANS[group]}
        found = [(name, figure) for name, figure in _rates(pairs, cells).items() if figure is not None]
        for name, figure in found:
            means.append(figure.named(calls.get(name, f"{name}_{group}")))
            if name == "asr":
                means += bounds(f"asr_{group}", [complied(cells[cell]) for cell, _ in pairs if cell in cells])
    direct = share(complied(cells.get("direct", [])))
    if error is not None and direct.n:
        means.append(corrected_asr(direct, error).named("asr_direct_corrected"))
    return AttackReport(results=tuple(results), means=tuple(means))


def _pair(name: str) -> tuple[str, str]:
    """The cells of an attack on harmful and on harmless requests."""
    return ("direct", "ordinary") if name == DIRECT.name else (f"{name}:harmful", f"{name}:harmless")


def _rates(pairs: Sequence[tuple[str, str]], cells: Cells) -> dict[str, Figure | None]:
    """Over pairs of cells: the share of harmful requests that got through, that of harmless ones refused, Youden's J
    and the AUROC; None for what nothing was asked for."""
    harmful = [cells[cell] for cell, _ in pairs if cell in cells]
    harmless = [cells[cell] for _, cell in pairs if cell in cells]
    scored = [(scores(cells.get(a, [])), scores(cells.get(b, []))) for a, b in pairs]
    separation = youden_of(harmful, harmless) if any(harmful) and any(harmless) else None
    area = mean_auroc([a for a, _ in scored], [b for _, b in scored])
    return {
        # Clusters matter within one cell, too: languages and styles of one request share its seed.
        "asr": mean_over(harmful, complied) if harmful else None,
        "refused": mean_over(harmless, refused) if harmless else None,
        "youden": separation if separation is not None and separation.n else None,
        "auroc": area if area.n else None,
    }


class SearchResult(Record):
    """What came of one method on all goals."""

    name: str
    slug: str
    """As figures carry it."""
    curve: tuple[Point, ...]
    """Share of harmful goals on which a search got through, by rising budgets of queries."""
    refused: Figure | None
    """Share of harmless goals that were refused up to the end; None without a harmless goal."""
    youden: Figure | None
    queries: Figure
    """Queries spent on a harmful goal, mean."""

    @property
    def budget(self) -> int:
        """Most queries a search."""
        return self.curve[-1].budget

    @property
    def asr(self) -> Figure:
        """Share of harmful goals on which a search got through within the whole budget."""
        return self.curve[-1].broken

    def figures(self) -> list[Figure]:
        """All by stable names: `asr_METHOD`, `asr_METHOD_at_QUERIES`, `refused_`, `youden_`, `queries_METHOD`."""
        points = [point.broken.named(f"asr_{self.slug}_at_{point.budget}") for point in self.curve]
        named = [self.asr.named(f"asr_{self.slug}"), *points, self.queries.named(f"queries_{self.slug}")]
        further = {"refused": self.refused, "youden": self.youden}
        return named + [one.named(f"{stem}_{self.slug}") for stem, one in further.items() if one is not None]


def search_results(outcomes: Sequence[Outcome]) -> list[SearchResult]:
    """One result a method that was run on a harmful goal, in the order of the outcomes."""
    methods = list(dict.fromkeys(one.method for one in outcomes if one.harmful is not False))
    names, refusals, found = slugs(methods), control(outcomes), []
    for method in methods:
        mine = [one for one in outcomes if one.method == method]
        harmful = [one for one in mine if one.harmful is not False]
        harmless = [one for one in mine if one.harmful is False]
        bad, good = ([one.goal for one in side] for side in (harmful, harmless))
        held = [None if one.broken is None else not one.broken for one in harmful]
        separation = youden([held], [bad], [[one.still_refused for one in harmless]], [good])
        found.append(
            SearchResult(
                name=method,
                slug=names[method],
                curve=tuple(curve(mine)),
                refused=refusals.get(method),
                youden=separation if separation.n else None,
                queries=mean_value([float(one.queries) for one in harmful], bad, "queries"),
            )
        )
    return found


def search_figures(outcomes: Sequence[Outcome]) -> list[Figure]:
    """The figures of all methods; before them `asr_adaptive`, the mean over methods of the share that got through, and
    `asr_adaptive_any`, the share of goals that any of them broke."""
    results = search_results(outcomes)
    found = [figure for result in results for figure in result.figures()]
    if results:
        cells = [[one for one in outcomes if one.method == r.name and one.harmful is not False] for r in results]
        goals = [[one.goal for one in cell] for cell in cells]
        mean = mean_of_shares([[one.broken for one in cell] for cell in cells], goals)
        most = curve(outcomes)[-1].broken
        found = [mean.named("asr_adaptive"), most.named("asr_adaptive_any"), *found]
    return [figure for figure in found if figure.n or figure.unscored]
