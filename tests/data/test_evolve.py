"""Evolution: styles on both labels alike, the meaning kept, and the same rows for the same seed."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from forethought.data.dedupe import remove_duplicates
from forethought.data.evolve import RULES, Operator, evolve, load_operators, phrase, sentence
from forethought.data.shipped import shipped_requests
from forethought.data.sources import SourceSpec, load_requests
from forethought.errors import ConfigError
from forethought.evals.attacks.static import attack_names
from forethought.records import Request, user_request

OPERATORS = load_operators()
PAPER = {"slang", "uncommon_dialect", "role_play", "evidence_persuasion", "logical_appeal", "expert_endorsement"}
PAIRS = shipped_requests("contrast", "train")


def _operator(template: str, **fields: object) -> Operator:
    return Operator.model_validate(
        {"name": "own", "kind": "contextual", "definition": "x", "templates": (template,), **fields}
    )


def test_the_papers_six_styles_are_there_and_dozens_more() -> None:
    assert {name for name, operator in OPERATORS.items() if operator.paper} == PAPER
    assert len(OPERATORS) >= 24


def test_the_tested_attacks_are_never_among_the_operators() -> None:
    assert not set(attack_names()) & set(OPERATORS)


@pytest.mark.parametrize("name", list(OPERATORS))
def test_an_operator_keeps_what_is_asked(name: str) -> None:
    request = user_request("How do I tie a bowline on a boat?", harmful=False, family="ropes")
    operator = OPERATORS[name]
    for draw in range(8):
        restyled = operator.apply(request, random.Random(draw))
        assert restyled.plain == request.text
        assert restyled.operator == name
        assert (restyled.harmful, restyled.family) == (False, "ropes")
        assert "{request}" not in restyled.text
        assert "{phrase}" not in restyled.text
        if operator.rule is None:
            assert "ow do I tie a bowline on a boat" in restyled.text


@pytest.mark.parametrize("name", list(OPERATORS))
@pytest.mark.parametrize("odd", ["What do {braces}, {0} and {phrase} or {request} mean?", r"Is \1 \g<0> a group?"])
def test_braces_and_backslashes_in_a_request_are_only_text(name: str, odd: str) -> None:
    request = user_request(odd)
    operator = OPERATORS[name]
    for template in operator.templates:
        one = operator.model_copy(update={"templates": (template,)})
        restyled = one.apply(request, random.Random(0)).text
        if operator.rule is None:
            assert restyled.count(phrase(odd)) + restyled.count(sentence(odd)) >= 1
            assert len(restyled) <= len(template) + len(odd) + 1


def test_rules_leave_the_request_readable() -> None:
    text = "How do I explain to you and your friend because of the house?"
    for name, rule in RULES.items():
        changed = rule(text, random.Random(1))
        assert changed
        assert len(changed.split()) >= len(text.split()) - 3, name


def test_evolution_is_deterministic() -> None:
    once = evolve(PAIRS[:60], OPERATORS, 1.5, 0.6, seed=3)
    assert once == evolve(PAIRS[:60], OPERATORS, 1.5, 0.6, seed=3)
    assert once != evolve(PAIRS[:60], OPERATORS, 1.5, 0.6, seed=4)


def test_trap_12_nothing_is_drawn_without_the_seed() -> None:
    """The published code sampled without one: the global source is neither read nor moved."""
    random.seed(1)
    before = random.getstate()
    once = evolve(PAIRS[:20], OPERATORS, 2, 0.6, seed=0)
    assert random.getstate() == before
    random.seed(2)
    assert evolve(PAIRS[:20], OPERATORS, 2, 0.6, seed=0) == once


def test_other_requests_change_no_row() -> None:
    alone = evolve(PAIRS[10:12], OPERATORS, 1.5, 0.6, seed=0)
    among = evolve(PAIRS[:40], OPERATORS, 1.5, 0.6, seed=0)
    assert [row for row in among if row.seed_id in {r.seed_id for r in alone}] == alone


def test_trap_10_harmless_rows_are_styled_as_often_as_harmful_ones() -> None:
    """The published code left them plain, so that a style itself became a reason to refuse."""
    rows = evolve(PAIRS, OPERATORS, 1.0, 0.6, seed=0)
    styled = {label: Counter(row.operator for row in rows if row.harmful is label) for label in (True, False)}
    assert styled[True] == styled[False]
    assert 0.5 < 1 - styled[False][None] / styled[False].total() < 0.7
    assert set(styled[False]) - {None} == set(OPERATORS)


@pytest.mark.parametrize("harmless_rows", [1.0, 1.5, 2.0])
def test_twins_wear_the_same_disguise(harmless_rows: float) -> None:
    """Style and template alike, also where a rule changes their words and harmless rows are more."""
    harmful = evolve([r for r in PAIRS if r.harmful], OPERATORS, 1.0, 0.6, seed=0)
    harmless = evolve([r for r in PAIRS if not r.harmful], OPERATORS, harmless_rows, 0.6, seed=0)
    first: dict[tuple[str, str], Request] = {}
    for row in harmless:
        first.setdefault((row.twin, row.seed_id), row)
    by_twin = {twin: row for (twin, _), row in first.items()}
    for row in harmful:
        assert by_twin[row.twin].operator == row.operator


def test_twins_share_the_template() -> None:
    told = _operator("one: {phrase}", templates=tuple(f"{n}: {{phrase}}" for n in range(50)), rule="slang")
    harmful = user_request("How do I get you and your people into the house?", harmful=True, twin="t")
    harmless = user_request("How do I paint it?", harmful=False, twin="t")
    rows = evolve([harmful, harmless], {"own": told}, 1, 1.0, seed=0)
    assert len({row.text.split(":")[0] for row in rows}) == 1


def test_rows_per_seed_and_styled_share_are_kept() -> None:
    assert all(row.operator is None for row in evolve(PAIRS, OPERATORS, 1, 0.0, seed=0))
    assert all(row.operator is not None for row in evolve(PAIRS, OPERATORS, 1, 1.0, seed=0))
    three = evolve(PAIRS[:1], OPERATORS, 3, 0.0, seed=0)
    assert len({row.operator for row in three}) == 3
    half = len(evolve(PAIRS, OPERATORS, 1.5, 0.5, seed=0)) / len(PAIRS)
    assert 1.4 < half < 1.6


def test_without_operators_requests_pass_as_they_are() -> None:
    assert evolve(PAIRS[:5], {}, 2, 0.9, seed=0) == PAIRS[:5]


def test_a_users_operator_joins_and_replaces(tmp_path: Path) -> None:
    head = "kind: contextual\ndefinition: x\ntemplates: ['{request} Ahoy.']\n"
    (tmp_path / "a.yaml").write_text("name: pirate\n" + head)
    (tmp_path / "slang.yaml").write_text("name: slang\n" + head)
    operators = load_operators(tmp_path)
    assert set(operators) == {*OPERATORS, "pirate"}
    request = user_request("How do I tie a knot?")
    for name in ("pirate", "slang"):
        assert operators[name].apply(request, random.Random(0)).text == "How do I tie a knot? Ahoy."
    assert list(load_operators(tmp_path, ["pirate", "formal"])) == ["pirate", "formal"]


def test_an_unknown_operator_names_those_that_exist() -> None:
    with pytest.raises(ConfigError, match="no such operator") as caught:
        load_operators(None, ["slang", "nope"])
    assert "nope" in str(caught.value.value)
    assert "role_play" in caught.value.fix


def test_a_missing_operator_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such operator folder"):
        load_operators(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: [", "YAML"),
        ("", "mapping|dictionary|instance"),
        ("name: pirate\nkind: odd\ndefinition: x\n", "kind"),
        ("name: pirate\nkind: contextual\n", "definition"),
        ("name: Pirate!\nkind: contextual\ndefinition: x\n", "name"),
        ("name: pirate\nkind: contextual\ndefinition: x\nmood: y\n", "mood"),
        ("name: pirate\nkind: contextual\ndefinition: x\ntemplates: ['no place']\n", "exactly one of"),
        ("name: pirate\nkind: contextual\ndefinition: x\ntemplates: ['{request} {phrase}']\n", "exactly one of"),
        ("name: pirate\nkind: contextual\ndefinition: x\nrule: magic\n", "'magic' is unknown; use one of slang"),
    ],
)
def test_a_broken_operator_file_is_named_with_its_fault(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_operators(tmp_path)
    assert "mine.yaml" in str(caught.value.value)
    assert caught.value.fix
    if told != "YAML":
        assert any(word in caught.value.rule for word in told.split("|"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How do I tie it?", "how do I tie it"),
        ("I need a knot.", "I need a knot"),
        ("NASA ropes?!", "NASA ropes"),
        ("", ""),
    ],
)
def test_a_phrase_has_no_end_mark_and_no_capital_of_its_own(text: str, expected: str) -> None:
    assert phrase(text) == expected


def test_a_sentence_has_one_end_mark() -> None:
    assert sentence("Tie it") == "Tie it."
    assert sentence(" Tie it! ") == "Tie it!"


def _demonstrations() -> list[Request]:
    return [
        user_request(text)
        for operator in OPERATORS.values()
        for shown in operator.demonstrations
        for text in (shown.request, shown.rewritten)
    ]


def test_trap_8_demonstrations_are_near_no_shipped_test_request() -> None:
    """The published code drew the demonstrations and the test prompts from one benchmark."""
    held_out = [*shipped_requests("contrast", "test"), *shipped_requests("ordinary", "test")]
    assert len(_demonstrations()) >= 2 * len(PAPER)
    assert not remove_duplicates(_demonstrations(), against=held_out)[1].keys() - {"near an earlier request of the set"}


def test_trap_8_demonstrations_are_near_no_benchmark(shared: Path) -> None:
    tested = [
        request
        for name in ("harmful/malicious_instruct.txt", "harmful/harmbench_val.csv", "over_refusal/xstest.csv")
        for request in load_requests(SourceSpec(path=str(shared / name)), None)
    ]
    # At .7 the sketches of five-word questions that share an opening meet by chance.
    causes = remove_duplicates(_demonstrations(), against=tested, threshold=0.85)[1]
    assert not [cause for cause in causes if cause.startswith("near an evaluation")]
