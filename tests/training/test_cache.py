"""Rows tokenised once: streamed, kept under their content, and as flat in memory as they are long."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forethought.errors import InputError
from forethought.policy import default_policy
from forethought.records import Example, write_jsonl
from forethought.training import run
from forethought.training.methods.base import Job, Material
from forethought.training.methods.catalogue import all_methods
from forethought.training.run import (
    method_rows,
    read_examples,
    rows_key,
    seen_operators,
    tokenizer_key,
    train_rows,
    training_rows,
)
from forethought.training.streamed import ExampleFile, RowSet
from tests.tiny import harmful_example, harmless_example, tiny_folder, tiny_tokenizer
from tests.training.test_fit import CONFIG

SCOT = all_methods()["scot"]


def _examples(n: int = 6) -> list[Example]:
    """So many of each term; the first is restyled, the last of all teaches no answer."""
    found = [harmful_example(f"Item {number} of a") for number in range(n)]
    found += [harmless_example(f"Item {number} of b") for number in range(n)]
    first = found[0].request
    found[0] = found[0].model_copy(update={"request": first.restyled(f"Yo, {first.text}", "slang")})
    found[-1] = found[-1].model_copy(update={"answer": ""})
    return found


def _material(file: Path, **changed: Any) -> Material:
    return Material(ExampleFile(file), tiny_tokenizer(), default_policy(), **changed)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "examples.jsonl", _examples())
    return tmp_path / "examples.jsonl"


def _in_memory(material: Material) -> Material:
    return dataclasses.replace(material, examples=list(material.examples))


@pytest.mark.parametrize("name", ["scot", "refusal", "scot_no_benign", "scot_constant_refusal", "policy_reasoning"])
def test_streamed_rows_are_those_made_at_once(file: Path, tmp_path: Path, name: str) -> None:
    material = _material(file)
    rows, seen = training_rows(all_methods()[name], material, None, tmp_path / "kept")
    expected = method_rows(all_methods()[name], _in_memory(material))
    assert isinstance(rows, RowSet)
    assert list(rows) == expected
    assert seen == seen_operators(expected, list(material.examples), material.tokenizer)
    budget = sum(row.tokens for row in expected) // 2
    few, _ = training_rows(all_methods()[name], material, budget, tmp_path / "kept")
    assert list(few) == method_rows(all_methods()[name], _in_memory(material), budget)


def test_they_are_made_once(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = training_rows(SCOT, _material(file), None, tmp_path / "kept")
    monkeypatch.setattr(run, "_stream", lambda *_: pytest.fail("tokenised again"))
    again, _ = training_rows(SCOT, _material(file), None, tmp_path / "kept")
    assert list(again) == list(first)
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_whatever_changes_a_row_changes_the_key(file: Path, tmp_path: Path) -> None:
    material = _material(file)
    taller = tiny_tokenizer()
    taller.add_tokens(["unheard"])
    otherwise = tiny_tokenizer()
    otherwise.chat_template += " "
    edited = tmp_path / "edited.jsonl"
    edited.write_text(file.read_text().replace("Item 3 of a", "Item 9 of a"))
    examples = ExampleFile(file)
    keys = [
        rows_key(SCOT, material, examples),
        rows_key(all_methods()["refusal"], material, examples),
        rows_key(SCOT, material, ExampleFile(edited)),
        rows_key(SCOT, material, examples.select([0, 1])),
        rows_key(SCOT, material, examples.select([1, 0])),
        *(rows_key(SCOT, dataclasses.replace(material, **changed), examples)
          for changed in ({"seed": 1}, {"format": "paper"}, {"detail": "full"}, {"tokenizer": taller},
                          {"tokenizer": otherwise})),
    ]  # fmt: skip
    assert None not in keys
    assert len(set(keys)) == len(keys)
    copied = tmp_path / "copied.jsonl"
    copied.write_bytes(file.read_bytes())
    assert rows_key(SCOT, _material(copied), ExampleFile(copied)) == keys[0]


def test_a_tokenizer_that_can_not_be_told_from_another_keeps_nothing(file: Path, tmp_path: Path) -> None:
    assert tokenizer_key(object()) is None
    whole = tiny_tokenizer()

    class Slow:
        """A tokenizer without tables that can be read."""

        backend_tokenizer = None

        def __getattr__(self, name: str) -> Any:
            return getattr(whole, name)

        def __call__(self, *given: Any, **named: Any) -> Any:
            return whole(*given, **named)

    rows, seen = training_rows(SCOT, dataclasses.replace(_material(file), tokenizer=Slow()), None, tmp_path / "kept")
    assert isinstance(rows, list)
    assert (len(rows), seen) == (12, ("slang",))
    assert not (tmp_path / "kept").exists()


def test_an_interrupted_tokenising_is_begun_again(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = SCOT.rows, 0

    def breaks(material: Material) -> Any:
        nonlocal made
        made += 1
        if made == 5:
            raise KeyboardInterrupt
        return real(material)

    broken = SCOT.model_copy(update={"rows": breaks})
    monkeypatch.setattr(run, "goes_by_row", lambda method: True)
    with pytest.raises(KeyboardInterrupt):
        training_rows(broken, _material(file), None, tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []
    assert len(training_rows(SCOT, _material(file), None, tmp_path / "kept")[0]) == 12


def test_what_can_not_be_learnt_from_is_said(tmp_path: Path) -> None:
    file = tmp_path / "examples.jsonl"
    write_jsonl(file, [example.model_copy(update={"answer": ""}) for example in _examples()])
    with pytest.raises(InputError, match="learns from answers alone"):
        training_rows(all_methods()["refusal"], _material(file), None, tmp_path / "kept")
    with pytest.raises(InputError, match="no row fits, the shortest has"):
        training_rows(SCOT, _material(file), 3, tmp_path / "kept")
    broken = tmp_path / "broken.jsonl"
    broken.write_text(file.read_text() + '\n{"request": 3}\n')
    with pytest.raises(InputError, match=r"broken\.jsonl, line 14"):
        training_rows(SCOT, _material(broken), None, tmp_path / "kept")
    assert not list((tmp_path / "kept").glob("*.part*"))


def test_large_files_are_streamed_and_small_ones_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_examples(file, SCOT) == _examples()
    monkeypatch.setattr(run, "LARGE", 12)
    streamed = read_examples(file, SCOT)
    assert isinstance(streamed, ExampleFile)
    assert list(streamed) == _examples()
    assert (streamed[3], list(streamed[2:4])) == (_examples()[3], _examples()[2:4])
    # What looks at all examples at once is given them.
    for name in ("scot_dpo", "scot_rejection", "deliberative", "circuit_breaker"):
        assert isinstance(read_examples(file, all_methods()[name]), list)


def test_a_streamed_training_is_that_of_rows_in_memory(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "cache_folder", lambda: tmp_path / "cache")
    config = CONFIG.model_copy(update={"epochs": 1})
    held = _examples(8)[6:8] + _examples(8)[14:]
    write_jsonl(tmp_path / "held.jsonl", held)
    material = _material(file)
    told = []
    for name, given, measured in (
        ("streamed", material, ExampleFile(tmp_path / "held.jsonl")),
        ("listed", _in_memory(material), held),
    ):
        job = Job(str(tiny_folder()), SCOT, given, config, tmp_path / name, held_out=measured)
        counts = train_rows(job)
        told.append({key: value for key, value in counts.items() if key != "data_wait_share"})
    assert told[0] == told[1]
    assert told[0]["rows"] == 12
    assert told[0]["held_out_refusal"] > 0
    assert len(list((tmp_path / "cache" / "rows").iterdir())) == 2


_CHILD = """
import json, re, sys
from pathlib import Path
from types import SimpleNamespace

