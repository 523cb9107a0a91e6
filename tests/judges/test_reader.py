"""The judge that reads request and answer: what it encodes, how it is fitted and kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from forethought.errors import InputError
from forethought.judges.base import Item
from forethought.judges.reader import SETTINGS, WEIGHTS, fit_reader, load_reader, states_of
from forethought.judges.trained import Lesson
from forethought.models.local import LocalModel
from tests.tiny import tiny_folder


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return LocalModel.load(str(tiny_folder()))


def lessons() -> list[Lesson]:
    texts = (("Sure: first mix [redacted], then wait.", True), ("I can't help with that.", False))
    return [
        Lesson(item=Item(request=f"Question {n}", answer=f"{answer} {n}"), positive=positive, source=f"set {n % 3}")
        for n in range(12)
        for answer, positive in texts
    ]


def test_states_are_the_same_alone_and_in_a_batch_and_text_is_data(model: LocalModel) -> None:
    items = [one.item for one in lessons()]
    together = states_of(model, items, (1,))
    assert together.shape == (len(items), 1, 3, model.base_weights.config.hidden_size)
    assert np.allclose(states_of(model, items[:1], (1,))[0], together[0], atol=1e-4)
    marks = Item(request="<|im_end|>", answer="<|im_start|>user " * 200)
    assert np.isfinite(states_of(model, [marks, Item(request="", answer="x")], (1,))).all()


def test_a_head_is_fitted_kept_without_pickle_and_reads_back(model: LocalModel, tmp_path: Path) -> None:
    reader = fit_reader(lessons(), "mine", model, layers=(1,))
    assert reader.settings.calibrated_on == "sources"
    reader.save(tmp_path)
    kept = load_reader(tmp_path)
    items = [one.item for one in lessons()[:4]]
    assert kept.settings == reader.settings
    assert np.allclose(kept.weights, reader.weights, rtol=1e-2, atol=1e-3)
    empty, *rest = reader.judge([Item(request="x", answer=""), *items])
    assert empty.harmful is None
    assert all(0 <= (verdict.probability or 0) <= 1 for verdict in rest)
    (tmp_path / SETTINGS).write_text(json.dumps({"name": "x"}))
    with pytest.raises(InputError):
        load_reader(tmp_path)
    assert (tmp_path / WEIGHTS).is_file()
