"""Defences at inference by what commands and recipes write: `smooth_llm:20`, `self_reminder | perplexity`.

`make_defence` puts them around a model from left to right: in `self_reminder | smooth_llm` the reminder is nearest to
the model, and every perturbed copy of the request gets it. Of several with a score, the outermost gives it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

from pydantic import ValidationError

from forethought.defences.entry import Entry, Means, NoSettings
from forethought.defences.prompts import PromptDefence, prompts
from forethought.defences.wrappers import WRAPPERS
from forethought.engine.conversation import Respondent
from forethought.errors import ConfigError
from forethought.records import Record


def _prompt_entry(prompt_id: str) -> Entry:
    def make(inner: Respondent, settings: NoSettings, means: Means) -> Respondent:
        return inner if prompt_id == "none" else PromptDefence(inner, prompt_id, means.policy)

    return Entry(prompts()[prompt_id].defence, NoSettings, make)


DEFENCES: dict[str, Entry] = {
    **{prompt_id: _prompt_entry(prompt_id) for prompt_id in prompts()},
    **{entry.defence.id: entry for entry in WRAPPERS},
}
"""Defences at inference by id. Those that change weights stand in `trained.py`."""


def make_defence(spec: str, respondent: Respondent, means: Means | None = None) -> Respondent:
    """A model behind the defences that a spec names, the leftmost nearest to it.

    `NAME`, `NAME:VALUE` (its first option), `NAME:option=value,option=value`; several joined by `|`.
    Raises ConfigError for an unknown defence or option, a value out of range, or a need that `means` doesn't meet.
    """
    defended = respondent
    for step in spec.split("|"):
        name, _, written = step.strip().partition(":")
        entry = _known(name.strip())
        defended = entry.make(defended, read_settings(entry, written), means or Means())
    return defended


def check_spec(spec: str, fitted_first: Collection[str] = ()) -> None:
    """Raises ConfigError as `make_defence` would for what a spec names: before hours are spent, and without a model.

    Those of `fitted_first` are fitted and told their folder later, where they stand nearest to the model.
    """
    for place, step in enumerate(spec.split("|")):
        name, _, written = step.strip().partition(":")
        entry = _known(name.strip())
        if place or written or name not in fitted_first:
            read_settings(entry, written)


def read_settings(entry: Entry, written: str) -> Record:
    """Options as a spec writes them, checked. Raises ConfigError."""
    place = f"defence '{entry.defence.id}'"
    names = list(entry.settings.model_fields)
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
    return _checked(place, entry.settings, given)


def _checked(place: str, settings: type[Record], given: Mapping[str, str]) -> Record:
    try:
        return settings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0])
        meaning = settings.model_fields[option].description
        raise ConfigError(f"{place}, {option} '{given.get(option, '')}'", first["msg"], f"It is: {meaning}") from None


def _known(name: str) -> Entry:
    if name not in DEFENCES:
        near = difflib.get_close_matches(name, DEFENCES, n=3, cutoff=0.5) or list(DEFENCES)
        raise ConfigError(
            f"defence '{name}'", "there is no such defence at inference", f"Use {', '.join(near)} (docs/defences.md)"
        )
    return DEFENCES[name]
