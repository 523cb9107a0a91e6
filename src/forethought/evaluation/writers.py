"""The other models of an attack run: who writes attacks, who rates answers, and the base that is the control."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from forethought.errors import ConfigError
from forethought.evaluation.inputs import AttackSettings
from forethought.evaluation.meter import Meter
from forethought.model import NO_DEFENCE, Model, is_served, load
from forethought.progress import Progress

if TYPE_CHECKING:
    from inspect_ai.model import Model as InspectModel

    from forethought.engine.local import LocalModel
    from forethought.evals.attacks.adaptive.base import Goal, Tools
    from forethought.evals.attacks.adaptive.models import TextModel
    from forethought.evals.attacks.base import Attack, Given
    from forethought.evals.attacks.prepare import AskAttacker, Rewrites
    from forethought.evals.benchmarks.behaviors import Behavior

_REWRITES = "rewrites.jsonl"
_CALLS = "attacker-calls.jsonl"


class Writers:
    """The attacker and the evaluator that the settings name; models are opened when they are first needed."""

    def __init__(self, settings: AttackSettings, folder: Path, attacked: Model, progress: Progress) -> None:
        self._settings, self._folder, self._attacked, self._progress = settings, folder, attacked, progress

    @property
    def there(self) -> bool:
        """Whether there is an attacker."""
        return self._settings.attacker is not None

    @property
    def rates(self) -> bool:
        """Whether there is an evaluator: the attacker where none is named."""
        return self._settings.evaluator is not None or self.there

    @property
    def paid(self) -> bool:
        """Whether a text of the attacker may cost money."""
        named = (self._settings.attacker, self._settings.evaluator)
        return not self._settings.attacker_base_url and any(name is not None and not _local(name) for name in named)

    @cached_property
    def rewrites(self) -> Rewrites | None:
        """Texts that the attacker wrote in this and in neighbouring runs: each is asked for once."""
        from forethought.evals.attacks.prepare import Rewrites

        if self._settings.attacker is None:
            return None
        return Rewrites(self._folder.parent / _REWRITES, self._settings.attacker)

    @cached_property
    def ask_for_texts(self) -> AskAttacker | None:
        """How attacks ask for texts."""
        from forethought.evals.attacks.prepare import ATTACKER_SETTINGS, attacker

        if self._settings.attacker is None:
            return None
        settings = ATTACKER_SETTINGS.model_copy(update={"base_url": self._settings.attacker_base_url})
        return attacker(self._as_inspect(self._settings.attacker), self._folder / _CALLS, settings)

    @cached_property
    def attacker(self) -> TextModel | None:
        """Who writes for searches."""
        return self._text_model(self._settings.attacker)

    @cached_property
    def evaluator(self) -> TextModel | None:
        """Who rates answers for searches."""
        return self._text_model(self._settings.evaluator or self._settings.attacker)

    def tools(self, given: Given, goals: Sequence[Goal] = ()) -> Tools:
        """What searches may use of the attacked model."""
        from forethought.evals.attacks.adaptive.base import Tools
        from forethought.evals.attacks.templates import read_templates

        file = given.files.get("templates")
        return Tools(
            able=self._attacked.respondent.able,
            policy=given.policy,
            format=given.format,
            thinks=self._attacked.local is not None and self._attacked.local.thinks,
            model=self._attacked.local,
            templates=[template.fill("{request}") for template in read_templates(file)] if file is not None else (),
            group=[goal for goal in goals if goal.request.harmful],
        )

    def run_control(self, folder: Path, attacks: Sequence[Attack], harmless: Sequence[Behavior], given: Given) -> None:
        """Puts the harmless requests to the base model of a trained one, under every attack that it can be put under.

        Raises ConfigError where there is no base beside the model.
        """
        from forethought.engine.local import LocalModel
        from forethought.errors import ModelError
        from forethought.evals.suite.plan import make_plan
        from forethought.evals.suite.run import run_suite

        local = self._attacked.local
        if local is None or not local.trained:
            return  # a model that was not trained here is its own control
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(local.adapter_off())
            except ModelError:
                raise ConfigError(
                    "--control", "needs the base model, which does not stand beside this one", "Give --compare instead"
                ) from None
            base = LocalModel(local.base_weights, local.tokenizer, None, batch_size=local.batch_size, name="base")
            meter = Meter(base, None)
            plan = make_plan(
                folder, attacks, [], harmless, self._settings.seed, given, base.able, self.rewrites, self.ask_for_texts
            )
            with self._progress.bar("control") as bar:
                bar.total(plan.attempts)
                run_suite(folder, meter, self._settings.max_answer_tokens, meter.telling(bar))

    def _text_model(self, name: str | None) -> TextModel | None:
        from forethought.engine.callspec import CallSettings
        from forethought.evals.attacks.adaptive.models import text_model

        if name is None:
            return None
        if _local(name):
            return text_model(self._opened(name))
        url = self._settings.attacker_base_url
        return text_model(name, CallSettings(attempts=1, timeout_s=120, max_retries=3, base_url=url))

    def _as_inspect(self, name: str) -> str | InspectModel:
        if not _local(name):
            return name
        from inspect_ai.model import get_model

        return get_model(f"forethought/{name}", local=self._opened(name), memoize=False)

    def _opened(self, name: str) -> LocalModel:
        """A local model; the attacked one is not loaded twice."""
        if name == self._attacked.where and self._attacked.local is not None:
            return self._attacked.local
        local = load(name, defence=NO_DEFENCE).local
        assert local is not None  # `_local` told
        return local


def _local(name: str) -> bool:
    return not is_served(name)
