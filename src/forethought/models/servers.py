"""One model behind one or several servers, as something that conversations can be put to.

Servers take work from one queue as fast as they answer, in the order of its text, so that prompts that begin alike are
asked about the same time: a server's prefix cache lives on it. A server that stops answering gives its work back and
is tried again now and then; where none answers, conversations fail with the cause: they are never taken for refused or
safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from inspect_ai.model import ChatMessageAssistant, ContentReasoning, Model, ModelOutput
from pydantic import Field

from forethought.errors import ConfigError, ModelError
from forethought.models.callspec import ClientSettings
from forethought.models.client import Client, Failure, chat_message, config_of, open_model, prompt_tokens, side_by_side
from forethought.models.conversation import Able, Conversation, Failed, OnReply, Response
from forethought.policy import default_policy
from forethought.reasoning import parse

_GOES_ON = {"add_generation_prompt": False, "continue_final_message": True}
"""What vLLM and SGLang need to be told to go on in the last assistant turn."""


class ServerSettings(ClientSettings):
    """How servers are asked. A server that fails more often on end than `max_retries` is given up."""

    temperature: float | None = Field(default=0.0, ge=0)
    """None is the server's default."""
    seed: int | None = 0
    """For servers that take one."""
    prefill: bool = False
    """True where the server goes on in a trailing assistant turn (`continue_final_message`, as vLLM does)."""


class Servers:
    """A Respondent. Each of `reply`'s calls may come from another thread, one at a time."""

    def __init__(
        self,
        models: str | Sequence[Model],
        base_urls: Sequence[str] = (),
        settings: ServerSettings | None = None,
    ) -> None:
        """`models`: an inspect name, behind each of `base_urls` where given, or models that are open already.

        Raises ModelError where a model can't be opened, ConfigError for none.
        """
        self.settings = settings or ServerSettings()
        opened = [open_model(models, url) for url in base_urls or (None,)] if isinstance(models, str) else list(models)
        if not opened:
            raise ConfigError("servers", "there are none", "Give a model, or the addresses of its servers")
        self.name = models if isinstance(models, str) else str(opened[0])
        self._policy = default_policy()
        self._client = Client(opened, self.settings)
        self._closes = isinstance(models, str)
        # One loop for all calls: a client's connections belong to the loop that they were made in.
        self._runner = asyncio.Runner()

    @property
    def able(self) -> Able:
        """A prefill where the user says so; a thought can't be cut and log-probabilities aren't read."""
        return Able(prefill=self.settings.prefill)

    def reply(
        self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
    ) -> list[Response | Failed]:
        """One reply a conversation, in order; equal ones are asked once where sampling is greedy.

        Raises ModelError when every server denies access and nothing has worked so far.
        """
        replies: dict[int, Response | Failed] = {}
        places: dict[Any, list[int]] = {}
        for place, conversation in enumerate(conversations):
            places.setdefault(conversation if self.settings.temperature == 0 else place, []).append(place)
        # In the order of their texts: what begins alike is asked together.
        waiting = iter(sorted(places.values(), key=lambda found: (_text(conversations[found[0]]), found)))

        async def work() -> None:
            for found in waiting:
                reply = await self._ask(conversations[found[0]], max_answer_tokens)
                if self._no_access():
                    return
                for place in found:
                    replies[place] = reply
                    if on_reply is not None:
                        on_reply(place, reply)

        self._client.begin()
        self._runner.run(side_by_side(work() for _ in range(min(self._client.workers, len(places)))))
        if cause := self._no_access():
            raise ModelError(self.name, f"every call fails: {cause}", "Check the key, the address and the name")
        return [replies[place] for place in range(len(conversations))]

    def close(self) -> None:
        """Closes the connections; the object can't be used afterwards."""
        if self._closes:
            for server in self._client.servers:
                self._runner.run(server.model.api.aclose())
        self._runner.close()

    def _no_access(self) -> str:
        """Why nothing has worked and nothing will; empty where something may."""
        gone = self._client.gone
        return gone.cause if gone is not None and gone.hopeless and not self._client.worked else ""

    def _unable(self, conversation: Conversation) -> str:
        if conversation.prefill and not self.settings.prefill:
            return "the server takes no prefill"
        return "the server can't cut a thought" if conversation.think_budget is not None else ""

    async def _ask(self, conversation: Conversation, max_tokens: int) -> Response | Failed:
        if cause := self._unable(conversation):
            return Failed(cause=cause)
        chat: list[Any] = [chat_message(message) for message in conversation.messages]
        if conversation.prefill:
            chat.append(ChatMessageAssistant(content=conversation.prefill))
        goes_on = _GOES_ON if conversation.prefill else None
        output = await self._client.ask(chat, config_of(self.settings, max_tokens, extra_body=goes_on))
        return Failed(cause=output.cause) if isinstance(output, Failure) else self._read(conversation, output)

    def _read(self, conversation: Conversation, output: ModelOutput) -> Response | Failed:
        """An output as a response: reasoning as the server tells it, else by the tags in the text."""
        if not output.choices:
            return Failed(cause="the server gave no answer")
        if output.stop_reason == "content_filter":
            return Failed(cause="the provider's filter stopped the answer")
        content = output.choices[0].message.content
        told = [part.reasoning for part in content if isinstance(part, ContentReasoning)] if content else []
        text = conversation.prefill + output.completion
        if thought := "\n".join(part for part in told if isinstance(part, str) and part).strip():
            # An answer that quotes a tag must not be taken for the end of the thought.
            parsed = parse(f"<think>\n{thought}\n</think>", self._policy).model_copy(update={"answer": text.strip()})
        else:
            parsed = parse(text, self._policy)
        usage = output.usage
        n_thought = (usage.reasoning_tokens or 0) if usage else 0
        return Response(
            reasoning_text=parsed.reasoning_text,
            reasoning=parsed.reasoning,
            answer=parsed.answer,
            decision=parsed.reasoning.verdict if parsed.reasoning is not None else None,
            cause=parsed.cause if parsed.reasoning_text else "",
            prompt_tokens=prompt_tokens(usage),
            reasoning_tokens=n_thought,
            answer_tokens=max(usage.output_tokens - n_thought, 0) if usage else 0,
        )


def _text(conversation: Conversation) -> str:
    """What is sent, for sorting."""
    turns = [f"{turn.role}\x1f{turn.content}" for turn in conversation.messages]
    return "\x1e".join([*turns, conversation.prefill])
