"""What searches with an attacker model share: prompts, replies read with suspicion, the chat, tries and counts."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from json_repair import repair_json

from forethought.attacks.base import Attacked, Family, Options
from forethought.attacks.base import fill as fill_places
from forethought.attacks.rewritten import EMPTY, REFUSED, Unfit, read_rewrite
from forethought.attacks.searches.base import (
    Ask,
    Compute,
    Goal,
    Question,
    Questions,
    Replies,
    Reply,
    Write,
)
from forethought.judges.graders import fence_mark, fenced
from forethought.records import Message, Record
from forethought.refusal import refusal_outcome

NOT_JSON = "the attacker wrote no JSON that holds a message"
NOT_RATED = "not rated"
Leaf = TypeVar("Leaf")


def prompts(name: str) -> Mapping[str, str]:
    """The texts of a method by name. The words are this project's own."""
    return Family.read(f"searches/{name}").texts


def fill(template: str, values: Mapping[str, str | int]) -> str:
    """The template with each `{name}` replaced, once, and no space around it. Raises ConfigError for one without."""
    return fill_places(template, values).strip()


def question(system: str, user: str, values: Mapping[str, str | int]) -> tuple[Message, ...]:
    """What a writer is asked once: two templates, filled."""
    return Message(role="system", content=fill(system, values)), Message(role="user", content=fill(user, values))


def shown(name: str, text: str) -> str:
    """A text of a benchmark or a model, between tags that it can't close."""
    return fenced(name, fence_mark(text), text.strip() or "(empty)")


@dataclass(frozen=True)
class Form:
    """The JSON object that an attacker is asked for."""

    message: str
    """Key of the text for the attacked model."""
    remarks: tuple[str, ...]
    """Keys of what the attacker says to itself; they may be missing."""


class Turn(Record):
    """A message that the attacker wrote."""

    text: str
    """For the attacked model."""
    as_written: str
    """The JSON for the attacker's own history, remarks included."""
    plain: bool = False
    """True where there was no JSON and the whole text was taken."""


def without_thought(text: str) -> str:
    """The text after a reasoning model's thought; empty where the thought doesn't end."""
    said = re.sub(r"(?s)\A\s*<think>.*?</think>", "", text).strip()
    return "" if said.startswith("<think>") else said


def read_turn(text: str, form: Form) -> Turn | Unfit:
    """The message of an attacker's JSON, damaged JSON repaired; Unfit with few different causes else."""
    said = without_thought(text)
    if not said:
        return Unfit(EMPTY)
    found = _object(said, form)
    message = found.get(form.message)
    # A small model copies the form that it is shown, dots and all.
    if isinstance(message, str) and any(character.isalnum() for character in message):
        kept = {key: found[key] for key in (*form.remarks, form.message) if isinstance(found.get(key), str)}
        return Turn(text=message.strip(), as_written=json.dumps(kept, ensure_ascii=False))
    # Before the JSON alone: what stands in it may quote the words of a refusal, to rule them out.
    return Unfit(REFUSED if refusal_outcome(said.partition("{")[0])[0] == "refused" else NOT_JSON)


def read_plain(text: str, form: Form, original: str) -> Turn | Unfit:
    """The whole text as the message, for attackers that don't write JSON. Broken JSON is none."""
    said = without_thought(text)
    if "{" in said:
        return Unfit(NOT_JSON)
    message = read_rewrite(said, original, changes_words=False)
    if isinstance(message, Unfit):
        return message
    if not any(character.isalnum() for character in message):
        return Unfit(EMPTY)
    as_written = json.dumps({form.message: message}, ensure_ascii=False)
    return Turn(text=message, as_written=as_written, plain=True)


def _object(said: str, form: Form) -> dict[str, Any]:
    """The first JSON object with a message in it, strictly read where that goes; else an empty one."""
    body = re.sub(r"(?s)\A```(?:json)?\s*(.*?)\s*```\Z", r"\1", said)
    loaded: Any = None
    try:
        loaded = json.loads(body)
    except (ValueError, RecursionError):
        if "{" in body:
            with contextlib.suppress(ValueError, RecursionError):
                loaded = repair_json(body[body.index("{") :], return_objects=True, skip_json_loads=True)
    found = loaded if isinstance(loaded, list) else [loaded]
    return next((one for one in found if isinstance(one, dict) and form.message in one), {})


def yes_or_no(text: str | None) -> bool | None:
    """The decision of an evaluator that was asked for `[[YES]]` or `[[NO]]` alone; None for all else.

    The first line has to be the decision and nothing besides: a yes found somewhere in a sentence decides nothing.
    """
    lines = without_thought(text or "").splitlines()
    found = re.fullmatch(r"\W*(yes|no)\W*", lines[0], re.IGNORECASE) if lines else None
    others = {word.lower() for word in re.findall(r"(?i)\[\[(yes|no)\]\]", " ".join(lines[1:]))}
    if found is None or others - {found[1].lower()}:
        return None
    return found[1].lower() == "yes"


def rating_said(rating: int | None) -> str:
    """A rating from 1 to 10 in words for the attacker; one that is unscored is said to be so, and never a 1."""
    return NOT_RATED if rating is None else f"{rating} of 10"


def best_first(leaves: Sequence[Leaf], rating: Callable[[Leaf], int | None], rng: random.Random) -> list[Leaf]:
    """Highest rating first, equal ones in random order, those without a rating last."""
    shuffled = list(leaves)
    rng.shuffle(shuffled)
    return sorted(shuffled, key=lambda leaf: -(rating(leaf) or 0))


_COUNTED = {REFUSED: "attacker_refused", EMPTY: "attacker_empty"}


