"""A look inside a model, from its name to figures, page and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forethought.attacks.catalogue import BY_RULE, parse_attack, seen_in_training
from forethought.data.evolve import load_operators
from forethought.data.sources import SourceSpec, load_requests
from forethought.manifest import input_hashes
from forethought.model import load_local
from forethought.progress import Progress
from forethought.records import Request, Split
from forethought.report.results import write_results
from forethought.research.inside.look import Inside, look_inside, texts_to_read, weights_of
from forethought.research.inside.sample import draw, own_split, shipped_split
from forethought.research.inside.thoughts import need_thoughts
from forethought.research.pages.inside import InsidePage, inside_plots, write_inside_page

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
    parts = _parts(requests, text_column, progress)
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
    page = InsidePage(f"A look inside {Path(model).name}", found, settings, show_harmful)
    write_inside_page(run.page, page, plots)
    run.plots.mkdir(exist_ok=True)
    for name, plot in plots.items():
        (run.plots / f"{name}.svg").write_text(plot.alone(), encoding="utf-8")
    return run


def unseen_styles(seen: Sequence[str]) -> list[str]:
    """The readable styles of the default evaluation that training has not seen."""
    known = [parse_attack(name) for name in BY_RULE]
    return [one.name for one in known if one.readable and not seen_in_training(one, seen)]


def _parts(requests: str, text_column: str | None, progress: Progress) -> dict[Split, list[Request]]:
    if requests == SHIPPED:
        return shipped_split()
    spec = SourceSpec(path=requests, columns={"text": text_column} if text_column else {})
    return own_split(load_requests(spec, None, progress.mapping))
