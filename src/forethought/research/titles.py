"""How tables, plots and pages call things: `titles.yaml`."""

from __future__ import annotations

from pathlib import Path

from forethought.records import Record
from forethought.report.page import LIGHT
from forethought.yamlfile import parse_yaml


class Column(Record):
    """A figure as a column of a sweep's table."""

    stem: str
    """Name of the figure."""
    short: str
    """Heading at the terminal."""
    long: str
    """Heading on the page."""


class Mark(Record):
    """How a figure is drawn."""

    stem: str
    colour: str
    """By its name in the palette."""
    mark: str = ""
    title: str

    @property
    def drawn(self) -> str:
        """Its colour as plots need it."""
        return LIGHT[self.colour]


class _Titles(Record):
    columns: tuple[Column, ...]
    stacked: tuple[tuple[str, str, str], ...]
    counted: dict[str, str]
    ladder_page: dict[str, str]
    ladder_table: dict[str, str]
    swaps: dict[str, str]
    bars: tuple[Mark, ...]
    failures: tuple[Mark, ...]
    areas: tuple[Mark, ...]
    attacks: dict[str, str]
    defences: dict[str, str]


_FILE = Path(__file__).with_name("titles.yaml")
TITLES = parse_yaml(_FILE.read_text(encoding="utf-8"), _FILE.name, "file of titles", _Titles, "titles", "docs/sweep.md")
