"""The entrance to attacks for plans and reports: by name, on one request, without a model.

Each runs on harmful and on harmless requests alike. The SCoT paper's six trained styles are operators
(`data/operators`); `attack_names` are its styles out of distribution (arXiv 2501.19180, section 5) that rules write
faithfully, after Wei et al. 2023 (arXiv 2307.02483) and SORRY-Bench (arXiv 2406.14598). `catalogue` has all.
"""

from __future__ import annotations

from collections.abc import Collection

from forethought.errors import ConfigError
from forethought.evals.attacks.base import Attack, Given, Wanted
from forethought.evals.attacks.catalogue import ATTACKS, BY_RULE, DIRECT
from forethought.evals.attacks.compose import attack_request, parse_attack
from forethought.records import Request


def find_attack(name: str) -> Attack:
    """An attack by name, with options and composed ones too. Raises ConfigError for an unknown one."""
    return parse_attack(name)


def attack_names() -> tuple[str, ...]:
    """The attacks of the default evaluation by name, without `direct`."""
    return BY_RULE


def readable(name: str) -> bool:
    """Whether a small model is expected to understand an attack; the comprehension control measures it."""
    return find_attack(name).readable


def relatives(name: str) -> tuple[str, ...]:
    """The training styles that make an attack a seen one."""
    return find_attack(name).relatives


def apply_attack(name: str, request: Request, seed: int, given: Given | None = None) -> Request:
    """The request under an attack; what is drawn depends on the seed and the request alone.

    Raises ConfigError for attacks that a request alone can't carry: those that an attacker model writes, that need a
    local file which is not given, or that change the model's own turn. `prepare` and `compose.attack_request` carry
    them out.
    """
    if name == DIRECT.name:
        return request
    attack = find_attack(name)
    needs = unmet(attack, given.files if given is not None else ())
    if needs:
        raise ConfigError(f"attack '{name}'", f"needs more than a request: {', '.join(needs)}", "Run it in a suite")
    outcome = attack_request(attack, request, seed, given)
    assert not isinstance(outcome, Wanted)  # no attack without needs wants an attacker's text
    return outcome.request


def unmet(attack: Attack, files: Collection[str]) -> tuple[str, ...]:
    """What an attack needs besides a request, without the local files that are there; by the attack that reads them."""
    own = {part.name.partition(":")[0] for part in attack.parts or (attack,) if "file" in part.needs}
    return tuple(need for need in attack.needs if need != "file" or not own <= set(files))


__all__ = [
    "ATTACKS",
    "DIRECT",
    "Attack",
    "apply_attack",
    "attack_names",
    "find_attack",
    "readable",
    "relatives",
    "unmet",
]
