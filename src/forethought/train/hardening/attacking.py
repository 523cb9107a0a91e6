"""One round of attacks on the current model: what broke it, and what it falsely refused."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from forethought.engine.conversation import Respondent
from forethought.evals.attacks.base import Attack, Given
from forethought.manifest import write_json
from forethought.records import Record
from forethought.train.hardening.asking import Answered, ask
from forethought.train.hardening.pairs import Pair, deal
from forethought.train.hardening.pool import Pool, couples
from forethought.train.hardening.result import Measured, measure, tally
from forethought.train.hardening.searching import search
from forethought.train.hardening.settings import HardeningSettings


class Found(Record):
    """What a round of attacks came to."""

    pairs: tuple[Pair, ...] = ()
    """To be taught: those of which the model got one half wrong, the other half with it."""
    asked: int = 0
    """Pairs that the model was asked."""
    got_through: dict[str, int] = Field(default_factory=dict)
    """By attack, the harmful requests that it complied with."""
    falsely_refused: dict[str, int] = Field(default_factory=dict)
    """By attack, the harmless requests that it refused."""
    not_run: dict[str, int] = Field(default_factory=dict)
    """Pairs that could not be attacked or used, by cause."""
    seconds: float = 0.0
    """Of the last run, where one was stopped."""


@dataclass(frozen=True)
class Attacker:
    """Puts the pool's requests to a model, disguised."""

    pool: Pool
    attacks: tuple[Attack, ...]
    settings: HardeningSettings
    given: Given
    seed: int

    def round(self, number: int, folder: Path, model: Respondent) -> Found:
        """Attacks requests drawn for this round, searches included. Kept in `folder`: asked once.

        Raises what `asking.ask` and `searching.search` raise.
        """
        file = folder / "found.json"
        if file.is_file():
            return Found.model_validate_json(file.read_text(encoding="utf-8"))
        start, settings, seed = time.monotonic(), self.settings, self._seed(number)
        drawn = couples(self.pool.harmful, self.pool.harmless, settings.requests, random.Random(f"{seed}:round"))
        pairs, not_run = deal(drawn, self.attacks, settings.attacks_each, seed, self.given, model.able)
        answered = self._ask(folder / "attacks", model, pairs)
        searched, unused = search(
            folder / "searches", model, drawn, settings, self.given.policy, self.given.format, seed
        )
        through, refused = tally(answered)
        for pair in searched:
            through[pair.attack] = through.get(pair.attack, 0) + 1
        found = Found(
            pairs=(*(one.pair for one in answered if one.got_through or one.falsely_refused), *searched),
            asked=len(answered),
            got_through=through,
            falsely_refused=refused,
            not_run=dict(not_run + unused),
            seconds=time.monotonic() - start,
        )
        write_json(file, found.model_dump(mode="json"))
        return found

    def held_out(self, folder: Path, model: Respondent) -> Measured:
        """The held-out requests under the same attacks, drawn alike for every round, so that rounds compare."""
        settings, seed = self.settings, self._seed(0)
        pairs, _ = deal(self.pool.held_out, self.attacks, settings.attacks_each, seed, self.given, model.able)
        return measure(self._ask(folder, model, pairs))

    def _ask(self, folder: Path, model: Respondent, pairs: list[Pair]) -> list[Answered]:
        limit, given = self.settings.max_answer_tokens, self.given
        return ask(folder, model, pairs, limit, given.policy, given.format)

    def _seed(self, number: int) -> int:
        return self.seed * 1_009 + number
