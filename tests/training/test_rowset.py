"""Rows on disk: what is written is what is read, selected and trained on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from forethought.errors import InputError
from forethought.training.config import TrainConfig
from forethought.training.fit import train
from forethought.training.rows import TokenRow
from forethought.training.streamed import RowSet
from tests.tiny import tiny_folder
from tests.training.test_fit import CONFIG, make_rows

ROWS = [
    TokenRow(input_ids=(5, 6, 7), labels=(-100, 6, 7), term=0, weights=(1.0, 0.5, 0.25), rivals=(-100, 9, -100)),
    TokenRow(
        input_ids=(8, 70000), labels=(-100, 70000), term=1, other_input_ids=(8, 1, 2, 3), other_labels=(-100,) * 4
    ),
    TokenRow(input_ids=(4,), labels=(4,), term=1),
]
STYLES = ("slang", None, "poem")


def _written(folder: Path, rows: list[TokenRow] = ROWS) -> RowSet:
    styles = (STYLES * len(rows))[: len(rows)]
    return RowSet.write(zip(rows, styles, strict=True), folder / "rows.arrow", "a key")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = _written(tmp_path)
    for held in (written, RowSet.open(tmp_path / "rows.arrow", "a key")):
        assert list(held) == ROWS
        assert held[1] == ROWS[1]
        assert held.key == "a key"
        assert held.lengths.tolist() == [3, 2, 1]
        assert held.terms.tolist() == [0, 1, 1]
        assert held.token_counts.tolist() == [row.tokens for row in ROWS] == [3, 6, 1]
        assert held.tokens == 10
        assert held.styles == ("poem", "slang")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.arrow"]


def test_more_rows_than_one_batch_of_the_file(tmp_path: Path) -> None:
    rows = [
        TokenRow(input_ids=tuple(range(n % 7 + 1)), labels=tuple(range(n % 7 + 1)), term=n % 2) for n in range(2001)
    ]
    held = _written(tmp_path, rows)
    assert list(held) == rows


def test_rows_are_selected_in_the_order_given(tmp_path: Path) -> None:
    held = _written(tmp_path)
    chosen = held.select([2, 0])
    assert list(chosen) == [ROWS[2], ROWS[0]]
    assert (chosen.lengths.tolist(), chosen.terms.tolist(), chosen.tokens) == ([1, 3], [1, 0], 4)
    assert held.select([2, 1]).styles == ("poem",)
    assert list(held[1:]) == ROWS[1:]
    # Other rows, or the same in another order, are another training.
    keys = {held.key, chosen.key, held.select([0, 2]).key, held.select([0, 1]).key}
    assert len(keys) == 4
    assert held.select([2, 0]).key == chosen.key
    # Nothing is written beside the file.
    assert [path.name for path in tmp_path.iterdir()] == ["rows.arrow"]


def test_a_write_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    def breaks() -> Iterator[tuple[TokenRow, str | None]]:
        for _ in range(1500):
            yield ROWS[0], None
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RowSet.write(breaks(), tmp_path / "rows.arrow", "a key")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="no rows to write"):
        RowSet.write([], tmp_path / "rows.arrow", "a key")
    assert list(tmp_path.iterdir()) == []


def test_training_is_the_same_as_from_a_list(tmp_path: Path) -> None:
    config = TrainConfig.model_validate({**CONFIG.model_dump(), "epochs": 1})
    rows = make_rows()
    held = _written(tmp_path, rows)
    counts = [train(str(tiny_folder()), given, config, tmp_path / name) for name, given in (("a", rows), ("b", held))]
    told = [{name: value for name, value in one.items() if name != "data_wait_share"} for one in counts]
    assert told[0] == told[1]
    assert told[0]["rows"] == 24
    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("a", "b"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
