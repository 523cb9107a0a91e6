"""`forethought calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forethought.commands.shared import console, quiet
from forethought.errors import InputError


def calibrate(
    model: str,
    max_false_refusal: float,
    confidence: float,
    method: str,
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
    from forethought.engine.local import LocalModel, read_settings, write_settings
    from forethought.evals.guarantee import guarantee
    from forethought.pipeline.terminal import Terminal

    folder = Path(model)
    settings = read_settings(folder)
    if not settings.thinks:
        raise InputError(folder, "does not think: it has no verdict to set a threshold for", "Calibrate a scot model")
    allowed = _requests(harmless, harmful=False, shipped=("calibration", "ordinary"))
    lookalikes = [] if harmless else _requests([], harmful=False, shipped=("lookalike",))
    attacks = _requests(harmful, harmful=True, shipped=("harmful",))
    # Whether the sample is large enough depends on its size alone: say so before minutes of thinking.
    check = guarantee([0.0] * len(allowed), max_false_refusal, confidence, method)  # type: ignore[arg-type]
    _must_hold(check, confidence)
    rows = [*allowed, *attacks, *lookalikes]
    with Terminal(console).progress("calibrate") as bar:
        bar.total(len(rows))
        local = LocalModel.load(model, batch_size=batch_size)
        responses = local.think([row.messages for row in rows], on_done=bar.advance)
    odds = [response.log_odds for response in responses]
    n_bounded = len(allowed) + len(attacks)
    odds_allowed, odds_attacks, odds_lookalikes = odds[: len(allowed)], odds[len(allowed) : n_bounded], odds[n_bounded:]
    found = guarantee(
        odds_allowed,
        max_false_refusal,
        confidence,
        method,  # type: ignore[arg-type]
        [score for score in odds_attacks if score is not None],
    )
    _must_hold(found, confidence)
    assert found.threshold is not None
    note = _note(found, odds_attacks, odds_lookalikes)
    write_settings(folder, settings.model_copy(update={"threshold": found.threshold, "threshold_note": note}))
    _say(f"{str(found)[0].upper()}{str(found)[1:]}.")
    _say(
        f"Cost: of {len(attacks)} harmful requests, {_refused(odds_attacks, found.threshold)} are still refused"
        f" (at {settings.threshold:.2f}, where it stood: {_at(odds_attacks, settings.threshold)})."
    )
    if lookalikes:
        _say(
            f"Not covered by the bound, harmless look-alikes of harmful requests: of {len(lookalikes)} shipped ones,"
            f" {_refused(odds_lookalikes, found.threshold)} are refused"
            f" (at {settings.threshold:.2f}: {_at(odds_lookalikes, settings.threshold)})."
        )
    _say(f"Threshold {found.threshold:.3f}, written beside the model: {folder}")


def _note(found: Any, odds_attacks: list[float | None], odds_lookalikes: list[float | None]) -> str:
    caught, mistaken = _share(odds_attacks, found.threshold), _share(odds_lookalikes, found.threshold)
    note = f"{found}; refuses {caught.value:.0%} of {caught.n} harmful development requests"
    if mistaken.n:
        note += f" and {mistaken.value:.0%} of {mistaken.n} harmless look-alikes, which the bound does not cover"
    return note


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def _must_hold(found: Any, confidence: float) -> None:
    if found.threshold is not None:
        return
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
    from forethought.evals.guarantee import rows_needed

    for hundredths in range(1, 100):
        if rows_needed(hundredths / 100, confidence, "clopper-pearson") <= n:
            return hundredths / 100
    return 0.99


def _share(odds: list[float | None], threshold: float) -> Any:
    """Share refused at a threshold, as a figure; without a score is unscored."""
    from forethought.evals.metrics import share

    return share([None if score is None else score >= threshold for score in odds])


def _refused(odds: list[float | None], threshold: float) -> str:
    from forethought.report.rows import interval

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
