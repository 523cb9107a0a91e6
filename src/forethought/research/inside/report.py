"""A look inside a model, from its name to its figures, its lines at the terminal, its plots and its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forethought.attacks.catalogue import BY_RULE, DIRECT, parse_attack, seen_in_training
from forethought.data.evolve import load_operators
from forethought.data.sources import SourceSpec, load_requests
from forethought.manifest import input_hashes
from forethought.metrics import Figure
from forethought.model import load_local
from forethought.progress import Progress
from forethought.report.page import (
    INK,
    LIGHT,
    LINE,
    SERIES,
    SOFT,
    Plot,
    Series,
    axes_of,
    dots,
    errors,
    told,
    write_page,
)
from forethought.report.results import write_results
from forethought.report.tables import TITLES, interval
from forethought.research.inside.look import NEAR, Inside, Table, look_inside, texts_to_read
from forethought.research.inside.probes import Probed, weights_of
from forethought.research.inside.thoughts import (
    LOOKALIKE,
    STYLED,
    draw,
    main_group,
    need_thoughts,
    own_split,
    shipped_split,
)

SHIPPED = "shipped"


@dataclass(frozen=True)
class InsideRun:
    """What was found inside a model, and where it is written."""

    found: Inside
    results: Path
    """The figures."""
    page: Path
    plots: Path
    """Folder of the page's plots, each a file."""


def inside(
    model: str | Path,
    requests: str = SHIPPED,
    styles: Sequence[str] = (),
    *,
    limit: int = 50,
    fit_limit: int = 200,
    text_column: str | None = None,
    seed: int = 0,
    show_harmful: bool = False,
    out: Path | None = None,
    progress: Progress | None = None,
) -> InsideRun:
    """Looks at what the verdict of a model that thinks rests on; writes figures, page and plots into `out`.

    `requests` is `shipped` or a labelled set, half of whose families fit the probes. `styles` are the attacks to
    disguise requests with; none are the readable ones that the model was not trained on. At most `limit` held-out
    requests of each kind, `fit_limit` of each to fit on. `out` None is runs/inside/NAME. Raises ModelError for a model
    that doesn't think, InputError for requests without both labels.
    """
    progress = progress or Progress()
    if requests == SHIPPED:
        parts = shipped_split()
    else:
        spec = SourceSpec(path=requests, columns={"text": text_column} if text_column else {})
        parts = own_split(load_requests(spec, None, progress.mapping))
    local = load_local(model)
    need_thoughts(local)
    assert local.settings is not None
    seen = local.settings.seen_operators
    chosen = [parse_attack(name).name for name in styles] or unseen_styles(seen)
    operators = {name: one for name, one in load_operators().items() if name in seen}
    sample = draw(parts, chosen, limit, fit_limit, operators, seed)
    with progress.bar("inside") as bar:
        bar.total(texts_to_read(sample, weights_of(local)))
        found = look_inside(local, sample, seed, bar.advance)
    settings = [
        ("model", Path(model).name),
        ("method", local.settings.method),
        ("requests", requests if requests == SHIPPED else Path(requests).name),
        ("styles", ", ".join(chosen) or "none"),
        ("styles seen in training", ", ".join(seen) or "none"),
        ("threshold", f"{local.settings.threshold:.2f} ({local.settings.threshold_note})"),
        ("limits", f"{limit} held-out requests of a kind, {fit_limit} to fit probes on"),
        ("seed", str(seed)),
    ]
    folder = out or Path("runs") / "inside" / Path(model).name
    run = InsideRun(found, folder / "inside.json", folder / "inside.html", folder / "plots")
    measured = [figure for figure in found.figures if figure.n or figure.unscored]
    write_results(run.results, [seed], input_hashes([requests]), measured, found.missing)
    plots = inside_plots(found)
    write_inside_page(run.page, f"A look inside {Path(model).name}", found, plots, settings, show_harmful)
    run.plots.mkdir(exist_ok=True)
    for name, plot in plots.items():
        (run.plots / f"{name}.svg").write_text(plot.alone(), encoding="utf-8")
    return run


def unseen_styles(seen: Sequence[str]) -> list[str]:
    """The readable styles of the default evaluation that training has not seen."""
    known = [parse_attack(name) for name in BY_RULE]
    return [one.name for one in known if one.readable and not seen_in_training(one, seen)]


