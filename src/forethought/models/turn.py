"""The model's own turn: what a prefill has opened already, and what was decoded read back as a response.

A prefill leaves a model that thinks in one of three states:

- the thought is *open*, with no verdict in it: the model thinks on, still watched, and its verdict is read at
  the anchor;
- it is *decided*: the thought is open and holds a verdict. There is nothing left to read: the decision is the one that
  was put there, without log-odds, and the weights that think also answer;
- the *answer* has begun, after a thought that was closed or without one: the defence's verdict is bypassed, and the
  weights that think go on unwatched. That is what an attacker with access to the prompt gets.

What the prefill holds belongs to the response: its thought to the reasoning, its answer to the answer. Tokens are
counted where they were generated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from forethought.chat import encode_prompt
from forethought.errors import ModelError
from forethought.models.conversation import Conversation, Failed, OnReply, Response
from forethought.models.decode import Row, draws_for, in_order
from forethought.policy import Policy
from forethought.reasoning import Decision, Format, Parsed, markers, parse
from forethought.records import Message, Record

if TYPE_CHECKING:
    from forethought.models.local import LocalModel

NO_VERDICT = "the model's turn was begun for it: no verdict was read"
PREFILLED_VERDICT = "the verdict was put into the model's turn"
LED = "the verdict had to be asked for"


class Opened(Record):
    """How a prefill leaves the turn of a model that thinks."""

    state: Literal["open", "decided", "answer"] = "open"
    parsed: Parsed | None = None
    """Its thought; None where there is none."""
    answer: str = ""
    """Its part of the answer, as it stands."""

    @property
    def decision(self) -> Decision | None:
        """The verdict that the prefill holds."""
        return self.parsed.reasoning.verdict if self.parsed is not None and self.parsed.reasoning is not None else None


@dataclass(frozen=True)
class Turn:
    """A turn to be decoded."""

    places: list[int]
    """Where in what was asked its conversation stands."""
    row: Row
    prompt: list[int]
    """Token ids of the conversation, without anything of the model's own turn."""
    own: str
    """What the model's turn begins with: the prefill, or the thought's opening marker."""
    opened: Opened
    temperature: float = 0.0
    sample_seed: int = 0

    @property
    def sample(self) -> tuple[float, int]:
        """Temperature and seed that its answer is drawn with; all greedy ones are the same."""
        return (self.temperature, self.sample_seed) if self.temperature else (0.0, 0)


def opened_by(prefill: str, policy: Policy, fmt: Format) -> Opened:
    """What a prefill opens. An empty one opens nothing: the model thinks from its start."""
    if not prefill:
        return Opened()
    opening, closing = markers(fmt)
    _, begins, rest = prefill.partition(opening)
    if not begins:
        return Opened(state="answer", answer=prefill)
    # A heading begins a line; a tag closes anywhere.
    pattern = rf"(?m)^{re.escape(closing)}\b" if closing.startswith("#") else re.escape(closing)
    ends = list(re.finditer(pattern, rest))
    if ends:
        thought, answer = rest[: ends[-1].start()], rest[ends[-1].end() :]
        return Opened(state="answer", parsed=parse(f"{opening}{thought}", policy), answer=answer.lstrip())
    parsed = parse(prefill, policy)
    undecided = parsed.reasoning is None and parsed.cause == "no verdict in the reasoning"
    return Opened(state="open" if undecided else "decided", parsed=parsed)


def read_answer_turn(opened: Opened, text: str, prompt_tokens: int, made_tokens: int) -> Response:
    """A turn whose answer had begun: `text` is all of it after the thought, the prefill's part included."""
    parsed = opened.parsed
    return Response(
        reasoning_text=parsed.reasoning_text if parsed is not None else "",
        reasoning=parsed.reasoning if parsed is not None else None,
        answer=text,
        decision=opened.decision,
        cause=PREFILLED_VERDICT if opened.decision is not None else NO_VERDICT,
        prompt_tokens=prompt_tokens,
        answer_tokens=made_tokens,
    )


def behind(thought: Response | None, answer: Response) -> Response:
    """An answer as the whole response, or behind the thought that allowed it."""
    if thought is None:
        return answer
    return thought.model_copy(update={"answer": answer.answer, "answer_tokens": answer.answer_tokens})


# Conversations to rows, rows to responses: thoughts first, answers as thoughts allow them, without a barrier.
#
# The stream of answers draws on the stream of thoughts: when answers run low, thoughts run until there is enough to
# answer. On one device nothing is gained by more, and no more is held than a wave of each.

_PROBE = (Message(role="user", content="x"),)
_Asked = tuple[tuple[int, ...], tuple[float, int]]
"""(prompt, which sample of it) that an answer is asked for."""


def replies(
    model: LocalModel,
    conversations: Sequence[Conversation],
    max_answer_tokens: int,
    threshold: float | None = None,
    on_reply: OnReply | None = None,
) -> list[Response | Failed]:
    """One reply a conversation, in order; `max_answer_tokens` 0 stops thoughts at their verdict.

    `threshold` None is the model's own operating point.
    """
    return _Asking(model, len(conversations), max_answer_tokens, threshold, on_reply).all(conversations)


