"""GCG as a search: what it asks and when, what it aims at, and that a killed run goes on as if nothing had been."""

from __future__ import annotations

import gc
import json
import random
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from forethought.attacks.base import Options
from forethought.attacks.searches.base import Ask, Compute, Goal, Question, Reply, Tools, parse_method
from forethought.attacks.searches.gcg import (
    _LIVE,
    _STATES,
    is_checkpoint,
)
from forethought.attacks.searches.weights.gcg import AimKind, Setting, passes, problem, start, targets
from forethought.chat import encode_prompt
from forethought.data.teach import intent_of
from forethought.errors import ConfigError
from forethought.models.local import LocalModel
from forethought.reasoning import SafetyReasoning, parse, render
from forethought.records import user_request
from tests.attacks.gcg_toy import toy
from tests.tiny import tiny_adapter, tiny_folder

GCG = parse_method("gcg")
GCG_MULTI = parse_method("gcg_multi")
GCG_SKIP = parse_method("gcg_skip")
GCG_THINK = parse_method("gcg_think")

TOY_GOAL = Goal(user_request("what is the sun"), "sure the moon is green")
GOAL = Goal(user_request("What colour is the sky?", harmful=False), "Sure, the sky is green")
SMALL: Options = {"steps": 12, "candidates": 6, "top_k": 8, "length": 3}


class Run:
    """Drives one search; `kept` are the replies of an earlier run, in order."""

    def __init__(
        self, goal: Goal, options: Options, tools: Tools, method: Any = GCG, kept: Sequence[Reply] = ()
    ) -> None:
        self.questions: list[Question] = []
        self.replies: list[Reply] = []
        self.worked = 0
        self.broken_at = 99
        self._kept = list(kept)
        self._search = method.search(goal, random.Random(4), {**method.options, **options}, tools)

    def go(self, until: int = 10_000) -> Run:
        """Up to a number of questions."""
        try:
            questions = next(self._search)
            while len(self.replies) < until:
                (question,) = questions
                self.questions.append(question)
                place = len(self.replies)
                self.replies.append(self._kept[place] if place < len(self._kept) else self._answer(question))
                questions = self._search.send([self.replies[-1]])
        except StopIteration:
            pass
        return self

    def _answer(self, question: Question) -> Reply:
        if isinstance(question, Compute):
            self.worked += 1
            return Reply(made=json.loads(json.dumps(question.work())))
        asked = sum(isinstance(one, Ask) for one in self.questions)
        return Reply(broken=asked >= self.broken_at)

    @property
    def texts(self) -> list[str]:
        return [one.attacked.text for one in self.questions if isinstance(one, Ask)]

    @property
    def states(self) -> list[Any]:
        return [reply.made for reply in self.replies if reply.made is not None]


def tools(**fields: Any) -> Tools:
    return Tools(**{"model": toy(), **fields})


# What it asks


def test_steps_are_computed_and_checkpoints_asked() -> None:
    run = Run(TOY_GOAL, SMALL, tools()).go()
    names = [one.name if isinstance(one, Compute) else "ask" for one in run.questions]
    assert names[:2] == ["step/0", "ask"]
    assert [name for name in names if name != "ask"] == [f"step/{number}" for number in range(13)]
    assert names[-1] == "ask" or run.states[-1]["text"] == run.states[10]["text"]
    assert run.texts[0] == "what is the sun ! ! !"
    assert all(text.startswith("what is the sun ") and len(text.split()) == 7 for text in run.texts)
    assert len(set(run.texts)) == len(run.texts) > 1
    assert run.states[-1]["best_loss"] < run.states[0]["loss"]
    assert [step for step in range(501) if is_checkpoint(step)] == [0, 10, 20, 50, 100, 200, 300, 400, 500]
    assert GCG.queries == 9


def test_the_request_is_remembered_behind_the_suffix() -> None:
    (question,) = [one for one in Run(TOY_GOAL, SMALL, tools()).go(2).questions if isinstance(one, Ask)]
    assert question.attacked.request.plain == "what is the sun"
    assert question.attacked.request.operator == "gcg"
    assert question.attacked.lineage == ("gcg",)


def test_it_ends_when_it_gets_through() -> None:
    run = Run(TOY_GOAL, SMALL, tools())
    run.broken_at = 2
    run.go()
    assert isinstance(run.questions[-1], Ask)
    assert len(run.texts) == 2


def test_early_stop_ends_where_the_target_string_is_reached() -> None:
    """A target that greedy decoding opens with anyway, after the first suffix."""
    prompt = torch.tensor([encode_prompt(toy().tokenizer, user_request("what is the sun ! ! !").messages)])
    with torch.no_grad():
        word = toy().tokenizer.decode(int(toy().model(input_ids=prompt).logits[0, -1].argmax()))
    easy = Goal(TOY_GOAL.request, word)
    run = Run(easy, {**SMALL, "early_stop": "yes"}, tools()).go()
    assert [type(one).__name__ for one in run.questions] == ["Compute", "Ask"]
    assert len(Run(easy, SMALL, tools()).go().states) == 13


