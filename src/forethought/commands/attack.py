"""`forethought attack`: every attack of a suite on a model, in one continuous batch, resumable, judged, reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forethought.commands.attack_folder import CONTROL, SEARCHES, RunRecord, default_folder, read_run, write_run
from forethought.commands.attack_inputs import (
    AttackChoice,
    Requests,
    Target,
    chosen_attacks,
    chosen_requests,
    fingerprint,
    open_target,
    strata,
)
from forethought.commands.attack_views import Meter, bar, duration, say, show_plan
from forethought.commands.shared import quiet
from forethought.commands.terminal import Terminal
from forethought.errors import ConfigError

if TYPE_CHECKING:
    from forethought.commands.attack_writers import Writers
    from forethought.evals.attacks.adaptive.base import Method
    from forethought.evals.attacks.base import Attack, Given
    from forethought.evals.benchmarks.behaviors import Behavior
    from forethought.evals.judges.base import Judge
    from forethought.evals.suite.plan import PlanSummary

_ALL_THE_TIME = 1e9
_PILOT_FROM = 200
"""Attempts from which the rate is measured first, so that the time can be told."""


@dataclass(frozen=True)
class CostEstimate:
    """What a run may cost at most, as `Progress.agree` takes it."""

    calls: int
    cost: float | None
    """US dollars; None where the price is unknown."""
    says: str

    def __str__(self) -> str:
        return self.says


def attack(choice: AttackChoice) -> int:
    """Attacks a model and reports. Returns the exit code: 1 where more than two answers in a hundred are unscored."""
    quiet()
    from forethought.commands.attack_report import report_run

    folder = choice.out or default_folder(choice.model, choice.adapter, choice.defence)
    if not choice.rejudge:
        _attack(choice, folder)
    return report_run(choice, folder, read_run(folder), open_judge(choice, folder, read_run(folder)))


def open_judge(choice: AttackChoice, folder: Path, run: RunRecord) -> Judge:
    """The run's judge. Raises ConfigError or ModelError where there is none."""
    from forethought.evals.judges.catalogue import get_judge

    policy = run.settings.policy if run.settings is not None else None
    journal = folder / "judge-calls.jsonl"
    return get_judge(choice.judge, "harmful", journal, choice.judge_base_url, policy)


def _attack(choice: AttackChoice, folder: Path) -> None:
    """Plans and asks everything that has no reply yet."""
    from forethought.commands.attack_writers import Writers
    from forethought.evals.attacks.catalogue import DIRECT

    if choice.control and choice.compare is not None:
        raise ConfigError("--control", "is not needed beside --compare", "Leave it out: that run is the control")
    if choice.compare is not None:
        read_run(choice.compare)
    static, methods, files = chosen_attacks(choice)
    attacks = list({attack.name: attack for attack in (DIRECT, *static)}.values())
    requests = chosen_requests(choice)
    for line in requests.said:
        say(line, "dim")
    target = open_target(choice)
    run = RunRecord(
        model=" ".join(str(part) for part in (choice.model, choice.adapter, choice.defence) if part),
        name=target.respondent.name,
        files=tuple(fingerprint(choice)),
        settings=target.settings,
        seed=choice.seed,
        max_answer_tokens=choice.max_answer_tokens,
        suite=choice.suite or ("" if choice.attacks else "quick"),
        sources=tuple(requests.said),
    )
    open_judge(choice, folder, run)  # a judge that isn't there is told before anything is asked
    held = write_run(folder, run)
    writers = Writers(choice, folder, target)
    given = _given(target, files)
    causes = _causes(attacks, methods, target, writers, given)
    goals = min(choice.goals, len(requests.harmful)), min(choice.goals, len(requests.harmless))
    show_plan(attacks, methods, causes, (len(requests.harmful), len(requests.harmless)), goals, run.seen)
    if not _agreed(choice, attacks, methods, causes, requests, target, writers):
        raise ConfigError("the run", "was not wanted", "Nothing was asked; run it again with --yes")
    run = _static(choice, folder, run, held, attacks, requests, target, writers, given)
    if methods:
        run = _searches(choice, folder, run, methods, requests, target, writers, given)
    write_run(folder, run)


def _given(target: Target, files: Mapping[str, Path]) -> Given:
    """What attacks may use: the model's own policy and format, local files."""
    from forethought.evals.attacks.base import Given

    if target.settings is None:
        return Given(files=files)
    return Given(policy=target.settings.policy, format=target.settings.format, files=files)


def _causes(
    attacks: list[Attack], methods: list[Method], target: Target, writers: Writers, given: Given
) -> dict[str, str]:
    """By name, why an attack or a search can't be run here."""
    from forethought.evals.attacks.adaptive import catalogue as searches
    from forethought.evals.attacks.catalogue import why_not

    able = target.respondent.able
    found = {one.name: why_not(one, writers.there, able.prefill, able.budget, given.files) for one in attacks}
    tools = writers.tools(given)
    found |= {one.name: searches.why_not(one, tools, writers.there, writers.rates) for one in methods}
    return {name: cause for name, cause in found.items() if cause}


