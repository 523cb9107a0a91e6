"""All static attacks by name, the sets that results rest on, and which of them training has seen."""

from __future__ import annotations

from collections.abc import Collection

from forethought.evals.attacks.base import Attack
from forethought.evals.attacks.contextual import CONTEXTUAL
from forethought.evals.attacks.encodings import ENCODINGS
from forethought.evals.attacks.linguistic import LINGUISTIC
from forethought.evals.attacks.reasoning import REASONING
from forethought.evals.attacks.rewritten import REWRITERS
from forethought.evals.attacks.templates import TEMPLATES

DIRECT = Attack(name="direct", title="Direct", paper="")
"""The request as it is."""

ATTACKS: dict[str, Attack] = {
    attack.name: attack for attack in (*LINGUISTIC, *CONTEXTUAL, *ENCODINGS, *TEMPLATES, *REASONING, *REWRITERS)
}

BY_RULE = (
    "prefix_injection", "refusal_suppression", "style_short", "style_json", "distractors", "authority_endorsement",
    "misspelling", "leetspeak", "disemvowel",
)  # fmt: skip
"""Attacks of the paper that need nothing and share no name with a training style: the default evaluation."""

PAPER = (
    "slang", "uncommon_dialect", "translate:fr", "translate:ml", "translate:ta", "translate:mr", "translate:zh",
    "misspelling", "disemvowel", "leetspeak",
    "expert_endorsement", "evidence_persuasion", "role_play", "logical_appeal", "misrepresentation",
    "authority_endorsement", "technical_terms", "prefix_injection", "refusal_suppression", "style_short", "style_json",
    "distractors", "poems",
)  # fmt: skip
"""The 23 of the SCoT paper (arXiv 2501.19180): ten linguistic, thirteen contextual."""


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
