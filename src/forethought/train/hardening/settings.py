"""How a model is hardened."""

from __future__ import annotations

from pydantic import Field

from forethought.records import Record
from forethought.train.hardening.split import TRAINED_REASONING
from forethought.train.methods.combined import PLAIN, Levers


class HardeningSettings(Record):
    """How a model is hardened. The defaults take a small model about a minute of attacks a round on two cores."""

    rounds: int = Field(default=2, ge=1)
    """Most rounds of attack and training after the first training."""
    requests: int = Field(default=40, ge=2)
    """Training requests attacked a round, so many harmful and so many harmless; at most as many are held out."""
    attacks: tuple[str, ...] = ("direct", *TRAINED_REASONING)
    """As suites write them. None of them should be in the test that follows."""
    attacks_each: int = Field(default=2, ge=1)
    """Attacks that each request is put under, dealt out so that all attacks get as many requests."""
    searches: tuple[str, ...] = ("best_of_n", "random_search")
    """Adaptive searches, as suites write them."""
    searched: int = Field(default=6, ge=1)
    """Harmful requests that each search goes after, a round."""
    search_budget: int = Field(default=12, ge=0)
    """Most queries a search and request; 0 leaves searches out."""
    held_out: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of the requests that no round is trained on: they measure progress. Ten at least, or a quarter of few."""
    margin: float = Field(default=0.02, ge=0.0, le=1.0)
    """A round that adds less to Youden's J on the held-out requests is the last."""
    added_share: float = Field(default=0.5, gt=0.0, le=1.0)
    """Most of the token budget that the rows of all rounds together take from the old ones."""
    levers: Levers = Field(default=PLAIN, exclude_if=lambda value: value == PLAIN)
    """How each round is trained. Not dumped where no lever is pulled: keys are then as if there were none."""
    max_answer_tokens: int = Field(default=24, ge=4)
    """Longest answer to an attack: enough to see whether it refuses."""
