"""The threshold of a model, set so that false refusals on new requests are bounded; and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from forethought.data.shipped import shipped_requests
from forethought.data.sources import SourceSpec, load_requests, sample
from forethought.defences.base import Wrapper
from forethought.defences.fused import FusedVerdict
from forethought.errors import InputError
from forethought.measure.calibrate import CONFIDENCE, Guarantee, Method, rows_needed
from forethought.measure.traffic import (
    DRIFT_LIMIT,
    Drift,
    Reference,
    Sources,
    Traffic,
    Transfer,
    load_traffic,
    set_across,
    threshold_or_highest,
    transfer,
)
from forethought.metrics import Figure, share
from forethought.model import Model, load, trained_folder
from forethought.models.conversation import Conversation, Failed
from forethought.models.settings import read_settings, write_settings
from forethought.progress import Progress
from forethought.records import Request
from forethought.report.tables import interval

Scores = Sequence[float | None]
"""None is unscored."""
_ROWS_OF_A_SOURCE = 300
"""The most of one source beside others: a large one would decide alone."""
_SHIPPED = ("calibration", "ordinary", "broad")


@dataclass(frozen=True)
class Calibrated:
    """A threshold that was set, what is promised of it, and what it costs."""

    threshold: float
    """Score from which the model refuses: log-odds of the verdict, or the defence's own score."""
    before: float
    """What stood there."""
    found: Guarantee
    harmful: Scores
    """Of the harmful calibration requests."""
    lookalikes: Scores
    """Of harmless look-alikes of harmful requests, which the bound does not cover."""
    file: Path
    """Where it was written: beside the weights, or in the defence's folder."""
    elsewhere: Transfer | None = None
    """What it does on other traffic, told from how its sources differ; None for one source."""
    moved: float | None = None
    """How far these scores are from those that the threshold was set on before, as `measure/traffic.py` tells; None
    where nothing was kept of them, or there are too few."""

    def __str__(self) -> str:
        promise, before = str(self.found), self.before
        lines = [
            f"{promise[0].upper()}{promise[1:]}.",
            f"Cost: of {len(self.harmful)} harmful requests, {interval(_share(self.harmful, self.threshold))} are still"
            f" refused (at {before:.2f}, where it stood: {_at(self.harmful, before)}).",
        ]
        if self.lookalikes:
            lines.append(
                "Not covered by the bound, harmless look-alikes of harmful requests: of"
                f" {len(self.lookalikes)} shipped ones, {interval(_share(self.lookalikes, self.threshold))} are refused"
                f" (at {before:.2f}: {_at(self.lookalikes, before)})."
            )
        if self.elsewhere is not None:
            lines.append(f"{str(self.elsewhere)[0].upper()}{str(self.elsewhere)[1:]}.")
        elif self.found.n:
            lines.append("One source alone: nothing can be said of traffic from elsewhere. Give several.")
        if self.moved is not None and self.moved >= DRIFT_LIMIT:
            lines.append(
                "Traffic has moved since the threshold was last set: stability index of its scores"
                f" {self.moved:.2f}, from {DRIFT_LIMIT} on it is traffic of another kind."
            )
        return "\n".join([*lines, f"Threshold {self.threshold:.3f}, written beside the model: {self.file}"])


def calibrate(
    model: str | Path,
    max_false_refusal: float,
    *,
    confidence: float = CONFIDENCE,
    method: Method = "clopper-pearson",
    harmless: Sequence[str] = (),
    traffic: str | None = None,
    harmful: Sequence[str] = (),
    defence: str | None = None,
    batch_size: int = 128,
    progress: Progress | None = None,
) -> Calibrated:
    """Sets the threshold of a trained model, or of a run's best defence, so that false refusals are bounded.

    Each of `harmless` is a source of its own: none is refused more than twice the limit, and leaving out one after the
    other tells what happens on traffic from elsewhere. Without any they are the shipped calibration, ordinary and
    broad development requests, by kind. Look-alikes are not in them, for everyday traffic holds few: how many
    development ones are refused is said beside the bound. `traffic` is your own log of harmless requests: the bound is
    then about it, and the other sources keep the threshold from resting on it alone.
    `defence` `none` sets the threshold of a run's verdict alone. Raises InputError, and changes nothing, where the
    sample is too small for the promise, or the model has no threshold.
    """
    progress = progress or Progress()
    folder = trained_folder(model)
    if not read_settings(folder).thinks:
        raise InputError(folder, "does not think: it has no verdict to set a threshold for", "Calibrate a scot model")
    sources = _sources(harmless, traffic, progress)
    allowed = [row for rows in sources.values() for row in rows]
    attacks = _requests(harmful, True, ("harmful",), progress)
    lookalikes = [] if harmless else _requests((), False, ("lookalike",), progress)
    if line := read_settings(folder).unlearned(row.plain for row in (*allowed, *attacks)):
        progress.say(f"[yellow]{line}. A threshold set on them says little about its own[/]")

    def found_on(scored: Sources, harmful_scores: Sequence[float] = ()) -> Guarantee:
        own = scored.get(traffic or "")
        return set_across(scored, max_false_refusal, confidence, method, harmful_scores, own)

    # Whether the sample is large enough depends on its size alone: say so before minutes of thinking.
    _must_hold(found_on({name: [0.0] * len(rows) for name, rows in sources.items()}), confidence)
    opened = load(model, defence=defence, batch_size=batch_size)
    fused = _fused(opened)
    rows = [*allowed, *attacks, *lookalikes]
    with progress.bar("calibrate") as bar:
        bar.total(len(rows))
        scores = iter(_scores(opened, rows, bar.advance))
    of_sources = {name: list(islice(scores, len(group))) for name, group in sources.items()}
    of_attacks, of_lookalikes = (list(islice(scores, len(group))) for group in (attacks, lookalikes))
    found = found_on(of_sources, [score for score in of_attacks if score is not None])
    threshold = _must_hold(found, confidence)
    elsewhere = transfer(of_sources, threshold, lambda some: threshold_or_highest(found_on(some), some), confidence)
    if fused is not None:
        before, file = fused.fusion.threshold, Path(fused.options.folder)
        fused.fusion.model_copy(update={"threshold": threshold}).save(file, fused.probe)
    else:
        before, file = read_settings(folder).threshold, folder
        _set_own(folder, threshold, found, of_attacks, of_lookalikes)
    now = [score for scores in of_sources.values() for score in scores]
    moved = _moved(file, now)
    Traffic(reference=Reference.of(of_sources.get(traffic or "", now)), transfer=elsewhere).save(file)
    return Calibrated(threshold, before, found, of_attacks, of_lookalikes, file, elsewhere, moved)