from forethought.models.machine import peak_gib
from forethought.policy import default_policy
from forethought.training.run import training_rows
from forethought.training.streamed import ExampleFile
from forethought.training.methods.base import Material
from forethought.training.methods.catalogue import all_methods
from forethought.training.trainer import PairedSampler


class Words:
    '''A tokenizer of one id a word, quick enough for fifty thousand rows.'''

    chat_template, bos_token_id, eos_token_id, special_tokens_map, all_special_ids = "words", None, 7, {}, [7]
    backend_tokenizer = SimpleNamespace(to_str=lambda: "words")

    def __call__(self, text, **_):
        return {"input_ids": [len(word) * 1000 + place for place, word in enumerate(text.split())]}

    def apply_chat_template(self, turns, add_generation_prompt=False, **_):
        return turns[-1]["content"] + (" model:" if add_generation_prompt else "")


def at_peak(file):
    material = Material(ExampleFile(Path(file)), Words(), default_policy())
    rows, _ = training_rows(all_methods()["scot"], material, None, Path(file).parent / "kept")
    order = iter(PairedSampler(rows.lengths.tolist(), rows.terms.tolist(), 8, 0))
    data = rows.trained
    for _ in range(500):
        data[next(order)]
    return len(rows), peak_gib() * 1024


print(json.dumps([at_peak(file) for file in sys.argv[1:]]))
"""


@pytest.mark.slow
def test_memory_stays_flat_however_many_rows(tmp_path: Path) -> None:
    """In memory, twenty-five thousand rows more would take above 80 MB, and their examples as much again."""
    lines = [example.model_dump_json(exclude_defaults=True) for example in (harmful_example(), harmless_example())]
    files = [tmp_path / "few.jsonl", tmp_path / "many.jsonl"]
    for file, count in zip(files, (5_000, 30_000), strict=True):
        with file.open("w", encoding="utf-8") as out:
            for n in range(count):
                out.write(lines[n % 2].replace("film", f"film {n}").replace("bread?", f"bread {n}?") + "\n")
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *map(str, files)], capture_output=True, text=True, check=False, cwd=root
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (few, before), (many, after) = json.loads(done.stdout)
    assert (few, many) == (5_000, 30_000)
    assert after - before < 60
