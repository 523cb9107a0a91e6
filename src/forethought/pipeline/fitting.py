"""Stages after training: operating point, probe and fusion, set on development rows, and answers to attempts."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from forethought.attacks.catalogue import all_attacks
from forethought.attempts.ask import run_defence
from forethought.attempts.records import Attempt, Judged
from forethought.data.sources import sample
from forethought.defences.base import Means
from forethought.defences.catalogue import make_defence
from forethought.defences.demand import MOST_THOUGHTS, fit_demand
from forethought.defences.fusion import FusionSettings, fit_fusion, intent_requests
from forethought.measure.calibrate import KINDS, Calibration, threshold_on
from forethought.measure.probe import load_probe
from forethought.measure.probe_fit import FitSettings, fit_probe
from forethought.measure.traffic import Reference, Traffic
from forethought.models.conversation import Conversation, Respondent, Response
from forethought.models.local import LocalModel
from forethought.models.settings import read_settings, write_settings
from forethought.pipeline.recipe import OperatingPoint
from forethought.pipeline.stage import StageRunner
from forethought.policy import Policy
from forethought.progress import Bar, Progress
from forethought.records import Example, Message, Record, Request, read_jsonl, write_jsonl

_CALIBRATION, _THOUGHTS = "calibration.json", "thoughts.jsonl"
JUDGED = "judged.jsonl"
"""Where a stage keeps judged answers."""


class Thought(Record):
    """What a model thought of a development row."""

    messages: tuple[Message, ...]
    response: Response


def development_rows(dev: Sequence[Request], point: OperatingPoint, fewest: int = 0) -> list[Request]:
    """The rows that the threshold is set on: of each kind a third, or `fewest` where that is more."""
    most = max(point.rows // 3, fewest)
    return [row for kind in KINDS for row in sample([r for r in dev if r.kind == kind], most)]


def calibrate(model: LocalModel, dev: Sequence[Request], point: OperatingPoint, out: Path, bar: Bar) -> Calibration:
    """The threshold that a recipe's limits ask for, from the verdicts on development rows.

    Writes it into `out`, and the thoughts beside it: what else is fitted on these rows need not think them again.
    """
    rows = development_rows(dev, point)
    bar.total(len(rows))
    responses = model.think([row.messages for row in rows], on_done=bar.advance)
    thoughts = [Thought(messages=row.messages, response=said) for row, said in zip(rows, responses, strict=True)]
    write_jsonl(out / _THOUGHTS, thoughts)
    chosen = _chosen(rows, responses, point)
    (out / _CALIBRATION).write_text(chosen.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return chosen


def take_over(lent: Path, out: Path) -> Calibration | None:
    """Copies what `calibrate` wrote for the same weights; None where it wrote nothing there."""
    if not (lent / _CALIBRATION).is_file():
        return None
    for file in (lent / _CALIBRATION, lent / _THOUGHTS):
        if file.is_file():  # thoughts were not always kept
            shutil.copy2(file, out)
    return read_calibration(out)


def read_calibration(folder: Path) -> Calibration:
    """What `calibrate` wrote."""
    return Calibration.model_validate_json((folder / _CALIBRATION).read_text(encoding="utf-8"))


def recall(model: LocalModel, folder: Path) -> None:
    """Lets a model know again what it thought when it was calibrated, where that was kept."""
    file = folder / _THOUGHTS
    for one in read_jsonl(file, Thought) if file.is_file() else ():
        model.known_replies[(Conversation(messages=one.messages), 0)] = one.response


def _chosen(rows: Sequence[Request], responses: Sequence[Response], point: OperatingPoint) -> Calibration:
    told = [(row, said.log_odds) for row, said in zip(rows, responses, strict=True) if said.log_odds is not None]
    scored, odds = [row for row, _ in told], [score for _, score in told]
    return threshold_on(scored, odds, point.max_false_refusal, point.most_lookalikes(fused=False))


def set_threshold(adapter: Path, chosen: Calibration) -> None:
    """Writes the threshold into the settings beside a trained model."""
    settings = read_settings(adapter)
    update = {"threshold": chosen.threshold, "threshold_note": str(chosen)}
    write_settings(adapter, settings.model_copy(update=update))
    _note_traffic(chosen, adapter)


def _note_traffic(chosen: Calibration, folder: Path) -> None:
    """Keeps the scores that a threshold was set on beside it: a server tells by them when its traffic moves away."""
    if chosen.tenths:
        Traffic(reference=Reference(edges=chosen.tenths, n=chosen.n_ordinary)).save(folder)


# What a pipeline fits by itself, where a recipe names it without a folder: a probe, or its fusion with a verdict.


@dataclass(frozen=True)
class Fit:
    """A defence at inference as a pipeline fits it."""

    defence: Literal["probe", "headed_thought", "fused"]
    """As the catalogue has it."""
    title: str
    """For tables and plots."""
    trained: bool = False
    """Whether its probe reads the trained weights, and not the base's."""
    intents: bool = False
    """Whether its probe reads the intents that thoughts state, too, and is fitted on those as well."""


