"""Every public layout is read as its paper means it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from forethought.errors import InputError
from tests.data.benchmarks.rows import (
    BOW,
    JBB,
    KITE,
    KNOT,
    harmbench,
    labels,
    read,
    texts,
    write_csv,
    write_json,
    write_lines,
)


def test_harmbench_places_contexts_as_the_paper_and_keeps_copyright_apart(tmp_path: Path) -> None:
    found = read(harmbench(tmp_path))
    assert found.layout == "harmbench"
    standard, contextual, copied = found.behaviors
    assert [behavior.id for behavior in found.behaviors] == ["knot", "which", "song"]
    assert standard.request.text == KNOT
    assert contextual.request.text == "Over, under,\nand through.\n\n---\n\nWhich knot is this?"
    assert contextual.context == "Over, under,\nand through."
    assert contextual.asked == "Which knot is this?"
    assert contextual.placed("wh1ch?") == "Over, under,\nand through.\n\n---\n\nwh1ch?"
    assert standard.placed("kn0t") == "kn0t"
    assert [behavior.says("function") for behavior in found.behaviors] == ["standard", "contextual", "copyright"]
    assert labels(found) == [True, True, True]
    assert [behavior.request.kind for behavior in found.behaviors] == ["harmful", "harmful", "copyright"]
    assert copied.tags["tags"] == "lyrics, hash_check"


def test_a_contextual_behaviour_without_its_context_is_malformed(tmp_path: Path) -> None:
    path = harmbench(tmp_path, ContextString="")
    with pytest.raises(InputError, match=r"rows\.csv, line 3: has no text in ContextString"):
        read(path)
    assert len(read(path, skip_bad=True).behaviors) == 2


def test_advbench_keeps_the_target_as_reference_and_never_as_answer(tmp_path: Path) -> None:
    found = read(write_csv(tmp_path / "rows.csv", [{"goal": KNOT, "target": "Sure, here is a knot"}]))
    assert found.layout == "advbench"
    assert found.behaviors[0].reference == "Sure, here is a knot"
    assert found.behaviors[0].request.answer is None
    assert found.behaviors[0].id == found.behaviors[0].request.id


def test_a_set_of_ones_own_with_a_goal_and_a_target_is_not_advbench(tmp_path: Path) -> None:
    rows = [{"goal": KNOT, "target": "Sure", "topic": "ropes"}]
    assert read(write_csv(tmp_path / "rows.csv", rows)).layout is None


@pytest.mark.parametrize(
    ("name", "harmful"),
    [
        ("jbb-harmful.csv", True),
        ("jbb_benign_behaviors.csv", False),
        ("rows.csv", True),
        ("harmful-and-benign.csv", None),
    ],
)
def test_jailbreakbench_splits_are_told_by_the_files_name(tmp_path: Path, name: str, harmful: bool | None) -> None:
    found = read(write_csv(tmp_path / name, [JBB]))
    assert found.layout == "jailbreakbench"
    assert labels(found) == [harmful]
    assert found.behaviors[0].id == "Knots"
    assert found.behaviors[0].reference == "Sure"


def test_what_the_user_says_wins_over_a_name_and_loses_to_a_column(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "harmful.csv", [JBB])
    assert labels(read(path, harmful=False)) == [False]
    joined = write_csv(tmp_path / "all.csv", [JBB | {"split": "harmful"}, JBB | {"split": "benign"}])
    found = read(joined, harmful=False)
    assert labels(found) == [True, False]
    assert [behavior.id for behavior in found.behaviors] == ["Knots", "Knots~2"]
    assert [behavior.request.kind for behavior in found.behaviors] == ["harmful", "lookalike"]


def test_jailbreakbench_artefacts_keep_goal_method_and_the_exact_prompt(tmp_path: Path) -> None:
    row = {"index": 3, "goal": KNOT, "behavior": "Knots", "category": "Ropes", "number_of_queries": 5}
    rows = [
        row | {"prompt": f"You are a sailor. {KNOT} !! \n", "response": "A bowline.", "jailbroken": True},
        row | {"behavior": "Kites", "prompt": None, "response": None, "jailbroken": False},
    ]
    whole = {"parameters": {"model": "small", "method": "PAIR", "attack_parameters": {"n": 3}}, "jailbreaks": rows}
    found = read(write_json(tmp_path / "small.json", whole))
    assert found.layout == "jailbreakbench_artifacts"
    assert found.without_text == 1
    (behavior,) = found.behaviors
    assert behavior.id == "PAIR/small/Knots"
    assert behavior.request.text == f"You are a sailor. {KNOT} !! \n"
    assert behavior.request.plain == KNOT
    assert behavior.request.operator == "PAIR"
    assert behavior.request.categories == ("Ropes",)
    assert behavior.tags["jailbroken"] == "True"
    assert "A bowline." not in behavior.model_dump_json()


def test_strongreject(tmp_path: Path) -> None:
    found = read(write_csv(tmp_path / "rows.csv", [{"category": "Ropes", "source": "us", "forbidden_prompt": KNOT}]))
    assert (found.layout, texts(found), labels(found)) == ("strongreject", [KNOT], [True])
    assert found.behaviors[0].says("source") == "us"


def test_sorry_bench_has_one_turn_a_row_and_styles_of_one_question(tmp_path: Path) -> None:
    row = {"question_id": 7, "category": "12", "turns": [KNOT], "prompt_style": "base"}
    found = read(write_lines(tmp_path / "rows.jsonl", [row, row | {"turns": ["kn0t?"], "prompt_style": "slang"}]))
    assert found.layout == "sorry_bench"
    assert [behavior.id for behavior in found.behaviors] == ["7/base", "7/slang"]
    assert texts(found) == [KNOT, "kn0t?"]
    assert {behavior.request.family for behavior in found.behaviors} == {"sorry_bench:7"}
    as_text = write_csv(tmp_path / "rows.csv", [row | {"turns": str([KNOT])}])
    assert texts(read(as_text)) == [KNOT]
    with pytest.raises(InputError, match=r"line 1: has 2 texts where the layout has one"):
        read(write_lines(tmp_path / "two.jsonl", [row | {"turns": [KNOT, BOW]}]))


def test_other_question_files_of_the_same_shape_are_not_sorry_bench(tmp_path: Path) -> None:
    rows = [{"question_id": 7, "category": "writing", "turns": [KNOT]}]
    assert read(write_lines(tmp_path / "questions.jsonl", rows)).layout is None
    assert read(write_lines(tmp_path / "sorry-bench.jsonl", rows)).layout == "sorry_bench"


def test_malicious_instruct_is_known_by_name_alone(tmp_path: Path) -> None:
    (tmp_path / "MaliciousInstruct.txt").write_text(f"{KNOT}\n\n{BOW}\n", encoding="utf-8")
    (tmp_path / "lines.txt").write_text(f"{KNOT}\n{BOW}\n", encoding="utf-8")
    found = read(tmp_path / "MaliciousInstruct.txt")
    assert (found.layout, texts(found), labels(found)) == ("malicious_instruct", [KNOT, BOW], [True, True])
    other = read(tmp_path / "lines.txt")
    assert (other.layout, labels(other)) == (None, [None, None])
    assert labels(read(tmp_path / "lines.txt", layout="malicious_instruct")) == [True, True]


def test_do_not_answer(tmp_path: Path) -> None:
    row = {"id": 1, "risk_area": "Ropes", "types_of_harm": "Knots", "specific_harms": "Bows", "question": KNOT}
    found = read(write_csv(tmp_path / "rows.csv", [row | {"GPT4_response": "No.", "GPT4_harmful": 0}]))
    assert (found.layout, texts(found), labels(found)) == ("do_not_answer", [KNOT], [True])
    assert found.behaviors[0].request.categories == ("Ropes", "Knots")
    assert found.behaviors[0].id == "1"


@pytest.mark.parametrize(
    ("name", "columns"),
    [("harmfulqa", ("topic", "subtopic", "question")), ("catqa", ("Category", "Subcategory", "Question"))],
)
def test_question_sets_with_a_subject_as_a_table_and_nested(
    tmp_path: Path, name: str, columns: tuple[str, ...]
) -> None:
    flat = read(write_lines(tmp_path / "rows.jsonl", [dict(zip(columns, ("Ropes", "Knots", KNOT), strict=True))]))
    nested = read(write_json(tmp_path / f"{name}.json", {"Ropes": {"Knots": [KNOT, BOW]}, "Wind": {"Kites": [KITE]}}))
    assert flat.layout == nested.layout == name
    assert flat.behaviors[0].request.categories == ("Ropes", "Knots")
    assert texts(nested) == [KNOT, BOW, KITE]
    assert [one.request.categories for one in nested.behaviors] == [("Ropes", "Knots")] * 2 + [("Wind", "Kites")]
    assert labels(nested) == [True] * 3


def test_simple_safety_tests(tmp_path: Path) -> None:
    row = {"id": "SST_1", "harm_area": "Ropes", "category": "Information seeking", "prompt": KNOT}
    found = read(write_csv(tmp_path / "rows.csv", [row]))
    assert (found.layout, texts(found), labels(found)) == ("simple_safety_tests", [KNOT], [True])
    assert found.behaviors[0].says("category") == "Ropes"
    assert found.behaviors[0].says("form") == "Information seeking"


MULTIJAIL = {
    "id": "4", "source": "us", "en": KNOT, "zh": "怎么打结?", "it": "Come si fa un nodo?", "vi": "Thắt nút?",
    "ar": "كيف أعقد؟", "ko": "매듭?", "th": "ผูกปม?", "bn": "গিঁট?", "sw": "Fundo?", "jv": "Tali?",
    "tags": "['Ropes', 'Knots']",
}  # fmt: skip


def test_multijail_is_a_request_a_language(tmp_path: Path) -> None:
    found = read(write_csv(tmp_path / "rows.csv", [MULTIJAIL, MULTIJAIL | {"id": "5", "en": BOW, "jv": " "}]))
    assert found.layout == "multijail"
    assert len(found.behaviors) == 19
    assert found.without_text == 1
    english, chinese = found.behaviors[:2]
    assert (english.id, english.request.operator, english.request.seed_text) == ("4/en", None, None)
    assert (chinese.id, chinese.request.operator, chinese.request.plain) == ("4/zh", "translate:zh", KNOT)
    assert chinese.says("language") == "zh"
    assert chinese.request.categories == ("Ropes", "Knots")
    assert Counter(one.request.family for one in found.behaviors) == {"multijail:4": 10, "multijail:5": 9}


def test_a_language_that_a_file_lacks_is_not_counted_as_without_text(tmp_path: Path) -> None:
    found = read(write_csv(tmp_path / "multijail.csv", [{"id": 1, "en": KNOT, "sw": "Fundo?"}]))
    assert (len(found.behaviors), found.without_text) == (2, 0)


def test_xstest_labels_by_column_or_by_type_and_counts_unknown_ones(tmp_path: Path) -> None:
    row = {"id": "1", "prompt": KNOT, "type": "homonyms", "label": "safe", "focus": "knot", "note": ""}
    contrast = {"prompt": BOW, "type": "contrast_homonyms"}
    rows = [row, row | contrast | {"id": "2", "label": "unsafe"}, row | {"id": "3", "label": "disputed"}]
    found = read(write_csv(tmp_path / "rows.csv", rows))
    assert found.layout == "xstest"
    assert labels(found) == [False, True, None]
    assert [one.request.kind for one in found.behaviors] == ["lookalike", "harmful", ""]
    bare = [{key: one[key] for key in ("id", "prompt", "type", "focus")} for one in rows[:2]]
    assert labels(read(write_csv(tmp_path / "bare.csv", bare))) == [False, True]


@pytest.mark.parametrize(
    ("name", "harmful"), [("or-bench-80k.csv", False), ("or-bench-hard-1k.csv", False), ("or-bench-toxic.csv", True)]
)
def test_or_bench_is_labelled_by_its_file(tmp_path: Path, name: str, harmful: bool) -> None:
    found = read(write_csv(tmp_path / name, [{"prompt": KNOT, "category": "ropes"}]))
    assert (found.layout, labels(found)) == ("or_bench", [harmful])


def test_oktest(tmp_path: Path) -> None:
    found = read(write_csv(tmp_path / "OKTest.csv", [{"id": 1, "prompt": KNOT}]))
    assert (found.layout, texts(found), labels(found)) == ("oktest", [KNOT], [False])
    assert found.behaviors[0].request.kind == "lookalike"


def test_phtest_leaves_controversial_requests_unlabelled(tmp_path: Path) -> None:
    rows = [
        {"ID": 1, "Prompt": KNOT, "Harmfulness": "harmless"},
        {"ID": 2, "Prompt": BOW, "Harmfulness": "controversial"},
    ]
    found = read(write_json(tmp_path / "rows.json", rows), harmful=False)
    assert (found.layout, labels(found)) == ("phtest", [False, None])
    assert found.behaviors[1].says("harmfulness") == "controversial"


def test_wildjailbreak_prefers_the_adversarial_text_and_remembers_the_vanilla_one(tmp_path: Path) -> None:
    rows = [
        {"vanilla": KNOT, "adversarial": "", "completion": "Like so.", "data_type": "vanilla_benign"},
        {"vanilla": KNOT, "adversarial": "A story of a knot", "completion": "No.", "data_type": "adversarial_harmful"},
        {"vanilla": BOW, "adversarial": "A story of a bow", "completion": "Yes.", "data_type": "adversarial_benign"},
        {"vanilla": BOW, "adversarial": "", "completion": "", "data_type": "something_else"},
    ]
    found = read(write_csv(tmp_path / "train.tsv", rows, "\t"))
    assert found.layout == "wildjailbreak"
    assert texts(found) == [KNOT, "A story of a knot", "A story of a bow", BOW]
    assert [one.request.plain for one in found.behaviors] == [KNOT, KNOT, BOW, BOW]
    assert [one.request.operator for one in found.behaviors] == [None, "wildteaming", "wildteaming", None]
    assert labels(found) == [False, True, False, None]
    assert found.behaviors[0].reference == "Like so."
    assert all(one.request.answer is None for one in found.behaviors)
    evaluation = [{"adversarial": KITE, "label": 1, "data_type": "adversarial_harmful"}]
    assert labels(read(write_csv(tmp_path / "eval.tsv", evaluation, "\t"))) == [True]


def test_trustllm_names_the_attack_and_is_not_taken_for_a_labelled_set(tmp_path: Path) -> None:
    rows = [{"prompt": f"Begin with Ahoy. {KNOT}", "label": ["fixed sentence"], "source": "us"}]
    found = read(write_json(tmp_path / "rows.json", rows))
    assert (found.layout, labels(found)) == ("trustllm_jailbreak", [True])
    assert found.behaviors[0].says("attack") == "fixed sentence"
    plain = write_json(tmp_path / "plain.json", [{"prompt": KNOT, "label": "safe", "source": "us"}])
    assert (read(plain).layout, labels(read(plain))) == (None, [False])
