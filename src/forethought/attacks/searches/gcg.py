"""Greedy Coordinate Gradient (Zou et al. 2023, arXiv 2307.15043) as a search, towards answer, thought, or many goals.

A step is a `Compute` whose whole outcome is kept, so that a search that was killed goes on at the step. At some steps
the best suffix so far is put to the attacked model and judged; the search ends where it gets through. What a suffix is
optimised towards is text that the attacked model itself would decode next, token by token. The steps themselves, on the
model's weights, stand in `weights.gcg`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary, WeakValueDictionary

from forethought.attacks.base import Attacked, Options, Parameter
from forethought.attacks.searches.base import (
    Ask,
    Compute,
    Goal,
    Method,
    Questions,
    Replies,
    Run,
    Search,
    Tools,
    harmless_thought,
)
from forethought.attacks.searches.suffix import Ids, encode_text, user_text
from forethought.errors import ConfigError
from forethought.reasoning import markers

if TYPE_CHECKING:
    from forethought.attacks.searches.weights.gcg import Problem
    from forethought.models.local import LocalModel

PAPER = "Zou et al. 2023, arXiv 2307.15043"
_EARLY = (0, 10, 20, 50)
"""Steps at which the first suffixes are asked; then every hundredth and the last."""
_FAILURES = 3
"""Steps in a row that may fail before a search ends."""
Made = dict[str, Any]
AimKind = Literal["think", "skip"]
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


def targets(goal: Goal, model: LocalModel, aim: AimKind) -> tuple[Target, ...]:
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
    thought = harmless_thought(goal.request, settings.policy, settings.format, settings.detail)
    if settings.answer_with == "base":
        thought = thought[: thought.rindex(closing) + len(closing)]
        return Target(forced, _after(model, forced, thought)), Target((), answer, base=True)
    return (Target(forced, _after(model, forced, thought + goal.target_string)),)


def _after(model: LocalModel, forced: Ids, text: str) -> Ids:
    """Tokens of a turn behind those that are forced."""
    whole = encode_text(model.tokenizer, text)
    if whole[: len(forced)] == forced:
        return whole[len(forced) :]
    opening = markers(model.settings.format)[0] if model.settings else ""
    return encode_text(model.tokenizer, text.removeprefix(opening + "\n"))


def passes(model: LocalModel, aim: AimKind) -> int:
    """How many targets there are, and so how many passes of a model one suffix takes."""
    settings = model.thinking
    return 2 if settings is not None and aim == "think" and settings.answer_with == "base" else 1


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

        chosen = self.options
        setting = Setting(
            candidates=int(chosen["candidates"]),
            top_k=int(chosen["top_k"]),
            length=int(chosen["length"]),
            init=str(chosen["init"]),
            buffer=int(chosen["buffer"]),
            mellowmax=chosen["loss"] == "mellowmax",
            progressive=chosen.get("progressive", "no") == "yes",
        )
        return problem(self.goals, self.model, self.aim, setting, self.seed)

    def compute(self, number: int, before: Made | None) -> Compute:
        """Step `number`, from the state before it; step 0 makes the first state."""
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


def _single(name: str, aim: AimKind) -> Search:
    """A search for a suffix of one goal."""

    def search(goal: Goal, rng: random.Random, options: Options, tools: Tools) -> Run:
        work = Optimisation((goal,), _model(name, tools), aim, options, str(rng.randrange(2**31)))
        yield from _run(name, goal, work)

    return search


def _universal(goal: Goal, rng: random.Random, options: Options, tools: Tools) -> Run:
    """A search that tries the suffix of a whole group of goals on one goal, which need not be among them."""
    model = _model("gcg_multi", tools)
    group = tuple(tools.group[: int(options["goals"])]) or (goal,)
    yield from _run("gcg_multi", goal, _shared(group, model, options))


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


def _model(name: str, tools: Tools) -> LocalModel:
    if tools.model is None:
        raise ConfigError(f"attack '{name}'", "needs the weights of the model", "Give a local model, or leave it out")
    return tools.model


def _run(name: str, goal: Goal, work: Optimisation) -> Run:
    steps, early = int(work.options["steps"]), work.options["early_stop"] == "yes"
    state: Made | None = None
    asked: str | None = None
    failed = 0
    for number in range(steps + 1):
        found = yield from _computed(work, number, state)
        failed = failed + 1 if found is None else 0
        state = found or state
        if state is None or failed == _FAILURES:
            return
        ends = number == steps or (early and state["hit"] and state["goals"] == len(work.goals))
        if (ends or is_checkpoint(number)) and state["text"] != asked:
            asked = str(state["text"])
            (reply,) = yield [Ask(attacked=with_suffix(goal, asked, name))]
            if reply.broken:
                return
        if ends:
            return


def _computed(work: Optimisation, number: int, state: Made | None) -> Generator[Questions, Replies, Made | None]:
    (reply,) = yield [work.compute(number, state)]
    if reply.made is None:
        return None
    # What was read from the disk needs no computing by the searches that share it.
    return work.made.setdefault(number, dict(reply.made))


def is_checkpoint(step: int) -> bool:
    """Whether the best suffix is put to the model after this step."""
    return step in _EARLY or (step > 0 and step % 100 == 0)


def with_suffix(goal: Goal, suffix: str, name: str) -> Attacked:
    """The goal's request with a suffix behind its last turn."""
    request = goal.request.restyled(user_text(goal.request.messages, suffix), name)
    return Attacked(request=request, lineage=(name,))


