"""What a defence is, and what all defences at inference share: a Respondent around another one.

A defence changes what the model is given, or what is given back. Its score, where it has one, stands in
`Response.log_odds`: higher means refuse, in the defence's own unit. So every defence has an operating curve, and
defences are compared at the same rate of false refusals.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from forethought.data.teach import refusal_for
from forethought.errors import ConfigError
from forethought.judges.model_calls import fence_mark, fenced
from forethought.models.conversation import Able, Conversation, Failed, OnReply, Respondent, Response
from forethought.policy import Policy, default_policy
from forethought.reasoning import Finding, SafetyReasoning
from forethought.records import Message, Record, Request
from forethought.refusal import refusal_outcome
from forethought.yamlfile import parse_yaml

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


class Wrapper:
    """Base of the defences around a model: each brings its options, how it is made, and its own `answer`."""

    Options: ClassVar[type[Record]] = NoOptions
    """What a spec may say of it; the first option is what stands after the colon."""

    def __init__(self, inner: Respondent, label: str) -> None:
        """`label` is how the defence is called in the name."""
        self.inner = inner
        self.name = f"{inner.name} | {label}"
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

    def reply(
        self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
    ) -> list[Response | Failed]:
        """As a Respondent."""
        replies = Replies(len(conversations), on_reply)
        self.answer(conversations, max_answer_tokens, replies)
        return replies.all()

    def answer(self, conversations: Sequence[Conversation], max_answer_tokens: int, replies: Replies) -> None:
        """Gives `replies` one reply a conversation."""
        raise NotImplementedError

    def hold_back(
        self,
        conversations: Sequence[Conversation],
        max_answer_tokens: int,
        replies: Replies,
        held: Callable[[int, Response], bool],
    ) -> dict[int, Response]:
        """Asks the model, and gives its replies but those that are `held` back: these are returned by place."""
        found: dict[int, Response] = {}

        def told(place: int, reply: Response | Failed) -> None:
            if isinstance(reply, Response) and held(place, reply):
                found[place] = reply
            else:
                replies.give(place, reply)

        ask_some(self.inner, list(enumerate(conversations)), max_answer_tokens, told)
        return dict(sorted(found.items()))


class InferenceDefence(Defence):
    """A defence around a model, with its options and how it is made. Each module of this package that has some lists
    them as `DEFENCES`, and so they stand in the catalogue."""

    options: type[Record] = NoOptions
    make: Callable[[Respondent, Any, Means], Respondent]
    """(model, options, means) to the defended model."""
    check: Callable[[Any], None] = lambda options: None
    """Opens what the options name, as `Wrapper.check_options`."""


def described(wrapper_id: str, code: type[Wrapper]) -> InferenceDefence:
    """A wrapper of this package with its description in `wrappers.yaml`."""
    said = _wrappers()[wrapper_id]
    return InferenceDefence(**said.model_dump(), options=code.Options, make=code.make, check=code.check_options)


class _WrapperFile(Record):
    wrappers: tuple[Defence, ...]


@cache
def _wrappers() -> dict[str, Defence]:
    return {one.id: one for one in shipped_file("wrappers.yaml", _WrapperFile).wrappers}


Schema = TypeVar("Schema", bound=Record)


def shipped_file(name: str, schema: type[Schema]) -> Schema:
    """A YAML file of this package."""
    text = resources.files("forethought").joinpath("defences", name).read_text(encoding="utf-8")
    return parse_yaml(text, f"defences/{name}", "defence file", schema, "one list", "docs/defences.md")


class Replies:
    """Replies by place; each is told on as it comes."""

    def __init__(self, n: int, on_reply: OnReply | None) -> None:
        self._found: list[Response | Failed | None] = [None] * n
        self._on_reply = on_reply

    def give(self, place: int, reply: Response | Failed) -> None:
        """Keeps a reply and tells it on; a second one for the same place is ignored."""
        if self._found[place] is None:
            self._found[place] = reply
            if self._on_reply is not None:
                self._on_reply(place, reply)

    def all(self) -> list[Response | Failed]:
        """One reply a conversation, in order. What never came is Failed."""
        return [reply if reply is not None else Failed(cause="no reply") for reply in self._found]


def ask_some(
    inner: Respondent,
    asked: Sequence[tuple[int, Conversation]],
    max_answer_tokens: int,
    give: Callable[[int, Response | Failed], None],
) -> None:
    """Puts conversations to a respondent in one call and gives each reply under its own place, once."""
    if not asked:
        return
    told: set[int] = set()

    def on_reply(position: int, reply: Response | Failed) -> None:
        told.add(position)
        give(asked[position][0], reply)

    replies = inner.reply([conversation for _, conversation in asked], max_answer_tokens, on_reply)
    for position, reply in enumerate(replies):
        if position not in told:
            give(asked[position][0], reply)


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

    def check(self, conversations: Sequence[Conversation]) -> list[Checked]:
        """One finding a conversation, in order."""
        raise NotImplementedError

    def answer(self, conversations: Sequence[Conversation], max_answer_tokens: int, replies: Replies) -> None:
        """`log_odds` is the filter's score, on what it refuses and on what it lets through."""
        found = self.check(conversations)
        passed = []
        for place, one in enumerate(found):
            if one.refuses:
                replies.give(place, Response(answer=one.answer, log_odds=one.score, cause=one.cause, named=one.rules))
            else:
                passed.append((place, conversations[place]))

        def give(place: int, reply: Response | Failed) -> None:
            if isinstance(reply, Response):
                update = {"log_odds": found[place].score, "cause": reply.cause or found[place].cause}
                reply = reply.model_copy(update=update)
            replies.give(place, reply)

        ask_some(self.inner, passed, max_answer_tokens, give)


def unscored(cause: str, fail_closed: bool) -> Checked:
    """A finding without a score: refused when failing closed, and never without its cause."""
    said = "refused without a score" if fail_closed else "let through without a score"
    return Checked(score=None, refuses=fail_closed, cause=f"{said}: {cause}")


def last_user(conversation: Conversation) -> Message | None:
    """The last user turn; None where there is none."""
    return next((message for message in reversed(conversation.messages) if message.role == "user"), None)


def user_texts(conversation: Conversation) -> list[str]:
    """All user turns: an attack may stand in an earlier one."""
    return [message.content for message in conversation.messages if message.role == "user"]


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


def rule_refusal(policy: Policy, rule_id: str, conversation: Conversation) -> str:
    """The refusal of a defence that knows a rule and has no thought: it names the rule and repeats nothing of the
    request, since a suffix has no place in an answer. Without a rule it is the plain one.
    """
    if not rule_id:
        return REFUSAL
    finding = Finding(rule=rule_id, violated=True, reason=policy.rule(rule_id).reason)
    reasoning = SafetyReasoning(intent="do that", findings=(finding,), verdict="refuse")
    return refusal_for(reasoning, policy, int(conversation_key(conversation), 16))


def refuses(response: Response) -> bool | None:
    """Whether the answer refuses, by its phrases; None where it says nothing."""
    outcome, _ = refusal_outcome(response.answer)
    return None if outcome is None else outcome == "refused"


def replaced(response: Response, cause: str = "") -> Response:
    """The response with a refusal for its answer."""
    decision = "refuse" if response.decision is not None else None
    return response.model_copy(update={"answer": REFUSAL, "decision": decision, "cause": cause, "named": ()})


def logit(probability: float) -> float:
    """Natural log-odds of a probability, kept finite: at most about 16 either way."""
    inside = min(max(probability, 1e-7), 1 - 1e-7)
    return math.log(inside / (1 - inside))
