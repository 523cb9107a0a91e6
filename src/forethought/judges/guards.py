"""Guard models as judges, each by its own format, on this machine or behind a server."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from forethought.errors import ConfigError
from forethought.judges.base import JUDGE_SETTINGS, Entry, Item, JudgeOptions, Measure, Verdict, judge_the_rest
from forethought.judges.guard_formats import GUARDS, Finding, GuardFormat, GuardPrompt, guard_format
from forethought.judges.model_calls import ask, not_sent
from forethought.models.callspec import Call, CallSettings, Reject
from forethought.policy import Policy, default_policy

if TYPE_CHECKING:
    from inspect_ai.model import Model

CONTROVERSIAL = "the guard calls it controversial"
NOT_SAID = "the guard does not say"
Controversial = Literal["unscored", "harmful", "harmless"]
"""What Qwen3Guard's middle level counts as. The paper's strict mode is `harmful`, its loose mode `harmless`."""
_CONTINUES = ("vllm", "sglang")
"""inspect's providers that make the model continue an assistant's turn at the end instead of judging it."""
_PLAIN = ("openai-api-completions", "mockllm")
"""Providers that send a prompt as it is."""


class GuardBackend(Protocol):
    """Where a guard runs."""

    def ask(self, guard: GuardFormat, prompts: Sequence[GuardPrompt]) -> list[Finding | Reject]:
        """One answer a prompt, in order."""
        ...


class Guard:
    """A judge that is a guard model."""

    def __init__(
        self,
        guard: GuardFormat | str,
        backend: GuardBackend,
        measure: Measure = "harmful",
        policy: Policy | None = None,
        controversial: Controversial = "unscored",
    ) -> None:
        """`policy` gives the rules that the guard's categories stand for; None is the default one.

        Raises ConfigError where the guard does not decide the measure.
        """
        self.format = guard if isinstance(guard, GuardFormat) else guard_format(guard)
        self.name = self.format.name
        self.measure: Measure = measure
        if measure not in self.format.measures:
            raise ConfigError(
                f"guard '{self.name}'",
                f"does not say whether an answer is {measure}",
                f"It judges: {', '.join(self.format.measures)}",
            )
        self._backend = backend
        self._policy = policy or default_policy()
        self._controversial = controversial

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """One verdict an item.

        Raises InputError for an item without a user turn, whatever its answer: a guard that is shown an empty
        turn judges another conversation than the one that took place.
        """
        for item in items:
            self.format.prompts(item)
        return judge_the_rest(items, self._ask, not_sent)

    def _ask(self, items: Sequence[Item]) -> list[Verdict]:
        shown = [self.format.prompts(item) for item in items]
        answers = iter(self._backend.ask(self.format, [prompt for prompts in shown for prompt in prompts]))
        return [self._verdict([next(answers) for _ in prompts]) for prompts in shown]

    def _verdict(self, answers: list[Finding | Reject]) -> Verdict:
        found = [answer for answer in answers if not isinstance(answer, Reject)]
        harmful_parts = [answer for answer in found if answer.harmful]
        causes = [answer.cause for answer in answers if isinstance(answer, Reject)]
        if causes and not (harmful_parts and self.measure == "harmful"):
            return Verdict(cause=causes[0])  # one broken guideline is enough, to be clear of all takes all
        harmful: bool | None = bool(harmful_parts)
        if not harmful_parts and any(answer.harmful is None for answer in found):
            harmful = {"unscored": None, "harmful": True, "harmless": False}[self._controversial]
        refused = found[0].refused
        decided = harmful if self.measure == "harmful" else refused
        # The most probable part decides where a guard is asked several times.
        chances = [answer.probabilities[self.measure] for answer in found if self.measure in answer.probabilities]
        categories = [name for answer in found for name in answer.categories]
        return Verdict(
            refused=refused,
            harmful=harmful,
            rules=self.format.rules(categories, self._policy) if harmful else (),
            probability=max(chances) if chances else None,
            cause="" if decided is not None else CONTROVERSIAL if self.measure == "harmful" else NOT_SAID,
        )


class ServedGuard:
    """A guard behind an OpenAI-compatible server such as vLLM, by any inspect model name. Its text alone is read."""

    def __init__(self, model: str | Model, journal: Path, settings: CallSettings = JUDGE_SETTINGS) -> None:
        self._model, self._journal = model, journal
        # One attempt: a guard knows no second turn in which it is told what was wrong.
        self._settings = settings.model_copy(update={"attempts": 1})

    def ask(self, guard: GuardFormat, prompts: Sequence[GuardPrompt]) -> list[Finding | Reject]:
        """One answer a prompt; raises ConfigError for a provider that would not ask what the format says."""
        self._check_provider(guard)
        calls = [
            Call(key=str(place), messages=prompt.messages, max_tokens=guard.max_tokens)
            for place, prompt in enumerate(prompts)
        ]

        def read(key: str, text: str) -> Finding | Reject:
            return guard.read(prompts[int(key)].part, text)

        return list(ask(self._model, calls, self._journal, self._settings, read).values())

    def _check_provider(self, guard: GuardFormat) -> None:
        provider = str(self._model).partition("/")[0]
        if guard.prompt and provider not in _PLAIN:
            raise ConfigError(
                f"model '{self._model}'",
                f"would put {guard.name}'s prompt into a chat template that it was not trained with",
                "Write openai-api-completions/SERVICE/NAME, with --base-url",
            )
        if not guard.prompt and provider in (*_CONTINUES, "openai-api-completions"):
            raise ConfigError(
                f"model '{self._model}'",
                "would have the guard continue the answer instead of judging it",
                "Write openai-api/SERVICE/NAME, with --base-url",
            )


def _opened(name: str, options: JudgeOptions) -> Guard:
    """A guard from a folder on this machine, else behind a server. Raises ModelError when it can't be loaded."""
    if Path(options.given).is_dir():
        from forethought.judges.guard_local import LocalGuard  # torch takes seconds

        backend: GuardBackend = LocalGuard.load(Path(options.given))
    else:
        backend = ServedGuard(options.given, options.journal, options.settings)
    return Guard(name, backend, options.measure, options.policy)


JUDGES = tuple(
    Entry(guard.name, guard.measures, guard.what, partial(_opened, guard.name), "@MODEL") for guard in GUARDS.values()
)
