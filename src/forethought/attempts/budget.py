"""A suite within a time: fewer behaviours under every attack, never fewer attacks.

The rate is measured on a small plan of all the attacks; then the plan is fixed, before anything that was answered has
been looked at. Samples are nested: what the small plan asked is a part of the larger one, and counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from forethought.attacks.base import Attack
from forethought.attacks.prepare import Preparation
from forethought.attempts.ask import RunCounts, run_suite
from forethought.attempts.plan import PlanSummary, make_plan
from forethought.data.behaviors import Behavior, sample
from forethought.errors import InputError, ModelError
from forethought.manifest import key_of, write_json
from forethought.models.conversation import Respondent
from forethought.records import Record

BUDGET_FILE = "budget.json"
_ENOUGH = 128
"""Answers on which a rate is measured: a model that decodes in batches is slow on few."""
_SHARE = 0.05
"""Of the time, the part after which measuring ends even so."""


class Fit(Record):
    """How much of a benchmark fits in a time."""

    seconds: float
    """The time there is."""
    rate: float
    """Attempts a second, as measured; infinite where everything was answered before."""
    attacks: int
    """All that can be run, no attack at all among them."""
    harmful: int
    """Behaviours kept, of `of_harmful`."""
    of_harmful: int
    harmless: int
    of_harmless: int
    fits: bool
    """False where even one behaviour of each label under every attack takes longer: so many are kept then."""

    @property
    def attempts(self) -> int:
        """How many attempts that makes."""
        return self.attacks * (self.harmful + self.harmless)

    def __str__(self) -> str:
        speed = "all answered before" if math.isinf(self.rate) else f"at {self.rate:.1f}/s"
        text = (
            f"{self.harmful} of {self.of_harmful} harmful and {self.harmless} of {self.of_harmless} harmless behaviours"
            f" under each of {self.attacks} attacks, {self.attempts} attempts, {speed}"
        )
        if self.fits:
            return f"{text}: fits in {self.seconds:.0f} s"
        return f"{text}: the least there is, and it takes {self.attempts / self.rate:.0f} s, not {self.seconds:.0f}"


def fit(n_attacks: int, sides: tuple[int, int], seconds: float, rate: float) -> Fit:
    """How many behaviours fit in a time at a rate of attempts a second, both labels shrunk alike, at least one each.

    `n_attacks`: those that can be run, no attack at all among them; none is dropped. `sides`: how many harmful and
    harmless behaviours there are.
    """
    whole = sum(sides)
    room = int(min(rate * seconds / n_attacks, whole))
    share = room / whole if whole else 0.0
    # Rounded down: rounding both up could pass the limit.
    harmful, harmless = (min(side, max(1, math.floor(share * side + 1e-9))) for side in sides)
    return Fit(
        seconds=seconds,
        rate=rate,
        attacks=n_attacks,
        harmful=harmful,
        of_harmful=sides[0],
        harmless=harmless,
        of_harmless=sides[1],
        fits=n_attacks * (harmful + harmless) <= rate * seconds * (1 + 1e-9),
    )


def shrink(behaviors: Sequence[Behavior], n: int, seed: int, by: str = "category") -> list[Behavior]:
    """At most `n` behaviours, stratified; a smaller sample is a part of a larger one."""
    return sample(behaviors, n, seed, by) if 0 < n < len(behaviors) else list(behaviors[:n])


def make_plan_in_time(
    folder: Path,
    attacks: Sequence[Attack],
    harmful: Sequence[Behavior],
    harmless: Sequence[Behavior],
    how: Preparation,
    respondent: Respondent,
    seconds: float,
    by: str = "category",
    max_answer_tokens: int = 128,
    on_progress: Callable[[int], None] | None = None,
) -> tuple[PlanSummary, Fit]:
    """`make_plan` with as many behaviours as a model answers in `seconds`, its measurement included.

    What was decided stands in `folder`/budget.json and holds for every later call with the same inputs, so that a run
    which is taken up again keeps its plan. Raises what `make_plan` and `run_suite` raise, and ModelError where the
    model answers nothing that a rate could be measured on.
    """

    def plan(n_harmful: int, n_harmless: int) -> PlanSummary:
        kept = shrink(harmful, n_harmful, how.seed, by), shrink(harmless, n_harmless, how.seed, by)
        return make_plan(folder, attacks, *kept, replace(how, able=respondent.able))

    def run() -> RunCounts:
        return run_suite(folder, respondent, max_answer_tokens, on_progress)

    ids = [[behavior.request.id for behavior in side] for side in (harmful, harmless)]
    told = key_of([[one.name for one in attacks], ids, how.seed, seconds, by, max_answer_tokens, respondent.name])
    chosen = _decided(folder, told)
    if chosen is None:
        chosen = _measured((len(harmful), len(harmless)), seconds, plan, run, respondent.name)
        write_json(folder / BUDGET_FILE, {"inputs": told, "fit": chosen.model_dump(mode="json"), "says": str(chosen)})
    return plan(chosen.harmful, chosen.harmless), chosen


def _measured(
    whole: tuple[int, int],
    seconds: float,
    plan: Callable[[int, int], PlanSummary],
    run: Callable[[], RunCounts],
    model: str,
) -> Fit:
    """What fits, by the rate of a plan that is doubled until the rate can be told."""
    size, spent, asked = 1, 0.0, 0
    while True:
        sides = min(size, whole[0]), min(size, whole[1])
        summary, counts = plan(*sides), run()
        spent, asked = spent + counts.seconds, asked + counts.answered
        if counts.failed or counts.stopped or not (counts.answered or counts.reused):
            if not counts.answered:
                cause = counts.stopped or next(iter(counts.causes), "nothing could be asked")
                raise ModelError(model, f"gave no answer to measure a rate on ({cause})", "Try again")
        elif sides == whole and not counts.answered:
            return fit(_runnable(summary), whole, seconds, math.inf)
        if counts.answered and (sides == whole or asked >= _ENOUGH or spent >= _SHARE * seconds):
            break
        size *= 2  # too few yet, or an earlier run asked them already
    rate = counts.answered / counts.seconds
    # What was asked already takes no more time: the time left is for the rest.
    in_all = max(seconds - spent, 0.0) + summary.conversations / rate
    found = fit(_runnable(summary), whole, in_all, rate)
    return found.model_copy(update={"seconds": seconds, "fits": found.fits and spent <= seconds})


def _runnable(summary: PlanSummary) -> int:
    """How many attacks can be carried out on at least one request."""
    blocked = {attack: sum(causes.values()) for attack, causes in summary.not_run.items()}
    return sum(blocked.get(attack, 0) < summary.harmful + summary.harmless for attack in summary.attacks)


def _decided(folder: Path, told: str) -> Fit | None:
    path = folder / BUDGET_FILE
    if not path.is_file():
        return None
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return Fit.model_validate(held["fit"]) if held["inputs"] == told else None
    except (json.JSONDecodeError, KeyError, TypeError, ValidationError):
        raise InputError(path, "is damaged", "Delete it: the rate is measured again") from None
