"""Templates that a search begins with: the user's file, or mild frames of the static attacks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

from forethought.data.restyle import sentence
from forethought.evals.attacks.base import Attack, Attacked
from forethought.evals.attacks.contextual import CONTEXTUAL
from forethought.evals.attacks.templates import TEMPLATES
from forethought.records import user_request

PLACE = "{request}"
"""Where a template has the request."""
_FRAMES = (
    "role_play", "expert_endorsement", "evidence_persuasion", "logical_appeal", "authority_endorsement",
    "chain_of_utterances", "deep_inception",
)  # fmt: skip
_ENDINGS = ("refusal_suppression", "prefix_injection", "")
"""Put around a frame, so that a template has sentences to exchange; the last leaves it bare."""
_DRAWS = 3
"""Wordings of each frame."""


def prototypes(templates: Sequence[str] = ()) -> tuple[str, ...]:
    """The user's templates, else the shipped ones.

    A template without a place gets one behind it. The papers begin with hand-written jailbreaks of many paragraphs;
    none is shipped, so without the user's file a search starts from less.
    """
    if not templates:
        return _shipped()
    return tuple(dict.fromkeys(text if PLACE in text else f"{text}\n\n{PLACE}" for text in templates))


def fill(template: str, request: str) -> str:
    """The template with the request, as a sentence, in each of its places."""
    # Split and join: braces in a request must not be read as a place.
    return sentence(request).join(template.split(PLACE))


@lru_cache(maxsize=1)
def _shipped() -> tuple[str, ...]:
    by_name = {attack.name: attack for attack in (*CONTEXTUAL, *TEMPLATES)}
    found = []
    for ending in _ENDINGS:
        for frame in _FRAMES:
            for draw in range(_DRAWS):
                parts = [by_name[name] for name in (frame, ending) if name]
                found.append(_template(parts, draw))
    return tuple(dict.fromkeys(found))


def _template(parts: Sequence[Attack], draw: int) -> str:
    text = PLACE
    for part in parts:
        outcome = part.apply(user_request(text), random.Random(draw))
        assert isinstance(outcome, Attacked)  # the frames are rules, none asks an attacker
        text = outcome.text
    return text.replace(f"{PLACE}.", PLACE)  # `fill` brings the end mark
