"""Any benchmark as behaviours: by a layout that is recognised or named, else by the mapping of `data.sources`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from forethought.data.benchmarks.behaviors import Behavior, Benchmark
from forethought.data.benchmarks.layout import (
    Layout,
    Place,
    behaviors_of,
    cells_of,
    column_key,
    describes_file,
    detect_layout,
    find_layout,
    requests_a_row,
)
from forethought.data.columns import flat
from forethought.data.files import Row
from forethought.data.readers import BY_LIBRARY, read_numbered, read_rows
from forethought.data.sources import SHIPPED, SourceSpec, load_requests
from forethought.errors import ConfigError, InputError

_HEAD = 200
"""Rows from which a layout is recognised."""


@dataclass
class _Found:
    """What reading has found so far."""

    behaviors: list[Behavior] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    malformed: list[str] = field(default_factory=list)
    without_text: int = 0
    repeated: int = 0
    renamed: int = 0
    by_id: dict[str, list[Behavior]] = field(default_factory=dict)

    def add(self, behavior: Behavior) -> None:
        """Keeps a behaviour once, under an id that no other has."""
        known = self.by_id.setdefault(behavior.id, [])
        if behavior in known:
            self.repeated += 1
            return
        known.append(behavior)
        if len(known) > 1:
            self.renamed += 1
            behavior = behavior.model_copy(update={"id": f"{behavior.id}~{len(known)}"})
        self.behaviors.append(behavior)


def load_benchmark(
    source: str,
    layout: str | None = None,
    columns: dict[str, str] | None = None,
    harmful: bool | None = None,
    skip_bad: bool = False,
) -> Benchmark:
    """Reads a benchmark: a file, folder, glob, `wheel::member`, `pkg:NAME/path`, `hub:NAME@split` or `shipped:SET`.

    `layout`: a name or a YAML file; None recognises it by its columns. `columns`: what holds what,
    as for any dataset, instead of a layout. `harmful`: what the user says of rows of which the
    benchmark says nothing; such rows are unlabelled where it is None. `skip_bad`: malformed rows
    are left out and named in the result. Raises InputError for a source that can't be read or asks
    nothing, and for a malformed row unless `skip_bad`; ConfigError for an unknown layout.
    """
    if layout is not None and columns:
        raise ConfigError(
            f"--layout {layout}",
            "columns are named as well",
            "Give one of the two, or write a layout of your own (docs/benchmarks.md)",
        )
    chosen = None if columns or source.startswith(SHIPPED) else _layout(source, layout)
    found = _Found()
    if chosen is None:
        _read_mapped(SourceSpec(path=source, columns=columns or {}, skip_bad=skip_bad), harmful, found)
    else:
        _read_laid_out(source, chosen, harmful, skip_bad, found)
    if not found.behaviors:
        rule = "holds no request"
        if found.malformed:
            rule += f"; {len(found.malformed)} rows are malformed, the first is {found.malformed[0]}"
        raise InputError(source, rule, "Check that its request column is filled, or name another --layout")
    return Benchmark(
        name=chosen.name if chosen else benchmark_name(source),
        layout=chosen.name if chosen else None,
        columns=tuple(f"{name}: {read}" for name, read in found.columns.items()),
        behaviors=tuple(found.behaviors),
        malformed=tuple(found.malformed),
        without_text=found.without_text,
        repeated=found.repeated,
        renamed=found.renamed,
    )


def benchmark_name(source: str) -> str:
    """A short name for a source without a layout: letters, digits and underscores."""
    stem = (
        source.partition(":")[2] if source.startswith((*BY_LIBRARY, SHIPPED)) else Path(source).name.partition(".")[0]
    )
    return re.sub(r"\W+", "_", stem.lower()).strip("_") or "benchmark"


def _layout(source: str, named: str | None) -> Layout | None:
    if named is not None:
        return find_layout(named)
    # What is malformed is told by the reading proper, with its line.
    pairs = read_rows(source, lambda error: None)
    first = next(pairs, None)
    if first is None:
        return None
    rows = [row for name, row in itertools.islice(pairs, _HEAD - 1) if name == first[0]]
    return detect_layout([first[1], *rows], _told_name(source, first[0]))


def _told_name(source: str, name: str) -> str:
    """The name that tells what a file is: its own, without folders; of a hub set all, since its split counts."""
    return source if source.startswith(BY_LIBRARY) else Path(name).name


def _read_laid_out(source: str, layout: Layout, harmful: bool | None, skip_bad: bool, found: _Found) -> None:
    def on_bad(error: InputError) -> None:
        if not skip_bad:
            raise error
        found.malformed.append(f"{error.value}: {error.rule}")

    for name, numbered in itertools.groupby(read_numbered(source, on_bad), key=lambda found: found[0]):
        stream = ((line, row) for _, line, row in numbered)
        head, fault = _head(stream)
        if fault is not None and not head:
            raise fault
        rows = [row for _, row in head]
        layout.check(rows, name)
        found.columns[name] = _used_columns(layout, rows)
        place = Place(_told_name(source, name), harmful)
        asked = requests_a_row(layout, rows)
        shared: Row = {}
        for number, (line, row) in enumerate(itertools.chain(head, stream), start=1):
            if describes_file(layout, row):
                shared |= row
                continue
            try:
                behaviors = behaviors_of(layout, cells_of(shared) | cells_of(row), place)
            except InputError as error:
                on_bad(InputError(f"{name}, {f'line {line}' if line else f'row {number}'}", error.rule, error.fix))
                continue
            found.without_text += asked - len(behaviors)
            for behavior in behaviors:
                found.add(behavior)
        if fault is not None:
            raise fault


def _head(rows: Iterator[tuple[int, Row]]) -> tuple[list[tuple[int, Row]], InputError | None]:
    """The first rows, and the error that ended them: it is raised once the rows before it have had their turn."""
    head: list[tuple[int, Row]] = []
    try:
        for row in itertools.islice(rows, _HEAD):
            head.append(row)
    except InputError as error:
        return head, error
    return head, None


def _used_columns(layout: Layout, rows: list[Row]) -> str:
    """The layout, and which of the columns of a file it uses for what."""
    there = {column_key(column): column for row in rows for column in flat(row)}
    nouns = {
        "request": (*layout.request, *layout.languages),
        "seed": layout.seed,
        "attack": layout.attack,
        "context": layout.context,
        "category": layout.category,
        "label": tuple(column for rule in layout.labels for column in rule.columns),
        "reference": layout.reference,
        "id": layout.id,
    }
    used = {noun: [there[column_key(c)] for c in wanted if column_key(c) in there] for noun, wanted in nouns.items()}
    told = ", ".join(f"{noun}={'+'.join(columns)}" for noun, columns in used.items() if columns)
    return f"layout {layout.name}: {told}"


def _read_mapped(spec: SourceSpec, harmful: bool | None, found: _Found) -> None:
    def on_skip(cause: str, where: str) -> None:
        if cause == "malformed":
            found.malformed.append(where)
        else:
            found.without_text += 1

    name = benchmark_name(spec.path)
    for request in load_requests(
        spec, harmful, lambda file, mapping: found.columns.update({file: str(mapping)}), on_skip
    ):
        # An answer of the file's own is something to compare with, never what the model said.
        asked = request.model_copy(update={"answer": None})
        found.add(Behavior(id=request.id, benchmark=name, request=asked, reference=request.answer))
