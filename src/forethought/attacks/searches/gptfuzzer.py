"""GPTFuzzer: templates that an attacker mutates, chosen from a growing tree by what came of them before.

Yu et al. 2023, arXiv 2309.10253: MCTS-Explore and the five mutators, each mutant put to the model once. The paper's
reward is 1 for a success and 0 else, which is all there is where one success ends the search. Here it is the judge's
rating from 0 to 1, so that near successes steer the search as well; with a judge that has no probability it is the
paper's. The words of the mutators are this project's own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from forethought.attacks.base import Attacked, Options
from forethought.attacks.searches.base import Ask, Goal, Questions, Replies, Run, Tools, Write, described
from forethought.attacks.searches.dialogue import prompts, question, shown, without_thought
from forethought.attacks.templates import PLACE, prototypes
from forethought.attacks.templates import fill_template as filled
from forethought.refusal import refusal_outcome

MUTATORS = ("generate", "crossover", "expand", "shorten", "rephrase")
_EXPLORE = 0.5  # weight of the confidence term
_STOP_INSIDE = 0.1  # chance to take a template that has children itself, at each level
_LEVEL_PENALTY, _LEAST_SHARE = 0.1, 0.2  # a deep template is worth less of its reward, and never less than a fifth
_KEPT_FROM = 6
"""Rating from which a mutant joins the pool; what got through is never below it."""


@dataclass
class Node:
    """A template of the tree."""

    text: str
    level: int = 0
    """0 for a seed."""
    visits: int = 0
    reward: float = 0.0
    children: list[Node] = field(default_factory=list)

    def worth(self, step: int) -> float:
        """Mean reward and how little is known of it (UCT), with the smoothing of the authors' code."""
        return self.reward / (self.visits + 1) + _EXPLORE * math.sqrt(2 * math.log(step) / (self.visits + 0.01))


class Pool:
    """The tree of templates, walked as MCTS-Explore does."""

    def __init__(self, seeds: Sequence[str]) -> None:
        self.seeds = [Node(text) for text in seeds]
        self.all = list(self.seeds)
        """In the order in which they came in."""
        self._step = 0

    def select(self, rng: random.Random) -> list[Node]:
        """A path from a seed to the template that is mutated next, its last one; each counts a visit."""
        self._step += 1
        node = max(self.seeds, key=lambda one: one.worth(self._step))
        path = [node]
        while node.children and rng.random() >= _STOP_INSIDE:
            node = max(node.children, key=lambda one: one.worth(self._step))
            path.append(node)
        for one in path:
            one.visits += 1
        return path

    def reward(self, path: Sequence[Node], reward: float) -> None:
        """Credits a mutant's reward, 0 to 1, to the path of its parent."""
        share = max(_LEAST_SHARE, 1 - _LEVEL_PENALTY * path[-1].level)
        for one in path:
            one.reward += reward * share

    def add(self, parent: Node, text: str) -> None:
        """A mutant that did well joins the pool."""
        node = Node(text, parent.level + 1)
        parent.children.append(node)
        self.all.append(node)


def search(goal: Goal, rng: random.Random, options: Options, tools: Tools) -> Run:
    """Mutates and asks until one gets through, or until the attacker has written nothing of use `tries` times."""
    pool, start = Pool(prototypes(tools.templates)), Attacked(request=goal.request, lineage=("gptfuzzer",))
    takes, useless = rng.randrange(2**30), 0
    while useless < int(options["tries"]):
        path = pool.select(rng)
        mutant = yield from _mutant(path[-1], pool, rng, takes := takes + 1, int(options["tokens"]))
        if mutant is None:
            useless += 1
            continue
        useless = 0
        (reply,) = yield [Ask(attacked=start.said(filled(mutant, goal.request.text)))]
        if reply.broken:
            return
        if reply.rating is not None:
            pool.reward(path, (reply.rating - 1) / 9)
            if reply.rating >= _KEPT_FROM:
                pool.add(path[-1], mutant)


def _mutant(
    node: Node, pool: Pool, rng: random.Random, take: int, tokens: int
) -> Generator[Questions, Replies, str | None]:
    """A template by a mutator drawn at random; None where the attacker wrote none that can be used."""
    mutator, other = rng.choice(MUTATORS), rng.choice(pool.all)
    texts = prompts("gptfuzzer")
    values = {"place": PLACE, "template": shown("template", node.text), "other": shown("template", other.text)}
    asked = question(texts["system"], texts[mutator], values)
    (reply,) = yield [Write(role="attacker", messages=asked, max_tokens=tokens, take=take)]
    return read_mutant(mutator, reply.text or "", node.text)


def read_mutant(mutator: str, written: str, template: str) -> str | None:
    """The mutant; None for a refusal, for nothing, and for a text without the request's place."""
    said = without_thought(written)
    if not said or refusal_outcome(said)[0] == "refused":
        return None
    mutant = f"{said}\n{template}" if mutator == "expand" else said
    return mutant if PLACE in mutant else None


METHODS = described("gptfuzzer", gptfuzzer=search)
