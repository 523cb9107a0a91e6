"""Which reasoning attacks hardening trains against, and which stay unseen for the test.

The unit is the family: an attack with all its options (`closing_tag`, `closing_tag:comply`) stands on one side. Each
way to get at a thought has families on both sides, so that a test tells near attacks from those of a way never
trained: crowding a thought out and cutting it off are held out altogether.

| way | trained | held out |
| --- | --- | --- |
| the model's turn is begun: no thought | empty_thinking | less_thinking |
| the model's turn is begun: compliance | answer_prefill, and behind an empty thought | comply_thinking |
| a thought is forged in the prompt | closing_tag (both), h_cot | fake_turn (both) |
| the rules or the check are declared void | policy_withdrawn | self_check |
| the thought is crowded out | - | cot_hijacking (both), overthink |
| the thought is cut off | - | budget_cut (both) |
"""

from __future__ import annotations

from collections.abc import Iterable

TRAINED_REASONING = (
    "empty_thinking",
    "answer_prefill",
    "empty_thinking | answer_prefill",
    "closing_tag",
    "closing_tag:comply",
    "h_cot",
    "policy_withdrawn",
)
"""What hardening attacks with by default."""
HELD_OUT_REASONING = (
    "less_thinking",
    "comply_thinking",
    "fake_turn",
    "fake_turn:plain",
    "self_check",
    "cot_hijacking",
    "cot_hijacking:200",
    "budget_cut",
    "budget_cut:4",
    "overthink",
)
"""The rest of the suite `reasoning`: neither trained on nor used to choose a round."""
_NEAR = {"best_of_n": ("misspelling",)}
"""Searches whose rows show the model a static attack as well: best-of-n shuffles the letters of words."""


def shown_by(names: Iterable[str]) -> tuple[str, ...]:
    """All styles that training on these attacks has shown a model, sorted.

    A composition shows each of its steps, an attack with options its bare name, and a search what it is near to.
    """
    shown: set[str] = set()
    for name in names:
        steps = [step.strip() for step in name.split("|")]
        bare = [step.partition(":")[0] for step in steps]
        shown.update((name, *steps, *bare))
        shown.update(near for step in bare for near in _NEAR.get(step, ()))
    return tuple(sorted(shown))
