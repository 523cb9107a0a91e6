"""A local model that thinks, decides and answers: batched, with or without an adapter.

Two steps that chat, evaluation and server share. Think up to the verdict and record its
log-odds; then answer: with the adapter, or, when `answer_with` is `base` and the verdict
is to comply, with the adapter off and without the thought in context, so that ability
on allowed requests is the base model's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from forethought.chat import encode_prompt, end_token
from forethought.errors import ModelError
from forethought.models.conversation import Able, Conversation, Failed, OnReply, Response
from forethought.models.decode import Decoder, VerdictTokens
from forethought.models.likelihood import log_probs
from forethought.models.settings import Settings, read_settings, write_settings
from forethought.models.turn import replies
from forethought.models.weights import DType, load_weights
from forethought.reasoning import VERDICT_ANCHOR, markers
from forethought.records import Message


class LocalModel:
    """A transformers model, its tokenizer and, when it was trained by us, its settings and its base."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        settings: Settings | None,
        base: Any = None,
        batch_size: int = 128,
        name: str | None = None,
    ) -> None:
        """`base` answers after `comply` when the settings say so; None switches the model's adapter off instead.

        `name` None is the tokenizer's.
        """
        self.name = name or str(tokenizer.name_or_path)
        self.model = model
        self.tokenizer = tokenizer
        self.settings = settings
        self.known_answers: dict[tuple[str, int], Response] = {}
        """The base's answers by (prompt text, token limit), where some run has them already."""
        self.known_replies: dict[tuple[Conversation, int], Response] = {}
        """The model's own replies by (conversation, token limit), likewise: of these weights at their own threshold."""
        self.on_progress: Callable[[int], None] | None = None
        """Called with the number of conversations finished, where a caller of `respond` gives nothing else."""
        ends = {end_token(tokenizer)} | ({tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set())
        self.base_weights: Any = base if base is not None else model
        """What answers after `comply` when the settings say so; within `adapter_off` these are the base model's."""
        self.batch_size = batch_size
        self._has_base = base is not None
        self.thinker = Decoder(model, tokenizer, frozenset(ends), batch_size)
        # A model that does not think answers with its own weights, whatever stands beside it.
        answering, around = (self.base_weights, self.adapter_off) if self.thinks else (model, None)
        self.answerer = Decoder(answering, tokenizer, frozenset(ends), batch_size, around=around)

    @classmethod
    def load(cls, name: str, adapter: Path | None = None, dtype: DType = "auto", batch_size: int = 128) -> LocalModel:
        """Loads a model by name or folder, or a trained folder: an adapter (which names its base), or all weights.

        The adapter of a small model is merged, which decodes about twice as fast, and the
        base stands beside it; a large model switches its adapter on and off instead. Beside all weights the base
        stands where it answers. Raises ModelError when a folder can't be read or an adapter is not one of ours.
        """
        found = load_weights(name, adapter, dtype)
        return cls(found.model, found.tokenizer, found.settings, found.base, batch_size, found.name)

    @property
    def thinks(self) -> bool:
        """Whether it was trained to reason before it answers."""
        return self.thinking is not None

    @property
    def thinking(self) -> Settings | None:
        """How it thinks; None for a model that answers at once, trained or not."""
        return self.settings if self.settings is not None and self.settings.thinks else None

    @property
    def trained(self) -> bool:
        """Whether it is a model that we trained, and no base model."""
        return self.settings is not None

    @property
    def context_tokens(self) -> int:
        """Most tokens that its positions reach, prompt and answer together."""
        config = getattr(self.model, "config", None)
        return int(getattr(config, "max_position_embeddings", None) or 1_000_000)

    @property
    def able(self) -> Able:
        """All but a thought's budget always; a thought can be cut where there is one."""
        return Able(prefill=True, budget=self.thinks, log_probs=True, sampling=True)

    def reply(
        self,
        conversations: Sequence[Conversation],
        max_answer_tokens: int = 128,
        on_reply: OnReply | None = None,
        threshold: float | None = None,
    ) -> list[Response | Failed]:
        """One reply a conversation, in order; equal conversations are decoded once. How prefills are read: `turn.py`.

        A conversation with a temperature is sampled, thought and answer; the verdict is still the threshold's, by
        log-odds read at temperature 1. Samples of one conversation need different seeds.

        `threshold` None is the model's own operating point. A conversation that its chat template does not take, or
        that is longer than its context, is Failed. Raises ModelError when the model can't be asked at all.
        """
        return replies(self, conversations, max_answer_tokens, threshold, on_reply)

    def respond(
        self,
        conversations: Sequence[Sequence[Message]],
        max_answer_tokens: int = 128,
        think_budget: int | None = None,
        threshold: float | None = None,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Response]:
        """`reply` for callers that have messages alone, with one budget for all.

        `think_budget`: tokens of thought after which a verdict is asked for; None is the model's own. `on_done(n)`
        reports finished conversations. Raises ModelError for a conversation without a response, too.
        """
        asked = [Conversation(messages=tuple(turns), think_budget=think_budget) for turns in conversations]
        return self._all_there(replies(self, asked, max_answer_tokens, threshold, _counted(on_done)))

    def think(
        self,
        conversations: Sequence[Sequence[Message]],
        think_budget: int | None = None,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Response]:
        """Thoughts up to the verdict, with its log-odds and without an answer.

        Raises ModelError for a model that was not trained to think.
        """
        if not self.thinks:
            raise ModelError(self.name, "was not trained to reason", "Train one that is: forethought train")
        asked = [Conversation(messages=tuple(turns), think_budget=think_budget) for turns in conversations]
        return self._all_there(replies(self, asked, 0, None, _counted(on_done)))

    def log_probs(
        self,
        conversations: Sequence[Conversation],
        target_strings: Sequence[str],
        first_only: Sequence[bool] | bool = False,
    ) -> list[float]:
        """Natural log-probability of each text in the model's turn; see `likelihood.log_probs`."""
        return log_probs(self, conversations, target_strings, first_only)

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The rendered prompt, as the model sees it."""
        return str(self.tokenizer.decode(encode_prompt(self.tokenizer, messages)))

    def _all_there(self, given: Sequence[Response | Failed]) -> list[Response]:
        responses = []
        for reply in given:
            if isinstance(reply, Failed):
                raise ModelError(self.name, reply.cause, "Change that conversation, or use another model")
            responses.append(reply)
        return responses

    def verdict_tokens(self) -> VerdictTokens:
        """What the decoder steers by. Raises ModelError where the tokenizer can't tell the verdicts apart."""
        assert self.thinking is not None
        refuse, comply = self.ids(" refuse"), self.ids(" comply")
        if refuse[0] == comply[0]:
            raise ModelError(
                self.tokenizer.name_or_path, "its tokenizer begins both verdicts alike", "Use another model"
            )
        closing = markers(self.thinking.format)[1]
        return VerdictTokens(
            anchor=VERDICT_ANCHOR,
            lead_in=tuple(self.ids("\n" + VERDICT_ANCHOR)),
            refuse=tuple(refuse),
            comply=tuple(comply),
            closing=closing,
            close=tuple(self.ids(f"\n{closing}\n")),
        )

    def adapter_off(self) -> contextlib.AbstractContextManager[Any]:
        """While it lasts, the weights are the base model's. Raises ModelError without an adapter to switch off."""
        if self._has_base:
            return contextlib.nullcontext()
        disable = getattr(self.model, "disable_adapter", None)
        if disable is None:
            raise ModelError(
                "answer_with: base",
                "the model has no adapter to switch off",
                "Set answer_with: adapter, or don't merge",
            )
        manager: contextlib.AbstractContextManager[Any] = disable()
        return manager

    def ids(self, text: str) -> list[int]:
        """Token ids of a text by itself, without special tokens around it."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def text(self, ids: list[int]) -> str:
        """Text of token ids, without special tokens and outer space."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()


def _counted(on_done: Callable[[int], None] | None) -> OnReply | None:
    return None if on_done is None else lambda place, reply: on_done(1)


def as_messages(text: str, system: str | None = None) -> tuple[Message, ...]:
    """A user's text as a conversation, behind a system prompt when given."""
    head = (Message(role="system", content=system),) if system else ()
    return (*head, Message(role="user", content=text))


__all__ = ["LocalModel", "Settings", "as_messages", "read_settings", "write_settings"]
