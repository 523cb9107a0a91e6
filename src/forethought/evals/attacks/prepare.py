"""Attacks carried out on requests: what comes out is what a model is asked, and what could not be run, with the cause.

An attack that an attacker model writes stops where it needs a text. All the texts that a round needs are asked for
together, and the attacks go on: a composition of two such attacks takes two rounds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from forethought.engine.conversation import Able
from forethought.evals.attacks.base import Attack, Attacked, Given, Wanted
from forethought.evals.attacks.catalogue import attack_request, why_not
from forethought.evals.attacks.rewrites import Rewrites
from forethought.evals.attacks.rewritten import Unfit
from forethought.records import Record, Request

Ask = Callable[[Sequence[Wanted]], Mapping[str, str | Unfit]]
"""Asks an attacker model for texts: by key the text, or why there is none."""
NO_TEXT = "the attacker gave no text"


class Planned(Record):
    """A request under an attack, or why it could not be put under it."""

    attack: str
    request: Request
    """As it was before the attack."""
    attacked: Attacked | None
    cause: str = ""
    """Why it is not run: neither refused nor safe, and in no mean."""


def prepare(
    attacks: Sequence[Attack],
    requests: Sequence[Request],
    seed: int,
    given: Given | None = None,
    able: Able | None = None,
    rewrites: Rewrites | None = None,
    ask: Ask | None = None,
) -> list[Planned]:
    """Every request under every attack, attack by attack, in order.

    `ask` None is a machine without an attacker model: then attacks that need one use the texts that `rewrites` has
    already, and the rest is not run. Raises ConfigError and InputError for options and files that can't be used.
    """
    given, able = given or Given(), able or Able()
    known: dict[str, str] = {**given.rewrites, **(rewrites or {})}
    failed: dict[str, str] = {}
    has_texts = ask is not None or bool(known)
    blocked = {a.name: why_not(a, has_texts, able.prefill, able.budget, given.files) for a in attacks}
    outcomes: dict[tuple[int, int], Attacked | Wanted] = {}
    open_pairs = [(a, r) for a in range(len(attacks)) if not blocked[attacks[a].name] for r in range(len(requests))]
    while open_pairs:
        held = dataclasses.replace(given, rewrites=known)
        for a, r in open_pairs:
            outcomes[a, r] = attack_request(attacks[a], requests[r], seed, held)
        wanted = {
            outcome.key: outcome
            for outcome in (outcomes[pair] for pair in open_pairs)
            if isinstance(outcome, Wanted) and outcome.key not in failed
        }
        if ask is None or not wanted:
            break
        _ask_for(wanted, ask, known, failed, rewrites)
        open_pairs = [pair for pair in open_pairs if _waits(outcomes[pair], failed)]
    return [
        _planned(attack, request, blocked[attack.name], outcomes.get((a, r)), failed)
        for a, attack in enumerate(attacks)
        for r, request in enumerate(requests)
    ]


def _ask_for(
    wanted: Mapping[str, Wanted], ask: Ask, known: dict[str, str], failed: dict[str, str], rewrites: Rewrites | None
) -> None:
    """Asks, and sorts the answers into those that are known now and those that failed, so that every round ends."""
    answers = ask(list(wanted.values()))
    fit: dict[str, tuple[str, str]] = {}
    for key, one in wanted.items():
        answer = answers.get(key, Unfit(NO_TEXT))
        if isinstance(answer, Unfit):
            failed[key] = answer.cause
        else:
            fit[key] = (one.rewriter, answer)
    known.update({key: text for key, (_, text) in fit.items()})
    if rewrites is not None:
        rewrites.add(fit)


def _waits(outcome: Attacked | Wanted, failed: Mapping[str, str]) -> bool:
    return isinstance(outcome, Wanted) and outcome.key not in failed


def _planned(
    attack: Attack, request: Request, blocked: str, outcome: Attacked | Wanted | None, failed: Mapping[str, str]
) -> Planned:
    if blocked or outcome is None:
        return Planned(attack=attack.name, request=request, attacked=None, cause=blocked or NO_TEXT)
    if isinstance(outcome, Wanted):
        cause = failed.get(outcome.key, "needs an attacker model")
        return Planned(attack=attack.name, request=request, attacked=None, cause=cause)
    return Planned(attack=attack.name, request=request, attacked=outcome)
