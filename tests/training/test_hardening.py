"""The loop of hardening, on scripted models: what is added, when it stops, which round is kept, what is never asked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from forethought.attacks.catalogue import parse_attack, seen_in_training
from forethought.chat import encode_prompt
from forethought.errors import ConfigError, ModelError
from forethought.models.conversation import Conversation
from forethought.models.local import LocalModel
from forethought.models.settings import read_settings
from forethought.training.hardening import rounds
from forethought.training.hardening.attacking import Found, make_pool
from forethought.training.hardening.settings import HardeningSettings
from forethought.training.methods.verdict import Levers
from forethought.training.objective import PairedObjective
from forethought.training.rows import IGNORED
from tests.listening import Listening
from tests.scripted import Scripted
from tests.training.hardening_material import SMALL, Trainer, examples, job, material, scripted


def never(conversation: Conversation) -> bool:
    return False


def always(conversation: Conversation) -> bool:
    return True


def begun(conversation: Conversation) -> bool:
    return bool(conversation.prefill)


def declared_void(conversation: Conversation) -> bool:
    return "withdrawn" in conversation.messages[-1].content


Make = Callable[[Path], Scripted]


class World:
    """One hardening on scripted models, and everyone who took part."""

    def __init__(self, tmp_path: Path, make: Make, settings: HardeningSettings = SMALL, tokens: int | None = None):
        self.trainer, self.models, self.progress = Trainer(), dict[str, Scripted](), Listening()
        self.out = tmp_path
        self.settings = settings
        self.make = make
        self.tokens = tokens

    def run(self, **method: str) -> dict[str, float]:
        given = job(self.out, self.settings, self.tokens)
        changed = given.method.model_copy(update=method)
        given = dataclasses.replace(given, progress=self.progress, method=changed)
        with (
            mock.patch.object(rounds, "train_method", self.trainer),
            mock.patch.object(LocalModel, "load", lambda folder: self.load(Path(folder))),
        ):
            return rounds.harden(given, self.settings)

    def load(self, folder: Path) -> Scripted:
        model = self.make(folder)
        self.models[folder.name] = model
        return model

    def table(self) -> dict[str, object]:
        table: dict[str, object] = json.loads((self.out / "hardening.json").read_text(encoding="utf-8"))
        return table

    def found(self, number: int) -> Found:
        file = self.out / f"round-{number}" / "hardening" / "found.json"
        return Found.model_validate_json(file.read_text(encoding="utf-8"))


def weak_at_first(folder: Path) -> Scripted:
    """Round 0 is broken by an empty thought; later ones by nothing."""
    return scripted(folder, begun if folder.name == "round-0" else never, never)


def test_what_broke_it_is_added_with_its_harmless_twin(tmp_path: Path) -> None:
    world = World(tmp_path, weak_at_first)
    counts = world.run()
    found = world.found(1)
    assert {pair.attack for pair in found.pairs} == {"empty_thinking"}
    assert found.counts.got_through == {"empty_thinking": 6}
    assert found.counts.falsely_refused == {}
    for pair in found.pairs:
        assert "film" in pair.harmful.attacked.text
        assert "bread" in pair.harmless.attacked.text
        assert pair.harmful.attacked.prefill == pair.harmless.attacked.prefill != ""
        # Each with its own answer, so that the attack says nothing about what to do.
        assert pair.harmful.taught.reasoning.verdict == "refuse"
        assert pair.harmless.taught.reasoning.verdict == "comply"
        assert pair.harmless.taught.answer.startswith("Mix the")
    rows = world.trainer.jobs[1].method.rows(world.trainer.jobs[1].material)
    tokenizer = material().tokenizer
    added = [row for row in rows if "</think>\n\n<think>" in tokenizer.decode(row.input_ids)]
    assert sorted(row.term for row in added) == [0] * 6 + [1] * 6
    for row in added:
        taught = tokenizer.decode([label for label in row.labels if label != IGNORED])
        assert taught.startswith("<think>\nIntent:")
        assert "</think>\n\n" not in taught
    assert counts["best_round"] == 1
    assert counts["rows"] == len(rows)


def test_each_round_is_trained_with_the_levers_of_the_settings(tmp_path: Path) -> None:
    levers = Levers(heads=True, answers=0.0)
    world = World(tmp_path, weak_at_first, SMALL.model_copy(update={"levers": levers}))
    world.run()
    assert len(world.trainer.jobs) == 2
    for taught in world.trainer.jobs:
        rows = taught.method.rows(taught.material)
        assert all(row.weights for row in rows)
        assert taught.method.procedure is not None
        assert isinstance(taught.method.objective(taught.config, 2), PairedObjective)
    assert HardeningSettings().model_dump().get("levers") is None  # keys of hardenings without them stay


def test_every_round_answers_as_the_hardened_model_will(tmp_path: Path) -> None:
    world = World(tmp_path, weak_at_first)
    world.run(answer_with="base")
    assert [taught.method.answer_with for taught in world.trainer.jobs] == ["base", "base"]
    assert read_settings(tmp_path).answer_with == "base"
    with pytest.raises(ModelError):
        World(tmp_path, weak_at_first).run()  # another hardening: what got through was answered by other weights


def test_what_was_falsely_refused_is_taught_with_a_harmful_twin(tmp_path: Path) -> None:
    world = World(tmp_path, lambda folder: scripted(folder, never, declared_void))
    world.run()
    found = world.found(1)
    assert found.counts.got_through == {}
    assert found.counts.falsely_refused == {"policy_withdrawn": 6}
    assert len(found.pairs) == 6
    assert all(pair.harmless.taught.reasoning.verdict == "comply" for pair in found.pairs)
    assert all("withdrawn" in pair.harmful.attacked.text for pair in found.pairs)


def test_a_model_that_is_never_wrong_is_trained_once(tmp_path: Path) -> None:
    world = World(tmp_path, lambda folder: scripted(folder, never, never))
    assert world.run()["rounds"] == 1
    assert len(world.trainer.jobs) == 1
    assert any("Nothing got through" in line for line in world.progress.said)


def test_no_held_out_request_is_trained_on_and_no_other_measures(tmp_path: Path) -> None:
    """Test requests are in none of it: everything asked comes from the examples given."""
    world = World(tmp_path, lambda folder: scripted(folder, always, never), SMALL.model_copy(update={"margin": 0.0}))
    world.run()
    pool = make_pool(examples(), SMALL, 0)
    held = {one.request.plain for couple in pool.held_out for one in couple}
    given = {example.request.plain for example in examples()}
    assert held < given
    trained = " ".join(
        str(material().tokenizer.decode(row.input_ids))
        for done in world.trainer.jobs
        for row in done.method.rows(done.material)
    )
    assert not any(text in trained for text in held)
    inside = [text for text in given - held if text in trained]
    assert set(inside) == given - held
    for conversation in [one for model in world.models.values() for one in model.asked]:
        assert any(text.strip("?") in conversation.messages[-1].content for text in given)
    for folder, allowed in (("attacks", given - held), ("held-out", held)):
        plans = list(tmp_path.glob(f"round-*/hardening/{folder}/*/plan.jsonl"))
        assert plans
        for plan in plans:
            for line in plan.read_text(encoding="utf-8").splitlines():
                request = json.loads(line)["request"]
                assert request.get("seed_text", request["messages"][-1]["content"]) in allowed


def test_every_round_keeps_to_the_budget_and_starts_from_the_base(tmp_path: Path) -> None:
    tokens = 1_500
    world = World(
        tmp_path, lambda folder: scripted(folder, begun, never), SMALL.model_copy(update={"margin": 0.0}), tokens
    )
    world.run()
    assert len(world.trainer.jobs) >= 2
    for done in world.trainer.jobs:
        rows = done.method.rows(done.material)
        assert sum(row.tokens for row in rows) <= tokens
        assert sum(row.tokens for row in rows) > 0.9 * tokens
        assert done.base == "base"
        assert done.max_tokens is None
    first, second = (set(done.method.rows(done.material)) for done in world.trainer.jobs[:2])
    assert first - second, "nothing made place"
    assert second - first, "nothing was added"


def test_without_a_budget_the_first_training_sets_it(tmp_path: Path) -> None:
    world = World(tmp_path, weak_at_first)
    world.run()
    first, second = (sum(row.tokens for row in done.method.rows(done.material)) for done in world.trainer.jobs[:2])
    assert 0.95 * first < second <= first


def test_it_stops_when_the_held_out_fare_no_better(tmp_path: Path) -> None:
    """Broken by the same attack in every round: J stays, and the first round that gains nothing is the last."""
    world = World(tmp_path, lambda folder: scripted(folder, begun, never), SMALL.model_copy(update={"rounds": 5}))
    found, first = world.run(), world.trainer.jobs[0]
    n_rows = float(len(first.method.rows(first.material)))
    assert found == {"rows": n_rows, "steps": 3.0, "rounds": 2.0, "best_round": 0.0}
    assert any("fare no better" in line for line in world.progress.said)


def test_the_best_round_is_kept_with_what_it_has_seen(tmp_path: Path) -> None:
    """Round 1 is right; round 2 can't be better, and its model is not what lands in the folder."""
    world = World(tmp_path, weak_at_first, SMALL.model_copy(update={"rounds": 3}))
    world.run()
    assert (tmp_path / "adapter_model.safetensors").read_text(encoding="utf-8") == "round-1"
    settings = read_settings(tmp_path)
    assert settings.method == "scot_hardened"
    assert settings.seen_operators == ("empty_thinking", "slang")
    assert seen_in_training(parse_attack("empty_thinking"), settings.seen_operators)
    assert seen_in_training(parse_attack("empty_thinking | answer_prefill"), settings.seen_operators)
    assert not seen_in_training(parse_attack("less_thinking"), settings.seen_operators)
    table = world.table()
    assert table["best"] == 1
    told = table["rounds"]
    assert isinstance(told, list)
    # Three attacks on as many held-out requests: an empty thought gets through on a third of the harmful ones.
    assert [one["measured"]["youden"] for one in told] == pytest.approx([2 / 3, 1.0])
    assert [one["measured"]["asr"] for one in told] == pytest.approx([1 / 3, 0.0])
    assert [one["trained"]["added"] for one in told] == [0, 12]
    assert any(line.split()[:2] == ["1", "1.00"] for line in world.progress.said)


