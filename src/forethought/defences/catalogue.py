"""Defences at inference by what commands and recipes write: `smooth_llm:20`, `self_reminder | perplexity`.

`make_defence` puts them around a model from left to right: in `self_reminder | smooth_llm` the reminder is nearest to
the model, and every perturbed copy of the request gets it. Of several with a score, the outermost gives it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection

from pydantic import ValidationError

from forethought import defences
from forethought.defences.base import InferenceDefence, Means
from forethought.errors import ConfigError
from forethought.extensions import by_name, listed
from forethought.models.conversation import Respondent
from forethought.records import Record


def all_defences() -> dict[str, InferenceDefence]:
    """Defences at inference by id, prompts first. Those that change weights are the methods of `training`."""
    return by_name(sorted(listed(defences, "DEFENCES"), key=lambda one: one.kind != "prompt"), "id")


def make_defence(spec: str, respondent: Respondent, means: Means | None = None) -> Respondent:
    """A model behind the defences that a spec names, the leftmost nearest to it.

    `NAME`, `NAME:VALUE` (its first option), `NAME:option=value,option=value`; several joined by `|`.
    Raises ConfigError for an unknown defence or option, a value out of range, or a need that `means` doesn't meet.
    """
    defended = respondent
    for step in spec.split("|"):
        defence, options = read_step(step)
        defended = defence.make(defended, options, means or Means())
    return defended


def check_spec(spec: str, fitted_first: Collection[str] = ()) -> None:
    """Raises as `make_defence` would: before hours are spent, and without a model. `Means` will hold all that it can.

    Those of `fitted_first` are fitted and told their folder later, where they stand nearest to the model. Raises
    ConfigError, and InputError for a folder that holds nothing fitted.
    """
    for place, step in enumerate(spec.split("|")):
        if place == 0 and step.strip() in fitted_first:
            continue
        defence, options = read_step(step)
        defence.check(options)


def without_states(spec: str) -> str:
    """What is left of a spec where no weights can be read."""
    steps = [step.strip() for step in spec.split("|") if step.strip()]
    return " | ".join(step for step in steps if "weights" not in read_step(step)[0].needs)


def read_step(step: str) -> tuple[InferenceDefence, Record]:
    """(the defence that one step of a spec names, its options). Raises ConfigError."""
    name, _, written = step.strip().partition(":")
    defence = _known(name.strip())
    return defence, _read_options(defence, written)


def _read_options(defence: InferenceDefence, written: str) -> Record:
    """Options as a spec writes them, checked. Raises ConfigError."""
    place = f"defence '{defence.id}'"
    names = list(defence.options.model_fields)
    given: dict[str, str] = {}
    for piece in [piece.strip() for piece in written.split(",") if piece.strip()]:
        name, equals, value = piece.partition("=")
        if not equals:  # a bare value is the first option's
            name, value = (names[0] if names else ""), piece
        if name.strip() not in names:
            raise ConfigError(
                place,
                f"has no option '{name.strip() or value}'",
                f"It takes {', '.join(names)}" if names else "It takes no options",
            )
        if name.strip() in given:
            raise ConfigError(place, f"gives {name.strip()} twice", "Give it once")
        given[name.strip()] = value.strip()
    try:
        return defence.options.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0])
        meaning = defence.options.model_fields[option].description
        raise ConfigError(f"{place}, {option} '{given.get(option, '')}'", first["msg"], f"It is: {meaning}") from None


def _known(name: str) -> InferenceDefence:
    known = all_defences()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or list(known)
        raise ConfigError(
            f"defence '{name}'", "there is no such defence at inference", f"Use {', '.join(near)} (docs/defences.md)"
        )
    return known[name]
