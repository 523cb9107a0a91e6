"""The folder of an attack run: whose it is, so that replies of two models never stand in one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import Field

from forethought.attacks.catalogue import parse_attack
from forethought.attacks.searches.driver import read_outcomes
from forethought.attacks.searches.outcome import Outcome
from forethought.attempts.ask import judge_run
from forethought.attempts.logs import write_logs
from forethought.attempts.plan import SUMMARY_FILE, PlanSummary
from forethought.attempts.records import read_judged, verdicts_file
from forethought.cluster.holders import Holders
from forethought.errors import ConfigError, InputError
from forethought.evaluation.inputs import AttackSettings
from forethought.judges.base import Judge
from forethought.judges.catalogue import get_judge, holders_of
from forethought.judges.known import known_error
from forethought.manifest import file_hash, input_hashes, write_json
from forethought.measure.comprehension import readability_warnings, readable_styles
from forethought.measure.curves import UNSCORED_LIMIT, too_many_unscored
from forethought.measure.paired import Comparison, compare, comparison_figures
from forethought.measure.traffic import Traffic
from forethought.metrics import Figure, share
from forethought.models.settings import Settings
from forethought.progress import Progress
from forethought.records import Record, read_record
from forethought.report.attack_figures import (
    AttackReport,
    AttackRows,
    SearchResult,
    attack_report,
    collect,
    search_figures,
    search_results,
    slugs,
    stopped,
    understood,
)
from forethought.report.decision import Evaluation, Paired, System
from forethought.report.evaluation_page import (
    attacked_system,
    made_by,
    measured_by,
    moved,
    policy_rules,
    write_evaluation_page,
)
from forethought.report.results import write_results
from forethought.report.tables import TITLES, not_run_lines
from forethought.report.transcripts import Side

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
    traffic: Traffic | None = None
    """What its threshold was set on."""
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
    return read_record(path, RunRecord, "Delete it and run the same command again: replies are kept")


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
    write_json(folder / RUN_FILE, run.model_dump(mode="json"))
    return rate


# The end of an attack run: judged, summed up, written as page, figures and logs. Asks only the judge.


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
    measured: Mapping[str, Figure]
    """By style, how much of it the base model understands; empty where its answers are not there."""
    readability: str
    """What decides which styles are readable."""
    compared: System | None
    """The other run's model and its figures; None where there is none."""
    comparisons: Sequence[Comparison]
    """Paired differences from the other run."""
    results: Path
    """The figures' file."""

    @property
    def page(self) -> Path:
        """The page of the run."""
        return self.folder / "attack.html"

    @property
    def logs(self) -> Path:
        """Logs of inspect-ai: everything that was asked and answered, unredacted."""
        return self.folder / "logs"

    @property
    def searches(self) -> list[SearchResult]:
        """The outcomes by method."""
        return search_results(self.outcomes)

    @property
    def figures(self) -> list[Figure]:
        """All figures, by stable names (`docs/attacking.md`)."""
        answered = max(1, sum(one.response is not None for one in self.rows.rows))
        spent = self.rows.tokens["reasoning"] + self.rows.tokens["answer"]
        counts = [
            Figure(name="attempts", value=float(self.summary.attempts), unit="attempts"),
            Figure(name="conversations", value=float(self.summary.conversations), unit="conversations"),
            share([one.refused is None for one in self.rows.rows]).named("unscored"),
            Figure(name="tokens", value=spent / answered, n=answered, unit="tokens"),
        ]
        if self.run.cost is not None:
            counts.append(Figure(name="cost", value=self.run.cost, unit="US dollars"))
        found = [*self.report.figures(), *search_figures(self.outcomes), *counts]
        return found + comparison_figures(self.comparisons, "_model_vs_compared")

    @property
    def warnings(self) -> list[str]:
        """What a reader should know before the table."""
        cells = too_many_unscored(self.rows.rows).items()
        lines = [f"{part:.0%} of the answers in {cell} are unscored" for cell, part in cells]
        lines += [f"{count} attempts are unscored: {cause}" for cause, count in self.rows.causes.most_common()]
        return [*lines, *readability_warnings(self.measured)]

    @property
    def unscored(self) -> float:
        """Share of all attempts and searches that could not be judged."""
        total = len(self.rows.rows) + len(self.outcomes)
        return (self.rows.unscored + sum(one.broken is None for one in self.outcomes)) / max(1, total)

    @property
    def too_many_unscored(self) -> bool:
        """Whether so many are unscored that the figures should not be relied on."""
        return self.unscored > UNSCORED_LIMIT


def open_judge(settings: AttackSettings, folder: Path, trained: Settings | None) -> Judge:
    """The judge that settings name, who goes by the policy of a trained model; what a model says is kept in `folder`.

    Raises ConfigError or ModelError where there is none.
    """
    policy = trained.policy if trained is not None else None
    return get_judge(settings.judge, "harmful", folder / "judge-calls.jsonl", settings.judge_base_url, policy)


