"""`forethought build` by its command: what comes out, the same bytes again, a teacher that is killed on the way."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from forethought.policy import default_policy
from forethought.reasoning import parse
from forethought.records import Example, read_jsonl
from tests.child import command
from tests.mock_teacher import MockTeacher, Reply, good_lesson
from tests.shell import Result, run_here

ROWS = 12
_DATA = ("train.parquet", "examples.jsonl", "dropped.jsonl", "overlaps.json")


def _sources(folder: Path) -> tuple[Path, Path]:
    """A refusal set and a set of instructions with answers, innocuous both."""
    harmful, harmless = folder / "odd.csv", folder / "tasks.json"
    with harmful.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["what_they_typed", "topic"])
        places = ("a cinema", "the zoo", "our museum", "some castle", "that pool", "a concert hall")
        for number in range(ROWS):
            verb = ("sneak into", "walk into")[number // 6]
            rows.writerow(
                [f"How do I {verb} {places[number % 6]} {'at night ' * (number // 6)}without a ticket?", "theft"]
            )
    things = ("bread", "a kite", "soap", "paper boats", "a lantern", "plum jam", "felt hats", "a rope", "tea", "ink")
    pairs = [
        {"instruction": f"Explain how {thing} is made.", "output": f"One makes {thing} by hand."} for thing in things
    ]
    harmless.write_text(json.dumps(pairs), encoding="utf-8")
    return harmful, harmless


def _arguments(out: Path, *sources: object, **options: object) -> list[str]:
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return ["build", *map(str, sources), "--out", str(out), *flags]


def _build(out: Path, *sources: object, **options: object) -> Result:
    return run_here(*_arguments(out, *sources, **options))


@pytest.fixture(autouse=True)
def _key_of_the_mock_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCK_API_KEY", "none")


def _data(out: Path) -> dict[str, bytes]:
    return {name: (out / "dataset" / name).read_bytes() for name in _DATA}


def _examples(out: Path) -> list[Example]:
    return list(read_jsonl(out / "dataset" / "examples.jsonl", Example))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set built by the rule teacher."""
    folder = tmp_path_factory.mktemp("build")
    harmful, harmless = _sources(folder)
    done = _build(folder / "out", harmful, harmless=harmless)
    assert done.code == 0, done.err
    return folder / "out"


def test_every_request_stands_as_it_is_and_in_another_style(built: Path) -> None:
    rows = _examples(built)
    harmful = [row for row in rows if row.request.harmful]
    plain = [row for row in harmful if row.request.operator is None]
    styled = [row for row in harmful if row.request.operator is not None]
    assert len(plain) == ROWS
    assert len(styled) == ROWS
    assert {row.request.plain for row in styled} == {row.request.text for row in plain}
    assert all("R4" in row.answer for row in harmful)
    answered = [row for row in rows if row.request.source == "tasks.json"]
    assert answered
    assert all(row.answer.startswith("One makes") and row.answer_complete for row in answered)


def test_the_folder_loads_by_its_name_and_its_text_parses_back(built: Path) -> None:
    from datasets import load_dataset

    loaded = load_dataset(str(built / "dataset"), split="train")
    rows = _examples(built)
    assert len(loaded) == len(rows)
    for row, example in zip(loaded, rows, strict=True):
        assert row["messages"][-2]["content"] == example.request.text
        found = parse(row["messages"][-1]["content"], default_policy()).reasoning
        assert found is not None
        assert (found.verdict, found.intent) == (example.reasoning.verdict, example.reasoning.intent)


