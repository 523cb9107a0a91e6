"""One model behind one or several servers, as something that conversations can be put to.

Servers take work from a common queue as fast as they answer, in runs of prompts that begin alike, which is what a
server's prefix cache lives on. A server that stops answering gives its work back and is tried again now and then;
where none answers, conversations fail with the cause: they are never taken for refused or safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from inspect_ai.model import ChatMessageAssistant, ContentReasoning, Model, ModelOutput
from pydantic import Field

from forethought.errors import ConfigError, ModelError
from forethought.models.callspec import ClientSettings
from forethought.models.client import (
    Connection,
    Failure,
    chat_message,
    config_of,
    open_model,
    side_by_side,
    wait_s,
)
from forethought.models.conversation import Able, Conversation, Failed, OnReply, Response
from forethought.policy import Policy, default_policy
from forethought.reasoning import parse

_GOES_ON = {"add_generation_prompt": False, "continue_final_message": True}
"""What vLLM and SGLang need to be told to go on in the last assistant turn."""


class ServerSettings(ClientSettings):
    """How servers are asked. After `max_retries` failures on end a server counts as gone."""

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
        policy: Policy | None = None,
        name: str | None = None,
    ) -> None:
        """`models`: an inspect name, behind each of `base_urls` where given, or models that are open already.

        `policy` is what reasoning is read by. Raises ModelError where a model can't be opened, ConfigError for none.
        """
        self.settings = settings or ServerSettings()
        by_name = isinstance(models, str)
        opened = [open_model(models, url) for url in base_urls or (None,)] if isinstance(models, str) else list(models)
        if not opened:
            raise ConfigError("servers", "there are none", "Give a model, or the addresses of its servers")
        self.name = name or (models if isinstance(models, str) else str(opened[0]))
        self._policy = policy or default_policy()
        self._servers = [Server(model, self.settings.concurrency) for model in opened]
        self._closes = by_name
        self._worked = False
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
        replies: list[Response | Failed | None] = [None] * len(conversations)

        def deliver(job: Job, reply: Response | Failed) -> None:
            for place in job.places:
                replies[place] = reply
                if on_reply is not None:
                    on_reply(place, reply)

        jobs = []
        for job in _jobs(conversations, merged=self.settings.temperature == 0):
            if cause := self._unable(job.conversation):
                deliver(job, Failed(cause=cause))
            else:
                jobs.append(job)
        queue = WorkQueue(jobs, self._servers, self.settings.max_retries, self.settings.backoff_s)
        self._runner.run(self._all(queue, max_answer_tokens, deliver))
        return [reply if reply is not None else Failed(cause="no reply") for reply in replies]

    def close(self) -> None:
        """Closes the connections; the object can't be used afterwards."""
        if self._closes:
            for server in self._servers:
                self._runner.run(server.model.api.aclose())
        self._runner.close()

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _unable(self, conversation: Conversation) -> str:
        if conversation.prefill and not self.settings.prefill:
            return "the server takes no prefill"
        return "the server can't cut a thought" if conversation.think_budget is not None else ""

    async def _all(self, queue: WorkQueue, max_tokens: int, deliver: Any) -> None:
        await side_by_side(
            self._work(server, queue, max_tokens, deliver)
            for server in self._servers
            for _ in range(min(server.workers, len(queue.jobs)))
        )
        if queue.denied and not self._worked:
            raise ModelError(self.name, f"every call fails: {queue.denied}", "Check the key, the address and the name")
        for job in queue.left_over():
            deliver(job, Failed(cause=job.cause))

    async def _work(self, server: Server, queue: WorkQueue, max_tokens: int, deliver: Any) -> None:
        while True:
            async with server.place() as ask:
                # Taken when it is asked and not before: what a server that dies has not begun is for the others.
                job = await queue.take(server)
                if job is None:
                    return
                goes_on = _GOES_ON if job.conversation.prefill else None
                output = await ask(_chat(job.conversation), config_of(self.settings, max_tokens, extra_body=goes_on))
            if not isinstance(output, Failure):
                self._worked = True
                queue.done(server, job)
                deliver(job, self._read(job.conversation, output))
            elif await queue.failed(server, job, output):
                deliver(job, Failed(cause=output.cause))

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
            prompt_tokens=_prompt_tokens(output),
            reasoning_tokens=n_thought,
            answer_tokens=max(usage.output_tokens - n_thought, 0) if usage else 0,
        )


def _jobs(conversations: Sequence[Conversation], merged: bool) -> Iterator[Job]:
    """Work in the order of its text, so that what begins alike stands together."""
    places: dict[Any, list[int]] = {}
    for place, conversation in enumerate(conversations):
        places.setdefault(conversation if merged else place, []).append(place)
    jobs = [Job(found, conversations[found[0]]) for found in places.values()]
    return iter(sorted(jobs, key=lambda job: (job.text, job.places)))


def _chat(conversation: Conversation) -> list[Any]:
    chat: list[Any] = [chat_message(message) for message in conversation.messages]
    return [*chat, ChatMessageAssistant(content=conversation.prefill)] if conversation.prefill else chat


