"""Any set as Requests: which column is which, what is never taken for an answer, and clear refusals of bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from forethought.data.columns import ColumnMapping, guess_mapping
from forethought.data.sources import SourceSpec, load_requests
from forethought.errors import InputError
from forethought.records import Message, Request, user_request, write_jsonl

KNOT, BOW = "How do I tie a knot?", "How do I tie a bow?"


def _load(
    folder: Path, rows: list[dict[str, Any]], columns: dict[str, str] | None = None, harmful: bool | None = True
) -> tuple[list[Request], ColumnMapping]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    shown: list[ColumnMapping] = []
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


TRANSCRIPT = f"Human: {KNOT}\n\nAssistant: Make a loop.\n\nHuman: {BOW}\n\nAssistant:"
CHAT = [("user", KNOT), ("assistant", "Make a loop."), ("user", BOW), ("assistant", "Make two.")]
FORMS: dict[str, dict[str, Any]] = {
    "openai": {"messages": [{"role": role, "content": text} for role, text in CHAT]},
    "sharegpt": {"conversations": [{"from": {"user": "human"}.get(role, "gpt"), "value": text} for role, text in CHAT]},
    "blocks": {"messages": [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in CHAT]},
    "parts": {"conversation": [{"author": {"role": role}, "content": {"parts": [text]}} for role, text in CHAT]},
    "json text": {"messages": json.dumps([{"role": role, "content": text} for role, text in CHAT])},
    "texts that take turns": {"dialog": [text for _, text in CHAT]},
    "transcript": {"transcript": f"\n\n{TRANSCRIPT} Make two."},
    "transcript as a prompt": {"prompt": TRANSCRIPT, "chosen": " Make two.", "rejected": "No."},
    "a prompt of turns": {
        "prompt": [{"role": role, "content": text} for role, text in CHAT[:3]],
        "chosen": [{"role": "assistant", "content": "Make two."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    },
    "preferred conversations": {
        "chosen": f"\n\n{TRANSCRIPT} Make two.",
        "rejected": f"\n\n{TRANSCRIPT} No.",
    },
    "pairs of history": {"history": [[KNOT, "Make a loop."]], "instruction": BOW, "output": "Make two."},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_conversation_in_every_form(tmp_path: Path, form: str) -> None:
    """The last user turn is the request, earlier turns stand before it, and what follows is the answer."""
    requests, _ = _load(tmp_path, [FORMS[form]])
    assert [(message.role, message.content) for message in requests[0].messages] == CHAT[:3]
    assert requests[0].answer == "Make two."


def test_an_image_or_a_tool_call_is_no_text(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": [{"type": "image", "source": "x"}, {"type": "text", "text": KNOT}]}]
    only_image = [{"role": "user", "content": [{"type": "image", "source": "x"}]}]
    requests, _ = _load(tmp_path, [{"messages": turns}, {"messages": only_image}, {"messages": []}])
    assert [request.text for request in requests] == [KNOT]


def test_a_system_column_stands_before_the_prompt_and_the_conversation(tmp_path: Path) -> None:
    requests, mapping = _load(tmp_path, [{"system": "Be brief.", "prompt": KNOT}, {"system": "", "prompt": BOW}])
    assert mapping.system == "system"
    assert [[message.role for message in request.messages] for request in requests] == [["system", "user"], ["user"]]
    turns = [{"role": "user", "content": KNOT}]
    own = [{"role": "system", "content": "Its own."}, *turns]
    rows = [{"system_prompt": "Be brief.", "messages": turns}, {"system_prompt": "Be brief.", "messages": own}]
    requests, _ = _load(tmp_path, rows)
    assert [request.messages[0].content for request in requests] == ["Be brief.", "Its own."]


def test_of_a_preference_the_chosen_answer_is_kept_and_the_rejected_never(tmp_path: Path) -> None:
    requests, mapping = _load(tmp_path, [{"prompt": KNOT, "chosen": "Make a loop.", "rejected": "How would I know?"}])
    assert (mapping.text, mapping.answer) == ("prompt", "chosen")
    assert requests[0].answer == "Make a loop."
    requests, mapping = _load(
        tmp_path, [{"ask_me": KNOT, "rejected": "How would you like it?", "target": "Sure, is it?"}]
    )
    assert mapping == ColumnMapping(text="ask_me", unread=("rejected", "target"))


def test_what_asks_most_is_not_taken_where_it_is_a_rejected_answer(tmp_path: Path) -> None:
    row = {"said": "A knot for my boots, please.", "rejected": "How would you like it?", "target": "Could it be this?"}
    assert _load(tmp_path, [row])[1] == ColumnMapping(text="said", unread=("rejected", "target"))


def test_columns_inside_objects_are_found_by_their_own_name(tmp_path: Path) -> None:
    row = {"turn": {"prompt": KNOT, "response": "Loop."}, "meta": {"about": {"topic": "ropes"}}}
    requests, mapping = _load(tmp_path, [row])
    assert mapping == ColumnMapping(text="turn.prompt", answer="turn.response", category="meta.about.topic")
    assert (requests[0].text, requests[0].answer, requests[0].categories) == (KNOT, "Loop.", ("ropes",))


def test_a_list_of_prompts_in_a_row_is_one_request_each(tmp_path: Path) -> None:
    requests, _ = _load(tmp_path, [{"topic": "ropes", "questions": [KNOT, BOW]}])
    assert [(request.text, request.categories) for request in requests] == [(KNOT, ("ropes",)), (BOW, ("ropes",))]


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        ([{"label": "true"}, {"label": "false"}], [True, False]),
        ([{"label": {"harmful": True}}, {"label": {"harmful": False}}], [True, False]),
        ([{"meta": {"a": {"is_malicious": 1}}}, {"meta": {"a": {"is_malicious": 0}}}], [True, False]),
        ([{"is_safe": True}, {"is_safe": False}], [False, True]),
        ([{"harmless": 1}, {"harmless": 0}], [False, True]),
        ([{"is_safe": "safe"}, {"is_safe": "unsafe"}], [False, True]),
        ([{"label": "vanilla_harmful"}, {"label": "Not harmful"}], [True, False]),
        ([{"label": ["unsafe"]}, {"label": ["safe"]}], [True, False]),
        ([{"prompt_harmfulness": "harmful"}, {"prompt_harmfulness": "unharmful"}], [True, False]),
        ([{"label": float("nan"), "flagged": True}, {"label": None, "flagged": False}], [True, False]),
        ([{"label": "safe"}, {"label": "unsafe"}, {"label": "unsafe"}, {"label": "controversial"}],
         [False, True, True, None]),
        ([{"label": 0}, {"label": 1}, {"label": 3}], [True, True, True]),
        ([{"label": "toxic"}, {"label": "None"}], [True, False]),
        ([{"label": "True"}, {"label": "None"}, {"label": "False"}], [True, True, False]),
    ],
)  # fmt: skip
def test_labels_in_every_form(tmp_path: Path, rows: list[dict[str, Any]], labels: list[bool | None]) -> None:
    """A word that is no label leaves its row unlabelled; a column of classes is no label column."""
    texts = [{"prompt": f"How do I tie knot {n}?"} for n in range(len(rows))]
    requests, _ = _load(tmp_path, [text | row for text, row in zip(texts, rows, strict=True)])
    assert [request.harmful for request in requests] == labels
    assert {request.kind for request in requests if request.harmful is None} <= {""}


@pytest.mark.parametrize(("last", "read"), [("benign", True), ("roleplay", False)])
def test_a_file_that_is_sorted_by_its_labels_shows_both_sides(tmp_path: Path, last: str, read: bool) -> None:
    """Its first two hundred rows said `jailbreak` alone, and all of it was taken for harmful."""
    sides = ["jailbreak"] * 300 + ["benign"] * 20 + [last] * 10
    rows = [{"prompt": f"{KNOT} {place}", "type": side} for place, side in enumerate(sides)]
    requests, mapping = _load(tmp_path, rows)
    assert mapping.label == ("type" if read else None)
    assert [request.harmful for request in requests] == [side == "jailbreak" or not read for side in sides]


@pytest.mark.parametrize(
    ("column", "cells", "labels"),
    [
        ("type", ["jailbreak", "benign"], [True, False]),
        ("data_type", ["vanilla_harmful", "adversarial_benign"], [True, False]),
        ("category", ["Malicious", "Benign"], [True, False]),
        ("answer_kind", ["harmful", "harmless"], [True, True]),
        ("type", ["harmful", "harmful"], [True, True]),
        ("type", ["yes", "no"], [True, True]),
        ("type", ["safe_targets", "homonyms"], [True, True]),
        ("label", ["illegal activity", "privacy"], [True, True]),
    ],
)
def test_a_column_of_words_for_both_sides_is_one_of_labels_under_any_name(
    tmp_path: Path, column: str, cells: list[str], labels: list[bool]
) -> None:
    """`type` with `benign` and `jailbreak` was not read, and half of the set was taken for harmful."""
    rows = [{"prompt": text, column: cell} for text, cell in zip((KNOT, BOW), cells, strict=True)]
    requests, mapping = _load(tmp_path, rows)
    assert [request.harmful for request in requests] == labels
    assert (mapping.label == column) is (labels == [True, False])
    assert (column in mapping.unread) is (mapping.label is None)
    assert mapping.category is None, "what says which side a row is on is no category"


@pytest.mark.parametrize(
    ("columns", "cells", "labels"),
    [
        ({"label": "grade", "harmful": "ja", "harmless": "nein"}, ["Ja", "nein", "?"], [True, False, None]),
        ({"label": "grade", "harmful": "hate, threat", "harmless": "none"}, ["threat", "none", "hate"], [1, 0, 1]),
        ({"label": "grade", "harmful": "a,b"}, ["a,b", "b", "c"], [True, True, None]),
        ({"label": "grade", "harmful": ">=0.5", "harmless": "<0.2"}, [0.5, 0.3, 0], [True, None, False]),
        ({"label": "grade", "harmful": ">.5", "harmless": "<1e-3"}, ["9.1e-1", 2.5e-05, "1e"], [True, False, None]),
        ({"label": "grade", "harmful": "0", "harmless": "1"}, [0.0, 1.0, "-"], [True, False, None]),
        ({"label": "grade", "harmful": "yes,a", "harmless": "yes,b"}, ["yes", "a", "b"], [None, True, False]),
        ({"harmful": ">0.1", "harmless": "<=0.1"}, [0.5, 0.1, 0], "no column of labels is known"),
        ({"label": "grade", "harmful": "oui"}, ["ja", "nein", "ja"], "holds no labels that can be told"),
    ],
)
def test_what_labels_mean_can_be_said(
    tmp_path: Path, columns: dict[str, str], cells: list[object], labels: list[bool | None] | str
) -> None:
    """What nobody named has no label: it is never taken for harmless."""
    rows = [{"prompt": f"{KNOT} {place}", "grade": cell} for place, cell in enumerate(cells)]
    if isinstance(labels, str):
        with pytest.raises(InputError, match=labels):
            _load(tmp_path, rows, columns)
    else:
        requests, mapping = _load(tmp_path, rows, columns)
        assert [request.harmful for request in requests] == labels
        assert str(mapping).startswith(f"text=prompt, label=grade, harmful={columns['harmful']}")


def test_a_column_of_scores_that_is_known_by_name_needs_only_its_bounds(tmp_path: Path) -> None:
    rows = [{"prompt": KNOT, "toxicity": 0.9}, {"prompt": BOW, "toxicity": 0.1}]
    assert str(_load(tmp_path, rows)[1]) == "text=prompt (not read: toxicity)"
    requests, mapping = _load(tmp_path, rows, {"harmful": ">=0.5", "harmless": "<0.5"})
    assert [request.harmful for request in requests] == [True, False]
    assert mapping.label == "toxicity"


def test_what_is_not_read_is_named(tmp_path: Path) -> None:
    row = {"prompt": KNOT, "meta": {"topic": "knots", "lang": "en"}, **{f"x{n}": n for n in range(10)}}
    shown = "not read: x0, x1, x2, x3, x4, x5, x6, x7, 2 more"
    assert shown in str(_load(tmp_path, [row])[1]), "of an object something is read"
    requests, mapping = _load(tmp_path, [user_request(KNOT, harmful=True).model_dump(mode="json")])
    assert (len(requests), mapping.unread) == (1, ()), "our own rows are read whole"


def test_words_that_may_be_labels_are_asked_about(tmp_path: Path) -> None:
    rows = [{"prompt": KNOT, "grade": "ja"}, {"prompt": BOW, "grade": "nein"}]
    with pytest.raises(InputError) as caught:
        _load(tmp_path, rows, {"label": "grade"})
    assert caught.value.fix == "Say which of ja, nein is which: --column harmful=... --column harmless=..."
    with pytest.raises(InputError) as caught:
        _load(tmp_path, [{"prompt": KNOT, "said": BOW}], {"label": "said"})
    assert BOW not in caught.value.fix, "a request may be harmful"


def test_a_label_column_that_is_named_and_can_not_be_told_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no labels that can be told"):
        _load(tmp_path, [{"prompt": KNOT, "grade": "GCG"}], {"label": "grade"})


@pytest.mark.parametrize(("announced", "value", "said"), [(True, "safe", "harmless"), (False, 1, "harmful")])
def test_labels_that_all_say_the_opposite_of_what_was_announced(
    tmp_path: Path, announced: bool, value: object, said: str
) -> None:
    rows = [{"prompt": KNOT, "is_harmful": value}, {"prompt": BOW, "is_harmful": value}]
    with pytest.raises(InputError, match=f"column 'is_harmful': says {said} for all 2") as caught:
        _load(tmp_path, rows, harmful=announced)
    assert "--harmless" in caught.value.fix
    assert len(_load(tmp_path, rows, harmful=None)[0]) == 2


@pytest.mark.parametrize("blank", ["", "  ", None, float("nan"), "NaN", "null"])
def test_blank_cells_are_neither_text_nor_answer_nor_category(tmp_path: Path, blank: object) -> None:
    rows = [{"prompt": KNOT, "response": blank, "category": blank, "context": blank}, {"prompt": blank}]
    requests, _ = _load(tmp_path, [*rows, {"prompt": BOW, "response": "x", "category": "y", "context": "z"}])
    assert [(request.text, request.answer, request.categories) for request in requests] == [
        (KNOT, None, ()),
        (f"{BOW}\n\nz", "x", ("y",)),
    ]


def test_categories_as_flags_or_as_a_list_written_as_text(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": KNOT, "category": {"ropes": True, "sails": False}},
        {"prompt": BOW, "category": "['ropes', 'bows']"},
    ]
    assert [request.categories for request in _load(tmp_path, rows)[0]] == [("ropes",), ("ropes", "bows")]


@pytest.mark.parametrize(
    "text",
    [
        "\u5982\u4f55\u6253\u4e00\u4e2a\u5e73\u7ed3\uff1f",
        "\u0e1c\u0e39\u0e01\u0e40\u0e07\u0e37\u0e48\u0e2d\u0e19\u0e2d\u0e22\u0e48\u0e32\u0e07\u0e44\u0e23",
    ],
)
def test_scripts_without_spaces_are_read(tmp_path: Path, text: str) -> None:
    for column in ("prompt", "what_they_ask"):
        assert _load(tmp_path, [{column: text, "n": 1}])[0][0].text == text


def test_this_projects_own_rows_are_read_back_without_loss(tmp_path: Path) -> None:
    """Whatever command wrote them: label, rules, twin, family and disguise survive; only what is open is filled."""
    written = [
        user_request(
            "A postcard: how do I tie a knot?", harmful=True, rules=("R4",), categories=("a",), source="s", family="f",
            twin="t", kind="lookalike", answer=" ", operator="postcard", seed_text=KNOT,
        ),
        Request(
            messages=(Message(role="system", content="x"), Message(role="user", content=f" {BOW} ")),
            source="s", kind="k",
        ),
        user_request(BOW, harmful=False, source="s", kind="ordinary"),
    ]  # fmt: skip
    file = tmp_path / "own.jsonl"
    write_jsonl(file, written)
    assert list(load_requests(SourceSpec(path=str(file)), None)) == written
    assert [request.harmful for request in load_requests(SourceSpec(path=str(file)), True)] == [True, True, False]
    # Rows of one label alone, against what was announced: their own label is no guess.
    write_jsonl(file, written[2:])
    assert list(load_requests(SourceSpec(path=str(file)), True)) == written[2:]


def test_a_conversation_that_looks_like_an_own_row_is_labelled_as_announced(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": KNOT}], "source": "elsewhere"}
    requests, _ = _load(tmp_path, [row])
    assert (requests[0].harmful, requests[0].kind, requests[0].source) == (True, "harmful", "elsewhere")
    answered = {"messages": [*row["messages"], {"role": "assistant", "content": "Loop."}]}
    assert _load(tmp_path, [answered])[0][0].answer == "Loop."


def test_malformed_rows_are_an_error_or_skipped_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    tool = {"messages": [{"role": "tool", "content": "x"}, {"role": "user", "content": KNOT}]}
    good = {"messages": [{"role": "user", "content": KNOT}, {"role": "assistant", "content": "Loop."}]}
    lines = [json.dumps(good), "{oops", json.dumps(tool), json.dumps({"messages": None}), json.dumps(good)]
    file.write_text("\n".join(lines))
    with pytest.raises(InputError, match="line 2"):
        list(load_requests(SourceSpec(path=str(file)), True))
    skipped: list[tuple[str, str]] = []
    spec = SourceSpec(path=str(file), skip_bad=True)
    assert len(list(load_requests(spec, True, on_skip=lambda cause, where: skipped.append((cause, where))))) == 2
    assert sorted(cause for cause, _ in skipped) == ["malformed", "malformed", "no text"]
    assert any("row 2: role 'tool'" in where for _, where in skipped)
    assert not any("oops" in where for _, where in skipped)


def test_a_limit_draws_by_content_whatever_the_order(tmp_path: Path) -> None:
    rows = [f"How do I tie knot {n}?" for n in range(300)]
    file = tmp_path / "a.txt"
    drawn: list[list[str]] = []
    for ordered in (rows, rows[::-1], rows + rows):
        file.write_text("\n".join(ordered))
        drawn.append([request.text for request in load_requests(SourceSpec(path=str(file), limit=30), True)])
    assert len(drawn[0]) == 30
    assert drawn[0] == drawn[1][::-1] == drawn[2]
    places = [rows.index(text) for text in drawn[0]]
    assert places == sorted(places)
    assert all(any(start <= place < start + 100 for place in places) for start in (0, 100, 200))
    # The ranks are the same at every size, so that a smaller sample is part of a larger one.
    assert set(drawn[0]) < {request.text for request in load_requests(SourceSpec(path=str(file), limit=31), True)}
    assert len(list(load_requests(SourceSpec(path=str(file), limit=1000), True))) == 300


def test_a_limit_counts_after_the_label_is_chosen(tmp_path: Path) -> None:
    rows = [{"prompt": f"How do I tie knot {n}?", "label": int(n % 10 == 0)} for n in range(100)]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    requests = list(load_requests(SourceSpec(path=str(file), limit=8), True, only=True))
    assert [request.harmful for request in requests] == [True] * 8


def test_a_limit_keeps_the_pairs_of_a_shipped_set_together() -> None:
    requests = list(load_requests(SourceSpec(path="shipped:contrast", limit=20), True))
    assert len(requests) == 20
    assert len({request.twin for request in requests}) == 10


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
    shown: dict[str, ColumnMapping] = {}
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
    mapping = guess_mapping([{"goal": KNOT, "target": "Sure, here is how"}], {}, "x")
    assert mapping == ColumnMapping(text="goal", unread=("target",))


SETS: dict[str, tuple[int, str | set[str] | None]] = {
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
    "benign/gpteacher_codegen_400.json": (400, "instruction"),
    "benign/gpteacher_roleplay_400.json": (400, "instruction"),
    "benign/instructionwild_en.jsonl": (429, "instruction"),
    "benign/instructionwild_zh.jsonl": (429, "instruction"),
    "benign/self_instruct_user.jsonl": (252, "instruction"),
    "benign/vicuna_bench.jsonl": (80, None),  # its turns are conversations
    "harmful/xsafety": (3000, {"text", "column_1"}),  # files without a header: lines, or tables of one column
}


@pytest.mark.parametrize("name", SETS)
def test_every_development_set_is_read_whole_without_a_flag(shared: Path, name: str) -> None:
    count, column = SETS[name]
    shown: list[ColumnMapping] = []
    harmful = name.startswith("harmful")
    requests = list(load_requests(SourceSpec(path=str(shared / name)), harmful, lambda _, m: shown.append(m)))
    assert len(requests) == count
    assert {mapping.text for mapping in shown} == (column if isinstance(column, set) else {column})
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


def test_the_taxonomy_of_a_nested_set_is_kept_whole(shared: Path) -> None:
    file = shared / "harmful" / "harmfulqa.json"
    topics = json.loads(file.read_text(encoding="utf-8"))
    requests = list(load_requests(SourceSpec(path=str(file)), True))
    assert {request.categories[0] for request in requests} == set(topics)
    assert {len(request.categories) for request in requests} == {2}


def test_labels_of_a_mixed_set_are_kept(shared: Path) -> None:
    requests = list(load_requests(SourceSpec(path=str(shared / "over_refusal" / "xstest.csv")), True))
    assert [sum(request.harmful is label for request in requests) for label in (False, True)] == [250, 200]


def test_a_promise_is_never_taken_for_an_answer(shared: Path) -> None:
    """AdvBench's `target` begins an answer that complies: taught as the refusal, it would teach the attack."""
    file = shared / "harmful" / "advbench.csv"
    shown: list[ColumnMapping] = []
    requests = list(load_requests(SourceSpec(path=str(file)), True, lambda _, mapping: shown.append(mapping)))
    assert "target" not in shown[0].model_dump().values()
    assert {request.answer for request in requests} == {None}
    with file.open(encoding="utf-8", newline="") as opened:
        promises = {row["target"] for row in csv.DictReader(opened)}
    assert not promises & {request.text for request in requests}