_YES_NO = ("no", "yes")
_PARAMETERS = (
    Parameter(name="steps", default=500, least=1, meaning="steps of the search"),
    Parameter(name="candidates", default=512, least=1, meaning="suffixes tried a step"),
    Parameter(name="top_k", default=256, least=1, meaning="tokens at each place that candidates are drawn from"),
    Parameter(name="length", default=20, least=1, most=1000, meaning="tokens of the suffix"),
    Parameter(name="init", default="!", meaning="the word that the first suffix repeats"),
    Parameter(name="buffer", default=0, meaning="best suffixes kept to go on from; 0 goes on from the last"),
    Parameter(
        name="loss", default="cross_entropy", choices=("cross_entropy", "mellowmax"), meaning="what is minimised"
    ),
    Parameter(
        name="early_stop", default="no", choices=_YES_NO, meaning="whether to end where the target string is reached"
    ),
)
_MULTI = (
    Parameter(name="goals", default=25, least=1, meaning="requests that the suffix is optimised for"),
    Parameter(
        name="progressive", default="yes", choices=_YES_NO, meaning="whether goals are taken in one after the other"
    ),
)


def _queries(steps: int, checkpoint: Callable[[int], bool] = is_checkpoint) -> int:
    return sum(checkpoint(step) or step == steps for step in range(steps + 1))


def _method(name: str, title: str, search: Search, cost: str, more: tuple[Parameter, ...] = ()) -> Method:
    return Method(
        name=name,
        title=title,
        paper=PAPER,
        needs=("gradients",),
        white_box=True,
        cost=cost,
        parameters=(*_PARAMETERS, *more),
        queries=_queries(500),
        search=search,
    )


_COST = "9 queries; 500 gradients and 256,000 forward passes, twice that towards a thought whose answer the base writes"
GCG = _method("gcg", "GCG", _single("gcg", "think"), _COST)
"""The published attack; on a model that thinks it aims where `GCG_THINK` does, whose opening is the thought's."""
GCG_THINK = _method("gcg_think", "GCG, target begins in the reasoning", _single("gcg_think", "think"), _COST)
GCG_SKIP = _method("gcg_skip", "GCG, target skips the reasoning", _single("gcg_skip", "skip"), _COST)
GCG_MULTI = _method(
    "gcg_multi",
    "GCG, one suffix for many requests",
    _universal,
    "9 queries a request; 500 gradients and 256,000 forward passes for each of 25 requests, once for all of them",
    _MULTI,
)
"""Optimised for the first goals of `Tools.group`; on all others it shows how the suffix transfers."""

METHODS = (GCG, GCG_THINK, GCG_SKIP, GCG_MULTI)
