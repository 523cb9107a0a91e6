"""All static attacks by name, what suites write of them, and how one is put on a request.

Each runs on harmful and on harmless requests alike. A module lists its attacks under `ATTACKS`; what they are called,
their options and their texts stand in the YAML file beside it. A text around the request takes no more than an entry
there. The SCoT paper's six trained styles are operators (`data/operators`); `BY_RULE` has its styles out of
distribution (arXiv 2501.19180, section 5) that rules write faithfully, after Wei et al. 2023 (arXiv 2307.02483) and
SORRY-Bench (arXiv 2406.14598).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping

from forethought import attacks
from forethought.attacks.base import Attack, Attacked, Given, Need, Option, Wanted, find
from forethought.errors import ConfigError
from forethought.extensions import by_name, listed
from forethought.records import Request

_BAR = "|"
DIRECT = Attack(name="direct", title="Direct", paper="")
"""The request as it is."""

BY_RULE = (
    "prefix_injection", "refusal_suppression", "style_short", "style_json", "distractors", "authority_endorsement",
    "misspelling", "leetspeak", "disemvowel",
)  # fmt: skip
"""Attacks of the paper that need nothing and share no name with a training style: what a default evaluation runs."""

PAPER = (
    "slang", "uncommon_dialect", "translate:fr", "translate:ml", "translate:ta", "translate:mr", "translate:zh",
    "misspelling", "disemvowel", "leetspeak",
    "expert_endorsement", "evidence_persuasion", "role_play", "logical_appeal", "misrepresentation",
    "authority_endorsement", "technical_terms", "prefix_injection", "refusal_suppression", "style_short", "style_json",
    "distractors", "poems",
)  # fmt: skip
"""The 23 of the SCoT paper (arXiv 2501.19180): ten linguistic, thirteen contextual."""


def all_attacks() -> dict[str, Attack]:
    """The attacks of every module of this package and of files added to it, by name; `DIRECT` is none."""
    return by_name(listed(attacks, "ATTACKS"))


def parse_attack(spec: str, extra: Mapping[str, Option] | None = None) -> Attack:
    """The attack that a suite names, options and composition included; `extra` are options given beside the name.

    `NAME`, `NAME:VALUE` (its first option), `NAME:option=value,option=value`; several joined by `|` are applied from
    left to right. Raises ConfigError for an unknown attack or option, a value out of range, an option left out.
    """
    parts = [part.strip() for part in spec.split(_BAR)]
    if len(parts) == 1:
        return _single(parts[0], extra or {})
    if extra:
        raise ConfigError(f"attack '{spec}'", "is composed and has options beside it", "Write them behind its steps")
    return compose([_single(part, {}) for part in parts])


def compose(steps: list[Attack]) -> Attack:
    """The attacks one after another, as one attack."""
    needs: dict[Need, None] = {need: None for step in steps for need in step.needs}
    return Attack(
        name=f" {_BAR} ".join(step.name for step in steps),
        title=", then ".join(step.title for step in steps),
        paper="; ".join(dict.fromkeys(step.paper for step in steps if step.paper)),
        kind=steps[-1].kind,
        form=steps[-1].form,
        needs=tuple(needs),
        white_box=any(step.white_box for step in steps),
        readable=all(step.readable for step in steps),
        relatives=tuple(dict.fromkeys(relative for step in steps for relative in (step.name, *step.relatives))),
        parts=tuple(steps),
    )


def _single(spec: str, extra: Mapping[str, Option]) -> Attack:
    name, _, written = spec.partition(":")
    attack = DIRECT if name.strip() == DIRECT.name else find("attack", name.strip(), all_attacks())
    return attack.with_options(written, extra)


def attack_request(attack: Attack, request: Request, seed: int, given: Given | None = None) -> Attacked | Wanted:
    """A request under an attack; what is drawn depends on the seed, the attack's name and the request alone."""
    rng = random.Random(f"{seed}:{attack.name}:{request.id}")
    return attack.apply(Attacked(request=request), rng, given or Given())


def apply_attack(name: str, request: Request, seed: int, given: Given | None = None) -> Request:
    """The request under an attack; what is drawn depends on the seed and the request alone.

    Raises ConfigError for attacks that a request alone can't carry: those that an attacker model writes, that need a
    local file which is not given, or that change the model's own turn. `prepare` and `attack_request` carry them out.
    """
    if name == DIRECT.name:
        return request
    attack = parse_attack(name)
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


def seen_in_training(attack: Attack, seen_operators: Collection[str]) -> bool:
    """Whether training on these styles has shown the model this attack or a near relative of it.

    `seen_operators` stands in the settings of a trained model. A composition counts as seen when any of its steps
    is: what is left of it is no longer a wholly unseen style.
    """
    return not {attack.name, *attack.relatives}.isdisjoint(seen_operators)


def why_not(attack: Attack, attacker: bool, prefill: bool, budget: bool, files: Collection[str]) -> str:
    """Why an attack can't be run here, or empty. `files`: the attacks whose local file is named."""
    if "attacker" in attack.needs and not attacker:
        return "needs an attacker model"
    if "prefill" in attack.needs and not prefill:
        return "needs a model whose turn can be prefilled"
    if "budget" in attack.needs and not budget:
        return "needs a model whose thought can be cut"
    for part in attack.parts or (attack,):
        name = part.name.split(":")[0]
        if "file" in part.needs and name not in files:
            return f"needs a local file for {name}"
    return ""
