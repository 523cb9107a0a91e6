"""`forethought over-refusal`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from forethought.commands.shared import column_overrides, quiet
from forethought.commands.terminal import console
from forethought.errors import ConfigError

if TYPE_CHECKING:
    from forethought.evaluation.over_refusal import OverRefusalSet
    from forethought.metrics import Figure


def over_refusal(
    model: str,
    files: Sequence[str],
    styles: bool,
    limit: int | None,
    columns: Sequence[str],
    defence: str | None,
    max_tokens: int,
    seed: int,
    out: Path | None,
) -> None:
    """Puts every request of the files to a model, plain and disguised, and reports what is refused."""
    quiet()
    from forethought.attacks.catalogue import BY_RULE, DIRECT
    from forethought.attempts.respond import run_defence
    from forethought.commands.terminal import Terminal
    from forethought.evaluation.over_refusal import load_set, over_refusal_figures, plan, unscored_causes
    from forethought.manifest import key_of
    from forethought.model import load

    sets = [load_set(file, column_overrides(columns)) for file in files]
    if len({one.name for one in sets}) < len(sets):
        raise ConfigError(", ".join(files), "two files have the same name", "Rename one: figures carry the names")
    for one in sets:
        counts = ", ".join(f"{len(one.labelled(label))} {word}" for label, word in _LABELS if one.labelled(label))
        console.print(escape(f"{one.name}: {counts} ({one.columns})"), highlight=False)
    names = BY_RULE if styles else ()
    attempts = plan(sets, names, limit, seed)
    opened = load(model, defence=defence)
    system = "base" if opened.settings is None else "defended"
    folder = out.with_name(f"{out.stem}-logs") if out else Path("runs") / "over-refusal"
    # Whatever changes an answer names the folder: another model or plan never reads these logs.
    told = [model, defence, opened.files, max_tokens, [one.id for one in attempts]]
    log_dir = folder / key_of(told)
    with Terminal(console).bar("over-refusal") as bar:
        bar.total(len(attempts))
        judged = run_defence(
            system, opened.respondent, attempts, log_dir, max_answer_tokens=max_tokens, on_progress=bar.advance
        )
    figures = over_refusal_figures(system, judged)
    _show(sets, figures, (DIRECT.name, *names), system)
    for cause, count in unscored_causes(judged).items():
        console.print(f"Unscored: {count}, {cause}", highlight=False)
    console.print(f"Answers: inspect view --log-dir {log_dir}", highlight=False, soft_wrap=True)
    if out is not None:
        _write(out, files, figures, seed)


_LABELS = ((False, "harmless"), (True, "harmful"), (None, "unlabelled"))


def _show(sets: Sequence[OverRefusalSet], figures: Sequence[Figure], styles: Sequence[str], system: str) -> None:
    from forethought.attacks.catalogue import parse_attack
    from forethought.report.tables import interval

    by_name = {figure.name: figure for figure in figures}
    caption = "Share refused, in full or in part; 95 % intervals in brackets"
    table = Table("set", "style", "harmless refused (low)", "in part", "harmful refused (high)", caption=caption)
    for one in sets:
        for style in styles:
            stem = f"{one.name}_{style}"
            cells = [
                interval(by_name.get(f"refused_{stem}_harmless_{system}")),
                interval(by_name.get(f"partial_{stem}_harmless_{system}")),
                interval(by_name.get(f"refused_{stem}_harmful_{system}")),
            ]
            title = parse_attack(style).title + ("" if parse_attack(style).readable else " (hard to read)")
            table.add_row(one.name if style == styles[0] else "", title, *cells)
        kinds = {name: figure for name, figure in by_name.items() if name.startswith(f"refused_{one.name}_kind_")}
        for name, figure in sorted(kinds.items(), key=lambda pair: -pair[1].value):
            table.add_row("", f"  {_kind_title(name, one.name, system)}", interval(figure), "", "", style="dim")
    console.print(table)


def _kind_title(name: str, set_name: str, system: str) -> str:
    return name.removeprefix(f"refused_{set_name}_kind_").removesuffix(f"_{system}").replace("_", " ")


def _write(out: Path, files: Sequence[str], figures: Sequence[Figure], seed: int) -> None:
    from forethought.manifest import file_hash
    from forethought.report.results import write_results

    inputs = {Path(file).name: file_hash(Path(file)) for file in files if Path(file).is_file()}
    write_results(out, [seed], inputs, figures)
    console.print(f"Figures: {out}", highlight=False, soft_wrap=True)
