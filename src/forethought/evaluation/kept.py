"""Judged answers that a folder keeps, whoever put them there: run, attack, comparison, check or a sweep's log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from forethought.attempts.plan import sample_questions
from forethought.attempts.records import PLAN_FILE, REPLIES_FILE, Attempt, Judged, read_judged, verdicts_file
from forethought.attempts.table import CELLS, LOG, judged_of, read_table
from forethought.data.shipped import FURTHER, accepted_answers
from forethought.errors import InputError
from forethought.evaluation.report import RUN_FILE, read_run
from forethought.judges import DEFAULT_JUDGE
from forethought.manifest import key_of
from forethought.measure.comprehension import readable_styles
from forethought.measure.gate import Trainings, as_decided
from forethought.metrics import Figure
from forethought.model import run_model, trained_folder
from forethought.models.settings import settings_if_any
from forethought.records import read_jsonl, user_request

CHECKED = "model"
"""What a check calls the model that it is about."""
_STAGES = "-respond-"


@dataclass(frozen=True)
class Kept:
    """What one system said to attempts, and what its judge found."""

    name: str
    trainings: Trainings
    """By the seed of its training; one entry with an empty name where there is one training or none."""
    seen: Sequence[str] = ()
    """Styles that it was trained on."""
    reads: Mapping[str, bool] | None = None
    """Whether a style is readable, where that was measured."""
    weights: str = ""
    """Tells weights that were trained apart; empty where they weren't trained here."""

    decided: bool = False
    """Whether a decision is the refusal, whatever the words: so it is in a check."""

    @property
    def counted(self) -> Trainings:
        """The attempts with the refusals that count."""
        return {seed: as_decided(rows) for seed, rows in self.trainings.items()} if self.decided else self.trainings

    @property
    def attacks(self) -> list[str]:
        """Every attack that it was put to."""
        return list(dict.fromkeys(one.attempt.attack for rows in self.trainings.values() for one in rows))


def kept(where: str | Path, judge: str = DEFAULT_JUDGE) -> Kept:
    """The answers of a folder: FOLDER, or FOLDER:SYSTEM where it holds several; of a sweep's log FOLDER:DEFENCE, and
    FOLDER:DEFENCE@SEED for one training of it.

    A run's are those of its best defence, a check's those of the model checked. `judge` is whose verdicts on an attack
    run are taken. Raises InputError for a folder without answers, and for a system that is not among them.
    """
    path, _, system = str(where).rpartition(":")
    folder = Path(path)
    if not path or Path(where).is_dir():
        folder, system = Path(where), ""
    if (folder / LOG).is_file():
        return _of_log(folder, system)
    if (folder / RUN_FILE).is_file():
        return _of_attack(folder, system, judge)
    stages = {one.parent.name.partition(_STAGES)[2]: one for one in sorted(folder.glob(f"*{_STAGES}*/judged.jsonl"))}
    if stages:
        chosen = system or list(stages)[-1]
        _among(folder, chosen, stages)
        settings = settings_if_any(trained_folder(folder))
        trained = chosen not in ("base", "prompt") and run_model(folder) is not None
        return Kept(
            f"{folder}:{chosen}", {"": list(read_jsonl(stages[chosen], Judged))},
            settings.seen_operators if settings is not None else (), weights=str(folder.resolve()) if trained else "",
        )  # fmt: skip
    asked = {one.parents[1].name: one.parent for one in _by_age(folder.glob(f"*/*/{PLAN_FILE}"))}
    if not asked:
        raise InputError(folder, "keeps no judged answers", "Give a run, an attack, a comparison, a check or a log")
    chosen = system or (CHECKED if CHECKED in asked else "")
    _among(folder, chosen, asked)
    rows = list(read_judged(asked[chosen], DEFAULT_JUDGE))
    return Kept(f"{folder}:{chosen}", {"": rows}, decided=CHECKED in asked)


def _among(folder: Path, system: str, known: Iterable[str]) -> None:
    if system not in known:
        told = f"'{system}' is none of its systems" if system else "holds several systems"
        raise InputError(folder, told, f"Write FOLDER:SYSTEM with one of {', '.join(sorted(known))}")


def _by_age(plans: Iterable[Path]) -> list[Path]:
    """Those that were answered, the last one last."""
    answered = [one for one in plans if one.with_name(REPLIES_FILE).is_file()]
    return sorted(answered, key=lambda one: one.with_name(REPLIES_FILE).stat().st_mtime_ns)


def _of_attack(folder: Path, system: str, judge: str) -> Kept:
    run = read_run(folder)
    if system:
        raise InputError(f"{folder}:{system}", "is an attack on one model", f"Write {folder}")
    if not verdicts_file(folder, judge).is_file():
        held = ", ".join(sorted(one.stem for one in verdicts_file(folder, judge).parent.glob("*.jsonl")))
        raise InputError(folder, f"holds no verdicts of '{judge}', but of {held or 'no judge'}", "Name that judge")
    rows = list(read_judged(folder, judge))
    return Kept(str(folder), {"": rows}, run.seen, weights=key_of(run.files) if run.settings is not None else "")


def _of_log(folder: Path, system: str) -> Kept:
    """A defence of a sweep: no words stand in its table, so that ids stand in their place."""
    defence, _, seed = system.partition("@")
    table = read_table(folder)
    names = table["defence"].to_pylist()
    _among(folder, defence, set(names))
    rows = table.filter([name == defence for name in names]).to_pylist()
    places = sorted({(row["base"], row["budget"]) for row in rows})
    if len(places) > 1:
        told = "; ".join(f"{base} with {budget} tokens" for base, budget in places)
        raise InputError(system, f"was run on several bases or budgets ({told})", "Give the log of a sweep with one")
    seeds = sorted({str(row["seed"]) for row in rows})
    if seed and seed not in seeds:
        raise InputError(system, "was not trained with that seed", f"Use one of {', '.join(seeds)}")
    texts = {
        Attempt(id="", attack="direct", request=one, cells=()).asked: one.text
        for one in (*sample_questions(), *(user_request(text) for text in accepted_answers(FURTHER)))
    }
    trainings: dict[str, list[Judged]] = {one: [] for one in seeds if one == (seed or one)}
    for row in rows:
        if str(row["seed"]) in trainings:
            # Questions are the package's own; of other requests the id tells which are disguises of one.
            request = user_request(texts.get(row["attempt"], row["seed_request"]), harmful=row["harmful"])
            attempt = Attempt(id=row["attempt"], attack=row["attack"], request=request, cells=tuple(row["cells"]))
            trainings[str(row["seed"])].append(judged_of(attempt, row))
    seen, reads = _of_cells(folder / CELLS)
    weights = f"{folder.resolve()}:{system}" if places[0][1] else ""
    return Kept(f"{folder}:{system}", trainings, seen, reads, weights)


def _of_cells(file: Path) -> tuple[list[str], dict[str, bool]]:
    """(styles that any cell was trained on, whether the base model reads each): what a sweep's means leave out."""
    seen: set[str] = set()
    reads: dict[str, bool] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        cell = json.loads(line)
        seen |= set(cell.get("seen", ()))
        for style, readable in readable_styles(_figures(cell.get("understood") or ())).items():
            reads[style] = readable and reads.get(style, True)
    return sorted(seen), reads


def _figures(rows: Iterable[Mapping[str, object]]) -> dict[str, Figure]:
    figures = [Figure.model_validate(row) for row in rows]
    return {one.name: one for one in figures}
