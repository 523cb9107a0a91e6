"""A build over blocks gives the rows of one machine, however many blocks there are and in whatever order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forethought.errors import ForethoughtError
from forethought.pipeline import blocks as block_module
from forethought.pipeline import evolve
from forethought.pipeline.blocks import Block, added_up, cut, join, over_blocks
from forethought.pipeline.build import build_dataset
from forethought.pipeline.recipe import Recipe, build_recipe, changed
from forethought.progress import Progress
from tests.mock_teacher import MockTeacher
from tests.pipeline.shuffled import Shuffled

ROWS = ("examples.jsonl", "dropped.jsonl", "dropped.json", "overlaps.json")
STAGES = ("2-evolve/train.jsonl", "2-evolve/lessons.jsonl", "2-evolve/lost.json", "1-select/removed.json")


def the_lines(file: Path, count: int) -> Path:
    file.write_text("".join(f"{number}\n" for number in range(count)), encoding="utf-8")
    return file


def test_blocks_hold_every_row_once_and_are_known_by_what_they_hold(tmp_path: Path) -> None:
    file = the_lines(tmp_path / "rows", 10)
    for rows, n_blocks in ((3, 4), (5, 2), (10, 1), (11, 1), (None, 1)):
        found = cut(file, rows)
        text = file.read_bytes()
        assert len(found) == n_blocks
        assert b"".join(text[one.start : one.stop] for one in found) == text
    (tmp_path / "more").write_text("more\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
    assert cut(tmp_path / "more", None)[0].key != cut(file, None)[0].key
    assert block_module.block_of(tmp_path / "more", 5, 25).key == cut(file, None)[0].key


def test_an_empty_file_is_one_block(tmp_path: Path) -> None:
    assert [(one.start, one.stop) for one in cut(the_lines(tmp_path / "rows", 0), 5)] == [(0, 0)]


def counted(block: Block, out: Path, fails: bool = False) -> dict[str, Any]:
    (out / "copy").write_bytes(block.file.read_bytes()[block.start : block.stop])
    if fails:
        raise ValueError("half done")
    return {"bytes": block.stop - block.start}


def test_a_block_is_written_once_and_whole_or_not_at_all(tmp_path: Path) -> None:
    blocks, out = cut(the_lines(tmp_path / "rows", 9), 2), tmp_path / "out"
    with pytest.raises(ValueError, match="half done"):
        over_blocks(Shuffled(), counted, blocks, out, True)
    assert list(out.iterdir()) == []
    done = over_blocks(Shuffled(), counted, blocks, out)
    again = Shuffled()
    assert over_blocks(again, counted, blocks, out, True) == done, "what is there is not done again"
    assert again.pieces == 0
    join(tmp_path / "joined", [folder / "copy" for folder, _ in done])
    assert (tmp_path / "joined").read_bytes() == (tmp_path / "rows").read_bytes()
    assert len(list(out.iterdir())) == len(blocks)


def test_counts_are_the_same_however_rows_are_cut() -> None:
    assert list(added_up([{"b": 1}, {"a": 1, "c": 5}]).items()) == [("c", 5), ("a", 1), ("b", 1)]


def the_recipe(folder: Path, **build: Any) -> Recipe:
    """Twins, styles, near duplicates, a request under both labels, categories and none: whatever crosses blocks."""
    things = ("kettle", "lantern", "violin", "teapot", "ladder", "carpet", "window", "bridge", "engine", "saddle")
    rows = []
    for number in range(60):
        thing, other = things[number % 10], things[number // 10]
        text = f"How do I take a {thing} apart without asking the owner of the {other}, number {number}?"
        rows.append({"prompt": text, "category": ("Fraud", "Privacy", "")[number % 3], "label": "harmful"})
        if number % 7 == 0:
            rows.append({"prompt": text.replace("How do I", "How can I"), "category": "Fraud", "label": "harmful"})
        rows.append({"prompt": f"Describe a {thing} beside a {other}, and draw {number} of them.", "label": "harmless"})
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = build_recipe([str(file)])
    harmless = [{"path": str(file)}, {"path": "shipped:lookalike", "limit": 30}]
    said = {"twins": 0.5, "rows_per_harmful": 1.5, "refusal_share": 0.5, "styled_share": 0.5} | build
    return changed(recipe, {"data": {"harmless": harmless, "held_out_share": 0.1, "dev_share": 0.1}, "build": said})


def built(recipe: Recipe, folder: Path, workers: Any = None) -> dict[str, bytes]:
    out, _ = build_dataset(recipe, folder, Progress(max_cost=100.0), workers)
    return {name: (out / name).read_bytes() for name in ROWS} | {
        name: (folder / name).read_bytes() for name in STAGES if name != "2-evolve/lost.json"
    }


@pytest.mark.parametrize(("rows", "budget"), [(7, None), pytest.param(40, 4_000, marks=pytest.mark.slow)])
def test_the_rows_are_those_of_one_machine_byte_for_byte(
    rows: int, budget: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = the_recipe(tmp_path, max_tokens=budget)
    alone = built(recipe, tmp_path / "alone")
    monkeypatch.setattr(evolve, "ROWS", rows)
    assert built(recipe, tmp_path / "blocks", Shuffled(rows)) == alone
    import pyarrow.parquet as pq

    tables = [pq.read_table(tmp_path / f"{name}/dataset/{data}").to_pylist() for name, data in
              (("alone", "train.parquet"), ("blocks", "data"))]  # fmt: skip
    assert tables[0] == tables[1]
    assert not (tmp_path / "blocks/2-evolve/blocks").exists()


def test_rows_come_from_an_address_and_go_to_one(tmp_path: Path) -> None:
    import fsspec
    import pyarrow.parquet as pq

    recipe, store = the_recipe(tmp_path), fsspec.filesystem("memory")
    (tmp_path / "in").mkdir()
    (spec,) = recipe.data.harmful
    (tmp_path / "in" / "rows.jsonl").write_bytes(Path(spec.path).read_bytes())
    there = (spec.model_copy(update={"path": f"file://{tmp_path}/in"}),)
    moved = recipe.model_copy(update={"data": recipe.data.model_copy(update={"harmful": there})})
    out, _ = build_dataset(moved, tmp_path / "out", Progress(), parquet="memory://bucket/out")
    alone, _ = build_dataset(recipe, tmp_path / "alone", Progress())
    assert (out / "examples.jsonl").read_bytes() == (alone / "examples.jsonl").read_bytes()
    with store.open("/bucket/out/train.parquet", "rb") as file:
        assert pq.read_table(file).num_rows == pq.read_table(alone / "train.parquet").num_rows


@pytest.mark.slow
def test_a_teacher_is_asked_once_whatever_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that were paid for on one machine count on a cluster, in blocks of any size, and the other way round."""
    monkeypatch.setenv("MOCK_API_KEY", "none")
    with MockTeacher() as teacher:
        recipe = the_recipe(
            tmp_path,
            teacher={"name": "openai-api/mock/teacher", "base_url": teacher.url, "price_in": 0, "price_out": 0},
        )
        alone = built(recipe, tmp_path / "a")
        asked = len(teacher.bodies)
        assert asked > 100
        monkeypatch.setattr(evolve, "ASKED_ROWS", 20)
        assert built(recipe, tmp_path / "b", Shuffled()) == alone
        assert len(teacher.bodies) == 2 * asked
        for folder, workers, rows in (
            (tmp_path / "b", Shuffled(1), 13),
            (tmp_path / "b", None, 13),
            (tmp_path / "a", Shuffled(2), 9),
        ):
            monkeypatch.setattr(evolve, "ASKED_ROWS", rows)
            for stage in folder.glob("[1-4]-*"):
                (stage / "manifest.json").unlink()
            assert built(recipe, folder, workers) == alone
            assert len(teacher.bodies) == 2 * asked


def test_what_a_block_raises_is_told_as_on_one_machine(tmp_path: Path) -> None:
    recipe = the_recipe(tmp_path, leave_out=("nothing",))
    with pytest.raises(ForethoughtError, match="no training request has it"):
        built(recipe, tmp_path / "out", Shuffled())
