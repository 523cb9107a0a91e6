"""A suite within a time: fewer behaviours under every attack, never fewer attacks.

The rate is measured on a small plan of all the attacks; then the plan is fixed, before anything that was answered has
been looked at. Samples are nested: what the small plan asked is a part of the larger one, and counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from forethought.attacks.base import Attack, Given
from forethought.attacks.catalogue import DIRECT
from forethought.attacks.prepare import AskAttacker, Rewrites
from forethought.attempts.ask import run_suite
from forethought.attempts.plan import PlanSummary, make_plan
from forethought.data.benchmarks.behaviors import Behavior, sample
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

    @property
    def shrunk(self) -> bool:
        """Whether behaviours were left out."""
        return (self.harmful, self.harmless) != (self.of_harmful, self.of_harmless)

    def __str__(self) -> str:
        speed = "all answered before" if math.isinf(self.rate) else f"at {self.rate:.1f}/s"
        text = (
            f"{self.harmful} of {self.of_harmful} harmful and {self.harmless} of {self.of_harmless} harmless behaviours"
            f" under each of {self.attacks} attacks, {self.attempts} attempts, {speed}"
        )
        if self.fits:
            return f"{text}: fits in {self.seconds:.0f} s"
        return f"{text}: the least there is, and it takes {self.attempts / self.rate:.0f} s, not {self.seconds:.0f}"


def fit(
    attacks: Sequence[Attack],
    harmful: Sequence[Behavior],
    harmless: Sequence[Behavior],
    seconds: float,
    rate: float,
) -> Fit:
    """How many behaviours fit in a time at a rate of attempts a second, both labels shrunk alike, at least one each.

    `attacks`: those that can be run. No attack is dropped.
    """
    n_attacks = len({DIRECT.name, *(attack.name for attack in attacks)})
    whole = len(harmful) + len(harmless)
    room = int(min(rate * seconds / n_attacks, whole))
    share = room / whole if whole else 0.0
    # Rounded down: rounding both up could pass the limit.
    kept = [min(len(side), max(1, math.floor(share * len(side) + 1e-9))) for side in (harmful, harmless)]
    return Fit(
        seconds=seconds,
        rate=rate,
        attacks=n_attacks,
        harmful=kept[0],
        of_harmful=len(harmful),
        harmless=kept[1],
        of_harmless=len(harmless),
        fits=n_attacks * sum(kept) <= rate * seconds * (1 + 1e-9),
    )


def shrink(behaviors: Sequence[Behavior], n: int, seed: int, by: str = "category") -> list[Behavior]:
    """At most `n` behaviours, stratified; a smaller sample is a part of a larger one."""
    return sample(behaviors, n, seed, by) if 0 < n < len(behaviors) else list(behaviors[:n])


def make_plan_in_time(
    folder: Path,
    respondent: Respondent,
    seconds: float,
    attacks: Sequence[Attack],
    harmful: Sequence[Behavior],
    harmless: Sequence[Behavior],
    seed: int,
    max_answer_tokens: int = 128,
    given: Given | None = None,
    rewrites: Rewrites | None = None,
    ask: AskAttacker | None = None,
    by: str = "category",
    on_progress: Callable[[int], None] | None = None,
) -> tuple[PlanSummary, Fit]:
    """`make_plan` with as many behaviours as a model answers in `seconds`, its measurement included.

    What was decided stands in `folder`/budget.json and holds for every later call with the same inputs, so that a run
    which is taken up again keeps its plan. Raises what `make_plan` and `run_suite` raise, and ModelError where the
    model answers nothing that a rate could be measured on.
    """

    def plan(n_harmful: int, n_harmless: int) -> PlanSummary:
        kept = shrink(harmful, n_harmful, seed, by), shrink(harmless, n_harmless, seed, by)
        return make_plan(folder, attacks, *kept, seed, given, respondent.able, rewrites, ask)

    ids = [[behavior.request.id for behavior in side] for side in (harmful, harmless)]
    told = key_of([[attack.name for attack in attacks], ids, seed, seconds, by, max_answer_tokens, respondent.name])
    chosen = _decided(folder, told)
    if chosen is None:
        chosen = _measured(
            folder, respondent, seconds, attacks, harmful, harmless, plan, max_answer_tokens, on_progress
        )
        write_json(folder / BUDGET_FILE, {"inputs": told, "fit": chosen.model_dump(mode="json"), "says": str(chosen)})
    return plan(chosen.harmful, chosen.harmless), chosen


def _measured(
    folder: Path,
    respondent: Respondent,
    seconds: float,
    attacks: Sequence[Attack],
    harmful: Sequence[Behavior],
    harmless: Sequence[Behavior],
    plan: Callable[[int, int], PlanSummary],
    max_answer_tokens: int,
    on_progress: Callable[[int], None] | None,
) -> Fit:
    size, spent, asked = 1, 0.0, 0
    while True:
        sides = min(size, len(harmful)), min(size, len(harmless))
        whole = sides == (len(harmful), len(harmless))
        summary = plan(*sides)
        counts = run_suite(folder, respondent, max_answer_tokens, on_progress)
        spent, asked = spent + counts.seconds, asked + counts.answered
        if counts.failed or counts.stopped or not (counts.answered or counts.reused):
            if not counts.answered:
                cause = counts.stopped or next(iter(counts.causes), "nothing could be asked")
                raise ModelError(respondent.name, f"gave no answer to measure a rate on ({cause})", "Try again")
        elif whole and not counts.answered:
            return fit(_runnable(attacks, summary), harmful, harmless, seconds, math.inf)
        if counts.answered and (whole or asked >= _ENOUGH or spent >= _SHARE * seconds):
            break
        size *= 2  # too few yet, or an earlier run asked them already
    rate = counts.answered / counts.seconds
    # What was asked already takes no more time: the time left is for the rest.
    in_all = max(seconds - spent, 0.0) + summary.conversations / rate
    found = fit(_runnable(attacks, summary), harmful, harmless, in_all, rate)
    return found.model_copy(update={"seconds": seconds, "fits": found.fits and spent <= seconds})


def _runnable(attacks: Sequence[Attack], summary: PlanSummary) -> list[Attack]:
    """Attacks that can be carried out on at least one request."""
    blocked = {attack: sum(causes.values()) for attack, causes in summary.not_run.items()}
    return [attack for attack in attacks if blocked.get(attack.name, 0) < summary.harmful + summary.harmless]


def _decided(folder: Path, told: str) -> Fit | None:
    path = folder / BUDGET_FILE
    if not path.is_file():
        return None
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return Fit.model_validate(held["fit"]) if held["inputs"] == told else None
    except (json.JSONDecodeError, KeyError, TypeError, ValidationError):
        raise InputError(path, "is damaged", "Delete it: the rate is measured again") from None