@dataclass(frozen=True)
class Chat:
    """One conversation with the attacker, up to what it is told next."""

    system: str
    told: str
    """The next user turn."""
    past: tuple[Message, ...] = ()
    """What was told and written before, in turn."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """As the attacker is given it."""
        return (Message(role="system", content=self.system), *self.past, Message(role="user", content=self.told))

    def went(self, turn: Turn, told: str, keep: int) -> Chat:
        """The chat after the attacker wrote a turn and is told what came of it; the last `keep` exchanges stay."""
        new = (Message(role="user", content=self.told), Message(role="assistant", content=turn.as_written))
        return replace(self, told=told, past=(*self.past, *new)[-2 * keep :] if keep else ())


class RedTeam:
    """The attacking side of one search.

    `counts` says how often what happened. Searches hand them to the driver as `notes/N`, a Compute that costs nothing,
    beside each batch of questions: what was refused, damaged or lost on the attacker's side stands in the journal.
    """

    def __init__(self, name: str, goal: Goal, rng: random.Random, options: Options, form: Form) -> None:
        """`options`: `tries`, `attacker_tokens`, `without_json`, and `evaluator_tokens` where `decide` is used."""
        self.name = name
        self.goal = goal
        self.form = form
        self.options = options
        self.counts: Counter[str] = Counter()
        # Another seed asks for other samples of the same prompt. A greedy attacker reads the number: it is kept short.
        self._takes = itertools.count(1 + rng.randrange(1_000_000))
        self._notes = itertools.count(1)

    def texts(self, **values: str | int) -> dict[str, str | int]:
        """Values for prompts: the request, the wished opening, and those given."""
        asked = {
            "request": shown("request", self.goal.request.plain),
            "target": shown("opening", self.goal.target_string),
        }
        return {**asked, **values}

    def chat(self, prompts: Mapping[str, str], **values: str | int) -> Chat:
        """A chat at its start, from the texts `system` and `first`."""
        filled = self.texts(**values)
        return Chat(system=fill(prompts["system"], filled), told=fill(prompts["first"], filled))

    def write(self, chats: Sequence[Chat]) -> Generator[Questions, Replies, list[Turn | None]]:
        """A turn of the attacker for each chat, asked again until it can be read; None where no try could be."""
        turns: list[Turn | None] = [None] * len(chats)
        plain: dict[int, Turn] = {}
        for _ in range(int(self.options["tries"])):
            missing = [place for place, turn in enumerate(turns) if turn is None]
            if not missing:
                break
            tokens = int(self.options["attacker_tokens"])
            replies = yield [
                Write(role="attacker", messages=chats[place].messages, max_tokens=tokens, take=next(self._takes))
                for place in missing
            ]
            for place, reply in zip(missing, replies, strict=True):
                turns[place] = self._read(reply)
                spare = read_plain(reply.text or "", self.form, self.goal.request.plain)
                if isinstance(spare, Turn):
                    plain[place] = spare
        takes_plain = self.options["without_json"] == "plain_text"
        for place, turn in enumerate(turns):
            if turn is None:
                turns[place] = plain.get(place) if takes_plain else None
                self.counts["turns_lost" if turns[place] is None else "plain_text_taken"] += 1
        if None in turns:
            yield [self.note()]
        return turns

    def ask(self, messages: Sequence[str], after: Sequence[Message] = ()) -> Generator[Questions, Replies, list[Reply]]:
        """The attacked model's reply to each message.

        A message stands in the place of the goal's last turn, behind the turns in `after`.
        """
        if not messages:
            return []
        self.counts["asked"] += len(messages)
        # The judge is given `plain`, which stays what is really asked.
        start = Attacked(request=self.goal.request, lineage=(self.name,))
        asks = [Ask(attacked=start.said(message).after(tuple(after))) for message in messages]
        # The note stands first: it is kept where the budget cuts the asks short.
        replies = list((yield [self.note(), *asks]))[1:]
        for reply in replies:
            self.counts["no_response"] += reply.response is None
            self.counts["empty_answers"] += answer_of(reply) == ""
            self.counts["unscored"] += reply.response is not None and reply.broken is None
        return replies

    def decide(
        self, questions: Sequence[tuple[Message, ...]], undecided: str
    ) -> Generator[Questions, Replies, list[bool | None]]:
        """The evaluator's yes or no to each; None is counted as `undecided`."""
        if not questions:
            return []
        tokens = int(self.options["evaluator_tokens"])
        asked = [Write(role="evaluator", messages=one, max_tokens=tokens, temperature=0.0) for one in questions]
        replies = yield asked
        found = [yes_or_no(reply.text) for reply in replies]
        self.counts[undecided] += found.count(None)
        return found

    def note(self) -> Question:
        """The counts so far, for the journal."""
        so_far = {name: count for name, count in sorted(self.counts.items()) if count}
        return Compute(name=f"notes/{next(self._notes)}", work=lambda: dict(so_far))

    def _read(self, reply: Reply) -> Turn | None:
        self.counts["attacker_calls"] += 1
        if reply.text is None:
            self.counts[_COUNTED.get(reply.cause, "attacker_failed")] += 1
            return None
        read = read_turn(reply.text, self.form)
        if isinstance(read, Unfit):
            self.counts[_COUNTED.get(read.cause, "attacker_malformed")] += 1
            return None
        return read


def answer_of(reply: Reply) -> str | None:
    """The answer alone, as a chat's history holds it, without reasoning; None where there is no response."""
    return None if reply.response is None else reply.response.answer.strip()


def exchange(question: str, answer: str) -> tuple[Message, Message]:
    """A turn of the user and the model's answer, for the attacked conversation."""
    return Message(role="user", content=question), Message(role="assistant", content=answer)
