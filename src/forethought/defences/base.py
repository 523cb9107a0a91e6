"""What a defence is, and what all defences at inference share: a Respondent around another one.

A defence changes what the model is given, or what is given back. Its score, where it has one, stands in
`Response.log_odds`: higher means refuse, in the defence's own unit. So every defence has an operating curve, and
defences are compared at the same rate of false refusals.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from forethought.data.teach import refusal_for, stated
from forethought.errors import ConfigError
from forethought.judges.graders import fence_mark, fenced
from forethought.language import language
from forethought.models.conversation import Able, Conversation, Failed, OnReply, Respondent, Response
from forethought.policy import Policy, default_policy
from forethought.reasoning import Finding, SafetyReasoning
from forethought.records import Message, Record, Request
from forethought.refusal import outcome_of
from forethought.yamlfile import shipped_yaml

if TYPE_CHECKING:
    from forethought.models.local import LocalModel

Kind = Literal["prompt", "wrapper", "training"]
Need = Literal["weights", "harmless", "checker", "folder"]
"""The weights of a local model, harmless requests to set a threshold on, a judge or a model that checks, a folder
that was written before. The first two stand in `Means`, the others are named by options."""

REFUSAL = "I'm sorry, but I can't help with that request."
"""What a wrapper says where it refuses and knows no rule."""


class Defence(Record):
    """A way to defend a model, as reports and the reference page name it."""

    id: str
    title: str
    """For tables and plots."""
    paper: str
    """Citation with its arXiv number; empty where it is ours."""
    kind: Kind = "wrapper"
    trains: str = "nothing"
    """Which parameters it changes."""
    cost: str
    """Extra tokens and calls a request, or what training takes."""
    when_to_choose: str
    score: str = ""
    """What `Response.log_odds` holds, higher meaning refuse; empty where it has no score of its own."""
    needs: tuple[Need, ...] = ()


@dataclass(frozen=True)
class Means:
    """What defences may use besides the model they defend; each says what it needs."""

    policy: Policy = field(default_factory=default_policy)
    model: LocalModel | None = None
    """Weights that tell perplexities and hidden states."""
    harmless: Sequence[Request] = ()
    """Harmless requests that set the perplexity threshold."""

    def weights_for(self, defence: str) -> LocalModel:
        """The weights. Raises ConfigError where a defence needs them and there are none."""
        if self.model is None:
            raise ConfigError(f"defence '{defence}'", "needs the weights of a local model", "Give it one to read with")
        return self.model


class NoOptions(Record):
    """Of a defence without options."""


@dataclass(frozen=True)
class Asked:
    """What a defence has to know before it can say more about a conversation."""

    by: Callable[..., Sequence[Any]]
    """A Respondent's `reply`; without `tokens` any function of a list to as many findings."""
    what: Sequence[Any]
    tokens: int | None = None
    """Longest answer of a Respondent."""
    soon: bool = False
    """For functions: whether so many as `_AT_ONCE` are not kept waiting while others still get their replies."""


_AT_ONCE = 32
Steps = Generator[Asked, list[Any], Response | Failed]
"""What a defence does about one conversation: it asks, is given the findings in order, and ends with a reply."""


class Wrapper:
    """Base of the defences around a model: each brings its options, how it is made, and what it does about one
    conversation; those of many are done together."""

    label: str
    """How the defended model's name calls it."""
    Options: ClassVar[type[Record]] = NoOptions
    """What a spec may say of it; the first option is what stands after the colon."""
    options: Any
    """As its spec gives them."""
    judges_by_thought: bool = False
    """Whether it decides without an answer of the model's, where that thinks."""

    def __init__(self, inner: Respondent, options: Record | None = None) -> None:
        self.inner, self.options = inner, options or self.Options()
        self.name = f"{inner.name} | {self.label}"
        self.refuses_from: float | None = getattr(inner, "refuses_from", None)
        """The score from which it refuses: its own, else that of what it stands around; None where there is none."""

    @classmethod
    def make(cls, inner: Respondent, options: Any, means: Means) -> Respondent:
        """The model behind this defence. Raises ConfigError where `means` lacks what it needs."""
        return cls(inner, options)

    @classmethod
    def check_options(cls, options: Any) -> None:
        """Opens what the options name, so that a folder that is not there is told before hours are spent."""

    @property
    def able(self) -> Able:
        """What the inner model can do, but log-probabilities: those of a defended model are not the model's."""
        return self.inner.able.model_copy(update={"log_probs": False})

    @property
    def decides_first(self) -> bool:
        """Whether all is decided, around a model that thinks, before there is an answer: it can then be streamed."""
        return self.judges_by_thought and getattr(self.inner, "decides_first", True)

    def reply(
        self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
    ) -> list[Response | Failed]:
        """As a Respondent."""
        return _Together([self.answer(one, max_answer_tokens) for one in conversations], on_reply).run()

    def answer(self, conversation: Conversation, max_answer_tokens: int) -> Steps:
        """The reply to one conversation."""
        raise NotImplementedError

    def ask(self, conversation: Conversation, max_answer_tokens: int) -> Steps:
        """The model's own reply."""
        (reply,) = yield Asked(self.inner.reply, [conversation], max_answer_tokens)
        found: Response | Failed = reply
        return found


