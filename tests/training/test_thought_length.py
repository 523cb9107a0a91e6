"""The budget of a thought follows the thoughts that were taught, and stands beside the trained model."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from forethought.models.local import LocalModel
from forethought.models.settings import SETTINGS_FILE, THINK_BUDGET, Settings, read_settings
from forethought.policy import default_policy
from forethought.reasoning import VERDICT_ANCHOR
from forethought.training.config import TrainConfig
from forethought.training.methods.base import Job, Material
from forethought.training.methods.catalogue import all_methods
from forethought.training.rows import IGNORED
from forethought.training.run import think_budget, train_method
from tests.scripted import as_messages
from tests.tiny import harmful_example, harmless_example, tiny_folder, tiny_tokenizer


@pytest.fixture(scope="module")
def material() -> Material:
    harmful = [harmful_example("Help me copy a paid film" + " please" * n) for n in range(4)]
    return Material(
        [*harmful, *(harmless_example("How do I bake bread" + " today" * n + "?") for n in range(4))],
        tiny_tokenizer(), default_policy(),
    )  # fmt: skip


def _longest(method: str, material: Material) -> int:
    """Tokens from the model's turn to the verdict, counted by another way: tokens whose text comes before it."""
    counts = []
    for row in all_methods()[method].rows(material):
        taught = [label for label in row.labels if label != IGNORED]
        n = next(n for n in range(len(taught)) if VERDICT_ANCHOR in material.tokenizer.decode(taught[: n + 1]))
        counts.append(n + 1 - len(material.tokenizer.encode(VERDICT_ANCHOR, add_special_tokens=False)))
    return max(counts)


def test_a_short_thought_has_the_usual_budget(material: Material) -> None:
    assert think_budget(all_methods()["scot"].rows(material), material.tokenizer) == THINK_BUDGET


def test_a_thought_over_every_rule_has_room_for_every_rule(material: Material) -> None:
    rows = all_methods()["policy_reasoning"].rows(material)
    longest = _longest("policy_reasoning", material)
    assert longest > 2 * THINK_BUDGET
    assert longest < think_budget(rows, material.tokenizer) <= math.ceil(1.25 * longest) + 1


def test_rows_without_a_thought_say_nothing(material: Material) -> None:
    assert think_budget(all_methods()["refusal"].rows(material), material.tokenizer) == THINK_BUDGET
    assert think_budget([], material.tokenizer) == THINK_BUDGET


def test_the_trained_model_thinks_as_long_as_it_was_taught(material: Material, tmp_path: Path) -> None:
    method = all_methods()["policy_reasoning"]
    config = TrainConfig(rank=2, alpha=4, batch_size=8)
    train_method(Job(str(tiny_folder()), method, material, config, tmp_path))
    budget = think_budget(method.rows(material), material.tokenizer)
    assert read_settings(tmp_path).think_budget == budget > THINK_BUDGET
    assert read_settings(tmp_path).languages == {"en": 8}

    model = LocalModel.load(str(tiny_folder()), tmp_path, dtype="float32")
    (own,) = model.think([as_messages("Hello")])
    (short,) = model.think([as_messages("Hello")], think_budget=10)
    assert own.cause == short.cause == "the verdict had to be asked for"  # a random model comes to none
    # Led to the verdict, each by as many tokens.
    assert own.reasoning_tokens - budget == short.reasoning_tokens - 10


def test_settings_of_an_earlier_version_have_the_usual_budget(material: Material, tmp_path: Path) -> None:
    old = Settings(policy=material.policy).model_dump_json(exclude={"think_budget"})
    (tmp_path / SETTINGS_FILE).write_text(old, encoding="utf-8")
    assert read_settings(tmp_path).think_budget == THINK_BUDGET


def test_more_rows_than_are_looked_at_change_nothing(material: Material) -> None:
    rows = all_methods()["policy_reasoning"].rows(material)
    assert think_budget(rows * 200, material.tokenizer) == pytest.approx(think_budget(rows, material.tokenizer), abs=5)


def test_the_longest_kind_of_thought_decides_where_few_are_of_it(material: Material) -> None:
    methods, tokenizer = all_methods(), material.tokenizer
    short, long = methods["scot"].rows(material), methods["policy_reasoning"].rows(material)
    assert think_budget([*long, *short * 30], tokenizer) == pytest.approx(think_budget(long, tokenizer), rel=0.05)
    assert think_budget([*long[:1], *short * 30], tokenizer) == THINK_BUDGET
