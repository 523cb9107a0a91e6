"""Systems side by side: the same attempts to each, one judge, figures with paired tests, and a page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from forethought.attacks.catalogue import DIRECT, parse_attack
from forethought.attempts.ask import run_defence
from forethought.attempts.plan import plan_attempts
from forethought.attempts.records import Attempt, Judged
from forethought.cluster import connect
from forethought.data.shipped import shipped_requests
from forethought.errors import ConfigError
from forethought.evaluation.capability import ability, ability_figures, question_sets
from forethought.evaluation.inputs import AttackSettings, chosen_attacks, chosen_requests
from forethought.manifest import input_hashes, key_of
from forethought.measure.capability import need_lm_eval
from forethought.measure.capability.summary import ItemScore
from forethought.measure.comprehension import readability_warnings
from forethought.measure.curves import UNSCORED_LIMIT, too_many_unscored
from forethought.measure.traffic import Traffic
from forethought.metrics import Figure
from forethought.model import Model, load
from forethought.models.settings import Settings
from forethought.progress import Progress
from forethought.records import Request
from forethought.report.decision import weaknesses
from forethought.report.evaluation_page import comparison_page, made_by, sides_of, write_evaluation_page
from forethought.report.figures import attack_sets, defence_figures, measured_comprehension, paired_figures
from forethought.report.results import write_results

_STYLED_LOOKALIKES = 10
"""Under each attack, others under the next."""
PAGE, RESULTS, QUESTIONS = "report.html", "results.json", "questions"
_NAME = re.compile(r"^[A-Za-z0-9_]+$")


@dataclass(frozen=True)
class Comparison:
    """What came of systems that were put to the same attempts."""

    judged: Mapping[str, Sequence[Judged]]
    """By system, every attempt with what was said to it and what the judge found."""
    figures: Sequence[Figure]
    """By stable names, the system's own at the end (`docs/measuring.md`)."""
    page: Path
    results: Path
    """The figures' file."""

    @property
    def folder(self) -> Path:
        """Where all of it stands; a run's is a model, behind its best defence."""
        return self.page.parent

    @property
    def systems(self) -> tuple[str, ...]:
        """Their names, in the order given."""
        return tuple(self.judged)

    @property
    def unscored(self) -> float:
        """Largest share of answers of one system that could not be judged."""
        return max(sum(row.refused is None for row in rows) / max(1, len(rows)) for rows in self.judged.values())

    @property
    def too_many_unscored(self) -> bool:
        """Whether so many are unscored that the figures should not be relied on."""
        return self.unscored > UNSCORED_LIMIT

    @property
    def weaknesses(self) -> tuple[str, ...]:
        """Why the last system is no defence to rely on, as sentences; none where nothing says so."""
        ours = self.systems[-1]
        return tuple(
            weaknesses(
                {one.name.removesuffix(f"_{ours}"): one for one in self.figures if one.name.endswith(f"_{ours}")}
            )
        )

    def figure(self, name: str) -> Figure:
        """One figure. Raises KeyError where it was not measured."""
        return {one.name: one for one in self.figures}[name]


def compare(
    systems: Mapping[str, Model | str | Path],
    settings: AttackSettings | None = None,
    *,
    out: Path | None = None,
    results: Path | None = None,
    questions: Sequence[str] = (),
    show_harmful: bool = False,
    progress: Progress | None = None,
    on: str | None = None,
) -> Comparison:
    """Puts the same attempts to all systems and writes figures and a page into `out` (None: `runs/compare-NAMES`).

    `systems` by the names that figures carry (letters, digits, underscores); the last is set against each other one,
    on the same requests. Of `settings` the requests, the sample, the attacks that need no other model, seed and answer
    length count; shipped look-alikes and short questions are asked besides. `questions` are files as `capability`
    reads them: at most `n` of each are put to every system, and what is refused is wrong. Every reply is kept as it
    comes: the same call goes on where one was stopped. `on` has a Ray cluster ask (docs/scale.md), all but `questions`.
    Raises ForethoughtError for what can't be used.
    """
    settings, progress = settings or AttackSettings(), progress or Progress()
    for name in systems:
        if not _NAME.match(name):
            raise ConfigError(f"system '{name}'", "is part of figures' names", "Use letters, digits and underscores")
    if len(systems) < 2:
        raise ConfigError(", ".join(systems) or "no system", "is nothing to compare", "Name two systems or more")
    if questions and on is not None:
        raise ConfigError(
            "questions", "are put to weights at hand, and on a cluster are none", "Leave out one of the two"
        )
    folder = out or Path("runs") / f"compare-{'-'.join(systems)}"
    attacks, test = chosen_test(settings, progress)
    # Shipped minimal pairs of scenarios that no training uses.
    test += [one for one in shipped_requests("contrast", "test") if one.kind in ("lookalike", "harmful")]
    n = settings.n
    attempts = plan_attempts(test, attacks, n, n, n, n, settings.seed, n_styled_lookalike=min(n, _STYLED_LOOKALIKES))
    attacks = [parse_attack(name).name for name in attacks]
    if questions:
        need_lm_eval()
    sets = question_sets(questions, None, progress)
    judged: dict[str, list[Judged]] = {}
    opened: dict[str, Settings | None] = {}
    able: dict[str, list[tuple[ItemScore, ...]]] = {}
    with connect(on):
        for name, system in systems.items():
            model = system if isinstance(system, Model) else load(system, on=on)
            judged[name], opened[name] = put_to(model, name, attempts, folder, settings.max_answer_tokens, progress)
            if sets:
                able[name] = ability(model, name, sets, n, folder / QUESTIONS, progress)
            traffic = model.traffic  # of the last one in the end: it is decided on
            model.close()
            del model  # two at once may not fit
    base, ours = next(iter(systems)), list(systems)[-1]
    seen = sorted({style for one in opened.values() if one is not None for style in one.seen_operators})
    target, title = results or folder / RESULTS, " and ".join(systems)
    return report_comparison(
        judged, attacks, seen, opened[ours], base=base, ours=ours, folder=folder, title=title, results=target,
        seed=settings.seed, inputs=input_hashes([*settings.benchmarks, *settings.harmless, *questions]),
        further=ability_figures(sets, able, n, base), traffic=traffic, show_harmful=show_harmful, progress=progress,
    )  # fmt: skip