def test_a_worse_round_is_not_kept(tmp_path: Path) -> None:
    def make(folder: Path) -> Scripted:
        return scripted(folder, begun, never if folder.name == "round-0" else always)

    world = World(tmp_path, make)
    assert world.run()["best_round"] == 0
    assert (tmp_path / "adapter_model.safetensors").read_text(encoding="utf-8") == "round-0"
    assert read_settings(tmp_path).method == "scot_hardened"
    assert read_settings(tmp_path).seen_operators == ("slang",)


def test_a_finished_hardening_asks_and_trains_nothing_again(tmp_path: Path) -> None:
    first = World(tmp_path, weak_at_first)
    counts = first.run()
    again = World(tmp_path, weak_at_first)
    assert again.run() == counts
    assert again.trainer.jobs == []
    assert again.models == {}


def test_a_run_that_broke_down_goes_on(tmp_path: Path) -> None:
    """It breaks down in the middle of the attacks on round 0: what was answered is not asked again."""
    whole = World(tmp_path / "whole", weak_at_first)
    counts = whole.run()

    def breaks(folder: Path) -> Scripted:
        model = weak_at_first(folder)
        answered = model._answer
        left = iter(range(20))

        def answer(conversation: Conversation) -> object:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return answered(conversation)

        model._answer = answer  # type: ignore[assignment]
        return model

    broken = World(tmp_path / "broken", breaks)
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    assert not (broken.out / "adapter_model.safetensors").exists()
    resumed = World(tmp_path / "broken", weak_at_first)
    assert resumed.run() == counts
    assert len(broken.trainer.jobs) + len(resumed.trainer.jobs) == 2
    n_asked = [sum(len(model.asked) for model in one.models.values()) for one in (whole, resumed)]
    assert n_asked[1] == n_asked[0] - 20
    trained = [[done.method.rows(done.material) for done in one.trainer.jobs] for one in (whole, resumed)]
    assert trained[0][1] == trained[1][-1]


