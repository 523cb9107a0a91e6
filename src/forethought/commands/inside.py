"""`forethought inside`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from forethought.commands.shared import quiet
from forethought.commands.terminal import console

if TYPE_CHECKING:
    from forethought.models.settings import Settings
    from forethought.records import Request, Split
    from forethought.research.inside.look import Inside

SHIPPED = "shipped"
FIGURES, PAGE, PLOTS = "inside.json", "inside.html", "plots"


def inside(
    model: str,
    requests: str,
    styles: Sequence[str],
    limit: int,
    fit_limit: int,
    text_column: str | None,
    seed: int,
    show_harmful: bool,
    out: Path | None,
) -> None:
    """Looks inside a model that thinks; prints the tables and writes figures and page.

    Raises ModelError for a model that doesn't think, InputError for requests without both labels.
    """
    quiet()
    from forethought.commands.terminal import Terminal
    from forethought.data.evolve import load_operators
    from forethought.model import load_local
    from forethought.research.inside.look import look_inside, texts_to_read, weights_of
    from forethought.research.inside.sample import draw
    from forethought.research.inside.thoughts import need_thoughts

    parts = _parts(requests, text_column)
    local = load_local(model)
    need_thoughts(local)
    assert local.settings is not None
    chosen = _styles(styles, local.settings)
    operators = {name: one for name, one in load_operators().items() if name in local.settings.seen_operators}
    sample = draw(parts, chosen, limit, fit_limit, operators, seed)
    with Terminal(console).bar("inside") as bar:
        bar.total(texts_to_read(sample, weights_of(local)))
        found = look_inside(local, sample, seed, bar.advance)
    _show(found)
    folder = out or Path("runs") / "inside" / Path(model).name
    settings = _described(model, requests, chosen, local.settings, limit, fit_limit, seed)
    _write(folder, found, requests, settings, seed, show_harmful)


def _parts(requests: str, text_column: str | None) -> dict[Split, list[Request]]:
    from forethought.data.sources import SourceSpec, load_requests
    from forethought.research.inside.sample import own_split, shipped_split

    if requests == SHIPPED:
        return shipped_split()
    spec = SourceSpec(path=requests, columns={"text": text_column} if text_column else {})

    def say(name: str, mapping: object) -> None:
        console.print(escape(f"{name}: {mapping}"), highlight=False)

    return own_split(load_requests(spec, None, say))


def _styles(styles: Sequence[str], settings: Settings) -> list[str]:
    """The styles asked for, else the readable ones of the default evaluation that training has not seen."""
    from forethought.attacks.catalogue import BY_RULE, parse_attack, seen_in_training

    if styles:
        return [parse_attack(name).name for name in styles]
    known = [parse_attack(name) for name in BY_RULE]
    return [one.name for one in known if one.readable and not seen_in_training(one, settings.seen_operators)]


def _show(found: Inside) -> None:
    from forethought.research.pages.inside import AREAS, area_lines, swap_lines, table_title

    swaps = Table("Does the verdict follow the stated intent?", "", caption="95 % intervals", caption_justify="left")
    for name, value in swap_lines(found.figures):
        swaps.add_row(name, value)
    failures = Table("Where requests fail", "both right", "intent wrong", "verdict wrong", "both wrong", "no verdict")
    for one in found.tables:
        counts = (one.both_right, one.intent_wrong, one.verdict_wrong, one.both_wrong, one.unscored)
        failures.add_row(table_title(one), *map(str, counts))
    if swaps.row_count:
        console.print(swaps)
    else:
        console.print("No intent could be swapped: right verdicts with a stated intent all stand on one side.")
    console.print(failures)
    lines = area_lines(found.figures)
    areas = Table("AUROC", *(name for name, _ in lines[:2]), *(name for name, _ in lines[-1:] if len(lines) > 2))
    for number, (*_, title) in enumerate(AREAS):
        shown = [cells[number] for _, cells in (*lines[:2], *(lines[-1:] if len(lines) > 2 else ()))]
        areas.add_row(title, *shown)
    console.print(areas)
    for name, why in found.missing.items():
        console.print(f"Not measured: {name}, {why}", highlight=False)


def _described(
    model: str, requests: str, styles: Sequence[str], settings: Settings, limit: int, fit_limit: int, seed: int
) -> list[tuple[str, str]]:
    return [
        ("model", Path(model).name),
        ("method", settings.method),
        ("requests", requests if requests == SHIPPED else Path(requests).name),
        ("styles", ", ".join(styles) or "none"),
        ("styles seen in training", ", ".join(settings.seen_operators) or "none"),
        ("threshold", f"{settings.threshold:.2f} ({settings.threshold_note})"),
        ("limits", f"{limit} held-out requests of a kind, {fit_limit} to fit probes on"),
        ("seed", str(seed)),
    ]


def _write(
    folder: Path, found: Inside, requests: str, settings: list[tuple[str, str]], seed: int, show_harmful: bool
) -> None:
    from forethought.manifest import file_hash
    from forethought.report.results import write_results
    from forethought.research.pages.inside import InsidePage, inside_plots, write_inside_page

    file = Path(requests)
    inputs = {file.name: file_hash(file)} if file.is_file() else {}
    kept = [figure for figure in found.figures if figure.n or figure.unscored]
    write_results(folder / FIGURES, [seed], inputs, kept, found.missing)
    title = f"A look inside {dict(settings)['model']}"
    plots = inside_plots(found)
    write_inside_page(folder / PAGE, InsidePage(title, found, settings, show_harmful), plots)
    (folder / PLOTS).mkdir(exist_ok=True)
    for name, plot in plots.items():
        (folder / PLOTS / f"{name}.svg").write_text(plot.alone(), encoding="utf-8")
    told = f"Figures: {folder / FIGURES}\nPage: {folder / PAGE}\nPlots by themselves: {folder / PLOTS}"
    console.print(told, highlight=False, soft_wrap=True)