class _Together:
    """The steps of many conversations: what several ask of the same party is put in one call."""

    def __init__(self, steps: Sequence[Steps], on_reply: OnReply | None) -> None:
        self._steps, self._on_reply = steps, on_reply
        self._waiting: dict[int, Asked] = {}
        self._found: dict[int, Response | Failed] = {}

    def run(self) -> list[Response | Failed]:
        """One reply a conversation, in order; each is told as soon as it is there."""
        for place in range(len(self._steps)):
            self._go_on(place, None)
        while self._waiting:
            # The shortest first: those behind it are then asked together with those that wait already.
            first = min(self._waiting.values(), key=lambda asked: asked.tokens or 0)
            self._put(
                [place for place, one in self._waiting.items() if (one.by, one.tokens) == (first.by, first.tokens)]
            )
        return [self._found[place] for place in range(len(self._steps))]

    def _go_on(self, place: int, findings: list[Any] | None) -> None:
        try:
            self._waiting[place] = self._steps[place].send(findings)  # type: ignore[arg-type]  # None begins
        except StopIteration as ended:
            self._found[place] = ended.value
            if self._on_reply is not None:
                self._on_reply(place, ended.value)

    def _put(self, places: Sequence[int]) -> None:
        """Asks for these conversations, in order, and goes on with each as soon as it has all that it asked for."""
        asked = {place: self._waiting.pop(place) for place in sorted(places)}
        slots = [(place, number) for place, one in asked.items() for number in range(len(one.what))]
        found: dict[int, dict[int, Any]] = {place: {} for place in asked}

        def give(position: int, finding: Any) -> None:
            place, number = slots[position]
            if number in found[place]:
                return  # told when it came, and returned with the others
            found[place][number] = finding
            if len(found[place]) == len(asked[place].what):
                self._go_on(place, [found[place][each] for each in range(len(found[place]))])
                soon = [place for place, one in self._waiting.items() if one.soon]
                if len(soon) >= _AT_ONCE:
                    self._put(soon)

        one = next(iter(asked.values()))
        everything = [what for each in asked.values() for what in each.what]
        findings = one.by(everything) if one.tokens is None else one.by(everything, one.tokens, give)
        for position in range(len(slots)):
            give(position, findings[position] if position < len(findings) else Failed(cause="no reply"))


class InferenceDefence(Defence):
    """A defence around a model, with its options and how it is made. Each module of this package that has some lists
    them as `DEFENCES`, and so they stand in the catalogue."""

    options: type[Record] = NoOptions
    make: Callable[[Respondent, Any, Means], Respondent]
    """(model, options, means) to the defended model."""
    check: Callable[[Any], None] = lambda options: None
    """Opens what the options name, as `Wrapper.check_options`."""


_DESCRIBED = {one.id: one for one in shipped_yaml("defences/wrappers.yaml", dict[str, list[Defence]])["wrappers"]}


def described(wrapper_id: str, code: type[Wrapper]) -> InferenceDefence:
    """A wrapper of this package with its description in `wrappers.yaml`."""
    known = _DESCRIBED[wrapper_id].model_dump()
    return InferenceDefence(**known, options=code.Options, make=code.make, check=code.check_options)


class Checked(Record):
    """What a filter found of a conversation before the model saw it."""

    score: float | None
    """Higher means refuse; None where it could not be told, and for a filter that only says yes or no."""
    refuses: bool
    answer: str = REFUSAL
    """The answer where it refuses."""
    rules: tuple[str, ...] = ()
    """Rules that the answer names."""
    cause: str = ""
    """Why it could not be told; empty where it could."""


