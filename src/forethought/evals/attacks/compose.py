"""Attacks by what suites write: `caesar:13`, `many_shot:shots=128`, `translate:ta | role_play`."""

from __future__ import annotations

import difflib
import random
from collections.abc import Mapping

from forethought.errors import ConfigError
from forethought.evals.attacks.base import Attack, Attacked, Given, Need, Option, Wanted
from forethought.evals.attacks.catalogue import ATTACKS, DIRECT
from forethought.records import Request

_BAR = "|"


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
    name, _, given = spec.partition(":")
    attack = _known(name.strip())
    chosen = _read_options(attack, given.strip(), extra)
    _ = attack.model_copy(update={"chosen": chosen}).options  # raises where one is missing
    if not chosen:
        return attack
    first = str(chosen.get(attack.parameters[0].name, ""))
    return attack.model_copy(
        update={
            "chosen": chosen,
            "name": f"{attack.name}:{_written(attack, chosen)}",
            "title": f"{attack.title} ({', '.join(str(value) for value in chosen.values())})",
            "relatives": (*attack.relatives, *attack.relatives_by.get(first, ())),
        }
    )


def _known(name: str) -> Attack:
    if name == DIRECT.name:
        return DIRECT
    if name not in ATTACKS:
        near = difflib.get_close_matches(name, ATTACKS, n=3, cutoff=0.5) or list(ATTACKS)[:5]
        raise ConfigError(
            f"attack '{name}'", "there is no such attack", f"Use {', '.join(near)} or another of docs/attacks.md"
        )
    return ATTACKS[name]


def _read_options(attack: Attack, written: str, extra: Mapping[str, Option]) -> dict[str, Option]:
    """Options that differ from their defaults, checked, in the order of the attack's parameters."""
    raw: dict[str, Option] = dict(extra)
    known = {parameter.name: parameter for parameter in attack.parameters}
    for piece in [piece.strip() for piece in written.split(",")] if written else []:
        option, equals, value = piece.partition("=")
        if not equals or option.strip() not in known:  # `answer_prefill:x = y` is a value, not an option
            option, value = (attack.parameters[0].name if attack.parameters else ""), piece
        if option.strip() in raw:
            raise ConfigError(f"attack '{attack.name}:{written}'", f"gives {option.strip()} twice", "Give it once")
        raw[option.strip()] = value.strip()
    unknown = [option for option in raw if option not in known]
    if unknown:
        takes = f"It takes {', '.join(known)}" if known else "It takes no options"
        raise ConfigError(f"attack '{attack.name}'", f"has no option '{unknown[0] or written}'", takes)
    read = {name: known[name].read(attack.name, raw[name]) for name in known if name in raw}
    return {name: value for name, value in read.items() if value != known[name].default}


def _written(attack: Attack, chosen: Mapping[str, Option]) -> str:
    first = attack.parameters[0].name
    return ",".join(str(value) if name == first else f"{name}={value}" for name, value in chosen.items())


def attack_request(attack: Attack, request: Request, seed: int, given: Given | None = None) -> Attacked | Wanted:
    """A request under an attack; what is drawn depends on the seed, the attack's name and the request alone."""
    return attack.apply(request, random.Random(f"{seed}:{attack.name}:{request.id}"), given)