FITS: dict[str, Fit] = {
    "linear_probe": Fit("probe", "Linear probe"),
    "trained_probe": Fit("probe", "Linear probe of the trained weights", trained=True),
    "headed_thought": Fit("headed_thought", "Thought begun by the probe"),
    "fused": Fit("fused", "Verdict and probe, fused"),
    "fused_intent": Fit("fused", "Verdict, probe, and the stated intent read by the probe", intents=True),
    "fused_trained": Fit("fused", "Verdict, and a probe of the weights that think", trained=True, intents=True),
}
"""By what recipes write. Cells of kept logs and rows of tables are called so."""
FUSIONS = tuple(name for name, fit in FITS.items() if fit.defence == "fused")


def probe_rows(fit: Fit, train: Sequence[Request], examples: Iterable[Example]) -> list[Request]:
    """What its probe is fitted on: training requests, and where it reads intents those that their thoughts state."""
    return [*train, *(intent_requests(examples) if fit.intents else ())]


def put_around(spec: str, inner: Respondent, weights: LocalModel, dev: Sequence[Request], policy: Policy) -> Respondent:
    """A model behind the defences of a spec. They may read `weights`, and set thresholds on harmless rows of `dev`."""
    harmless = [row for row in dev if row.harmful is False]
    return make_defence(spec, inner, Means(policy=policy, model=weights, harmless=harmless))


ON_DEMAND = "on_demand"
"""Stands behind a fusion, where a recipe names it without a folder."""
_DEV_OF = 5
"""Of the clusters that tell which messages have to be solved one in so many chooses the layer."""


