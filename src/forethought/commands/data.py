"""`forethought data`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from forethought.commands.terminal import console
from forethought.errors import ConfigError

if TYPE_CHECKING:
    from forethought.data.classify import Tally
    from forethought.policy import Policy
    from forethought.records import Request

_SHOWN_BAD = 3
"""Malformed rows that are named one by one; the others are counted."""


def read(
    source: str,
    text_column: str | None,
    columns: Sequence[str],
    harmless: bool,
    limit: int | None,
    skip_bad: bool,
    out: Path | None,
    policy_file: Path | None,
    show: bool,
) -> None:
    """Reads a source as a stream, shows what was understood, and writes it where asked."""
    from forethought.data.classify import RuleStream, Tally
    from forethought.data.sources import SourceSpec, hash_sample, load_requests
    from forethought.policy import load_policy
    from forethought.records import write_jsonl

    policy = load_policy(policy_file)
    spec = SourceSpec(path=source, columns=_column_options(text_column, columns), skip_bad=skip_bad)
    rules, tally = RuleStream(policy), Tally()
    skipped: Counter[str] = Counter()
    named: list[str] = []

    def on_skip(cause: str, where: str) -> None:
        skipped[cause] += 1
        if cause == "malformed" and len(named) < _SHOWN_BAD:
            named.append(where)

    with _rows_bar() as count:
        requests = load_requests(
            spec, not harmless, lambda name, mapping: console.print(escape(f"{name}: {mapping}")), on_skip
        )
        counted = count(requests)
        kept = counted if limit is None else iter(hash_sample(counted, limit))
        stream = tally.through(rules.through(kept))
        if out is None:
            for _ in stream:
                pass
        else:
            try:
                write_jsonl(out, stream)
            except BaseException:
                out.with_name(out.name + ".part").unlink(missing_ok=True)
                raise
    _show(tally, rules.classified, skipped, named, policy, show)
    if out is not None:
        console.print(f"Wrote {tally.total} rows: {out}", highlight=False, markup=False)


def _column_options(text_column: str | None, columns: Sequence[str]) -> dict[str, str]:
    """`--column noun=NAME` options, and `--text-column`, as overrides of the mapping."""
    chosen = {"text": text_column} if text_column else {}
    for option in columns:
        noun, equals, column = option.partition("=")
        if not (noun and equals and column):
            raise ConfigError(f"--column {option}", "is not noun=NAME", "Write it as: --column answer=my_column")
        chosen[noun] = column
    return chosen


@contextmanager
def _rows_bar() -> Iterator[Callable[[Iterator[Request]], Iterator[Request]]]:
    """A counter of rows with their rate, where there is a terminal; its total is not known."""
    every = 500
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.completed:,.0f} rows"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = progress.add_task("rows", total=None, rate="")

    def count(rows: Iterator[Request]) -> Iterator[Request]:
        for number, row in enumerate(rows, start=1):
            if number % every == 0:
                speed = progress.tasks[0].speed
                progress.update(task, advance=every, rate=f"{speed:,.0f} rows/s" if speed else "")
            yield row

    with progress:
        yield count


def _show(
    tally: Tally, classified: int, skipped: Counter[str], named: Sequence[str], policy: Policy, show: bool
) -> None:
    """Counts, a table by rule, and a few samples; harmful ones redacted unless asked."""
    from forethought.report.page import redact

    console.print(
        f"{tally.total} requests, {tally.by_label[True]} harmful; rules by the classifier for {classified}",
        highlight=False,
    )
    notes = {
        "without a label": tally.by_label[None],
        "repeated word for word": tally.repeated,
        "rows without text left out": skipped["no text"],
        "malformed rows left out": skipped["malformed"],
    }
    if any(notes.values()):
        console.print("; ".join(f"{count} {what}" for what, count in notes.items() if count), highlight=False)
    for where in named:
        console.print(f"  {where}", highlight=False, markup=False, soft_wrap=True)
    table = Table("rule", "requests")
    for rule in policy.rules:
        if tally.by_rule[rule.id]:
            table.add_row(f"{rule.id} {rule.title}", str(tally.by_rule[rule.id]))
    if tally.by_rule:
        console.print(table)
    for request in tally.sample:
        text = redact(request.text) if request.harmful is not False and not show else request.text
        label = {True: "harmful", False: "harmless", None: "unlabelled"}[request.harmful]
        console.print(f"  {label} {escape(' '.join(text.split()))}", highlight=False)
