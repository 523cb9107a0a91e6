"""What is read once: by the layers that the base and the weights that think have in common, or by the base alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forethought.chat import opening_ids
from forethought.models import known as kept
from forethought.models.decode import Batch, Row
from forethought.models.hidden_states import layers_alike, states_of
from forethought.models.known import Known
from forethought.models.local import LocalModel
from forethought.records import user_request
from tests.tiny import tiny_adapter, tiny_folder, tiny_model, tiny_tokenizer

LONG = "I have a question about the sea, and about how far it is from here to there: "
ASKS = ["How do I bake bread?", "Hi", f"{LONG}is it deep?", f"{LONG}is it cold in summer?", "Hi"]


@pytest.fixture(scope="module", params=["merged", "switched"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    """One whose adapter is on the second of its two layers."""
    folder = tiny_adapter(tmp_path_factory.mktemp("adapter"), layers=[1])
    return LocalModel.load(str(tiny_folder()), folder, dtype="float32", mixed=request.param == "switched")


def prompts_of(model: LocalModel) -> list[list[int]]:
    return [model.prompt_ids(user_request(text).messages) for text in ASKS]


def known_of(model: LocalModel) -> Known:
    return Known(opening_ids(model.tokenizer), layers_alike(model), model.answers_with_base)


def batch_with(model: LocalModel, known: Known) -> Batch:
    batch = model.batch() or model.answerer.batch()
    batch.known = known
    return batch


def answers(batch: Batch, prompts: list[list[int]]) -> list[list[int]]:
    rows = [Row(place, ids, 8, by_base=True) for place, ids in enumerate(prompts)]
    batch.join(rows)
    while batch.rows:
        batch.step()
    return [row.made for row in rows]


def read_by_first_layer(model: LocalModel) -> list[int]:
    """Tokens of each pass of the first layer, by whichever weights; it grows."""
    seen: list[int] = []
    firsts: list[Any] = [one.get_decoder().layers[0] for one in (model.model, model.base_weights)]
    for layer in {id(one): one for one in firsts}.values():
        layer.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].shape[:2].numel()))
    return seen


def test_layers_are_alike_below_the_first_with_an_adapter(model: LocalModel, tmp_path: Path) -> None:
    assert layers_alike(model) == 1
    assert layers_alike(LocalModel.load(str(tiny_folder()), tiny_adapter(tmp_path), dtype="float32")) == 0
    assert layers_alike(LocalModel(tiny_model(), tiny_tokenizer(), None)) == 2


@pytest.mark.parametrize("trained", [True, False])
def test_states_and_answers_are_as_without_what_is_known(model: LocalModel, trained: bool) -> None:
    prompts, known = prompts_of(model), known_of(model)
    plain, expected = states_of(model, prompts, [2], trained), answers(batch_with(model, Known()), prompts)
    assert states_of(model, prompts, [2], trained, known)[2] == pytest.approx(plain[2], abs=1e-4)
    seen = read_by_first_layer(model)
    batch = batch_with(model, known)
    rows = [Row(place, ids, 8, by_base=True) for place, ids in enumerate(prompts)]
    paths = batch.read(rows)
    assert sum(seen) <= len(known.tokens)  # what all begin with, where this reading is the first of its weights
    assert [sum(len(node.tokens) for node in path) for path in paths] == [len(ids) - 1 for ids in prompts]
    assert answers(batch, prompts) == expected
    # Another reading goes on where it may, and says the same.
    other = states_of(model, prompts, [2], not trained)[2]
    assert states_of(model, prompts, [2], not trained, known)[2] == pytest.approx(other, abs=1e-4)


def test_what_is_kept_is_bounded_and_the_oldest_goes_first(model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _, third, *_ = prompts_of(model)
    known = known_of(model)
    monkeypatch.setattr(kept, "KEPT_TOKENS", len(third))
    for prompt in (first, third, [*third, 5]):
        states_of(model, [prompt], [2], True, known)
    seen = read_by_first_layer(model)
    batch = batch_with(model, known)
    batch.read([Row(0, third, 1, by_base=True)])
    assert sum(seen) <= len(known.tokens)
    del seen[:]
    batch.read([Row(0, first, 1, by_base=True)])
    assert sum(seen) == len(first) - 1 - len(known.tokens)


def test_nothing_is_kept_where_nobody_answers(model: LocalModel) -> None:
    known = Known(alike=1)
    prompts = prompts_of(model)
    states_of(model, prompts, [2], True, known)
    seen = read_by_first_layer(model)
    batch_with(model, known).read([Row(0, prompts[0], 1, by_base=True)])
    assert sum(seen) == len(prompts[0]) - 1
