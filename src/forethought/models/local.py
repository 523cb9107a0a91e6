"""A local model that thinks, decides and answers: batched, with or without an adapter.

Two steps that chat, evaluation and server share. Think up to the verdict and record its
log-odds; then answer: with the adapter, or, when `answer_with` is `base` and the verdict
is to comply, with the adapter off and without the thought in context, so that ability
on allowed requests is the base model's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forethought.chat import encode_prompt, end_tokens
from forethought.errors import InputError, ModelError
from forethought.models.conversation import (
    LED,
    NO_VERDICT,
    PREFILLED_VERDICT,
    Able,
    Conversation,
    Failed,
    OnReply,
    Opened,
    Response,
    Unanswered,
    opened_by,
)
from forethought.models.decode import Batch, Decoder, Row, VerdictTokens, Without, draws_for, in_order
from forethought.models.prefix import log_probs
from forethought.models.settings import Settings, read_settings
from forethought.models.weights import DType, load_shell, load_weights
from forethought.reasoning import VERDICT_ANCHOR, markers, parse
from forethought.records import Message

_WAVES, _WAVES_OF_A_GPU = 2, 16
"""Batches that are asked together: many enough that the emptying of the last weighs little, few enough to be asked
again where a run was killed among them."""
_PROBE = (Message(role="user", content="x"),)


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
        self.base_weights: Any = base if base is not None else model
        """What answers after `comply` when the settings say so; within `adapter_off` these are the base model's."""
        self.batch_size = batch_size
        self.leaves_answers: Callable[[Conversation], bool] = lambda conversation: False
        """To which conversations `reply` gives thoughts alone, with answers that are not refusals left to whoever
        asks."""
        self.prompt_ids: Callable[[Sequence[Message]], list[int]] = lambda messages: encode_prompt(tokenizer, messages)
        """Token ids of a conversation up to the model's own turn. Raises ModelError as `encode_prompt`."""
        self.reads_states: Callable[[Sequence[Sequence[int]], Sequence[int], bool], Any] | None = None
        """What reads hidden states in place of `last_states`, where several threads share the weights."""
        self._has_base = base is not None
        ends = self.ends = end_tokens(tokenizer)
        self.thinker = Decoder(model, tokenizer, ends, batch_size)
        self.answers_with_base = self.thinks
        """Whether the base may answer. A model that does not think answers with its own weights, whatever stands beside
        it, unless something around it decides: see `leave_to_base`."""
        answering, context = (self.base_weights, self.adapter_off) if self.thinks else (model, None)
        self.answerer = Decoder(answering, tokenizer, ends, batch_size, context=context)

    @classmethod
    def load(
        cls,
        name: str,
        adapter: Path | None = None,
        dtype: DType = "auto",
        batch_size: int = 128,
        mixed: bool = False,
    ) -> LocalModel:
        """Loads a model by name or folder, or a trained folder: an adapter (which names its base), or all weights.

        The adapter of a small model is merged, which decodes about twice as fast, and the
        base stands beside it; a large model switches its adapter on and off instead. Beside all weights the base
        stands where it answers. `mixed` switches even a small one's adapter where the base answers: rows with and
        without it then stand in one batch. Raises ModelError when a folder can't be read or an adapter is not one of
        ours.
        """
        found = load_weights(name, adapter, dtype, mixed)
        return cls(found.model, found.tokenizer, found.settings, found.base, batch_size, found.name)

    @classmethod
    def elsewhere(cls, name: str, folder: Path) -> LocalModel:
        """A trained folder whose weights are at a server: `thinker` and `reads_states` have to be set.

        Raises ModelError as `load`.
        """
        shell, tokenizer = load_shell(name)
        return cls(shell, tokenizer, read_settings(folder), shell, name=folder.name)

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
    def refuses_from(self) -> float | None:
        """Log-odds from which its verdict refuses; None for a model that gives none."""
        return self.thinking.threshold if self.thinking is not None else None

    def leave_to_base(self) -> None:
        """Has the base answer for a model that does not think: what is around it decides, by its states."""
        self.answers_with_base = True
        self.answerer = Decoder(self.base_weights, self.tokenizer, self.ends, self.batch_size, context=self.adapter_off)

    def at_once(self) -> LocalModel:
        """The same without a thought: what answers behind the verdict `comply` answers every request."""
        if self.settings is None or not self.thinks:
            return self
        settings = self.settings.model_copy(update={"thinks": False})
        base = self.base_weights if self._has_base else None
        model = LocalModel(self.model, self.tokenizer, settings, base, self.batch_size, self.name)
        model.known_answers, model.leaves_answers = self.known_answers, self.leaves_answers
        model.answers_with_base = self.settings.answer_with == "base"
        model.answerer = self.answerer if model.answers_with_base else self.thinker
        return model

    def as_base(self, name: str | None = None) -> LocalModel:
        """The model that it was trained from, which doesn't think; as long as `adapter_off` lasts. `name` None is the
        tokenizer's."""
        return LocalModel(self.base_weights, self.tokenizer, None, batch_size=self.batch_size, name=name)

    @property
    def context_tokens(self) -> int:
        """Most tokens that its positions reach, prompt and answer together."""
        config = getattr(self.model, "config", None)
        return int(getattr(config, "max_position_embeddings", None) or 1_000_000)

    @property
    def able(self) -> Able:
        """All but a thought's budget always; a thought can be cut where there is one."""
        waves = _WAVES if self.model.device.type == "cpu" else _WAVES_OF_A_GPU
        together = waves * self.batch_size
        return Able(prefill=True, budget=self.thinks, log_probs=True, sampling=True, together=together)

    def reply(
        self,
        conversations: Sequence[Conversation],
        max_answer_tokens: int = 128,
        on_reply: OnReply | None = None,
        threshold: float | None = None,
    ) -> list[Response | Failed]:
        """One reply a conversation, in order; equal conversations are decoded once. `opened_by` says how a prefill is
        read. `max_answer_tokens` 0 stops thoughts at their verdict.

        A conversation with a temperature is sampled, thought and answer; the verdict is still the threshold's, by
        log-odds read at temperature 1. Samples of one conversation need different seeds.

        `threshold` None is the model's own operating point. A conversation that its chat template does not take, or
        that is longer than its context, is Failed. Raises ModelError when the model can't be asked at all.
        """
        return _Replies(self, max_answer_tokens, threshold, on_reply).to(conversations)

    def written(self, left: Unanswered, max_answer_tokens: int) -> Iterator[Row]:
        """The answer that was left (`leaves_answers`), at each of its tokens. It ends where the context does."""
        batch = (self.thinker if left.by_thinker else self.answerer).batch()
        row = Row(0, list(left.prompt), max(min(max_answer_tokens, self.context_tokens - len(left.prompt)), 1))
        batch.join([row])
        while not row.done:
            batch.step()
            yield row

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
        told: OnReply | None = None if on_done is None else lambda place, reply: on_done(1)
        responses = []
        for reply in self.reply(asked, max_answer_tokens, told, threshold):
            if isinstance(reply, Failed):
                raise ModelError(self.name, reply.cause, "Change that conversation, or use another model")
            responses.append(reply)
        return responses

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
        return self.respond(conversations, 0, think_budget, on_done=on_done)

    def log_probs(
        self,
        conversations: Sequence[Conversation],
        target_strings: Sequence[str],
        first_only: Sequence[bool] | bool = False,
    ) -> list[float]:
        """Natural log-probability of each text in the model's turn, right after the prompt and its prefill.

        Summed over the text's tokens; `first_only` is that of its first token alone. The text is tokenised by itself,
        as a model writes it, and the weights are those that think where there are such.

        Raises InputError for a text without tokens or a prompt longer than the model's context, ModelError for a
        conversation that the chat template doesn't take.
        """
        firsts = [first_only] * len(conversations) if isinstance(first_only, bool) else first_only
        asked = []
        for conversation, text, first in zip(conversations, target_strings, firsts, strict=True):
            target = self.ids(text)[: 1 if first else None]
            if not target:
                raise InputError(f"target string '{text}'", "has no tokens", "Give a text")
            prompt = self.prompt_ids(conversation.messages) + self.ids(conversation.prefill)
            if len(prompt) + len(target) > self.context_tokens:
                raise InputError(
                    f"a prompt of {len(prompt)} tokens",
                    f"is more than the model's context of {self.context_tokens}",
                    "Shorten the conversation",
                )
            asked.append((tuple(prompt), tuple(target)))
        return log_probs(self.model, asked)

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The rendered prompt, as the model sees it."""
        return str(self.tokenizer.decode(self.prompt_ids(messages)))

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

    @property
    def has_base(self) -> bool:
        """Whether the base model can be had beside the trained one: not from merged or fully trained weights."""
        return self._has_base or hasattr(self.model, "disable_adapter")

    def batch(self) -> Batch | None:
        """One batch for thoughts and answers alike, where an adapter makes the difference (`Row.by_base`); None where
        each has weights of its own."""
        if self._has_base or not self.thinks or not hasattr(self.model, "disable_adapter"):
            return None
        return self.thinker.batch(self.verdict_tokens(), base=Without(self.adapter_off, self.model.active_adapter))

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


@dataclass(frozen=True)
class _Turn:
    """A turn of the model to be decoded."""

    conversation: Conversation
    places: list[int]
    """Where in what was asked its conversation stands."""
    row: Row
    prompt: list[int]
    """Token ids of the conversation, without anything of the model's own turn."""
    own: str
    """What the model's turn begins with: the prefill, or the thought's opening marker."""
    opened: Opened

    @property
    def sample(self) -> tuple[float, int]:
        """Temperature and seed that its answer is drawn with; all greedy ones are the same."""
        asked = self.conversation
        return (asked.temperature, asked.sample_seed) if asked.temperature else (0.0, 0)


