"""Training rows whose request has to be solved first: what they ask, what their thoughts say, and that nothing near
them is tested.

The disguises are attacks that bring their way back (`attacks/two_texts.py`), so that the steps of a thought are exact.
Pairs of a harmful request and its harmless twin wear the same one, and what tells them apart stands in what is asked
alone. Rows on harmless text teach the skill by itself.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import lru_cache

from forethought.attacks.base import Attack, Given
from forethought.attacks.catalogue import apply_attack, parse_attack, seen_in_training, unmet
from forethought.attacks.two_texts import beside
from forethought.errors import ConfigError
from forethought.pipeline.recipe import SolveConfig
from forethought.reasoning import spelt
from forethought.records import Example, Request

_NOTHING = "what the message asks"
_TOKENS_A_WORD = 1.3
_SHORT = 12
"""Words of the texts that the skill alone is learnt on, where there are such: more rows for the same tokens."""
_BEGINNING = 2
"""Words that texts share which begin alike."""
_OWN = 0.6
"""Share of its words that a text with words of others keeps."""


@lru_cache(maxsize=8)
def disguises(solve: SolveConfig) -> Mapping[str, Attack]:
    """By name. Raises ConfigError for one that is not there, needs more than a request, or has no way back."""
    found = [parse_attack(written) for written in (*solve.disguises, *solve.harmless_only)]
    for attack in found:
        if unmet(attack, ()) or any(part.solver is None for part in attack.parts or (attack,)):
            rule = "has no way back by rule, so that no thought can be written for it"
            place = f"build.solve, disguise '{attack.name}'"
            raise ConfigError(place, rule, "Use one such as codewords:1 or flip:words")
    return {attack.name: attack for attack in found}


def check_apart(solve: SolveConfig, tested: Sequence[str]) -> None:
    """Raises ConfigError where a tested attack is near a disguise that refusals are trained on: itself, a relative, or
    another that takes the same kind of work."""
    known, alone = disguises(solve), _named(solve.harmless_only)
    trained = [name for name in known if name not in alone]
    for attack in map(parse_attack, tested):
        if attack.work and seen_in_training(attack, trained):
            rule = f"is tested and takes work ({', '.join(attack.work)}) that is trained on ({', '.join(trained)})"
            raise ConfigError(f"attack '{attack.name}'", rule, "Leave one of them out")


def solving_rows(requests: Sequence[Request], solve: SolveConfig, seed: int) -> list[Request]:
    """Training requests in these disguises: pairs, then harmless ones alone. Each text once.

    Raises ConfigError where there is no pair, or where harmless text is missing.
    """
    alone, rng = _named(solve.harmless_only), random.Random(f"{seed}:solve")
    names = [name for name in disguises(solve) if name not in alone]
    given = beside(requests, Given())
    pairs: dict[str, list[Request]] = {}
    for request in requests:
        if request.plain in given.others:
            pairs.setdefault(request.twin, []).append(request)
    harmless = [one for one in requests if one.harmful is False and not one.twin and len(one.messages) == 1]
    short = [one for one in harmless if len(one.plain.split()) <= _SHORT]
    harmless = short if len(short) > 1 else harmless
    if not pairs or (solve.skill and len(harmless) < 2):
        what = "pair of a harmful request and its harmless twin" if not pairs else "ordinary requests to learn on"
        raise ConfigError("build.solve", f"the training requests hold no {what}", "Add shipped:harmful and the like")
    drawn = rng.sample(list(pairs), len(pairs))
    # Not from look-alikes, nor into them: their words could make a harmful text that is taught as harmless.
    words = [word for one in harmless if one.kind != "lookalike" for word in one.plain.split()]
    alike: dict[tuple[str, ...], list[Request]] = {}
    for one in harmless:
        alike.setdefault(_beginning(one), []).append(one)
    rows: list[Request] = []
    for number in range(solve.rows // 2):
        name = rng.choice(names)
        rows += [apply_attack(name, one, seed + number, given) for one in pairs[drawn[number % len(drawn)]]]
    for number in range(solve.skill):
        # Texts that begin alike, where there are: what is copied is then told by its label, not by the words before.
        one = rng.choice(harmless)
        beside_it = alike[_beginning(one)] if len(alike[_beginning(one)]) > 1 else harmless
        other = rng.choice([row for row in beside_it if row is not one])
        plain = words and "lookalike" not in (one.kind, other.kind)
        if solve.unforeseen and plain and rng.random() < solve.unforeseen:
            one, other = (_unforeseen(row, words, rng) for row in (one, other))
        with_other = Given(others={one.plain: other.plain})
        worn = rng.choice(alone or names)  # one that is named twice is worn twice as often
        rows.append(apply_attack(worn, one, seed + number, with_other))
    return list({row.id: row for row in rows}.values())


def _unforeseen(request: Request, words: Sequence[str], rng: random.Random) -> Request:
    """The request with drawn words among its own, behind those that it begins with; its source's answer is to none."""
    said = request.plain.split()
    mixed = [word if rng.random() < _OWN else rng.choice(words) for word in said[_BEGINNING:]]
    return request.said(" ".join([*said[:_BEGINNING], *mixed]), answer=None)


def _beginning(request: Request) -> tuple[str, ...]:
    return tuple(request.plain.lower().split()[:_BEGINNING])


def _named(written: Sequence[str]) -> list[str]:
    """Disguises as rows name them."""
    return [parse_attack(one).name for one in written]


def answered_as(request: Request, solve: SolveConfig | None) -> Request:
    """The request that the model is asked for its own answer to: of one that has to be solved what it asks."""
    return request.undisguised if solve is not None and request.operator in disguises(solve) else request


def with_solution(example: Example, solve: SolveConfig | None) -> Example:
    """The row with the thought that its recipe wants."""
    attack = disguises(solve).get(example.request.operator or "") if solve is not None else None
    found = attack.solve(example.request.messages) if attack is not None else None
    reasoning = example.reasoning
    if found is not None and solve is not None and solve.thought != "short":
        # A thought that only spells has no words for an intent: what it found is asked by itself.
        intent = _NOTHING if spelt(found[:-1]) else reasoning.intent
        solved = {"steps": found[:-1], "asked": " ".join(found[-1].split()), "intent": intent}
        reasoning = reasoning.model_copy(update=solved)
    if solve is not None and solve.thought == "filler":
        said = " ".join([*(f"Step: {step}" for step in reasoning.steps), reasoning.asked, reasoning.intent])
        dots = " ".join("." * round(_TOKENS_A_WORD * len(said.split())))
        reasoning = reasoning.model_copy(update={"steps": (dots,), "asked": "", "intent": _NOTHING})
    return example.model_copy(update={"reasoning": reasoning})
