"""Adaptive random search: a template, and a suffix changed at random wherever that makes compliance likelier.

Andriushchenko et al. 2024 (arXiv 2404.02151). It maximises the log-probability of the target's first token ("Sure"),
asks once that is likely, and goes on with the whole target where the answer did not get through. For a model that
thinks, what is maximised is a matter of the aim (`base.aim_at`): by default the word that decides at its verdict.
"""

from __future__ import annotations

import math
import random
import string
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from forethought.attacks.base import Attacked, Options
from forethought.attacks.searches.base import (
    Aim,
    Goal,
    Questions,
    Replies,
    Run,
    Tools,
    aim_at,
    ask_once,
    described,
    tokens_of,
)
from forethought.attacks.searches.suffix import printable_ids
from forethought.attacks.templates import fill_template, prototypes
from forethought.chat import Tokenizer

PATIENCE = 25
"""Rounds without a single score after which a restart is given up, as in the paper's code."""
Suffix = tuple[str, ...]
"""Pieces of text, joined without anything between them."""
_CHARACTERS = tuple(string.digits + string.ascii_letters + string.punctuation + " ")
"""What a suffix may hold where the model's tokens are unknown, as in the paper's code."""


def alphabet(tools: Tools) -> tuple[str, ...]:
    """The pieces that a suffix may hold: the attacked model's printable tokens, else printable characters.

    The paper draws from the whole vocabulary. Tokens that are no ASCII text of their own are left out: a suffix is
    sent as text, and they would not arrive as drawn.
    """
    return _CHARACTERS if tools.model is None else _token_texts(tools.model.tokenizer)


@lru_cache(maxsize=4)
def _token_texts(tokenizer: Tokenizer) -> tuple[str, ...]:
    # Decoded behind another token: some tokenizers drop the space of a first word.
    anchor = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    skip = len(tokenizer.decode(anchor))
    texts = tokenizer.batch_decode(
        [[*anchor, token] for token in printable_ids(tokenizer)], clean_up_tokenization_spaces=False
    )
    return tuple(dict.fromkeys(text[skip:] for text in texts if text[skip:]))


def first_suffix(text: str, length: int, tools: Tools) -> Suffix:
    """The suffix that a search begins with: the paper's exclamation marks, or a text that worked elsewhere.

    Such a text keeps its own length (the paper's self-transfer).
    """
    if not text:
        return (" !",) * length
    if tools.model is None:
        return tuple(text)
    tokenizer = tools.model.tokenizer
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    texts = [str(tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False)) for end in range(len(ids) + 1)]
    # A character in several tokens shows only with the last of them; such tokens become one piece.
    pieces, done = [], 0
    for part in texts[1:]:
        if text.startswith(part) and len(part) > done:
            pieces.append(part[done:])
            done = len(part)
    return (*pieces, text[done:]) if text[done:] else tuple(pieces)


def pieces_to_change(most: int, probability: float) -> int:
    """How many neighbouring pieces are drawn anew: fewer the likelier the target is already, at least 1.

    The paper's schedule for open models: all of `most` up to a probability of 0.01, half of it up to 0.1, then a
    quarter.
    """
    share = 1 if probability <= 0.01 else 2 if probability <= 0.1 else 4
    return max(1, most // share)


def changed(suffix: Suffix, number: int, pieces: Sequence[str], rng: random.Random) -> Suffix:
    """The suffix with so many neighbouring pieces drawn anew; its number of pieces stays."""
    number = min(number, len(suffix))
    start = rng.randrange(len(suffix) - number + 1)
    drawn = tuple(rng.choice(pieces) for _ in range(number))
    return (*suffix[:start], *drawn, *suffix[start + number :])


@dataclass
class _Climb:
    """One restart: the best suffix so far, and for what it was asked."""

    start: Attacked
    """The request in its template."""
    aim: Aim
    tokens: int
    """Of the whole target."""
    suffix: Suffix
    first_only: bool
    asked: set[str]
    """Texts put to the model, by this restart and those before."""
    best: float = -math.inf
    """Log-probability of the target, or of its first token, under the best suffix."""
    tried: int = 0
    """Suffixes scored."""

    @property
    def probability(self) -> float:
        """Of the first token, or of the target's tokens in their geometric mean."""
        return math.exp(min(0.0, self.best / (1 if self.first_only else self.tokens)))

    def score(self, suffixes: Sequence[Suffix]) -> Generator[Questions, Replies, bool]:
        """Keeps the best of these suffixes if it beats the best so far. False where none could be scored."""
        replies = yield [self.aim.score(self._attacked(suffix), self.first_only) for suffix in suffixes]
        self.tried += len(suffixes)
        for suffix, reply in zip(suffixes, replies, strict=True):
            if reply.log_prob is not None and reply.log_prob > self.best:
                self.best, self.suffix = reply.log_prob, suffix
        return any(reply.log_prob is not None for reply in replies)

    def go(self, rng: random.Random, options: Options, pieces: Sequence[str]) -> Generator[Questions, Replies, bool]:
        """All of the restart. True where the attack got through.

        The first suffix is asked before it is climbed from: often the template alone does it, and the smallest budget
        has an answer then.
        """
        if (yield from ask_once(self._attacked(self.suffix), self.asked)):
            return True
        suffixes, silent, next_ask = [self.suffix], 0, int(options["ask_every"])
        while self.tried < int(options["iterations"]) and silent < PATIENCE:
            silent = 0 if (yield from self.score(suffixes)) else silent + 1
            likely = self.first_only and self.probability >= float(options["ask_from"])
            if likely or self.tried >= next_ask:
                next_ask = self.tried + int(options["ask_every"])
                if (yield from ask_once(self._attacked(self.suffix), self.asked)):
                    return True
            if likely and options["objective"] == "first":
                return False
            if likely:
                # A likely first word that led to no such answer: from here on the whole target counts.
                self.first_only, self.best, suffixes = False, -math.inf, [self.suffix]
                continue
            number = pieces_to_change(int(options["change"]), self.probability)
            suffixes = [changed(self.suffix, number, pieces, rng) for _ in range(int(options["batch"]))]
        return (yield from ask_once(self._attacked(self.suffix), self.asked))

    def _attacked(self, suffix: Suffix) -> Attacked:
        return self.start.said(self.start.text + "".join(suffix))


def search(goal: Goal, rng: random.Random, options: Options, tools: Tools) -> Run:
    """Climbs from the first suffix again and again; each restart takes the next template, where there are several."""
    aim = aim_at(goal, tools, str(options["aim"]))
    templates = prototypes(tools.templates)
    asked: set[str] = set()
    for restart in range(int(options["restarts"])):
        template = fill_template(templates[restart % len(templates)], goal.request.text)
        climb = _Climb(
            start=Attacked(request=goal.request, lineage=("random_search",)).said(template),
            aim=aim,
            tokens=tokens_of(aim.target_string, tools),
            suffix=first_suffix(str(options["initial"]), int(options["pieces"]), tools),
            first_only=options["objective"] != "target" and aim.first_decides,
            asked=asked,
        )
        if (yield from climb.go(rng, options, alphabet(tools))):
            return


METHODS = described("random_search", random_search=search)