def test_forward_passes_are_counted() -> None:
    run = Run(TOY_GOAL, SMALL, tools()).go()
    assert [one.forwards for one in run.questions if isinstance(one, Compute)] == [1] + [7] * 12


def test_without_weights_it_says_so() -> None:
    with pytest.raises(ConfigError, match="needs the weights"):
        Run(TOY_GOAL, SMALL, Tools()).go()


def test_defaults_are_the_papers() -> None:
    options = GCG.options
    assert (options["steps"], options["candidates"], options["top_k"], options["length"]) == (500, 512, 256, 20)
    assert Setting().model_dump(include={"candidates", "top_k", "length", "init"}) == {
        "candidates": 512, "top_k": 256, "length": 20, "init": "!",
    }  # fmt: skip
    assert GCG_MULTI.options["goals"] == 25


# Resume


@pytest.mark.parametrize("killed_after", [1, 2, 5, 13])
def test_a_killed_run_goes_on_as_if_nothing_had_been(killed_after: int) -> None:
    whole = Run(TOY_GOAL, SMALL, tools()).go()
    part = Run(TOY_GOAL, SMALL, tools()).go(killed_after)
    again = Run(TOY_GOAL, SMALL, tools(), kept=part.replies).go()
    assert again.states == whole.states
    assert again.texts == whole.texts
    assert again.worked == whole.worked - len(part.states)


def test_a_replay_asks_nothing_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Run(TOY_GOAL, SMALL, tools()).go()
    monkeypatch.setattr("forethought.attacks.searches.weights.gcg.problem", None)
    again = Run(TOY_GOAL, SMALL, tools(), kept=whole.replies).go()
    assert again.worked == 0
    assert again.texts == whole.texts


def test_a_step_that_failed_is_passed_over_and_three_in_a_row_end_it() -> None:
    lost = Reply(cause="no room")
    first = Run(TOY_GOAL, SMALL, tools()).go(2).replies
    once = Run(TOY_GOAL, SMALL, tools(), kept=[*first, lost]).go()
    assert len(once.states) == 12
    thrice = Run(TOY_GOAL, SMALL, tools(), kept=[*first, lost, lost, lost]).go()
    assert len(thrice.questions) == 5
    assert Run(TOY_GOAL, SMALL, tools(), kept=[lost]).go().questions[1:] == []


# What it aims at


def test_a_model_that_does_not_think_opens_with_the_target_string() -> None:
    model = LocalModel.load(str(tiny_folder()))
    aims: tuple[AimKind, ...] = ("think", "skip")
    for aim in aims:
        (target,) = targets(GOAL, model, aim)
        assert target.forced == ()
        assert model.tokenizer.decode(target.wanted) == "Sure, the sky is green"


def test_a_trained_model_that_does_not_think_is_aimed_at_as_an_untrained_one(tmp_path: Path) -> None:
    model = thinker(tmp_path, method="refusal", thinks=False)
    (target,) = targets(GOAL, model, "think")
    assert (target.forced, target.base) == ((), False)
    assert model.tokenizer.decode(target.wanted) == "Sure, the sky is green"
    assert passes(model, "think") == 1


def thinker(tmp_path: Path, **settings: Any) -> LocalModel:
    return LocalModel.load(str(tiny_folder()), tiny_adapter(tmp_path / "adapter", **settings))


@pytest.mark.parametrize("fmt", ["think", "paper"])
@pytest.mark.parametrize("detail", ["short", "full"])
def test_towards_the_thought_it_aims_at_what_the_model_would_decode(tmp_path: Path, fmt: str, detail: str) -> None:
    model = thinker(tmp_path, format=fmt, detail=detail, answer_with="adapter")
    assert model.settings is not None
    (target,) = targets(GOAL, model, "think")
    text = model.tokenizer.decode([*target.forced, *target.wanted])
    reasoning = SafetyReasoning(intent=intent_of("What colour is the sky?"), verdict="comply")
    taught = render(reasoning, model.settings.policy, model.settings.format, model.settings.detail)
    assert text == taught + "Sure, the sky is green"
    # As one training row is tokenised, and behind the very tokens that the engine forces.
    assert [*target.forced, *target.wanted] == model.tokenizer(text, add_special_tokens=False)["input_ids"]
    parsed = parse(text, model.settings.policy)
    assert parsed.reasoning is not None
    assert (parsed.reasoning.verdict, parsed.answer) == ("comply", "Sure, the sky is green")


def test_with_split_answering_the_base_writes_the_answer_without_the_thought(tmp_path: Path) -> None:
    model = thinker(tmp_path, answer_with="base")
    thought, answer = targets(GOAL, model, "think")
    assert model.tokenizer.decode(thought.wanted).endswith("</think>")
    assert not thought.base
    assert (answer.forced, answer.base) == ((), True)
    assert model.tokenizer.decode(answer.wanted) == "Sure, the sky is green"
    assert (passes(model, "think"), passes(model, "skip")) == (2, 1)


