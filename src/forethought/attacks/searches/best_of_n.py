"""Best-of-N Jailbreaking: the request with its letters shuffled, cased and disturbed at random, until one gets through.

Hughes et al. 2024, arXiv 2412.03556. The paper samples answers at temperature 1; here the attacked model answers as it
is served, so that against a greedy one all the variation is in the prompts, which lets fewer through.
"""

from __future__ import annotations

import random

from forethought.attacks.base import Attacked, Options
from forethought.attacks.linguistic import augmented
from forethought.attacks.searches.base import Ask, Goal, Run, Tools, described


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


METHODS = described("best_of_n", best_of_n=search)