class InputFilter(Wrapper):
    """A wrapper that looks at the conversation, and either refuses or lets the model answer."""

    judges_by_thought = True

    def check(self, conversations: Sequence[Conversation]) -> list[Checked]:
        """One finding a conversation, in order."""
        raise NotImplementedError

    def answer(self, conversation: Conversation, max_answer_tokens: int) -> Steps:
        """`log_odds` is the filter's score, on what it refuses and on what it lets through."""
        (found,) = yield Asked(self.check, [conversation])
        if found.refuses:
            return Response(answer=found.answer, log_odds=found.score, cause=found.cause, named=found.rules)
        reply = yield from self.ask(conversation, max_answer_tokens)
        if isinstance(reply, Response):
            reply = reply.model_copy(update={"log_odds": found.score, "cause": reply.cause or found.cause})
        return reply


def unscored(cause: str, fail_closed: bool) -> Checked:
    """A finding without a score: refused when failing closed, and never without its cause."""
    said = "refused without a score" if fail_closed else "let through without a score"
    return Checked(score=None, refuses=fail_closed, cause=f"{said}: {cause}")


def last_user(conversation: Conversation) -> Message | None:
    """The last user turn; None where there is none."""
    return next((message for message in reversed(conversation.messages) if message.role == "user"), None)


def with_last_user(conversation: Conversation, change: Callable[[str], str]) -> Conversation:
    """The conversation with its last user turn changed; all else stays, the prefill included."""
    messages = list(conversation.messages)
    for place in reversed(range(len(messages))):
        if messages[place].role == "user":
            messages[place] = Message(role="user", content=change(messages[place].content))
            break
    return conversation.model_copy(update={"messages": tuple(messages)})


def fenced_question(ask: str, text: str, noun: str = "text") -> Conversation:
    """What a model is asked about a text, which stands between tags that it can't close."""
    fence = fenced(noun, fence_mark(text), text)
    return Conversation(messages=(Message(role="user", content=f"{ask}\n\n{fence}"),))


def conversation_key(conversation: Conversation) -> str:
    """Content hash, 16 hexadecimal digits: what random draws about a conversation are seeded with."""
    return hashlib.sha256(conversation.model_dump_json().encode("utf-8", "replace")).hexdigest()[:16]


_SHORT = 120
"""Characters of a request whose words are taken for its subject."""


def rule_refusal(policy: Policy, rule_id: str, conversation: Conversation, intent: str = "") -> str:
    """The refusal of a defence that knows a rule and writes no thought: it names the rule and repeats nothing of the
    request, since a suffix has no place in an answer. Without a rule it is the plain one, but for who writes of their
    own pain.

    `intent` is what is really asked, where a thought states it: it chooses the subject, as a short request does else.
    A long one may hold much else; where support is due it is read for the country of the help all the same.
    """
    user = last_user(conversation)
    said = user.content if user is not None else ""
    if not rule_id:
        spoken = language(stated(said)[1])
        rule_id = next((rule.id for rule in policy.rules if spoken.seeks_support(rule, said)), "")
    if not rule_id:
        return REFUSAL
    about = intent or (said if len(said) <= _SHORT or policy.rule(rule_id).support else "")
    code = stated(intent or said)[1]
    finding = Finding(rule=rule_id, violated=True, reason=language(code).rule(policy.rule(rule_id)).reason)
    reasoning = SafetyReasoning(intent=about, findings=(finding,), verdict="refuse", language=code)
    return refusal_for(reasoning, policy, int(conversation_key(conversation), 16))


def refuses(response: Response) -> bool | None:
    """Whether the answer refuses, by its phrases; None where it says nothing."""
    outcome, _ = outcome_of(response.answer)
    return None if outcome is None else outcome == "refused"


def replaced(response: Response, cause: str = "") -> Response:
    """The response with a refusal for its answer."""
    decision = "refuse" if response.decision is not None else None
    return response.model_copy(update={"answer": REFUSAL, "decision": decision, "cause": cause, "named": ()})


def logit(probability: float) -> float:
    """Natural log-odds of a probability, kept finite: at most about 16 either way."""
    inside = min(max(probability, 1e-7), 1 - 1e-7)
    return math.log(inside / (1 - inside))
