"""Composition and suites: what is written is what is run, and mistakes are named."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from forethought.attacks.catalogue import (
    DIRECT,
    all_attacks,
    attack_request,
    load_suite,
    parse_attack,
    suite_attacks,
    suite_names,
)
from forethought.errors import ConfigError
from forethought.records import user_request
from tests.attacks.test_probe import PAPER, PROBE, attacked

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_steps_are_applied_from_left_to_right() -> None:
    first = attacked("base64:bare | style_json").text
    assert first.startswith("SG93IGRvIEkgYmFrZSBicmVhZD8=. Reply with a JSON object")
    last = attacked("style_json | base64:bare").text
    assert base64.b64decode(last).decode().startswith(f"{PROBE} Reply with a JSON object")


def test_a_composition_keeps_lineage_and_what_is_really_asked() -> None:
    made = attacked("caesar:13,frame=bare|rot13:bare | style_short")
    assert made.text.startswith(PROBE)
    assert made.lineage == ("caesar:13,frame=bare", "rot13:bare", "style_short")
    assert made.request.operator == "caesar:13,frame=bare | rot13:bare | style_short"
    assert made.request.plain == PROBE
    assert made.request.seed_id == user_request(PROBE).seed_id


def test_a_composition_sums_up_its_steps() -> None:
    attack = parse_attack("leetspeak | poems | answer_prefill | translate:ta")
    assert attack.needs == ("attacker", "prefill")
    assert attack.white_box
    assert not attack.readable
    assert attack.title == "Leetspeak, then Poems, then Answer prefill, then Translation (ta)"


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("leetspeak", "leetspeak"),
        ("leetspeak:1", "leetspeak"),
        ("leetspeak: 2", "leetspeak:2"),
        ("leetspeak:level=2", "leetspeak:2"),
        ("many_shot:shots=128", "many_shot:128"),
        ("caesar:frame=bare,shift=13", "caesar:13,frame=bare"),
        (" translate:ta|role_play ", "translate:ta | role_play"),
        ("answer_prefill:x = y", "answer_prefill:x = y"),
        ("direct", "direct"),
    ],
)
def test_one_attack_has_one_name(written: str, name: str) -> None:
    """Else the same attempts would be run twice and counted apart."""
    attack = parse_attack(written)
    assert attack.name == name
    assert parse_attack(attack.name).name == name


def test_defaults_give_the_catalogues_own_attack() -> None:
    assert parse_attack("leetspeak:1") is all_attacks()["leetspeak"]
    assert parse_attack("direct") is DIRECT
    request = user_request(PROBE)
    made = attack_request(DIRECT, request, 0)
    assert made.model_dump() == {"request": request.model_dump(), "prefill": "", "think_budget": None, "lineage": ()}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("leetspek", "leetspeak"),
        ("", "no such attack"),
        ("base64 |", "no such attack"),
        ("leetspeak:4", "1, 2, 3"),
        ("caesar:x", "whole number"),
        ("caesar:0", "1 to 25"),
        ("many_shot:shots=0", "1 to 2048"),
        ("translate", "needs its language"),
        ("translate:xx", "choices"),
        ("base64 | translate", "needs its language"),
        ("disemvowel:3", "takes no options"),
        ("caesar:3,shift=4", "twice"),
        ("evolve:nothing", "choices"),
        ("direct:1", "takes no options"),
    ],
)
def test_a_mistake_is_named(written: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_attack(written)


def test_the_shipped_suites_are_what_they_say() -> None:
    assert suite_names() == ("adaptive", "all", "paper", "quick", "reasoning")
    assert load_suite("paper").attacks[0] == "direct"
    assert {parse_attack(one).kind for one in load_suite("quick").attacks if isinstance(one, str)} == {
        "none", "linguistic", "contextual", "encoding", "template", "reasoning",
    }  # fmt: skip
    for attack in suite_attacks(load_suite("quick")):
        assert not attack.needs
    for attack in suite_attacks(load_suite("reasoning")):
        assert attack.kind in ("none", "reasoning")


def test_the_suite_all_holds_every_attack_and_every_other_suite() -> None:
    names = {attack.name for attack in suite_attacks(load_suite("all"))}
    parts = {step.split(":")[0] for name in names for step in name.split(" | ")}
    # `evolve`, training styles by a model, is a choice for suites of one's own.
    assert parts == {"direct", *all_attacks()} - {"evolve"}
    for name in suite_names():
        assert {attack.name for attack in suite_attacks(load_suite(name))} <= names
    assert load_suite("all").adaptive == load_suite("adaptive").adaptive


def _suite(folder: Path, text: str, name: str = "mine.yaml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_a_suite_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text\nSay: [PROMPT]\nBe kind.\n")
    (tmp_path / "p.jsonl").write_text('{"technique": "Time Pressure", "definition": "Hurry."}\n')
    _suite(tmp_path, "name: other\nattacks: [base64]\nadaptive: [gcg]\n", "other.yaml")
    path = _suite(
        tmp_path,
        "name: mine\ninclude: [paper, other.yaml]\nattacks:\n  - role_play\n  - translate:ta | role_play\n"
        "  - {attack: many_shot, shots: 128}\n  - many_shot:128\n  - 'templates:*'\n  - 'persuasion:*'\n"
        "adaptive: [pair, gcg]\nfiles: {templates: t.csv, persuasion: p.jsonl}\n",
    )
    suite = load_suite(path)
    assert suite.adaptive == ("gcg", "pair")
    assert suite.files == {"templates": tmp_path / "t.csv", "persuasion": tmp_path / "p.jsonl"}
    names = [attack.name for attack in suite_attacks(suite)]
    assert names == [
        "direct", *PAPER, "base64", "translate:ta | role_play", "many_shot:128", "templates:1", "templates:2",
        "persuasion:time_pressure",
    ]  # fmt: skip


def test_rows_of_a_file_that_is_not_named_stay_as_one_attack_that_is_shown_as_not_run(tmp_path: Path) -> None:
    suite = load_suite(_suite(tmp_path, "name: mine\nattacks: ['templates:*', 'persuasion:*']\n"))
    assert [attack.name for attack in suite_attacks(suite)] == ["templates", "persuasion:any"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: mine\nattacks: [leetspek]\n", "leetspeak"),
        ("name: mine\nattacks: [{shots: 4}]\n", "key 'attack'"),
        ("name: mine\nattacks: [{attack: many_shot, shoots: 4}]\n", "no option 'shoots'"),
        ("name: mine\nattacks: [{attack: base64 | rot13, frame: bare}]\n", "behind its steps"),
        ("name: mine\nattacks: ['caesar:*']\n", "whole number|no file of rows"),
        ("name: mine\ninclude: [mine.yaml]\n", "includes itself"),
        ("name: mine\ninclude: [nowhere.yaml]\n", "no such suite"),
        ("name: mine\nattack: [base64]\n", "attack"),
        ("name: Mine!\n", "name"),
        ("name: mine\nadaptive: [gcgg]\n", "search 'gcgg'.*gcg"),
        ("name: mine\nadaptive: [best_of_n:m=3]\n", "no option 'm'"),
        ("- base64\n", "not a suite"),
        ("name: [\n", "not valid YAML"),
    ],
)
def test_a_broken_suite_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        suite_attacks(load_suite(_suite(tmp_path, text)))
