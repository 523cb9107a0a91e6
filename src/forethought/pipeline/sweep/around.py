"""Defences of a sweep that train no weights: the best prompt, and wrappers around the base model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from forethought.data.select import sample
from forethought.defences.base import refuses
from forethought.defences.catalogue import make_defence
from forethought.defences.entry import Means
from forethought.engine.conversation import Conversation, Failed, Respondent
from forethought.engine.local import LocalModel
from forethought.evals.metrics import share, youden
from forethought.manifest import write_json
from forethought.pipeline.stage import StageRunner
from forethought.pipeline.sweep.config import Sweep
from forethought.pipeline.sweep.material import Ground
from forethought.pipeline.terminal import Terminal
from forethought.records import Request

PROMPT = "prompt"
PROBE = "linear_probe"
_CHOICE, _FIT = "choose", "fit"


def best_prompt(
    sweep: Sweep, ground: Ground, base: Callable[[], LocalModel], stages: StageRunner, terminal: Terminal
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

    with terminal.progress("choose a prompt") as bar:
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
    harmless = [row for row in ground.dev if row.harmful is False]
    return make_defence(spec, inner, Means(policy=ground.policy, model=base, harmless=harmless))


def with_probe(
    spec: str, ground: Ground, base: Callable[[], LocalModel], stages: StageRunner, terminal: Terminal
) -> str:
    """The spec; a linear probe without a folder is fitted on the training rows first."""
    if spec.strip() == PROBE:
        return f"{PROBE}:{_fitted_probe(ground, base, stages, terminal)}"
    return spec


def _fitted_probe(ground: Ground, base: Callable[[], LocalModel], stages: StageRunner, terminal: Terminal) -> Path:
    def work(out: Path) -> dict[str, Any]:
        from forethought.defences.probe_fit import fit_probe

        bar.total(len(ground.train) + len(ground.dev))
        probe = fit_probe(base(), ground.train, ground.dev, ground.policy, on_progress=bar.advance)
        probe.save(out)
        return {"layer": probe.settings.layer, "auroc_dev": round(probe.settings.auroc_dev, 3)}

    with terminal.progress("fit the probe") as bar:
        return stages.run(_FIT, {"train": len(ground.train), "dev": len(ground.dev)}, work)
