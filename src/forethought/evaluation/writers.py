"""A model that is asked, with what passes through it counted: for whoever watches."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from forethought.errors import ConfigError
from forethought.evaluation.inputs import AttackSettings
from forethought.model import NO_DEFENCE, Model, is_served, load
from forethought.models.callspec import Price, cost_of
from forethought.models.conversation import Able, Conversation, Failed, OnReply, Respondent, Response
from forethought.progress import Bar, Progress

if TYPE_CHECKING:
    from inspect_ai.model import Model as InspectModel

    from forethought.attacks.base import Attack, Given
    from forethought.attacks.prepare import AskAttacker, Preparation, Rewrites
    from forethought.attacks.searches.base import Goal, Tools
    from forethought.attacks.searches.models import TextModel
    from forethought.data.behaviors import Behavior
    from forethought.models.local import LocalModel


class Meter:
    """A respondent that counts what passes through it, for whoever watches."""

    def __init__(self, inner: Respondent, price: Price | None) -> None:
        self._inner, self._price = inner, price
        self.name = inner.name
        self.replies = self.failed = self.tokens_in = self.tokens_out = 0
        self._start = time.monotonic()

    @property
    def able(self) -> Able:
        """What the model behind it can do."""
        return self._inner.able

    def reply(
        self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
    ) -> list[Response | Failed]:
        """The model's own replies."""
        if not self.replies:
            self._start = time.monotonic()

        def told(place: int, reply: Response | Failed) -> None:
            self._count(reply)
            if on_reply is not None:
                on_reply(place, reply)

        return self._inner.reply(conversations, max_answer_tokens, told)

    @property
    def note(self) -> str:
        """Replies a second, and what they cost where that is known."""
        seconds = max(time.monotonic() - self._start, 0.001)
        cost = cost_of(self.tokens_in, self.tokens_out, 0, self._price)
        parts = [f"{self.replies / seconds:.1f}/s"] if self.replies else []
        parts += [f"${cost:.2f}"] if cost is not None else []
        return ", ".join([*parts, *([f"{self.failed} failed"] if self.failed else [])])

    def telling(self, bar: Bar) -> Callable[[int], None]:
        """What a run calls with the attempts that are finished: the bar, with this note."""
        return lambda steps: bar.advance(steps, self.note)

    def _count(self, reply: Response | Failed) -> None:
        self.replies += 1
        if isinstance(reply, Failed):
            self.failed += 1
            return
        self.tokens_in += reply.prompt_tokens
        self.tokens_out += reply.reasoning_tokens + reply.answer_tokens


# The other models of an attack run: who writes attacks, who rates answers, and the base that is the control.

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
        from forethought.attacks.prepare import Rewrites

        if self._settings.attacker is None:
            return None
        return Rewrites(self._folder.parent / _REWRITES, self._settings.attacker)

    @cached_property
    def ask_for_texts(self) -> AskAttacker | None:
        """How attacks ask for texts."""
        from forethought.attacks.prepare import ATTACKER_SETTINGS, attacker

        if self._settings.attacker is None:
            return None
        settings = ATTACKER_SETTINGS.model_copy(update={"base_url": self._settings.attacker_base_url})
        return attacker(self._as_inspect(self._settings.attacker), self._folder / _CALLS, settings)

    def preparation(self, given: Given, able: Able) -> Preparation:
        """How attacks are carried out on requests to a model."""
        from forethought.attacks.prepare import Preparation

        return Preparation(self._settings.seed, given, able, self.rewrites, self.ask_for_texts)

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
        from forethought.attacks.searches.base import Tools
        from forethought.attacks.templates import read_templates

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
        from forethought.attempts.ask import run_suite
        from forethought.attempts.plan import make_plan
        from forethought.errors import ModelError
        from forethought.models.local import LocalModel

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
            plan = make_plan(folder, attacks, [], harmless, self.preparation(given, base.able))
            with self._progress.bar("control") as bar:
                bar.total(plan.attempts)
                run_suite(folder, meter, self._settings.max_answer_tokens, meter.telling(bar))

    def _text_model(self, name: str | None) -> TextModel | None:
        from forethought.attacks.searches.models import text_model
        from forethought.models.callspec import CallSettings

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
