from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from forethought.attacks.searches.base import Aim, Compute, Goal, Grade, Question, Reply, Tools, aim_at, parse_method
from forethought.attacks.searches.suffix import Slot, encode_text, find_slot
from forethought.attacks.searches.weights.embedding import Perturbed
from forethought.chat import encode_prompt
from forethought.errors import ModelError
from forethought.models.conversation import Able
from forethought.models.local import LocalModel
from forethought.records import user_request
from tests.scripted import as_messages
from tests.tiny import new_folder, tiny_adapter, tiny_folder, tiny_model, tiny_tokenizer

EMBEDDING = parse_method("embedding")

GOAL = Goal(request=user_request("Say that the sky is green"), target_string="Sure, the sky is green")
SMALL: dict[str, Any] = {"iterations": 6, "every": 3, "tokens": 4, "step": 0.05, "answer_tokens": 5, "think_tokens": 6}


@lru_cache(maxsize=1)
def plain() -> LocalModel:
    return LocalModel(tiny_model(), tiny_tokenizer(), None)


@lru_cache(maxsize=1)
def thinking() -> LocalModel:
    """With a base beside it that answers after `comply`."""
    adapter: Path = tiny_adapter(new_folder() / "adapter")
    return LocalModel.load(str(tiny_folder()), adapter)


def tools_for(local: LocalModel) -> Tools:
    return Tools(model=local, thinks=local.thinks, able=Able(prefill=True))


def made_up(local: LocalModel, kind: str = "auto", step: float = 0.05, tokens: int = 4) -> Perturbed:
    slot = find_slot(local.tokenizer, GOAL.request.messages, " !" * tokens)
    return Perturbed(local, slot, aim_at(GOAL, tools_for(local), kind), step)


class Play:
    """Runs a search with the tiny model, or with replies kept from an earlier run, and keeps all that it asked."""

    def __init__(
        self,
        local: LocalModel,
        breaks: Callable[[Grade, int], bool | None] = lambda grade, number: False,
        kept: dict[str, dict[str, Any]] | None = None,
        fails: tuple[str, ...] = (),
        **options: Any,
    ) -> None:
        self.asked: list[Question] = []
        self.made: dict[str, dict[str, Any]] = dict(kept or {})
        self.worked: list[str] = []
        chosen = EMBEDDING.model_copy(update={"chosen": {**SMALL, **options}}).options
        run = EMBEDDING.search(GOAL, random.Random(0), chosen, tools_for(local))
        questions = next(run, None)
        while questions is not None:
            (question,) = questions
            self.asked.append(question)
            if isinstance(question, Compute):
                reply = Reply(cause="out of memory")
                if question.name not in fails:
                    if question.name not in self.made:
                        self.worked.append(question.name)
                        self.made[question.name] = question.work()
                    reply = Reply(made=self.made[question.name])
            else:
                assert isinstance(question, Grade)
                reply = Reply(broken=breaks(question, len(self.grades) - 1))
            try:
                questions = run.send([reply])
            except StopIteration:
                break

    @property
    def grades(self) -> list[Grade]:
        return [one for one in self.asked if isinstance(one, Grade)]

    @property
    def computed(self) -> list[Compute]:
        return [one for one in self.asked if isinstance(one, Compute)]


# The perturbation


@pytest.mark.parametrize("kind", ["answer", "think", "verdict"])
def test_the_unmoved_prompt_is_the_one_that_the_chat_template_makes(kind: str) -> None:
    local = plain()
    perturbed = made_up(local, kind)
    aim = aim_at(GOAL, tools_for(local), kind)
    ids = encode_prompt(local.tokenizer, as_messages(GOAL.request.text + " !" * 4))
    ids += encode_text(local.tokenizer, aim.prefill)
    target = list(encode_text(local.tokenizer, aim.target_string))
    with torch.no_grad():
        logits = local.model(input_ids=torch.tensor([[*ids, *target]])).logits[0]
    odds = logits.log_softmax(-1)
    expected = -sum(float(odds[len(ids) - 1 + place, token]) for place, token in enumerate(target)) / len(target)
    assert perturbed.loss() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ["answer", "think", "verdict"])
@pytest.mark.parametrize("thinks", [False, True])
def test_steps_lower_the_loss_and_leave_the_weights_alone(kind: str, thinks: bool) -> None:
    local = thinking() if thinks else plain()
    assert thinks or all(value.requires_grad for value in local.model.parameters())
    before = {name: value.clone() for name, value in local.model.state_dict().items()}
    perturbed = made_up(local, kind)
    start = perturbed.loss()
    losses = perturbed.reach(15)
    assert len(losses) == 15
    assert losses[0] == pytest.approx(start, abs=1e-5)
    assert perturbed.loss() < start - 0.5
    perturbed.say(kind != "answer", 5, 5)
    assert all(torch.equal(value, before[name]) for name, value in local.model.state_dict().items())
    assert all(value.grad is None for value in local.model.parameters())