# What tables, plots and page show.

_MOST_EXAMPLES = 24
_AREAS = {one["stem"]: one for one in TITLES.areas}
_OWN = TITLES.areas[0]["stem"]
"""The model's verdict with its own thought."""


def group_title(group: str) -> str:
    """How a group of requests is called."""
    known = {LOOKALIKE: "Look-alikes", STYLED: "Mean over styles"}
    return known.get(group) or parse_attack(group).title


def groups_of_figures(figures: Sequence[Figure]) -> list[str]:
    """Groups with an AUROC of the model's verdict: direct, look-alikes, each style, and their mean last."""
    found = [one.name.removeprefix(f"{_OWN}_") for one in figures if one.name.startswith(f"{_OWN}_")]
    order = {DIRECT.name: 0, LOOKALIKE: 1, STYLED: 3}
    return sorted(found, key=lambda group: order.get(group, 2))


def swap_lines(figures: Sequence[Figure]) -> list[tuple[str, str]]:
    """(what, figure as text) about swapped intents; none for a kind of swap that no two thoughts allowed."""
    by_name = {one.name: one for one in figures if one.n or one.unscored}
    return [(title, interval(by_name[name])) for name, title in TITLES.swaps.items() if name in by_name]


def area_lines(figures: Sequence[Figure]) -> list[tuple[str, list[str]]]:
    """(group, AUROC of each verdict and probe as text)."""
    by_name = {one.name: one for one in figures}
    return [
        (group_title(group), [interval(by_name.get(f"{stem}_{group}")) for stem in _AREAS])
        for group in groups_of_figures(figures)
    ]


def solved_groups(figures: Sequence[Figure]) -> list[str]:
    """Styles that have to be solved, and their mean where there are several; none where no thought solved one."""
    stem = "inside_solved_auroc_own_"
    found = [one.name.removeprefix(stem) for one in figures if one.name.startswith(stem)]
    return found if len(found) > 2 else [group for group in found if group != STYLED]


def solved_lines(figures: Sequence[Figure]) -> list[tuple[str, list[str]]]:
    """(how the verdict was read, AUROC, share that flips and mean change of the log-odds as text), in the mean over
    styles."""
    by_name = {one.name: one for one in figures}
    stems = [f"inside_solved_{what}_{{}}_{STYLED}" for what in ("auroc", "flip", "shift")]
    return [
        (title, [interval(by_name.get(stem.format(reading))) for stem in stems])
        for reading, title in TITLES.readings.items()
        if stems[0].format(reading) in by_name
    ]


def inside_plots(inside: Inside) -> dict[str, Plot]:
    """The plots by name; those that there is nothing to draw for are left out."""
    by_name = {one.name: one for one in inside.figures}
    groups, group = groups_of_figures(inside.figures), main_group([one.asked for one in inside.thoughts])
    drawn = {
        "swaps": swap_bars(by_name) if inside.swaps else None,
        "failures": failure_bars(inside.tables) if inside.tables else None,
        "layers": layer_lines(inside.probed, by_name, group) if inside.probed else None,
        "areas": area_dots(by_name, groups) if groups else None,
        **solved_plots(by_name, solved_groups(inside.figures)),
    }
    return {name: plot for name, plot in drawn.items() if plot is not None}


def swap_bars(figures: Mapping[str, Figure]) -> Plot:
    """Shares of verdicts that change sides: with an intent from the other side, and from the request's own."""
    bars = [one for one in TITLES.bars if one["stem"] in figures and figures[one["stem"]].n]
    shares, titles = [figures[one["stem"]] for one in bars], [one["title"] for one in bars]

    def draw() -> Any:
        canvas, axis = axes_of(0.5 * len(bars) + 0.9)
        axis.barh(
            range(len(bars)), [one.value for one in shares], 0.6, xerr=errors(shares),
            color=[LIGHT[one["colour"]] for one in bars], alpha=0.6, error_kw={"ecolor": INK, "elinewidth": 0.8},
        )  # fmt: skip
        axis.set_yticks(range(len(bars)), titles)
        axis.invert_yaxis()
        axis.set_xlim(0, 1)
        axis.set_xlabel("share of verdicts that change sides")
        return canvas

    return Plot("swaps", f"Shares of verdicts that change sides: {told(titles, shares)}.", draw)


