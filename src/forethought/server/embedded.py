"""The engine with the weights in this process: defences as they are, decoding in one batch for all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from forethought.chat import end_tokens
from forethought.errors import InputError, ModelError
from forethought.model import Model
from forethought.models.conversation import Conversation, Failed
from forethought.models.decode import Row, draws_for
from forethought.reasoning import markers
from forethought.server.batching import Loop, Work
from forethought.server.config import Settings
from forethought.server.records import Asked, Finish, Options, Piece, Verdict
from forethought.server.shaping import Grammars, check_shape, shape_of
from forethought.server.text import Characters, Until, special_tokens
from forethought.server.verdicts import answer_ids, decide, policy_line, rule_shares, verdict_of

T = TypeVar("T")


def decides_first(model: Model) -> bool:
    """Whether a model's defence decides before there is an answer, so that answers can be streamed."""
    if model.local is None or model.respondent is model.local:
        return model.local is not None
    return getattr(model.respondent, "decides_first", False)


class ModelEngine:
    """A model behind its defence.

    Where the defence decides first and the weights are here, answers are streamed. Where it reads answers before it
    decides, or a server holds the model, the whole answer is there with the verdict; one request is then asked at a
    time where the weights are here.
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        """Takes the model over: it answers nobody else any more."""
        self._model, self._settings = model, settings
        self.name, self.policy = settings.name or (model.local or model).name, model.policy
        thinking = model.settings
        self.markers = markers(thinking.format if thinking is not None else "think")
        self.special = special_tokens(model.local.tokenizer) if model.local is not None else ()
        # A thread a request: each waits for its rows nearly all the time.
        self._threads = ThreadPoolExecutor(settings.max_waiting, thread_name_prefix="request")
        self._local = model.local if decides_first(model) else None
        self._alone: AbstractContextManager[Any] = nullcontext() if model.local is None else threading.Lock()
        if self._local is not None:
            self._ends = end_tokens(self._local.tokenizer)
            self._grammars = Grammars(self._local.tokenizer, self._ends)
            self._loop = Loop(self._local)

    def check(self, options: Options) -> None:
        """As `Engine.check`."""
        if self._local is not None:
            check_shape(options, self._grammars, self._local.model.config.get_text_config().vocab_size)

    async def think(self, asked: Asked) -> Verdict:
        """As `Engine.think`. The base model has no verdict."""
        if asked.base:
            return Verdict(decision=None, policy=policy_line(self.policy))
        if self._local is None:
            return await asyncio.to_thread(self._answered, asked)
        return await self._in_thread(lambda: decide(self._model, asked, self._settings), Work(left=asked.judged))

    def _answered(self, asked: Asked) -> Verdict:
        """The verdict with the answer."""
        if asked.prefill or asked.answered:
            raise InputError("The request", f"brings what can't be used behind '{self._model.defence}'", "Ask plainly")
        with self._alone:
            most = self._settings.max_answer_tokens
            (reply,) = self._model.respondent.reply([Conversation(messages=asked.messages)], most)
        if isinstance(reply, Failed):
            raise InputError("The conversation", reply.cause, "Change or shorten it")
        found = verdict_of(reply, self._model, self._settings.fail_closed)
        return found.model_copy(update={"answer": reply.answer, "answer_tokens": reply.answer_tokens})

    async def answer(self, asked: Asked, verdict: Verdict, options: Options) -> AsyncIterator[Piece]:
        """As `Engine.answer`. Nothing is decoded for whom leaves."""
        if self._local is None:
            until = Until(options.stop)
            text = until.add(verdict.answer)
            yield Piece(text=text + until.end(), tokens=verdict.answer_tokens, finish="stop")
            return
        row = self._row(asked, verdict, options)
        work, running = Work(), asyncio.get_running_loop()
        made: asyncio.Queue[tuple[int, bool] | None] = asyncio.Queue()

        def tell(row: Row | None) -> None:
            said = None if row is None else (row.made[-1], row.done)
            running.call_soon_threadsafe(made.put_nowait, said)

        characters, until = Characters(self._text), Until(options.stop)
        self._loop.put(row, "thinker" if verdict.by_thinker else "answerer", work, tell)
        try:
            for n in range(1, row.max_new + 1):
                came = await made.get()
                if came is None:
                    raise ModelError(self.name, self._loop.failure or "the answer was dropped", "Ask again")
                token, done = came
                text = until.add(characters.add([token]))
                if done and not until.reached:
                    text += until.add(characters.end())
                    text += until.end()
                finish: Finish | None = "stop" if until.reached or token in self._ends else "length" if done else None
                if text or finish:
                    yield Piece(text=text, tokens=n, finish=finish)
                if finish:
                    return
        finally:
            work.cancelled = True

    def _row(self, asked: Asked, verdict: Verdict, options: Options) -> Row:
        """The answer as a row to decode. Raises InputError where the context does not hold it."""
        local = self._local
        assert local is not None
        prompt = answer_ids(self._model, asked, verdict)
        room = local.context_tokens - len(prompt)
        if room < 1:
            raise InputError("The conversation", f"is longer than the model's context of {local.context_tokens} tokens",
                             "Shorten it")  # fmt: skip
        row = Row(0, prompt, min(options.max_tokens, room))
        row.draws = draws_for(options.temperature, options.seed, prompt)
        row.shape = shape_of(options, row, self._grammars)
        return row

    async def rule_shares(self, asked: Asked) -> dict[str, float]:
        """As `Engine.rule_shares`, by the probe of the defence where there is one."""
        if self._local is None:
            return {}
        return await self._in_thread(lambda: rule_shares(self._model, asked), Work())

    async def ready(self) -> str:
        """As `Engine.ready`."""
        return "" if self._local is None else self._loop.failure

    async def close(self) -> None:
        """As `Engine.close`."""
        if self._local is not None:
            await asyncio.to_thread(self._loop.close)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, do: Callable[[], T], work: Work) -> T:
        """Runs something in a thread; if whoever waits for it leaves, its rows are dropped."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: self._loop.working(work, do))
        finally:
            work.cancelled = True

    def _text(self, ids: list[int]) -> str:
        assert self._local is not None
        return str(self._local.tokenizer.decode(ids, skip_special_tokens=True))
