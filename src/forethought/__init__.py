"""Forethought: teach an open language model to think about what it is asked, before it answers.

Whatever a command can do, this package can do without a terminal:

    import forethought as ft

    model = ft.load("runs/quickstart")
    reply = model.reply("How do I bake bread?")
    print(reply.verdict, reply.probability, reply.answer)

Nothing here prints, asks or reads `sys.argv`. Where work is long, pass a `Progress` of your own to hear how it goes;
where it costs money, `Progress(max_cost=...)` says up to where. Errors are `ForethoughtError`s: value, rule, fix.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forethought.attacks.catalogue import all_attacks
    from forethought.data.sources import read_requests
    from forethought.errors import ConfigError, ForethoughtError, InputError, ModelError, StageError
    from forethought.evaluation.attack import attack, rejudge
    from forethought.evaluation.calibrate import calibrate
    from forethought.evaluation.capability import capability
    from forethought.evaluation.compare import compare
    from forethought.evaluation.gate import check, diff
    from forethought.evaluation.inputs import AttackSettings
    from forethought.evaluation.over_refusal import mine_false_refusals, over_refusal
    from forethought.judges.catalogue import get_judge, judge
    from forethought.judges.evaluate import evaluate_judge, probe_judge
    from forethought.judges.heads import train_reader
    from forethought.judges.trained import train_judge
    from forethought.measure.capability import CapabilityConfig
    from forethought.measure.gate import Limits
    from forethought.model import Model, Reply, load
    from forethought.models.weights import merge_adapter
    from forethought.pipeline import BuildSettings
    from forethought.pipeline.build import build, export_build, inspect_build
    from forethought.pipeline.publish import push
    from forethought.pipeline.run import run
    from forethought.pipeline.training import train
    from forethought.policy import Policy, load_policy
    from forethought.progress import Progress
    from forethought.report.card import card
    from forethought.report.gate import Gate
    from forethought.research.config import load_sweep
    from forethought.research.inside.report import inside
    from forethought.research.plan import plan_recipe
    from forethought.research.sweep import run_sweep
    from forethought.server.serve import serve

_WHERE = {
    "load": "model",
    "Model": "model",
    "Reply": "model",
    "run": "pipeline.run",
    "build": "pipeline.build",
    "BuildSettings": "pipeline",
    "train": "pipeline.training",
    "merge_adapter": "models.weights",
    "calibrate": "evaluation.calibrate",
    "attack": "evaluation.attack",
    "rejudge": "evaluation.attack",
    "AttackSettings": "evaluation.inputs",
    "all_attacks": "attacks.catalogue",
    "compare": "evaluation.compare",
    "check": "evaluation.gate",
    "diff": "evaluation.gate",
    "Limits": "measure.gate",
    "Gate": "report.gate",
    "card": "report.card",
    "push": "pipeline.publish",
    "judge": "judges.catalogue",
    "get_judge": "judges.catalogue",
    "over_refusal": "evaluation.over_refusal",
    "mine_false_refusals": "evaluation.over_refusal",
    "capability": "evaluation.capability",
    "CapabilityConfig": "measure.capability",
    "read_requests": "data.sources",
    "inspect_build": "pipeline.build",
    "export_build": "pipeline.build",
    "evaluate_judge": "judges.evaluate",
    "probe_judge": "judges.evaluate",
    "train_judge": "judges.trained",
    "train_reader": "judges.heads",
    "plan_recipe": "research.plan",
    "inside": "research.inside.report",
    "load_sweep": "research.config",
    "run_sweep": "research.sweep",
    "serve": "server.serve",
    "Policy": "policy",
    "load_policy": "policy",
    "Progress": "progress",
    "ForethoughtError": "errors",
    "InputError": "errors",
    "ConfigError": "errors",
    "ModelError": "errors",
    "StageError": "errors",
}
"""By public name, the module that has it: imported when it is first used, so that `import forethought` is quick."""

__all__ = [
    "AttackSettings", "BuildSettings", "CapabilityConfig", "ConfigError", "ForethoughtError", "Gate", "InputError",
    "Limits", "Model", "ModelError", "Policy", "Progress", "Reply", "StageError", "all_attacks", "attack", "build",
    "calibrate", "capability", "card", "check", "compare", "diff", "evaluate_judge", "export_build", "get_judge",
    "inside", "inspect_build", "judge", "load", "load_policy", "load_sweep", "merge_adapter", "mine_false_refusals",
    "over_refusal", "plan_recipe", "probe_judge", "push", "read_requests", "rejudge", "run", "run_sweep", "serve",
    "train", "train_judge", "train_reader",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'forethought' has no attribute '{name}'")
    return getattr(import_module(f"forethought.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
