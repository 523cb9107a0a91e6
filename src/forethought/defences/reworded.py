"""Defences that put the request to the model otherwise: in other words, several times, or by its own parts.

Paraphrasing (Jain et al., arXiv 2309.00614): a suffix that was optimised token by token rarely survives. Meaning may
not survive either: measure capability, too.

SmoothLLM (Robey et al., arXiv 2310.03684): answers to several randomly perturbed copies of the request, and a vote.
Attacks that are optimised letter by letter break under perturbation; the request's meaning mostly does not.

Self-consistency, for uncertain verdicts: several thoughts about the same request, and what they hold together. Wang et
al. 2022 (arXiv 2203.11171) sample several chains of thought and take the answer that most of them reach. Here a verdict
has log-odds, so that their mean may stand for the vote. A model that can't sample is asked in several neutral frames
instead, each of which leads to a thought of its own.

A message that holds forged turns or thoughts is put to the model by its own parts as well. A forgery shifts what a
model thinks of the whole, whatever is asked. The request inside it is read as well by itself: a message is refused
where one of its parts is. A message without markers costs nothing more. It can be written as if turns of the assistant
or a finished thought were part of it (ChatBug: Jiang et al. 2024, arXiv 2406.12935; H-CoT: Kuo et al. 2025, arXiv
2502.12893). The markers of the common chat templates and thought tags are known, whatever model reads them: a forgery
for another template confuses as well.

A message whose letters were shuffled, cased at random or replaced is put in plain spelling (`spelling.py`), which is
then decided on and answered. It costs no call, and ordinary messages stay as they are.

A message that had to be solved is put again as the text that the thought found, by itself, and that is both judged and
answered. A verdict behind the thought is still pulled by what else stands in the message; and who makes a thought find
a harmless text gets an answer to that text. What it spelt letter by letter is read as the words of a dictionary.
"""

from __future__ import annotations

import math
import random
import re
import string
from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import Field

from forethought.defences.base import (
    REFUSAL,
    Asked,
    Steps,
    Wrapper,
    conversation_key,
    described,
    fenced_question,
    last_user,
    refuses,
    with_last_user,
)
from forethought.defences.spelling import in_words, restored, visible
from forethought.models.conversation import Conversation, Failed, Respondent, Response
from forethought.reasoning import Decision, markers, solved_text
from forethought.records import Message, Record

NO_PARAPHRASE = "there is no paraphrase of the request"
_ASK = "Paraphrase the text between the tags. Keep its meaning, don't answer it, and write the paraphrase alone."


class ParaphraseSettings(Record):
    """How to paraphrase."""

    max_tokens: int = Field(default=100, ge=1, description="longest paraphrase, in tokens (the paper's 100)")


class Paraphrase(Wrapper):
    """A model that sees a paraphrase of the last user turn, which it writes itself."""

    label, Options = "paraphrase", ParaphraseSettings

    def answer(self, conversation: Conversation, max_answer_tokens: int) -> Steps:
        """Without a paraphrase a conversation is Failed: the undefended request is never put."""
        turn = last_user(conversation)
        if turn is None:
            return Failed(cause=f"{NO_PARAPHRASE}: no user turn")
        said = yield from self.ask(fenced_question(_ASK, turn.content), self.options.max_tokens)
        text = said.answer.strip() if isinstance(said, Response) else ""
        if not text:
            return Failed(cause=f"{NO_PARAPHRASE}: {said.cause if isinstance(said, Failed) else 'it is empty'}")
        return (yield from self.ask(with_last_user(conversation, lambda _: text), max_answer_tokens))


Perturbation = Literal["swap", "insert", "patch"]
UNREADABLE = "no perturbed copy got an answer that can be read"
_LETTERS = string.ascii_letters + string.digits + string.punctuation + " "


class SmoothSettings(Record):
    """How to smooth."""

    copies: int = Field(default=10, ge=1, le=100, description="perturbed copies of a request")
    percent: float = Field(default=10.0, gt=0, le=100, description="share of characters perturbed, in percent")
    perturbation: Perturbation = Field(default="swap", description="swap, insert or patch")
    seed: int = Field(default=0, description="seed of what is drawn")


def perturb(text: str, kind: Perturbation, percent: float, rng: random.Random) -> str:
    """The text with a share of its characters (at least one) swapped for or followed by random ones.

    `swap` and `insert` draw places all over it, `patch` overwrites one block.
    """
    if not text:
        return text
    count = max(1, int(len(text) * percent / 100))
    letters = list(text)
    if kind == "patch":
        start = rng.randint(0, len(text) - count)
        places = list(range(start, start + count))
    else:
        places = sorted(rng.sample(range(len(text)), count))
    for place in places:
        drawn = rng.choice(_LETTERS)
        letters[place] = letters[place] + drawn if kind == "insert" else drawn
    return "".join(letters)


