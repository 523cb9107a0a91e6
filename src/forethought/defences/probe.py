"""Two defences that read a probe (`evals/probe.py`): one decides by it, one begins the thought with the rule it finds.

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

from forethought.defences.base import Checked, InferenceDefence, InputFilter, Means, Wrapper, rule_refusal, unscored
from forethought.errors import ConfigError
from forethought.measure.probe import UNREADABLE, Array, Probe, load_probe
from forethought.models.conversation import Conversation, Failed, OnReply, Respondent, Response
from forethought.policy import Policy
from forethought.reasoning import Format, markers
from forethought.records import Record

if TYPE_CHECKING:
    from forethought.models.local import LocalModel


class ProbeDefence(InputFilter):
    """A model that is not shown what the probe finds harmful."""

    def __init__(
        self,
        inner: Respondent,
        probe: Probe,
        reader: LocalModel,
        threshold: float | None = None,
        fail_closed: bool = True,
    ) -> None:
        """`reader` holds the weights that the probe was fitted on; `threshold` None is the probe's own.

        Raises ModelError for other weights, InputError for a probe without a threshold.
        """
        super().__init__(inner, "probe")
        probe.check_model(reader)
        self.probe, self._reader, self._fail_closed = probe, reader, fail_closed
        self.threshold = probe.threshold if threshold is None else threshold

    def check(self, conversations: Sequence[Conversation]) -> list[Checked]:
        """Log-odds of harm; a refusal names the likeliest rule."""
        rows = self.probe.log_odds(self._reader, [conversation.messages for conversation in conversations])
        return [
            self._checked(conversation, row) if np.isfinite(row).all() else unscored(UNREADABLE, self._fail_closed)
            for conversation, row in zip(conversations, rows, strict=True)
        ]

    def _checked(self, conversation: Conversation, row: Array) -> Checked:
        score = float(row[0])
        if score < self.threshold:
            return Checked(score=score, refuses=False)
        rule = self.probe.rule(row)
        answer = rule_refusal(self.probe.settings.policy, rule, conversation)
        return Checked(score=score, refuses=True, answer=answer, rules=(rule,) if rule else ())


class HeadedThought(Wrapper):
    """A model that thinks, whose thought is begun with the rule that a probe finds."""

    def __init__(
        self,
        inner: Respondent,
        probe: Probe,
        reader: LocalModel,
        threshold: float | None = None,
        fmt: Format = "think",
    ) -> None:
        """`threshold`: log-odds of harm from which a rule is named; None is the probe's own. `fmt`: how it thinks.

        Raises ConfigError for a model whose turn can't be begun for it, ModelError for weights that the probe was not
        fitted on.
        """
        super().__init__(inner, "headed_thought")
        if not inner.able.prefill:
            raise ConfigError(
                "defence 'headed_thought'", "begins the model's turn, which this model does not take", "Use a local one"
            )
        probe.check_model(reader)
        self.probe, self._reader, self._fmt = probe, reader, fmt
        self.threshold = probe.threshold if threshold is None else threshold

    def reply(
        self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
    ) -> list[Response | Failed]:
        """As a Respondent. Counts `begun`, `unread` (no prompt holds it) and `begun by another` (it has a prefill)."""
        rows = self.probe.log_odds(self._reader, [one.messages for one in conversations])
        given = [self.begun(one, row) for one, row in zip(conversations, rows, strict=True)]
        return self.inner.reply(given, max_answer_tokens, on_reply)

    def begun(self, conversation: Conversation, row: Array) -> Conversation:
        """The conversation as the model is given it; `row` holds the log-odds of harm and of each rule."""
        if conversation.prefill:
            self.counts["begun by another"] += 1
            return conversation
        if not np.isfinite(row).all():
            self.counts["unread"] += 1
            return conversation
        rule = self.probe.rule(row)
        if float(row[0]) < self.threshold or not rule:
            return conversation
        self.counts["begun"] += 1
        return conversation.model_copy(update={"prefill": opening(self.probe.settings.policy, rule, self._fmt)})


def opening(policy: Policy, rule_id: str, fmt: Format = "think") -> str:
    """How a thought begins that is to look at a rule first. It says that the rule is to be checked, not that it is
    broken: the finding is the model's."""
    rule = policy.rule(rule_id)
    return f"{markers(fmt)[0]}\nRule to check: {rule.title} ({rule.id}).\nIntent:"


class ProbeOptions(Record):
    """Where a probe lies."""

    folder: str = Field(description="folder of a fitted probe")
    fail_closed: bool = Field(default=True, description="refuse what the model's prompt can't hold")


class HeadedOptions(Record):
    """Where the probe lies that begins the thought."""

    folder: str = Field(description="folder of a fitted probe")
    format: Format = Field(default="think", description="how the model writes its thoughts")


def _deciding(inner: Respondent, options: ProbeOptions, means: Means) -> Respondent:
    probe = load_probe(Path(options.folder))
    return ProbeDefence(inner, probe, means.weights_for("probe"), fail_closed=options.fail_closed)


def _beginning(inner: Respondent, options: HeadedOptions, means: Means) -> Respondent:
    probe = load_probe(Path(options.folder))
    return HeadedThought(inner, probe, means.weights_for("headed_thought"), fmt=options.format)


DEFENCES = (
    InferenceDefence(
        id="probe",
        title="Linear probe",
        paper="ours, after Zou et al. 2023, arXiv 2310.01405",
        kind="wrapper",
        trains="a logistic output for harm and one a rule, on states of the base or the trained weights",
        cost="the lower layers' pass over the prompt; minutes to fit",
        when_to_choose="weights are at hand; the yardstick that trained defences have to beat",
        score="log-odds of harm",
        needs=("weights", "folder"),
        options=ProbeOptions,
        make=_deciding,
        check=lambda options: load_probe(Path(options.folder)).threshold,
    ),
    InferenceDefence(
        id="headed_thought",
        title="Thought begun by the probe",
        paper="ours",
        kind="wrapper",
        trains="nothing besides the probe",
        cost="the linear probe's pass over the prompt",
        when_to_choose="verdicts are missed on disguised requests that the probe knows",
        score="the model's own",
        needs=("weights", "folder"),
        options=HeadedOptions,
        make=_beginning,
        check=lambda options: load_probe(Path(options.folder)).threshold,
    ),
)