def report_comparison(
    judged: Mapping[str, Sequence[Judged]],
    attacks: Sequence[str],
    seen: Sequence[str],
    settings: Settings | None,
    *,
    base: str,
    ours: str,
    folder: Path,
    title: str,
    results: Path,
    seed: int,
    inputs: Mapping[str, str],
    further: Sequence[Figure] = (),
    lineage: Sequence[tuple[str, str]] = (),
    contamination: str = "",
    traffic: Traffic | None = None,
    show_harmful: bool = False,
    progress: Progress,
) -> Comparison:
    """Figures of judged systems, `further` ones behind them, into `results`, and a page into `folder`.

    `seen` are styles that training used: attacks of those styles stand apart and in no mean. Comprehension is that of
    the system `base`; `ours` is set against each other one on the same requests, and `settings` stand beside it.
    `lineage` and `contamination` go onto the page as they are; `traffic` is what the threshold of the last system was
    set on. What a reader should know first is told to `progress`: attacks marked wrongly as readable, cells with many
    unscored.
    """
    unseen, _ = attack_sets(attacks, seen)
    figures = [figure for name, rows in judged.items() for figure in defence_figures(name, rows, attacks, unseen, base)]
    figures += [*paired_figures(judged, unseen, ours), *further]
    for line in readability_warnings(measured_comprehension(judged[base], attacks)):
        progress.say(f"[yellow]{line}[/yellow]")
    for name, rows in judged.items():
        for cell, part in too_many_unscored(rows).items():
            progress.say(f"[red]{name}, {cell}: {part:.0%} of the answers could not be judged[/red]")
    write_results(results, [seed], inputs, figures)
    page = folder / PAGE
    made = [*lineage, ("Seed", str(seed)), *made_by(inputs)]
    found = comparison_page(attacks, judged, figures, settings, base, ours, made, contamination, traffic)
    policy = settings.policy if settings is not None else None
    write_evaluation_page(page, title, [found], sides_of(judged, settings), policy, show_harmful)
    return Comparison(judged, figures, page, results)


def put_to(
    system: Model | str | Path,
    name: str,
    attempts: Sequence[Attempt],
    folder: Path,
    max_tokens: int,
    progress: Progress,
) -> tuple[list[Judged], Settings | None]:
    """(what a system said to the attempts, judged; what stands beside it). Kept in `folder`/`name`.

    It is opened here and let go again where it is not open: two models at once may not fit.
    """
    model = system if isinstance(system, Model) else load(system)
    # Whatever changes an answer names the folder: another model or plan never reads these replies.
    asked = key_of([model.where, model.defence, model.files, max_tokens, [one.id for one in attempts]])
    with progress.bar(f"asking {name}") as bar:
        bar.total(len(attempts))
        rows = run_defence(name, model.respondent, attempts, folder / name / asked, None, max_tokens, bar.advance)
    return rows, model.settings


def chosen_test(settings: AttackSettings, progress: Progress) -> tuple[list[str], list[Request]]:
    """(attacks that need no other model, the requests that settings name), each request with its kind."""
    static, searches, _ = chosen_attacks(settings)
    names = [one.name for one in static if not one.needs and one.name != DIRECT.name]
    for name in [one.name for one in static if one.needs] + [one.name for one in searches]:
        progress.say(f"Left out: {name}, which needs more than the text of a request")
    requests = chosen_requests(settings)
    for line in requests.said:
        progress.say(line)
    test = [row.request.model_copy(update={"kind": "harmful", "harmful": True}) for row in requests.harmful]
    test += [row.request.model_copy(update={"kind": "ordinary", "harmful": False}) for row in requests.harmless]
    return names, test
