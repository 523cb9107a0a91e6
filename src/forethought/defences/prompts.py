"""Defences that are words: a system prompt, a frame around the request, demonstrations, a thought asked for.

The texts are data (`prompts.yaml`). What the model was asked to write before its answer is split off: judges read
the answer alone.
"""

from __future__ import annotations

import re
from functools import lru_cache

from pydantic import Field

from forethought.defences.base import (
    Defence,
    InferenceDefence,
    Kind,
    Means,
    NoOptions,
    Steps,
    Wrapper,
    with_last_user,
)
from forethought.errors import ConfigError
from forethought.models.conversation import Conversation, Failed, Respondent, Response
from forethought.policy import Policy, default_policy
from forethought.reasoning import parse
from forethought.records import Message
from forethought.yamlfile import shipped_yaml

UNMARKED = "the answer is not marked"


class Prompt(Defence):
    """A prompting defence."""

    kind: Kind = "prompt"
    system: str = ""
    """Put before the conversation's own system prompt. `{rules}` is the policy's."""
    before: str = ""
    """Before the last user turn."""
    after: str = ""
    """After the last user turn."""
    demonstrations: tuple[Message, ...] = ()
    """Turns between the system prompt and the conversation."""
    answer_after: str = ""
    """The words that open the answer; what stands before them is reasoning. Empty: all of it is answer."""
    extra_tokens: int = Field(default=0, ge=0)
    """Room for the reasoning, on top of the answer's."""
    parses: bool = False
    """Whether the reply is read as safety reasoning and an answer."""


@lru_cache(maxsize=1)
def prompts() -> dict[str, Prompt]:
    """The shipped prompts by id."""
    return {one.id: one for one in shipped_yaml("defences/prompts.yaml", dict[str, list[Prompt]])["prompts"]}


def shipped_prompt(prompt_id: str) -> Prompt:
    """A shipped prompt. Raises ConfigError for another id."""
    if prompt_id not in prompts():
        raise ConfigError(
            f"prompt '{prompt_id}'", "there is no such prompting defence", f"Use one of {', '.join(prompts())}"
        )
    return prompts()[prompt_id]


class PromptDefence(Wrapper):
    """A model behind a prompt."""

    judges_by_thought = True

    def __init__(self, inner: Respondent, prompt: Prompt | str, policy: Policy | None = None) -> None:
        """`prompt` is a shipped one's id or a Prompt; `policy` fills in its rules, None is the default one."""
        self.prompt = shipped_prompt(prompt) if isinstance(prompt, str) else prompt
        self.label = self.prompt.id
        super().__init__(inner)
        self.policy = policy or default_policy()
        self._system = self.policy.filled(self.prompt.system.strip())

    def defended(self, conversation: Conversation) -> Conversation:
        """The conversation as the model is given it; the prefill stays."""
        prompt = self.prompt
        framed = with_last_user(
            conversation, lambda text: "\n\n".join(part for part in (prompt.before, text, prompt.after) if part)
        )
        system = [message.content for message in framed.messages if message.role == "system"]
        turns = [message for message in framed.messages if message.role != "system"]
        head = "\n\n".join(part for part in (self._system, *system) if part)
        first = (Message(role="system", content=head),) if head else ()
        return framed.model_copy(update={"messages": (*first, *prompt.demonstrations, *turns)})

    def answer(self, conversation: Conversation, max_answer_tokens: int) -> Steps:
        """What could not be read as the prompt asked for says so in its cause."""
        reply = yield from self.ask(self.defended(conversation), max_answer_tokens + self.prompt.extra_tokens)
        return self._read(reply)

    def _read(self, reply: Response | Failed) -> Response | Failed:
        if isinstance(reply, Failed) or reply.reasoning_text or reply.reasoning is not None:
            return reply  # the model's own thought was split off already
        if self.prompt.parses:
            parsed = parse(reply.answer, self.policy)
            decision = parsed.reasoning.verdict if parsed.reasoning is not None else None
            update = {"reasoning": parsed.reasoning, "decision": decision, "cause": parsed.cause}
            return _split(reply, parsed.reasoning_text, parsed.answer).model_copy(update=update)
        if not self.prompt.answer_after:
            return reply
        # The first mark: what follows a second one is answer, too, and must not hide what stands between them.
        mark = re.search(rf"(?im)^[^\w\n]*{re.escape(self.prompt.answer_after)}[\]\"*_]*:?[\]\"*_]*", reply.answer)
        if mark is None:
            return reply.model_copy(update={"cause": reply.cause or UNMARKED})
        return _split(reply, reply.answer[: mark.start()].strip(), reply.answer[mark.end() :].strip())


def _split(response: Response, thought: str, answer: str) -> Response:
    """The reply as reasoning and answer. Tokens are shared out by characters: the text was counted as a whole."""
    total = response.answer_tokens
    letters = len(thought) + len(answer)
    n_thought = round(total * len(thought) / letters) if letters else 0
    update = {
        "reasoning_text": thought,
        "answer": answer,
        "reasoning_tokens": response.reasoning_tokens + n_thought,
        "answer_tokens": total - n_thought,
    }
    return response.model_copy(update=update)


def _listed(prompt: Prompt) -> InferenceDefence:
    def make(inner: Respondent, options: NoOptions, means: Means) -> Respondent:
        return inner if prompt.id == "none" else PromptDefence(inner, prompt, means.policy)

    said = prompt.model_dump(include=set(Defence.model_fields))
    return InferenceDefence(**said, make=make)


DEFENCES = tuple(map(_listed, prompts().values()))
