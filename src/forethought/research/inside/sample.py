"""Which requests are looked at: some to fit probes on, some to choose their layer, the rest held out.

Whole families stand on one side. What is held out is asked as it is and in every style; the harmless requests of a
style are ordinary ones, as in attacks, so that areas under the curve compare with those of other reports.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from forethought.attacks.catalogue import DIRECT, apply_attack
from forethought.data.evolve import Operator
from forethought.data.shipped import shipped_requests
from forethought.data.sources import sample
from forethought.errors import InputError
from forethought.metrics import Figure, Scores, mean_auroc
from forethought.records import Record, Request, Split

LOOKALIKE, STYLED = "lookalike", "styled"
_SHARES: tuple[tuple[float, Split], ...] = ((0.5, "train"), (0.65, "dev"), (1.0, "test"))
"""Up to which part of the hashes of their families requests of a file go where."""
_STYLED_EVERY = 3
"""One probe request in so many is restyled in a style that the model was trained on."""


class Asked(Record):
    """A request as it is put to the model."""

    style: str
    """Name of the attack; `direct` for none."""
    request: Request


class Sample(Record):
    """What is asked, by what it is for. All requests have a label."""

    fit: tuple[Request, ...]
    """Probes are fitted on these."""
    dev: tuple[Request, ...]
    """And choose their layer on these."""
    held_out: tuple[Asked, ...]


def shipped_split() -> dict[Split, list[Request]]:
    """The shipped requests by their own splits."""
    splits: tuple[Split, ...] = ("train", "dev", "test")
    return {split: shipped_requests("contrast", split) + shipped_requests("ordinary", split) for split in splits}


def own_split(requests: Iterable[Request]) -> dict[Split, list[Request]]:
    """Labelled requests of a file, split by family: half to fit on, half of the rest and more held out.

    Raises InputError where a part has no harmful or no harmless request.
    """
    parts: dict[Split, list[Request]] = {"train": [], "dev": [], "test": []}
    for request in {one.id: one for one in requests if one.harmful is not None}.values():
        place = int(hashlib.sha256(f"inside:{request.cluster}".encode()).hexdigest()[:8], 16) / 16**8
        parts[next(split for end, split in _SHARES if place < end)].append(request)
    for split, rows in parts.items():
        if len({row.harmful for row in rows}) < 2:
            rule = f"hold no harmful or no harmless one in the {split} part of {len(rows)}"
            raise InputError("the requests", rule, "Give more, of both labels: some dozens of each at least")
    return parts


def draw(
    parts: Mapping[Split, Sequence[Request]],
    styles: Sequence[str],
    limit: int,
    fit_limit: int,
    operators: Mapping[str, Operator],
    seed: int = 0,
) -> Sample:
    """At most `limit` held-out requests of each kind, each direct and in every style; `fit_limit` of each to fit on.

    `operators` are styles that the model was trained on: its probes are to have seen what it has seen.
    """
    held_out = _by_kind(parts["test"], limit, seed)
    asked = [Asked(style=DIRECT.name, request=request) for kind in held_out.values() for request in kind]
    plain = held_out["harmful"] + (held_out["ordinary"] or held_out[LOOKALIKE])
    asked += [Asked(style=style, request=apply_attack(style, one, seed)) for style in styles for one in plain]
    train, dev = (
        [one for kind in _by_kind(parts[split], fit_limit, seed).values() for one in kind] for split in ("train", "dev")
    )
    return Sample(fit=_restyled(train, operators, seed), dev=_restyled(dev, operators, seed), held_out=tuple(asked))


def _by_kind(requests: Sequence[Request], limit: int, seed: int) -> dict[str, list[Request]]:
    """At most `limit` harmful requests, look-alikes and ordinary ones; look-alikes are those of the harmful, if any."""
    harmful = sample([one for one in requests if one.harmful], limit, seed)
    twins = {one.twin for one in harmful if one.twin}
    lookalikes = [one for one in requests if not one.harmful and one.kind == LOOKALIKE]
    paired = [one for one in lookalikes if one.twin in twins]
    ordinary = [one for one in requests if not one.harmful and one.kind != LOOKALIKE]
    return {
        "harmful": harmful,
        LOOKALIKE: sample(paired or lookalikes, limit, seed),
        "ordinary": sample(ordinary, limit, seed),
    }


def _restyled(requests: Sequence[Request], operators: Mapping[str, Operator], seed: int) -> tuple[Request, ...]:
    """Every third request in one of the styles that fit it, twins alike."""
    found = []
    for request in requests:
        rng = random.Random(f"{seed}:inside:{request.twin or request.id}")
        fitting = [one for one in operators.values() if one.applies(request, "en")]
        chosen = rng.choice(fitting) if fitting and rng.randrange(_STYLED_EVERY) == 0 else None
        found.append(request if chosen is None else chosen.apply(request, rng))
    return tuple(found)


def groups_of(asked: Sequence[Asked]) -> list[list[str]]:
    """The groups in which each request counts: `direct`, `lookalike` (both sides of the minimal pairs), its style."""
    twins = {one.request.twin for one in asked if one.request.kind == LOOKALIKE}
    return [_groups(one, twins) for one in asked]


def _groups(one: Asked, twins: set[str]) -> list[str]:
    if one.style != DIRECT.name:
        return [one.style]
    if one.request.kind == LOOKALIKE:
        return [LOOKALIKE]
    paired = one.request.harmful and one.request.twin in twins
    return [DIRECT.name, LOOKALIKE] if paired else [DIRECT.name]


def cells(asked: Sequence[Asked], scores: Sequence[float | None]) -> dict[str, list[tuple[Scores, Scores]]]:
    """Scores of harmful and harmless requests by group, and under `styled` those of all styles.

    Each is a list of pairs of seed request to score, one pair a style. What has no score is left out, and so is a
    group without scores on both sides.
    """
    found: dict[str, tuple[dict[str, float], dict[str, float]]] = {}
    for one, groups, score in zip(asked, groups_of(asked), scores, strict=True):
        for group in groups if score is not None else ():
            side = found.setdefault(group, ({}, {}))[0 if one.request.harmful else 1]
            side[one.request.seed_id] = score or 0.0
    pairs: dict[str, list[tuple[Scores, Scores]]] = {group: [pair] for group, pair in found.items() if all(pair)}
    styled = [own[0] for group, own in pairs.items() if group not in (DIRECT.name, LOOKALIKE)]
    return {**pairs, **({STYLED: styled} if styled else {})}


def main_group(asked: Sequence[Asked]) -> str:
    """The group that one number stands for: `styled`, or `direct` where nothing is asked in a style."""
    return STYLED if any(one.style != DIRECT.name for one in asked) else DIRECT.name


def unscored_by_group(asked: Sequence[Asked], scores: Sequence[float | None]) -> Counter[str]:
    """How many requests of each group have no score."""
    counts: Counter[str] = Counter()
    for groups, score in zip(groups_of(asked), scores, strict=True):
        counts.update(groups if score is None else ())
    counts[STYLED] = sum(n for group, n in counts.items() if group not in (DIRECT.name, LOOKALIKE, STYLED))
    return counts


def area_figures(stem: str, asked: Sequence[Asked], scores: Sequence[float | None]) -> list[Figure]:
    """AUROC by group, `STEM_direct`, `STEM_lookalike`, `STEM_STYLE` and `STEM_styled` (mean over styles)."""
    missing = unscored_by_group(asked, scores)
    return [
        mean_auroc([a for a, _ in pairs], [b for _, b in pairs])
        .named(f"{stem}_{group}")
        .model_copy(update={"unscored": missing[group]})
        for group, pairs in cells(asked, scores).items()
    ]
