"""Prints the tables of docs/results.md from a results file of a sweep: a line a defence, in the order of the file.

python benchmarks/tables.py results/defences.json
python benchmarks/tables.py results/study.json --columns auroc_unseen youden_unseen --intervals auroc_unseen
python benchmarks/tables.py results/study.json --goals recipes/study.yaml
python benchmarks/tables.py results/ladder.json --ladder recipes/ladder
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from forethought.metrics import Figure
from forethought.report.figures import BASE
from forethought.research.config import MethodEntry, load_sweep, wrapper_label
from forethought.research.ladder import load_ladder
from forethought.research.rows import gain, turned
from forethought.research.table import goal_lines, reached

HEADINGS = {
    "auroc_unseen": "AUROC",
    "youden_unseen": "Youden's J",
    "asr_unseen": "attack success",
    "refused_styled_harmless": "harmless refused",
    "asr_matched": "success at equal false refusals",
    "asr_direct": "direct",
    "asr_reasoning": "on reasoning",
    "asr_gcg": "GCG",
    "asr_best_of_n": "best of N",
    "refused_lookalike": "look-alikes refused",
    "refused_ordinary": "ordinary refused",
    "capability": "short questions right",
    "auroc_direct": "AUROC, direct",
    "auroc_lookalike": "AUROC, look-alikes",
    "auroc_heldout_rules": "AUROC, unseen domains",
    "rule_named_right": "rule named right",
    "rule_named_right_heldout": "the same, unseen domains",
    "reasoning_tokens_harmless": "tokens of thought, harmless",
}
FIRST = ("auroc_unseen", "youden_unseen", "asr_unseen", "refused_styled_harmless", "asr_matched")
SECOND = ("asr_direct", "asr_reasoning", "asr_gcg", "refused_lookalike", "refused_ordinary", "capability")


def figures_of(file: Path) -> dict[str, Figure]:
    """The figures of a results file by name."""
    held = json.loads(file.read_text(encoding="utf-8"))
    return {row["name"]: Figure.model_validate(row) for row in held["figures"]}


def defences_of(figures: Mapping[str, Figure]) -> list[str]:
    """Ids of the defences, by the figure that each has."""
    return [name.removeprefix("refused_ordinary_") for name in figures if name.startswith("refused_ordinary_")]


def table(
    figures: Mapping[str, Figure], defences: Sequence[str], columns: Sequence[str], intervals: Sequence[str]
) -> str:
    """A table in Markdown; figures that a defence lacks are dashes."""
    lines = [" | ".join(["| defence", *(HEADINGS.get(one, one) for one in columns)]) + " |"]
    lines.append("| --- " * (len(columns) + 1) + "|")
    for name in defences:
        cells = [_cell(figures.get(f"{column}_{name}"), column in intervals) for column in columns]
        lines.append(" | ".join([f"| `{name}`", *cells]) + " |")
    return "\n".join(lines)


def _cell(figure: Figure | None, interval: bool) -> str:
    if figure is None:
        return "-"
    value = f"{figure.value + 0.0:.2f}"
    if not interval or figure.low is None or figure.high is None:
        return value
    return f"{value} ({figure.low:.2f} to {figure.high:.2f})"


def goal_lines_of(figures: Mapping[str, Figure], file: Path) -> str:
    """The goals of a sweep's file as a table in Markdown."""
    lines = ["| goal | asked for | measured | |", "| --- | --- | --- | --- |"]
    for figure, why, asked, measured, outcome in goal_lines(reached(load_sweep(file).goals, list(figures.values()))):
        lines.append(f"| {why} (`{figure}`) | {asked} | {measured} | {outcome} |")
    return "\n".join(lines)


def ladder_tables(figures: Mapping[str, Figure], folder: Path) -> str:
    """A table in Markdown for each sweep of a ladder, with the steps that no sweep before it has."""
    told: set[str] = set()
    tables = []
    for sweep in load_ladder(folder):
        untrained = [MethodEntry(id=BASE, why="the undefended model")]
        untrained += [MethodEntry(id=wrapper_label(spec), why="around the undefended model") for spec in sweep.wrappers]
        entries = [entry for entry in (*untrained, *sweep.methods) if entry.label not in told]
        told |= {entry.label for entry in entries}
        tables.append(f"**{sweep.name}**\n\n{_rungs(figures, entries, sweep.reference or '')}")
    return "\n\n".join(tables)


def _rungs(figures: Mapping[str, Figure], entries: Sequence[MethodEntry], reference: str) -> str:
    stems = ("auroc_unseen", "youden_unseen")
    chained = any(_before(entry) not in {"", reference} for entry in entries)
    headings = ["step", "what it changes", *(f"{HEADINGS[stem]}, gain" for stem in stems)]
    headings += [f"{HEADINGS[stem]}, gain over the step before" for stem in stems] if chained else []
    plain = ("auroc_unseen", "youden_unseen", "auroc_lookalike", "refused_ordinary", "rule_named_right")
    lines = ["| " + " | ".join([*headings, *(HEADINGS[one] for one in plain)]) + " |"]
    lines.append("| --- " * (len(headings) + len(plain)) + "|")
    for entry in entries:
        name, before = entry.label, _before(entry)
        over = [figures.get(f"diff_{stem}_{reference}_vs_{name}") for stem in stems]
        cells = [gain(turned(one)) if one is not None else "-" for one in over]
        cells += [gain(figures.get(f"diff_{stem}_{name}_vs_{before}")) for stem in stems] if chained else []
        after = f" (after `{before}`)" if before not in {"", reference} else ""
        cells += [_cell(figures.get(f"{one}_{name}"), interval=False) for one in plain]
        lines.append("| " + " | ".join([f"`{name}`", entry.why + after, *cells]) + " |")
    return "\n".join(lines)


def _before(entry: MethodEntry) -> str:
    return entry.after or entry.weights_of


def main() -> None:
    """Prints the two tables, or one with the columns asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--columns", nargs="*", help="One table with these figures.")
    parser.add_argument("--goals", type=Path, help="The goals of a sweep's file, in place of the tables.")
    parser.add_argument("--ladder", type=Path, help="The steps of a ladder's folder, in place of the tables.")
    parser.add_argument("--intervals", nargs="*", default=["auroc_unseen", "youden_unseen"])
    options = parser.parse_args()
    figures = figures_of(options.results)
    if options.goals:
        print(goal_lines_of(figures, options.goals))
        return
    if options.ladder:
        print(ladder_tables(figures, options.ladder))
        return
    defences = defences_of(figures)
    for columns in [options.columns] if options.columns else [FIRST, SECOND]:
        print(table(figures, defences, columns, options.intervals), end="\n\n")


if __name__ == "__main__":
    main()
