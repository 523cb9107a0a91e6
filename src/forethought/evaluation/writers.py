"""The models of an attack run: the attacked one, counted for whoever watches; who writes attacks and rates answers; and
the base of a trained model, which is the control."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, cached_property, partial
from pathlib import Path

from inspect_ai.model import get_model

from forethought.attacks.base import Attack, Given
from forethought.attacks.catalogue import ATTACKER_SETTINGS, Preparation, Rewrites, attacker
from forethought.attacks.searches.base import Goal, Tools
from forethought.attacks.searches.models import TextModel, text_model
from forethought.attacks.templates import read_templates
from forethought.attempts.ask import run_suite
from forethought.attempts.plan import make_plan
from forethought.data.behaviors import Behavior
from forethought.errors import ConfigError, ModelError
from forethought.evaluation.inputs import AttackSettings
from forethought.model import NO_DEFENCE, Model, load
from forethought.models.callspec import CallSettings, Price, cost_of
from forethought.models.conversation import Able, Conversation, Failed, OnReply, Respondent, Response
from forethought.models.local import LocalModel
from forethought.models.names import is_served
from forethought.models.spread import Spread
from forethought.progress import Bar, Progress


class Meter:
    """A respondent that counts what passes through it."""

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
            self.replies += 1
            if isinstance(reply, Failed):
                self.failed += 1
            else:
                self.tokens_in += reply.prompt_tokens
                self.tokens_out += reply.reasoning_tokens + reply.answer_tokens
            if on_reply is not None:
                on_reply(place, reply)

        return self._inner.reply(conversations, max_answer_tokens, told)

    def telling(self, bar: Bar) -> Callable[[int], None]:
        """What a run calls with the attempts that are finished: the bar, with replies a second and what they cost."""

        def told(steps: int) -> None:
            rate = self.replies / max(time.monotonic() - self._start, 0.001)
            cost = cost_of(self.tokens_in, self.tokens_out, 0, self._price)
            parts = [
                f"{rate:.1f}/s" if self.replies else "",
                "" if cost is None else f"${cost:.2f}",
                f"{self.failed} failed" if self.failed else "",
            ]
            bar.advance(steps, ", ".join(part for part in parts if part))

        return told


class Writers:
    """The attacker and the evaluator that the settings name; models are opened when they are first needed."""

    def __init__(
        self, settings: AttackSettings, folder: Path, attacked: Model, given: Given, progress: Progress
    ) -> None:
        """`given` is what attacks may use of the attacked model."""
        self._settings, self._folder, self._attacked, self._progress = settings, folder, attacked, progress
        self.given = given
        self.there = settings.attacker is not None
        """Whether there is an attacker."""
        self.rates = settings.evaluator is not None or self.there
        """Whether there is an evaluator: the attacker where none is named."""
        named = [name for name in (settings.attacker, settings.evaluator) if name is not None]
        self.paid = not settings.attacker_base_url and any(map(is_served, named))
        """Whether a text of the attacker may cost money."""
        self._opened = cache(self._open)

    @cached_property
    def preparation(self) -> Preparation:
        """How attacks are carried out on requests to the attacked model.

        Texts that the attacker wrote in this and in neighbouring runs are asked for once.
        """
        name, able = self._settings.attacker, self._attacked.respondent.able
        if name is None:
            return Preparation(self._settings.seed, self.given, able)
        settings = ATTACKER_SETTINGS.model_copy(update={"base_url": self._settings.attacker_base_url})
        writer = name if is_served(name) else get_model(f"forethought/{name}", local=self._opened(name), memoize=False)
        ask = attacker(writer, self._folder / "attacker-calls.jsonl", settings)
        rewrites = Rewrites(self._folder.parent / "rewrites.jsonl", name)
        return Preparation(self._settings.seed, self.given, able, rewrites, ask)

    def for_searches(self) -> tuple[TextModel | None, TextModel | None]:
        """(who writes for searches, who rates answers for them)."""
        names = self._settings.attacker, self._settings.evaluator or self._settings.attacker
        who_writes, who_rates = (None if name is None else self._text_model(name) for name in names)
        return who_writes, who_rates

    def tools(self, goals: Sequence[Goal] = ()) -> Tools:
        """What searches may use of the attacked model."""
        given, local, file = self.given, self._attacked.local, self.given.files.get("templates")
        return Tools(
            able=self._attacked.respondent.able,
            policy=given.policy,
            format=given.format,
            thinks=local is not None and local.thinks,
            model=local,
            templates=[template.fill("{request}") for template in read_templates(file)] if file is not None else (),
            group=[goal for goal in goals if goal.request.harmful],
        )

    def run_control(self, folder: Path, attacks: Sequence[Attack], harmless: Sequence[Behavior]) -> None:
        """Puts the harmless requests to the base model of a trained one, under every attack that it can be put under.

        Raises ConfigError where there is no base beside the model.
        """
        if self._attacked.settings is None:
            return  # a model that was not trained here is its own control
        with contextlib.ExitStack() as stack:
            try:
                base = stack.enter_context(self._base())
            except ModelError:
                raise ConfigError(
                    "--control", "needs the base model, which does not stand beside this one", "Give --compare instead"
                ) from None
            meter = Meter(base, None)
            plan = make_plan(folder, attacks, [], harmless, replace(self.preparation, able=base.able))
            with self._progress.bar("control") as bar:
                bar.total(plan.attempts)
                run_suite(folder, meter, self._settings.max_answer_tokens, meter.telling(bar))

    @contextlib.contextmanager
    def _base(self) -> Iterator[Respondent]:
        """The base of the attacked model, in its place. Raises ModelError where it is not there."""
        local, opened = self._attacked.local, self._attacked.opened
        if local is not None:
            with local.adapter_off():
                yield local.as_base("base")
        else:
            assert self._attacked.on is not None
            assert opened is not None
            self._attacked.close()  # its room is the base's
            spread = Spread(self._attacked.on, partial(_BaseAlone, opened))
            with contextlib.closing(spread):
                yield spread

    def _text_model(self, name: str) -> TextModel:
        if not is_served(name):
            return text_model(self._opened(name))
        url = self._settings.attacker_base_url
        return text_model(name, CallSettings(attempts=1, timeout_s=120, max_retries=3, base_url=url))

    def _open(self, name: str) -> LocalModel:
        """A local model; the attacked one is not loaded twice."""
        if name == self._attacked.where and self._attacked.local is not None:
            return self._attacked.local
        local = load(name, defence=NO_DEFENCE).local
        assert local is not None  # it is not served
        return local


class _BaseAlone:
    """In a worker: the base of a model, for good."""

    def __init__(self, opened: Callable[[], Model]) -> None:
        local = opened().local
        assert local is not None  # it was trained here
        self._off = contextlib.ExitStack()
        self._off.enter_context(local.adapter_off())
        self.respondent = local.as_base("base")
