"""Verdict and probe decide together: what the thought concludes, and what the model knew before its first word.

Their log-odds are standardised and mixed by weights; weights and threshold are chosen on
development requests. Where the fusion says so, the probe reads the intent that the thought states as well, by itself
and so without a disguise; but not of a request in a language that the model was not taught to think in. The thought's
text stays as it is: where the probe carries the decision, the refusal names the probe's rule and says so in
`Response.cause`. Where the turn was begun by somebody else, its thought skipped or its verdict written, the model
thinks anew without that beginning, and its own verdict counts; without any the probe decides alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from forethought.defences.base import Asked, Means, Steps, Wrapper, described, replaced, rule_refusal
from forethought.defences.fusion import Fusion, load_fusion, read_intents, states_intent
from forethought.measure.probe import UNREADABLE, Array, Probe
from forethought.models.conversation import Conversation, Failed, Respondent, Response
from forethought.reasoning import VERDICT_ANCHOR, Finding, Format, SafetyReasoning, markers
from forethought.records import Record

if TYPE_CHECKING:
    from forethought.models.local import LocalModel

_VOTE = 1.0
"""Of the thought for the rule that it names, in nats beside the probe's log-probabilities of the rules. On the
development requests of the ladder the thought and the probe name more rules right together than either does."""
NO_VERDICT = "the model's turn holds no verdict to fuse: the probe decided alone"
PROBE_DECIDED = "the probe outweighed the verdict"
RULE_OF_PROBE = "the rule is the probe's"
KEPT = "the refusal of the verdict was kept: the request could not be answered instead"


class FusedOptions(Record):
    """Where a fusion lies, and how it is used."""

    folder: str = Field(description="folder of a fitted fusion, which holds its probe")
    fail_closed: bool = Field(default=True, description="refuse where verdict or probe is missing")
    format: Format = Field(default="think", description="how the model writes its thoughts")


class FusedVerdict(Wrapper):
    """A model that thinks, whose decision rests on its verdict and on a probe."""

    label, Options = "fused", FusedOptions
    judges_by_thought = True

    def __init__(
        self, inner: Respondent, fusion: Fusion, probe: Probe, reader: LocalModel, options: FusedOptions | None = None
    ) -> None:
        """`reader` holds the weights that the probe was fitted on. Raises ModelError for other weights."""
        super().__init__(inner, options or FusedOptions(folder="."))
        probe.check_model(reader)
        self.fusion, self.probe, self._reader = fusion, probe, reader
        self.refuses_from = fusion.threshold

    @classmethod
    def make(cls, inner: Respondent, options: FusedOptions, means: Means) -> Respondent:
        """With the fusion that lies in the folder."""
        return cls(inner, *load_fusion(Path(options.folder)), means.weights_for("fused"), options)

    @classmethod
    def check_options(cls, options: FusedOptions) -> None:
        """Raises InputError where there is no fusion."""
        load_fusion(Path(options.folder))

    def answer(self, conversation: Conversation, max_answer_tokens: int) -> Steps:
        """`log_odds` is the fused score.

        Whoever may begin the turn may skip the thought, or write its verdict: neither is the model's, and it thinks
        anew.
        """
        (row,) = yield Asked(self._read, [conversation])
        thought = None
        if conversation.prefill:
            thought = yield from self.ask(conversation.model_copy(update={"prefill": ""}), 0)
        reply = yield from self.ask(conversation, max_answer_tokens)
        if isinstance(reply, Failed):
            return reply
        if thought is not None:
            reply = _with_thought(reply, thought)
        intent = None
        if self.fusion.reads_intent and states_intent(self._reader, conversation.messages):
            (intent,) = yield Asked(self._read_intents, [reply], soon=True)
        decided = self._decided(conversation, reply, row, intent)
        if decided.decision != "refuse" or not self._allows(decided):
            return decided
        instead = yield from self._complying(conversation, decided, max_answer_tokens)
        if isinstance(instead, Failed):
            return decided.model_copy(update={"cause": KEPT})
        return instead.model_copy(update={"log_odds": decided.log_odds, "decision": "comply", "cause": ""})

    def _read(self, conversations: Sequence[Conversation]) -> list[Array]:
        return list(self.probe.log_odds(self._reader, [one.messages for one in conversations]))

    def _read_intents(self, replies: Sequence[Response]) -> Sequence[Array | None]:
        return read_intents(self.probe, self._reader, replies)

    def _allows(self, response: Response) -> bool:
        """Whether a fused score lies below the threshold."""
        return response.log_odds is not None and response.log_odds < self.fusion.threshold

    def _decided(self, conversation: Conversation, reply: Response, row: Array, intent: Array | None) -> Response:
        """The reply with its fused score, and refused where that says so; a verdict that it overrules stays for now.

        `row` holds the probe's log-odds of the request, `intent` those of the stated intent.
        """
        if not np.isfinite(row).all():
            return self._unscored(reply, UNREADABLE)
        if reply.log_odds is None:
            return self._by_probe(conversation, reply, row)
        stated = None if intent is None else float(intent[0])
        verdict, probe = self.fusion.parts(reply.log_odds, float(row[0]), stated)
        raised = self.fusion.calibration.strict_by if conversation.strict else 0.0
        scored = reply.model_copy(update={"log_odds": verdict + probe + raised})
        if self._allows(scored):
            return scored
        if self.fusion.reads_intent:
            rule = self._rule(row if intent is None else intent, scored)
            cause = scored.cause or (PROBE_DECIDED if probe > verdict else RULE_OF_PROBE)
            return self._refused_for(rule, conversation, scored, cause)
        return self._refused(conversation, scored, verdict, probe, row)

    def _rule(self, row: Array, response: Response) -> str:
        """The likeliest rule, with a vote for the one that the thought names."""
        named = response.reasoning.violated if response.reasoning is not None else ()
        voted = np.array([rule in named[:1] for rule in self.probe.settings.rules], dtype=row.dtype)
        return self.probe.rule(np.concatenate([row[:1], row[1:] + _VOTE * voted]))

    def _by_probe(self, conversation: Conversation, response: Response, row: Array) -> Response:
        """Decided by the probe alone, at its own threshold; its score stands among the fused ones."""
        raised = self.probe.strict_by if conversation.strict else 0.0
        margin = (float(row[0]) + raised - self.probe.threshold) / self.fusion.probe_scale
        scored = response.model_copy(update={"log_odds": self.fusion.threshold + margin})
        if margin < 0:
            return scored.model_copy(update={"decision": "comply", "cause": NO_VERDICT})
        return self._refused(conversation, scored.model_copy(update={"cause": NO_VERDICT}), -math.inf, math.inf, row)

    def _refused(
        self, conversation: Conversation, response: Response, verdict: float, probe: float, row: Array
    ) -> Response:
        """A refusal that names the rule of the stronger of the two."""
        named = response.reasoning.violated if response.reasoning is not None else ()
        if verdict >= probe and response.decision == "refuse":
            return response  # its own refusal names its own rule
        if verdict >= probe and named and named[0] in self.probe.settings.policy.rule_ids:
            return self._refused_for(named[0], conversation, response, response.cause)
        return self._refused_for(self.probe.rule(row), conversation, response, response.cause or PROBE_DECIDED)

    def _refused_for(self, rule: str, conversation: Conversation, response: Response, cause: str) -> Response:
        """A refusal that names this rule: the model's own where it names it first, else one written for it.

        A thought that could not be parsed stays unparsed, and is counted so.
        """
        policy = self.probe.settings.policy
        named = response.reasoning.violated if response.reasoning is not None else ()
        if response.decision == "refuse" and named and named[0] == rule:
            return response
        found = (Finding(rule=rule, violated=True, reason=policy.rule(rule).reason),) if rule else ()
        reasoning = response.reasoning and SafetyReasoning(
            intent=response.reasoning.intent, findings=found, verdict="refuse"
        )
        intent = response.reasoning.intent if response.reasoning is not None else ""
        answer = rule_refusal(policy, rule, conversation, intent)
        update = {"answer": answer, "decision": "refuse", "cause": cause, "reasoning": reasoning}
        return response.model_copy(update=update)

    def _unscored(self, response: Response, cause: str) -> Response:
        """Without one of the two nothing is decided: refused when failing closed, and never without its cause."""
        if self.options.fail_closed:
            refused = replaced(response, f"refused without a score: {cause}")
            return refused.model_copy(update={"decision": "refuse", "log_odds": None})
        return response.model_copy(update={"log_odds": None, "cause": f"let through without a score: {cause}"})

    def _complying(self, conversation: Conversation, refusal: Response, max_answer_tokens: int) -> Steps:
        """The model's answer behind the verdict `comply` to what its own refused."""
        from forethought.models.local import LocalModel

        if isinstance(self.inner, LocalModel):  # it then answers with the weights that its settings say
            (reply,) = yield Asked(self._never_refusing, [conversation], max_answer_tokens)
            found: Response | Failed = reply
            return found
        if not self.inner.able.prefill:
            return Failed(cause="the model's turn can't be begun for it")
        begun = conversation.model_copy(update={"prefill": closed_thought(refusal, self.options.format)})
        return (yield from self.ask(begun, max_answer_tokens))

    def _never_refusing(self, conversations: Sequence[Conversation], *rest: Any) -> list[Response | Failed]:
        model: Any = self.inner
        replies: list[Response | Failed] = model.reply(conversations, *rest, math.inf)
        return replies


def _with_thought(reply: Response, thought: Response | Failed) -> Response:
    """A reply to a turn that was begun for the model, with the verdict of its own thought; None where that failed."""
    own = thought if isinstance(thought, Response) else Response(answer="")
    return reply.model_copy(
        update={
            "reasoning": own.reasoning, "reasoning_text": own.reasoning_text, "log_odds": own.log_odds,
            # Its answer goes on behind the prefill: where it is refused, the refusal is written for the rule.
            "decision": "comply",
        }
    )  # fmt: skip


def closed_thought(response: Response, fmt: Format) -> str:
    """The model's turn up to its answer: its own thought with the verdict `comply`."""
    opening, closing = markers(fmt)
    before = response.reasoning_text.partition(VERDICT_ANCHOR)[0].rstrip()
    return "\n".join([opening, *([before] if before else []), f"{VERDICT_ANCHOR} comply.", closing]) + "\n"


DEFENCES = (described("fused", FusedVerdict),)
