"""The models that searches put questions to, as the driver needs them: log-probabilities, and texts of writers."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from forethought.attacks.rewritten import EMPTY
from forethought.attacks.searches.base import Reply, Score, Write, digest
from forethought.errors import ForethoughtError, ModelError
from forethought.models.conversation import Conversation, Failed, Respondent, Response, TellsLogProbs
from forethought.records import Message
from forethought.store import read_store

if TYPE_CHECKING:
    from inspect_ai.model import Model

    from forethought.models.callspec import CallSettings

NO_LOG_PROBS = "the attacked model tells no log-probabilities"


def log_probs_of(target: Respondent, asked: Sequence[Score]) -> list[float | Failed]:
    """The log-probability of each text, or why there is none."""
    if not isinstance(target, TellsLogProbs) or not target.able.log_probs:
        return [Failed(cause=NO_LOG_PROBS)] * len(asked)
    try:
        found = target.log_probs(
            [one.attacked.conversation for one in asked],
            [one.target_string for one in asked],
            [one.first_only for one in asked],
        )
    except ForethoughtError as error:
        if len(asked) == 1:
            return [Failed(cause=error.rule)]
        # One prompt that is too long must not fail the questions of other searches.
        return [found for one in asked for found in log_probs_of(target, [one])]
    return [value if math.isfinite(value) else Failed(cause="the log-probability is not finite") for value in found]


OnText = Callable[[int, Reply], None]
"""(place in what was asked, what came back); told again where the tokens are known later than the text."""


class TextModel(Protocol):
    """A model that writes texts: the attacker or the evaluator."""

    name: str

    def write(self, asked: Sequence[Write], on_text: OnText) -> None:
        """One text for each, told as soon as it is there. Raises ModelError where nothing works at all."""
        ...


def text_model(model: str | Model | Respondent, settings: CallSettings | None = None) -> TextModel:
    """A writer over a local model, or over one that inspect-ai opens (`openai/...`, `vllm/...`)."""
    from inspect_ai.model import Model

    return RemoteWriter(model, settings) if isinstance(model, str | Model) else LocalWriter(model)


class LocalWriter:
    """A local model that writes. It decodes greedily, whatever the temperature.

    Repeated samples of one prompt are told apart by a last line of the prompt that numbers them.
    """

    def __init__(self, model: Respondent) -> None:
        self.name = model.name
        self._model = model

    def write(self, asked: Sequence[Write], on_text: OnText) -> None:
        """See TextModel."""
        for limit in sorted({one.max_tokens for one in asked}):
            places = [place for place, one in enumerate(asked) if one.max_tokens == limit]
            conversations = [Conversation(messages=_numbered(asked[place])) for place in places]

            def told(place: int, reply: Response | Failed, places: list[int] = places) -> None:
                on_text(places[place], _written(reply))

            self._model.reply(conversations, limit, told)


def _numbered(asked: Write) -> tuple[Message, ...]:
    *earlier, last = asked.messages
    if not asked.take or not asked.temperature:
        return asked.messages
    return (*earlier, last.model_copy(update={"content": f"{last.content}\n\n(Draft {asked.take}.)"}))


def _written(reply: Response | Failed) -> Reply:
    if isinstance(reply, Failed):
        return Reply(cause=reply.cause)
    tokens = reply.prompt_tokens + reply.reasoning_tokens + reply.answer_tokens
    return Reply(text=reply.answer, tokens=tokens) if reply.answer.strip() else Reply(tokens=tokens, cause=EMPTY)


class RemoteWriter:
    """A model of inspect-ai that writes, through the one runner of model calls."""

    def __init__(self, model: str | Model, settings: CallSettings | None = None) -> None:
        from forethought.models.callspec import CallSettings

        self.name = str(model)
        self._model = model
        # One attempt: a search has its own ways with a text that it can't read.
        self._settings = settings or CallSettings(attempts=1, timeout_s=120, max_retries=3)
        self._worked = False

    def write(self, asked: Sequence[Write], on_text: OnText) -> None:
        """See TextModel. A server that is down for a while fails the texts of that while."""
        # The runner asks equal conversations of one run once; samples that are to differ go into different runs.
        waves: dict[tuple[float, int], list[int]] = {}
        seen: Counter[Any] = Counter()
        for place, one in enumerate(asked):
            same = (one.messages, one.max_tokens, one.temperature)
            waves.setdefault((one.temperature, seen[same]), []).append(place)
            seen[same] += 1
        for (temperature, _), places in waves.items():
            self._wave(asked, places, temperature, on_text)

    def _wave(self, asked: Sequence[Write], places: Sequence[int], temperature: float, on_text: OnText) -> None:
        from forethought.models.calls import run_calls
        from forethought.models.callspec import Answer, Call, Reject

        calls = [Call(key=str(p), messages=asked[p].messages, max_tokens=asked[p].max_tokens) for p in places]
        # Other takes of the same texts get another seed, from providers that have one.
        seed = int(digest([asked[p].take for p in places], self._settings.seed)[:7], 16)
        settings = self._settings.model_copy(update={"temperature": temperature, "seed": seed})

        told: set[int] = set()

        def read(key: str, text: str) -> str | Reject:
            if not text.strip():
                return Reject(EMPTY)
            told.add(int(key))
            on_text(int(key), Reply(text=text))  # its tokens are known at the end
            return text

        with tempfile.TemporaryDirectory() as folder:
            journal = Path(folder) / "answers.jsonl"
            try:
                results = run_calls(self._model, calls, journal, settings, read)
            except ModelError as error:
                if not self._worked and not told:
                    raise
                for place in set(places) - told:
                    on_text(place, Reply(cause=error.rule))
                return
            answers = read_store(journal, Answer).values()
        self._worked = self._worked or bool(results.values)
        for place in places:
            key = str(place)
            mine = (answer for answer in answers if answer.call == key)
            tokens = sum(answer.input_tokens + answer.output_tokens for answer in mine)
            on_text(place, Reply(text=results.values.get(key), tokens=tokens, cause=results.dropped.get(key, "")))
