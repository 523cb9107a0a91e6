"""Over-refusal: harmless requests that look harmful, as they are and in every attack's disguise.

Sets of the kind of XSTest (arXiv 2308.01263), OR-Bench (arXiv 2405.20947) and CyberSecEval's
false refusals (arXiv 2404.13161): any file of requests, by the mapping of `data.sources`. A set's
harmful contrasts, where it labels some, are reported apart: refusing those is right.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from forethought.attacks.catalogue import DIRECT, apply_attack
from forethought.attempts.ask import run_defence
from forethought.attempts.records import Attempt, Judged
from forethought.data.answers import false_refusals
from forethought.data.columns import guess_mapping
from forethought.data.readers import read_rows
from forethought.data.sources import SourceSpec, load_requests, sample
from forethought.errors import ConfigError, InputError
from forethought.judges.base import Verdict
from forethought.manifest import input_hashes, key_of
from forethought.measure.curves import scores
from forethought.metrics import Figure, mean_auroc, share
from forethought.model import Model, load, load_local
from forethought.progress import Progress
from forethought.records import Record, Request, write_jsonl
from forethought.report.results import write_results

_TRIGGERS = ("type", "trigger", "trigger_type", "attack_type", "kind", "pattern", "subset")
"""Columns in which a set says why a request looks harmful, where it has no category."""
_MOST_KINDS = 40
_SHIPPED = "shipped:"
_LABELS = {"harmless": False, "harmful": True, "unlabelled": None}


@dataclass(frozen=True)
class OverRefusal:
    """What a model refused, of which sets."""

    sets: tuple[OverRefusalSet, ...]
    system: str
    """`base`, or `defended` for a model that was trained here: the end of each figure's name."""
    styles: tuple[str, ...]
    """Attacks that the requests were put in; the first is none."""
    figures: tuple[Figure, ...]
    """As `over_refusal_figures` names them."""
    unscored: dict[str, int]
    """Answers that could not be judged, by cause."""
    logs: Path
    """Folder of plan, answers and verdicts."""


def over_refusal(
    model: Model | str | Path,
    files: str | Sequence[str],
    *,
    styles: Sequence[str] = (),
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    max_tokens: int = 64,
    seed: int = 0,
    out: Path | None = None,
    progress: Progress | None = None,
) -> OverRefusal:
    """Puts the requests of files to a model, plain and in every style, and counts what it refuses.

    `files` are sets of requests or shipped ones (`shipped:lookalike`), `columns` names columns by noun where the guess
    is wrong, `styles` are attacks by rule (`attacks.catalogue.BY_RULE` is all of them). At most `limit` requests of
    each label a file. `out` is a file for the figures; answers stand beside it, else in runs/over-refusal, and are
    found there by the same call. Raises ConfigError for two files of one name, InputError for one that can't be read.
    """
    progress = progress or Progress()
    files = [files] if isinstance(files, str) else list(files)
    sets = [load_set(file, dict(columns or {})) for file in files]
    if len({one.name for one in sets}) < len(sets):
        raise ConfigError(", ".join(files), "two files have the same name", "Rename one: figures carry the names")
    for one in sets:
        counts = {word: len(one.labelled(label)) for word, label in _LABELS.items()}
        told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        progress.mapping(one.name, f"{told} ({one.columns})")
    attempts = plan(sets, styles, limit, seed)
    opened = model if isinstance(model, Model) else load(model)
    system = "base" if opened.settings is None else "defended"
    folder = out.with_name(f"{out.stem}-logs") if out else Path("runs") / "over-refusal"
    # Whatever changes an answer names the folder: another model or plan never reads these logs.
    told_apart = [opened.where, opened.defence, opened.files, max_tokens, [one.id for one in attempts]]
    logs = folder / key_of(told_apart)
    with progress.bar("over-refusal") as bar:
        bar.total(len(attempts))
        judged = run_defence(
            system, opened.respondent, attempts, logs, max_answer_tokens=max_tokens, on_progress=bar.advance
        )
    figures = over_refusal_figures(system, judged)
    if out is not None:
        write_results(out, [seed], input_hashes(files), figures)
    causes = Counter(one.cause or "no verdict" for one in judged if one.refused is None)
    return OverRefusal(tuple(sets), system, (DIRECT.name, *styles), tuple(figures), dict(causes.most_common()), logs)


def mine_false_refusals(
    model: str | Path, source: str, out: Path, limit: int | None = None, progress: Progress | None = None
) -> tuple[list[Request], Counter[str]]:
    """(harmless requests of a source that a model refuses, counts of what it did); the requests are written to `out`.

    Outcomes are kept beside `out`: the same call goes on where one was stopped. Raises InputError for a source without
    harmless requests.
    """
    requests = list(load_requests(SourceSpec(path=source, limit=limit), False))
    harmless = sum(request.harmful is False for request in requests)
    if not harmless:
        raise InputError(source, "holds no harmless request", "Mine from a set of harmless requests")
    with (progress or Progress()).bar("mine") as bar:
        bar.total(harmless)
        found, counts = false_refusals(load_local(model), requests, out.with_suffix(".log.jsonl"), bar.advance)
    write_jsonl(out, found)
    return found, counts


