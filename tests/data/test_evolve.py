"""Evolution: styles on both labels alike, the meaning kept, and the same rows for the same seed."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from pathlib import Path

import pytest

from forethought.attacks.catalogue import BY_RULE
from forethought.cli.data import operators
from forethought.data import evolve as evolve_module
from forethought.data.dedupe import contaminated, remove_duplicates
from forethought.data.evolve import (
    RULES,
    SHIPPED,
    Operator,
    apply_style,
    draw_styles,
    load_operators,
    operator_table,
    phrase,
    sentence,
)
from forethought.data.shipped import shipped_requests
from forethought.data.sources import SourceSpec, load_requests
from forethought.errors import ConfigError
from forethought.language import UNKNOWN, language_of
from forethought.records import Request, user_request
from forethought.yamlfile import shipped_texts
from tests.data.styles import evolve

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
    assert not set(BY_RULE) & set(OPERATORS)


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


@pytest.mark.parametrize("odd", ["What do {braces}, {0} and {phrase} or {request} mean?", r"Is \1 \g<0> a group?"])
def test_braces_and_backslashes_in_a_request_are_only_text(odd: str) -> None:
    request = user_request(odd)
    for operator in OPERATORS.values():
        for template in operator.templates:
            one = operator.model_copy(update={"templates": (template,)})
            restyled = one.apply(request, random.Random(0)).text
            if operator.rule is None:
                assert restyled.count(phrase(odd)) + restyled.count(sentence(odd)) >= 1, template
                assert len(restyled) <= len(template) + len(odd) + 1, template


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
        ("", "is not a style"),
        ("name: pirate\nkind: odd\ndefinition: x\n", "kind"),
        ("name: pirate\nkind: contextual\n", "definition"),
        ("name: Pirate!\nkind: contextual\ndefinition: x\n", "name"),
        ("name: pirate\nkind: contextual\ndefinition: x\nmood: y\n", "mood"),
        ("name: pirate\nkind: contextual\ndefinition: x\ntemplates: ['no place']\n", "exactly one of"),
        ("name: pirate\nkind: contextual\ndefinition: x\ntemplates: ['{request} {phrase}']\n", "exactly one of"),
        ("name: pirate\nkind: contextual\ndefinition: x\ntemplates: []\n", "templates is empty"),
        ("name: pirate\nkind: contextual\ndefinition: x\nmax_words: 0\n", "max_words"),
        ("name: pirate\nkind: contextual\ndefinition: x\napplies_to: nobody\n", "applies_to"),
        ("name: pirate\nkind: contextual\ndefinition: x\ndemonstrations: [{request: x}]\n", "rewritten"),
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
        assert any(word in str(caught.value) for word in told.split("|"))


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
    assert not any(contaminated(_demonstrations(), tested, threshold=0.85))


def _numbered() -> list[Request]:
    """Two hundred English requests, the first forty of them twins."""
    return [
        user_request(
            f"How do I sort list number {n} for my friend?", harmful=n % 2 == 0, twin=f"t{n // 2}" if n < 40 else ""
        )
        for n in range(200)
    ]


@pytest.mark.parametrize(
    ("rows_per_seed", "styled_share", "seed", "expected"),
    [(1, 0.6, 0, "c81d0ab3197c7bbb"), (1.5, 0.6, 0, "3dcaa1f6b5dafa6f"), (3, 0.9, 7, "e684951e63d42e3f")],
)
def test_the_draw_is_the_one_that_the_committed_results_rest_on(
    rows_per_seed: float, styled_share: float, seed: int, expected: str
) -> None:
    """Taken before operators had languages and bounds. A change here means that the quickstart is measured again."""
    rows = evolve(_numbered(), OPERATORS, rows_per_seed, styled_share, seed)
    said = "\n".join(f"{row.operator}\t{row.text}" for row in rows)
    assert hashlib.sha256(said.encode()).hexdigest()[:16] == expected


def test_demonstrations_change_no_row() -> None:
    bare = {name: operator.model_copy(update={"demonstrations": ()}) for name, operator in OPERATORS.items()}
    assert evolve(PAIRS[:60], bare, 1.5, 0.6, seed=0) == evolve(PAIRS[:60], OPERATORS, 1.5, 0.6, seed=0)


def test_the_draw_alone_is_what_evolution_applies() -> None:
    drawn = draw_styles(PAIRS[:60], OPERATORS, 1.5, 0.6, seed=0)
    rows = evolve(PAIRS[:60], OPERATORS, 1.5, 0.6, seed=0)
    assert [(request.text, name) for request, name in drawn] == [(row.plain, row.operator) for row in rows]
    assert all(request.operator is None for request, _ in drawn)
    assert [request if name is None else apply_style(request, OPERATORS[name], 0) for request, name in drawn] == rows


def _conversation(text: str) -> Request:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    return Request.model_validate({"messages": [*turns, {"role": "user", "content": text}]})


@pytest.mark.parametrize(
    ("fields", "request_", "language", "expected"),
    [
        ({}, user_request("How do I knot it?"), "en", True),
        ({}, user_request("Wie knote ich das?"), "de", False),
        ({"languages": ("de", "nl")}, user_request("Wie knote ich das?"), "de", True),
        ({"languages": ("de", "nl")}, user_request("How do I knot it?"), "en", False),
        ({"languages": ("all",)}, user_request("???"), "und", True),
        ({"max_words": 5}, user_request("How do I knot it?"), "en", True),
        ({"max_words": 4}, user_request("How do I knot it?"), "en", False),
        ({"applies_to": "harmful"}, user_request("x", harmful=True), "en", True),
        ({"applies_to": "harmful"}, user_request("x", harmful=False), "en", False),
        ({"applies_to": "harmless"}, user_request("x", harmful=False), "en", True),
        ({"applies_to": "harmless"}, user_request("x"), "en", False),
        ({"multi_turn": False}, user_request("x"), "en", True),
        ({"multi_turn": False}, _conversation("x"), "en", False),
        ({}, _conversation("x"), "en", True),
    ],
)
def test_an_operator_says_where_it_applies(
    fields: dict[str, object], request_: Request, language: str, expected: bool
) -> None:
    assert _operator("{request} Ahoy.", **fields).applies(request_, language) is expected


def test_a_system_turn_makes_no_conversation() -> None:
    request = Request.model_validate(
        {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "x"}]}
    )
    assert _operator("{request} Ahoy.", multi_turn=False).applies(request, "en")


def test_only_operators_that_apply_are_drawn() -> None:
    short = _operator("{request} Ahoy.", max_words=3).model_copy(update={"name": "short"})
    both = {"own": _operator("{request} Ho."), "short": short}
    long, brief = user_request("How do I tie this knot on board?"), user_request("Tie a knot.")
    rows = evolve([long, brief], both, 2, 1.0, seed=0)
    assert Counter((row.plain, row.operator) for row in rows) == Counter(
        {(long.text, "own"): 1, (brief.text, "own"): 1, (brief.text, "short"): 1}
    )
    assert evolve([long], {"short": short}, 2, 1.0, seed=0) == [long]


@pytest.mark.parametrize(
    "text",
    ["Wie binde ich einen Palstek auf einem Boot?", "如何在船上打单套结", "Как испечь ржаной хлеб дома?"],
)
def test_requests_in_other_languages_keep_their_words(text: str) -> None:
    """English templates and word rules leave them alone; styles that know no language still apply."""
    rows = evolve([user_request(text)], OPERATORS, len(OPERATORS), 1.0, seed=0)
    anywhere = {name for name, operator in OPERATORS.items() if "all" in operator.languages}
    assert {row.operator for row in rows} == anywhere
    for row in rows:
        plain = row.text.lower() if row.operator == "capitals" else row.text
        assert all(word in plain.lower() for word in text.lower().rstrip("?").split())


def test_all_shipped_operators_apply_to_english_requests() -> None:
    """A bound or a language that left some out would change what the quickstart trains on."""
    for request in [*PAIRS, *shipped_requests("ordinary")]:
        language = language_of(request.text)
        assert all(operator.applies(request, language) for operator in OPERATORS.values()), (language, request.text)


@pytest.mark.parametrize("apart", [False, True])
def test_twins_share_the_style_although_one_of_them_is_too_long(apart: bool) -> None:
    operators = {
        f"o{n}": _operator("{request} Ahoy.", max_words=4 if n % 2 else None).model_copy(update={"name": f"o{n}"})
        for n in range(20)
    }
    harmful = [user_request(f"Break thing {n}.", harmful=True, twin=f"t{n}") for n in range(30)]
    harmless = [user_request(f"How do I mend thing {n} again?", harmful=False, twin=f"t{n}") for n in range(30)]
    if apart:
        rows = evolve(harmful, operators, 1, 1.0, 0, beside=harmless)
        rows += evolve(harmless, operators, 1, 1.0, 0, beside=harmful)
    else:
        rows = evolve([*harmful, *harmless], operators, 1, 1.0, 0)
    styles: dict[str, set[str | None]] = {}
    for row in rows:
        styles.setdefault(row.twin, set()).add(row.operator)
    assert all(len(names) == 1 for names in styles.values())
    assert {name for names in styles.values() for name in names} <= {f"o{n}" for n in range(0, 20, 2)}


@pytest.mark.parametrize("rule", ["slang", "dialect", "texting"])
def test_rules_of_english_words_take_no_other_language(tmp_path: Path, rule: str) -> None:
    head = f"name: own\nkind: linguistic\ndefinition: x\nrule: {rule}\n"
    (tmp_path / "own.yaml").write_text(head + "languages: [all]\n")
    with pytest.raises(ConfigError, match="replaces English words"):
        load_operators(tmp_path)
    (tmp_path / "own.yaml").write_text(head)
    assert load_operators(tmp_path)["own"].languages == ("en",)


def test_the_listing_has_a_row_for_each_operator() -> None:
    rows = operator_table(load_operators(None, ["slang", "capitals"]))
    assert [row[:5] for row in rows] == [
        ("slang", "linguistic", "paper", "en", str(len(OPERATORS["slang"].demonstrations))),
        ("capitals", "linguistic", "", "all", "3"),
    ]
    assert rows[1][5] == "HOW DO I REPOT A FERN?"
    assert all("\n" not in cell for row in operator_table(OPERATORS) for cell in row)


def test_the_documented_operator_works(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "operators.md").read_text(encoding="utf-8")
    (tmp_path / "postcard.yaml").write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    postcard = load_operators(tmp_path)["postcard"]
    assert len(postcard.demonstrations) == 2
    assert all(f"`{field}`" in page for field in Operator.model_fields if field != "paper")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Wie binde ich einen Knoten?", "de"),
        ("Comment cuire du riz ?", "fr"),
        ("¿Cómo hago pan?", "es"),
        ("Como faço pão?", "pt"),
        ("Come si fa il pane?", "it"),
        ("Hoe bak ik brood?", "nl"),
        ("Jak upéct chleba?", "cs"),
        ("Evde ekmek yapmak için ne gerekir?", "tr"),
        ("Jinsi ya kutengeneza mkate?", "sw"),
        ("Làm bánh mì như thế nào", "vi"),
        ("Как испечь хлеб", "ru"),
        ("रोटी कैसे बनाएं", "hi"),
        ("ரொட்டி செய்வது எப்படி", "ta"),
        ("റൊട്ടി എങ്ങനെ ഉണ്ടാക്കാം", "ml"),
        ("私はどうやってパンを焼きますか", "ja"),
    ],
)
def test_other_languages_are_seen_in_a_few_words(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    "text",
    [
        "hi",
        "how do i skim stones on a lake?",
        "Describe a mojito cocktail.",
        "Calculate 5 x 3.",
        "When was Angela Merkel born?",
        "Monet or Picasso in 1910?",
        "omg men",
        "",
        "12 + 7 = ?",
        "def f(x): return x",
        "hola",
    ],
)
def test_short_or_doubtful_text_in_latin_script_counts_as_english(text: str) -> None:
    assert language_of(text) == "en"


def test_doubt_in_another_script_is_not_english() -> None:
    assert language_of("ꙮ") == UNKNOWN
    assert language_of("ᏣᎳᎩ") != "en"


def test_nigerian_pidgin_counts_as_english() -> None:
    """Its words are English ones; a short English question with a name in it looks like it."""
    assert language_of("Wetin be di better way to cook jollof rice for plenty pesin?") == "en"


def test_a_foreign_word_or_name_in_an_english_request_changes_nothing() -> None:
    assert language_of("What does the German word 'Fernweh' mean, and how do I use it?") == "en"
    assert language_of("How do I cook coq au vin with Pommes dauphine?") == "en"


def test_shipped_requests_are_english_also_in_every_style() -> None:
    requests = [*shipped_requests("contrast"), *shipped_requests("ordinary")]
    assert [request.text for request in requests if language_of(request.text) != "en"] == []
    styled = evolve(requests[::7], load_operators(), 3, 1.0, seed=0)
    assert sum(language_of(row.text) != "en" for row in styled) <= 0.02 * len(styled)


def test_public_english_sets_are_english(shared: Path) -> None:
    for name in ("harmful/advbench.csv", "harmful/dangerousqa.json", "over_refusal/xstest.csv"):
        texts = [request.text for request in load_requests(SourceSpec(path=str(shared / name)), None)]
        assert sum(language_of(text) != "en" for text in texts) == 0


def test_a_new_file_is_an_operator_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("slang", "formal"):
        (tmp_path / f"{name}.yaml").write_text(shipped_texts(SHIPPED)[name])
    own = "name: postcard\nkind: contextual\ndefinition: The request on a postcard.\ntemplates: ['Ahoy! {request}']\n"
    (tmp_path / "postcard.yaml").write_text(own)
    monkeypatch.setattr(evolve_module, "SHIPPED", str(tmp_path))
    assert list(load_operators()) == ["formal", "postcard", "slang"]
    operators(None)
    assert "postcard" in capsys.readouterr().out
