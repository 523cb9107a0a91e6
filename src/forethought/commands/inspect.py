"""What a data set looks like in the terminal, and where two sets overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from forethought.commands.terminal import console

if TYPE_CHECKING:
    from forethought.data.overlap import OverlapReport
    from forethought.records import Request
    from forethought.report.data_page import Count, DataSummary, Lengths, Sample

_BAR = 24
"""Longest bar, in characters."""
_PARTS = " ▏▎▍▌▋▊▉█"
_HEIGHTS = " ▁▂▃▄▅▆▇█"


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
    parts: list[RenderableType] = [_headline(summary)]
    for title, counts in (
        ("rule broken", summary.rules),
        ("style", summary.operators),
        ("source", summary.sources),
        ("kind", summary.kinds),
    ):
        if counts:
            parts.append(_count_table(title, counts))
    if summary.lengths:
        parts.append(_length_table(summary.lengths))
    if summary.dropped:
        parts.append(_plain_table("dropped because", summary.dropped))
    if lost := summary.facts.get("lost"):
        parts.append(_plain_table("lost while teaching", lost))
    if removed := summary.facts.get("removed"):
        parts.append(_plain_table("removed because", removed))
    parts += [_sample_line(sample) for sample in summary.samples[:8]]
    return Group(*parts)


def _headline(summary: DataSummary) -> Text:
    share = summary.verified_share
    verified = "" if share is None else f", {share:.1%} of the taught rows passed verification"
    return Text(
        f"{summary.rows:,} rows: {summary.harmful:,} harmful, {summary.harmless:,} harmless, "
        f"{summary.styled:,} restyled, {summary.thought_only:,} with the reasoning alone{verified}"
    )


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


def _sample_line(sample: Sample) -> Text:
    style = f" as {sample.operator}" if sample.operator else ""
    return Text(f"{sample.verdict}  {sample.kind}{style}: {' '.join(sample.request.split())}", overflow="ellipsis")


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


def overlaps(one: str, other: str, show_harmful: bool = False, to: Console = console) -> int:
    """`forethought data overlaps A B`: what of A stands in B. Returns the number of A's requests that do."""
    from forethought.data.overlap import overlaps as find

    requests = _requests(one)
    report = find(requests, {other: _requests(other)}, whole_texts=show_harmful)
    to.print(f"{len(requests):,} requests of {escape(one)}, {len(report.contaminated):,} of them in {escape(other)}")
    to.print(overlap_view(report))
    return len(report.contaminated)


def _requests(source: str) -> list[Request]:
    from forethought.data.shipped import shipped_requests
    from forethought.data.sources import SourceSpec, load_requests

    if source.startswith("shipped:"):
        return shipped_requests(source.removeprefix("shipped:"))
    return list(load_requests(SourceSpec(path=source), None))
