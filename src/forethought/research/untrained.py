"""Defences of a sweep that train no weights: the best prompt, and wrappers around the base model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from forethought.data.sources import sample
from forethought.defences.base import refuses
from forethought.defences.catalogue import read_step
from forethought.manifest import write_json
from forethought.metrics import share, youden
from forethought.models.conversation import Conversation, Failed, Respondent
from forethought.models.local import LocalModel
from forethought.pipeline.fitting import FITS, Fit, fusion_stage, probe_rows, probe_stage, put_around
from forethought.pipeline.recipe import OperatingPoint
from forethought.pipeline.stage import StageRunner
from forethought.progress import Progress
from forethought.reasoning import Format
from forethought.records import Request
from forethought.research.config import Sweep
from forethought.research.material import Ground

PROMPT = "prompt"
_CHOICE, _FIT, _FUSE, _OWN_PROBE = "choose", "fit", "fuse", "probe"


def best_prompt(
    sweep: Sweep, ground: Ground, base: Callable[[], LocalModel], stages: StageRunner, progress: Progress
) -> tuple[str, str]:
    """(the prompt with the highest Youden's J on development requests, what each had): chosen before any test."""
    rows = _choice_rows(ground, sweep.evaluate.n_prompt_choice)

    def work(out: Path) -> dict[str, Any]:
        bar.total(len(sweep.prompts) * len(rows))
        found = {}
        for prompt in sweep.prompts:
            defended = behind(prompt, ground, base(), base())
            found[prompt] = _youden(defended, rows, sweep.evaluate.max_answer_tokens, bar.advance)
        write_json(out / "prompts.json", found)
        return found

    with progress.bar("choose a prompt") as bar:
        config = {"prompts": sweep.prompts, "rows": [row.id for row in rows]}
        folder = stages.run(_CHOICE, config, work)
    found = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    told = ", ".join(f"{name} {value:.2f}" for name, value in sorted(found.items(), key=lambda one: -one[1]))
    return max(sweep.prompts, key=lambda name: (found[name], -sweep.prompts.index(name))), told


def _choice_rows(ground: Ground, n: int) -> list[Request]:
    """Development requests as they are: harmful, and of the harmless ones half look-alikes."""
    plain = [row for row in ground.dev if row.operator is None]
    kinds = (("harmful", n), ("ordinary", n - n // 2), ("lookalike", n // 2))
    return [row for kind, most in kinds for row in sample([r for r in plain if r.kind == kind], most, ground.seed)]


def _youden(model: Respondent, rows: Sequence[Request], max_tokens: int, on_done: Callable[[int], None]) -> float:
    asked = [Conversation(messages=row.messages) for row in rows]
    replies = model.reply(asked, max_tokens, lambda place, reply: on_done(1))
    outcomes = [None if isinstance(reply, Failed) else refuses(reply) for reply in replies]
    sides = [[o for o, row in zip(outcomes, rows, strict=True) if bool(row.harmful) is side] for side in (True, False)]
    if not all(share(side).n for side in sides):
        return -1.0  # nothing scored: never the best
    ids = [[row.id for row in rows if bool(row.harmful) is side] for side in (True, False)]
    return youden([sides[0]], [ids[0]], [sides[1]], [ids[1]]).value


def behind(spec: str, ground: Ground, inner: Respondent, base: LocalModel) -> Respondent:
    """A model behind a defence at inference. `base` tells what the defence wants of the weights."""
    return put_around(spec, inner, base, ground.dev, ground.policy)


def title_of(spec: str) -> str:
    """What tables and plots call the defences of a spec together."""
    first, *further = [step.strip() for step in spec.split("|")]
    found = FITS[first].title if first in FITS else read_step(first)[0].title
    return ", ".join([found, *(read_step(step)[0].title for step in further)])


def unfitted(spec: str) -> str:
    """What of a spec no stage stands for: all but a first defence that is fitted here. Answers depend on it."""
    first, _, further = spec.partition("|")
    return further.strip() if first.strip() in FITS else spec.strip()


class Probes:
    """The linear probes of a sweep's grounds: one for all defences that read it, fitted where one is asked for."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._folders: dict[Path, Path] = {}
        self.seconds = 0.0
        """What fitting took when it was done."""

    def folder(self, ground: Ground, model: Callable[[], LocalModel], fit: Fit) -> Path:
        """Where the ground's probe lies: the one of requests, or the one of requests and their intents. `model` holds
        the base weights."""
        place = ground.folder / f"probe-{ground.key[:8]}{'-intents' if fit.intents else ''}"
        if place not in self._folders:
            stages = StageRunner(place, self._progress.say, after=ground.key)
            rows = probe_rows(fit, ground.train, ground.examples)
            self._folders[place] = probe_stage(_FIT, model, rows, ground.dev, ground.policy, stages, self._progress)
            self.seconds += stages.seconds
        return self._folders[place]


def fitted(
    spec: str,
    ground: Ground,
    point: OperatingPoint,
    model: Callable[[], LocalModel],
    probes: Probes,
    stages: StageRunner,
    progress: Progress,
    fmt: Format = "think",
) -> str:
    """The spec; a defence that needs fitting and has no folder yet is fitted on the ground's rows first.

    It has to be the nearest to the model: what stands behind a `|` goes around it as it is. `model` is the defended
    one: probes read its base weights, or where they are to its trained ones; a fusion its verdicts. `fmt` is how it
    writes thoughts.
    """
    first, _, further = spec.partition("|")
    if further:
        return f"{fitted(first, ground, point, model, probes, stages, progress, fmt)} | {further.strip()}"
    fit = FITS.get(spec.strip())
    if fit is None:
        return spec
    own: Path | None = None
    if fit.trained:  # of these weights alone, so that it lies with them
        rows = probe_rows(fit, ground.train, ground.examples)
        own = probe_stage(_OWN_PROBE, model, rows, ground.dev, ground.policy, stages, progress, trained=True)

    def probe() -> Path:
        return own or probes.folder(ground, model, fit)

    if fit.defence == "probe":
        return f"probe:{probe()}"
    fuses = fit.defence == "fused"
    folder = fusion_stage(_FUSE, fit, probe, model, ground.dev, point, stages, progress) if fuses else probe()
    return f"{fit.defence}:{folder},format={fmt}"
