"""The folder of an attack run: whose it is, so that replies of two models never stand in one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from forethought.attacks.catalogue import parse_attack
from forethought.attacks.searches.driver import read_outcomes
from forethought.attacks.searches.outcome import Outcome
from forethought.attempts.ask import judge_run
from forethought.attempts.logs import write_logs
from forethought.attempts.plan import SUMMARY_FILE, PlanSummary
from forethought.attempts.records import read_judged, verdicts_file
from forethought.errors import ConfigError, InputError
from forethought.evaluation.inputs import AttackSettings
from forethought.judges.base import Judge
from forethought.judges.known import known_error
from forethought.manifest import file_hash, input_hashes, write_json
from forethought.measure.comprehension import readability_warnings, readable_styles
from forethought.measure.curves import UNSCORED_LIMIT, too_many_unscored
from forethought.measure.paired import Comparison, compare, comparison_figures
from forethought.metrics import Figure, share
from forethought.models.settings import Settings
from forethought.progress import Progress
from forethought.records import Record
from forethought.report.attack_figures import (
    AttackReport,
    AttackRows,
    SearchResult,
    attack_report,
    collect,
    search_figures,
    search_results,
    slugs,
    understood,
)
from forethought.report.attack_page import AttackPage, write_attack_page
from forethought.report.results import write_results

RUN_FILE = "attack.json"
SEARCHES = "searches"
CONTROL = "control"


class RunRecord(Record):
    """Whose run a folder holds, and how it was made."""

    model: str
    """As its user names it, the defence behind it."""
    name: str
    """As reports call it."""
    files: tuple[tuple[str, int, int], ...] = ()
    """Names, sizes and times of the model's files."""
    settings: Settings | None = None
    """What stands beside a trained model."""
    seed: int = 0
    max_answer_tokens: int = 64
    suite: str = ""
    sources: tuple[str, ...] = ()
    """How benchmarks and controls were read."""
    says: str = ""
    """How much was planned, how fast it went."""
    searches_not_run: dict[str, str] = Field(default_factory=dict)
    attempts_per_s: float | None = None
    cost: float | None = None
    """US dollars for the attacked model; None where no price is known."""

    @property
    def seen(self) -> tuple[str, ...]:
        """Styles of the training manifest; empty where there is none."""
        return self.settings.seen_operators if self.settings is not None else ()


def default_folder(model: str, defence: str | None = None) -> Path:
    """`runs/attack-NAME`; a folder's name has its parent's before it, since stages of two runs share theirs.

    Defences stand behind it by their names.
    """
    path = Path(model)
    parts = path.resolve().parts[-2:] if path.is_dir() else path.parts[-2:]
    around = [one.partition(":")[0] for one in (defence or "").split("|")]
    name = re.sub(r"[^A-Za-z0-9._]+", "-", "-".join([*parts, *around])).strip("-.") or "model"
    return Path("runs") / f"attack-{name}"


def read_run(folder: Path) -> RunRecord:
    """The record of a run. Raises InputError where there is none, or it is damaged."""
    path = folder / RUN_FILE
    if not path.is_file():
        raise InputError(folder, "holds no attack run", "Run: forethought attack MODEL --out FOLDER")
    try:
        return RunRecord.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, ValidationError):
        raise InputError(path, "is damaged", "Delete it and run the same command again: replies are kept") from None


def write_run(folder: Path, run: RunRecord) -> float | None:
    """Writes the record in one step; returns the attempts a second of an earlier run there, None where there is none.

    Raises ConfigError where the folder holds another model's run.
    """
    rate = None
    if (folder / RUN_FILE).is_file():
        held = read_run(folder)
        rate = held.attempts_per_s
        if (held.model, held.files) != (run.model, run.files):
            raise ConfigError(
                folder,
                f"holds a run of {held.model}" + (", as it was before" if held.model == run.model else ""),
                "Give another --out, or remove the folder",
            )
    content: dict[str, Any] = run.model_dump(mode="json")
    write_json(folder / RUN_FILE, content)
    return rate


# The end of an attack run: judged, summed up, written as page, figures and logs. Asks only the judge.

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
class AttackRun:
    """A judged attack run, and all that is told of it."""

    folder: Path
    run: RunRecord
    judge: Judge
    rows: AttackRows
    summary: PlanSummary
    report: AttackReport
    outcomes: Sequence[Outcome]
    """What came of each search."""
    searches: Sequence[SearchResult]
    """The outcomes by method."""
    control: _Control
    compared: _Compared | None
    results: Path
    """The figures' file."""

    @property
    def page(self) -> Path:
        """The page of the run."""
        return self.folder / PAGE

    @property
    def logs(self) -> Path:
        """Logs of inspect-ai: everything that was asked and answered, unredacted."""
        return self.folder / LOGS

    @property
    def figures(self) -> list[Figure]:
        """All figures, by stable names (`docs/attacking.md`)."""
        found = [*self.report.figures(), *search_figures(self.outcomes), *_counts(self.run, self.rows, self.summary)]
        return found + comparison_figures(self.comparisons, _MODEL, _OTHER)

    @property
    def warnings(self) -> list[str]:
        """What a reader should know before the table."""
        return _warnings(self.rows, self.control)

    @property
    def compared_name(self) -> str:
        """The other run's model; empty where there is none."""
        return self.compared.name if self.compared is not None else ""

    @property
    def comparisons(self) -> list[Comparison]:
        """Paired differences from the other run."""
        return self.compared.comparisons if self.compared is not None else []

    @property
    def unscored(self) -> float:
        """Share of all attempts and searches that could not be judged."""
        total = len(self.rows.rows) + len(self.outcomes)
        return (self.rows.unscored + sum(one.broken is None for one in self.outcomes)) / max(1, total)

    @property
    def too_many_unscored(self) -> bool:
        """Whether so many are unscored that the figures should not be relied on."""
        return self.unscored > UNSCORED_LIMIT


