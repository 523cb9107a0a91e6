"""`forethought data`: everything about data sets. Without a subcommand `data` reads a source."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from forethought.cli import options
from forethought.cli.terminal import Terminal, console, quiet, say, show_notes, show_table

if TYPE_CHECKING:
    from forethought.data.dedupe import OverlapReport
    from forethought.data.sources import Reading
    from forethought.report.data_page import Count, DataSummary, Lengths

BuildArgument = Annotated[Path, typer.Argument(help="Folder of `forethought build` or `run`, or its dataset folder.")]
_BAR = 24
"""Longest bar, in characters."""
_PARTS = " ▏▎▍▌▋▊▉█"
_HEIGHTS = " ▁▂▃▄▅▆▇█"


class _ReadByDefault(TyperGroup):
    """`forethought data FILE` is `forethought data read FILE`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["read", *args]
        return super().resolve_command(ctx, args)


data = typer.Typer(
    name="data",
    cls=_ReadByDefault,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Reads any dataset, and shows how it was understood: `forethought data FILE`.",
)


@data.command()
def read(
    source: options.Source,
    text_column: options.TextColumn = None,
    columns: options.Columns = None,
    harmless: Annotated[
        bool, typer.Option("--harmless", help="The set holds harmless requests, not harmful ones.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many requests, drawn by content hash.")] = None,
    skip_bad: options.SkipBad = False,
    out: Annotated[Path | None, typer.Option(help="Also write the requests, with their rules, as JSON lines.")] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Policy whose rules to assign. Default: the shipped policy.")
    ] = None,
    show: options.ShowHarmful = False,
) -> None:
    """Reads any dataset as a stream, and shows how its columns were understood, its counts by rule, and samples.

    Harmful samples are redacted. A label column in the set wins over --harmless, row by row.
    """
    from forethought.data.sources import read_requests
    from forethought.records import write_jsonl

    named = ({"text": text_column} if text_column else {}) | options.column_overrides(columns)
    reading = read_requests(
        source, columns=named, harmful=not harmless, limit=limit, skip_bad=skip_bad, policy=policy,
        progress=Terminal(),
    )  # fmt: skip
    with closing(iter(reading)) as requests:
        if out is not None:
            write_jsonl(out, requests)
        else:
            for _ in requests:
                pass
    _show(reading, show)
    if out is not None:
        say(f"Wrote {reading.tally.total} rows: {out}")


def _show(reading: Reading, show: bool) -> None:
    """Counts, a table by rule, and a few samples; harmful ones redacted unless asked."""
    from forethought.redaction import shown

    tally = reading.tally
    say(f"{tally.total} requests, {tally.by_label[True]} harmful; rules by the classifier for {reading.classified}")
    show_notes(
        {
            "without a label": tally.by_label[None],
            "harmful ones whose rule can't be told in their language": tally.by_label[True] - tally.by_rule.total(),
            "repeated word for word": tally.repeated,
            "rows without text left out": reading.skipped["no text"],
            "malformed rows left out": reading.skipped["malformed"],
        },
        reading.malformed,
    )
    rules = [(f"{r.id} {r.title}", str(tally.by_rule[r.id])) for r in reading.policy.rules if tally.by_rule[r.id]]
    if rules:
        show_table(("rule", "requests"), rules)
    for request in tally.sample:
        text = shown(request.text, request.harmful, show)
        label = {True: "harmful", False: "harmless", None: "unlabelled"}[request.harmful]
        console.print(f"  {label} {escape(' '.join(text.split()))}", highlight=False)


@data.command()
def inspect(
    build: BuildArgument,
    page: Annotated[Path | None, typer.Option(help="Also write it as a page: one file, no network needed.")] = None,
    show: options.ShowHarmful = False,
) -> None:
    """Shows a built set: counts by rule, style and source, lengths, what was dropped and why, samples (redacted)."""
    from forethought.pipeline.build import inspect_build
    from forethought.report.data_page import write_data_page

    summary = inspect_build(build, show)
    console.print(summary_view(summary))
    if page is not None:
        write_data_page(page, summary)
        say(f"Page: {page}")


@data.command()
def overlaps(
    source: options.Source,
    evaluation: Annotated[str, typer.Argument(help="The set to compare with, such as an evaluation set.")],
    show: options.ShowHarmful = False,
) -> None:
    """Shows which requests of one set stand in another, as they are or nearly so."""
    from forethought.data.dedupe import overlaps_of

    report = overlaps_of(source, evaluation, whole_texts=show)
    say(f"{report.requests:,} requests of {source}, {len(report.contaminated):,} of them in {evaluation}")
    console.print(overlap_view(report))


@data.command()
def operators(
    folder: Annotated[Path | None, typer.Option(help="A folder with operators of your own, listed with ours.")] = None,
) -> None:
    """Checks and lists the styles that requests are rewritten in, each with an example."""
    from forethought.data.evolve import load_operators, operator_table

    columns = ("name", "kind", "", "languages", "shown", "an example")
    show_table(columns, operator_table(load_operators(folder)), box=None, pad_edge=False)


