"""The rows of the tables of comparisons and attack runs, shared by terminal and page."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from forethought.attacks.catalogue import parse_attack
from forethought.errors import ConfigError
from forethought.metrics import Figure
from forethought.report.attack_figures import HARMLESS_MEANS, MEANS, AttackReport, SearchResult
from forethought.yamlfile import shipped_yaml

TITLES = SimpleNamespace(**shipped_yaml("report/titles.yaml", dict[str, Any]))
"""How tables, plots and pages call systems, figures, groups and columns: `titles.yaml`."""
Rows = list[tuple[str, list[Figure | None]]]
Line = tuple[str, ...]


def table_rows(figures: Sequence[Figure], systems: Sequence[str], table: str = "rows") -> Rows:
    """(title, one figure a system or None where it was not measured), rows without any figure left out.

    `table` is `rows`, or `reasoning_rows` for what is measured on the thoughts themselves.
    """
    by_name, titles = {figure.name: figure for figure in figures}, getattr(TITLES, table)
    if table == "rows":
        titles = titles | ability_titles(by_name, systems)
    rows = [(title, [by_name.get(f"{stem}_{system}") for system in systems]) for stem, title in titles.items()]
    return [(title, cells) for title, cells in rows if any(cells)]


def ability_titles(names: Collection[str], systems: Sequence[str]) -> dict[str, str]:
    """Titles of what was measured on question files, by the stem of the figures' names."""
    found: dict[str, str] = {}
    for name in names:
        for system in systems:
            stem = name.removesuffix(f"_{system}")
            if stem == name or not stem.startswith("capability_") or "capability_refused_" in stem:
                continue
            asked = stem.removeprefix("capability_")
            if f"capability_refused_{asked}_{system}" in names:
                found[stem] = f"Right on {asked}, refused is wrong (high)"
                found[f"capability_refused_{asked}"] = f"Refused of {asked} (low)"
    return found


def interval(figure: Figure | None, decimals: int = 2) -> str:
    """A figure as text: value, interval, and how many answers went unscored. `decimals` are those of a share."""
    if figure is None:
        return "-"
    digits = 1 if figure.unit in {"tokens", "minutes", "GiB"} else decimals
    if figure.value != figure.value:  # nan: nothing was scored
        return f"not measured, {figure.unscored} unscored"
    text = f"{figure.value:.{digits}f}" if figure.value < 1000 else f"{figure.value:,.0f}"
    if figure.low is not None and figure.high is not None:
        text += f" ({figure.low:.{digits}f} to {figure.high:.{digits}f})"
    return text + (f", {figure.unscored} unscored" if figure.unscored else "")


def titled(stem: str) -> str:
    """What a figure is called, without which end of it is good; its own name where nothing else is said."""
    for beginning, words in (
        ("capability_refused_", "Refused of {}"),
        ("capability_", "Right on {}, refused is wrong"),
    ):
        if stem.startswith(beginning):
            return words.format(stem.removeprefix(beginning))
    columns = {column["stem"]: column["long"] for column in TITLES.columns}
    title = {**TITLES.further, **TITLES.reasoning_rows, **TITLES.rows, **columns}.get(stem, stem)
    return str(title).removesuffix(" (low)").removesuffix(" (high)")


def sign_of(difference: Figure) -> int:
    """1 for a gain, -1 for a loss, 0 where the interval holds both, or there is none."""
    low, high = difference.low, difference.high
    if low is None or high is None or math.isnan(difference.value):
        return 0
    return (low > 0) - (high < 0)


def gain(difference: Figure | None) -> str:
    """A difference as text, with its interval; a dash where it was not measured."""
    if difference is None or math.isnan(difference.value):
        return "-"
    text, low, high = f"{difference.value:+.2f}", difference.low, difference.high
    return text if low is None or high is None else f"{text} ({low:+.2f} to {high:+.2f})"


def attack_title(name: str) -> str:
    """What an attack is called; its name where it is not among ours, such as one of another version's log."""
    try:
        return parse_attack(name).title
    except ConfigError:
        return name


def sections(report: AttackReport) -> list[tuple[str, list[Line]]]:
    """(title, lines) by group; the mean of a group that has one ends it, and empty groups are left out."""
    means = {figure.name: figure for figure in report.means}
    found = []
    for group, title in TITLES.groups.items():
        lines: list[Line] = []
        for one in report.of(group):
            figures = (one.asr, one.refused, one.youden, one.auroc, one.comprehension)
            lines.append((f"{one.title}{' *' * one.white_box}", *map(_cell, figures), str(one.unscored)))
        if lines and group in MEANS:
            names = (f"asr_{group}", HARMLESS_MEANS[group], f"youden_{group}", f"auroc_{group}")
            lines.append(("mean", *(_cell(means.get(name)) for name in names), "", ""))
        if lines:
            found.append((title, lines))
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


def _cell(figure: Figure | None) -> str:
    """Without the count of unscored answers, which has a column of its own."""
    if figure is None or not (figure.n or figure.unscored):
        return "-"
    return interval(figure.model_copy(update={"unscored": 0})) if figure.n else "not scored"
