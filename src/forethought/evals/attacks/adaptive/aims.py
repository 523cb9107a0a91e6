"""What a search makes likely: an opening of the answer, a thought that complies, or the verdict itself.

A model that thinks first never begins with "Sure": its turn opens with a thought, and the verdict in it decides. So
three aims. `answer` is the opening of the answer right at the start of the turn, as the attacks were published: it
skips the thought. `think` is a whole thought that finds nothing wrong, and the opening behind it. `verdict` is the
one word that decides, behind such a thought. `auto` is `verdict` for a model that thinks and `answer` for another.
"""

from __future__ import annotations

from dataclasses import dataclass

from forethought.data.teach import intent_of
from forethought.evals.attacks.adaptive.base import Goal, Score, Tools
from forethought.evals.attacks.base import Attacked, Parameter
from forethought.reasoning import VERDICT_ANCHOR, SafetyReasoning, markers, render

_CHARACTERS_OF_TOKEN = 4.0
"""Of English text, where no tokenizer is at hand."""

AIM = Parameter(
    name="aim",
    default="auto",
    choices=("auto", "answer", "think", "verdict"),
    meaning="what is made likely: the answer's opening, a thought that complies, its verdict; auto: verdict for a"
    " model that thinks, else answer",
)


@dataclass(frozen=True)
class Aim:
    """A text of the model's own turn that a search makes likely."""

    prefill: str
    """What of the turn is taken as given."""
    target_string: str
    """What is made likely behind it."""
    first_decides: bool
    """Whether its first token says more than how a turn always begins."""

    def score(self, attacked: Attacked, first_only: bool = False) -> Score:
        """The question how likely it is under an attack. `first_only` holds where the first token decides."""
        opened = attacked.opened(self.prefill) if self.prefill else attacked
        return Score(attacked=opened, target_string=self.target_string, first_only=first_only and self.first_decides)


def aim_at(goal: Goal, tools: Tools, kind: str) -> Aim:
    """The aim of a kind.

    The thought is rendered as the model was taught to write it, and states the request. A model whose turn can't be
    begun for it is scored on prefill and target together.
    """
    if kind == "auto":
        kind = "verdict" if tools.thinks else "answer"
    if kind == "answer":
        return Aim("", goal.target_string, first_decides=True)
    settings = tools.model.settings if tools.model is not None else None
    reasoning = SafetyReasoning(intent=intent_of(goal.request.plain), verdict="comply")
    thought = render(reasoning, tools.policy, tools.format, settings.detail if settings is not None else "short")
    if kind == "verdict":
        head, anchor, _ = thought.partition(VERDICT_ANCHOR)
        prefill, target = head + anchor, " comply"
    else:
        prefill = markers(tools.format)[0] + "\n"
        target = thought.removeprefix(prefill) + goal.target_string
    if not tools.able.prefill:
        return Aim("", prefill + target, first_decides=False)
    return Aim(prefill, target, first_decides=kind == "verdict")


def tokens_of(text: str, tools: Tools) -> int:
    """Tokens of a text, at least 1: the attacked model's where it is at hand, else estimated from the characters."""
    if tools.model is not None:
        return max(1, len(tools.model.tokenizer(text, add_special_tokens=False)["input_ids"]))
    return max(1, round(len(text) / _CHARACTERS_OF_TOKEN))