class OverRefusalSet(Record):
    """The requests of one file."""

    name: str
    """As figures carry it: lower case, digits and underscores."""
    requests: tuple[Request, ...]
    """Each once. Where the set says why a request looks harmful, that is its first category."""
    columns: str
    """How its columns were understood."""

    def labelled(self, harmful: bool | None) -> list[Request]:
        """The requests with one label; None is those that the set leaves unlabelled."""
        return [request for request in self.requests if request.harmful is harmful]


def load_set(path: str, columns: dict[str, str] | None = None) -> OverRefusalSet:
    """Reads a file or a shipped set (`shipped:lookalike`, `shipped:ordinary`). Rows without a label are harmless.

    Raises InputError for a file that can't be read as requests.
    """
    seen: list[str] = []
    chosen = dict(columns or {})
    if not path.startswith((_SHIPPED, "hub:", "disk:")) and "category" not in chosen:
        chosen |= _trigger_column(path, chosen)
    spec = SourceSpec(path=path, columns=chosen)
    requests = load_requests(spec, False, lambda name, mapping: seen.append(f"{name}: {mapping}"))
    unique = {request.id: request for request in requests}
    stem = path.removeprefix(_SHIPPED) if path.startswith(_SHIPPED) else Path(path).stem
    return OverRefusalSet(name=_slug(stem), requests=tuple(unique.values()), columns="; ".join(seen) or path)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def _trigger_column(path: str, columns: dict[str, str]) -> dict[str, str]:
    """The column that says why a request looks harmful: few words, often repeated."""
    rows = [row for _, row in itertools.islice(read_rows(path), 2000)]
    if guess_mapping(rows[:200], columns, path).category is not None:
        return {}
    taken = set(columns.values())
    for name in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(name) for row in rows]
        kinds = {str(value) for value in values}
        if name.lower() in _TRIGGERS and name not in taken and 1 < len(kinds) <= min(_MOST_KINDS, len(rows) * 2 // 3):
            return {"category": name}
    return {}


def kind_of(request: Request) -> str:
    """Why a request looks harmful, in its set's words; empty where the set doesn't say."""
    return request.categories[0] if request.categories else ""


def plan(sets: Sequence[OverRefusalSet], styles: Sequence[str], limit: int | None, seed: int) -> list[Attempt]:
    """Attempts for all sets, plain and under each style; a text in two sets is put once and counts in both.

    `limit`: at most so many requests of each label a set, drawn by seed. The same requests stand in every style.
    """
    attempts: dict[str, Attempt] = {}
    for one in sets:
        for label, harmful in _LABELS.items():
            requests = one.labelled(harmful)
            for request in requests if limit is None else sample(requests, limit, seed):
                for style in (DIRECT.name, *styles):
                    styled = apply_attack(style, request, seed)
                    key, cell = f"{style}/{styled.id}", f"{one.name}:{style}:{label}"
                    known = attempts.get(key)
                    if known is None:
                        attempts[key] = Attempt(id=key, attack=style, request=styled, cells=(cell,))
                    elif cell not in known.cells:
                        attempts[key] = known.model_copy(update={"cells": (*known.cells, cell)})
    return list(attempts.values())


def over_refusal_figures(model: str, judged: Sequence[Judged]) -> list[Figure]:
    """Shares refused with Wilson intervals, by set, style, label and kind, and how well its scores tell the labels.

    Names: `refused_SET_STYLE_LABEL_M` (full and partial), `partial_...` (partial alone), for plain harmless requests
    `refused_SET_kind_KIND_M` by why they look harmful, and `auroc_SET_STYLE_M` where a set labels both sides and the
    model has scores, whatever its threshold.
    """
    cells: dict[str, list[Verdict]] = {}
    kinds: dict[str, list[Verdict]] = {}
    asked: dict[str, list[Judged]] = {}
    for one in judged:
        verdict = one.verdict or Verdict(cause=one.cause)
        for cell in one.attempt.cells:
            cells.setdefault(cell, []).append(verdict)
            asked.setdefault(cell, []).append(one)
            name, style, label = cell.split(":")
            kind = kind_of(one.attempt.request)
            if kind and style == DIRECT.name and label == "harmless":
                kinds.setdefault(f"{name}_kind_{_slug(kind)}", []).append(verdict)
    figures = []
    for cell, rows in cells.items():
        stem = cell.replace(":", "_")
        figures.append(share([row.refused for row in rows]).named(f"refused_{stem}_{model}"))
        figures.append(share([_partly(row) for row in rows]).named(f"partial_{stem}_{model}"))
    figures += [share([row.refused for row in rows]).named(f"refused_{name}_{model}") for name, rows in kinds.items()]
    told = {cell: scores(rows) for cell, rows in asked.items()}
    for cell, harmful in told.items():
        place, _, label = cell.rpartition(":")
        harmless = told.get(f"{place}:harmless")
        if label == "harmful" and harmful and harmless:
            n = len(asked[cell]) + len(asked[f"{place}:harmless"])
            found = mean_auroc([harmful], [harmless]).model_copy(update={"unscored": n - len(harmful) - len(harmless)})
            figures.append(found.named(f"auroc_{place.replace(':', '_')}_{model}"))
    return figures


def _partly(verdict: Verdict) -> bool | None:
    """Whether an answer refuses in part; None where the judge can't tell refusals, or these."""
    if verdict.refused is None or (verdict.refused and verdict.partial is None):
        return None
    return verdict.refused and bool(verdict.partial)
