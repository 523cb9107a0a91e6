"""The paper's recipes: what they build and train is what the paper says, worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from forethought.pipeline.evolve import operators_of
from forethought.pipeline.recipe import Recipe, load_recipe
from forethought.research.footprint import Devices
from forethought.research.plan import Amount, Plan, architecture, expected_counts, expected_rows, plan
from forethought.training.methods.catalogue import get_method
from tests.tiny import tiny_tokenizer

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
MODELS = {"paper-llama-3.1-8b": 8_030_261_248, "paper-mistral-7b": 7_241_732_096}


@pytest.fixture(params=MODELS)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return load_recipe(RECIPES / f"{request.param}.yaml")


def _plan(recipe: Recipe) -> Plan:
    counts = expected_counts(recipe)
    assert counts is not None
    rows = round(sum(counts))
    amount = Amount(rows=rows, tokens=rows * 500, longest=1024, taught_share=0.5)
    return plan(recipe.name, architecture(recipe.model), recipe.training, amount, Devices(n=2), 80.0, 1e14)


def test_settings_are_the_papers(recipe: Recipe) -> None:
    train = recipe.training
    assert (train.method, train.rank, train.alpha, train.dropout) == ("lora", 64, 64, 0.1)
    assert set(train.target_modules) == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert (train.learning_rate, train.epochs, train.warmup, train.benign_weight) == (2e-5, 3, 0.03, 1.0)
    assert set(operators_of(recipe.build)) == {
        "slang", "uncommon_dialect", "role_play", "evidence_persuasion", "logical_appeal", "expert_endorsement",
    }  # fmt: skip
    build = recipe.build
    assert (build.format, build.detail, build.answers, build.own_answers) == ("paper", "full", "own", None)
    assert (build.rows_per_harmful, build.rows_per_harmless, build.styled_share) == (2.0, 1.0, 0.0)
    assert (build.refusal_share, build.twins, build.max_tokens) == (1.0, 0.0, None)
    # The trained model answers by itself: no method sets it otherwise, and the method has no settings of its own.
    assert recipe.answer_with == "adapter"
    assert get_method("scot").configured(train) == train


def test_both_recipes_differ_in_the_model_alone() -> None:
    one, other = (load_recipe(RECIPES / f"{name}.yaml") for name in MODELS)
    same = {"name": "x", "model": "x"}
    assert one.model_copy(update=same) == other.model_copy(update=same)


def test_rows_and_steps_by_hand(recipe: Recipe) -> None:
    # 4,994 requests as they are and in one style each, and as many harmless rows.
    assert expected_counts(recipe) == (9988.0, 9988.0)
    # 19,976 rows make 4,994 batches of four; three times.
    assert _plan(recipe).steps == 14_982


def test_parameters_by_hand(recipe: Recipe) -> None:
    found = _plan(recipe).footprint
    assert found.parameters == MODELS[recipe.name]
    # Rank 64 on q and o (4096 to 4096), k and v (4096 to 1024, eight heads of 128), in 32 layers.
    assert found.trained == 32 * 64 * (2 * (4096 + 4096) + 2 * (4096 + 1024)) == 54_525_952


def test_expected_rows_are_within_the_papers_length(recipe: Recipe) -> None:
    """An answer of 512 tokens after a walk over all rules stays below 1,024."""
    harmful, harmless = expected_rows(recipe, tiny_tokenizer())
    assert 512 < harmless.tokens < 1024
    assert harmful.tokens < harmless.tokens
    assert 512 < harmless.taught < harmless.tokens
    # Without the model's own answers there are none of that length.
    without = recipe.model_copy(update={"build": recipe.build.model_copy(update={"answers": "none"})})
    _, thought = expected_rows(without, tiny_tokenizer())
    assert harmless.tokens - thought.tokens == pytest.approx(512)


def test_where_a_source_has_no_limit_rows_are_not_known(recipe: Recipe) -> None:
    data = recipe.data.model_copy(update={"max_harmless": None})
    assert expected_counts(recipe.model_copy(update={"data": data})) is None
