"""GOAT: a conversation in which the attacker observes, thinks, picks from seven known techniques and replies."""

from __future__ import annotations

from collections.abc import Generator

from forethought.attacks.base import Options
from forethought.attacks.searches.base import Questions, Replies, described
from forethought.attacks.searches.dialogue import (
    Form,
    RedTeam,
    answer_of,
    conversations,
    exchange,
    fill,
    prompts,
    shown,
)
from forethought.records import Message

FORM = Form(message="reply", remarks=("observation", "thought", "strategy"))


def _conversation(red: RedTeam, options: Options) -> Generator[Questions, Replies, bool]:
    """True when it got through. Refusals stay in the conversation: the attacker answers them.

    A turn that can't be written or gets no response is lost; one with an empty answer is taken back, and all three
    cost one of the turns.
    """
    texts = prompts("goat")
    chat = red.chat(texts)
    said: list[Message] = []
    for _ in range(int(options["turns"])):
        [turn] = yield from red.write([chat])
        if turn is None:
            continue
        [reply] = yield from red.ask([turn.text], said)
        if reply.broken is True:
            return True
        answer = answer_of(reply)
        if answer is None:
            continue
        if answer:
            said += exchange(turn.text, answer)
        values = red.texts(question=shown("question", turn.text), answer=shown("answer", answer))
        chat = chat.went(turn, fill(texts["answered" if answer else "silent"], values), int(options["keep"]))
    return False


METHODS = described("goat", goat=conversations("goat", FORM, _conversation))
