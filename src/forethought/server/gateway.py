"""The engine in front of vLLM: the thought on the adapter, the answer on the base, both in token ids.

The rule is the decoder's (`models/decode.py`): the verdict is read at its anchor, from the log-probabilities of both
its words, and held against the calibrated threshold; a thought that comes to no anchor in its budget is led there.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from forethought.chat import encode_prompt, end_tokens
from forethought.errors import ForethoughtError, InputError, ModelError
from forethought.model import RuleNamed, run_model, share, trained_folder
from forethought.models.conversation import LED
from forethought.models.settings import read_settings
from forethought.models.weights import load_tokenizer
from forethought.reasoning import VERDICT_ANCHOR, markers, parse
from forethought.records import Message
from forethought.server.records import Asked, Options, Piece, Verdict
from forethought.server.settings import Settings
from forethought.server.text import special_tokens
from forethought.server.upstreams import Upstreams
from forethought.server.verdicts import UNREADABLE, policy_line, refused, strictest

ALONE = "the verdict decided alone: the upstream gives no hidden states"
_TAIL = 8
"""Last tokens in which the verdict's anchor, or the closing marker, may end."""
_VERDICT_TOKENS = 48
"""Room for the verdict's rules and reasons."""
_PROMPTS = 256
"""Conversations whose token ids are held for what is asked about them next."""
_NEVER = -30.0
"""Log-probability of a token that the upstream did not tell."""


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
    ) -> None:
        """`base` and `adapter`: their names at the servers. Raises ModelError for a folder that holds no trained model
        that thinks."""
        folder = trained_folder(where)
        run = run_model(Path(where))
        self._how = read_settings(folder)
        if not self._how.thinks:
            raise ModelError(where, "does not think: it has no verdict to read upstream", "Serve it embedded")
        self._tokenizer = load_tokenizer(run.base if run is not None else str(folder))
        self._settings, self._base, self._adapter = settings, base, adapter
        self.name, self.policy = settings.name or Path(where).resolve().name, self._how.policy
        self.special, self.markers = special_tokens(self._tokenizer), markers(self._how.format)
        self._ends = end_tokens(self._tokenizer)
        self._verdicts = tuple(self._ids(f" {word}")[0] for word in ("refuse", "comply"))
        self._upstreams = Upstreams(urls, settings.request_timeout_s)
        self._warming: set[asyncio.Task[Any]] = set()
        # One conversation is thought about, read by the base and answered.
        self._prompt = lru_cache(_PROMPTS)(lambda messages: tuple(encode_prompt(self._tokenizer, messages)))

    def check(self, options: Options) -> None:
        """As `Engine.check`: what can be followed the server upstream tells."""

    async def think(self, asked: Asked) -> Verdict:
        """As `Engine.think`. The base model has no verdict."""
        if asked.base:
            return Verdict(decision=None, policy=policy_line(self.policy))
        self._warm(asked)
        return strictest(await asyncio.gather(*[self._thought(messages) for messages in asked.judged]))

    async def _thought(self, messages: tuple[Message, ...]) -> Verdict:
        prompt, key = list(self._prompt(messages)), _key(messages)
        opening, closing = self.markers
        start = prompt + self._ids(opening + "\n")
        ids, odds = await self._until_verdict(key, start)
        led = odds is None
        if odds is None:
            ids = ids + self._ids("\n" + VERDICT_ANCHOR)
            odds = _log_odds((await self._complete(key, start + ids, 1))[1][0], self._verdicts)
        refuses = odds >= self._how.threshold
        ids = ids + self._ids(" refuse" if refuses else " comply")
        refusal, refusal_ids = "", list[int]()
        if refuses:
            # The rules that it names, and the refusal.
            rest, _ = await self._complete(key, start + ids, _VERDICT_TOKENS + self._settings.refusal_tokens)
            named, _, refusal = self._text(rest).partition(closing)
            refusal_ids = self._ids(refusal)
            ids = ids + self._ids(named)
            refusal = refusal.strip()
        else:
            ids = ids + self._ids(".")
        text = self._text(ids)
        parsed = parse(f"{opening}\n{text}\n{closing}\n", self.policy)
        found = Verdict(
            decision="refuse" if refuses else "comply",
            score=odds, limit=self._how.threshold, probability=share(odds), threshold=share(self._how.threshold),
            rules=tuple(
                RuleNamed(id=one, title=self.policy.rule(one).title)
                for one in (parsed.reasoning.violated if parsed.reasoning is not None else ())
            ),
            intent=parsed.reasoning.intent if parsed.reasoning is not None else "",
            cause="; ".join([ALONE, *([LED] if led else [])]), thought=parsed.reasoning_text,
            policy=policy_line(self.policy), prompt_tokens=len(prompt), thought_tokens=len(ids),
            refusal=refusal, refusal_tokens=len(refusal_ids),
        )  # fmt: skip
        if refuses:
            return found if refusal else refused(found, found.cause)
        unread = parsed.reasoning is None and self._settings.fail_closed
        return refused(found, f"{UNREADABLE} ({parsed.cause})") if unread else found

    async def _until_verdict(self, key: str, start: list[int]) -> tuple[list[int], float | None]:
        """(the thought up to its anchor, the log-odds there); without odds where it comes to no anchor."""
        budget = self._how.think_budget
        ids, told = await self._complete(key, start, budget + 1, [self.markers[1]])
        for place in range(len(ids) + 1):
            tail = self._text(ids[max(0, place - _TAIL) : place])
            if tail.endswith(VERDICT_ANCHOR):
                odds = told[place] if place < len(ids) else (await self._complete(key, start + ids, 1))[1][0]
                return ids[:place], _log_odds(odds, self._verdicts)
            if place >= min(budget, len(ids)) or ids[place] in self._ends:
                return ids[:place], None
            if self.markers[1] in self._text(ids[max(0, place + 1 - _TAIL) : place + 1]):
                return ids[:place], None
        return ids, None

    async def _complete(
        self, key: str, prompt: list[int], most: int, stop: Sequence[str] = ()
    ) -> tuple[list[int], list[dict[str, float]]]:
        """(token ids, by token the log-probabilities that were told, by `token_id:N`)."""
        said = await self._upstreams.ask(key, {
            "model": self._adapter, "prompt": prompt, "max_tokens": most, "temperature": 0, "stop": list(stop),
            "logprobs": 2, "logprob_token_ids": list(self._verdicts), "return_tokens_as_token_ids": True,
            "return_token_ids": True,
        })  # fmt: skip
        try:
            choice = said["choices"][0]
            told = [one or {} for one in choice["logprobs"]["top_logprobs"]]
            ids = choice.get("token_ids")
            ids = ids if ids is not None else [int(one.partition(":")[2]) for one in choice["logprobs"]["tokens"]]
        except (KeyError, TypeError, IndexError, ValueError):
            raise ModelError("upstream", "gives no token ids with log-probabilities", "Use vLLM") from None
        return list(ids), told

    def _warm(self, asked: Asked) -> None:
        """Has the base read the answer's prompt while the thought is written: the answer finds its prefix there."""
        body = {"model": self._base, "prompt": self._answer_prompt(asked), "max_tokens": 1, "temperature": 0}

        async def read() -> None:
            with suppress(ForethoughtError):
                await self._upstreams.ask(_key(asked.messages), body)

        task = asyncio.ensure_future(read())
        self._warming.add(task)
        task.add_done_callback(self._warming.discard)

    def _answer_prompt(self, asked: Asked) -> list[int]:
        return [*self._prompt(asked.to_answer), *(self._ids(asked.prefill) if asked.prefill else [])]

    async def answer(self, asked: Asked, verdict: Verdict, options: Options) -> AsyncIterator[Piece]:
        """As `Engine.answer`, by the base weights."""
        if self._how.answer_with == "adapter" and not asked.base:
            raise InputError("This model", "answers with the weights that think", "Serve it embedded")
        body: dict[str, Any] = {
            "model": self._base, "prompt": self._answer_prompt(asked), "max_tokens": options.max_tokens,
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
        """Nothing tells them here."""
        return {}

    async def ready(self) -> str:
        """As `Engine.ready`."""
        return "" if await self._upstreams.check() else "no upstream is healthy"

    async def close(self) -> None:
        """As `Engine.close`."""
        for task in self._warming:
            task.cancel()
        await self._upstreams.close()

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


def _log_odds(told: dict[str, float], verdicts: Sequence[int]) -> float:
    refuse, comply = (told.get(f"token_id:{one}", _NEVER) for one in verdicts)
    return refuse - comply


def _key(messages: Sequence[Message]) -> str:
    """What a conversation stays with a server by: its first turns, which later ones keep."""
    head = "\x1e".join(message.content for message in messages[:2])
    return hashlib.sha256(head.encode("utf-8", "replace")).hexdigest()
