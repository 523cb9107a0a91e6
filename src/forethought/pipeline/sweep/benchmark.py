"""Requests of somebody else's that a sweep's defences are put to, in place of those that its own data holds out.

Nothing is trained otherwise for them: requests near a training row are left out of the benchmark, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from forethought.data.classify import rules_by_name
from forethought.data.dedupe import remove_duplicates
from forethought.data.sources import SourceSpec, load_requests
from forethought.errors import InputError
from forethought.manifest import key_of
from forethought.pipeline.data_stages import fingerprint
from forethought.policy import Policy
from forethought.records import Record, Request

_LOOKALIKE = "lookalike"


class Benchmark(Record):
    """Where a benchmark's requests are."""

    requests: tuple[SourceSpec, ...] = ()
    """Sets with labels; where `harmless` is given, sets without any are harmful throughout."""
    harmless: tuple[SourceSpec, ...] = ()
    lookalikes: tuple[SourceSpec, ...] = ()
    """Harmless sets that are meant to look harmful, as XSTest's safe half."""

    @property
    def sources(self) -> dict[str, str]:
        """Content hash by path."""
        return {one.path: fingerprint(one.path) for one in (*self.requests, *self.harmless, *self.lookalikes)}

    @property
    def key(self) -> str:
        """Of what it asks, wherever the files lie; empty where it asks nothing."""
        sides = (self.requests, self.harmless, self.lookalikes)
        return key_of([[_content(one) for one in side] for side in sides])[:8] if any(sides) else ""


def _content(spec: SourceSpec) -> dict[str, Any]:
    """A file is its content and kind, under any name; a hub set or a member of an archive needs its name as well."""
    path = Path(spec.path).expanduser()
    known = path.suffix if path.is_file() else spec.path
    return spec.model_dump(mode="json") | {"path": known, "content": fingerprint(spec.path)}


def benchmark_requests(
    benchmark: Benchmark, train: Sequence[Request], policy: Policy, say: Callable[[str], None]
) -> list[Request]:
    """The benchmark's requests that are near no training row and no other of it; `say` is told how many were left out.

    Raises InputError for a set without labels where no harmless one is given, and where one side has no request.
    """
    rows = [row for spec in benchmark.requests for row in _labelled(spec, benchmark, policy)]
    rows += [row for spec in benchmark.harmless for row in load_requests(spec, False)]
    alike = [row for spec in benchmark.lookalikes for row in load_requests(spec, False)]
    rows += [row.model_copy(update={"kind": _LOOKALIKE}) for row in alike]
    kept, removed = remove_duplicates(rows, against=train)
    harmful = sum(row.harmful is True for row in kept)
    for label, n in (("harmful", harmful), ("harmless", len(kept) - harmful)):
        if not n:
            told = f"leave no {label} request, {removed.total()} left out as near others"
            raise InputError(", ".join(benchmark.sources), told, "Give a set that holds some")
    left_out = "".join(
        f"; left out: {n} {cause.replace('an evaluation', 'a training')}" for cause, n in removed.items()
    )
    say(f"benchmark: {harmful} harmful and {len(kept) - harmful} harmless requests{left_out}")
    return kept


def _labelled(spec: SourceSpec, benchmark: Benchmark, policy: Policy) -> list[Request]:
    rows = list(load_requests(spec, True if benchmark.harmless or benchmark.lookalikes else None))
    unknown = sum(row.harmful is None for row in rows)
    if unknown:
        raise InputError(
            spec.path, f"does not say of {unknown} requests whether they are harmful",
            "Give a column such as `label`, or the harmless requests as a set of their own",
        )  # fmt: skip
    return [_ruled(row, policy) if row.harmful else row for row in rows]


def _ruled(request: Request, policy: Policy) -> Request:
    """With the rules that its categories name, where it has none of its own."""
    return request.model_copy(update={"rules": request.rules or rules_by_name(request, policy)[0]})
