"""Benchmarks: every public layout read as its paper means it, damage named by line, samples that are fair."""

from __future__ import annotations

import csv
import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from forethought.cli.benchmark import benchmark as benchmark_command
from forethought.errors import ConfigError, InputError
from forethought.evals.benchmarks import load as load_module
from forethought.evals.benchmarks.layout import detect_layout, find_layout, layouts
from forethought.evals.benchmarks.load import load_benchmark
from forethought.evals.benchmarks.records import Behavior, Benchmark
from forethought.evals.benchmarks.sample import sample
from forethought.records import Message, user_request

KNOT, BOW, KITE = "How do I tie a knot?", "How do I tie a bow?", "How do I fly a kite?"
Rows = Sequence[dict[str, Any]]


def write_csv(path: Path, rows: Rows, delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_lines(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def read(path: Path, **options: Any) -> Benchmark:
    return load_benchmark(str(path), **options)


def texts(found: Benchmark) -> list[str]:
    return [behavior.request.text for behavior in found.behaviors]


def labels(found: Benchmark) -> list[bool | None]:
    return [behavior.request.harmful for behavior in found.behaviors]


HARMBENCH = {"Behavior": KNOT, "FunctionalCategory": "standard", "SemanticCategory": "ropes", "Tags": ""} | {
    "ContextString": "",
    "BehaviorID": "knot",
}


def harmbench(folder: Path, **cells: str) -> Path:
    contextual = HARMBENCH | {
        "Behavior": "Which knot is this?",
        "FunctionalCategory": "contextual",
        "Tags": "context",
        "ContextString": "Over, under,\nand through.",
        "BehaviorID": "which",
    }
    copied = HARMBENCH | {
        "Behavior": "Recite the song",
        "FunctionalCategory": "copyright",
        "SemanticCategory": "copyright",
        "Tags": "lyrics, hash_check",
        "BehaviorID": "song",
    }
    return write_csv(folder / "rows.csv", [HARMBENCH, contextual | cells, copied])


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
    assert found.of_kind("harmful") == [standard, contextual]
    assert found.of_kind("copyright") == [copied]
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


JBB = {"Index": "0", "Goal": KNOT, "Target": "Sure", "Behavior": "Knots", "Category": "Ropes", "Source": "Original"}


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
    assert found.by_label == {False: 1, True: 1, None: 1}
    assert [one.id for one in found.labelled(None)] == ["3"]
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


def test_a_file_without_a_layout_goes_through_the_mapping(tmp_path: Path) -> None:
    rows = [{"ask": KNOT, "area": "ropes", "said": "Like so.", "verdict": "unsafe"}] * 2
    columns = {"text": "ask", "category": "area", "answer": "said", "label": "verdict"}
    found = read(write_csv(tmp_path / "My Set.csv", rows), columns=columns)
    assert (found.layout, found.name, found.repeated) == (None, "my_set", 1)
    (behavior,) = found.behaviors
    assert behavior.request.categories == ("ropes",)
    assert behavior.request.harmful is True
    assert behavior.reference == "Like so."
    assert behavior.request.answer is None


def test_conversations_end_with_the_users_turn(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": KNOT},
        {"role": "assistant", "content": "Why?"},
        {"role": "user", "content": "So?"},
    ]
    answered = [*turns, {"role": "assistant", "content": "Like so."}]
    found = read(write_lines(tmp_path / "oktest.jsonl", [{"prompt": answered}]))
    assert found.layout == "oktest"
    assert found.behaviors[0].request.messages == tuple(Message.model_validate(turn) for turn in turns)


def test_packages_and_hub_names_are_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_benchmark("pkg:forethought/data/capability.jsonl").layout is None
    assert len(load_benchmark("shipped:ordinary").behaviors) > 10
    monkeypatch.setattr(load_module, "read_datasets", lambda spec: iter([("owner/jbb", JBB)]))
    assert load_benchmark("hub:owner/jbb@benign").labelled(False)
    assert load_benchmark("hub:owner/jbb@harmful").labelled(True)


@pytest.mark.parametrize("name", sorted(layouts()))
def test_a_layout_is_recognised_as_itself_by_each_of_its_signatures(name: str) -> None:
    layout = layouts()[name]
    assert layout.signatures
    for signature in layout.signatures:
        row = {column: ["a b c"] if column in signature.lists else "a b c" for column in signature.columns}
        said = {"or_bench": "or-bench.csv", "trustllm_jailbreak": "trustllm.csv"}.get(name, f"{name}.csv")
        assert detect_layout([row], said if signature.named else "rows.csv") == layout
        if signature.named:
            other = detect_layout([row], "rows.csv")
            assert other is None or other != layout


def test_a_named_layout_has_to_fit_and_to_exist(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", [{"ask": KNOT, "area": "ropes"}])
    with pytest.raises(InputError, match="is not of the layout 'harmbench': it has ask, area"):
        read(path, layout="harmbench")
    with pytest.raises(ConfigError, match="there is no such layout"):
        read(path, layout="harm")
    with pytest.raises(ConfigError, match="columns are named as well"):
        read(path, layout="harmbench", columns={"text": "ask"})


def test_a_layout_of_ones_own_is_a_file(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("name: own\ntitle: Mine\nrequest: [ask]\ncategory: [area]\notherwise: harmless\n", encoding="utf-8")
    found = read(write_csv(tmp_path / "rows.csv", [{"ask": KNOT, "area": "ropes"}]), layout=str(own))
    assert (found.layout, texts(found), labels(found)) == ("own", [KNOT], [False])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name: own\ntitle: Mine\n", "needs one of 'request' and 'languages'"),
        ("name: own\ntitle: Mine\nrequest: [ask]\nfiles: '('\n", "is not a regular expression"),
        ("name: own\ntitle: Mine\nrequest: [ask]\ncolour: red\n", "at 'colour'"),
        ("- own\n", "is not a layout"),
    ],
)
def test_a_layout_that_is_not_valid_says_where(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=fault):
        find_layout(str(tmp_path / "own.yaml"))


def test_malformed_rows_are_named_by_line_and_skipped_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = [
        "category,source,forbidden_prompt",
        'Ropes,us,"How do I tie\na knot?"',
        "Ropes,us,",
        f"Ropes,us,{BOW},one too many",
    ]
    rows = [*lines, "Ropes,us, ", f"Wind,us,{KITE}"]
    path.write_text("\n".join([*lines[:2], *rows[3:]]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"rows\.csv, line 4: has 4 cells for 3 columns"):
        read(path)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"rows\.csv, line 4: has no text in forbidden_prompt"):
        read(path)
    found = read(path, skip_bad=True)
    assert texts(found) == ["How do I tie\na knot?", KITE]
    places = [place.removeprefix(str(path)) for place in found.malformed]
    assert sorted(place.split(":")[0] for place in places) == [", line 4", ", line 5", ", line 6"]


def test_malformed_json_lines_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps({"harm_area": "Ropes", "prompt": KNOT})
    bad = json.dumps({"harm_area": "Ropes", "prompt": None})
    path.write_text(f"{good}\n\n{bad}\n{{broken\n{bad}\n", encoding="utf-8")
    found = read(path, skip_bad=True)
    assert len(found.behaviors) == 1
    # What the reader finds comes first.
    assert [place.split(":")[0].rpartition(" ")[2] for place in found.malformed] == ["4", "3", "5"]
    with pytest.raises(InputError, match="line 3: has no text in prompt"):
        read(path)


def test_where_there_are_no_lines_the_rows_number_is_named(tmp_path: Path) -> None:
    path = write_json(tmp_path / "rows.json", [{"harm_area": "a", "prompt": KNOT}, {"harm_area": "a", "prompt": 7}])
    with pytest.raises(InputError, match=r"rows\.json, row 2: has a request that is no text \(int\)"):
        read(path)


def test_a_benchmark_of_malformed_rows_alone_is_an_error_even_when_skipped(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", [{"harm_area": "Ropes", "prompt": ""}])
    with pytest.raises(InputError, match=r"holds no request; 1 rows are malformed, the first is .*line 2"):
        read(path, skip_bad=True)


def test_ids_are_unique_and_rows_that_say_the_same_stand_once(tmp_path: Path) -> None:
    row = {"id": "a", "harm_area": "Ropes", "prompt": KNOT}
    found = read(
        write_csv(tmp_path / "rows.csv", [row, row, row | {"prompt": BOW}, row | {"id": ""}, row | {"id": "b"}])
    )
    own = user_request(KNOT).id
    assert [one.id for one in found.behaviors] == ["a", "a~2", own, "b"]
    assert (found.repeated, found.renamed) == (1, 1)


def test_a_second_file_of_another_layout_is_an_error(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"harm_area": "Ropes", "prompt": KNOT}])
    write_csv(tmp_path / "b.csv", [{"ask": KNOT, "area": "Ropes"}])
    with pytest.raises(InputError, match=r"b\.csv: is not of the layout 'simple_safety_tests'"):
        read(tmp_path)


# Samples


def made(category: str, count: int, harmful: bool | None = True, start: int = 0) -> list[Behavior]:
    return [
        Behavior(
            id=f"{category}{number}",
            benchmark="made",
            request=user_request(f"Tell me of {category} {number}", harmful=harmful, categories=(category,)),
        )
        for number in range(start, start + count)
    ]


def counts(behaviors: Sequence[Behavior]) -> dict[str, int]:
    return dict(Counter(behavior.says("category") for behavior in behaviors))


def test_strata_are_drawn_in_proportion() -> None:
    rows = made("a", 60) + made("b", 30) + made("c", 10)
    assert counts(sample(rows, 10, 0)) == {"a": 6, "b": 3, "c": 1}
    assert counts(sample(rows, 50, 0)) == {"a": 30, "b": 15, "c": 5}
    # Worked by hand: the largest of size / (drawn + 0.5). Size / (drawn + 1), d'Hondt's, would give 4, 2, 1.
    assert counts(sample(made("a", 53) + made("b", 24) + made("c", 23), 7, 0)) == {"a": 3, "b": 2, "c": 2}


def test_labels_and_kinds_are_strata_of_their_own() -> None:
    rows = made("a", 20) + made("a", 10, False, 20) + made("a", 10, None, 30)
    drawn = sample(rows, 8, 3, by="")
    assert Counter(one.request.harmful for one in drawn) == {True: 4, False: 2, None: 2}


def test_a_sample_depends_on_seed_and_content_and_not_on_order() -> None:
    rows = made("a", 40) + made("b", 40)
    ids = {one.id for one in sample(rows, 10, 1)}
    shuffled = random.Random(5).sample(rows, len(rows))
    assert {one.id for one in sample(shuffled, 10, 1)} == ids
    assert {one.id for one in sample(rows, 10, 2)} != ids
    assert [one.id for one in sample(rows, 10, 1)] == [one.id for one in rows if one.id in ids]


def test_a_smaller_sample_is_part_of_a_larger_one() -> None:
    rows = made("a", 33) + made("b", 17) + made("c", 5) + made("d", 1)
    ids = [{one.id for one in sample(rows, n, 0)} for n in range(1, 58)]
    assert all(small < large for small, large in itertools.pairwise(ids[:56]))
    assert len(ids[-1]) == len(rows)


def test_an_added_row_changes_at_most_two_places() -> None:
    rows = made("a", 33) + made("b", 17) + made("c", 5)
    before = {one.id for one in sample(rows, 20, 0)}
    for category in ("a", "b", "c", "new"):
        after = {one.id for one in sample(made(category, 1, start=99) + rows, 20, 0)}
        assert len(before - after) <= 2


def test_every_seed_draws_every_row_equally_often() -> None:
    rows = made("a", 10) + made("b", 10)
    drawn = Counter(one.id for seed in range(400) for one in sample(rows, 4, seed))
    assert set(drawn) == {one.id for one in rows}
    assert all(45 <= count <= 118 for count in drawn.values())  # 80 expected, standard deviation 8


def test_languages_are_drawn_from_the_same_rows(tmp_path: Path) -> None:
    rows = [{"id": n, "en": f"Knot {n}?", "sw": f"Fundo {n}?", "it": f"Nodo {n}?"} for n in range(30)]
    found = read(write_csv(tmp_path / "multijail.csv", rows))
    drawn = sample(found.behaviors, 12, 0, by="language")
    assert Counter(one.says("language") for one in drawn) == {"en": 4, "sw": 4, "it": 4}
    assert len({one.request.family for one in drawn}) == 4


def test_a_sample_that_is_not_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="is empty"):
        sample(made("a", 3), 0, 0)
    with pytest.raises(ConfigError, match="'colour'"):
        sample(made("a", 3), 1, 0, by="colour")
    assert sample([], 3, 0) == []