def _agreed(
    choice: AttackChoice,
    attacks: list[Attack],
    methods: list[Method],
    causes: Mapping[str, str],
    requests: Requests,
    target: Target,
    writers: Writers,
) -> bool:
    """Says what the run may cost, and asks where a model is paid for."""
    from forethought.engine.pricing import cost_of

    run = [attack for attack in attacks if attack.name not in causes]
    texts = [*requests.harmful, *requests.harmless]
    goals = min(choice.goals, len(requests.harmful)) + min(choice.goals, len(requests.harmless))
    searched = sum(goals * choice.query_budget for method in methods if method.name not in causes)
    asked = len(run) * len(texts) + searched
    written = sum(len(texts) for attack in run if "attacker" in attack.needs)
    written += sum(goals * choice.query_budget for m in methods if m.name not in causes and "attacker" in m.needs)
    if not (target.paid and asked) and not (writers.paid and written):
        return True
    longest = max((len(text.request.text) for text in texts), default=0)
    price = choice.price if not (writers.paid and written) else None
    # An attack's text is some hundreds of characters around the request; four characters are about a token.
    cost = cost_of(asked * (longest + 800) // 4, asked * 2 * choice.max_answer_tokens, 0, price)
    told = f"At most {asked:,} questions to the model and {written:,} texts of the attacker: " + (
        "unknown price (give --price-in and --price-out for the model's)" if cost is None else f"about ${cost:,.2f}"
    )
    return Terminal(max_cost=choice.max_cost, yes=choice.yes).agree(CostEstimate(asked + written, cost, told))


def _static(
    choice: AttackChoice,
    folder: Path,
    run: RunRecord,
    held: float | None,
    attacks: list[Attack],
    requests: Requests,
    target: Target,
    writers: Writers,
    given: Given,
) -> RunRecord:
    """Plans the attacks that don't adapt, within the time where one is given, and asks."""
    from forethought.evals.suite.run import run_suite
    from forethought.evals.suite.usage import total_usage, usage_by_attack

    meter = Meter(target.respondent, choice.price)
    with bar("planning", meter) as progress:
        summary, says, harmless = _plan(choice, folder, attacks, requests, meter, writers, given, progress.advance)
    repeated = f", {summary.repeated} repeated left out" if summary.repeated else ""
    say(f"{summary.attempts} attempts, {summary.conversations} different conversations{repeated}{says}")
    with bar("asking", meter) as progress:
        progress.total(summary.attempts)
        counts = run_suite(folder, meter, choice.max_answer_tokens, progress.advance)
    rate = counts.answered / counts.seconds if counts.answered and counts.seconds else None
    usage = total_usage(usage_by_attack(folder, choice.price), choice.price)
    spent = "" if usage.cost is None else f", ${usage.cost:.2f} in all"
    speed = f" at {rate:.1f}/s" if rate else ""
    say(f"{counts.answered} answered{speed}, {counts.reused} from an earlier run, {counts.failed} failed{spent}")
    for cause, count in counts.causes.items():
        say(f"  {count}: {cause}", "yellow")
    if counts.stopped:
        say(f"Stopped: {counts.stopped}. What was not asked is unscored; the same command goes on", "yellow")
    if choice.control:
        writers.run_control(folder / CONTROL, attacks, harmless, given)
    return run.model_copy(update={"says": says.lstrip(", "), "attempts_per_s": rate or held, "cost": usage.cost})


def _plan(
    choice: AttackChoice,
    folder: Path,
    attacks: list[Attack],
    requests: Requests,
    meter: Meter,
    writers: Writers,
    given: Given,
    on_progress: Callable[[int], None],
) -> tuple[PlanSummary, str, list[Behavior]]:
    """(the plan, what is known of its time, the harmless requests kept)."""
    from forethought.evals.suite.budget import make_plan_in_time, shrink
    from forethought.evals.suite.plan import make_plan

    sides = requests.harmful, requests.harmless
    many = len(attacks) * sum(map(len, sides))
    if choice.minutes is None and many < _PILOT_FROM:
        summary = make_plan(
            folder, attacks, *sides, choice.seed, given, meter.able, writers.rewrites, writers.ask_for_texts
        )
        return summary, "", sides[1]
    seconds = _ALL_THE_TIME if choice.minutes is None else 60 * choice.minutes
    by = strata(choice.by, sides[1]) if sides[1] else choice.by
    summary, fit = make_plan_in_time(
        folder, meter, seconds, attacks, *sides, choice.seed, choice.max_answer_tokens, given, writers.rewrites,
        writers.ask_for_texts, by, on_progress,
    )  # fmt: skip
    kept = shrink(sides[1], fit.harmless, choice.seed, by)
    if choice.minutes is None:
        return summary, f", about {duration(summary.conversations / fit.rate)} at {fit.rate:.1f}/s", kept
    return summary, f", {fit}", kept


def _searches(
    choice: AttackChoice,
    folder: Path,
    run: RunRecord,
    methods: list[Method],
    requests: Requests,
    target: Target,
    writers: Writers,
    given: Given,
) -> RunRecord:
    """Runs the searches on some of the requests."""
    from forethought.evals.attacks.adaptive.base import Goal, opening_of
    from forethought.evals.attacks.adaptive.driver import run_searches
    from forethought.evals.attacks.adaptive.outcome import SearchProgress, SearchSettings
    from forethought.evals.judges.catalogue import default_judge
    from forethought.evals.suite.budget import shrink

    rows = [
        row
        for side in (requests.harmful, requests.harmless)
        for row in shrink(side, choice.goals, choice.seed, strata(choice.by, side))
    ]
    goals = [Goal(request=row.request, target_string=row.reference or opening_of(row.request)) for row in rows]
    tools = writers.tools(given, goals)
    settings = SearchSettings(budget=choice.query_budget, seed=choice.seed, max_answer_tokens=choice.max_answer_tokens)
    with bar("searching") as progress:

        def told(state: SearchProgress) -> None:
            progress.show(state.done, state.total, f"{state.queries} queries, {state.broken} got through")

        found = run_searches(
            methods, goals, target.respondent, folder / SEARCHES, open_judge(choice, folder, run), tools, settings,
            writers.attacker, writers.evaluator, told, default_judge(),
        )  # fmt: skip
    return run.model_copy(update={"searches_not_run": found.not_run})
