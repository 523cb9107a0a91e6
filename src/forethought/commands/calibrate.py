"""`forethought calibrate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from forethought.commands.shared import quiet
from forethought.commands.terminal import console
from forethought.errors import InputError

if TYPE_CHECKING:
    from forethought.evals.calibrate import Guarantee, Method


T = TypeVar("T")
V = TypeVar("V")


@dataclass(frozen=True)
class _Sample(Generic[T]):
    """One thing for each request of the sample, by what the request is for."""

    allowed: list[T]
    """Harmless: their refusals are bounded."""
    attacks: list[T]
    lookalikes: list[T]

    @property
    def rows(self) -> list[T]:
        return [*self.allowed, *self.attacks, *self.lookalikes]

    def parted(self, found: Sequence[V]) -> _Sample[V]:
        """What was found for the rows, in their order, parted likewise."""
        first, second = len(self.allowed), len(self.allowed) + len(self.attacks)
        return _Sample(list(found[:first]), list(found[first:second]), list(found[second:]))


def calibrate(
    model: str,
    max_false_refusal: float,
    confidence: float,
    method: Method,
    harmless: list[str],
    harmful: list[str],
    batch_size: int = 128,
) -> None:
    """Sets the threshold of a trained model so that false refusals are bounded, and says what that costs.

    Without `harmless` the sample is the shipped calibration set and the ordinary development
    requests. Look-alikes are not in it, for everyday traffic holds few of them: how many
    development ones are refused is said beside the bound. Raises InputError, and changes
    nothing, where the sample is too small for the promise.
    """
    quiet()
    from forethought.commands.terminal import Terminal
    from forethought.engine.local import read_settings, write_settings
    from forethought.evals.calibrate import guarantee
    from forethought.model import load_local, trained_folder

    folder = trained_folder(model)
    settings = read_settings(folder)
    if not settings.thinks:
        raise InputError(folder, "does not think: it has no verdict to set a threshold for", "Calibrate a scot model")
    sample = _Sample(
        allowed=_requests(harmless, harmful=False, shipped=("calibration", "ordinary")),
        attacks=_requests(harmful, harmful=True, shipped=("harmful",)),
        lookalikes=[] if harmless else _requests([], harmful=False, shipped=("lookalike",)),
    )
    # Whether the sample is large enough depends on its size alone: say so before minutes of thinking.
    check = guarantee([0.0] * len(sample.allowed), max_false_refusal, confidence, method)
    _must_hold(check, confidence)
    with Terminal(console).bar("calibrate") as bar:
        bar.total(len(sample.rows))
        local = load_local(model, batch_size)
        responses = local.think([row.messages for row in sample.rows], on_done=bar.advance)
    odds = sample.parted([response.log_odds for response in responses])
    scored = [score for score in odds.attacks if score is not None]
    found = guarantee(odds.allowed, max_false_refusal, confidence, method, scored)
    threshold = _must_hold(found, confidence)
    note = _note(found, threshold, odds)
    write_settings(folder, settings.model_copy(update={"threshold": threshold, "threshold_note": note}))
    _tell(found, threshold, odds, settings.threshold)
    _say(f"Threshold {threshold:.3f}, written beside the model: {folder}")


def _tell(found: Guarantee, threshold: float, odds: _Sample[float | None], before: float) -> None:
    """What is promised, and what it costs beside the threshold that stood there before."""
    _say(f"{str(found)[0].upper()}{str(found)[1:]}.")
    _say(
        f"Cost: of {len(odds.attacks)} harmful requests, {_refused(odds.attacks, threshold)} are still refused"
        f" (at {before:.2f}, where it stood: {_at(odds.attacks, before)})."
    )
    if odds.lookalikes:
        _say(
            f"Not covered by the bound, harmless look-alikes of harmful requests: of {len(odds.lookalikes)} shipped"
            f" ones, {_refused(odds.lookalikes, threshold)} are refused"
            f" (at {before:.2f}: {_at(odds.lookalikes, before)})."
        )


def _note(found: Guarantee, threshold: float, odds: _Sample[float | None]) -> str:
    caught, mistaken = _share(odds.attacks, threshold), _share(odds.lookalikes, threshold)
    note = f"{found}; refuses {caught.value:.0%} of {caught.n} harmful development requests"
    if mistaken.n:
        note += f" and {mistaken.value:.0%} of {mistaken.n} harmless look-alikes, which the bound does not cover"
    return note


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def _must_hold(found: Guarantee, confidence: float) -> float:
    """The threshold. Raises InputError, which says what would help, where the sample allows none."""
    if found.threshold is not None:
        return found.threshold
    if found.allowed >= 0:
        raise InputError("calibration", str(found), "Ask for less, or give more requests with --harmless FILE")
    raise InputError(
        "calibration",
        str(found),
        f"Give more with --harmless FILE, ask for less with --max-false-refusal {_reachable(found.n, confidence):.2f},"
        " or for a bound on average with --method conformal",
    )


def _reachable(n: int, confidence: float) -> float:
    """The smallest limit, in whole hundredths, that so many requests can promise."""
    from forethought.evals.calibrate import rows_needed

    for hundredths in range(1, 100):
        if rows_needed(hundredths / 100, confidence, "clopper-pearson") <= n:
            return hundredths / 100
    return 0.99


def _share(odds: list[float | None], threshold: float) -> Any:
    """Share refused at a threshold, as a figure; without a score is unscored."""
    from forethought.evals.metrics import share

    return share([None if score is None else score >= threshold for score in odds])


def _refused(odds: list[float | None], threshold: float) -> str:
    from forethought.report.tables import interval

    return interval(_share(odds, threshold))


def _at(odds: list[float | None], threshold: float) -> str:
    value = _share(odds, threshold)
    return f"{value.value:.2f}" if value.n else "not measured"


def _requests(sources: list[str], harmful: bool, shipped: tuple[str, ...]) -> list[Any]:
    """Calibration requests, each once: rows that share a seed request are not independent."""
    from forethought.data.shipped import shipped_requests
    from forethought.data.sources import SourceSpec, load_requests

    found: list[Any] = []
    if not sources:
        found = [request for name in shipped for request in shipped_requests(name, "dev")]
    for source in sources:
        if source.startswith("shipped:"):
            found += shipped_requests(source.removeprefix("shipped:"), "dev")
            continue
        rows = load_requests(
            SourceSpec(path=source), harmful, lambda name, mapping: console.print(f"{name}: {mapping}", highlight=False)
        )
        found += [row for row in rows if row.harmful is harmful]
    once = {request.seed_id: request for request in found}
    if sources and not once:
        kind = "harmful" if harmful else "harmless"
        raise InputError(", ".join(sources), f"holds no {kind} request", "Check the file and its label column")
    return list(once.values())
