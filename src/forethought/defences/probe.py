"""Two defences that read a probe (`measure/probe.py`): one decides by it, one begins the thought with the rule found.

A probe on the hidden state knows the rule before the first word. `probe` refuses what it finds harmful. With
`headed_thought` the thought is begun for the model with that rule's title and id, and the model reasons on from there;
its verdict stays its own. Where the probe finds no harm, the thought begins as always.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from forethought.defences.base import (
    Asked,
    Checked,
    InputFilter,
    Means,
    Steps,
    Wrapper,
    described,
    rule_refusal,
    unscored,
)
from forethought.errors import ConfigError
from forethought.measure.probe import UNREADABLE, Array, Probe, load_probe
from forethought.models.conversation import Conversation, Respondent
from forethought.policy import Policy
from forethought.reasoning import Format, markers
from forethought.records import Record

if TYPE_CHECKING:
    from forethought.models.local import LocalModel


class ProbeOptions(Record):
    """Where a probe lies."""

    folder: str = Field(description="folder of a fitted probe")
    fail_closed: bool = Field(default=True, description="refuse what the model's prompt can't hold")


class ProbeDefence(InputFilter):
    """A model that is not shown what the probe finds harmful."""

    label, Options = "probe", ProbeOptions

    def __init__(
        self, inner: Respondent, probe: Probe, reader: LocalModel, options: ProbeOptions | None = None
    ) -> None:
        """`reader` holds the weights that the probe was fitted on.

        Raises ModelError for other weights, InputError for a probe without a threshold.
        """
        super().__init__(inner, options or ProbeOptions(folder="."))
        probe.check_model(reader)
        self.probe, self._reader = probe, reader
        self.refuses_from = self.threshold = probe.threshold

    @classmethod
    def make(cls, inner: Respondent, options: ProbeOptions, means: Means) -> Respondent:
        """With the probe that lies in the folder."""
        return cls(inner, load_probe(Path(options.folder)), means.weights_for("probe"), options)

    @classmethod
    def check_options(cls, options: ProbeOptions) -> None:
        """Raises InputError where there is no probe that decides."""
        _ = load_probe(Path(options.folder)).threshold

    def check(self, conversations: Sequence[Conversation]) -> list[Checked]:
        """Log-odds of harm, raised where doubt counts against the request; a refusal names the likeliest rule."""
        asked = [conversation.messages for conversation in conversations]
        raised = np.array([self.probe.strict_by * one.strict for one in conversations], dtype=np.float32)
        scores = self.probe.harm(self._reader, asked) + raised
        harmful = [place for place, score in enumerate(scores) if score >= self.threshold]
        rows = self.probe.log_odds(self._reader, [asked[place] for place in harmful])
        rules = {place: self.probe.rule(row) for place, row in zip(harmful, rows, strict=True)}
        return [
            self._checked(conversation, float(score), rules.get(place))
            if np.isfinite(score)
            else unscored(UNREADABLE, self.options.fail_closed)
            for place, (conversation, score) in enumerate(zip(conversations, scores, strict=True))
        ]

    def _checked(self, conversation: Conversation, score: float, rule: str | None) -> Checked:
        """`rule` is None where it lets the request through, and empty where the probe tells no rules."""
        if rule is None:
            return Checked(score=score, refuses=False)
        answer = rule_refusal(self.probe.settings.policy, rule, conversation)
        return Checked(score=score, refuses=True, answer=answer, rules=(rule,) if rule else ())


class HeadedOptions(Record):
    """Where the probe lies that begins the thought."""

    folder: str = Field(description="folder of a fitted probe")
    format: Format = Field(default="think", description="how the model writes its thoughts")


class HeadedThought(Wrapper):
    """A model that thinks, whose thought is begun with the rule that a probe finds."""

    label, Options = "headed_thought", HeadedOptions
    judges_by_thought = True

    def __init__(
        self, inner: Respondent, probe: Probe, reader: LocalModel, options: HeadedOptions | None = None
    ) -> None:
        """Raises ConfigError for a model whose turn can't be begun for it, ModelError for weights that the probe was
        not fitted on, InputError for a probe without a threshold.
        """
        super().__init__(inner, options or HeadedOptions(folder="."))
        if not inner.able.prefill:
            raise ConfigError(
                "defence 'headed_thought'", "begins the model's turn, which this model does not take", "Use a local one"
            )
        probe.check_model(reader)
        self.probe, self._reader = probe, reader
        self.threshold = probe.threshold
        """Log-odds of harm from which a rule is named."""

    @classmethod
    def make(cls, inner: Respondent, options: HeadedOptions, means: Means) -> Respondent:
        """With the probe that lies in the folder."""
        return cls(inner, load_probe(Path(options.folder)), means.weights_for("headed_thought"), options)

    @classmethod
    def check_options(cls, options: HeadedOptions) -> None:
        """Raises InputError where there is no probe that decides."""
        _ = load_probe(Path(options.folder)).threshold

    def answer(self, conversation: Conversation, max_answer_tokens: int) -> Steps:
        """A turn that somebody else began, and a request that no prompt holds, stay as they are."""
        (given,) = yield Asked(self._begun, [conversation])
        return (yield from self.ask(given, max_answer_tokens))

    def _begun(self, conversations: Sequence[Conversation]) -> list[Conversation]:
        rows = self.probe.log_odds(self._reader, [one.messages for one in conversations])
        return [self.begun(one, row) for one, row in zip(conversations, rows, strict=True)]

    def begun(self, conversation: Conversation, row: Array) -> Conversation:
        """The conversation as the model is given it; `row` holds the log-odds of harm and of each rule."""
        if conversation.prefill or not np.isfinite(row).all():
            return conversation
        rule = self.probe.rule(row)
        if float(row[0]) < self.threshold or not rule:
            return conversation
        return conversation.model_copy(
            update={"prefill": opening(self.probe.settings.policy, rule, self.options.format)}
        )


def opening(policy: Policy, rule_id: str, fmt: Format = "think") -> str:
    """How a thought begins that is to look at a rule first. It says that the rule is to be checked, not that it is
    broken: the finding is the model's."""
    rule = policy.rule(rule_id)
    return f"{markers(fmt)[0]}\nRule to check: {rule.title} ({rule.id}).\nIntent:"


DEFENCES = (described("probe", ProbeDefence), described("headed_thought", HeadedThought))
