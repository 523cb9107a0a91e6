"""A new attack takes an entry in a file, and a function where it is more than a text around the request."""

from __future__ import annotations

import random

import pytest
from pydantic import ValidationError

from forethought.attacks.base import Attacked, Family, Given, by_rule
from forethought.attacks.catalogue import all_attacks
from forethought.records import user_request

ENTRY = {"title": "Whispered", "paper": "Nobody 2030", "kind": "linguistic"}
DOTS = {"name": "dots", "default": 3, "least": 1, "most": 9, "meaning": "dots behind it"}


def test_a_text_around_the_request_is_an_entry_and_a_rule_one_function() -> None:
    family = Family(
        attacks=(
            {"name": "hushed", "template": "{request} Whisper.", **ENTRY},
            {"name": "dotted", "parameters": [DOTS], **ENTRY},
        )
    )
    hushed, dotted = family.made(
        {"dotted": by_rule(lambda text, rng, options: text.lower() + "." * int(options["dots"]))}
    )
    start = Attacked(request=user_request("bake {bread}"))
    texts = [
        attack.apply(start, random.Random(0), Given()).text  # type: ignore[union-attr]
        for attack in (hushed, dotted.with_options("5"))
    ]
    assert texts == ["bake {bread}. Whisper.", "bake {bread}....."]


def test_an_entry_that_is_no_attack_is_told() -> None:
    with pytest.raises(ValidationError, match="titel"):
        Family(attacks=({"name": "hushed", "template": "{request}", "titel": "", **ENTRY},)).made({})


def test_no_two_attacks_have_one_name() -> None:
    names = [attack["name"] for name in ("templates", "encodings") for attack in Family.read(name).attacks]
    assert len(names) == len(set(names)) < len(all_attacks())
