"""Any set as Requests: which column is which, what is never taken for an answer, and clear refusals of bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from forethought.data.sources import Mapping, SourceSpec, guess_mapping, load_requests
from forethought.errors import InputError
from forethought.records import Request

KNOT, BOW = "How do I tie a knot?", "How do I tie a bow?"


def _load(
    folder: Path, rows: list[dict[str, Any]], columns: dict[str, str] | None = None, harmful: bool | None = True
) -> tuple[list[Request], Mapping]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    shown: list[Mapping] = []
    spec = SourceSpec(path=str(file), columns=columns or {})
    requests = list(load_requests(spec, harmful, lambda _, mapping: shown.append(mapping)))
    return requests, shown[0]


@pytest.mark.parametrize(
    "column", ["question", "Prompt", "goal", "Behavior", "instruction", "mutated_prompt", "user query", "request_text"]
)
def test_the_text_column_is_guessed_and_shown(tmp_path: Path, column: str) -> None:
    requests, mapping = _load(tmp_path, [{"id": 7, column: KNOT}, {"id": 8, column: BOW}])
    assert [request.text for request in requests] == [KNOT, BOW]
    assert mapping.text == column
    assert f"text={column}" in str(mapping)


def test_an_unknown_name_is_guessed_from_what_stands_in_the_columns(tmp_path: Path) -> None:
    rows = [
        {"row": n, "what_they_ask": f"How do I tie knot {n}?", "remark": "seen before by us", "grade": "low"}
        for n in range(5)
    ]
    requests, mapping = _load(tmp_path, rows)
    assert mapping.text == "what_they_ask"
    assert len(requests) == 5


def test_a_column_of_the_right_name_and_the_wrong_content_is_not_taken(tmp_path: Path) -> None:
    _, mapping = _load(tmp_path, [{"prompt": 17, "ask": KNOT}, {"prompt": 18, "ask": BOW}])
    assert mapping.text == "ask"


def test_an_override_wins(tmp_path: Path) -> None:
    requests, mapping = _load(tmp_path, [{"prompt": KNOT, "other": BOW}], {"text": "other"})
    assert mapping.text == "other"
    assert requests[0].text == BOW


def test_a_wrong_column_names_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="column 'nope'") as caught:
        _load(tmp_path, [{"prompt": KNOT, "topic": "ropes"}], {"text": "nope"})
    assert "prompt, topic" in caught.value.fix


def test_a_wrong_noun_names_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not something a column can hold") as caught:
        _load(tmp_path, [{"prompt": KNOT}], {"question": "prompt"})
    assert "text" in caught.value.fix


def test_a_set_without_requests_asks_for_the_column(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column reads like requests") as caught:
        _load(tmp_path, [{"x": 1, "y": "red"}, {"x": 2, "y": "blue"}])
    assert "--text-column" in caught.value.fix


@pytest.mark.parametrize("rows", [[{"prompt": "  ", "n": 1}], [{"prompt": 3}]])
def test_a_set_whose_requests_are_all_blank_is_an_error(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(InputError, match="holds no request"):
        _load(tmp_path, rows, {"text": "prompt"})


def test_blank_requests_are_skipped_and_others_stripped(tmp_path: Path) -> None:
    requests, _ = _load(tmp_path, [{"prompt": f" {KNOT}\n"}, {"prompt": " "}, {"prompt": None}, {"prompt": BOW}])
    assert [request.text for request in requests] == [KNOT, BOW]


@pytest.mark.parametrize(
    ("column", "yes", "no"),
    [
        ("is_malicious", True, False), ("label", 1, 0), ("label", 1.0, 0.0), ("label", "unsafe", "safe"),
        ("Harmful", "Yes", "No"), ("prompt_harm_label", "harmful", "unharmful"),
    ],
)  # fmt: skip
def test_a_label_column_wins_over_what_was_announced(tmp_path: Path, column: str, yes: object, no: object) -> None:
    rows = [{"prompt": KNOT, column: no}, {"prompt": BOW, column: yes}]
    for announced in (True, False, None):
        requests, mapping = _load(tmp_path, rows, harmful=announced)
        assert mapping.label == column
        assert [request.harmful for request in requests] == [False, True]
        assert [request.kind for request in requests] == ["ordinary", "harmful"]


def test_trap_4_a_missing_label_is_not_harmless(tmp_path: Path) -> None:
    """It is what was announced for the set, and unknown where nothing was."""
    rows: list[dict[str, Any]] = [{"prompt": KNOT, "label": 1}, {"prompt": BOW, "label": None}]
    assert [request.harmful for request in _load(tmp_path, rows, harmful=True)[0]] == [True, True]
    assert [request.harmful for request in _load(tmp_path, rows, harmful=None)[0]] == [True, None]
    rows[1]["label"] = ""
    assert [request.harmful for request in _load(tmp_path, rows, harmful=None)[0]] == [True, None]


def test_a_label_column_that_says_something_else_is_not_taken(tmp_path: Path) -> None:
    requests, mapping = _load(tmp_path, [{"prompt": KNOT, "label": "GCG"}, {"prompt": BOW, "label": "PAIR"}])
    assert mapping.label is None
    assert requests[0].harmful is True


def test_categories_as_a_word_or_a_list(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"prompt": KNOT, "category": "ropes"}, {"prompt": BOW, "category": ["a", "b", " "]}]
    requests, _ = _load(tmp_path, [*rows, {"prompt": "How so?", "category": None}])
    assert [request.categories for request in requests] == [("ropes",), ("a", "b"), ()]


def test_an_answer_is_kept_apart_from_the_request(tmp_path: Path) -> None:
    requests, mapping = _load(tmp_path, [{"question": KNOT, "response": "Make a loop."}, {"question": BOW}])
    assert mapping.answer == "response"
    assert [request.answer for request in requests] == ["Make a loop.", None]


def test_alpacas_input_is_appended(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Add these numbers.", "input": "1 and 2", "output": "3"},
        {"instruction": "Name a knot.", "input": "", "output": "Bowline."},
    ]
    requests, mapping = _load(tmp_path, rows, harmful=False)
    assert [request.text for request in requests] == ["Add these numbers.\n\n1 and 2", "Name a knot."]
    assert mapping.answer == "output"


def test_a_context_column_is_appended(tmp_path: Path) -> None:
    requests, _ = _load(tmp_path, [{"Behavior": "Sum it up for me.", "ContextString": "A knot holds."}])
    assert requests[0].text == "Sum it up for me.\n\nA knot holds."


@pytest.mark.parametrize("column", ["messages", "conversations", "dialogue"])
def test_conversations_end_with_the_users_turn(tmp_path: Path, column: str) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": KNOT},
        {"role": "assistant", "content": "Make a loop."},
        {"role": "user", "content": "And then?"},
        {"role": "assistant", "content": "Pull."},
    ]
    requests, mapping = _load(tmp_path, [{column: turns, "prompt": "an id of some kind"}])
    assert mapping.messages == column
    assert mapping.text is None
    assert [message.role for message in requests[0].messages] == ["system", "user", "assistant", "user"]
    assert requests[0].text == "And then?"


def test_the_names_that_other_formats_give_to_roles(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": KNOT}, {"from": "gpt", "value": "Loop."}, {"from": "human", "value": BOW}]
    requests, _ = _load(tmp_path, [{"conversations": turns}])
    assert [message.role for message in requests[0].messages] == ["user", "assistant", "user"]


def test_a_role_that_no_chat_has_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="role 'tool'"):
        _load(tmp_path, [{"messages": [{"role": "tool", "content": "x"}, {"role": "user", "content": KNOT}]}])


def test_a_column_that_holds_no_conversations_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not hold conversations"):
        _load(tmp_path, [{"prompt": KNOT}], {"messages": "prompt"})


def test_half_an_emoji_does_not_stop_a_set(tmp_path: Path) -> None:
    """Sets cut at a length hold halves of surrogate pairs, which can be neither hashed nor written."""
    file = tmp_path / "cut.jsonl"
    file.write_text('{"prompt": "How do I tie a \\ud83d knot?"}\n', encoding="utf-8")
    request = next(load_requests(SourceSpec(path=str(file)), True))
    assert len(request.id) == 12
    assert request.model_dump_json()


def test_files_of_one_folder_may_have_other_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": KNOT}))
    (tmp_path / "b.csv").write_text(f"goal\n{BOW}\n")
    shown: dict[str, Mapping] = {}
    requests = list(load_requests(SourceSpec(path=str(tmp_path)), True, lambda n, m: shown.update({Path(n).name: m})))
    assert [(request.text, request.source) for request in requests] == [(KNOT, "a.jsonl"), (BOW, "b.csv")]
    assert {name: mapping.text for name, mapping in shown.items()} == {"a.jsonl": "prompt", "b.csv": "goal"}


def test_a_folder_saved_by_datasets(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list([{"question": KNOT}, {"question": BOW}]).save_to_disk(str(tmp_path / "saved"))
    requests = list(load_requests(SourceSpec(path=f"disk:{tmp_path}/saved"), False))
    assert [request.text for request in requests] == [KNOT, BOW]


def test_an_empty_folder_saved_by_datasets_is_an_error(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({"question": []}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(InputError, match=r"saved"):
        list(load_requests(SourceSpec(path=f"disk:{tmp_path}/saved"), False))


def test_mapping_can_be_guessed_from_rows_alone() -> None:
    assert guess_mapping([{"goal": KNOT, "target": "Sure, here is how"}], {}, "x") == Mapping(text="goal")


SETS = {
    "harmful/star1.json": (1000, "question"),
    "harmful/advbench.csv": (520, "goal"),
    "harmful/harmbench_val.csv": (80, "Behavior"),
    "harmful/malicious_instruct.txt": (100, "text"),
    "harmful/do_not_answer": (939, "prompt"),
    "harmful/harmfulqa.json": (1960, "text"),
    "harmful/dangerousqa.json": (200, "text"),
    "benign/alpaca_999.json": (999, "instruction"),
    "benign/self_instruct_seeds.jsonl": (175, "instruction"),
    "benign/gsm8k_train_2000.jsonl": (2000, "question"),
}


@pytest.mark.parametrize("name", SETS)
def test_every_development_set_is_read_whole_without_a_flag(shared: Path, name: str) -> None:
    count, column = SETS[name]
    shown: list[Mapping] = []
    harmful = name.startswith("harmful")
    requests = list(load_requests(SourceSpec(path=str(shared / name)), harmful, lambda _, m: shown.append(m)))
    assert len(requests) == count
    assert {mapping.text for mapping in shown} == {column}
    assert {request.harmful for request in requests} == {harmful}
    assert all(request.text.strip() for request in requests)


def test_no_development_set_is_left_out_of_the_test(shared: Path) -> None:
    there = {f"{side}/{path.name}" for side in ("harmful", "benign") for path in (shared / side).iterdir()}
    assert there == set(SETS)


@pytest.mark.parametrize(
    "name", ["star1.json", "do_not_answer", "harmfulqa.json", "harmbench_val.csv"], ids=lambda name: name
)
def test_sets_with_categories_keep_them(shared: Path, name: str) -> None:
    requests = list(load_requests(SourceSpec(path=str(shared / "harmful" / name)), True))
    assert all(request.categories for request in requests)


def test_a_promise_is_never_taken_for_an_answer(shared: Path) -> None:
    """AdvBench's `target` begins an answer that complies: taught as the refusal, it would teach the attack."""
    file = shared / "harmful" / "advbench.csv"
    shown: list[Mapping] = []
    requests = list(load_requests(SourceSpec(path=str(file)), True, lambda _, mapping: shown.append(mapping)))
    assert "target" not in shown[0].model_dump().values()
    assert {request.answer for request in requests} == {None}
    with file.open(encoding="utf-8", newline="") as opened:
        promises = {row["target"] for row in csv.DictReader(opened)}
    assert not promises & {request.text for request in requests}