@data.command()
def export(
    build: BuildArgument,
    kind: Annotated[str, typer.Option("--format", help="trl, messages, sharegpt, alpaca or parquet.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    partial: Annotated[
        bool, typer.Option("--include-partial", help="Also rows without a whole answer, which teach the thought.")
    ] = False,
) -> None:
    """Writes a built set in the format of another trainer."""
    from forethought.data.export import Kind
    from forethought.pipeline.build import export_build

    made = export_build(build, cast(Kind, kind), out, partial)
    say(f"{made.rows} rows, {made.harmful} of them harmful: {out}")
    for cause, count in made.left_out.items():
        say(f"left out: {count} rows {cause}", "dim")


@data.command()
def mine(
    model: options.Model,
    source: options.Source,
    out: Annotated[Path, typer.Option(help="File for the requests that were refused. Run again to resume.")],
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many requests.")] = None,
) -> None:
    """Finds harmless requests that a model refuses, to be trained on as harmless: `forethought build --harmless OUT`.

    Mine from data that you train on, never from a benchmark that you test with.
    """
    quiet()
    from forethought.evaluation.over_refusal import mine_false_refusals

    found, counts = mine_false_refusals(model, source, out, limit, Terminal())
    say(", ".join(f"{name} {count}" for name, count in counts.items()))
    say(f"{len(found)} false refusals: {out}")


def bar(value: float, most: float, width: int = _BAR) -> str:
    """A bar of blocks, in eighths of a character; anything above zero can be seen."""
    eighths = round(8 * width * value / most) if most else 0
    eighths = max(eighths, 1) if value else 0
    return "█" * (eighths // 8) + (_PARTS[eighths % 8] if eighths % 8 else "")


def spark(counts: Sequence[int]) -> str:
    """A histogram in one line."""
    most = max(counts, default=0) or 1
    return "".join(_HEIGHTS[max(1, round(8 * count / most)) if count else 0] for count in counts)


def summary_view(summary: DataSummary) -> RenderableType:
    """The summary as tables for the terminal."""
    share = summary.verified_share
    verified = "" if share is None else f", {share:.1%} of the taught rows passed verification"
    headline = (
        f"{summary.rows:,} rows: {summary.harmful:,} harmful, {summary.harmless:,} harmless, "
        f"{summary.styled:,} restyled, {summary.thought_only:,} with the reasoning alone{verified}"
    )
    parts: list[RenderableType] = [Text(headline)]
    groups = {
        "rule broken": summary.rules, "style": summary.operators, "source": summary.sources, "kind": summary.kinds
    }  # fmt: skip
    parts += [_count_table(title, counts) for title, counts in groups.items() if counts]
    if summary.lengths:
        parts.append(_length_table(summary.lengths))
    causes = {
        "dropped because": summary.dropped,
        "lost while teaching": summary.facts.get("lost"),
        "removed because": summary.facts.get("removed"),
    }
    parts += [_plain_table(title, counts) for title, counts in causes.items() if counts]
    for sample in summary.samples[:8]:
        style = f" as {sample.operator}" if sample.operator else ""
        line = f"{sample.verdict}  {sample.kind}{style}: {' '.join(sample.request.split())}"
        parts.append(Text(line, overflow="ellipsis"))
    return Group(*parts)


def _count_table(title: str, counts: Sequence[Count]) -> Table:
    table = Table(title, "rows", "harmful", "harmless", "", box=None, pad_edge=False)
    for column in table.columns[1:4]:
        column.justify = "right"
    most = max(count.rows for count in counts)
    for count in counts:
        drawn = Text(bar(count.harmful, most), style="red") + Text(bar(count.harmless, most), style="blue")
        table.add_row(escape(count.label), f"{count.rows:,}", f"{count.harmful:,}", f"{count.harmless:,}", drawn)
    return table


def _length_table(lengths: dict[str, Lengths]) -> Table:
    table = Table("words of", "median", "nine of ten", "longest", "", "", box=None, pad_edge=False)
    for name, found in lengths.items():
        low, high = found.bins[0][0].split("-")[0].rstrip("+"), found.bins[-1][0]
        line = spark([count for _, count in found.bins])
        table.add_row(name, str(found.median), str(found.ninety), str(found.longest), line, f"{low} to {high}")
    return table


def _plain_table(title: str, counts: dict[str, int]) -> Table:
    table = Table(title, "rows", "", box=None, pad_edge=False)
    most = max(counts.values())
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(escape(name), f"{count:,}", bar(count, most))
    return table


def overlap_view(report: OverlapReport, pairs: int = 20) -> RenderableType:
    """Counts by evaluation set, and the pairs at the threshold first: they are the ones to judge."""
    counts = Table("evaluation set", "its requests", "near here", "of its requests", box=None, pad_edge=False)
    for name, size in report.evaluation.items():
        counts.add_row(escape(name), f"{size:,}", f"{report.counts[name]:,}", f"{report.evaluation_counts[name]:,}")
    found = [pair for group in report.overlaps.values() for pair in group]
    shown = Table("similarity", "how", "request", "evaluation request", box=None, pad_edge=False)
    for pair in sorted(found, key=lambda pair: (pair.similarity, pair.id))[:pairs]:
        shown.add_row(
            f"{pair.similarity:.2f}",
            pair.how,
            escape(" ".join(pair.text.split())),
            escape(" ".join(pair.other_text.split())),
        )
    left = len(found) - min(pairs, len(found))
    return Group(counts, *([shown] if found else []), *([Text(f"and {left:,} more pairs")] if left else []))