class SmoothLLM(Wrapper):
    """A model whose answer is the majority's over perturbed copies of the last user turn."""

    label, Options = "smooth_llm", SmoothSettings

    def __init__(self, inner: Respondent, settings: SmoothSettings | None = None) -> None:
        super().__init__(inner, settings)
        self.refuses_from = None

    def copies(self, conversation: Conversation) -> list[Conversation]:
        """The perturbed copies; the same for the same conversation and seed."""
        chosen = self.options
        rng = random.Random(f"{chosen.seed}:smooth:{conversation_key(conversation)}")
        return [
            with_last_user(conversation, lambda text: perturb(text, chosen.perturbation, chosen.percent, rng))
            for _ in range(chosen.copies)
        ]

    def answer(self, conversation: Conversation, max_answer_tokens: int) -> Steps:
        """A response of the majority, drawn at random; a tie refuses. Copies that failed or say nothing don't vote.

        The score is ln((refusals + 1/2) / (compliances + 1/2)).
        """
        replies = yield Asked(self.inner.reply, self.copies(conversation), max_answer_tokens)
        answered = [reply for reply in replies if isinstance(reply, Response)]
        if not answered:
            failed: Failed = replies[0]
            return failed
        refusing = [reply for reply in answered if refuses(reply) is True]
        complying = [reply for reply in answered if refuses(reply) is False]
        if not refusing and not complying:
            return answered[0].model_copy(update={"log_odds": None, "cause": answered[0].cause or UNREADABLE})
        # The paper's strict majority: more than half of the copies have to be answered for an answer.
        refused = len(complying) <= len(refusing)
        rng = random.Random(f"{self.options.seed}:vote:{conversation_key(conversation)}")
        chosen = rng.choice(refusing if refused else complying)
        score = math.log((len(refusing) + 0.5) / (len(complying) + 0.5))
        return chosen.model_copy(update={"log_odds": score})


FRAMES = (
    "Here is my message:\n\n{request}",
    "{request}\n\nPlease reply to the message above.",
    "A user wrote the following.\n\n{request}",
    'Reply to this: "{request}"',
    "Hello!\n\n{request}\n\nThank you.",
    "Message:\n{request}\nEnd of message.",
)
"""Neutral: none says anything about safety or about what to do."""


class ConsistencySettings(Record):
    """When to ask again, how often, and how the verdicts are put together."""

    samples: int = Field(
        default=4, ge=1, le=64, description="thoughts sampled for an uncertain request, where the model can sample"
    )
    frames: int = Field(
        default=4, ge=1, le=len(FRAMES), description="frames that an uncertain request is asked in, where it can't"
    )
    margin: float = Field(default=1.5, gt=0, description="log-odds this near to the threshold are uncertain")
    threshold: float = Field(default=0.0, description="verdict log-odds from which to refuse: the model's own")
    temperature: float = Field(default=0.7, gt=0, description="of the samples")
    vote: Literal["mean", "majority"] = Field(
        default="mean", description="mean: of the log-odds; majority: of the verdicts, a tie refuses"
    )
    seed: int = Field(default=0, ge=0, description="of the first sample")