def _set_own(
    folder: Path,
    threshold: float,
    found: Guarantee,
    of_attacks: Sequence[float | None],
    of_lookalikes: Sequence[float | None],
) -> None:
    """Writes the threshold of a model's own verdict, and what it did, into its settings."""
    caught, mistaken = _share(of_attacks, threshold), _share(of_lookalikes, threshold)
    note = f"{found}; refuses {caught.value:.0%} of {caught.n} harmful development requests"
    if mistaken.n:
        note += f" and {mistaken.value:.0%} of {mistaken.n} harmless look-alikes, which the bound does not cover"
    update = {"threshold": threshold, "threshold_note": note}
    write_settings(folder, read_settings(folder).model_copy(update=update))


def _moved(file: Path, now: Sequence[float | None]) -> float | None:
    """How far these scores are from those that the threshold was set on before; None where there were none."""
    known = load_traffic(file)
    if known is None:
        return None
    drift = Drift(known.reference, window=None)
    drift.add(*now)
    return drift.index


def _fused(model: Model) -> FusedVerdict | None:
    """The defence that holds the threshold; None where that is the verdict's own.

    Raises InputError for a defence whose threshold is set otherwise.
    """
    at = model.respondent
    while isinstance(at, Wrapper):
        if isinstance(at, FusedVerdict):
            return at
        at = at.inner
    if model.defence:
        raise InputError(model.defence, "holds no threshold that can be set", "Give --defence none for the verdict's")
    return None


def _scores(model: Model, rows: Sequence[Request], on_done: Callable[[int], None]) -> list[float | None]:
    """By request, the score that decides; None where there is none."""
    if model.local is not None and model.respondent is model.local:
        return [said.log_odds for said in model.local.think([row.messages for row in rows], on_done=on_done)]
    asked = [Conversation(messages=row.messages) for row in rows]
    replies = model.respondent.reply(asked, 0, lambda place, reply: on_done(1))
    return [None if isinstance(reply, Failed) else reply.log_odds for reply in replies]


def _must_hold(found: Guarantee, confidence: float) -> float:
    """The threshold. Raises InputError, which says what would help, where the sample allows none."""
    if found.threshold is not None:
        return found.threshold
    if found.allowed >= 0:
        raise InputError("calibration", str(found), "Ask for less, or give more harmless requests")
    shares = [hundredths / 100 for hundredths in range(1, 100)]
    reachable = next((one for one in shares if rows_needed(one, confidence, "clopper-pearson") <= found.n), 0.99)
    raise InputError(
        "calibration",
        str(found),
        f"Give more harmless requests, ask for max_false_refusal {reachable:.2f},"
        " or for a bound on average with the method conformal",
    )


def _share(odds: Scores, threshold: float) -> Figure:
    """Share refused at a threshold; without a score is unscored."""
    return share([None if score is None else score >= threshold for score in odds])


def _at(odds: Scores, threshold: float) -> str:
    value = _share(odds, threshold)
    return f"{value.value:.2f}" if value.n else "not measured"


def _sources(harmless: Sequence[str], traffic: str | None, progress: Progress) -> dict[str, list[Request]]:
    """Harmless calibration requests by source, the own traffic last; shipped ones by their kind."""
    found: dict[str, list[Request]] = {}
    for source in harmless:
        found[source] = _requests([source], False, (), progress)
    if not harmless:
        for row in _requests((), False, _SHIPPED, progress):
            found.setdefault(f"shipped, {row.categories[0]}", []).append(row)
    if traffic is not None:
        found[traffic] = _requests([traffic], False, (), progress)
    if len(found) > 1:
        found = {name: rows if name == traffic else sample(rows, _ROWS_OF_A_SOURCE) for name, rows in found.items()}
    return found


def _requests(sources: Sequence[str], harmful: bool, shipped: tuple[str, ...], progress: Progress) -> list[Request]:
    """Calibration requests, each once: rows that share a seed request are not independent."""
    found: list[Request] = []
    if not sources:
        found = [request for name in shipped for request in shipped_requests(name, "dev")]
    for source in sources:
        if source.startswith("shipped:"):
            found += shipped_requests(source.removeprefix("shipped:"), "dev")
            continue
        rows = load_requests(SourceSpec(path=source), harmful, progress.mapping)
        found += [row for row in rows if row.harmful is harmful]
    once = {request.seed_id: request for request in found}
    if sources and not once:
        kind = "harmful" if harmful else "harmless"
        raise InputError(", ".join(sources), f"holds no {kind} request", "Check the file and its label column")
    return list(once.values())
