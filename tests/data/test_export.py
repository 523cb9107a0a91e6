"""Exports: each loads where it has to, and gives the reasoning back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forethought.data.export import KINDS, export
from forethought.data.teach import reason_about, refusal_for
from forethought.errors import ConfigError, InputError
from forethought.policy import default_policy
from forethought.reasoning import parse, render
from forethought.records import Example, Message, Request, user_request

POLICY = default_policy()
SYSTEM, USER, ASSISTANT = "Be brief.", "How deep is the harbour?", "Nine metres."


def _refusal(number: int = 0) -> Example:
    request = user_request(f"How do I forge ticket {number}?", harmful=True, rules=("R4",), source="a.csv")
    reasoning = reason_about(request, POLICY)
    return Example(request=request, reasoning=reasoning, answer=refusal_for(reasoning, POLICY, 0))


def _answered(text: str = "How do I tie a bowline?", **fields: Any) -> Example:
    request = user_request(text, harmful=False, source="b.csv").restyled(f"yo: {text}", "slang")
    return Example(request=request, reasoning=reason_about(request, POLICY), answer="Make a loop.", **fields)


def _conversation(*roles: str) -> Example:
    texts = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
    messages = tuple(Message.model_validate({"role": role, "content": texts[role]}) for role in roles)
    request = Request(messages=messages, harmful=False, source="c.csv")
    return Example(request=request, reasoning=reason_about(request, POLICY), answer="Nine.")


THOUGHT = _answered().model_copy(update={"answer": "", "answer_complete": False})
CUT = _answered(answer_complete=False)
ROWS = [_refusal(), _answered(), _conversation("system", "user", "assistant", "user")]


def _export(rows: list[Example], kind: Any, out: Path, **options: Any) -> Any:
    return export(rows, POLICY, options.pop("fmt", "think"), "short", 3, kind, out, **options)


def _load(path: Path, tmp_path: Path) -> Any:
    import datasets

    reader = "parquet" if path.suffix == ".parquet" else "json"
    return datasets.load_dataset(reader, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))


def _assistant_text(row: dict[str, Any]) -> str:
    if "completion" in row:
        return str(row["completion"][0]["content"])
    if "conversations" in row:
        return str(row["conversations"][-1]["value"])
    return str(row["output"] if "output" in row else row["messages"][-1]["content"])


def _suffix(kind: str) -> str:
    return {"alpaca": ".json", "parquet": ".parquet"}.get(kind, ".jsonl")


@pytest.mark.parametrize("fmt", ["think", "paper"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_each_loads_and_gives_reasoning_and_answer_back(tmp_path: Path, kind: str, fmt: Any) -> None:
    out = tmp_path / f"set{_suffix(kind)}"
    counts = _export(ROWS, kind, out, fmt=fmt)
    assert (counts.rows, counts.harmful, counts.harmless, counts.left_out) == (3, 1, 2, {})
    loaded = _load(out, tmp_path)
    assert loaded.num_rows == 3
    for row, example in zip(loaded, ROWS, strict=True):
        text = _assistant_text(row)
        # To the letter what is trained on here.
        assert text == render(example.reasoning, POLICY, fmt, "short", 3) + example.answer
        parsed = parse(text, POLICY)
        assert parsed.reasoning is not None
        assert parsed.reasoning.verdict == example.reasoning.verdict
        assert parsed.reasoning.violated == example.reasoning.violated
        assert parsed.reasoning.intent == example.reasoning.intent
        assert parsed.answer == example.answer
    assert [file.name for file in tmp_path.iterdir() if file.name != "cache"] == [out.name]


def test_trl_reads_its_own_format(tmp_path: Path) -> None:
    from trl.data_utils import is_conversational

    _export(ROWS, "trl", tmp_path / "set.jsonl")
    loaded = _load(tmp_path / "set.jsonl", tmp_path)
    assert is_conversational(loaded[0])
    assert loaded[2]["prompt"] == [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": USER},
        {"role": "assistant", "content": ASSISTANT},
        {"role": "user", "content": USER},
    ]
    assert [turn["role"] for turn in loaded[2]["completion"]] == ["assistant"]
    _export(ROWS, "messages", tmp_path / "chat.jsonl")
    assert is_conversational(_load(tmp_path / "chat.jsonl", tmp_path)[0])


def test_sharegpt_has_the_names_and_turns_that_llama_factory_expects(tmp_path: Path) -> None:
    _export(ROWS, "sharegpt", tmp_path / "set.jsonl")
    first, _, row = _load(tmp_path / "set.jsonl", tmp_path)
    assert (first["system"], row["system"]) == ("", SYSTEM)
    assert [turn["from"] for turn in row["conversations"]] == ["human", "gpt", "human", "gpt"]
    assert [turn["value"] for turn in row["conversations"][:3]] == [USER, ASSISTANT, USER]


def test_alpaca_keeps_earlier_turns_and_the_system_prompt(tmp_path: Path) -> None:
    _export(ROWS, "alpaca", tmp_path / "set.json")
    rows = json.loads((tmp_path / "set.json").read_text("utf-8"))
    assert rows[2]["history"] == [[USER, ASSISTANT]]
    assert (rows[2]["instruction"], rows[2]["input"], rows[2]["system"]) == (USER, "", SYSTEM)
    assert (rows[1]["instruction"], rows[1]["history"], rows[1]["system"]) == ("yo: How do I tie a bowline?", [], "")


def test_a_history_late_in_a_large_file_loads(tmp_path: Path) -> None:
    long = _answered("x" * 20_000)
    _export([*[long] * 300, _conversation("user", "assistant", "user")], "alpaca", tmp_path / "set.json")
    loaded = _load(tmp_path / "set.json", tmp_path)
    assert loaded[300]["history"] == [[USER, ASSISTANT]]
    assert loaded[0]["history"] == []


def test_parquet_holds_what_is_known_of_a_row(tmp_path: Path) -> None:
    _export(ROWS, "parquet", tmp_path / "set.parquet")
    first, second, _ = _load(tmp_path / "set.parquet", tmp_path)
    assert (first["harmful"], first["rules"], first["verdict"]) == (True, ["R4"], "refuse")
    assert (first["source"], first["operator"], first["answer"]) == ("a.csv", None, ROWS[0].answer)
    assert (second["harmful"], second["rules"], second["verdict"]) == (False, [], "comply")
    assert (second["operator"], second["intent"]) == ("slang", ROWS[1].reasoning.intent)
    assert first["id"] == ROWS[0].request.id


@pytest.mark.parametrize("kind", list(KINDS))
def test_rows_without_a_whole_answer_are_left_out_and_counted(tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"set{_suffix(kind)}"
    counts = _export([*ROWS, THOUGHT, CUT, CUT], kind, out)
    assert counts.rows == 3
    assert counts.left_out == {"without an answer": 1, "with an answer that was cut": 2}
    counts = _export([*ROWS, THOUGHT, CUT], kind, out, include_partial=True)
    assert (counts.rows, counts.left_out) == (5, {})
    loaded = _load(out, tmp_path)
    assert loaded["answer_complete"] == [True, True, True, False, False]
    assert _assistant_text(loaded[3]).endswith("</think>\n")


@pytest.mark.parametrize("kind", ["sharegpt", "alpaca"])
def test_turns_that_a_format_cannot_hold_are_left_out(tmp_path: Path, kind: str) -> None:
    odd = [_conversation("user", "user"), _conversation("assistant", "user"), _conversation("user", "system", "user")]
    counts = _export([*ROWS, *odd], kind, tmp_path / "set.json")
    assert (counts.rows, counts.left_out) == (3, {"whose turns this format can't hold": 3})
    assert _export([*ROWS, *odd], "trl", tmp_path / "set.jsonl").rows == 6


def test_nothing_to_write_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 without an answer"):
        _export([THOUGHT], "trl", tmp_path / "set.jsonl")
    with pytest.raises(InputError, match="the set is empty"):
        _export([], "parquet", tmp_path / "set.parquet")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="format 'csv'"):
        _export(ROWS, "csv", tmp_path / "set.csv")


def test_a_failure_half_way_keeps_the_file_that_was_there(tmp_path: Path) -> None:
    def breaking() -> Iterator[Example]:
        yield _refusal()
        raise RuntimeError("the disk is gone")

    out = tmp_path / "set.jsonl"
    out.write_text("old", encoding="utf-8")
    with pytest.raises(RuntimeError):
        export(breaking(), POLICY, "think", "short", 0, "trl", out)
    assert out.read_text("utf-8") == "old"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("kind", list(KINDS))
def test_rows_are_written_one_by_one_and_alike_each_time(tmp_path: Path, kind: str) -> None:
    taken: list[int] = []

    def counted() -> Iterator[Example]:
        for number in range(2500):  # more than two row groups
            taken.append(number)
            yield _refusal(number)

    paths = [tmp_path / f"{name}{_suffix(kind)}" for name in ("one", "two")]
    for path in paths:
        export(counted(), POLICY, "think", "short", 0, kind, path)  # type: ignore[arg-type]
    assert len(taken) == 5000
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert _load(paths[0], tmp_path).num_rows == 2500