class _Asking:
    """One call's state."""

    def __init__(
        self, model: LocalModel, count: int, max_tokens: int, threshold: float | None, on_reply: OnReply | None
    ) -> None:
        self._model, self._max_tokens, self._on_reply = model, max_tokens, on_reply
        own = model.thinking.threshold if model.thinking is not None else 0.0
        self._threshold = own if threshold is None else threshold
        self._said = model.known_replies if self._threshold == own else {}
        self._replies: list[Response | Failed | None] = [None] * count

    def all(self, conversations: Sequence[Conversation]) -> list[Response | Failed]:
        encode_prompt(self._model.tokenizer, _PROBE)  # a model without a usable template is no matter of one row
        places: dict[Conversation, list[int]] = {}
        for place, conversation in enumerate(conversations):
            places.setdefault(conversation, []).append(place)
        turns: dict[int, Turn] = {}
        for conversation, found in places.items():
            said = self._said.get((conversation, self._max_tokens))
            if said is not None:
                self._deliver(found, said)
                continue
            turn = self._turn(conversation, found)
            if isinstance(turn, Failed):
                self._deliver(found, turn)
            else:
                turns[id(turn.row)] = turn
        self._run(turns)
        return [reply if reply is not None else Failed(cause="no reply") for reply in self._replies]

    def _deliver(self, places: Sequence[int], reply: Response | Failed) -> None:
        for place in places:
            self._replies[place] = reply
            if self._on_reply is not None:
                self._on_reply(place, reply)
        if self._on_reply is None and self._model.on_progress is not None:
            self._model.on_progress(len(places))

    def _turn(self, conversation: Conversation, places: list[int]) -> Turn | Failed:
        """A conversation as a row to decode, or why it can't be one."""
        model = self._model
        try:
            prompt = encode_prompt(model.tokenizer, conversation.messages)
        except ModelError as error:
            return Failed(cause=error.rule)
        settings = model.thinking
        if settings is None:
            opened, own = Opened(state="answer", answer=conversation.prefill), conversation.prefill
        else:
            opened = opened_by(conversation.prefill, settings.policy, settings.format)
            own = conversation.prefill or markers(settings.format)[0] + "\n"
        own_ids = model.ids(own) if own else []
        row = Row(0, prompt + own_ids, self._max_tokens, opened=len(own_ids))
        row.draws = draws_for(conversation.temperature, conversation.sample_seed, row.prompt)
        if len(row.prompt) >= model.context_tokens:
            return Failed(cause=f"the prompt is longer than the model's context of {model.context_tokens} tokens")
        row.watch = opened.state != "answer"
        row.stop_at_verdict = row.watch and self._max_tokens == 0
        if opened.state == "open":
            assert settings is not None  # without settings there is no thought to open
            row.stop_at_comply = settings.answer_with == "base"
            budget = conversation.think_budget
            row.think_budget = settings.think_budget if budget is None else budget
        elif opened.state == "decided":
            row.verdict_at, row.refuses = 0, opened.decision == "refuse"
        return Turn(places, row, prompt, own, opened, conversation.temperature, conversation.sample_seed)

    def _run(self, turns: dict[int, Turn]) -> None:
        rows = in_order([turn.row for turn in turns.values()])
        if not self._model.thinks:
            self._answer((turns[id(row)], None) for row in rows)
        else:
            self._answer(self._allowed(rows, turns))

    def _allowed(self, rows: Sequence[Row], turns: dict[int, Turn]) -> Iterator[tuple[Turn, Response | None]]:
        """Thoughts that the base's answer is to follow; what is finished without it is delivered on the way."""
        for row in self._model.thinker.stream(iter(rows), self._model.verdict_tokens(), self._threshold):
            turn = turns[id(row)]
            response = self._read(turn)
            if row.stop_at_comply and not row.stop_at_verdict and row.refuses is False:
                yield turn, response
            else:
                self._deliver(turn.places, response)

    def _answer(self, asked: Iterator[tuple[Turn, Response | None]]) -> None:
        """Answers to turns, each behind its thought where there is one; a prompt is answered once a sample.

        A model that doesn't think has the answer's opening in its row; behind a thought the plain prompt is asked.
        """
        waiting: dict[_Asked, list[tuple[Turn, Response | None]]] = {}
        known: dict[_Asked, Response] = {}
        asked_by: dict[int, _Asked] = {}

        def rows() -> Iterator[Row]:
            for turn, thought in asked:
                prompt = turn.row.prompt if thought is None else turn.prompt
                key = (tuple(prompt), turn.sample)
                if key in waiting:
                    waiting[key].append((turn, thought))
                elif (answer := known.get(key) or self._known(turn, thought)) is not None:
                    known[key] = answer
                    self._deliver(turn.places, behind(thought, answer))
                else:
                    waiting[key] = [(turn, thought)]
                    row = Row(0, prompt, self._max_tokens, draws=draws_for(*turn.sample, prompt))
                    asked_by[id(row)] = key
                    yield row

        for row in self._model.answerer.stream(rows()):
            key = asked_by.pop(id(row))
            turn, thought = waiting[key][0]
            own = self._model.ids(turn.own) if thought is None and turn.own else []
            known[key] = Response(
                answer=self._model.text(own + row.made), prompt_tokens=len(row.prompt), answer_tokens=len(row.made)
            )
            for turn, thought in waiting.pop(key):
                self._deliver(turn.places, behind(thought, known[key]))

    def _known(self, turn: Turn, thought: Response | None) -> Response | None:
        """An answer of the base that some other run has already."""
        own_weights = self._model.trained and not self._model.thinks
        if not self._model.known_answers or own_weights or turn.temperature or (thought is None and turn.own):
            return None
        return self._model.known_answers.get((str(self._model.tokenizer.decode(turn.prompt)), self._max_tokens))

    def _read(self, turn: Turn) -> Response:
        """A decoded row as a response; its parts are cut where the thought closes."""
        model, settings = self._model, self._model.thinking
        assert settings is not None
        row, opened = turn.row, turn.opened
        if opened.state == "answer":
            text = model.text(model.ids(opened.answer) + row.made)
            return read_answer_turn(opened, text, len(row.prompt), len(row.made))
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
