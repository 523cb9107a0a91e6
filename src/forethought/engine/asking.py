"""One call of a model through inspect: its output or why there is none. What every runner of calls does alike."""

from __future__ import annotations

import random
from collections.abc import Sequence

from inspect_ai.log._transcript import Transcript, init_transcript
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
    Model,
    ModelOutput,
)

from forethought.engine.failures import Failure, failure_of
from forethought.errors import ForethoughtError
from forethought.records import Message

LONGEST_BACKOFF_S = 60.0
START, MOST = 16, 128
"""Concurrency where none is chosen: where it starts and how far it may grow."""
UNBOUNDED = 100_000
"""For inspect's own limit on connections: ours decides, that must not bind."""


async def ask_once(model: Model, chat: Sequence[ChatMessage], config: GenerateConfig) -> ModelOutput | Failure:
    """Asks a model once; what it raises is classified."""
    try:
        init_transcript(Transcript())  # else inspect keeps every call in memory until the end
        return await model.generate(list(chat), config=config)
    except Exception as error:
        return failure_of(error, model)


def wait_s(turn: int, backoff_s: float, failure: Failure, rng: random.Random) -> float:
    """Seconds before retry number `turn` (from 0): doubling, jittered, and no less than the server asks for."""
    doubled = min(backoff_s * float(2**turn), LONGEST_BACKOFF_S)
    return max(doubled * (0.5 + rng.random()), failure.wait_s)


def chat_message(message: Message) -> ChatMessage:
    """A turn as inspect has it."""
    if message.role == "system":
        return ChatMessageSystem(content=message.content)
    if message.role == "assistant":
        return ChatMessageAssistant(content=message.content)
    return ChatMessageUser(content=message.content)


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Our own error where the group has one, else its first."""
    flat: list[BaseException] = []
    for error in group.exceptions:
        flat.append(first_error(error) if isinstance(error, BaseExceptionGroup) else error)
    return next((error for error in flat if isinstance(error, ForethoughtError)), flat[0])
