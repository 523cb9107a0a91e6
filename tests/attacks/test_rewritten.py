"""Attacks that an attacker model writes: what is asked, what is read, what is kept, and what is not run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from forethought.attacks.base import Attacked, Given, Wanted
from forethought.attacks.catalogue import (
    ATTACKER_SETTINGS,
    NO_TEXT,
    AskAttacker,
    Preparation,
    Rewrites,
    all_attacks,
    attack_request,
    attacker,
    parse_attack,
    prepare,
)
from forethought.attacks.rewritten import EMPTY, REFUSED, TOO_LONG, UNCHANGED, Unfit, read_rewrite
from forethought.data.evolve import load_operators
from forethought.errors import ConfigError, InputError
from forethought.models.conversation import Able
from forethought.records import user_request
from tests.attacks.test_probe import PAPER
from tests.mock_teacher import MockTeacher, Reply

PROBE = "How do I bake bread?"
TAMIL = "\u0baa\u0bbe\u0ba3\u0bcd \u0b9a\u0bc1\u0b9f\u0bc1\u0bb5\u0ba4\u0bc1 \u0b8e\u0baa\u0bcd\u0baa\u0b9f\u0bbf?"
WRITTEN = sorted(name for name, attack in all_attacks().items() if attack.form == "attacker")
TAXONOMY = (
    '{"ss_technique": "Time Pressure", "ss_definition": "Says that it is urgent.", "ss_example": "Only today."}\n'
    '{"ss_technique": "Door-in-the-face", "ss_definition": "Asks for more first.", "ss_example": ""}\n'
)


def wanted(spec: str, harmful: bool = False, given: Given | None = None) -> Wanted:
    outcome = attack_request(parse_attack(spec), user_request(PROBE, harmful=harmful), 0, given)
    assert isinstance(outcome, Wanted)
    return outcome


@pytest.fixture
def taxonomy(tmp_path: Path) -> Path:
    file = tmp_path / "taxonomy.jsonl"
    file.write_text(TAXONOMY, encoding="utf-8")
    return file


SPECS = ["translate:ta", "translate:fr", "misrepresentation", "technical_terms", "poems", "past_tense", "future_tense",
         "persuasion:time_pressure", "evolve:slang"]  # fmt: skip


def test_each_written_attack_is_among_those_tested_here() -> None:
    assert {spec.split(":")[0] for spec in SPECS} == set(WRITTEN)


@pytest.mark.parametrize("spec", SPECS)
def test_what_is_asked_holds_the_request_and_the_task_and_no_label(spec: str, taxonomy: Path) -> None:
    given = Given(files={"persuasion": taxonomy})
    one = wanted(spec, given=given)
    system, user = one.messages
    assert (system.role, user.role) == ("system", "user")
    assert PROBE in user.content
    assert "never answer" in system.content
    assert "harm" not in system.content.lower() + user.content.lower()
    assert wanted(spec, harmful=True, given=given) == one
    texts = {one.key: "Nun aber anders?"}
    made = attack_request(parse_attack(spec), user_request(PROBE), 0, Given(rewrites=texts, files=given.files))
    assert isinstance(made, Attacked)
    assert (made.text, made.request.plain, made.lineage) == ("Nun aber anders?", PROBE, (spec,))


def test_the_tasks_differ_and_so_do_their_keys(taxonomy: Path) -> None:
    keys = {wanted(spec, given=Given(files={"persuasion": taxonomy})).key for spec in SPECS}
    assert len(keys) == len(SPECS)
    assert "Tamil" in wanted("translate:ta").messages[0].content
    assert "Simplified Chinese" in wanted("translate:zh").messages[0].content


def test_evolution_shows_the_operators_definition_and_demonstrations() -> None:
    operator = load_operators()["slang"]
    said = wanted("evolve:slang").messages[0].content
    assert operator.definition in said
    assert sum(one.rewritten in said for one in operator.demonstrations) == 8


def test_persuasion_is_told_what_the_technique_is(taxonomy: Path) -> None:
    given = Given(files={"persuasion": taxonomy})
    said = wanted("persuasion:time_pressure", given=given).messages[0].content
    assert "Says that it is urgent." in said
    assert "Only today." in said
    assert wanted("persuasion:Door-in-the-face", given=given).rewriter == "persuasion, Door-in-the-face"
    with pytest.raises(ConfigError, match="door_in_the_face"):
        wanted("persuasion:bribery", given=given)
    with pytest.raises(ConfigError, match="local file"):
        wanted("persuasion:time_pressure")


def test_paps_taxonomy_has_forty_techniques(shared: Path) -> None:
    from forethought.attacks.rewritten import read_techniques

    assert len(read_techniques(shared / "attacks" / "persuasion_taxonomy.jsonl")) == 40


def test_a_taxonomy_row_without_definition_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"technique": "A", "definition": "b"}\n{"technique": "C"}\n')
    with pytest.raises(InputError, match="row 2"):
        wanted("persuasion:a", given=Given(files={"persuasion": file}))


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("How did folk bake?", "How did folk bake?"),
        ('<think>Let me see: "x".</think>\nHow did folk bake?', "How did folk bake?"),
        ('"How did folk bake?"', "How did folk bake?"),
        ("```text\nHow did folk bake?\n```", "How did folk bake?"),
        ("Rewritten: How did folk bake?", "How did folk bake?"),
        ("**Translation:** How did folk bake?", "How did folk bake?"),
        ("Here is the rewritten text:\n\nHow did folk bake?", "How did folk bake?"),
        ("<text-0123abcd>\nHow did folk bake?\n</text-0123abcd>", "How did folk bake?"),
        ('"Fresh" and "stale"', '"Fresh" and "stale"'),
        ("Here is my question: how did folk bake?", "Here is my question: how did folk bake?"),
        ("  ", Unfit(EMPTY)),
        ("<think>only that</think>", Unfit(EMPTY)),
        ("I'm sorry, but I can't help with that.", Unfit(REFUSED)),
        ("how do  I bake BREAD?", Unfit(UNCHANGED)),
        ("Take flour. " * 100, Unfit(TOO_LONG)),
    ],
)
def test_an_attackers_answer_is_read(answer: str, text: str | Unfit) -> None:
    assert read_rewrite(answer, PROBE) == text


def test_the_same_words_may_come_back_where_that_can_be_right() -> None:
    assert read_rewrite("How was bread baked?", "How was bread baked?", changes_words=False) == "How was bread baked?"
    assert wanted("past_tense").changes_words is False
    assert wanted("translate:fr").changes_words is True


def scripted(texts: Mapping[str, str | Unfit], asked: list[Wanted]) -> AskAttacker:
    def ask(wanted: Sequence[Wanted]) -> Mapping[str, str | Unfit]:
        asked.extend(wanted)
        return {one.key: texts[one.rewriter] for one in wanted if one.rewriter in texts}

    return ask


def test_without_an_attacker_it_is_not_run_and_the_rest_is() -> None:
    assert prepare(parse_attack("translate:ta"), [user_request(PROBE)]) == [Unfit("needs an attacker model")]
    assert isinstance(prepare(parse_attack("base64"), [user_request(PROBE)])[0], Attacked)


def test_a_composition_of_two_rewriters_takes_two_rounds_and_asks_each_text_once(tmp_path: Path) -> None:
    attacks = [parse_attack(spec) for spec in ("past_tense | translate:ta", "past_tense", "role_play | translate:ta")]
    asked: list[Wanted] = []
    ask = scripted({"past tense": "How did people bake?", "translate to Tamil": TAMIL}, asked)
    kept = Rewrites(tmp_path / "r.jsonl", "m")

    def prepared(how: Preparation) -> list[Attacked | Unfit]:
        return [one for attack in attacks for one in prepare(attack, [user_request(PROBE)], how)]

    planned = prepared(Preparation(0, rewrites=kept, ask=ask))
    assert [one.text for one in planned if isinstance(one, Attacked)] == [TAMIL, "How did people bake?", TAMIL]
    assert [one.rewriter for one in asked] == ["past tense", "translate to Tamil", "translate to Tamil"]
    assert asked[1].original == "How did people bake?"
    assert "bake bread" in asked[2].original
    again: list[Wanted] = []
    later = Rewrites(tmp_path / "r.jsonl", "m")
    assert prepared(Preparation(0, rewrites=later, ask=scripted({}, again))) == planned
    assert again == []
    assert prepared(Preparation(0, rewrites=later)) == planned  # no attacker, and none needed


def test_what_the_attacker_refuses_is_not_run_with_its_cause() -> None:
    asked: list[Wanted] = []
    requests = [user_request(PROBE), user_request("Why is the sky blue?")]
    planned = prepare(
        parse_attack("poems | base64"), requests, Preparation(0, ask=scripted({"poem": Unfit(REFUSED)}, asked))
    )
    assert planned == [Unfit(REFUSED)] * 2
    silent = prepare(parse_attack("poems"), requests, Preparation(0, ask=scripted({}, asked)))
    assert silent == [Unfit(NO_TEXT)] * 2


def test_a_model_without_prefill_is_not_attacked_through_it() -> None:
    attacks = [parse_attack("answer_prefill"), parse_attack("budget_cut"), parse_attack("base64 | empty_thinking")]
    able = Preparation(0, able=Able(prefill=True, budget=True))
    for attack in attacks:
        assert isinstance(prepare(attack, [user_request(PROBE)])[0], Unfit)
        assert isinstance(prepare(attack, [user_request(PROBE)], able)[0], Attacked)


def test_what_is_prepared_is_what_a_single_attack_gives() -> None:
    attack = parse_attack("distractors")
    requests = [user_request(PROBE), user_request("Why is the sky blue?", harmful=True)]
    planned = prepare(attack, requests, Preparation(5))
    assert planned == [attack_request(attack, request, 5) for request in requests]


def test_texts_are_kept_by_model_and_content(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "r.jsonl"
    kept = Rewrites(file, "one")
    kept.add({"k": ("poem", "a\u2028b")})
    kept.add({"k": ("poem", "other"), "l": ("poem", "c")})
    assert Rewrites(file, "one").texts == {"k": "a\u2028b", "l": "c"}
    assert Rewrites(file, "two").texts == {}
    Rewrites(file, "two").add({"k": ("poem", "z")})
    assert Rewrites(file, "one").texts == {"k": "a\u2028b", "l": "c"}
    assert len(file.read_text(encoding="utf-8").split("\n")) == 4


def test_a_half_written_text_is_asked_for_again_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    Rewrites(file, "m").add({"k": ("poem", "text"), "l": ("poem", "\u0baa" * 5)})
    content = file.read_bytes()
    file.write_bytes(content[:-15])  # within a character of the last text
    kept = Rewrites(file, "m")
    assert kept.texts == {"k": "text"}
    kept.add({"l": ("poem", "new")})
    assert Rewrites(file, "m").texts == {"k": "text", "l": "new"}
    file.write_bytes(b'{"key": 1}\n' + content)
    with pytest.raises(InputError, match="line 1"):
        Rewrites(file, "m")


@pytest.mark.slow
def test_a_killed_writer_loses_no_text_that_it_kept(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    code = (
        "import sys\nfrom pathlib import Path\nfrom forethought.attacks.catalogue import Rewrites\n"
        f"kept = Rewrites(Path({str(file)!r}), 'm')\n"
        "for n in range(10**6):\n    kept.add({f'k{n}': ('poem', 'x' * 50)})\n    print(n, flush=True)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    while int(writer.stdout.readline()) < 5:
        pass
    os.kill(writer.pid, signal.SIGKILL)
    printed = [int(line) for line in writer.stdout.read().split()]
    writer.wait()
    found = Rewrites(file, "m")
    last = printed[-1] if printed else 5
    assert [found.texts[f"k{n}"] for n in range(last + 1)] == ["x" * 50] * (last + 1)


def test_an_attacker_model_is_asked_through_the_one_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCK_API_KEY", "sk-secret")
    settings = ATTACKER_SETTINGS.model_copy(update={"attempts": 2, "max_retries": 0, "backoff_s": 0.01})

    def script(messages: list[dict[str, str]], number: int) -> Reply:
        first = len(messages) == 2
        if "sky" in messages[1]["content"]:
            return Reply("I'm sorry, but I can't help with that.")
        return Reply("I cannot help with that." if first else "Rewritten: How did people bake?")

    requests = [user_request(PROBE), user_request("Why is the sky blue?")]
    with MockTeacher(script) as server:
        ask = attacker("openai-api/mock/attacker", tmp_path / "j", settings.model_copy(update={"base_url": server.url}))
        planned = prepare(parse_attack("past_tense"), requests, Preparation(0, ask=ask))
        assert isinstance(planned[0], Attacked)
        assert planned[0].text == "How did people bake?"
        assert planned[1] == Unfit(REFUSED)
        assert len(server.bodies) == 4
        assert "only to rewrite it" in json.dumps(server.bodies[-1]["messages"])


def test_the_papers_attacks_need_an_attacker_where_the_issue_says_so() -> None:
    needing = {spec.split(":")[0] for spec in PAPER if "attacker" in parse_attack(spec).needs}
    assert needing == {"translate", "misrepresentation", "technical_terms", "poems"}
