"""Greedy Coordinate Gradient (Zou et al. 2023, arXiv 2307.15043) as a search, towards answer, thought, or many goals.

A step is a `Compute` whose whole outcome is kept, so that a search that was killed goes on at the step. At some steps
the best suffix so far is put to the attacked model and judged; the search ends where it gets through. What a suffix is
optimised towards is text that the attacked model itself would decode next, token by token. The steps themselves, on the
model's weights, stand in `weights.gcg`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from forethought.attacks.base import Attacked, Options
from forethought.attacks.searches.base import Ask, Compute, Goal, Run, Search, Tools, described
from forethought.attacks.searches.suffix import user_text
from forethought.errors import ConfigError

if TYPE_CHECKING:
    from forethought.attacks.searches.weights.gcg import AimKind, Problem
    from forethought.models.local import LocalModel

_EARLY = (0, 10, 20, 50)
"""Steps at which the first suffixes are asked; then every hundredth and the last."""
_FAILURES = 3
"""Steps in a row that may fail before a search ends."""
Made = dict[str, Any]


@dataclass
class Optimisation:
    """One suffix being optimised. The steps that are done are known to all searches that share it."""

    goals: Sequence[Goal]
    model: LocalModel
    aim: AimKind
    options: Options
    seed: str
    made: dict[int, Made] = field(default_factory=dict)
    """State by step."""
    label: str = ""
    """Begins the names of its steps: what was kept of one group is nothing to another."""

    @cached_property
    def problem(self) -> Problem:
        """Made at the first step that is computed and not read from the disk."""
        from forethought.attacks.searches.weights.gcg import Setting, problem

        chosen = {name: self.options[name] for name in Setting.model_fields if name in self.options}
        return problem(self.goals, self.model, self.aim, Setting.model_validate(chosen), self.seed)

    def compute(self, number: int, before: Made | None) -> Compute:
        """Step `number`, from the state before it; step 0 makes the first state."""
        from forethought.attacks.searches.weights.gcg import passes

        sequences = 1 if number == 0 else int(self.options["candidates"]) + 1
        forwards = sequences * passes(self.model, self.aim) * len(self.goals)
        return Compute(name=f"{self.label}step/{number}", work=partial(self._work, number, before), forwards=forwards)

    def _work(self, number: int, before: Made | None) -> Made:
        from forethought.attacks.searches.weights.gcg import State, start, step

        if number not in self.made:
            made = self.problem
            state = start(made) if before is None else step(made, State.model_validate(before), number)
            self.made[number] = state.model_dump(mode="json")
        return self.made[number]


_STATES: WeakKeyDictionary[LocalModel, dict[str, dict[int, Made]]] = WeakKeyDictionary()
"""States of the groups' optimisations by model, group and step: small, and kept as long as the model."""
_LIVE: WeakValueDictionary[tuple[int, str], Optimisation] = WeakValueDictionary()
"""Those at work, which hold the model and its caches, as long as a search is at it."""


def _shared(group: Sequence[Goal], model: LocalModel, options: Options) -> Optimisation:
    """The group's one optimisation; its seed is of the group, so that all searches make the same."""
    said = "\x1e".join(f"{goal.request.id}\x1f{goal.target_string}" for goal in group)
    key = hashlib.sha256(f"{said}\x1d{sorted(options.items())}".encode()).hexdigest()
    work = _LIVE.get((id(model), key))
    if work is None:
        made = _STATES.setdefault(model, {}).setdefault(key, {})
        work = Optimisation(group, model, "think", options, key, made, label=f"{key[:12]}/")
        _LIVE[id(model), key] = work
    return work


def is_checkpoint(step: int) -> bool:
    """Whether the best suffix is put to the model after this step."""
    return step in _EARLY or (step > 0 and step % 100 == 0)


def _search(name: str, aim: AimKind) -> Search:
    """A search for a suffix of one goal, or of a whole group: `gcg_multi` tries that one on a goal which need not be
    among them."""

    def search(goal: Goal, rng: random.Random, options: Options, tools: Tools) -> Run:
        model = tools.model
        if model is None:
            raise ConfigError(
                f"attack '{name}'", "needs the weights of the model", "Give a local model, or leave it out"
            )
        if name == "gcg_multi":
            work = _shared(tuple(tools.group[: int(options["goals"])]) or (goal,), model, options)
        else:
            work = Optimisation((goal,), model, aim, options, str(rng.randrange(2**31)))
        steps, early = int(options["steps"]), options["early_stop"] == "yes"
        state: Made | None = None
        asked: str | None = None
        failed = 0
        for number in range(steps + 1):
            (reply,) = yield [work.compute(number, state)]
            failed += 1
            if reply.made is not None:
                # What was read from the disk needs no computing by the searches that share it.
                state, failed = work.made.setdefault(number, dict(reply.made)), 0
            if state is None or failed == _FAILURES:
                return
            ends = number == steps or (early and state["hit"] and state["goals"] == len(work.goals))
            if (ends or is_checkpoint(number)) and state["text"] != asked:
                asked = str(state["text"])
                request = goal.request.restyled(user_text(goal.request.messages, asked), name)
                (reply,) = yield [Ask(attacked=Attacked(request=request, lineage=(name,)))]
                if reply.broken:
                    return
            if ends:
                return

    return search


METHODS = described(
    "gcg",
    gcg=_search("gcg", "think"),
    gcg_think=_search("gcg_think", "think"),
    gcg_skip=_search("gcg_skip", "skip"),
    gcg_multi=_search("gcg_multi", "think"),
)