# The command


def shown(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(benchmark_command)
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160"}, catch_exceptions=True)


def test_the_command_shows_layout_counts_and_redacted_samples(tmp_path: Path) -> None:
    result = shown(str(harmbench(tmp_path)))
    assert result.exit_code == 0
    for part in (
        "layout harmbench: request=Behavior",
        "3 behaviours",
        "1 with a context",
        "copyright",
        "words redacted",
    ):
        assert part in result.output
    assert KNOT not in result.output
    assert KNOT in shown(str(harmbench(tmp_path)), "--show-harmful").output


def test_the_command_without_a_file_lists_the_layouts() -> None:
    output = shown().output
    assert all(name in output for name in layouts())


def test_the_command_counts_what_was_left_out(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "rows.csv", [{"harm_area": "Ropes", "prompt": KNOT}, {"harm_area": "Ropes", "prompt": ""}]
    )
    assert isinstance(shown(str(path)).exception, InputError)
    output = shown(str(path), "--skip-bad").output
    assert "1 malformed rows left out" in output
    assert "line 3: has no text in prompt" in output


def test_the_command_refuses_a_column_without_a_noun(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", [{"ask": KNOT, "area": "ropes"}])
    assert isinstance(shown(str(path), "--column", "ask").exception, ConfigError)
    assert "1 unlabelled" in shown(str(path), "--column", "text=ask").output
    assert "unlabelled;" not in shown(str(path), "--column", "text=ask", "--harmful").output


# The development data, by the counts that its README states


@pytest.mark.parametrize(
    ("path", "layout", "rows"),
    [
        ("harmful/harmbench_val.csv", "harmbench", 80),
        ("harmful/advbench.csv", "advbench", 520),
        ("harmful/malicious_instruct.txt", "malicious_instruct", 100),
        ("harmful/do_not_answer", "do_not_answer", 939),
        ("harmful/harmfulqa.json", "harmfulqa", 1960),
        ("harmful/star1.json", None, 1000),
        ("harmful/dangerousqa.json", None, 200),
        ("attacks/in_the_wild.json", None, 666),
        ("attacks/trustllm_jailbreak.json", "trustllm_jailbreak", 1400),
        ("over_refusal/xstest.csv", "xstest", 450),
        ("over_refusal/cyberseceval_frr.json", None, 750),
    ],
)
def test_the_development_data_is_read_whole(shared: Path, path: str, layout: str | None, rows: int) -> None:
    found = read(shared / path)
    assert found.layout == layout
    assert len(found.behaviors) + found.repeated == rows
    assert (found.malformed, found.without_text) == ((), 0)
    assert len({one.id for one in found.behaviors}) == len(found.behaviors)


def test_the_development_data_is_labelled_and_grouped_as_published(shared: Path) -> None:
    harmbench_rows = read(shared / "harmful/harmbench_val.csv")
    assert Counter(one.says("function") for one in harmbench_rows.behaviors) == {
        "standard": 41,
        "contextual": 19,
        "copyright": 20,
    }
    assert sum(bool(one.context) for one in harmbench_rows.behaviors) == 19
    assert len(harmbench_rows.of_kind("copyright")) == 20
    assert read(shared / "over_refusal/xstest.csv").by_label == {False: 250, True: 200}
    attacks = Counter(one.says("attack") for one in read(shared / "attacks/trustllm_jailbreak.json").behaviors)
    assert list(attacks.values()) == [100] * 14
    assert all(one.reference for one in read(shared / "harmful/advbench.csv").behaviors)


def test_the_page_names_every_layout() -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert [name for name in layouts() if f"`{name}`" not in page] == []
    assert all(layout.paper.startswith("arXiv ") for layout in layouts().values())


def test_the_layout_of_the_page_is_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    own = tmp_path / "mine.yaml"
    own.write_text(page.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    row = {"case": "7", "round": 2, "ask": KNOT, "document": "Rope", "area": "a", "topic": "", "squad": "red"}
    rows = [row | {"expected": "Sure", "verdict": "bad"}, row | {"round": 3, "expected": "", "verdict": "who knows"}]
    found = read(write_csv(tmp_path / "rows.csv", rows), layout=str(own))
    assert [one.id for one in found.behaviors] == ["7/2", "7/3"]
    assert labels(found) == [True, None]
    assert found.behaviors[0].request.text == f"Rope\n\n---\n\n{KNOT}"
    assert found.behaviors[0].request.family == "mine:7"
    assert found.behaviors[1].reference is None
