"""Local models behind inspect-ai: `forethought/NAME` as a model provider with continuous batching.

Samples of an evaluation ask one at a time; the provider gathers what is waiting and puts it to the model
together. Reasoning comes back apart from the answer, and the verdict with its log-odds in the output's
metadata. A trailing assistant turn is a prefill: the model goes on from it, and its answer holds it.
`reasoning_tokens` of the generation config is the budget of the thought.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput, modelapi
from inspect_ai.tool import ToolChoice, ToolInfo

from forethought.errors import ModelError
from forethought.models.client import output_of
from forethought.models.conversation import Conversation, Failed, Response
from forethought.records import Message

if TYPE_CHECKING:
    from forethought.models.local import LocalModel

_GATHER_S = 0.05
"""How long to wait for more requests once some are waiting, in seconds."""
MAX_WAITING = 256
"""Most requests gathered for one run; more wait for the next."""


class ForethoughtAPI(ModelAPI):
    """inspect's interface to one LocalModel."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        local: LocalModel | None = None,
        adapter: str | None = None,
        dtype: Any = "auto",
        batch_size: int = 128,
    ) -> None:
        """`local` is a model already loaded; else `model_name` (and `adapter`) are loaded."""
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        self._local = local
        self._adapter, self._dtype, self._batch_size = Path(adapter) if adapter else None, dtype, batch_size
        self._waiting: list[tuple[Conversation, int, asyncio.Future[Response]]] = []
        self._turn = asyncio.Lock()

    def max_connections(self) -> int:
        return MAX_WAITING

    def connection_key(self) -> str:
        return f"forethought/{self.model_name}"

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """One response. Tools are ignored: the models this serves have none."""
        limit = config.max_tokens or 128
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiting.append((_conversation(input, config.reasoning_tokens), limit, future))
        while not future.done():
            async with self._turn:  # who has it asks for all that wait; they find their responses when it is theirs
                if not future.done():
                    await self._ask_waiting(limit)
        return output_of(self.model_name, future.result())

    async def _ask_waiting(self, limit: int) -> None:
        """Puts what waits to the model: of one limit, since an answer must not be longer than its sample allows."""
        known = -1
        while known < len(self._waiting) < MAX_WAITING:
            known = len(self._waiting)
            await asyncio.sleep(_GATHER_S)
        batch = [one for one in self._waiting if one[1] == limit][:MAX_WAITING]
        replies: list[Any]
        try:
            work = functools.partial(self._reply, [conversation for conversation, _, _ in batch], limit)
            replies = await anyio.to_thread.run_sync(work)
        except Exception as error:
            replies = [error] * len(batch)
        for (_, _, future), reply in zip(batch, replies, strict=True):
            if isinstance(reply, Response):
                future.set_result(reply)
            elif isinstance(reply, Failed):
                future.set_exception(ModelError(self.model_name, reply.cause, "Change that conversation"))
            else:
                future.set_exception(reply)
        self._waiting = [one for one in self._waiting if not one[2].done()]

    def _reply(self, conversations: Sequence[Conversation], limit: int) -> list[Response | Failed]:
        if self._local is None:
            # At the first request: torch takes seconds to import, and inspect also builds providers to look a name up.
            from forethought.models.local import LocalModel

            self._local = LocalModel.load(self.model_name, self._adapter, self._dtype, self._batch_size)
        return self._local.reply(conversations, limit)


def _conversation(chat: Sequence[ChatMessage], think_budget: int | None) -> Conversation:
    turns = [Message(role=message.role, content=message.text) for message in chat if message.role != "tool"]
    prefill = turns.pop().content if turns and turns[-1].role == "assistant" else ""
    return Conversation(messages=tuple(turns), prefill=prefill, think_budget=think_budget)


@modelapi(name="forethought")
def forethought() -> type[ModelAPI]:
    """Registers the provider with inspect: `inspect eval TASK --model forethought/PATH`."""
    return ForethoughtAPI
