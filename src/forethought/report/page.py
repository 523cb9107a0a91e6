"""The one renderer of pages: self-contained HTML files that open without a network, for light, dark, narrow and print.

Each kind of page has a template that extends `base.html.j2` and gives it sections. Redaction is the default wherever a
person reads a harmful request or an answer to one (`redaction.py`). `palette.yaml` has the colours of pages and plots.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from forethought.manifest import write_whole
from forethought.metrics import Figure
from forethought.redaction import shown
from forethought.report.tables import attack_title, interval, titled
from forethought.yamlfile import shipped_yaml

_PALETTE = shipped_yaml("report/palette.yaml", dict[str, dict[str, str]])
LIGHT, DARK = _PALETTE["light"], _PALETTE["dark"]
INK, SOFT, LINE, BACK = (LIGHT[name] for name in ("ink", "soft", "line", "back"))
ONE, BEST = LIGHT["one"], LIGHT["best"]
"""What a plot is about, and what stands out from it."""
HARMFUL, HARMLESS = LIGHT["harmful"], LIGHT["harmless"]
GREEN, PURPLE, AMBER, TEAL, PINK = (LIGHT[name] for name in ("green", "purple", "amber", "teal", "pink"))
SERIES = (ONE, HARMFUL, PURPLE, GREEN, AMBER, TEAL, PINK, SOFT)
"""For lines that have no meaning of their own."""


def write_page(path: Path, template: str, title: str, **content: Any) -> None:
    """Renders a template into `path`, whole or not at all."""
    page = _environment().get_template(f"{template}.html.j2")
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    write_whole(path, page.render(title=title, made=made, light=LIGHT, dark=DARK, **content))


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("forethought.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    found.filters |= {
        "attack": attack_title, "breakable": _breakable, "interval": interval,
        "number": "{:,}".format, "p_value": _p_value, "shown": shown, "stacked": _stacked,
        "titled": titled,
    }  # fmt: skip
    return found


def _breakable(name: str) -> Markup:
    """A name that may break after an underscore, so that it leaves room on a narrow screen."""
    return escape(name).replace("_", Markup("_<wbr>"))


def _stacked(text: str) -> Markup:
    """A figure as text with the count of its unscored answers below it."""
    value, comma, rest = text.partition(", ")
    return escape(value) + Markup('<span class="small">{}</span>').format(rest) if comma else escape(value)


def _p_value(p: float | None) -> str:
    return "-" if p is None or p != p else "below 0.001" if p < 0.001 else f"{p:.3f}"


# Plots as SVG: inside a page, in its colours and without a network, or as files of their own.

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "text.parse_math": False,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": SOFT,
    "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "figure.facecolor": "none", "axes.facecolor": "none", "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 10.0, "axes.titlelocation": "left", "axes.axisbelow": True,
    "grid.color": LINE, "grid.linewidth": 0.6, "legend.frameon": False, "legend.fontsize": 9.0,
    "font.size": 9.0, "axes.labelsize": 9.0,
}  # fmt: skip


class Plot(NamedTuple):
    """A plot that can be drawn for a page or for a file."""

    name: str
    """Goes into the ids inside the SVG: no two plots of a page may share one."""
    alt: str
    """A text in its place for those who can't see it."""
    draw: Callable[[], Any]
    """Makes the figure, by `axes_of`."""

    def inline(self) -> str:
        """For inside a page, in the colours of the page around it."""
        text = self._svg({})
        for name, colour in LIGHT.items():
            text = text.replace(colour, f"var(--{name})")
        return text

    def alone(self) -> str:
        """As a file of its own: dark on white wherever it is shown, and its words drawn, since fonts differ."""
        return self._svg({"figure.facecolor": "white", "svg.fonttype": "path"})

    def _svg(self, settings: Mapping[str, Any]) -> str:
        whole: Any = {**_STYLE, "svg.hashsalt": self.name, **settings}
        out = io.StringIO()
        import matplotlib

        with matplotlib.rc_context(whole):
            self.draw().savefig(out, format="svg", metadata={"Date": None})
        text = out.getvalue()
        return text[text.index("<svg") :].replace("<svg ", f'<svg role="img" aria-label="{escape(self.alt)}" ', 1)


class Series(NamedTuple):
    """What is drawn in one colour and with one mark, a figure a row or None."""

    label: str
    colour: str
    mark: str
    figures: Sequence[Figure | None]


def axes_of(height: float, panels: int = 1, rows: int = 1) -> tuple[Any, Any]:
    """A figure of that height in inches and ten wide, and its axes: those of a row share the vertical one."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(10, height), layout="constrained")
    return canvas, canvas.subplots(rows, panels, sharey="row")


def errors(figures: Sequence[Figure]) -> list[list[float]]:
    """Distances to the ends of the intervals; none where an end is missing."""
    below = [0.0 if one.low is None else max(0.0, one.value - one.low) for one in figures]
    above = [0.0 if one.high is None else max(0.0, one.high - one.value) for one in figures]
    return [below, above]


def dots(axis: Any, rows: Sequence[str], series: Sequence[Series], apart: float) -> None:
    """Dots with their intervals, a row below the other; the series of a row lie that far apart, a row being 1."""
    for number, one in enumerate(series):
        middle = apart * (number - (len(series) - 1) / 2)
        drawn = [(row + middle, figure) for row, figure in enumerate(one.figures) if figure is not None and figure.n]
        if drawn:
            axis.errorbar(
                [figure.value for _, figure in drawn], [place for place, _ in drawn],
                xerr=errors([figure for _, figure in drawn]), fmt=one.mark, markersize=5, color=one.colour,
                elinewidth=1, alpha=0.9, label=one.label,
            )  # fmt: skip
    axis.set_yticks(range(len(rows)), rows)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(axis="y")


def told(names: Sequence[str], figures: Sequence[Figure | None]) -> str:
    """Names with their values, for the text in a plot's place."""
    pairs = zip(names, figures, strict=True)
    return "; ".join(f"{name} {figure.value:.2f}" for name, figure in pairs if figure is not None and figure.n)
