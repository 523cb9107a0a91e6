"""The end of an attack run: judged, summed up, written as table, page, figures and logs. Asks only the judge."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from forethought.commands.attack_folder import CONTROL, SEARCHES, RunRecord, read_run
from forethought.commands.attack_inputs import AttackChoice
from forethought.commands.attack_views import bar, say, show_summary
from forethought.errors import InputError

if TYPE_CHECKING:
    from forethought.engine.pricing import Price
    from forethought.evals.attacks.adaptive.outcome import Outcome
    from forethought.evals.judges.base import Judge
    from forethought.evals.metrics import Figure
    from forethought.evals.paired import Comparison
    from forethought.evals.suite.plan import PlanSummary
    from forethought.report.attack_figures import AttackReport, AttackRows, SearchResult

PAGE, RESULTS, LOGS = "attack.html", "results.json", "logs"
_MODEL, _OTHER = "model", "compared"


@dataclass(frozen=True)
class _Control:
    """What decides which styles are readable."""

    measured: Mapping[str, Figure]
    says: str


@dataclass(frozen=True)
class _Compared:
    """Another run on the same requests."""

    name: str
    rows: AttackRows
    comparisons: list[Comparison] = field(default_factory=list)


@dataclass(frozen=True)
class _Finished:
    """A judged run, and all that is told of it."""

    folder: Path
    run: RunRecord
    judge: Judge
    rows: AttackRows
    summary: PlanSummary
    report: AttackReport
    outcomes: Sequence[Outcome]
    searches: Sequence[SearchResult]
    """The outcomes by method."""
    control: _Control
    compared: _Compared | None

    @property
    def warnings(self) -> list[str]:
        return _warnings(self.rows, self.control)

    @property
    def compared_name(self) -> str:
        return self.compared.name if self.compared is not None else ""

    @property
    def comparisons(self) -> list[Comparison]:
        return self.compared.comparisons if self.compared is not None else []


def report_run(choice: AttackChoice, folder: Path, run: RunRecord, judge: Judge) -> int:
    """Judges what has no verdict, prints the table, writes page, figures and logs.

    Returns 1 where more than two answers in a hundred are unscored, else 0. Raises InputError where nothing was asked.
    """
    from forethought.evals.attacks.adaptive.driver import read_outcomes
    from forethought.evals.attacks.catalogue import parse_attack
    from forethought.evals.judges.known import known_error
    from forethought.report.attack_figures import attack_report, search_results

    summary = _planned(folder)
    rows = _judged(folder, judge, choice.rejudge)
    outcomes = list(read_outcomes(folder / SEARCHES))
    other = _other(choice, judge)
    control = _control(folder, run, rows, judge, other, choice)
    error = known_error(judge.name, judge.measure)
    attacks = [parse_attack(name) for name in summary.attacks]
    report = attack_report(rows.rows, attacks, run.seen, control.measured, error)
    done = _Finished(
        folder, run, judge, rows, summary, report, outcomes, search_results(outcomes), control,
        _against(rows, other, report) if other is not None else None,
    )  # fmt: skip
    _tell(done)
    _write_figures(done, choice)
    _write_page(done, choice.show)
    _write_logs(done, choice.price)
    return _exit_code(rows, outcomes)


def _planned(folder: Path) -> PlanSummary:
    from forethought.evals.suite.plan import SUMMARY_FILE, PlanSummary

    path = folder / SUMMARY_FILE
    if not path.is_file():
        raise InputError(folder, "holds no attack run that was asked", "Run it without --rejudge")
    return PlanSummary.model_validate(json.loads(path.read_text(encoding="utf-8")))


def _judged(folder: Path, judge: Judge, anew: bool = False) -> AttackRows:
    """All attempts with their verdicts. `anew` forgets the verdicts that this judge has given."""
    from forethought.evals.suite.judged import judge_run, read_judged, verdicts_file
    from forethought.report.attack_figures import collect

    if anew:
        verdicts_file(folder, judge.name).unlink(missing_ok=True)
    with bar("judging") as progress:
        progress.total(_planned(folder).attempts)
        judge_run(folder, judge, on_progress=progress.advance)
    return collect(read_judged(folder, judge.name), judge.measure)


def _other(choice: AttackChoice, judge: Judge) -> _Compared | None:
    if choice.compare is None:
        return None
    run = read_run(choice.compare)
    return _Compared(run.name, _judged(choice.compare, judge))


def _control(
    folder: Path, run: RunRecord, rows: AttackRows, judge: Judge, other: _Compared | None, choice: AttackChoice
) -> _Control:
    """The base model's comprehension by style, from whichever run has its answers."""
    from forethought.evals.comprehension import readable_styles
    from forethought.report.attack_figures import understood

    if run.settings is None:
        measured, whose = understood(rows.rows), "its own answers"
    elif other is not None and choice.compare is not None and read_run(choice.compare).settings is None:
        measured, whose = understood(other.rows.rows), f"the answers of {other.name}"
    elif (folder / CONTROL / "plan.json").is_file():
        measured, whose = understood(_judged(folder / CONTROL, judge).rows), "its base model's answers"
    else:
        return _Control(
            {}, "Which styles it reads is a guess by attack: give --compare BASE_RUN or --control to measure"
        )
    if not readable_styles(measured):
        return _Control(
            measured, "Which styles it reads is a guess by attack: too few answers to harmless requests tell"
        )
    return _Control(measured, f"Which styles it reads is measured on {whose} to harmless requests, else guessed")