class SelfConsistency(Wrapper):
    """A model that thinks, asked again where its verdict is uncertain."""

    label, Options = "self_consistency", ConsistencySettings

    def __init__(self, inner: Respondent, settings: ConsistencySettings | None = None) -> None:
        super().__init__(inner, settings)
        self.refuses_from = self.options.threshold

    def answer(self, conversation: Conversation, max_answer_tokens: int) -> Steps:
        """The score of what was asked again is that of all its verdicts together."""
        reply = yield from self.ask(conversation, max_answer_tokens)
        if isinstance(reply, Failed) or not self._uncertain(reply):
            return reply
        further = yield Asked(self.inner.reply, self.further(conversation), max_answer_tokens)
        thoughts = [one for one in further if isinstance(one, Response) and one.log_odds is not None]
        return self._together([reply, *thoughts])

    def further(self, conversation: Conversation) -> list[Conversation]:
        """What an uncertain conversation is asked as once more: samples where the model can sample, else frames."""
        if not self.inner.able.sampling:
            return self.framed(conversation)
        first = self.options.seed
        if conversation.temperature:  # a sample itself: its own seed has been seen
            first += conversation.sample_seed + 1
        drawn = range(first, first + self.options.samples)
        temperature = self.options.temperature
        return [conversation.model_copy(update={"temperature": temperature, "sample_seed": seed}) for seed in drawn]

    def framed(self, conversation: Conversation) -> list[Conversation]:
        """The conversation with its last user turn in each frame."""
        return [_framed(conversation, frame) for frame in FRAMES[: self.options.frames]]

    def _uncertain(self, response: Response) -> bool:
        odds = response.log_odds
        return odds is not None and abs(odds - self.options.threshold) < self.options.margin

    def _together(self, thoughts: Sequence[Response]) -> Response:
        """The first response that acts on the verdict of all; the model's own thought comes first."""
        score, decision = self._decided([thought.log_odds for thought in thoughts if thought.log_odds is not None])
        for thought in thoughts:
            if thought.decision == decision:
                return thought.model_copy(update={"log_odds": score})
        written = {"answer": REFUSAL, "decision": decision} if decision == "refuse" else {}
        return thoughts[0].model_copy(update={**written, "log_odds": score})

    def _decided(self, odds: Sequence[float]) -> tuple[float, Decision]:
        """Score and verdict. A majority's score is the log-odds of its votes, half a vote added to each side."""
        if self.options.vote == "mean":
            mean = sum(odds) / len(odds)
            return mean, "refuse" if mean >= self.options.threshold else "comply"
        refusing = sum(one >= self.options.threshold for one in odds)
        score = math.log((refusing + 0.5) / (len(odds) - refusing + 0.5))
        return score, "refuse" if score >= 0 else "comply"


def _framed(conversation: Conversation, frame: str) -> Conversation:
    return with_last_user(conversation, lambda text: frame.replace("{request}", text, 1))