def report_run(
    folder: Path,
    settings: AttackSettings,
    results: Path | None,
    show_harmful: bool,
    progress: Progress,
    anew: bool = False,
    on: str | None = None,
) -> AttackRun:
    """Judges what has no verdict, `anew` everything, where `on` says, and writes page, figures and logs.

    Raises InputError where nothing was asked.
    """
    run = read_run(folder)
    judge = open_judge(settings, folder, run.settings)
    if anew:
        verdicts_file(folder, judge.name).unlink(missing_ok=True)
    holders = holders_of(settings.judge, partial(open_judge, settings, folder, run.settings), on)
    summary, rows = _planned(folder), _judged(folder, judge, progress, holders)
    outcomes = list(read_outcomes(folder / SEARCHES))
    other = None if settings.compare is None else read_run(settings.compare)
    others = [] if settings.compare is None else _judged(settings.compare, judge, progress).rows
    measured: dict[str, Figure] = {}
    whose = ""
    if run.settings is None:
        measured, whose = understood(rows.rows), "its own answers"
    elif other is not None and other.settings is None:
        measured, whose = understood(others), f"the answers of {other.name}"
    elif (folder / CONTROL / "plan.json").is_file():
        measured, whose = understood(_judged(folder / CONTROL, judge, progress).rows), "its base model's answers"
    if not whose:
        readability = "a guess by attack: compare with a run of the base model, or ask for a control"
    elif not readable_styles(measured):
        readability = "a guess by attack: too few answers to harmless requests tell"
    else:
        readability = f"measured on {whose} to harmless requests, else guessed"
    attacks = [parse_attack(name) for name in summary.attacks]
    report = attack_report(rows.rows, attacks, run.seen, measured, known_error(judge.name, judge.measure))
    comparisons = compare(rows.rows, others, [result.name for result in report.of("unseen")]) if other else []
    against = None
    if other is not None:
        name = other.name if other.name != run.name else f"{other.name}, the other run"
        against = attacked_system(name, attack_report(others, attacks, run.seen, measured), judged=others)
    done = AttackRun(
        folder, run, judge, rows, summary, report, outcomes, measured, f"Which styles it reads is {readability}",
        against, comparisons, results or folder / "results.json",
    )  # fmt: skip
    _write_figures(done, settings)
    sides = [_side(folder, run, judge)]
    if settings.compare is not None and other is not None:
        sides.append(_side(settings.compare, other, judge))
    _write_page(done, sides, show_harmful)
    write_logs(folder, done.logs, run.name, judge.name, price=settings.price)
    return done


def _planned(folder: Path) -> PlanSummary:
    path = folder / SUMMARY_FILE
    if not path.is_file():
        raise InputError(folder, "holds no attack run that was asked", "Run it without --rejudge")
    return read_record(path, PlanSummary, "Run the same command again: replies are kept")


def _judged(folder: Path, judge: Judge, progress: Progress, holders: Holders | None = None) -> AttackRows:
    """All attempts with their verdicts."""
    with progress.bar("judging") as bar, closing(holders) if holders is not None else nullcontext():
        bar.total(_planned(folder).attempts)
        judge_run(folder, judge, on_progress=bar.advance, holders=holders)
    return collect(read_judged(folder, judge.name), judge.measure)


def _side(folder: Path, run: RunRecord, judge: Judge) -> Side:
    """Its attempts for the page, one by one from disk."""
    rows = (one.model_copy(update={"refused": stopped(one, judge.measure)}) for one in read_judged(folder, judge.name))
    return Side(run.name, rows, run.settings.threshold if run.settings is not None else None)


def _write_page(done: AttackRun, sides: Sequence[Side], show_harmful: bool) -> None:
    run, summary = done.run, done.summary
    made = {
        "model": run.model,
        "suite": run.suite or "attacks named one by one",
        "requests": "; ".join(run.sources),
        "under each attack": f"{summary.harmful} harmful, {summary.harmless} harmless",
        "attempts": f"{summary.attempts:,}, {summary.conversations:,} different conversations",
        "time": run.says or "not limited",
        "styles seen in training": ", ".join(run.seen)
        or ("none" if run.settings is not None else "unknown: there is no training manifest"),
        "judge": f"{done.judge.name} ({done.judge.measure})",
        "longest answer": f"{run.max_answer_tokens} tokens",
        "seed": str(run.seed),
        "tokens": ", ".join(f"{count:,} {name}" for name, count in done.rows.tokens.items()),
        "cost": "unknown" if run.cost is None else f"${run.cost:.2f}",
    }
    other = done.compared
    trained = run.settings is not None
    systems = [attacked_system(run.name, done.report, done.searches, done.figures, done.rows.rows, trained)]
    systems += [other] if other is not None else []
    policy = run.settings.policy if run.settings is not None else None
    found = measured_by(
        Evaluation(
            systems=systems,
            ours=run.name,
            against=other.name if other is not None else "",
            groups={group: [one.name for one in done.report.of(group)] for group in TITLES.groups},
            paired=[Paired(run.name, other.name, one) for one in done.comparisons if other is not None],
            readability=done.readability,
            not_run=not_run_lines(summary.not_run, run.searches_not_run),
            white_box=[one.title for one in done.report.results if one.white_box],
            judge=known_error(done.judge.name, done.judge.measure),
            warnings=done.warnings,
            drift=moved(done.rows.rows, run.traffic),
            lineage=[*made.items(), *made_by({"plan.jsonl": file_hash(done.folder / "plan.jsonl")})],
            rules=policy_rules(policy) if policy is not None else (),
        )
    )
    write_evaluation_page(done.page, f"Attacks on {run.name}", [found], sides, policy, show_harmful)


def _write_figures(done: AttackRun, settings: AttackSettings) -> None:
    ran = {result.name for result in done.report.results}
    slug = slugs(done.summary.attacks)
    absent = {name: causes for name, causes in done.summary.not_run.items() if name not in ran}
    missing = {f"asr_{slug[name]}": "; ".join(causes) for name, causes in absent.items()}
    files = [*settings.benchmarks, *settings.harmless, *((settings.suite,) if settings.suite else ())]
    inputs = input_hashes(files) | {"plan.jsonl": file_hash(done.folder / "plan.jsonl")}
    write_results(done.results, [done.run.seed], inputs, done.figures, missing)
