"""One call of a model through inspect: the model opened, asked, and why there is no output. For all runners of calls.

inspect talks to providers, judges their errors and ends a call that takes too long. Its retries, its limit on
connections and its cache are off, for what they lose: a retry waits 3 to 6 seconds, then twice as long each time,
whatever is chosen, and keeps its connection meanwhile; its adaptive limit heeds rate limits alone, cuts once in 15
seconds and is shared by all runs of a process, where ours heeds slowness, too; and its cache knows no attempts, tokens
or causes, which a journal of calls must count.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import os
import random
import re
import statistics
import time
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    Content,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    Model,
    ModelOutput,
    ModelUsage,
    get_model,
)
from tenacity import RetryError

from forethought.errors import ModelError
from forethought.models.callspec import ClientSettings
from forethought.models.conversation import Response
from forethought.records import Message

LONGEST_BACKOFF_S = 60.0
START, MOST = 16, 128
"""Concurrency where none is chosen: where it starts and how far it may grow."""
UNBOUNDED = 100_000
"""For inspect's own limit on connections: ours decides, that must not bind."""
SLOW = 3.0
"""A round whose median answer takes this many times the best round's is a sign of overload."""
LEAST_ROUND = 4
"""Fewest answers by which a round is judged."""
_LEAST_PATIENCE = 3
"""Calls, or retries where there are more, that may fail one after another before a server is given up."""
_DENIED = {401: "access denied (401)", 403: "access denied (403)", 404: "not found (404)"}
_LONGEST_WAIT_S = 600.0
_STARTS_A_SERVER = {"vllm": "VLLM_BASE_URL", "sglang": "SGLANG_BASE_URL"}
_LOADS_FROM_THE_HUB = {"hf", "transformer_lens", "nnterp"}


def open_model(name: str, base_url: str | None = None) -> Model:
    """The model called PROVIDER/NAME. Raises ModelError where it can't be opened, with what to do."""
    provider = name.partition("/")[0]
    if "/" not in name:
        raise ModelError(
            f"model '{name}'", "names no provider", "Write PROVIDER/NAME, such as openai/NAME or vllm/NAME"
        )
    if provider in _LOADS_FROM_THE_HUB:
        raise ModelError(
            f"model '{name}'", "would be looked up on a hub", "Write forethought/FOLDER for a model on this machine"
        )
    variable = _STARTS_A_SERVER.get(provider)
    if variable and not base_url and not os.environ.get(variable):
        raise ModelError(
            f"model '{name}'", "has no server", f"Start one, then give its address with --base-url or {variable}"
        )
    # inspect's scripted model would fetch a vocabulary from the net to count its tokens.
    special: dict[str, Any] = {"custom_outputs": _silent} if provider == "mockllm" else {}
    if provider == "openai" and (base_url or os.environ.get("OPENAI_BASE_URL")):
        special["responses_api"] = False  # compatible servers have chat completions, few have the newer interface
    try:
        model = get_model(name, base_url=base_url, api_key=_local_key(name, base_url), memoize=False, **special)
    except Exception as error:  # providers raise all kinds for a missing package, key or name
        raise _cannot_open(name, error) from None
    client: Any = getattr(model.api, "client", None)
    if isinstance(getattr(client, "max_retries", None), int):
        # The SDK's own retries would hide "too many requests" from the limiter.
        client.max_retries = 0
    return model


def _local_key(name: str, base_url: str | None) -> str | None:
    """A stand-in for a server on this machine or network, which needs no key while its client does; else None."""
    provider, _, rest = name.partition("/")
    service = rest.partition("/")[0] if provider == "openai-api" else provider
    if os.environ.get(f"{service.upper().replace('-', '_')}_API_KEY"):
        return None
    if provider in _STARTS_A_SERVER:
        return "none"
    return "none" if provider in ("openai", "openai-api") and base_url and _is_near(base_url) else None