def _against(rows: AttackRows, other: _Compared, report: AttackReport) -> _Compared:
    from forethought.evals.paired import compare

    unseen = [result.name for result in report.of("unseen")]
    found = compare(rows.rows, other.rows.rows, unseen)
    if not found:
        say(f"No attempt stands in both runs, this one and that of {other.name}: nothing is compared", "yellow")
    return _Compared(other.name, other.rows, found)


def _tell(done: _Finished) -> None:
    """Prints the table, what warns, and the differences from the other run."""
    show_summary(done.report, done.searches, done.summary.not_run, done.run.searches_not_run)
    for line in done.warnings:
        say(line, "yellow")
    say(done.control.says, "dim")
    for one in done.comparisons:
        say(f"against {done.compared_name}: {one}")


def _write_page(done: _Finished, show_harmful: bool) -> None:
    from forethought.evals.judges.known import known_error
    from forethought.report.attack_page import AttackPage, write_attack_page

    page = AttackPage(
        title=f"Attacks on {done.run.name}",
        report=done.report,
        readability=done.control.says,
        searches=done.searches,
        not_run=done.summary.not_run,
        searches_not_run=done.run.searches_not_run,
        compared=done.compared_name,
        differences=done.comparisons,
        warnings=done.warnings,
        settings=_settings(done.run, done.judge, done.rows, done.summary),
        judge=known_error(done.judge.name, done.judge.measure),
        examples=done.rows.examples,
        show_harmful=show_harmful,
    )
    write_attack_page(done.folder / PAGE, page)
    say(f"Page: {done.folder / PAGE}")


def _write_figures(done: _Finished, choice: AttackChoice) -> None:
    from forethought.evals.paired import comparison_figures
    from forethought.manifest import file_hash
    from forethought.report.attack_figures import search_figures, slugs
    from forethought.report.results import write_results

    figures = [*done.report.figures(), *search_figures(done.outcomes), *_counts(done.run, done.rows, done.summary)]
    figures += comparison_figures(done.comparisons, _MODEL, _OTHER)
    ran = {result.name for result in done.report.results}
    slug = slugs(done.summary.attacks)
    absent = {name: causes for name, causes in done.summary.not_run.items() if name not in ran}
    missing = {f"asr_{slug[name]}": "; ".join(causes) for name, causes in absent.items()}
    files = [*choice.benchmarks, *choice.harmless, *((choice.suite,) if choice.suite else ())]
    inputs = {Path(file).name: file_hash(Path(file)) for file in files if Path(file).is_file()}
    inputs |= {"plan.jsonl": file_hash(done.folder / "plan.jsonl")}
    results = choice.results or done.folder / RESULTS
    write_results(results, [done.run.seed], inputs, figures, missing)
    say(f"Figures: {results}")


def _write_logs(done: _Finished, price: Price | None) -> None:
    from forethought.evals.suite.logs import write_logs

    write_logs(done.folder, done.folder / LOGS, done.run.name, done.judge.name, price=price)
    say(f"Answers, unredacted: inspect view --log-dir {done.folder / LOGS}")


def _counts(run: RunRecord, rows: AttackRows, summary: PlanSummary) -> list[Figure]:
    from forethought.evals.metrics import Figure, share

    answered = max(1, sum(one.response is not None for one in rows.rows))
    spent = rows.tokens["reasoning"] + rows.tokens["answer"]
    found = [
        Figure(name="attempts", value=float(summary.attempts), unit="attempts"),
        Figure(name="conversations", value=float(summary.conversations), unit="conversations"),
        share([one.refused is None for one in rows.rows]).named("unscored"),
        Figure(name="tokens", value=spent / answered, n=answered, unit="tokens"),
    ]
    if run.cost is not None:
        found.append(Figure(name="cost", value=run.cost, unit="US dollars"))
    return found


def _warnings(rows: AttackRows, control: _Control) -> list[str]:
    from forethought.evals.cells import too_many_unscored
    from forethought.evals.comprehension import readability_warnings

    lines = [f"{part:.0%} of the answers in {cell} are unscored" for cell, part in too_many_unscored(rows.rows).items()]
    causes = [f"{count} attempts are unscored: {cause}" for cause, count in rows.causes.most_common()]
    return [*lines, *causes, *readability_warnings(control.measured)]


def _settings(run: RunRecord, judge: Judge, rows: AttackRows, summary: PlanSummary) -> list[tuple[str, str]]:
    tokens = ", ".join(f"{count:,} {name}" for name, count in rows.tokens.items())
    seen = ", ".join(run.seen) or ("none" if run.settings is not None else "unknown: there is no training manifest")
    return [
        ("model", run.model),
        ("suite", run.suite or "attacks named one by one"),
        ("requests", "; ".join(run.sources)),
        ("under each attack", f"{summary.harmful} harmful, {summary.harmless} harmless"),
        ("attempts", f"{summary.attempts:,}, {summary.conversations:,} different conversations"),
        ("time", run.says or "not limited"),
        ("styles seen in training", seen),
        ("judge", f"{judge.name} ({judge.measure})"),
        ("longest answer", f"{run.max_answer_tokens} tokens"),
        ("seed", str(run.seed)),
        ("tokens", tokens),
        ("cost", "unknown" if run.cost is None else f"${run.cost:.2f}"),
    ]


def _exit_code(rows: AttackRows, outcomes: Sequence[Outcome]) -> int:
    from forethought.evals.cells import UNSCORED_LIMIT

    unscored = rows.unscored + sum(one.broken is None for one in outcomes)
    total = len(rows.rows) + len(outcomes)
    if total and unscored / total > UNSCORED_LIMIT:
        say(f"{unscored} of {total} attempts are unscored, more than {UNSCORED_LIMIT:.0%}", "yellow")
        return 1
    return 0
