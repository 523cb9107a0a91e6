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
    from forethought.errors import ConfigError, ForethoughtError, InputError, ModelError, StageError
    from forethought.evaluation.attack import attack, rejudge
    from forethought.evaluation.calibrate import calibrate
    from forethought.evaluation.compare import compare
    from forethought.evaluation.inputs import AttackSettings
    from forethought.judges.catalogue import get_judge, judge
    from forethought.model import Model, Reply, load
    from forethought.pipeline.build import BuildSettings, build
    from forethought.pipeline.run import run
    from forethought.pipeline.training import train
    from forethought.policy import Policy, load_policy
    from forethought.progress import Progress

_WHERE = {
    "load": "model",
    "Model": "model",
    "Reply": "model",
    "run": "pipeline.run",
    "build": "pipeline.build",
    "BuildSettings": "pipeline.build",
    "train": "pipeline.training",
    "calibrate": "evaluation.calibrate",
    "attack": "evaluation.attack",
    "rejudge": "evaluation.attack",
    "AttackSettings": "evaluation.inputs",
    "all_attacks": "attacks.catalogue",
    "compare": "evaluation.compare",
    "judge": "judges.catalogue",
    "get_judge": "judges.catalogue",
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
    "AttackSettings", "BuildSettings", "ConfigError", "ForethoughtError", "InputError", "Model", "ModelError", "Policy",
    "Progress", "Reply", "StageError", "all_attacks", "attack", "build", "calibrate", "compare", "get_judge", "judge",
    "load", "load_policy", "rejudge", "run", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'forethought' has no attribute '{name}'")
    return getattr(import_module(f"forethought.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