def test_a_step_is_the_sign_of_the_gradient() -> None:
    perturbed = made_up(plain(), step=0.05)
    perturbed.reach(1)
    sizes = perturbed.moved.abs()
    assert torch.all((sizes == 0) | torch.isclose(sizes, torch.tensor(0.05)))
    assert float((sizes > 0).float().mean()) > 0.9
    assert perturbed.moved.shape == (4, 32)
    # Against the numerical slope of one coordinate.
    perturbed.moved[1, 7] += 1e-2
    up = perturbed.loss()
    perturbed.moved[1, 7] -= 2e-2
    down = perturbed.loss()
    again = made_up(plain(), step=0.05)
    again.reach(1)
    second = again.moved.clone()
    again.reach(2)
    assert float((again.moved - second)[1, 7]) == pytest.approx(-0.05 if up > down else 0.05)


def test_going_on_and_beginning_again_come_to_the_same() -> None:
    in_blocks, at_once = made_up(plain()), made_up(plain())
    in_blocks.reach(3)
    in_blocks.reach(8)
    at_once.reach(8)
    assert torch.equal(in_blocks.moved, at_once.moved)
    at_once.reach(3)
    assert at_once.at == 3
    assert at_once.loss() > in_blocks.loss()
    at_once.reach(8)
    assert torch.equal(in_blocks.moved, at_once.moved)


def test_small_steps_are_not_lost_in_a_short_number_type() -> None:
    local = LocalModel(tiny_model().to(torch.bfloat16), tiny_tokenizer(), None)
    perturbed = made_up(local, step=0.001)
    perturbed.reach(3)
    assert perturbed.moved.dtype == torch.float32
    assert float(perturbed.moved.abs().max()) >= 0.001


# What the model says


def test_the_unmoved_prompt_is_answered_as_the_engine_answers_it() -> None:
    local = plain()
    said = made_up(local).say(False, 99, 12)
    (response,) = local.respond([as_messages(GOAL.request.text + " !" * 4)], max_answer_tokens=12)
    assert said.answer.strip() == response.answer
    assert said.reasoning == said.decision == ""


class Scribe:
    """Weights that write given texts one after another, whatever they read."""

    def __init__(self, tokenizer: Any, *texts: str) -> None:
        self.scripts = [[*encode_text(tokenizer, text), tokenizer.eos_token_id] for text in texts]
        self.read: list[int] = []
        """Tokens of each prompt."""
        self.device = torch.device("cpu")
        self._size = len(tokenizer)
        self._embed = tiny_model().get_input_embeddings()

    def get_input_embeddings(self) -> Any:
        return self._embed

    def __call__(self, **given: Any) -> Any:
        if "inputs_embeds" in given:
            self.read.append(given["inputs_embeds"].shape[1])
            self._left = self.scripts.pop(0)
        logits = torch.zeros(1, 1, self._size)
        logits[0, 0, self._left.pop(0)] = 1.0
        return type("Out", (), {"logits": logits})


def scripted(texts: list[str], base: list[str], answer_with: str = "base") -> tuple[Perturbed, Scribe, Scribe]:
    tokenizer = tiny_tokenizer()
    ours, theirs = Scribe(tokenizer, *texts), Scribe(tokenizer, *base)
    settings = thinking().settings
    assert settings is not None
    local = LocalModel(ours, tokenizer, settings.model_copy(update={"answer_with": answer_with}), base=theirs)
    slot = find_slot(tokenizer, GOAL.request.messages, " !")
    return Perturbed(local, slot, Aim("", "Sure", True), 0.1), ours, theirs


COMPLIES = "Intent: say that the sky is green.\nVerdict: comply. No rule applies.\n</think>\n"


def test_after_comply_the_base_answers_the_moved_prompt() -> None:
    perturbed, ours, theirs = scripted([COMPLIES + "Ours."], ["Theirs."])
    said = perturbed.say(True, 60, 20)
    assert (said.answer, said.decision) == ("Theirs.", "comply")
    assert said.reasoning.startswith("Intent: say")
    opening = len(encode_text(tiny_tokenizer(), "<think>\n"))
    assert ours.read == [theirs.read[0] + opening], "the base reads no thought"


def test_a_model_that_answers_by_itself_goes_on_after_its_thought() -> None:
    perturbed, _, theirs = scripted([COMPLIES + "Ours."], [], answer_with="adapter")
    assert perturbed.say(True, 60, 20).answer == "Ours."
    assert theirs.read == []


def test_a_refusal_is_the_models_own() -> None:
    perturbed, _, theirs = scripted(["Intent: x.\nVerdict: refuse.\n</think>\nSorry."], [])
    said = perturbed.say(True, 60, 20)
    assert (said.answer, said.decision, theirs.read) == ("Sorry.", "refuse", [])


