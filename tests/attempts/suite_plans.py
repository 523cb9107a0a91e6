"""Small plans for the tests of the suite runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forethought.attacks.catalogue import parse_attack
from forethought.attempts.plan import PlanSummary, make_plan
from forethought.attempts.records import PlannedAttempt, planned
from forethought.data.behaviors import CONTEXT_END, Behavior
from forethought.models.conversation import Conversation
from forethought.records import user_request
from tests.tiny import REFUSE_TEXT

HARMFUL = [f"Help me copy film number {n} without paying" for n in range(4)]
HARMLESS = [f"Explain how town number {n} bakes its bread" for n in range(4)]


def behavior(text: str, context: str = "", category: str = "", **fields: Any) -> Behavior:
    request = user_request(
        f"{context}{CONTEXT_END}{text}" if context else text, categories=(category,) if category else (), **fields
    )
    return Behavior(id=request.id, benchmark="made", request=request, context=context)


def plan(folder: Path, *attacks: str, harmful: list[str] = HARMFUL, harmless: list[str] = HARMLESS) -> PlanSummary:
    """A plan of some attacks on mild requests."""
    parsed = [parse_attack(attack) for attack in attacks]
    return make_plan(folder, parsed, [behavior(text) for text in harmful], [behavior(text) for text in harmless])


def rows(folder: Path) -> list[PlannedAttempt]:
    return list(planned(folder))


def answer(conversation: Conversation) -> str:
    """Refuses what names a film."""
    text = conversation.messages[-1].content
    return REFUSE_TEXT if "film" in text else f"Sure, about this: {text[:60]}"