def _is_near(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost" or "." not in host


def _silent(*_: Any) -> ModelOutput:
    output = ModelOutput.from_content("mockllm", "Default output from mockllm/model")
    output.usage = ModelUsage()
    return output


def _cannot_open(name: str, error: Exception) -> ModelError:
    said = " ".join(re.sub(r"\[/?\w+\]", "", str(getattr(error, "message", None) or error)).split())
    if install := re.search(r"pip install [\w\-. ]+", said):
        package = install[0].strip()
        return ModelError(f"model '{name}'", "needs a package that is not installed", f"Run: {package}")
    if variable := re.search(r"\b[A-Z][A-Z0-9_]*_(?:API_KEY|TOKEN|BASE_URL)\b", said):
        return ModelError(f"model '{name}'", f"{variable[0]} is not set", "Set that environment variable")
    return ModelError(f"model '{name}'", "can't be opened", said[:300] or type(error).__name__)


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


def output_of(model: str, response: Response) -> ModelOutput:
    """A response as inspect has it: its thought apart from its answer, all else in the metadata."""
    content: list[Content] = []
    if response.reasoning_text:
        content.append(ContentReasoning(reasoning=response.reasoning_text))
    content.append(ContentText(text=response.answer))
    written = response.reasoning_tokens + response.answer_tokens
    usage = ModelUsage(
        input_tokens=response.prompt_tokens,
        output_tokens=written,
        total_tokens=response.prompt_tokens + written,
        reasoning_tokens=response.reasoning_tokens,
    )
    message = ChatMessageAssistant(content=content, model=model)
    return ModelOutput(
        model=model,
        choices=[ChatCompletionChoice(message=message, stop_reason="stop")],
        usage=usage,
        metadata={"response": response.model_dump(mode="json")},
    )


def prompt_tokens(usage: ModelUsage | None) -> int:
    """Tokens of what was asked: inspect counts those that a cache held, or took, apart."""
    if usage is None:
        return 0
    return usage.input_tokens + (usage.input_tokens_cache_read or 0) + (usage.input_tokens_cache_write or 0)


def config_of(settings: ClientSettings, max_tokens: int, **more: Any) -> GenerateConfig:
    """What inspect is told for a call, `more` included; what it would retry, limit and cache is off."""
    return GenerateConfig(
        max_tokens=max_tokens + settings.thinking_tokens,
        temperature=settings.temperature,
        seed=settings.seed,
        attempt_timeout=settings.timeout_s,
        max_retries=0,
        max_connections=UNBOUNDED,
        adaptive_connections=False,
        **more,
    )


async def side_by_side(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All of them at once. The first that fails ends the others, and raises its own error."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True)
class Failure:
    """Why a call has no answer."""

    cause: str
    """Few different values, no text of the server: it is counted."""
    retry: bool
    """Whether the same call may work later."""
    rate_limited: bool = False
    hopeless: bool = False
    """True where other calls will fail alike: a wrong key, address or model name."""
    wait_s: float = 0.0
    """How long the server asks to wait."""
    detail: str = ""
    """The server's own words, one line; for the error that ends a run."""


def failure_of(error: Exception, model: Model) -> Failure:
    """Classifies what `Model.generate` raised, by inspect's own judgement of each provider's errors."""
    if isinstance(error, RetryError):  # inspect gave up at once, as told: its retries are ours
        inner = error.last_attempt.exception()
        error = inner if isinstance(inner, Exception) else error
    status = _status(error)
    name = type(error).__name__
    detail = " ".join(str(error).split())[-200:]
    if status in _DENIED:
        # An error about a key may quote it: say no more than the status.
        return Failure(_DENIED[status], retry=False, hopeless=True, detail="" if status == 401 else detail)
    if "Timeout" in name:
        return Failure("timed out", retry=True)
    decision = model.api.should_retry(error)
    kind = getattr(decision, "kind", "transient")
    wait_s = min(getattr(decision, "retry_after", None) or 0.0, _LONGEST_WAIT_S)
    if status == 429 or (decision and kind == "rate_limit"):
        return Failure("too many requests (429)", retry=True, rate_limited=True, wait_s=wait_s, detail=detail)
    if status is not None and status >= 500:
        return Failure(f"server error ({status})", retry=True, wait_s=wait_s, detail=detail)
    if status is not None:
        return Failure(f"bad request ({status})", retry=bool(decision), detail=detail)
    if "Connection" in name or "Connect" in name:
        return Failure("no connection", retry=True, detail=detail)
    return Failure(f"error ({name})", retry=bool(decision), wait_s=wait_s, detail=detail)


def _status(error: BaseException | None) -> int | None:
    while error is not None:
        status = getattr(error, "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


class Server:
    """One server and how it does: how many calls it takes at once, and whether it answers at all.

    Its limit moves by how calls end: additive increase, multiplicative decrease. After a failure it is tried with one
    call at a time. For one event loop.
    """

    def __init__(self, model: Model, start: int, most: int) -> None:
        """Begins at `start` calls, and never takes more than `most`."""
        self.model, self.limit, self.running, self._most = model, start, 0, most
        self.failed: set[int] = set()
        """Calls that it failed on since it last answered; of those in flight together, one."""
        self.denials: set[int] = set()
        """Calls that it denied since it last answered."""
        self.resting = False
        """Whether it is given time after a failure."""
        self.last: Failure | None = None
        """The last failure."""
        self._epoch = 0
        """Number of cuts and failures so far: a call that began before the last one says nothing about now."""
        self._seconds: list[float] = []
        self._peak = 0
        self._best: float | None = None

    @property
    def is_free(self) -> bool:
        """Whether it takes a call now."""
        return not self.resting and self.running < (1 if self.failed else self.limit)

    def enter(self) -> int:
        """Takes a place; returns the epoch to hand back to how the call ends."""
        self.running += 1
        self._peak = max(self._peak, self.running)
        return self._epoch

    def leave(self) -> None:
        """Gives the place back, whatever became of the call."""
        self.running -= 1

    def answered(self, epoch: int, seconds: float) -> None:
        """A call got its answer in `seconds`. After a full round the limit may rise, or fall if it got slow."""
        self.denials.clear()
        if epoch != self._epoch:
            return
        self.failed.clear()
        self._seconds.append(seconds)
        if len(self._seconds) < max(self.limit, LEAST_ROUND):
            return
        median = statistics.median(self._seconds)
        was_full = self._peak >= 0.8 * self.limit  # else the limit did not bind, and says nothing
        self._new_round()
        self._best = median if self._best is None else min(self._best, median)
        if median > SLOW * self._best:
            self._cut(0.8)
        elif was_full:
            self.limit = min(self.limit * 2 if self._epoch == 0 else self.limit + max(1, self._most // 10), self._most)

    def refused(self, epoch: int) -> None:
        """The provider said: too many requests. One cut for all calls that were in flight together."""
        if epoch == self._epoch:
            self._cut(0.5)

    def broke(self, epoch: int, call: int) -> bool:
        """A call failed as others may; whether it is the first of those in flight together."""
        if epoch != self._epoch:
            return False
        self.failed.add(call)
        self._cut(1.0)
        return True

    def _cut(self, factor: float) -> None:
        self.limit = max(int(self.limit * factor), 1)
        self._epoch += 1
        self._new_round()

    def _new_round(self) -> None:
        self._seconds, self._peak = [], self.running


class Client:
    """A model behind one or several servers: who asks waits for a place at one that is well, and for its retries.

    A server that fails gives its calls to the others, rests and is tried again now and then. Where it is the only one,
    or all fail, they are given up.
    """

    def __init__(self, models: Sequence[Model], settings: ClientSettings) -> None:
        """Of `settings` the retries and the concurrency: None starts at `START` calls a server and grows to `MOST`."""
        most = settings.concurrency or MOST
        self.workers = most * len(models)
        """Most calls that ever run at once."""
        self.worked = False
        """Whether anything was ever answered."""
        self.servers = [Server(model, settings.concurrency or START, most) for model in models]
        self._settings = settings
        self._rng = random.Random(0)
        self._numbers = itertools.count()
        self._line, self._changed = asyncio.Lock(), asyncio.Event()
        self._enough = 1

    def begin(self, enough: int = 1) -> None:
        """Before a run: servers get a new chance. After `enough` calls denied on end one is not asked any more."""
        self._enough = enough
        for server in self.servers:
            server.running, server.resting, server.last = 0, False, None
            server.failed.clear()
            server.denials.clear()

    @property
    def gone(self) -> Failure | None:
        """Why nobody is asked any more; None while somebody is."""
        all_gone = all(self._denies(one) or self._is_given_up(one) for one in self.servers)
        return next((one.last for one in self.servers if one.last is not None), None) if all_gone else None

    async def ask(self, chat: Sequence[ChatMessage], config: GenerateConfig) -> ModelOutput | Failure:
        """An output; a failure where a call is not to be made again, was made too often, or nobody is left to ask."""
        call, tries = next(self._numbers), 0
        while (server := await self._place()) is not None:
            output = await self._ask(server, call, tries, chat, config)
            if not isinstance(output, Failure):
                return output
            if output.hopeless and self._denies(server) and not self.gone:
                continue  # no other call is made there
            tries += 1
            if not output.retry or tries > self._settings.max_retries:
                return output
            if output.rate_limited:  # the server is well, the call came too early: its place is free meanwhile
                await asyncio.sleep(wait_s(tries - 1, self._settings.backoff_s, output, self._rng))
        return self.gone or Failure("no server answers", retry=False)

    async def _place(self) -> Server | None:
        """The well server with most room, once one has some, for who waits longest; None where all are given up."""
        async with self._line:
            while not self.gone:
                free = [one for one in self.servers if one.is_free and not self._denies(one)]
                if free:
                    return max(free, key=lambda one: (not one.failed, one.limit - one.running))
                await self._changed.wait()
        return None

    async def _ask(
        self, server: Server, call: int, tries: int, chat: Sequence[ChatMessage], config: GenerateConfig
    ) -> ModelOutput | Failure:
        began, epoch = time.monotonic(), server.enter()
        try:
            # A task of its own: inspect notes each call in a transcript of the context that first makes one, and what
            # a task has set ends with it. In ours every call of a run would stay in memory.
            output = await asyncio.create_task(server.model.generate(list(chat), config=config))
        except Exception as error:
            failure = server.last = failure_of(error, server.model)
            if failure.hopeless:
                server.denials.add(call)
            elif failure.rate_limited:
                server.refused(epoch)
            elif failure.retry and server.broke(epoch, call) and self._settings.max_retries:
                server.resting = True
                turn = max(len(server.failed) - 1, tries)
                pause = wait_s(turn, self._settings.backoff_s, failure, self._rng)
                asyncio.get_running_loop().call_later(pause, self._rested, server)
            return failure
        finally:
            server.leave()
            self._tell()
        server.answered(epoch, time.monotonic() - began)
        self.worked = True
        return output

    def _denies(self, server: Server) -> bool:
        """Whether a server is not asked at all: a wrong key, address or name."""
        return len(server.denials) >= self._enough

    def _is_given_up(self, server: Server) -> bool:
        return len(server.failed) > max(self._settings.max_retries, _LEAST_PATIENCE)

    def _rested(self, server: Server) -> None:
        server.resting = False
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