def test_the_manifest_says_what_made_it(built: Path) -> None:
    manifest: dict[str, Any] = json.loads((built / "dataset" / "manifest.json").read_text(encoding="utf-8"))
    facts = manifest["facts"]
    assert facts["rows"] == len(_examples(built))
    assert facts["verified"] == facts["rows"]
    assert facts["policy_hash"] == default_policy().hash
    assert manifest["files"].keys() >= {"examples.jsonl", "train.parquet"}
    assert "odd.csv" in (built / "dataset" / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_same_sources_and_seed_give_the_same_bytes(built: Path, tmp_path: Path) -> None:
    """In a process of its own, whose sets have another order."""
    harmful, harmless = _sources(built.parent)
    assert command(*_arguments(tmp_path / "again", harmful, harmless=harmless)).wait() == 0
    assert _data(tmp_path / "again") == _data(built)


def test_another_seed_gives_other_rows(built: Path, tmp_path: Path) -> None:
    harmful, harmless = _sources(built.parent)
    assert _build(tmp_path / "other", harmful, harmless=harmless, seed=1).code == 0
    assert _data(tmp_path / "other")["examples.jsonl"] != _data(built)["examples.jsonl"]


def test_rows_near_a_set_named_by_the_user_are_left_out(built: Path, tmp_path: Path) -> None:
    harmful, harmless = _sources(built.parent)
    first = _examples(built)[0].request.text
    (tmp_path / "benchmark.txt").write_text(f"{first}\n", encoding="utf-8")
    done = _build(tmp_path / "out", harmful, harmless=harmless, against=tmp_path / "benchmark.txt")
    assert done.code == 0, done.err
    assert first not in {row.request.plain for row in _examples(tmp_path / "out")}
    overlaps = json.loads((tmp_path / "out" / "dataset" / "overlaps.json").read_text(encoding="utf-8"))
    assert len(overlaps["overlaps"]["benchmark.txt"]) == 1


@pytest.mark.slow
def test_trap_11_a_teacher_killed_twice_is_paid_once_for_every_row(tmp_path: Path) -> None:
    harmful, harmless = _sources(tmp_path)
    pause_s = 0.25  # time enough to be killed in

    def slow(messages: list[dict[str, str]], number: int) -> Reply:
        return Reply(text=good_lesson(messages), seconds=pause_s)

    with MockTeacher(slow) as server:
        arguments = _arguments(
            tmp_path / "out", harmful, harmless=harmless, teacher="openai-api/mock/teacher", base_url=server.url,
            concurrency=2, price_in=1, price_out=1,
        )  # fmt: skip
        for finished in (4, 9):
            _kill_after(arguments, tmp_path / "out" / "teacher.jsonl", finished)
        pause_s = 0.0
        done = run_here(*arguments)
        assert done.code == 0, done.err
        calls = len(server.bodies)
    rows = _examples(tmp_path / "out")
    journal = (tmp_path / "out" / "teacher.jsonl").read_text(encoding="utf-8").splitlines()
    seeds = {row.request.plain_id for row in rows if row.request.operator is None}
    taught = {row.request.seed_id for row in rows}
    assert len([row for row in rows if row.request.harmful and row.request.operator is None]) == ROWS
    assert len({row.request.id for row in rows}) == len(rows)
    assert len(seeds) <= len(taught)
    assert len(journal) == len({json.loads(line)["id"] for line in journal})
    assert calls - len(journal) <= 2 * 2  # what was under way when it was killed, twice
    styled = next(row for row in rows if row.request.operator and row.request.harmful)
    assert styled.request.text.startswith("In the manner of")


def _kill_after(arguments: list[str], journal: Path, finished: int) -> None:
    command(*arguments).kill_once(lambda: journal.is_file() and journal.read_bytes().count(b"\n") >= finished)


def test_a_price_over_the_limit_is_asked_about_and_without_a_terminal_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harmful, harmless = _sources(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    done = _build(
        tmp_path / "out", harmful, harmless=harmless, teacher="openai-api/mock/teacher",
        base_url="http://127.0.0.1:9/v1", max_cost=0, price_in=1, price_out=1,
    )  # fmt: skip
    assert done.code == 2
    assert "--yes" in done.err
    assert "calls" in done.out
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"format": "prose"}, "build.format"),
        ({"answers": "mine"}, "build.answers"),
        ({"operator_folder": "nowhere"}, "nowhere"),
        ({"teacher": "gpt"}, "gpt"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path: Path, options: dict[str, str], told: str) -> None:
    harmful, harmless = _sources(tmp_path)
    done = _build(tmp_path / "out", harmful, harmless=harmless, **options)
    assert done.code == 2
    assert told in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_damaged_file_of_a_stage_costs_no_set_that_was_good(tmp_path: Path) -> None:
    """A truncated file of the fourth stage was copied over the good set, and the message named the copy."""
    harmful, harmless = _sources(tmp_path)
    assert _build(tmp_path / "out", harmful, harmless=harmless).code == 0
    before = _data(tmp_path / "out")
    rows = tmp_path / "out" / "4-build" / "examples.jsonl"
    whole = rows.read_bytes()
    rows.write_bytes(whole[: len(whole) // 2])
    done = _build(tmp_path / "out", harmful, harmless=harmless)
    assert done.code == 0, done.err
    assert "examples.jsonl was cut short" in done.out
    assert _data(tmp_path / "out") == before
    rows.write_bytes(b"x" * len(whole))  # damaged in place: what is told is where it lies, and the set stays
    done = _build(tmp_path / "out", harmful, harmless=harmless)
    assert done.code == 2
    assert "4-build/examples.jsonl, line 1" in done.err
    assert "run the command that wrote it again" in done.err
    assert _data(tmp_path / "out") == before
    rows.unlink()
    assert _build(tmp_path / "out", harmful, harmless=harmless).code == 0
    assert not [file.name for file in (tmp_path / "out").iterdir() if file.name.startswith(".dataset")]