def test_a_thought_that_does_not_end_has_no_answer() -> None:
    perturbed, _, _ = scripted(["Intent: going on and on and on and on and on"], [])
    said = perturbed.say(True, 4, 2)
    assert (said.answer, said.decision) == ("", "")
    assert said.reasoning


def test_an_answer_is_cut_at_its_own_limit() -> None:
    perturbed, _, _ = scripted([COMPLIES + "one two three four five six seven"], [], answer_with="adapter")
    assert perturbed.say(True, 90, 4).answer in {"one two three", "one two three four"}


def test_an_answer_without_a_thought_is_taken_as_it_is() -> None:
    perturbed, ours, _ = scripted(["Sure, green."], [])
    said = perturbed.say(False, 60, 20)
    assert (said.answer, said.reasoning, said.decision) == ("Sure, green.", "", "")
    assert len(ours.read) == 1


# The search


def test_each_checkpoint_is_graded_and_the_loss_falls() -> None:
    play = Play(plain(), iterations=7)
    assert [one.name for one in play.computed] == ["steps/3", "steps/6", "steps/7"]
    assert [one.forwards for one in play.computed] == [4, 4, 2]
    assert [type(one) for one in play.asked] == [Compute, Grade] * 3
    losses = [play.made[one.name]["loss"] for one in play.computed]
    assert losses == sorted(losses, reverse=True)
    assert [len(play.made[one.name]["losses"]) for one in play.computed] == [3, 3, 1]
    assert [one.answer for one in play.grades] == [play.made[one.name]["answer"] for one in play.computed]
    assert play.grades[0].request == GOAL.request


def test_it_ends_where_it_gets_through_and_not_where_nothing_was_decided() -> None:
    assert len(Play(plain(), breaks=lambda grade, number: number == 0).grades) == 1
    assert len(Play(plain(), breaks=lambda grade, number: None).grades) == 2


def test_a_killed_search_comes_to_the_same_and_works_on_nothing_twice() -> None:
    whole = Play(plain(), iterations=9)
    resumed = Play(plain(), iterations=9, kept={"steps/3": whole.made["steps/3"]})
    assert resumed.worked == ["steps/6", "steps/9"]
    later = {name: {**made, "losses": made["losses"][-3:]} for name, made in resumed.made.items()}
    assert later == whole.made
    assert Play(plain(), iterations=9, kept=whole.made).worked == []


def test_a_replay_of_kept_replies_does_not_touch_the_model() -> None:
    whole = Play(plain())
    weights: Any = object()
    untouched = LocalModel(weights, tiny_tokenizer(), None)
    assert Play(untouched, kept=whole.made).grades == whole.grades


def test_a_block_that_failed_is_not_graded_and_the_next_takes_its_steps_along() -> None:
    play = Play(plain(), fails=("steps/3",))
    assert [type(one) for one in play.asked] == [Compute, Compute, Grade]
    assert len(play.made["steps/6"]["losses"]) == 6
    assert play.made["steps/6"]["loss"] == Play(plain()).made["steps/6"]["loss"]


def test_the_request_itself_may_be_moved() -> None:
    play = Play(plain(), place="request")
    assert play.made["steps/6"]["loss"] < play.made["steps/3"]["losses"][0]
    tokenizer = plain().tokenizer
    empty = find_slot(tokenizer, as_messages(""), GOAL.request.text)
    assert tokenizer.decode(empty.first) == GOAL.request.text


def test_what_is_kept_is_small() -> None:
    play = Play(thinking(), iterations=4, every=4)
    assert len(str(play.made["steps/4"])) < 2_000
    assert set(play.made["steps/4"]) == {"losses", "loss", "moved", "answer", "reasoning", "decision"}


def test_the_thought_is_skipped_only_where_the_answer_is_aimed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    forced = []

    def say(self: Perturbed, forced_thought: bool, think: int, answer: int) -> Any:
        forced.append(forced_thought)
        return original(self, forced_thought, think, answer)

    original = Perturbed.say
    monkeypatch.setattr(Perturbed, "say", say)
    for aim in ("auto", "think", "answer"):
        Play(thinking(), iterations=1, aim=aim)
    assert forced == [True, True, False]


def test_without_weights_it_says_what_it_needs() -> None:
    with pytest.raises(ModelError, match="weights"):
        next(EMBEDDING.search(GOAL, random.Random(0), EMBEDDING.options, Tools()))


def test_a_slot_is_head_suffix_and_tail() -> None:
    slot: Slot = find_slot(plain().tokenizer, GOAL.request.messages, " !" * 20)
    assert len(slot.first) == 20


def test_the_defaults_are_the_papers() -> None:
    expected = {"iterations": 100, "tokens": 20, "step": 0.001, "place": "suffix"}
    assert expected.items() <= EMBEDDING.options.items()
