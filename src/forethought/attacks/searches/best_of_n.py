"""Best-of-N Jailbreaking: the request with its letters shuffled, cased and disturbed at random, until one gets through.

Hughes et al. 2024, arXiv 2412.03556. The paper samples answers at temperature 1; here the attacked model answers as it
is served, so that against a greedy one all the variation is in the prompts, which lets fewer through.
"""

from __future__ import annotations

import random

from forethought.attacks.base import Attacked, Options, Parameter
from forethought.attacks.linguistic import augmented
from forethought.attacks.searches.base import Ask, Goal, Method, Run, Tools


def search(goal: Goal, rng: random.Random, options: Options, tools: Tools) -> Run:
    """Asks `batch` variants at a time and ends with the batch in which one gets through."""
    left, sigma = int(options["n"]), float(options["sigma"])
    start = Attacked(request=goal.request, lineage=("best_of_n",))
    while left > 0:
        size = min(left, int(options["batch"]))
        left -= size
        replies = yield [Ask(attacked=start.said(augmented(start.text, sigma, rng))) for _ in range(size)]
        if any(reply.broken for reply in replies):
            return


BEST_OF_N = Method(
    name="best_of_n",
    title="Best-of-N",
    paper="Hughes et al. 2024, Best-of-N Jailbreaking, arXiv 2412.03556",
    cost="at most 10,000 queries, as in the paper; the budget of a run ends it earlier",
    parameters=(
        Parameter(name="n", meaning="variants of the request", default=10_000, least=1, most=1_000_000),
        Parameter(name="sigma", meaning="strength of the changes, 0 to 1", default=0.4, most=1),
        Parameter(name="batch", meaning="variants asked at once", default=8, least=1, most=1024),
    ),
    queries=10_000,
    search=search,
)
"""N and sigma are the paper's. Its batch is 60 for speed; eight waste fewer queries behind a success."""

METHODS = (BEST_OF_N,)
