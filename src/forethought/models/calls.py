"""One runner for all calls of a model that cost money: concurrent, journalled, resumable.

Every model of inspect-ai works (`openai/...`, `anthropic/...`, `openai-api/SERVICE/...`, `vllm/...`,
`mockllm/model`). inspect talks to the provider and judges its errors; what it does for
an evaluation and not outside one is done here: each answer is on disk before it counts, a rejected
answer is asked for again with the reason, and concurrency follows rate limits and slowness.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic

from inspect_ai.model import Model, ResponseSchema

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
from forethought.models.client import (
    Connection,
    Failure,
    chat_message,
    config_of,
    open_model,
    side_by_side,
    wait_s,
)
from forethought.records import Message
from forethought.store import Store

_HOPELESS = 3
"""So many calls denied one after another end the run."""
_NOTHING_WORKS = 20
"""So many calls failed one after another before anything worked end it, too."""
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
) -> CallResults[T]:
    """Asks a model everything, each call until its answer is accepted.

    Answers in the journal are used again and cost nothing. A call whose answer is rejected
    `attempts` times, or that the provider never answered, is dropped with its cause.

    Raises ModelError when the model can't be reached at all (no package, no key, wrong key,
    wrong name, no server), ConfigError when two calls share a key, InputError for a damaged journal.
    """
    twice = [key for key, count in Counter(call.key for call in calls).items() if count > 1]
    if twice:
        raise ConfigError(f"call '{twice[0]}'", "stands twice among the calls", "Give every call a key of its own")
    opened = open_model(model, settings.base_url) if isinstance(model, str) else model
    with Store(journal, write=True) as kept:
        run = _Run(opened, calls, kept, settings, accept, schema, on_progress)
        return asyncio.run(run.all(close=isinstance(model, str)))


class _Run(Generic[T]):
    """One run's state. Calls of the same content are asked once."""

    def __init__(
        self,
        model: Model,
        calls: Sequence[Call],
        journal: Store,
        settings: CallSettings,
        accept: Accept[T],
        schema: ResponseSchema | None,
        on_progress: Callable[[CallProgress], None] | None,
    ) -> None:
        self._model, self._calls, self._journal, self._settings = model, calls, journal, settings
        self._accept, self._on_progress = accept, on_progress
        self._schema = schema if settings.structured else None
        self._schema_dump = self._schema.model_dump(mode="json", exclude_none=True) if self._schema else None
        self._connection = Connection(model, settings.concurrency)
        self._price = settings.price
        self._used = Usage()
        self._started = time.monotonic()
        self._done, self._asked_for = 0, 0
        """Calls settled, and those of them that something was asked for in this run."""
        self._worked, self._failed_in_a_row, self._hopeless_in_a_row = False, 0, 0
        self._outcomes: dict[str, T | Reject] = {}
        self._rejected: Counter[str] = Counter()
        self._hopeless: ModelError | None = None
        """Why the run ends early. Calls on their way are awaited and kept: they are paid for."""

    async def all(self, close: bool) -> CallResults[T]:
        groups: dict[str, list[Call]] = {}
        for call in self._calls:
            groups.setdefault(self._key(call, call.messages, 1), []).append(call)
        waiting = iter(groups.values())
        try:
            workers = [self._work(waiting) for _ in range(min(self._connection.workers, len(groups)))]
            await side_by_side([self._find_price(), *workers])
        finally:
            if close:
                await self._model.api.aclose()
        if self._hopeless is not None:
            raise self._hopeless
        values: dict[str, T] = {}
        dropped: dict[str, str] = {}
        for call in self._calls:
            outcome = self._outcomes[call.key]
            if isinstance(outcome, Reject):
                dropped[call.key] = outcome.cause
            else:
                values[call.key] = outcome
        return CallResults(values, dropped, self._rejected, self._usage())

    async def _find_price(self) -> None:
        # In a thread: inspect reads its model data for half a second, best spent while the first answers are awaited.
        self._price = await asyncio.to_thread(price_of, self._model, self._settings.price)

    async def _work(self, waiting: Iterator[list[Call]]) -> None:
        for group in waiting:
            if self._hopeless is not None:
                return
            asked_before = self._used.calls
            for call in group:  # the first asks, the others find its answers in the journal
                self._outcomes[call.key] = await self._settle(call)
                self._done += 1
            self._asked_for += self._used.calls > asked_before
            self._report()

    async def _settle(self, call: Call) -> T | Reject:
        messages = call.messages
        rejection = Reject("not asked")
        for attempt in range(1, self._settings.attempts + 1):
            answer = await self._answer(call, messages, attempt)
            if isinstance(answer, Failure):
                return Reject(answer.cause)
            result = self._read(call, answer)
            if not isinstance(result, Reject):
                return result
            rejection = result
            self._rejected[rejection.cause] += 1
            messages = (*call.messages, *_again(answer.text, rejection))
        return rejection

    def _read(self, call: Call, answer: Answer) -> T | Reject:
        if answer.stop == "content_filter":
            return Reject("the provider's filter stopped the answer")
        if answer.stop in ("max_tokens", "model_length"):
            return Reject("the answer was cut at its limit", "it was cut at its length limit; be shorter")
        return self._accept(call.key, answer.text)

    async def _answer(self, call: Call, messages: tuple[Message, ...], attempt: int) -> Answer | Failure:
        key = self._key(call, messages, attempt)
        answer = self._journal.read(key, Answer)
        reused = answer is not None
        if answer is None:
            asked = await self._ask(call, messages, attempt, key)
            self._note(asked)
            if isinstance(asked, Failure):
                return asked
            answer = asked
            self._journal.add(key, answer)
            # On disk before it counts. In a thread: a sync may take ten milliseconds, and answers share it.
            await asyncio.to_thread(self._journal.sync)
        self._used = self._used.plus(answer, reused)
        return answer

    async def _ask(self, call: Call, messages: tuple[Message, ...], attempt: int, key: str) -> Answer | Failure:
        """One answer, with retries while the provider is busy. The place is free for others during a wait."""
        rng = random.Random(key)
        chat = [chat_message(message) for message in messages]
        config = config_of(self._settings, call.max_tokens, response_schema=self._schema)
        for turn in itertools.count():
            async with self._connection.place() as ask:
                if self._hopeless is not None:
                    break
                began = time.monotonic()
                output = await ask(chat, config)
            if not isinstance(output, Failure):
                return _answer_of(output, call.key, attempt, time.monotonic() - began)
            if not output.retry or turn >= self._settings.max_retries or self._hopeless is not None:
                return output
            await asyncio.sleep(wait_s(turn, self._settings.backoff_s, output, rng))
        return Failure("the run ended", retry=False)

    def _note(self, asked: Answer | Failure) -> None:
        """Ends the run where nothing works, instead of failing every row."""
        if self._hopeless is not None:
            return
        if isinstance(asked, Answer):
            self._worked, self._failed_in_a_row, self._hopeless_in_a_row = True, 0, 0
            return
        self._failed_in_a_row += 1
        self._hopeless_in_a_row = self._hopeless_in_a_row + 1 if asked.hopeless else 0
        nothing_works = not self._worked and self._failed_in_a_row >= _NOTHING_WORKS
        if self._hopeless_in_a_row >= min(_HOPELESS, len(self._calls)) or nothing_works:
            said = f" It said: {asked.detail}." if asked.detail else ""
            self._hopeless = ModelError(
                str(self._model),
                f"every call fails: {asked.cause}",
                f"Check the key, the address and the model's name, then run again: answers so far are kept.{said}",
            )

    def _key(self, call: Call, messages: tuple[Message, ...], attempt: int) -> str:
        return content_key(str(self._model), messages, call.max_tokens, self._settings, self._schema_dump, attempt)

    def _usage(self) -> Usage:
        used = self._used
        cost = cost_of(used.input_tokens, used.output_tokens, used.cached_tokens, self._price)
        return used.model_copy(update={"cost": cost, "seconds": time.monotonic() - self._started})

    def _report(self) -> None:
        if self._on_progress is not None:
            usage = self._usage()
            rate = self._asked_for / max(usage.seconds, 1e-9)
            self._on_progress(CallProgress(self._done, len(self._calls), usage, rate, self._connection.limit))


def _again(text: str, rejection: Reject) -> tuple[Message, Message]:
    """The rejected answer and what is wrong with it, as two more turns."""
    why = rejection.say or rejection.cause
    return (
        Message(role="assistant", content=text.strip()[:_QUOTED_CHARACTERS] or "(no answer)"),
        Message(role="user", content=f"That answer can't be used: {why}. Write the whole answer again, without this."),
    )


def _answer_of(output: Any, call: str, attempt: int, seconds: float) -> Answer:
    usage = output.usage
    cached = (usage.input_tokens_cache_read or 0) if usage else 0
    written = (usage.input_tokens_cache_write or 0) if usage else 0
    return Answer(
        call=call,
        attempt=attempt,
        text=output.completion,
        stop=output.stop_reason if output.choices else "unknown",
        input_tokens=usage.input_tokens + cached + written if usage else 0,
        output_tokens=usage.output_tokens if usage else 0,
        cached_tokens=cached,
        seconds=round(seconds, 3),
    )
