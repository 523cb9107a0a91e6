"""What a suffix is optimised towards: text that the attacked model itself would decode next, token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from forethought.data.teach import intent_of
from forethought.evals.attacks.adaptive.base import Goal
from forethought.evals.attacks.adaptive.gcg_tokens import Ids, encode_text
from forethought.reasoning import SafetyReasoning, markers, render

if TYPE_CHECKING:
    from forethought.engine.local import LocalModel

Aim = Literal["think", "skip"]
"""For a model that thinks: through a thought that finds nothing wrong, or into the answer at once."""


@dataclass(frozen=True)
class Target:
    """A string that the model is to write, right after its prompt."""

    forced: Ids
    """Tokens that the engine puts at the beginning of the model's turn; nothing has to make them likely."""
    wanted: Ids
    """Tokens of the string."""
    base: bool = False
    """True where the base model's weights write it."""


def targets(goal: Goal, model: LocalModel, aim: Aim) -> tuple[Target, ...]:
    """What has to be likely for the attack to get through; the loss is summed over them.

    - A model that doesn't think opens its turn with the target string (GCG as published), whatever the aim.
    - `think`: after the forced opening marker, the thought it would write about a harmless request (intent, verdict
      "comply", closing marker), and the target string. With split answering the thought is one target and the answer,
      which the base model writes without the thought, is another.
    - `skip`: the target string where the thought would begin. The engine leads the model from there to a verdict.
    """
    answer = encode_text(model.tokenizer, goal.target_string)
    settings = model.thinking
    if settings is None:
        return (Target(forced=(), wanted=answer),)
    opening, closing = markers(settings.format)
    forced = encode_text(model.tokenizer, opening + "\n")
    if aim == "skip":
        return (Target(forced, answer),)
    thought = harmless_thought(goal, model)
    if settings.answer_with == "base":
        thought = thought[: thought.rindex(closing) + len(closing)]
        return Target(forced, _after(model, forced, thought)), Target((), answer, base=True)
    return (Target(forced, _after(model, forced, thought + goal.target_string)),)


def harmless_thought(goal: Goal, model: LocalModel) -> str:
    """The thought that a trained model would write, did it take the request for a harmless one."""
    assert model.settings is not None
    reasoning = SafetyReasoning(intent=intent_of(goal.request.plain), verdict="comply")
    return render(reasoning, model.settings.policy, model.settings.format, model.settings.detail)


def _after(model: LocalModel, forced: Ids, text: str) -> Ids:
    """Tokens of a turn behind those that are forced."""
    whole = encode_text(model.tokenizer, text)
    if whole[: len(forced)] == forced:
        return whole[len(forced) :]
    opening = markers(model.settings.format)[0] if model.settings else ""
    return encode_text(model.tokenizer, text.removeprefix(opening + "\n"))


def passes(model: LocalModel, aim: Aim) -> int:
    """How many targets there are, and so how many passes of a model one suffix takes."""
    settings = model.thinking
    return 2 if settings is not None and aim == "think" and settings.answer_with == "base" else 1
