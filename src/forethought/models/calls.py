"""One runner for all calls of a model that cost money: concurrent, journalled, resumable.

Every model of inspect-ai works (`openai/...`, `anthropic/...`, `openai-api/SERVICE/...`, `vllm/...`,
`mockllm/model`). inspect talks to the provider and judges its errors; what it does for
an evaluation and not outside one is done here: each answer is on disk before it counts, a rejected
answer is asked for again with the reason, and concurrency follows rate limits and slowness.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic

from inspect_ai.model import Model, ModelOutput, ResponseSchema

from forethought.errors import ConfigError, ModelError
from forethought.models.callspec import (
    Accept,
    Answer,
    Call,
    CallProgress,
    CallResults,
    CallSettings,
    Reject,
    T,
    Usage,
    content_key,
    cost_of,
    price_of,
)
from forethought.models.client import Client, Failure, chat_message, config_of, open_model, prompt_tokens, side_by_side
from forethought.records import Message
from forethought.store import Store

_HOPELESS = 3
"""So many calls denied one after another end the run."""
_QUOTED_CHARACTERS = 4000
"""How much of a rejected answer is shown to the model again."""


def run_calls(
    model: str | Model,
    calls: Sequence[Call],
    journal: Path,
    settings: CallSettings,
    accept: Accept[T],
    schema: ResponseSchema | None = None,
    on_progress: Callable[[CallProgress], None] | None = None,
    also: Sequence[Path] = (),
) -> CallResults[T]:
    """Asks a model everything, each call until its answer is accepted.

    Answers in the journal, and in the journals `also`, are used again and cost nothing. A call whose answer is rejected
    `attempts` times, or that the provider never answered, is dropped with its cause.

    Raises ModelError when the model can't be reached (no package, no key, wrong key, wrong name, no server) or
    does not answer any more: answers so far are kept. ConfigError when two calls share a key, InputError for a damaged
    journal.
    """
    twice = [key for key, count in Counter(call.key for call in calls).items() if count > 1]
    if twice:
        raise ConfigError(f"call '{twice[0]}'", "stands twice among the calls", "Give every call a key of its own")
    opened = open_model(model, settings.base_url) if isinstance(model, str) else model
    with Store(journal, write=True) as kept:
        earlier = [Store(file) for file in also]
        run = _Run(opened, calls, kept, settings, accept, schema if settings.structured else None, on_progress, earlier)
        return asyncio.run(run.all(close=isinstance(model, str)))


@dataclass
class _Run(Generic[T]):
    """One run's state. Calls of the same content are asked once."""

    model: Model
    calls: Sequence[Call]
    journal: Store
    settings: CallSettings
    accept: Accept[T]
    schema: ResponseSchema | None
    on_progress: Callable[[CallProgress], None] | None
    earlier: Sequence[Store] = ()
    """Read, never written."""
    used: Usage = field(default_factory=Usage)
    done: int = 0
    """Calls settled."""
    asked_for: int = 0
    """Those of them that something was asked for in this run."""
    outcomes: dict[str, T | Reject] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._client = Client([self.model], self.settings)
        self._price = self.settings.price
        self._started = time.monotonic()
        self._schema_dump = self.schema.model_dump(mode="json", exclude_none=True) if self.schema else None

    async def all(self, close: bool) -> CallResults[T]:
        groups: dict[str, list[Call]] = {}
        for call in self.calls:
            groups.setdefault(self._key(call, call.messages, 1), []).append(call)
        waiting = iter(groups.values())
        self._client.begin(min(_HOPELESS, len(self.calls)))
        try:
            workers = [self._work(waiting) for _ in range(min(self._client.workers, len(groups)))]
            await side_by_side([self._find_price(), *workers])
        finally:
            if close:
                await self.model.api.aclose()
        # Only now: calls on their way are awaited and kept, since they are paid for.
        if (gone := self._client.gone) is not None:
            raise ModelError(
                str(self.model),
                f"every call fails: {gone.cause}",
                "Check the key, the address and the model's name, then run again: answers so far are kept."
                + (f" It said: {gone.detail}." if gone.detail else ""),
            )
        outcomes = {call.key: self.outcomes[call.key] for call in self.calls}
        return CallResults(
            {key: one for key, one in outcomes.items() if not isinstance(one, Reject)},
            {key: one.cause for key, one in outcomes.items() if isinstance(one, Reject)},
            self.rejected,
            self._usage(),
        )

    async def _find_price(self) -> None:
        # In a thread: inspect reads its model data for half a second, best spent while the first answers are awaited.
        self._price = await asyncio.to_thread(price_of, self.model, self.settings.price)

    async def _work(self, waiting: Iterator[list[Call]]) -> None:
        for group in waiting:
            asked_before = self.used.calls
            for call in group:  # the first asks, the others find its answers in the journal
                self.outcomes[call.key] = await self._settle(call)
                self.done += 1
            self.asked_for += self.used.calls > asked_before
            self._report()

    async def _settle(self, call: Call) -> T | Reject:
        messages = call.messages
        rejection = Reject("not asked")
        for attempt in range(1, self.settings.attempts + 1):
            answer = await self._answer(call, messages, attempt)
            if isinstance(answer, Failure):
                return Reject(answer.cause)
            result = self._read(call, answer)
            if not isinstance(result, Reject):
                return result
            rejection = result
            self.rejected[rejection.cause] += 1
            messages = (*call.messages, *_again(answer.text, rejection))
        return rejection

    def _read(self, call: Call, answer: Answer) -> T | Reject:
        if answer.stop == "content_filter":
            return Reject("the provider's filter stopped the answer")
        if answer.stop in ("max_tokens", "model_length"):
            return Reject("the answer was cut at its limit", "it was cut at its length limit; be shorter")
        return self.accept(call.key, answer.text)

    async def _answer(self, call: Call, messages: tuple[Message, ...], attempt: int) -> Answer | Failure:
        """What a journal has, else what the model says."""
        key = self._key(call, messages, attempt)
        found = (answer for one in (self.journal, *self.earlier) if (answer := one.read(key, Answer)) is not None)
        answer = next(found, None)
        reused = answer is not None
        if answer is None:
            chat = [chat_message(message) for message in messages]
            config = config_of(self.settings, call.max_tokens, response_schema=self.schema)
            output = await self._client.ask(chat, config)
            if isinstance(output, Failure):
                return output
            answer = _answer_of(output, call.key, attempt)
            self.journal.add(key, answer)
            # On disk before it counts. In a thread: a sync may take ten milliseconds, and answers share it.
            await asyncio.to_thread(self.journal.sync)
        self.used = self.used.plus(answer, reused)
        return answer

    def _key(self, call: Call, messages: tuple[Message, ...], attempt: int) -> str:
        return content_key(str(self.model), messages, call.max_tokens, self.settings, self._schema_dump, attempt)

    def _usage(self) -> Usage:
        used = self.used
        cost = cost_of(used.input_tokens, used.output_tokens, used.cached_tokens, self._price)
        return used.model_copy(update={"cost": cost, "seconds": time.monotonic() - self._started})

    def _report(self) -> None:
        if self.on_progress is not None:
            usage = self._usage()
            rate = self.asked_for / max(usage.seconds, 1e-9)
            self.on_progress(CallProgress(self.done, len(self.calls), usage, rate, self._client.servers[0].limit))


def _again(text: str, rejection: Reject) -> tuple[Message, Message]:
    """The rejected answer and what is wrong with it, as two more turns."""
    why = rejection.say or rejection.cause
    return (
        Message(role="assistant", content=text.strip()[:_QUOTED_CHARACTERS] or "(no answer)"),
        Message(role="user", content=f"That answer can't be used: {why}. Write the whole answer again, without this."),
    )


def _answer_of(output: ModelOutput, call: str, attempt: int) -> Answer:
    usage = output.usage
    return Answer(
        call=call,
        attempt=attempt,
        text=output.completion,
        stop=output.stop_reason if output.choices else "unknown",
        input_tokens=prompt_tokens(usage),
        output_tokens=usage.output_tokens if usage else 0,
        cached_tokens=(usage.input_tokens_cache_read or 0) if usage else 0,
        seconds=round(output.time or 0.0, 3),
    )