@dataclass(frozen=True)
class Fitting:
    """What is fitted around a model, a stage each; each returns its folder."""

    model: Callable[[], LocalModel]
    """Opens the model; called only where something has to be fitted."""
    train: Sequence[Request]
    dev: Sequence[Request]
    policy: Policy
    point: OperatingPoint
    stages: StageRunner
    progress: Progress

    def probe(self, stage: str, rows: Sequence[Request], trained: bool = False, fitted: Path | None = None) -> Path:
        """A probe on the base weights of the model, or the trained ones, fitted on `rows`; `dev` sets the threshold.

        `fitted` is where that of the same weights and rows lies already, to be copied.
        """

        def work(out: Path) -> dict[str, Any]:
            if fitted is not None:
                probe = load_probe(fitted)
            else:
                bar.total(len(rows) + len(self.dev))
                probe = fit_probe(self.model(), rows, self.dev, self.policy, FitSettings(trained=trained), bar.advance)
            probe.save(out)
            return {"layers": probe.harm_layers, "auroc_dev": round(probe.settings.auroc_dev, 3)}

        said = {"train": len(rows), "dev": len(self.dev)} | ({"trained": True} if trained else {})
        with self.progress.bar("fit the probe") as bar:
            return self.stages.run(stage, said, work)

    def fusion(self, stage: str, fit: Fit, probe: Callable[[], Path], rows: Sequence[Request]) -> Path:
        """A fusion of the model's verdict with a probe, whose folder `probe` tells, where it has to be fitted.

        Weights and threshold rest on these development rows, with the operating point's limits on false refusals.
        """
        limits = self.point.applied(fused=True).model_dump(exclude={"rows"})
        settings = FusionSettings(**limits, read_intent=fit.intents)

        def work(out: Path) -> dict[str, Any]:
            bar.total(len(rows))
            found = load_probe(probe())
            fusion = fit_fusion(self.model(), found, rows, settings, on_done=bar.advance)
            fusion.save(out, found)
            _note_traffic(fusion.calibration, out)
            weights = {"weight": fusion.weight, "intent_weight": fusion.intent_weight}
            return weights | {"auroc_dev": round(fusion.auroc_dev, 3)}

        with self.progress.bar("fuse verdict and probe") as bar:
            said = {"fitted_on": [row.id for row in rows], "settings": settings.model_dump(mode="json")}
            return self.stages.run(stage, said, work)

    def demand(self, stage: str, fit: Fit, probe: Callable[[], Path], rows: Sequence[Request]) -> Path:
        """What says when to think: the fusion's own probe, the band in which it is not certain on these development
        rows, and where rows of `train` had to be solved an output that knows such messages."""

        def work(out: Path) -> dict[str, Any]:
            found, need = load_probe(probe()), None
            told = [row.model_copy(update={"harmful": _to_solve(row), "kind": "", "rules": ()}) for row in self.train]
            if any(row.harmful for row in told):
                sides: tuple[list[Request], list[Request]] = ([], [])
                for row in told:
                    sides[int(hashlib.sha256(row.cluster.encode()).hexdigest(), 16) % _DEV_OF == 0].append(row)
                settings = FitSettings(trained=fit.trained, max_false_refusal=self.point.max_false_refusal)
                need = fit_probe(self.model(), *sides, self.policy, settings)
            demand = fit_demand(found, self.model(), rows, self.point.max_false_refusal)
            demand.save(out, found, need)
            band = {"low": round(demand.low, 3), "high": round(demand.high, 3), "need": need is not None}
            return band | {"errors": demand.errors, "thought_about": demand.thought_about}

        said: dict[str, Any] = {"fitted_on": [row.id for row in rows], "to_solve": sum(map(_to_solve, self.train))}
        said["most_thoughts"] = MOST_THOUGHTS
        with self.progress.bar("when to think"):
            return self.stages.run(stage, said, work)


def _to_solve(row: Request) -> bool:
    """Whether a training row wears a disguise that takes work."""
    name = (row.operator or "").partition("|")[0].partition(":")[0].strip()
    return name in all_attacks() and bool(all_attacks()[name].work)


def with_demand(further: str, folder: Callable[[], Path]) -> str:
    """Defences behind a fusion, as a recipe names them, with the folder of what says when to think."""
    steps = [step.strip() for step in further.split("|")]
    return " | ".join(f"{step}:{folder()}" if step == ON_DEMAND else step for step in steps)


def ask_stage(
    stage: str,
    said: dict[str, Any],
    attempts: Sequence[Attempt],
    opened: Callable[[], Respondent],
    stages: StageRunner,
    bar: Bar,
    name: str,
    max_answer_tokens: int,
    system: str | None = None,
) -> list[Judged]:
    """Puts attempts to a defence called `name`, and judges its answers; in their order.

    Opens it only where one is to be asked; what is asked besides leaves kept replies as they are. `system` is a safety
    prompt before each conversation.
    """

    def work(out: Path) -> dict[str, Any]:
        bar.total(len(attempts))
        rows = run_defence(name, opened(), attempts, out / "logs", system, max_answer_tokens, bar.advance)
        write_jsonl(out / JUDGED, rows)
        return {"attempts": len(rows), "unscored": sum(row.refused is None for row in rows)}

    return list(read_jsonl(stages.run(stage, said, work, keep_partial=True, grows="attempts") / JUDGED, Judged))