def failure_bars(tables: Sequence[Table]) -> Plot:
    """One bar a style and label, divided by the two by two table."""

    def draw() -> Any:
        canvas, axis = axes_of(0.34 * len(tables) + 1.3)
        starts = [0.0] * len(tables)
        for cell in TITLES.failures:
            shares = [getattr(table, cell["stem"]) / max(1, sum(table.counts)) for table in tables]
            axis.barh(range(len(tables)), shares, 0.7, left=starts, color=LIGHT[cell["colour"]], label=cell["title"])
            starts = [start + share for start, share in zip(starts, shares, strict=True)]
        axis.set_yticks(range(len(tables)), [table.title for table in tables])
        axis.invert_yaxis()
        axis.set_xlim(0, 1)
        axis.set_xlabel("share of requests")
        canvas.legend(loc="outside upper left", ncols=3)
        return canvas

    right = "; ".join(f"{one.title} {one.both_right} of {sum(one.counts)}" for one in tables)
    return Plot("failures", f"Where requests fail, by style and label. Intent and verdict right: {right}.", draw)


def layer_lines(probed: Sequence[Probed], figures: Mapping[str, Figure], group: str) -> Plot:
    """AUROC of each probe by layer on a group of held-out requests; the model's own verdict there as a line across."""
    own = figures.get(f"{_OWN}_{group}")
    lines = [(one, _AREAS[f"inside_probe_{one.position}_{one.weights}"]) for one in probed]

    def draw() -> Any:
        canvas, axis = axes_of(3.6)
        for one, look in lines:
            areas = list(one.by_layer.values())
            colour, mark = LIGHT[look["colour"]], look["mark"]
            axis.plot(list(one.by_layer), areas, color=colour, marker=mark, markersize=4, label=look["title"])
        if own is not None and own.n:
            axis.axhline(own.value, color=SOFT, linewidth=1, linestyle="--", label="the model's own verdict")
        axis.set_xticks(sorted({layer for one in probed for layer in one.by_layer}))
        axis.set_xlabel("layer")
        axis.set_ylabel(f"AUROC, {group_title(group).lower()}")
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return canvas

    best = "; ".join(f"{look['title']} {max(one.by_layer.values()):.2f}" for one, look in lines)
    return Plot("layers", f"AUROC of probes by layer, {group_title(group).lower()}. At their best layer: {best}.", draw)


def area_dots(figures: Mapping[str, Figure], groups: Sequence[str]) -> Plot:
    """AUROC of verdicts and probes by group of requests, with intervals."""
    series = [
        Series(
            one["title"], LIGHT[one["colour"]], one["mark"], [figures.get(f"{one['stem']}_{group}") for group in groups]
        )
        for one in TITLES.areas
    ]
    titles = [group_title(group) for group in groups]

    def draw() -> Any:
        canvas, axis = axes_of(0.75 * len(groups) + 1.8)
        axis.axvline(0.5, color=LINE, linewidth=1)
        dots(axis, titles, series, 0.1)
        axis.set_xlabel("AUROC, harmful against harmless")
        canvas.legend(loc="outside upper left", ncols=3)
        return canvas

    own = told(titles, series[0].figures)
    return Plot("areas", f"AUROC of verdicts and probes by group. Verdict with its own thought: {own}.", draw)


def solved_plots(figures: Mapping[str, Figure], groups: Sequence[str]) -> dict[str, Plot | None]:
    """What changing the solved text does, where along the thought harm shows, and tokens against k."""
    ks = sorted(int(name.rpartition("_k")[2]) for name in figures if name.startswith("inside_solved_tokens_k"))
    probed = f"inside_solved_probe_prompt_{STYLED}" in figures
    return {
        "changes": change_dots(figures, groups) if groups else None,
        "along": along_lines(figures, groups) if probed else None,
        "tokens": token_line(figures, ks) if len(ks) > 1 else None,
    }


def _by_group(figures: Mapping[str, Figure], groups: Sequence[str], stem: str, rows: Mapping[str, str]) -> list[Series]:
    """A series a group, its figures `inside_solved_STEM_ROW_GROUP`."""
    return [
        Series(
            group_title(group), SERIES[number % len(SERIES)], "osv^<>"[number % 6],
            [figures.get(f"inside_solved_{stem}_{row}_{group}") for row in rows],
        )
        for number, group in enumerate(groups)
    ]  # fmt: skip