def report_run(
    settings: AttackSettings,
    folder: Path,
    run: RunRecord,
    judge: Judge,
    results: Path | None,
    anew: bool,
    show_harmful: bool,
    progress: Progress,
) -> AttackRun:
    """Judges what has no verdict, `anew` everything, and writes page, figures and logs.

    Raises InputError where nothing was asked.
    """
    summary = _planned(folder)
    rows = _judged(folder, judge, progress, anew)
    outcomes = list(read_outcomes(folder / SEARCHES))
    other = None
    if settings.compare is not None:
        other = _Compared(read_run(settings.compare).name, _judged(settings.compare, judge, progress))
    control = _control(folder, run, rows, judge, other, settings, progress)
    error = known_error(judge.name, judge.measure)
    attacks = [parse_attack(name) for name in summary.attacks]
    report = attack_report(rows.rows, attacks, run.seen, control.measured, error)
    done = AttackRun(
        folder, run, judge, rows, summary, report, outcomes, search_results(outcomes), control,
        _against(rows, other, report) if other is not None else None, results or folder / RESULTS,
    )  # fmt: skip
    _write_figures(done, settings)
    _write_page(done, show_harmful)
    write_logs(folder, done.logs, run.name, judge.name, price=settings.price)
    return done


def _planned(folder: Path) -> PlanSummary:

    path = folder / SUMMARY_FILE
    if not path.is_file():
        raise InputError(folder, "holds no attack run that was asked", "Run it without --rejudge")
    return PlanSummary.model_validate(json.loads(path.read_text(encoding="utf-8")))


def _judged(folder: Path, judge: Judge, progress: Progress, anew: bool = False) -> AttackRows:
    """All attempts with their verdicts. `anew` forgets the verdicts that this judge has given."""

    if anew:
        verdicts_file(folder, judge.name).unlink(missing_ok=True)
    with progress.bar("judging") as bar:
        bar.total(_planned(folder).attempts)
        judge_run(folder, judge, on_progress=bar.advance)
    return collect(read_judged(folder, judge.name), judge.measure)


def _control(
    folder: Path,
    run: RunRecord,
    rows: AttackRows,
    judge: Judge,
    other: _Compared | None,
    settings: AttackSettings,
    progress: Progress,
) -> _Control:
    """The base model's comprehension by style, from whichever run has its answers."""

    if run.settings is None:
        measured, whose = understood(rows.rows), "its own answers"
    elif other is not None and settings.compare is not None and read_run(settings.compare).settings is None:
        measured, whose = understood(other.rows.rows), f"the answers of {other.name}"
    elif (folder / CONTROL / "plan.json").is_file():
        measured, whose = understood(_judged(folder / CONTROL, judge, progress).rows), "its base model's answers"
    else:
        return _Control(
            {},
            "Which styles it reads is a guess by attack: compare with a run of the base model, or ask for a control",
        )
    if not readable_styles(measured):
        return _Control(
            measured, "Which styles it reads is a guess by attack: too few answers to harmless requests tell"
        )
    return _Control(measured, f"Which styles it reads is measured on {whose} to harmless requests, else guessed")


def _against(rows: AttackRows, other: _Compared, report: AttackReport) -> _Compared:

    unseen = [result.name for result in report.of("unseen")]
    found = compare(rows.rows, other.rows.rows, unseen)
    return _Compared(other.name, other.rows, found)


def _write_page(done: AttackRun, show_harmful: bool) -> None:

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
    write_attack_page(done.page, page)


def _write_figures(done: AttackRun, settings: AttackSettings) -> None:
    ran = {result.name for result in done.report.results}
    slug = slugs(done.summary.attacks)
    absent = {name: causes for name, causes in done.summary.not_run.items() if name not in ran}
    missing = {f"asr_{slug[name]}": "; ".join(causes) for name, causes in absent.items()}
    files = [*settings.benchmarks, *settings.harmless, *((settings.suite,) if settings.suite else ())]
    inputs = input_hashes(files)
    inputs |= {"plan.jsonl": file_hash(done.folder / "plan.jsonl")}
    write_results(done.results, [done.run.seed], inputs, done.figures, missing)


def _counts(run: RunRecord, rows: AttackRows, summary: PlanSummary) -> list[Figure]:

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
