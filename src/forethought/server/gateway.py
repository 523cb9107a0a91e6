"""The engine in front of vLLM: the thought on the adapter, the answer on the base, both in token ids.

The defences run as they are, each request's in a thread of its own. Where they decode, the decoder's own rule
(`models/decode.py`) steers what the servers propose: the verdict is read at its anchor, from the log-probabilities of
both its words. Where they read hidden states, a server with our connector (`recipes/serve/forethought_states.py`) gives
them.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from forethought.chat import encode_prompt
from forethought.defences.catalogue import without_states
from forethought.errors import ForethoughtError, ModelError
from forethought.model import Model, behind, run_model, trained_folder
from forethought.models.decode import VERDICT_TOKENS, Decoder, Row, Steering, VerdictTokens
from forethought.models.hidden_states import States
from forethought.models.local import LocalModel
from forethought.reasoning import markers
from forethought.records import Message
from forethought.server.config import Settings
from forethought.server.embedded import decides_first
from forethought.server.records import Asked, Options, Piece, Verdict
from forethought.server.text import special_tokens
from forethought.server.upstreams import Upstreams
from forethought.server.verdicts import answer_ids, decide, policy_line, rule_shares

T = TypeVar("T")
_Call = tuple[list[int], int, Sequence[str]]
"""Token ids that are gone on from, most tokens, texts that end it."""
_Told = tuple[list[int], list[dict[int, float]]]
"""Token ids, at least one, and for each the log-probabilities of both verdicts in its place."""
ALONE = "the verdict decided alone: the upstream gives no hidden states"
_PROMPTS = 256
"""Conversations whose token ids are held for what is asked about them next."""
_SWITCH_S = 0.0005
"""Longest that a request's thread keeps the interpreter while a stream waits; Python's own is ten times that."""
_WARM_TOKENS = 256
"""From here on a prompt is read before it is answered: a shorter one takes less than the call that has it read."""
_NEVER = -30.0
"""Log-probability of a token that the upstream did not tell."""
_STATES_TOKENS = 4
"""Fewest tokens of a request for states: they are on their way while these are made."""


class NoStates(ModelError):
    """A server that gives no hidden states."""


@dataclass(eq=False)
class _Work:
    """One request: what it stays with a server by, and its calls under way, so that they can be given up."""

    key: str
    calls: set[Future[Any]] = field(default_factory=set)
    given_up: bool = False


class GatewayEngine:
    """A trained model behind one or more servers of vLLM. Nothing of it is loaded here but tokenizer and settings."""

    special: tuple[str, ...]

    def __init__(
        self,
        where: str | Path,
        urls: Sequence[str],
        settings: Settings,
        base: str = "base",
        adapter: str = "scot",
        defence: str | None = None,
        states: Sequence[str] = (),
    ) -> None:
        """`base` and `adapter`: their names at the servers. `defence` is as in `load`. `states`: servers that are asked
        for hidden states in place of the others. Raises ModelError for a folder that holds no trained model that
        thinks, or whose defence reads answers before it decides."""
        run = run_model(Path(where))
        self._local = local = LocalModel.elsewhere(run.base if run is not None else str(where), trained_folder(where))
        if local.thinking is None:
            raise ModelError(where, "does not think: it has no verdict to read upstream", "Serve it embedded")
        # One conversation is thought about, read by the base and answered.
        # By one thread: the tokenizer keeps the words it has met for each thread apart, megabytes of them.
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="tokens")
        encoded = lru_cache(_PROMPTS)(
            lambda messages: tuple(self._encoder.submit(encode_prompt, local.tokenizer, messages).result())
        )
        local.prompt_ids = lambda messages: list(encoded(tuple(messages)))
        local.leaves_answers = lambda asked: True
        local.reads_states = self._read_states
        local.thinker = _Upstream(self)
        self._where, self._defence, self._settings, self._base, self._adapter = where, defence, settings, base, adapter
        own = run.defence if run is not None and defence is None else defence or ""
        self._alone = behind(where, local, without_states(own))
        """What decides where no hidden states are to be had."""
        if not decides_first(self._alone):
            raise ModelError(where, f"'{own}' reads answers before it decides", "Serve it embedded")
        self._reads_states = without_states(own) != " | ".join(step.strip() for step in own.split("|"))
        self._model = None if self._reads_states else self._alone
        """What decides; None until it was tried whether there are states, and those that its probe was fitted on."""
        self.name, self.policy = settings.name or Path(where).resolve().name, self._alone.policy
        self.special, self.markers = special_tokens(local.tokenizer), markers(local.thinking.format)
        self._upstreams = Upstreams(urls, settings.request_timeout_s)
        self._states = Upstreams(states, settings.request_timeout_s) if states else self._upstreams
        self._warming: set[Future[None]] = set()
        # A thread a request: each waits for the servers nearly all the time, and gives way to what is streamed at once.
        sys.setswitchinterval(_SWITCH_S)
        self._threads = ThreadPoolExecutor(settings.max_waiting, thread_name_prefix="request")
        self._here, self._opening = threading.local(), asyncio.Lock()

    def check(self, options: Options) -> None:
        """As `Engine.check`: what can be followed the server upstream tells."""

    async def think(self, asked: Asked) -> Verdict:
        """As `Engine.think`. The base model has no verdict."""
        if asked.base:
            return Verdict(decision=None, policy=policy_line(self.policy))
        model = await self._opened()

        def decided() -> Verdict:
            self._warm(asked)
            return decide(model, asked, self._settings)

        found = await self._in_thread(_key(asked.messages), decided)
        if model is self._alone and self._reads_states:
            found = found.model_copy(update={"cause": "; ".join([ALONE, *([found.cause] if found.cause else [])])})
        return found

    async def _opened(self) -> Model:
        """The model behind its defence, once its probe was held against what it said when it was fitted."""
        async with self._opening:
            if self._model is None:
                self._model = await self._in_thread("", self._behind)
        return self._model

    def _behind(self) -> Model:
        try:
            return behind(self._where, self._local, self._defence)
        except NoStates:
            return self._alone

    # What defences ask for, in their threads: the loop has streams to pass on.

    async def _in_thread(self, key: str, do: Callable[[], T]) -> T:
        """Runs something in a thread; if whoever waits for it leaves, its calls are given up."""
        work, running = _Work(key), asyncio.get_running_loop()

        def doing() -> T:
            self._here.work, self._here.running = work, running
            return do()

        try:
            return await running.run_in_executor(self._threads, doing)
        finally:
            work.given_up = True
            for call in list(work.calls):
                call.cancel()

    def _wait(self, ask: Callable[[str], Awaitable[T]]) -> T:
        """What comes of a call that is made for the request of this thread."""
        work: _Work = self._here.work

        async def call() -> T:
            return await ask(work.key)

        asked = asyncio.run_coroutine_threadsafe(call(), self._here.running)
        work.calls.add(asked)
        if work.given_up:
            asked.cancel()
        try:
            return asked.result()
        finally:
            work.calls.discard(asked)

    def decode(self, rows: Sequence[Row], verdict: VerdictTokens | None, threshold: float) -> None:
        """Decodes rows in place, all at once, and asks on from where one was led another way than the server went. A
        thought ends a call: what follows may be nobody's business."""
        assert verdict is not None
        steering = Steering(self._local.tokenizer, self._local.ends, verdict, threshold)
        while left := [row for row in rows if not row.done]:
            calls = [self._call(row, verdict) for row in left]

            async def ask(key: str, calls: Sequence[_Call] = calls) -> list[_Told]:
                return await asyncio.gather(*[self._complete(key, *call) for call in calls])

            for row, (ids, told) in zip(left, self._wait(ask), strict=True):
                for token, odds in zip(ids, told, strict=True):
                    steering.step(row, odds, token)
                    if row.done or row.forced or row.made[-1] != token:
                        break
                while row.forced and not row.done:
                    steering.step(row, {}, row.forced[0])

    def _call(self, row: Row, verdict: VerdictTokens) -> _Call:
        thinks = row.watch and row.closed_at is None
        most = row.think_budget + VERDICT_TOKENS if thinks else row.max_new + (row.closed_at or 0)
        return row.prompt + row.made, max(most - len(row.made), 1), [verdict.closing] if thinks else []

    async def _complete(self, key: str, prompt: list[int], most: int, stop: Sequence[str]) -> _Told:
        verdicts = self._local.verdict_tokens()
        both = verdicts.refuse[0], verdicts.comply[0]
        said = await self._upstreams.ask(key, {
            "model": self._adapter, "prompt": prompt, "max_tokens": most, "temperature": 0, "stop": list(stop),
            "logprobs": 2, "logprob_token_ids": list(both), "return_tokens_as_token_ids": True,
            "return_token_ids": True,
        })  # fmt: skip
        try:
            choice = said["choices"][0]
            told = [one or {} for one in choice["logprobs"]["top_logprobs"]]
            ids = choice.get("token_ids")
            ids = ids if ids is not None else [int(one.partition(":")[2]) for one in choice["logprobs"]["tokens"]]
            odds = [{one: float(each.get(f"token_id:{one}", _NEVER)) for one in both} for each in told]
            ended = choice.get("finish_reason") == "stop" and not choice.get("stop_reason")
        except (KeyError, TypeError, IndexError, ValueError):
            raise ModelError("upstream", "gives no token ids with log-probabilities", "Use vLLM") from None
        ids, odds = list(ids), odds[: len(ids)]
        if ended and not self._local.ends.intersection(ids[-1:]):  # the token that ended it was left out
            ids, odds = [*ids, min(self._local.ends)], [*odds, dict.fromkeys(both, _NEVER)]
        if not ids or len(odds) < len(ids):
            raise ModelError("upstream", "gives no token ids with log-probabilities", "Use vLLM")
        return ids, odds

    def _read_states(self, prompts: Sequence[Sequence[int]], layers: Sequence[int], trained: bool) -> dict[int, States]:
        """As `hidden_states.last_states`. Raises NoStates."""
        name = self._adapter if trained else self._base

        async def all_of_them(key: str) -> list[dict[int, States]]:
            return await asyncio.gather(*[self._state(key, name, list(ids)) for ids in prompts])

        found = self._wait(all_of_them)
        if lacking := [layer for layer in layers if any(layer not in one for one in found)]:
            had = ", ".join(map(str, found[0]))
            raise ModelError("upstream", f"gives states of the layers {had}, and not of {lacking[0]}",
                             "Start it with those of the probe (docs/serving.md)")  # fmt: skip
        return {layer: np.stack([one[layer] for one in found]) for layer in layers}

    async def _state(self, key: str, name: str, ids: list[int]) -> dict[int, States]:
        """By layer the state at a prompt's last token."""
        said = await self._states.ask(key, {
            "model": name, "prompt": ids, "max_tokens": _STATES_TOKENS, "temperature": 0, "ignore_eos": True,
            "kv_transfer_params": {"states": True},
        })  # fmt: skip
        told = said.get("kv_transfer_params") or {}
        if "states" not in told:
            raise NoStates("upstream", "gives no hidden states", "Start it with our connector (docs/serving.md)")
        values = np.frombuffer(base64.b64decode(told["states"]), dtype=np.float32).reshape(len(told["layers"]), -1)
        return dict(zip(told["layers"], values, strict=True))

    # Answers.

    def _warm(self, asked: Asked) -> None:
        """Has the base read the answer's prompt while the thought is written: the answer finds its prefix there."""
        thinking = self._local.thinking
        if thinking is None or thinking.answer_with != "base":
            return
        prompt = answer_ids(self._alone, asked, Verdict(decision=None))
        if len(prompt) < _WARM_TOKENS:
            return
        body = {"model": self._base, "prompt": prompt, "max_tokens": 1, "temperature": 0}

        async def read() -> None:
            with suppress(ForethoughtError):
                await self._upstreams.ask(_key(asked.messages), body)

        reading = asyncio.run_coroutine_threadsafe(read(), self._here.running)
        self._warming.add(reading)
        reading.add_done_callback(self._warming.discard)

    async def answer(self, asked: Asked, verdict: Verdict, options: Options) -> AsyncIterator[Piece]:
        """As `Engine.answer`."""
        name = self._adapter if verdict.by_thinker else self._base
        body: dict[str, Any] = {
            "model": name, "prompt": answer_ids(self._alone, asked, verdict), "max_tokens": options.max_tokens,
            "temperature": options.temperature, "top_p": options.top_p, "seed": options.seed,
            "stop": list(options.stop), "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        if options.logit_bias:
            body["logit_bias"] = {str(one): value for one, value in options.logit_bias.items()}
        if options.grammar is not None:
            body["structured_outputs"] = {"json": options.grammar or {"type": "object"}}
        tokens, finish, begun = 0, None, False
        async with aclosing(self._upstreams.stream(_key(asked.messages), body)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                for choice in chunk.get("choices", ()):
                    text = choice.get("text") or ""
                    finish = choice.get("finish_reason") or finish
                    tokens += bool(text)
                    text = text if begun else text.lstrip()
                    begun = begun or bool(text)
                    if text:
                        yield Piece(text=text, tokens=tokens)
                tokens = (chunk.get("usage") or {}).get("completion_tokens") or tokens
        yield Piece(tokens=tokens, finish="length" if finish == "length" else "stop")

    async def rule_shares(self, asked: Asked) -> dict[str, float]:
        """As `Engine.rule_shares`."""
        model = await self._opened()
        return await self._in_thread(_key(asked.messages), lambda: rule_shares(model, asked))

    async def ready(self) -> str:
        """As `Engine.ready`. Not before its probe was held against what it said when it was fitted."""
        for servers in {self._upstreams, self._states}:
            if not await servers.check():
                return "no upstream is healthy"
        try:
            await self._opened()
        except ForethoughtError as error:
            return str(error)
        return ""

    async def close(self) -> None:
        """As `Engine.close`."""
        for reading in list(self._warming):
            reading.cancel()
        await self._upstreams.close()
        await self._states.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._encoder.shutdown(wait=False)


class _Upstream(Decoder):
    """Stands where a model decodes its thoughts, and hands them to the gateway."""

    def __init__(self, engine: GatewayEngine) -> None:
        self._engine = engine

    def stream(
        self, rows: Iterator[Row], verdict: VerdictTokens | None = None, threshold: float = 0.0
    ) -> Iterator[Row]:
        asked = list(rows)
        self._engine.decode(asked, verdict, threshold)
        return iter(asked)


def _key(messages: Sequence[Message]) -> str:
    """What a conversation stays with a server by: its first turns, which later ones keep."""
    head = "\x1e".join(message.content for message in messages[:2])
    return hashlib.sha256(head.encode("utf-8", "replace")).hexdigest()
