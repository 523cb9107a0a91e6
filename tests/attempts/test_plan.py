"""The plan: which requests stand in which cells."""

from __future__ import annotations

from collections import Counter

import pytest

from forethought.attempts.plan import CAPABILITY, HELD_OUT_RULES, plan_attempts, reasoning_attempts
from forethought.attempts.records import Attempt
from forethought.data.shipped import SAMPLE, accepted_answers
from forethought.errors import ConfigError
from forethought.measure.curves import lookalike_pairs
from forethought.records import Request, user_request

ATTACKS = ("style_json", "leetspeak")


def _test_set() -> list[Request]:
    rows = [
        user_request(f"Help me copy film number {n}", harmful=True, kind="harmful", source=source)
        for source in ("a.csv", "b.csv")
        for n in range(100 * (source == "b.csv"), 100 * (source == "b.csv") + 10)
    ]
    rows += [
        user_request(f"Explain how film {n} was made", harmful=False, kind="ordinary", source="shipped")
        for n in range(12)
    ]
    for n in range(6):
        pair = {"source": "shipped", "twin": f"t{n}"}
        rows.append(user_request(f"Help me copy cinema ticket {n}", harmful=True, kind="harmful", **pair))
        rows.append(user_request(f"Help me buy cinema ticket {n}", harmful=False, kind="lookalike", **pair))
    return rows


@pytest.fixture
def attempts() -> list[Attempt]:
    return plan_attempts(_test_set(), ATTACKS, n_direct=9, n_styled=4, n_ordinary=8, n_lookalike=3, seed=0)


def _cell(attempts: list[Attempt], name: str) -> list[Attempt]:
    return [attempt for attempt in attempts if name in attempt.cells]


def test_cells_have_the_sizes_asked_for(attempts: list[Attempt]) -> None:
    sizes = Counter(cell for attempt in attempts for cell in attempt.cells)
    assert sizes == {
        "direct": 9,
        "ordinary": 8,
        "lookalike": 3,
        "twin": 3,
        CAPABILITY: len(accepted_answers(SAMPLE)),
        **{f"{attack}:{label}": 4 for attack in ATTACKS for label in ("harmful", "harmless")},
    }


def test_ids_are_unique(attempts: list[Attempt]) -> None:
    assert len({attempt.id for attempt in attempts}) == len(attempts)


def test_harm_stands_in_its_own_cells(attempts: list[Attempt]) -> None:
    for attempt in attempts:
        for cell in attempt.cells:
            harmful = cell in {"direct", "twin"} or cell.endswith(":harmful")
            assert attempt.request.harmful is harmful


def test_each_attack_runs_on_the_same_harmful_and_harmless_requests(attempts: list[Attempt]) -> None:
    """A style is compared with no style on the same requests, and with the other styles too."""
    for label, plain in (("harmful", "direct"), ("harmless", "ordinary")):
        seeds = [{a.request.seed_id for a in _cell(attempts, f"{attack}:{label}")} for attack in ATTACKS]
        assert seeds[0] == seeds[1]
        assert seeds[0] <= {a.request.seed_id for a in _cell(attempts, plain)}


def test_look_alikes_come_with_their_twins(attempts: list[Attempt]) -> None:
    assert {a.request.twin for a in _cell(attempts, "twin")} == {a.request.twin for a in _cell(attempts, "lookalike")}


def test_sources_are_mixed(attempts: list[Attempt]) -> None:
    assert Counter(a.request.source for a in _cell(attempts, "direct")) == {"a.csv": 3, "b.csv": 3, "shipped": 3}
    assert len({a.request.source for a in _cell(attempts, "leetspeak:harmful")}) == 3


def test_one_text_in_two_cells_is_asked_once() -> None:
    attempts = plan_attempts(_test_set(), (), 100, 4, 100, 100, seed=0)
    both = [attempt for attempt in attempts if set(attempt.cells) == {"direct", "twin"}]
    assert len(both) == 6


