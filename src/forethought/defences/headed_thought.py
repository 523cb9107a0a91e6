"""The thought begins with what the model knows: the rule that a probe's heads find is put at its start.

A probe on the hidden state knows the rule before the first word (`linear_probe.py`). Where it finds harm, the thought
is begun for the model with that rule's title and id, and the model reasons on from there; its verdict stays its own.
Where the probe finds none, the thought begins as always.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from forethought.defences.base import Wrapper
from forethought.defences.linear_probe import Array, LinearProbe
from forethought.engine.conversation import Conversation, Failed, OnReply, Respondent, Response
from forethought.errors import ConfigError
from forethought.policy import Policy
from forethought.reasoning import Format, markers

if TYPE_CHECKING:
    from forethought.engine.local import LocalModel


class HeadedThought(Wrapper):
    """A model that thinks, whose thought is begun with the rule that a probe finds."""

    def __init__(
        self,
        inner: Respondent,
        probe: LinearProbe,
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
        self.threshold = probe.settings.threshold if threshold is None else threshold

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
