"""What changed from one kept run to another: beyond chance, request by request, and whether it may be shipped."""

from __future__ import annotations

from pathlib import Path

from forethought.attacks.catalogue import DIRECT, parse_attack
from forethought.errors import ConfigError, InputError
from forethought.evaluation.kept import Kept, kept
from forethought.judges import DEFAULT_JUDGE
from forethought.manifest import key_of
from forethought.measure.gate import Limits, changes, flips
from forethought.report.figures import attack_sets
from forethought.report.gate import Gate

_REASONING = "reasoning"


def diff(
    before: str | Path | Kept,
    after: str | Path | Kept,
    limits: Limits | None = None,
    *,
    judge: str = DEFAULT_JUDGE,
    matched: float | None = None,
    trained_apart: bool | None = None,
    out: Path | None = None,
    show_harmful: bool = False,
) -> Gate:
    """What got better and worse from `before` to `after`, which requests changed, and whether that keeps `limits`.

    Both are folders that keep judged answers, as `kept` reads them; nothing is asked. Of `limits` those on changes
    count: `tolerated`, `regression`, `strict`. `matched`: also compares attack success at this rate of false refusals.
    `trained_apart`: a difference fails only where it is beyond what two trainings of one recipe differ in; None is
    whether both were trained here, and not the same weights. Page, Markdown, JUnit and JSON are written into `out`
    (None: `runs/diff-HASH`). Raises InputError where there is nothing to compare.
    """
    limits = limits or Limits()
    first, second = (one if isinstance(one, Kept) else kept(one, judge) for one in (before, after))
    unseen = styles_of(first, second)
    apart = trained_apart
    if apart is None:
        apart = bool(first.weights and second.weights) and first.weights != second.weights
    found = changes(first.counted, second.counted, unseen, trained_apart=apart, matched=matched)
    if not found:
        raise InputError(
            f"{first.name} and {second.name}", "share no attempt that both judges scored",
            "Put the same requests to both, under the same attacks",
        )  # fmt: skip
    pairs = max(one.trainings for one in found)
    notes = [f"{pairs} trainings of each are compared: a difference counts where all show it"] if pairs > 1 else []
    if apart and pairs == 1:
        notes.append(
            "Trained apart: a difference fails only where it is also beyond what two trainings of one recipe differ in"
        )
    gate = Gate(
        title=f"From {first.name} to {second.name}", limits=limits, findings=[one.finding(limits) for one in found],
        folder=out or Path("runs") / f"diff-{key_of([first.name, second.name])[:8]}", before=first.name,
        after=second.name, changes=found, flips=flips(first.counted, second.counted), notes=notes,
        show_harmful=show_harmful,
    )  # fmt: skip
    gate.write()
    return gate


def styles_of(*systems: Kept) -> list[str]:
    """The styles that stand in a mean: put to all, read by the base model as far as that was measured, trained on by
    none of them."""
    shared = [name for name in systems[0].attacks if all(name in one.attacks for one in systems)]
    styles = [name for name in shared if _is_style(name)]
    seen = sorted({style for one in systems for style in one.seen})
    reads = {style: readable for one in systems for style, readable in (one.reads or {}).items()}
    unseen, _ = attack_sets(styles, seen, reads)
    return unseen


def _is_style(name: str) -> bool:
    """Whether it is a disguise; somebody's own attack, whose file is not there, is in no mean."""
    try:
        attack = parse_attack(name)
    except ConfigError:
        return False
    return attack.name != DIRECT.name and attack.kind != _REASONING