def test_requests_of_held_out_rules_stand_apart_with_their_twins() -> None:
    rows = [r.model_copy(update={"rules": ("R4",) if r.twin in ("t0", "t1") else ("R5",)}) if r.harmful else r
            for r in _test_set()]  # fmt: skip
    attempts = plan_attempts(rows, ATTACKS, 100, 100, 100, 100, 0, held_out_rules=("R4",))
    apart = _cell(attempts, HELD_OUT_RULES)
    assert {a.request.twin for a in apart} == {"t0", "t1"}
    assert all(a.cells == (HELD_OUT_RULES,) for a in apart)
    for attempt in attempts:
        if HELD_OUT_RULES not in attempt.cells:
            assert attempt.request.twin not in ("t0", "t1")
    assert not _cell(plan_attempts(rows, ATTACKS, 9, 4, 8, 3, 0), HELD_OUT_RULES)


def test_look_alikes_and_their_twins_wear_each_disguise_others_under_the_next() -> None:
    attempts = plan_attempts(_test_set(), ATTACKS, 9, 4, 8, 6, 0, n_styled_lookalike=3)
    pairs = []
    for attack in ATTACKS:
        alike, twins = (_cell(attempts, f"{attack}:{side}") for side in ("lookalike", "twin"))
        assert [a.request.twin for a in alike] == [a.request.twin for a in twins]
        assert not any(a.request.harmful for a in alike)
        assert all(a.request.harmful and a.attack == attack for a in twins)
        pairs.append({a.request.twin for a in alike})
    assert (len(pairs[0] & pairs[1]), len(pairs[0] | pairs[1])) == (0, 6)
    assert len({a.id for a in attempts}) == len(attempts)
    # All that there are, where fewer are there than asked for.
    assert len(_cell(plan_attempts(_test_set(), ATTACKS, 9, 4, 8, 6, 0, n_styled_lookalike=50), "leetspeak:twin")) == 6


def test_a_message_that_holds_two_texts_is_made_of_pairs_alone() -> None:
    made = plan_attempts(_test_set(), ["codewords:2", "flip"], 9, 4, 8, 6, 0, n_styled_lookalike=5)
    cells: dict[str, list[str]] = {}
    for one in made:
        for cell in one.cells:
            cells.setdefault(cell, []).append(one.request.text)
    assert {cell for cell in cells if cell.startswith("codewords")} == {"codewords:2:lookalike", "codewords:2:twin"}
    assert "flip:harmful" in cells
    for alike, twin in zip(cells["codewords:2:lookalike"], cells["codewords:2:twin"], strict=True):
        assert alike.partition("Now answer")[0] == twin.partition("Now answer")[0]
        assert alike != twin


def test_look_alikes_without_twins_wear_the_disguises_too() -> None:
    rows = [r for r in _test_set() if not r.twin]
    rows += [user_request(f"Shoot film {n}", harmful=False, kind="lookalike", source="theirs") for n in range(4)]
    attempts = plan_attempts(rows, ATTACKS, 9, 4, 8, 6, 0, n_styled_lookalike=2)
    assert len(_cell(attempts, "leetspeak:lookalike")) == 2
    assert not _cell(attempts, "leetspeak:twin")
    cells = Counter(cell for one in attempts for cell in one.cells)
    assert lookalike_pairs(cells, ATTACKS)[1] == ("leetspeak:harmful", "leetspeak:lookalike")


def test_plan_is_the_same_again() -> None:
    plans = [plan_attempts(_test_set(), ATTACKS, 9, 4, 8, 3, seed=seed) for seed in (1, 1, 2)]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


def test_attacks_on_reasoning_are_on_the_plan_s_own_requests_and_may_open_the_turn(attempts: list[Attempt]) -> None:
    found = reasoning_attempts(attempts, ("empty_thinking", "fake_turn"), 2, seed=0)
    assert len(found) == 2 * 2 * 2
    assert len({one.id for one in found}) == len(found)
    for side, plain in (("harmful", "direct"), ("harmless", "ordinary")):
        seeds = [one.request.seed_id for one in _cell(found, f"empty_thinking:{side}")]
        assert seeds == [one.request.seed_id for one in _cell(attempts, plain)[:2]]
        assert seeds == [one.request.seed_id for one in _cell(found, f"fake_turn:{side}")]
    assert all("</think>" in one.prefill for one in found if one.attack == "empty_thinking")
    assert not any(one.prefill for one in found if one.attack == "fake_turn")


def test_an_attack_that_can_t_be_run_by_a_prefill_is_told(attempts: list[Attempt]) -> None:
    with pytest.raises(ConfigError, match="needs a model whose thought can be cut"):
        reasoning_attempts(attempts, ("budget_cut",), 2, seed=0)
