"""The table of an attack run, shared by terminal and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from forethought.evals.metrics import Figure
from forethought.report.attack_figures import HARMLESS_MEANS, MEANS, AttackReport, AttackResult, Group, SearchResult
from forethought.report.rows import interval

HEADINGS = (
    "attack", "success (low)", "harmless refused (low)", "Youden's J (high)", "AUROC (high)", "understood", "unscored",
)  # fmt: skip
SEARCH_HEADINGS = (
    "search", "success (low)", "harmless refused (low)", "Youden's J (high)", "queries, mean", "of", "unscored",
)  # fmt: skip
GROUP_TITLES: dict[Group, str] = {
    "direct": "No attack",
    "unseen": "Unseen styles",
    "reasoning": "Attacks on reasoning",
    "seen": "Apart: styles seen in training",
    "unreadable": "Apart: styles that the model can't read",
}
Line = tuple[str, ...]


def sections(report: AttackReport) -> list[tuple[str, list[Line]]]:
    """(title, lines) by group; the mean of a group that has one ends it, and empty groups are left out."""
    means = {figure.name: figure for figure in report.means}
    found = []
    for group, title in GROUP_TITLES.items():
        results = report.of(group)
        if results:
            lines = [_line(result) for result in results]
            found.append((title, [*lines, _mean(group, means)] if group in MEANS else lines))
    return found


def search_lines(results: Sequence[SearchResult]) -> list[Line]:
    """A line a search."""
    return [
        (
            one.name, _cell(one.asr), _cell(one.refused), _cell(one.youden), f"{one.queries.value:.1f}",
            str(one.budget), str(one.asr.unscored + (one.refused.unscored if one.refused is not None else 0)),
        )
        for one in results
    ]  # fmt: skip


def not_run_lines(not_run: Mapping[str, Mapping[str, int]], searches: Mapping[str, str]) -> list[tuple[str, str]]:
    """(attack, why and on how many requests) of what was not run, in whole or in part."""
    found = [
        (name, "; ".join(f"{cause} ({count} requests)" for cause, count in causes.items()))
        for name, causes in not_run.items()
    ]
    return [*found, *searches.items()]


def _line(result: AttackResult) -> Line:
    title = f"{result.title} *" if result.white_box else result.title
    figures = (result.asr, result.refused, result.youden, result.auroc, result.comprehension)
    return (title, *(_cell(figure) for figure in figures), str(result.unscored))


def _mean(group: Group, means: Mapping[str, Figure]) -> Line:
    names = (f"asr_{group}", HARMLESS_MEANS[group], f"youden_{group}", f"auroc_{group}")
    return ("mean", *(_cell(means.get(name)) for name in names), "", "")


def _cell(figure: Figure | None) -> str:
    """Without the count of unscored answers, which has a column of its own."""
    if figure is None or not (figure.n or figure.unscored):
        return "-"
    return interval(figure.model_copy(update={"unscored": 0})) if figure.n else "not scored"
