"""What is recorded of a search: how it ended, what it cost, and the best conversation that it found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from forethought.evals.attacks.base import Attacked
from forethought.evals.judges.base import Verdict
from forethought.records import Record

Ended = Literal["end", "budget", "error"]
"""By itself, because its budget was spent, or because it broke down."""


class SearchSettings(Record):
    """How searches are carried out."""

    budget: int | None = Field(default=100, ge=1)
    """Most queries a search, see `Outcome.queries`; None is each method's own with its paper's defaults."""
    seed: int = 0
    max_answer_tokens: int = Field(default=128, ge=1)
    """Longest answer of the attacked model."""
    concurrent: int = Field(default=64, ge=1, le=256)
    """Searches alive at once: the size of a batch where each asks one question at a time."""
    retry_failed: bool = False
    """True asks again where an earlier run of the same folder got no reply or no verdict."""


class Outcome(Record):
    """How one search for one goal went.

    A *query* is a question whose reply depends on the attacked model: a conversation put to it (`asks`), the
    log-probability of a text (`scores`), an answer made from its weights and judged (`grades`). One without a reply
    counts as well: it was asked. What a Compute takes of the weights is counted apart, as `forwards`.
    """

    key: str
    """Hash of all that the outcome depends on: method, goal, budget, seed and the names of the models and the judge."""
    method: str
    """With its options, as suites write it."""
    goal: str
    """Content id of the request."""
    harmful: bool | None
    """The label of the request; False is the control."""
    budget: int
    """Most queries that it was given."""
    ended: Ended
    queries: int = 0
    asks: int = 0
    scores: int = 0
    grades: int = 0
    first_success: int | None = None
    """Number of the first query that got through, from 1; None is none."""
    verdicts: int = 0
    """Answers that the judge decided on."""
    refused: int = 0
    """Those of them that the judge calls refusals, where it tells them."""
    failed: int = 0
    """Questions of any kind without a reply."""
    unscored: int = 0
    """Answers without a verdict."""
    causes: dict[str, int] = Field(default_factory=dict)
    """How often which cause stood behind `failed` and `unscored`."""
    notes: dict[str, int] = Field(default_factory=dict)
    """What the search counted of its attacker and evaluator: refusals, malformed texts, turns lost."""
    forwards: int = 0
    """Forward passes of the attacked model in Computes, one a sequence."""
    writes: int = 0
    """Texts asked of the attacker and the evaluator."""
    prompt_tokens: int = 0
    """Of conversations put to the attacked model."""
    made_tokens: int = 0
    """That the attacked model wrote, thoughts included."""
    writer_tokens: int = 0
    """Prompt and text of all writes, where the writer counts them."""
    cost: float | None = None
    """US dollars for the writes; None where no price is known."""
    cause: str = ""
    """Why it is unscored, or what broke it down."""
    best: Attacked | None = None
    """What got through first, else what has the highest rating; None for an answer that was made elsewhere."""
    best_answer: str = ""
    best_verdict: Verdict | None = None
    best_rating: int | None = None
    """1 (refused) to 10 (fully jailbroken)."""
    best_at: int | None = None
    """Number of its query."""

    @property
    def broken(self) -> bool | None:
        """Whether the attack got through; None is unscored: it has no verdict at all, or broke down before success."""
        return self.within(self.budget)

    def within(self, queries: int) -> bool | None:
        """The same within the first so many queries."""
        if self.first_success is not None and self.first_success <= queries:
            return True
        scored = self.first_success is not None or (self.verdicts > 0 and self.ended != "error")
        return False if scored else None

    @property
    def still_refused(self) -> bool | None:
        """Whether all answers were refused up to the end; None where no answer was seen to be refused or given."""
        if self.broken is None or (not self.broken and not self.refused):
            return None
        return not self.broken


@dataclass(frozen=True)
class SearchProgress:
    """Where a run of searches stands."""

    done: int
    total: int
    alive: int
    queries: int
    """Of all searches so far, those of earlier runs included."""
    broken: int
    unscored: int


@dataclass(frozen=True)
class SearchRun:
    """What came of all searches."""

    outcomes: tuple[Outcome, ...]
    """By method, then by goal, in the order given; each once."""
    not_run: dict[str, str]
    """Methods that can't be run here, with the cause: neither refused nor safe."""
    asked: Counter[str]
    """Questions put in this run, by kind: `response`, `verdict`, `log_prob`, `text`, `made`."""
    reused: int
    """Replies that an earlier run had kept."""