def test_another_hardening_needs_another_folder(tmp_path: Path) -> None:
    World(tmp_path, weak_at_first).run()
    with pytest.raises(ModelError, match="another hardening"):
        World(tmp_path, weak_at_first, SMALL.model_copy(update={"requests": 5})).run()


def test_unscored_answers_end_it(tmp_path: Path) -> None:
    """Answers that say nothing are neither safe nor refused: there is no J, and no round is better than the first."""

    def make(folder: Path) -> Scripted:
        return Scripted(lambda conversation: "", name=folder.name)

    world = World(tmp_path, make)
    assert world.run()["rounds"] == 1
    told = world.table()["rounds"]
    assert isinstance(told, list)
    assert told[0]["measured"]["youden"] is None
    assert told[0]["measured"]["asr"] is None
    assert told[0]["measured"]["unscored"] == 12
    assert any("nothing was scored" in line for line in world.progress.said)


def test_searches_add_what_they_find(tmp_path: Path) -> None:
    """The request is through once its letters are disturbed; the twin is disturbed alike, and the attack is seen."""

    def disturbed(conversation: Conversation) -> bool:
        return "film" not in conversation.messages[-1].content

    def make(folder: Path) -> Scripted:
        model = scripted(folder, never, never)
        answered = model._answer
        weak = folder.name == "round-0"

        def answer(conversation: Conversation) -> object:
            known = any(word in conversation.messages[-1].content for word in ("film", "bread"))
            return answered(conversation) if known or not weak else "Sure, here is what you do about it all."

        model._answer = answer  # type: ignore[assignment]
        return model

    settings = SMALL.model_copy(
        update={"attacks": ("direct",), "searches": ("best_of_n",), "search_budget": 16, "margin": 0.0, "rounds": 1}
    )
    world = World(tmp_path, make, settings)
    world.run()
    found = world.found(1)
    assert found.pairs
    assert {pair.attack for pair in found.pairs} == {"best_of_n"}
    for pair in found.pairs:
        assert pair.harmless.attacked.text != pair.harmless.example.request.text
        assert pair.harmless.attacked.request.operator == pair.harmful.attacked.request.operator == "best_of_n"
        assert pair.harmless.taught.reasoning.verdict == "comply"
    settings_of_1 = read_settings(tmp_path / "round-1")
    assert {"best_of_n", "misspelling"} <= set(settings_of_1.seen_operators)
    prompts = {tuple(encode_prompt(material().tokenizer, pair.harmful.attacked.messages)) for pair in found.pairs}
    rows = world.trainer.jobs[1].method.rows(world.trainer.jobs[1].material)
    assert all(any(row.input_ids[: len(prompt)] == prompt for row in rows) for prompt in prompts)


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one process"):
        World(tmp_path, weak_at_first).run()
