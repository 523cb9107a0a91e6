"""One runner for all calls of a model that cost money: concurrent, journalled, resumable.

Every model of inspect-ai works (`openai/...`, `anthropic/...`, `openai-api/SERVICE/...`, `vllm/...`,
`mockllm/model`). inspect talks to the provider and judges its errors; what it does for
an evaluation and not outside one is done here: each answer is on disk before it counts, a rejected
answer is asked for again with the reason, and concurrency follows rate limits and slowness.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

from inspect_ai.model import GenerateConfig, Model, ResponseSchema

from forethought.errors import ConfigError, ModelError
from forethought.models.asking import (
    MOST,
    START,
    UNBOUNDED,
    Failure,
    Limiter,
    ask_once,
    chat_message,
    first_error,
    open_model,
    wait_s,
)
from forethought.models.callspec import (
    Accept,
    Answer,
    Call,
    CallResults,
    CallSettings,
    Progress,
    Reject,
    T,
    Usage,
    content_key,
    cost_of,
    price_of,
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
    on_progress: Callable[[Progress], None] | None = None,
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


@dataclass
class _Totals:
    """What is counted while calls run."""

    done: int = 0
    settled_now: int = 0
    asked: int = 0
    reused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    failed_in_a_row: int = 0
    hopeless_in_a_row: int = 0
    worked: bool = False
    started: float = field(default_factory=time.monotonic)


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
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._model, self._calls, self._journal, self._settings = model, calls, journal, settings
        self._accept, self._on_progress = accept, on_progress
        self._schema = schema if settings.structured else None
        self._schema_dump = self._schema.model_dump(mode="json", exclude_none=True) if self._schema else None
        start = settings.concurrency or START
        self._workers = settings.concurrency or MOST
        self._limiter = Limiter(start, self._workers)
        self._price = settings.price
        self._totals = _Totals()
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
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._find_price())
                for _ in range(min(self._workers, len(groups))):
                    tasks.create_task(self._work(waiting))
        except BaseExceptionGroup as group:
            raise first_error(group) from None
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
            asked_before = self._totals.asked
            for call in group:  # the first asks, the others find its answers in the journal
                self._outcomes[call.key] = await self._settle(call)
                self._totals.done += 1
            self._totals.settled_now += self._totals.asked > asked_before
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
        totals = self._totals
        answer = self._journal.read(key, Answer)
        if answer is not None:
            totals.reused += 1
        else:
            asked = await self._ask(call, messages, attempt, key)
            self._note(asked)
            if isinstance(asked, Failure):
                return asked
            answer = asked
            self._journal.add(key, answer)
            # On disk before it counts. In a thread: a sync may take ten milliseconds, and answers share it.
            await asyncio.to_thread(self._journal.sync)
            totals.asked += 1
        totals.input_tokens += answer.input_tokens
        totals.output_tokens += answer.output_tokens
        totals.cached_tokens += answer.cached_tokens
        return answer

    async def _ask(self, call: Call, messages: tuple[Message, ...], attempt: int, key: str) -> Answer | Failure:
        """One answer, with retries while the provider is busy. The place is free for others during a wait."""
        rng = random.Random(key)
        chat = [chat_message(message) for message in messages]
        turn = 0
        while True:
            epoch = await self._limiter.enter()
            began = time.monotonic()
            try:
                if self._hopeless is not None:
                    return Failure("the run ended", retry=False)
                output = await ask_once(self._model, chat, self._config(call))
                if not isinstance(output, Failure):
                    seconds = time.monotonic() - began
                    self._limiter.answered(epoch, seconds)
                    return _answer_of(output, call.key, attempt, seconds)
            finally:
                self._limiter.leave()
            if output.rate_limited:
                self._limiter.refused(epoch)
            if not output.retry or turn >= self._settings.max_retries or self._hopeless is not None:
                return output
            await asyncio.sleep(wait_s(turn, self._settings.backoff_s, output, rng))
            turn += 1

    def _note(self, asked: Answer | Failure) -> None:
        """Ends the run where nothing works, instead of failing every row."""
        if self._hopeless is not None:
            return
        totals = self._totals
        if isinstance(asked, Answer):
            totals.worked, totals.failed_in_a_row, totals.hopeless_in_a_row = True, 0, 0
            return
        totals.failed_in_a_row += 1
        totals.hopeless_in_a_row = totals.hopeless_in_a_row + 1 if asked.hopeless else 0
        nothing_works = not totals.worked and totals.failed_in_a_row >= _NOTHING_WORKS
        if totals.hopeless_in_a_row >= min(_HOPELESS, len(self._calls)) or nothing_works:
            said = f" It said: {asked.detail}." if asked.detail else ""
            self._hopeless = ModelError(
                str(self._model),
                f"every call fails: {asked.cause}",
                f"Check the key, the address and the model's name, then run again: answers so far are kept.{said}",
            )

    def _config(self, call: Call) -> GenerateConfig:
        return GenerateConfig(
            max_tokens=call.max_tokens + self._settings.thinking_tokens,
            temperature=self._settings.temperature,
            seed=self._settings.seed,
            response_schema=self._schema,
            attempt_timeout=self._settings.timeout_s,
            max_retries=0,
            max_connections=UNBOUNDED,
            adaptive_connections=False,
        )

    def _key(self, call: Call, messages: tuple[Message, ...], attempt: int) -> str:
        return content_key(str(self._model), messages, call.max_tokens, self._settings, self._schema_dump, attempt)

    def _usage(self) -> Usage:
        totals = self._totals
        return Usage(
            calls=totals.asked,
            reused=totals.reused,
            input_tokens=totals.input_tokens,
            output_tokens=totals.output_tokens,
            cached_tokens=totals.cached_tokens,
            cost=cost_of(totals.input_tokens, totals.output_tokens, totals.cached_tokens, self._price),
            seconds=time.monotonic() - totals.started,
        )

    def _report(self) -> None:
        if self._on_progress is None:
            return
        usage = self._usage()
        rate = self._totals.settled_now / max(usage.seconds, 1e-9)
        self._on_progress(Progress(self._totals.done, len(self._calls), usage, rate, self._limiter.limit))


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