def test_skipping_the_thought_aims_at_the_answer_where_the_thought_would_begin(tmp_path: Path) -> None:
    model = thinker(tmp_path)
    (target,) = targets(GOAL, model, "skip")
    assert model.tokenizer.decode(target.forced) == "<think>\n"
    assert model.tokenizer.decode(target.wanted) == "Sure, the sky is green"


@pytest.mark.parametrize("merged", [True, False])
def test_each_target_is_scored_with_the_weights_that_write_it(tmp_path: Path, merged: bool) -> None:
    model = thinker(tmp_path, answer_with="base")
    if not merged:
        from peft import PeftModel

        tuned = PeftModel.from_pretrained(model.base_weights, str(tmp_path / "adapter")).eval()
        model = LocalModel(tuned, model.tokenizer, model.settings)
    made = problem((GOAL,), model, "think", Setting(length=4), "seed")
    row = made.tensor([made.slots[0].first])
    base = LocalModel.load(str(tiny_folder()))
    alone = start(problem((GOAL,), base, "skip", Setting(length=4), "seed")).loss
    thought, answer = (float(loss.losses(row)[0]) for loss in made.losses[0])
    assert answer == pytest.approx(alone, abs=1e-3)
    assert start(made).loss == pytest.approx((thought + answer) / 2, abs=1e-4)
    ids = [*made.slots[0].head, *made.slots[0].first, *made.slots[0].tail, *targets(GOAL, model, "think")[0].forced]
    wanted = targets(GOAL, model, "think")[0].wanted
    with torch.no_grad():
        logits = model.model(input_ids=torch.tensor([[*ids, *wanted]])).logits[0, len(ids) - 1 : -1]
    expected = float(torch.nn.functional.cross_entropy(logits.float(), torch.tensor(wanted)))
    assert thought == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("method", "aim"), [(GCG, "think"), (GCG_THINK, "think"), (GCG_SKIP, "skip")])
def test_each_method_aims_where_it_says(tmp_path: Path, method: Any, aim: AimKind) -> None:
    model = thinker(tmp_path, answer_with="base")
    run = Run(GOAL, {**SMALL, "steps": 1}, Tools(model=model), method).go(1)
    expected = start(problem((GOAL,), model, aim, Setting(length=3), "seed")).loss
    assert run.states[0]["loss"] == pytest.approx(expected, abs=1e-5)


# Many goals


def group() -> tuple[Goal, ...]:
    said = [("what is the sun", "sure red"), ("what is the cat", "sure blue")]
    return tuple(Goal(user_request(text), target) for text, target in said)


def _forget() -> None:
    """As in a new process."""
    _STATES.clear()
    _LIVE.clear()


def test_searches_of_a_group_share_one_suffix_and_its_work() -> None:
    other = Goal(user_request("what is the star"), "sure one")
    _forget()
    options = {**SMALL, "progressive": "no"}
    runs = [Run(goal, options, tools(group=group()), GCG_MULTI).go() for goal in (*group(), other)]
    assert runs[0].states == runs[1].states == runs[2].states
    assert all(state["goals"] == 2 for state in runs[0].states)
    for run, goal in zip(runs, (*group(), other), strict=True):
        plain = goal.request.text
        assert [text.removeprefix(plain) for text in run.texts] == [
            text.removeprefix("what is the sun") for text in runs[0].texts
        ]
    (made,) = _STATES[toy()].values()
    assert len(made) == 13
    _forget()
    again = Run(group()[1], options, tools(group=group()), GCG_MULTI, kept=runs[0].replies[:5]).go()
    assert again.states == runs[0].states


def test_steps_of_one_group_are_named_apart_from_those_of_another() -> None:
    names = []
    for goals in (group(), group()[:1], ()):
        (question,) = Run(group()[0], SMALL, tools(group=goals), GCG_MULTI).go(1).questions
        assert isinstance(question, Compute)
        names.append(question.name)
    assert names[0] != names[1] == names[2]
    assert all(name.endswith("/step/0") for name in names)


def test_a_group_does_not_keep_a_model_in_memory(tmp_path: Path) -> None:
    model = LocalModel.load(str(tiny_folder()))
    run = Run(GOAL, {**SMALL, "steps": 1}, Tools(model=model, group=(GOAL,)), GCG_MULTI).go()
    assert len(_STATES[model]) == 1
    gone = weakref.ref(model)
    del model, run
    gc.collect()
    assert gone() is None


def test_steps_read_from_the_disk_are_not_done_again_for_another_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**SMALL, "progressive": "no"}
    _forget()
    first = Run(group()[0], options, tools(group=group()), GCG_MULTI).go()
    _forget()
    monkeypatch.setattr("forethought.attacks.searches.weights.gcg.problem", None)
    again = Run(group()[0], options, tools(group=group()), GCG_MULTI, kept=first.replies).go()
    assert again.worked == 0
    assert Run(group()[1], options, tools(group=group()), GCG_MULTI).go().states == first.states