class _Replies:
    """One call of `LocalModel.reply`: conversations to rows, rows to responses.

    Thoughts come first, answers as thoughts allow them, without a barrier: the stream of answers draws on the stream
    of thoughts. When answers run low, thoughts run until there is enough to answer. On one device nothing is gained by
    more, and no more is held than a wave of each.
    """

    def __init__(self, model: LocalModel, max_tokens: int, threshold: float | None, on_reply: OnReply | None) -> None:
        own = model.refuses_from or 0.0
        self._model, self._max_tokens, self._on_reply = model, max_tokens, on_reply
        self._threshold = own if threshold is None else threshold
        self._said = model.known_replies if self._threshold == own else {}
        self._replies: dict[int, Response | Failed] = {}

    def to(self, conversations: Sequence[Conversation]) -> list[Response | Failed]:
        self._model.prompt_ids(_PROBE)  # a model without a usable template is no matter of one row
        places: dict[Conversation, list[int]] = {}
        for place, conversation in enumerate(conversations):
            places.setdefault(conversation, []).append(place)
        turns: list[_Turn] = []
        for conversation, found in places.items():
            said = self._said.get((conversation, self._max_tokens))
            turn = said if said is not None else self._turn(conversation, found, len(turns))
            if isinstance(turn, _Turn):
                turns.append(turn)
            else:
                self._deliver(found, turn)
        rows = in_order([turn.row for turn in turns])
        self._answer(self._allowed(rows, turns) if self._model.thinks else self._to_answer(rows, turns))
        return [self._replies.get(place, Failed(cause="no reply")) for place in range(len(conversations))]

    def _deliver(self, places: Sequence[int], reply: Response | Failed) -> None:
        for place in places:
            self._replies[place] = reply
            if self._on_reply is not None:
                self._on_reply(place, reply)

    def _turn(self, conversation: Conversation, places: list[int], number: int) -> _Turn | Failed:
        """A conversation as a row to decode, or why it can't be one."""
        model, settings = self._model, self._model.thinking
        try:
            prompt = model.prompt_ids(conversation.messages)
        except ModelError as error:
            return Failed(cause=error.rule)
        if settings is None:
            opened, own = Opened(state="answer", answer=conversation.prefill), conversation.prefill
        else:
            opened = opened_by(conversation.prefill, settings.policy, settings.format)
            own = conversation.prefill or markers(settings.format)[0] + "\n"
        own_ids = model.ids(own) if own else []
        row = Row(number, prompt + own_ids, self._max_tokens, opened=len(own_ids))
        row.draws = draws_for(conversation.temperature, conversation.sample_seed, row.prompt)
        if len(row.prompt) >= model.context_tokens:
            return Failed(cause=f"the prompt is longer than the model's context of {model.context_tokens} tokens")
        row.watch = opened.state != "answer"
        row.stop_at_verdict = row.watch and self._max_tokens == 0
        if opened.state == "open":
            assert settings is not None  # without settings there is no thought to open
            row.stop_at_comply = settings.answer_with == "base" or model.leaves_answers(conversation)
            budget = conversation.think_budget
            row.think_budget = settings.think_budget if budget is None else budget
        elif opened.state == "decided":
            row.verdict_at, row.refuses = 0, opened.decision == "refuse"
        return _Turn(conversation, places, row, prompt, own, opened)

    def _allowed(self, rows: Iterable[Row], turns: Sequence[_Turn]) -> Iterator[tuple[_Turn, Response | None]]:
        """Thoughts that the base's answer is to follow; what is finished without it is delivered on the way."""
        for row in self._model.thinker.stream(iter(rows), self._model.verdict_tokens(), self._threshold):
            turn = turns[row.index]
            response = self._read(turn, row)
            if not row.stop_at_comply or row.stop_at_verdict or row.refuses is not False:
                self._deliver(turn.places, response)
            elif self._model.leaves_answers(turn.conversation):
                self._deliver(turn.places, self._unanswered(turn, response))
            else:
                yield turn, response

    def _to_answer(self, rows: Iterable[Row], turns: Sequence[_Turn]) -> Iterator[tuple[_Turn, Response | None]]:
        """Of a model that does not think, what it is to answer."""
        for row in rows:
            turn = turns[row.index]
            if self._model.leaves_answers(turn.conversation):
                self._deliver(turn.places, self._unanswered(turn, None))
            else:
                yield turn, None

    def _unanswered(self, turn: _Turn, thought: Response | None) -> Unanswered:
        """A thought that complies, or nothing at all, with what its answer would be decoded from."""
        model, row = self._model, turn.row
        settings = model.thinking
        by_thinker = (
            model.trained and not model.answers_with_base if settings is None else settings.answer_with == "adapter"
        )
        prompt = (*row.prompt, *row.made) if by_thinker or thought is None else tuple(turn.prompt)
        said = thought or Response(answer="", prompt_tokens=len(row.prompt))
        fields = {name: getattr(said, name) for name in Response.model_fields}
        return Unanswered(**fields | {"answer": ""}, prompt=prompt, by_thinker=by_thinker)

    def _answer(self, asked: Iterator[tuple[_Turn, Response | None]]) -> None:
        """Answers to turns, each behind its thought where there is one; a prompt is answered once a sample.

        A model that doesn't think has the answer's opening in its row; behind a thought the plain prompt is asked.
        """
        questions: list[tuple[tuple[int, ...], tuple[float, int]]] = []
        """(prompt, which sample of it), by the number of the answer's row."""
        waiting: dict[Any, list[tuple[_Turn, Response | None]]] = {}
        known: dict[Any, Response] = {}

        def rows() -> Iterator[Row]:
            for turn, thought in asked:
                prompt = turn.row.prompt if thought is None else turn.prompt
                question = (tuple(prompt), turn.sample)
                if question in waiting:
                    waiting[question].append((turn, thought))
                elif (answer := known.get(question) or self._known(turn, thought)) is not None:
                    known[question] = answer
                    self._deliver(turn.places, _behind(thought, answer))
                else:
                    waiting[question] = [(turn, thought)]
                    questions.append(question)
                    yield Row(len(questions) - 1, prompt, self._max_tokens, draws=draws_for(*turn.sample, prompt))

        model = self._model
        for row in model.answerer.stream(rows()):
            question = questions[row.index]
            turn, thought = waiting[question][0]
            own = model.ids(turn.own) if thought is None and turn.own else []
            known[question] = Response(
                answer=model.text(own + row.made), prompt_tokens=len(row.prompt), answer_tokens=len(row.made)
            )
            for turn, thought in waiting.pop(question):
                self._deliver(turn.places, _behind(thought, known[question]))

    def _known(self, turn: _Turn, thought: Response | None) -> Response | None:
        """An answer of the base that some other run has already."""
        model = self._model
        own_weights = model.trained and not model.answers_with_base
        if not model.known_answers or own_weights or turn.conversation.temperature or (thought is None and turn.own):
            return None
        return model.known_answers.get((str(model.tokenizer.decode(turn.prompt)), self._max_tokens))

    def _read(self, turn: _Turn, row: Row) -> Response:
        """A decoded row as a response; its parts are cut where the thought closes."""
        model, settings = self._model, self._model.thinking
        assert settings is not None
        opened = turn.opened
        if opened.state == "answer":
            return Response(
                reasoning_text=opened.parsed.reasoning_text if opened.parsed is not None else "",
                reasoning=opened.parsed.reasoning if opened.parsed is not None else None,
                answer=model.text(model.ids(opened.answer) + row.made),
                decision=opened.decision,
                cause=PREFILLED_VERDICT if opened.decision is not None else NO_VERDICT,
                prompt_tokens=len(row.prompt),
                answer_tokens=len(row.made),
            )
        # Not `model.text`: what was generated may go on in the middle of a word or a line.
        text = turn.own + str(model.tokenizer.decode(row.made, skip_special_tokens=True))
        parsed = parse(text, settings.policy)
        _, closed, tail = text.partition(markers(settings.format)[1])
        n_answer = len(model.ids(tail)) if closed else 0
        decided = PREFILLED_VERDICT if opened.state == "decided" else LED if row.led else ""
        return Response(
            reasoning_text=parsed.reasoning_text,
            reasoning=parsed.reasoning,
            answer=model.text(model.ids(parsed.answer)[: self._max_tokens]),
            decision=opened.decision if opened.state == "decided" else "refuse" if row.refuses else "comply",
            log_odds=row.log_odds,
            cause=parsed.cause or decided,
            prompt_tokens=len(row.prompt),
            reasoning_tokens=max(len(row.made) - n_answer, 0),
            answer_tokens=min(n_answer, self._max_tokens),
        )


def _behind(thought: Response | None, answer: Response) -> Response:
    """An answer as the whole response, or behind the thought that allowed it."""
    if thought is None:
        return answer
    return thought.model_copy(update={"answer": answer.answer, "answer_tokens": answer.answer_tokens})
