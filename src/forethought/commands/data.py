"""`forethought data`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from forethought.commands.shared import console


def read(
    source: str, text_column: str | None, harmless: bool, out: Path | None, policy_file: Path | None, show: bool
) -> None:
    """Reads a source and shows what was understood."""
    from forethought.data.classify import assign_rules
    from forethought.data.shipped import shipped_requests
    from forethought.data.sources import SourceSpec, load_requests
    from forethought.policy import load_policy
    from forethought.records import write_jsonl
    from forethought.report.redact import redact

    rules = load_policy(policy_file)
    if source.startswith("shipped:"):
        requests = shipped_requests(source.removeprefix("shipped:"))
    else:
        columns = {"text": text_column} if text_column else {}
        spec = SourceSpec(path=source, columns=columns)
        requests = list(load_requests(spec, not harmless, lambda name, mapping: console.print(f"{name}: {mapping}")))
    requests, classified = assign_rules(requests, rules)
    harmful = [request for request in requests if request.harmful]
    console.print(f"{len(requests)} requests, {len(harmful)} harmful; rules by the classifier for {classified}")
    counts = Counter(rule for request in harmful for rule in request.rules[:1])
    table = Table("rule", "requests")
    for rule in rules.rules:
        if counts[rule.id]:
            table.add_row(f"{rule.id} {rule.title}", str(counts[rule.id]))
    if counts:
        console.print(table)
    for request in requests[:: max(1, len(requests) // 5)][:5]:
        text = request.text if show or not request.harmful else redact(request.text)
        console.print(
            f"  {'harmful ' if request.harmful else 'harmless'} {escape(' '.join(text.split()))}", highlight=False
        )
    if out is not None:
        console.print(f"Wrote {write_jsonl(out, requests)} rows: {out}", highlight=False)
