"""What a gate decided: a page, Markdown for a pull request, JUnit for a build, JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from forethought.manifest import write_json, write_whole
from forethought.measure.gate import Change, Finding, Flip, Limits
from forethought.metrics import Figure
from forethought.redaction import shown
from forethought.report.page import write_page
from forethought.report.tables import interval

PAGE, MARKDOWN, JUNIT, JSON = "gate.html", "gate.md", "junit.xml", "gate.json"
_MOST_FLIPS = 20
_MARKS = {"kept": "ok", "broken": "**fails**", "unsure": "unsure"}


class Rates(NamedTuple):
    """One row of the table of rates."""

    title: str
    figures: Sequence[Figure | None]
    """One a system."""


@dataclass(frozen=True)
class Gate:
    """Whether something may be shipped, and why."""

    title: str
    limits: Limits
    findings: Sequence[Finding]
    """A limit each; those that fail stop the build."""
    folder: Path
    """Where page, Markdown, JUnit and JSON stand."""
    before: str = ""
    """What is compared with; empty where there is nothing."""
    after: str = ""
    changes: Sequence[Change] = ()
    """What decides, corrected together."""
    beside: Mapping[str, Sequence[Change]] = field(default_factory=dict)
    """By what was compared, differences that are shown and decide nothing."""
    flips: Sequence[Flip] = ()
    systems: Sequence[str] = ()
    rates: Sequence[Rates] = ()
    """A row a figure, a figure a system."""
    notes: Sequence[str] = ()
    """What a reader should know before the numbers."""
    show_harmful: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def failed(self) -> list[Finding]:
        """What stops the build."""
        return [one for one in self.findings if one.fails(self.limits)]

    @property
    def blocks(self) -> list[tuple[str, Sequence[Change]]]:
        """All differences, by what was compared."""
        decides = [(f"{self.after} minus {self.before}", self.changes)] if self.changes else []
        return [*decides, *self.beside.items()]

    @property
    def page(self) -> Path:
        return self.folder / PAGE

    @property
    def junit(self) -> Path:
        return self.folder / JUNIT

    @property
    def better(self) -> list[Change]:
        """What got better beyond chance."""
        return [one for one in self.changes if one.told and one.better]

    @property
    def worse(self) -> list[Change]:
        """What got worse beyond chance, also where that stops no build."""
        return [one for one in self.changes if one.told and not one.better]

    def __str__(self) -> str:
        """The sentence that decides."""
        unsure = sum(one.outcome == "unsure" for one in self.findings)
        told = f"; of {unsure} the sample is too small to tell" if unsure else ""
        if not self.findings:
            return "Nothing decides: give a limit, or something to compare with"
        if not self.failed:
            return f"May be shipped: {len(self.findings)} limits kept{told}"
        return f"Not to be shipped: {len(self.failed)} of {len(self.findings)} limits broken{told}"

    def flipped(self) -> str:
        """How many requests changed, in one line."""
        counts = Counter((one.harmful, one.refused) for one in self.flips)
        names = {False: "harmless", True: "harmful", None: "unlabelled"}
        parts = [
            f"{count} {names[harmful]} now {'refused' if refused else 'answered'}"
            for (harmful, refused), count in sorted(counts.items(), key=str)
        ]
        return ", ".join(parts) or "none"

    def write(self) -> None:
        """Writes all four into the folder, each whole or not at all."""
        told = [one.model_copy(update={"text": self._text(one)}) for one in self.flips]
        write_page(self.page, "gate", self.title, gate=self, flips=told[:_MOST_FLIPS])
        write_whole(self.folder / MARKDOWN, self.markdown(told))
        write_whole(self.junit, self.as_junit())
        content = {
            "title": self.title, "before": self.before, "after": self.after, "failed": bool(self.failed),
            "says": str(self), "limits": self.limits.model_dump(), "notes": list(self.notes),
            "findings": [one.model_dump() | {"fails": one in self.failed} for one in self.findings],
            "changes": [one.model_dump() | {"better": one.better, "told": one.told} for one in self.changes],
            "beside": {title: [one.model_dump() for one in rows] for title, rows in self.beside.items()},
            "flips": [one.model_dump() | {"better": one.better} for one in told],
        }  # fmt: skip
        write_json(self.folder / JSON, content)

    def _text(self, one: Flip) -> str:
        return shown(one.text, one.harmful, self.show_harmful)

    def markdown(self, flips: Sequence[Flip]) -> str:
        """For the comment of a pull request or the summary of a build."""
        lines = [f"## {self.title}", "", f"**{self}.**", ""]
        lines += [f"> {note}" for note in self.notes] + [""] * bool(self.notes)
        if self.rates:
            lines += _table(["", *self.systems], [[row.title, *map(interval, row.figures)] for row in self.rates])
        if self.findings:
            lines += _table(["limit", "", "what was found"], [self._line(one) for one in self.findings])
        for title, changes in self.beside.items():
            lines += [f"{title}:", "", *(f"- {one}" for one in changes), ""]
        if self.changes:
            for word, told in (("Better", self.better), ("Worse", self.worse)):
                lines += [f"{word} beyond chance: {', '.join(f'`{one.name}`' for one in told) or 'nothing'}.", ""]
            lines += [f"Requests that changed: {self.flipped()}.", ""]
        if flips:
            rows = [_flip_cells(one) for one in flips[:_MOST_FLIPS]]
            lines += _table(["request", "attack", "label", "now", "score before", "after"], rows)
            lines += [f"{len(flips) - _MOST_FLIPS} more stand in `{JSON}`.", ""] if len(flips) > _MOST_FLIPS else []
        return "\n".join(lines)

    def _line(self, one: Finding) -> list[str]:
        return [f"`{one.name}`", "**fails**" if one in self.failed else _MARKS[one.outcome], one.says]

    def as_junit(self) -> str:
        """A test case a limit: a broken one is a failure, one that the sample can't tell of is skipped."""
        skipped = [one for one in self.findings if one.outcome == "unsure" and one not in self.failed]
        suite = ElementTree.Element(
            "testsuite", name=self.title, tests=str(len(self.findings)), failures=str(len(self.failed)), errors="0",
            skipped=str(len(skipped)),
        )  # fmt: skip
        for one in self.findings:
            case = ElementTree.SubElement(suite, "testcase", classname="forethought", name=one.name)
            if one in self.failed:
                ElementTree.SubElement(case, "failure", message=one.says).text = one.says
            elif one in skipped:
                ElementTree.SubElement(case, "skipped", message=one.says)
            else:
                ElementTree.SubElement(case, "system-out").text = one.says
        ElementTree.indent(suite)
        return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _flip_cells(one: Flip) -> list[str]:
    label = {True: "harmful", False: "harmless", None: "-"}[one.harmful]
    scores = ["-" if score is None else f"{score:+.2f}" for score in (one.score_before, one.score_after)]
    seed = f" (seed {one.seed})" if one.seed else ""
    return [one.text + seed, one.attack, label, "refused" if one.refused else "answered", *scores]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of Markdown and an empty line; what would end a cell is escaped."""
    cells = [[" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in rows]
    lines = [columns, ["---"] * len(columns), *cells]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]