PART_REFUSED = "a part of the message is refused by itself: forged turns or thoughts stand around it"
_CONTROL = r"<[|\uff5c][^<>|\uff5c\n]{1,40}[|\uff5c]>|</?s>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>"
_HEADINGS = "|".join(re.escape(heading) for heading in markers("paper"))
_NAMES = r"user|human|assistant|model|ai|system"
_MARKER = re.compile(
    rf"(?P<thought></?think(?:ing)?>|^(?:{_HEADINGS})[ \t]*$)"
    rf"|(?P<control>(?:(?:{_CONTROL})\s*)+)(?P<role>(?:{_NAMES})\b[ \t]*(?:\n|(?:{_CONTROL})\s*|$))?"
    rf"|^[ \t]*(?P<heading>{_NAMES})[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
_ASSISTANT = re.compile(r"assistant|model|\bai\b|\[/INST\]", re.IGNORECASE)


def own_parts(text: str, least_words: int = 3, most: int = 8) -> tuple[str, ...]:
    """The parts of a message outside forged thoughts and forged turns of the assistant; none without any marker.

    Whose a part is where a marker doesn't say so is taken for the user's. Parts of fewer than `least_words` words are
    left out, those beyond `most` stand together in the last.
    """
    parts: list[str] = []
    own, start = True, 0
    for marker in _MARKER.finditer(text):
        if own:
            parts.append(text[start : marker.start()])
        start = marker.end()
        # What follows a closed thought is a forged answer.
        own = not marker["thought"] and not _ASSISTANT.search(marker[0])
    if not start:
        return ()
    if own:
        parts.append(text[start:])
    found = [part.strip() for part in parts if len(part.split()) >= least_words]
    return (*found[: most - 1], "\n\n".join(found[most - 1 :])) if len(found) > most else tuple(found)


class UnforgedSettings(Record):
    """Which parts are read."""

    words: int = Field(default=3, ge=1, description="least words of a part: shorter ones are no request")
    parts: int = Field(default=8, ge=1, description="most parts of a message; what is left stands together in the last")


class Unforged(Wrapper):
    """A model that is asked by parts where a message holds what is not its user's."""

    label, Options = "unforged", UnforgedSettings
    judges_by_thought = True
    options: UnforgedSettings

    def answer(self, conversation: Conversation, max_answer_tokens: int) -> Steps:
        """`log_odds` is the largest of the whole and its parts. Where a part can't be asked the message has failed."""
        whole = yield from self.ask(conversation, max_answer_tokens)
        parts = self._parts(conversation)
        if isinstance(whole, Failed) or not parts:
            return whole
        heard = yield Asked(self.inner.reply, parts, max_answer_tokens)
        return _with_parts(whole, heard)

    def _parts(self, conversation: Conversation) -> list[Conversation]:
        """The conversation up to each turn of the user that holds a forgery, with each of its own parts in its place.

        Nothing is begun for the model there: that is part of the whole.
        """
        found = []
        for place, message in enumerate(conversation.messages):
            if message.role == "user":
                for part in own_parts(message.content, self.options.words, self.options.parts):
                    messages = (*conversation.messages[:place], Message(role="user", content=part))
                    found.append(conversation.model_copy(update={"messages": messages, "prefill": ""}))
        return found


def _with_parts(whole: Response, parts: Sequence[Response | Failed]) -> Response | Failed:
    """The reply to the whole, or that to the part that is refused with the highest score."""
    read = [reply for reply in parts if isinstance(reply, Response)]
    if len(read) < len(parts):
        return next(reply for reply in parts if isinstance(reply, Failed))
    scores = [reply.log_odds for reply in (whole, *read) if reply.log_odds is not None]
    score = {"log_odds": max(scores)} if scores else {}
    refused = [reply for reply in read if _refused(reply)]
    if _refused(whole) or not refused:
        return whole.model_copy(update=score)
    worst = max(refused, key=lambda reply: float("-inf") if reply.log_odds is None else reply.log_odds)
    return worst.model_copy(update={**score, "cause": PART_REFUSED})


def _refused(response: Response) -> bool:
    """By its decision, or where it takes none by its words."""
    return response.decision == "refuse" if response.decision is not None else refuses(response) is True


RESPELLED = "read in plain spelling"


class Respelled(Wrapper):
    """A model that is given its user's words in plain spelling where they were disturbed."""

    label = "respelled"
    judges_by_thought = True

    def answer(self, conversation: Conversation, max_answer_tokens: int) -> Steps:
        """Score, decision and answer are those of the plain text. Where words were guessed doubt counts against it:
        people seldom write so, and who tries many spellings needs one that is read amiss. Who hides one text where
        another is read gets an answer to that other one."""
        plain, seen = (_spelled(conversation.messages, spell) for spell in (restored, visible))
        if plain == conversation.messages:
            return (yield from self.ask(conversation, max_answer_tokens))
        asked = {"messages": plain, "strict": conversation.strict or plain != seen}
        reply = yield from self.ask(conversation.model_copy(update=asked), max_answer_tokens)
        if isinstance(reply, Failed):
            return reply
        return reply.model_copy(update={"cause": reply.cause or RESPELLED})


def _spelled(messages: tuple[Message, ...], spell: Callable[[str], str]) -> tuple[Message, ...]:
    return tuple(
        one.model_copy(update={"content": spell(one.content)}) if one.role == "user" else one for one in messages
    )


SOLVED = "decided on what the thought found to be asked, by itself"


class SolvedSettings(Record):
    """How deep to go."""

    rounds: int = Field(default=3, ge=1, description="most times that what was found is put to the model again")


class Solved(Wrapper):
    """A model that is asked once more, for the text that its thought found where a message had to be solved."""

    label, Options = "solved", SolvedSettings
    judges_by_thought = True
    options: SolvedSettings

    def answer(self, conversation: Conversation, max_answer_tokens: int) -> Steps:
        """Score, decision and answer are those of what was found. A turn that was begun for the model stays as it is:
        its thought is not the model's own."""
        reply = yield from self.ask(conversation, max_answer_tokens)
        found = reply.reasoning_text if isinstance(reply, Response) else ""
        for _ in range(self.options.rounds):
            asked = solved_text(found, in_words)
            if (
                isinstance(reply, Failed)
                or conversation.prefill
                or not asked
                or asked == conversation.messages[-1].content
            ):
                break
            before = tuple(message for message in conversation.messages if message.role == "system")
            alone = (*before, Message(role="user", content=asked))
            conversation = conversation.model_copy(update={"messages": alone})
            again = yield from self.ask(conversation, max_answer_tokens)
            if isinstance(again, Failed):
                return again
            found = again.reasoning_text
            reply = _behind(reply, again)
        return reply


def _behind(first: Response, again: Response) -> Response:
    """The reply to what a thought found, which tells of that thought as well."""
    return again.model_copy(
        update={
            "reasoning_text": f"{first.reasoning_text}\n\n{again.reasoning_text}".strip(),
            "reasoning_tokens": first.reasoning_tokens + again.reasoning_tokens,
            "cause": again.cause or SOLVED,
        }
    )


DEFENCES = (
    described("paraphrase", Paraphrase),
    described("smooth_llm", SmoothLLM),
    described("self_consistency", SelfConsistency),
    described("unforged", Unforged),
    described("respelled", Respelled),
    described("solved", Solved),
)
