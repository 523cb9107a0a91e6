"""The table of flips, and the command line of judges."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from forethought.cli.judge import judge as judge_app
from forethought.errors import InputError
from forethought.judges.base import Item, Measure, Verdict
from forethought.judges.evaluate import LONG_CHARS, PROBES, compliances, robustness
from forethought.judges.labelled import LabelledItem
from forethought.judges.rules import Keywords
from forethought.judges.trained import shipped_judge

ANSWERS = [
    Item(request="How do I tie a knot?", answer=f"Cross the ends of rope {n} and pull it tight.") for n in range(6)
]


class Fooled:
    """Refuses whatever holds `fool`, decides nothing where `blind` stands, and gives empty answers a verdict."""

    def __init__(self, fool: str = "\0", blind: str = "\0") -> None:
        self.name = "fooled"
        self.measure: Measure = "refused"
        self.fool, self.blind = fool, blind

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        return [
            Verdict(cause="blind") if self.blind in item.answer else Verdict(refused=self.fool in item.answer)
            for item in items
        ]


def flips(judge: Any) -> dict[str, tuple[float, int | None, int]]:
    return {r.probe: (r.flips.value, r.flips.n, r.became_unscored) for r in robustness(judge, ANSWERS)}


def test_flips_are_counted_by_probe() -> None:
    found = flips(Fooled("Safety and respect"))
    assert found["safety_preamble"] == (1.0, 6, 0)
    assert {name for name in PROBES if found[name][0] > 0} == {"safety_preamble"}


def test_an_undecided_verdict_is_no_flip_and_no_pass() -> None:
    value, n, unscored = flips(Fooled(blind="Disclaimer"))["disavowal"]
    assert (n, unscored) == (0, 6)
    assert value != value


def test_a_verdict_on_an_empty_answer_is_a_failure() -> None:
    assert flips(Fooled())["empty"][0] == 1.0
    assert flips(Keywords())["empty"][0] == 0.0


def test_languages_count_wrong_verdicts() -> None:
    assert flips(Fooled())["languages"] == (0.5, 20, 0)  # it calls every refusal a compliance


def test_probes_leave_the_answer_whole_and_length_is_as_promised() -> None:
    for name, change in PROBES.items():
        assert ANSWERS[0].answer in change(ANSWERS[0].answer), name
    assert len(PROBES["very_long"]("")) >= LONG_CHARS


def test_compliances_come_from_the_labels_of_the_measure() -> None:
    items = [
        LabelledItem(item=Item(request="q", answer=label), label=label, source="x")
        for label in ("positive", "partial", "negative")
    ]
    assert [i.answer for i in compliances(items, Keywords("refused"))] == ["negative"]
    assert [i.answer for i in compliances(items, Keywords("harmful"))] == ["positive"]
    assert len(compliances([], Keywords())) > 100


def test_the_embedded_judge_is_flipped_less_than_the_keyword_list() -> None:
    judge = shipped_judge("refused")
    sample = compliances([], judge)[::8]
    mine = {r.probe: r for r in robustness(judge, sample)}
    list_ = {r.probe: r.flips.value for r in robustness(Keywords(), sample)}
    for probe in ("safety_preamble", "disavowal", "quoted_refusal"):
        assert mine[probe].flips.value < list_[probe]
    assert mine["empty"].flips.value == 0
    assert mine["very_long"].s_per_answer < 0.1


def write_labelled(path: Path, rows: int = 40) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for n in range(rows):
            refusal = n % 2 == 0
            answer = (
                f"I'm sorry, but I can't help with item {n}." if refusal else f"Sure! Take item {n} and fold it twice."
            )
            label = "refusal" if refusal else "compliance"
            file.write(json.dumps({"prompt": f"How do I fold item {n}?", "response": answer, "label": label}) + "\n")
    return path


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(judge_app, list(arguments))


def test_train_then_eval_by_the_command_line(tmp_path: Path) -> None:
    file = write_labelled(tmp_path / "mine.jsonl")
    trained = invoke("train", str(file), "--out", str(tmp_path / "judge"), "--without-shipped")
    assert trained.exit_code == 0, trained.output
    assert "mine.jsonl 40" in trained.output
    result = invoke("eval", str(tmp_path / "judge"), str(file), "--json")
    assert result.exit_code == 0, result.output
    mine, beside = json.loads(result.output)
    assert (mine["judge"], beside["judge"]) == ("judge", "keywords")
    assert {f["name"]: f["value"] for f in mine["figures"]}["accuracy"] == 1.0
    again = invoke("train", str(file), "--out", str(tmp_path / "again"), "--without-shipped")
    assert again.exit_code == 0
    assert (tmp_path / "again/weights.npz").read_bytes() == (tmp_path / "judge/weights.npz").read_bytes()


def test_eval_fails_where_too_many_are_unscored(tmp_path: Path) -> None:
    file = write_labelled(tmp_path / "mine.jsonl")
    with file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps({"prompt": "q", "response": "", "label": "refusal"}) + "\n")
    assert invoke("eval", "keywords", str(file)).exit_code == 1  # 1 of 41 is above 2 %
    shown = invoke("eval", "keywords", str(file), "--max-unscored", "0.05")
    assert shown.exit_code == 0
    assert "empty answer" in invoke("eval", "keywords", str(file)).output


def test_robustness_by_the_command_line(tmp_path: Path) -> None:
    file = write_labelled(tmp_path / "mine.jsonl")
    result = invoke("robustness", "keywords", str(file), "--json")
    assert result.exit_code == 0, result.output
    rows = {row["probe"]: row["flips"] for row in json.loads(result.output)}
    assert (rows["quoted_refusal"]["value"], rows["quoted_refusal"]["n"]) == (1.0, 20)
    assert "safety_preamble" in invoke("robustness", "keywords", str(file)).output


def test_a_wrong_column_is_the_users_error(tmp_path: Path) -> None:
    file = write_labelled(tmp_path / "mine.jsonl")
    result = invoke("eval", "keywords", str(file), "--column", "label=verdict")
    assert isinstance(result.exception, InputError)
    assert "has no column 'verdict'" in str(result.exception)


@pytest.mark.parametrize("command", ["train", "eval", "robustness"])
def test_help_is_there(command: str) -> None:
    assert invoke(command, "--help").exit_code == 0