def _prompt_tokens(output: ModelOutput) -> int:
    usage = output.usage
    if usage is None:
        return 0
    return usage.input_tokens + (usage.input_tokens_cache_read or 0) + (usage.input_tokens_cache_write or 0)


@dataclass
class Job:
    """One conversation to be asked."""

    places: list[int]
    """Where it stands in what was asked."""
    conversation: Conversation
    tries: int = 0
    cause: str = ""
    """Of the last failure."""
    started: float = 0.0
    """When it was last begun (monotonic seconds)."""

    @property
    def text(self) -> str:
        """What is sent, for sorting."""
        turns = [f"{turn.role}\x1f{turn.content}" for turn in self.conversation.messages]
        return "\x1e".join([*turns, self.conversation.prefill])


class Server(Connection):
    """One server and how it does. Kept between runs."""

    def __init__(self, model: Model, concurrency: int | None) -> None:
        super().__init__(model, concurrency)
        self.own: deque[Job] = deque()
        """Jobs that it is to do, neighbours together. Others take from the end of it."""
        self.failures = 0
        """Failed tries on end; calls that were in flight together count as one."""
        self.failed_at, self.retry_at = 0.0, 0.0
        """When the last of them ended, and when the next may begin (monotonic seconds)."""
        self.trying = False
        """Whether one call finds out if it is back; the others wait."""
        self.denied = ""
        """Why it is not asked at all: a wrong key, address or name."""


class WorkQueue:
    """The jobs of one run. For one event loop."""

    def __init__(self, jobs: Sequence[Job], servers: Sequence[Server], max_retries: int, backoff_s: float) -> None:
        """Servers get a new chance, whatever became of them in an earlier run."""
        self.jobs = list(jobs)
        self._running = 0
        self._servers, self._max_retries, self._backoff_s = servers, max_retries, backoff_s
        self._changed = asyncio.Event()
        self._rng = random.Random(0)
        for number, server in enumerate(servers):
            share = slice(len(jobs) * number // len(servers), len(jobs) * (number + 1) // len(servers))
            server.own = deque(jobs[share])
            server.failures, server.denied, server.trying = 0, "", False

    @property
    def denied(self) -> str:
        """Why nothing can work: the first server's reason, where all have denied access."""
        return self._servers[0].denied if all(server.denied for server in self._servers) else ""

    async def take(self, server: Server) -> Job | None:
        """The next job for a server; None when there is nothing left to do, or nobody to do it."""
        while not self._is_over(server):
            early_s = server.retry_at - time.monotonic() if server.failures else 0.0
            if server.trying or early_s > 0:
                await self._wait(early_s)
            elif (job := self._next(server)) is None:
                await self._wait(0.0)
            else:
                server.trying = server.failures > 0
                job.started = time.monotonic()
                self._running += 1
                return job
        return None

    def done(self, server: Server, job: Job) -> None:
        """A job was answered: the server is well, unless it has failed since the job was begun."""
        self._running -= 1
        if job.started >= server.failed_at:
            server.failures, server.trying = 0, False
        self._tell()

    async def failed(self, server: Server, job: Job, failure: Failure) -> bool:
        """A job was not answered: it is given back, to be asked again by whoever is there. True: it is lost."""
        job.tries, job.cause = job.tries + 1, failure.cause
        lost = not failure.hopeless and (not failure.retry or job.tries > self._max_retries)
        pause = wait_s(max(server.failures, job.tries - 1), self._backoff_s, failure, self._rng)
        if failure.hopeless:
            server.denied = failure.cause
        elif failure.rate_limited:
            if not lost:  # the server is well, the call came too early: the job is kept meanwhile
                await asyncio.sleep(pause)
        elif failure.retry and job.started >= server.failed_at:
            server.failures, server.trying = server.failures + 1, False
            server.failed_at = time.monotonic()
            server.retry_at = server.failed_at + pause
        self._running -= 1
        if job.started >= server.failed_at:  # a trial that ends otherwise than expected is over, too: others may try
            server.trying = False
        if not lost:
            server.own.append(job)
        self._tell()
        return lost

    def left_over(self) -> list[Job]:
        """Jobs that nobody was there for."""
        left = [job for server in self._servers for job in server.own]
        known = next((job.cause for job in self.jobs if job.cause), "no server answers")
        for job in left:
            job.cause = job.cause or next((one.denied for one in self._servers if one.denied), known)
        return left

    def _is_over(self, server: Server) -> bool:
        gone = all(one.denied or one.failures > self._max_retries for one in self._servers)
        left = self._running or any(one.own for one in self._servers)
        return bool(server.denied) or gone or not left

    def _next(self, server: Server) -> Job | None:
        if server.own:
            return server.own.popleft()
        # Nothing left: take over from the one that has most, from its end.
        other = max(self._servers, key=lambda one: len(one.own))
        return other.own.pop() if other.own else None

    async def _wait(self, seconds: float) -> None:
        """Until something changes, or for `seconds` where they are more than none."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds if seconds > 0 else None)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