def change_dots(figures: Mapping[str, Figure], groups: Sequence[str]) -> Plot:
    """AUROC of the verdict by how it was read, and the share of verdicts that flip."""
    titles = list(TITLES.readings.values())
    areas, flips = (_by_group(figures, groups, stem, TITLES.readings) for stem in ("auroc", "flip"))

    def draw() -> Any:
        canvas, (left, right) = axes_of(0.35 * len(titles) + 0.12 * len(titles) * len(groups) + 1.0, 2)
        left.axvline(0.5, color=LINE, linewidth=1)
        for axis, series, label in (
            (left, areas, "AUROC, harmful against harmless"),
            (right, flips, "share of verdicts that flip"),
        ):
            dots(axis, titles, series, 0.12)
            axis.set_xlim(-0.02, 1.02)
            axis.set_xlabel(label)
        canvas.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=3)
        return canvas

    return Plot("changes", f"AUROC by what stands for the solved text: {told(titles, areas[-1].figures)}.", draw)


def along_lines(figures: Mapping[str, Figure], groups: Sequence[str]) -> Plot:
    """AUROC of a probe by where along the thought it reads."""
    titles = list(TITLES.along.values())
    series = _by_group(figures, groups, "probe", TITLES.along)

    def draw() -> Any:
        canvas, axis = axes_of(3.6)
        for number, one in enumerate(series):
            drawn = [(at, figure) for at, figure in enumerate(one.figures) if figure is not None and figure.n]
            axis.errorbar(
                [at + 0.04 * number for at, _ in drawn], [figure.value for _, figure in drawn],
                yerr=errors([figure for _, figure in drawn]), marker=one.mark, markersize=5, color=one.colour,
                elinewidth=1, label=one.label,
            )  # fmt: skip
        axis.axhline(0.5, color=LINE, linewidth=1)
        axis.set_xticks(range(len(titles)), [title.replace(" ", "\n", 1) for title in titles])
        axis.set_ylabel("AUROC of a probe")
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return canvas

    return Plot("along", f"AUROC of probes along the thought: {told(titles, series[-1].figures)}.", draw)


def token_line(figures: Mapping[str, Figure], ks: Sequence[int]) -> Plot:
    """Tokens of a thought against the steps of work; below each its time, times that of the plain request."""
    tokens, times = ([figures[f"inside_solved_{what}_k{k}"] for k in ks] for what in ("tokens", "seconds"))

    def draw() -> Any:
        canvas, axis = axes_of(3.0)
        values = [one.value for one in tokens]
        axis.errorbar(ks, values, yerr=errors(tokens), color=LIGHT["one"], marker="o", markersize=5, elinewidth=1)
        axis.set_xticks(ks, [f"k = {k}\n{one.value:.2f} times the time" for k, one in zip(ks, times, strict=True)])
        axis.set_ylim(bottom=0)
        axis.set_ylabel("tokens of a thought")
        return canvas

    return Plot("tokens", f"Tokens of a thought by steps of work: {told([f'k = {k}' for k in ks], tokens)}.", draw)


def write_inside_page(
    path: Path,
    title: str,
    inside: Inside,
    plots: Mapping[str, Plot],
    settings: Sequence[tuple[str, str]] = (),
    show_harmful: bool = False,
) -> None:
    """Writes the page, whole or not at all. `plots` is what `inside_plots` drew."""
    across = [swap for swap in inside.swaps if swap.crosses]
    write_page(
        path,
        "inside",
        title,
        show_harmful=show_harmful,
        plots=plots,
        swaps=swap_lines(inside.figures),
        n_swaps=len(inside.swaps),
        tables=[(table.title, table.counts) for table in inside.tables],
        near=f"{NEAR:.2f}",
        probed=inside.probed,
        headings=[one["title"] for one in TITLES.areas],
        areas=area_lines(inside.figures),
        solved=solved_lines(inside.figures),
        missing=sorted(inside.missing.items()),
        without=sum(one.log_odds is None for one in inside.thoughts),
        n_thoughts=len(inside.thoughts),
        examples=across[:: max(1, len(across) // _MOST_EXAMPLES)][:_MOST_EXAMPLES],
        group_title=group_title,
        settings=settings,
    )
