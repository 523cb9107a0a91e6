"""A look inside, on a model whose verdicts are known: swaps, failures, what thoughts add, and who is asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from forethought.data.evolve import load_operators
from forethought.errors import InputError, ModelError
from forethought.metrics import Figure
from forethought.records import Request, user_request
from forethought.research.inside.look import NEAR, added_figures, failure_figures, others, run_kinds, similarity, tables
from forethought.research.inside.thoughts import (
    Asked,
    Sample,
    Thought,
    cells,
    draw,
    own_split,
    own_thoughts,
    plan_swaps,
    run_swaps,
    shipped_split,
    swap_figures,
    up_to_verdict,
    verdicts,
    with_intent,
)
from tests.research.thinking import Odds, Thinking, by_intent, by_request


def _model(odds: Odds, **more: Any) -> Any:
    return Thinking(odds, **more)


def _requests(n: int = 6) -> list[Request]:
    rows = []
    for number in range(n):
        rows.append(user_request(f"Pick lock number {number}", harmful=True, kind="harmful", family=f"bad {number}"))
        rows.append(user_request(f"Bake loaf number {number}", harmful=False, kind="ordinary", family=f"good {number}"))
    return rows


def _asked(requests: Sequence[Request], style: str = "direct") -> list[Asked]:
    return [Asked(style=style, request=one) for one in requests]


def _named(figures: Sequence[Figure]) -> dict[str, Figure]:
    assert len({one.name for one in figures}) == len(figures)
    return {one.name: one for one in figures}


# Thoughts.


def test_a_thought_is_cut_before_its_verdict_and_its_intent_is_read() -> None:
    told: list[int] = []
    lost = user_request("This breaks down", harmful=True)
    first, second = own_thoughts(_model(by_intent), _asked([_requests()[0], lost]), told.append)
    assert (first.before, first.intent, first.log_odds) == ("Intent: Pick lock number 0.", "Pick lock number 0", 2.0)
    assert (second.before, second.log_odds, second.cause) == ("", None, "broke down")
    assert told == [1, 1]


@pytest.mark.parametrize(
    ("fmt", "before", "expected"),
    [
        ("think", "Intent: bake.", "<think>\nIntent: bake.\nVerdict:"),
        ("think", "", "<think>\nVerdict:"),
        ("paper", "Intent: bake.", "# Verify the request\nIntent: bake.\nVerdict:"),
    ],
)
def test_a_prefill_ends_at_the_anchor(fmt: Any, before: str, expected: str) -> None:
    assert up_to_verdict(before, fmt) == expected


def test_an_intent_is_replaced_in_its_line_alone() -> None:
    before = "Intent: pick a lock.\nR4 Fraud: yes, it cheats. Intent matters."
    assert with_intent(before, "bake bread") == "Intent: bake bread.\nR4 Fraud: yes, it cheats. Intent matters."
    assert with_intent("Something else.", "bake bread") is None
    assert with_intent(before, r"say \1 and \g<0>") == before.replace("pick a lock", r"say \1 and \g<0>")


def test_no_thought_is_put_in_where_there_is_none_and_a_lost_reply_has_no_verdict() -> None:
    model = _model(by_intent)
    rows = [*_requests(1), user_request("This breaks down", harmful=True)]
    assert verdicts(model, rows, ["Intent: pick a lock.", None, ""]) == [2.0, None, None]
    assert [one.prefill for one in model.asked] == ["<think>\nIntent: pick a lock.\nVerdict:", "<think>\nVerdict:"]


def test_a_model_that_does_not_think_is_an_error() -> None:
    model = _model(by_intent)
    model.thinking = None
    with pytest.raises(ModelError, match="does not think"):
        own_thoughts(model, [])


# Swaps.


def _swapped(odds: Odds) -> dict[str, Figure]:
    model = _model(odds)
    thoughts = own_thoughts(model, _asked(_requests()))
    return _named(swap_figures(run_swaps(model, plan_swaps(thoughts, 0.0), None), 0.0))


def test_a_verdict_that_follows_the_intent_goes_over_both_ways_and_stays_in_the_control() -> None:
    found = _swapped(by_intent)
    assert [found[f"inside_follow_to_{side}"].value for side in ("harmful", "harmless")] == [1.0, 1.0]
    assert (found["inside_shift_to_harmful"].value, found["inside_shift_to_harmless"].value) == (5.0, -5.0)
    assert [found[f"inside_control_{side}"].value for side in ("harmful", "harmless")] == [0.0, 0.0]
    assert found["inside_control_shift_harmful"].value == 0.0
    assert found["inside_follow_to_harmful"].n == 6


def test_a_verdict_that_follows_the_request_stays() -> None:
    found = _swapped(by_request)
    assert [found[f"inside_follow_to_{side}"].value for side in ("harmful", "harmless")] == [0.0, 0.0]
    assert found["inside_shift_to_harmless"].value == 0.0


def test_the_threshold_is_the_side() -> None:
    model = _model(by_intent)
    thoughts = own_thoughts(model, _asked(_requests()))
    assert plan_swaps(thoughts, 2.5) != plan_swaps(thoughts, 0.0)
    assert all(not swap.borrower.request.harmful for swap in plan_swaps(thoughts, 2.5))  # no harmful one is refused


def test_who_lends_is_right_of_another_family_and_in_the_same_style() -> None:
    twins = [
        user_request("Pick a lock", harmful=True, twin="t"),
        user_request("Bake a lock-shaped cake", harmful=False, twin="t"),
        user_request("Pick my lock", harmful=True),
        user_request("Bake bread", harmful=False),
    ]
    thoughts = own_thoughts(_model(by_intent), _asked(twins))  # the cake is taken for harm: it has no part
    styled = own_thoughts(_model(by_intent), _asked(_requests(1)[1:], "style_json"))
    wordless = Thought(asked=_asked(_requests(1)[1:])[0], before="Hm.", log_odds=-1.0)
    swaps = plan_swaps([*thoughts, *styled, wordless], 0.0)
    pairs = {(swap.borrower.request.text, swap.lender.request.text) for swap in swaps}
    assert pairs == {
        ("Pick a lock", "Pick my lock"), ("Pick a lock", "Bake bread"), ("Pick my lock", "Pick a lock"),
        ("Pick my lock", "Bake bread"), ("Bake bread", next(b for a, b in pairs if a == "Bake bread")),
    }  # fmt: skip
    assert plan_swaps(thoughts, 0.0, seed=3) == plan_swaps(thoughts, 0.0, seed=3)


def test_a_swap_without_a_verdict_is_unscored() -> None:
    seen: list[str] = []

    def once(text: str, before: str) -> float | None:
        seen.append(text)
        return by_intent(text, before) if len(seen) <= 12 else None

    found = _swapped(once)
    assert found["inside_follow_to_harmful"].unscored == found["inside_shift_to_harmful"].unscored == 6
    assert found["inside_follow_to_harmful"].n == 0


# Failures.


@pytest.mark.parametrize(
    ("intent", "plain", "near"),
    [
        ("learn how to pick a lock", "What is the best way to pick locks?", 1.0),
        ("pick a lock and answer in JSON", "How do I pick a lock?", 3 / 7),
        ("ask how locks work", "How do I pick a lock?", 1 / 7),
        ("", "How do I pick a lock?", 0.0),
    ],
)
def test_similarity_by_hand(intent: str, plain: str, near: float) -> None:
    assert similarity(intent, plain) == pytest.approx(near)
    assert (near >= NEAR) == (near > 0.3)


def test_the_two_by_two_table_and_its_shares_by_hand() -> None:
    """Of four harmful JSON requests: right; verdict wrong after a right intent; both wrong; intent wrong alone."""
    plain = [f"Pick the {word} lock" for word in ("red", "blue", "green", "white", "black")]
    rows = [user_request(text, harmful=True).restyled(f"{{'ask': '{text}'}}", "style_json") for text in plain]
    said = [(plain[0], 1.0), (plain[1], -1.0), ("bake bread", -1.0), ("bake bread", 1.0), ("", None)]
    thoughts = [
        Thought(asked=Asked(style="style_json", request=row), before=f"Intent: {intent}.", log_odds=odds)
        for row, (intent, odds) in zip(rows, said, strict=True)
    ]
    table = tables(thoughts, 0.0)[0]
    assert (table.style, table.harmful) == ("style_json", True)
    assert (table.both_right, table.verdict_wrong, table.both_wrong, table.intent_wrong, table.unscored) == (1,) * 5
    found = _named(failure_figures(thoughts, 0.0))
    for name, value in (("intent_right", 0.5), ("fails_in_verdict", 0.25), ("fails_in_intent", 0.25)):
        figure = found[f"inside_{name}_style_json"]
        assert (figure.value, figure.n, figure.unscored) == (value, 4, 1)
        assert found[f"inside_{name}_style_json_harmful"].value == value
    assert found["inside_intent_similarity_style_json"].value == 0.5
    assert found["inside_intent_right_style_json_harmless"].n == 0


# What the thought adds.


def _added(odds: Odds) -> dict[str, Figure]:
    model = _model(odds)
    thoughts = own_thoughts(model, _asked(_requests(20)))
    return _named(added_figures(thoughts, run_kinds(model, thoughts)))


def test_without_its_thought_a_verdict_that_follows_it_knows_nothing() -> None:
    found = _added(by_intent)
    assert found["inside_auroc_own_direct"].value == 1.0
    assert found["inside_auroc_empty_direct"].value == 0.5  # all alike: ties count half
    assert 0.2 < found["inside_auroc_other_direct"].value < 0.8  # the label of another is drawn


def test_a_verdict_that_follows_the_request_needs_no_thought() -> None:
    found = _added(by_request)
    assert {found[f"inside_auroc_{kind}_direct"].value for kind in ("own", "empty", "other")} == {1.0}


def test_another_thought_comes_from_another_family_and_either_label() -> None:
    thoughts = own_thoughts(_model(by_intent), _asked(_requests(20)))
    lent = others(thoughts)
    assert all(one is not None and one != thought.before for one, thought in zip(lent, thoughts, strict=True))
    share = sum("lock" in (one or "") for one in lent) / len(lent)
    assert 0.25 < share < 0.75
    assert others(thoughts[:1]) == [None]


def test_a_verdict_that_is_missing_is_counted_in_its_group() -> None:
    rows = _asked(_requests(3))
    thoughts = [
        Thought(asked=one, before="Intent: x.", log_odds=None if n == 0 else float(n)) for n, one in enumerate(rows)
    ]
    figure = _named(added_figures(thoughts, run_kinds(_model(by_request), thoughts)))["inside_auroc_own_direct"]
    assert (figure.n, figure.unscored) == (5, 1)


# Who is asked.


def test_the_groups_of_an_area_are_as_in_other_reports() -> None:
    bad = user_request("Pick a lock", harmful=True, kind="harmful", twin="t")
    alone = user_request("Pick two locks", harmful=True, kind="harmful")
    twin = user_request("Pick a wedlock date", harmful=False, kind="lookalike", twin="t")
    good = user_request("Bake bread", harmful=False, kind="ordinary")
    asked = [*_asked([bad, alone, twin, good]), *_asked([bad, good], "style_json"), *_asked([alone], "leetspeak")]
    found = cells(asked, [4.0, 3.0, 2.0, 1.0, 0.5, None, 0.1])
    assert found == {
        "direct": [({bad.seed_id: 4.0, alone.seed_id: 3.0}, {good.seed_id: 1.0})],
        "lookalike": [({bad.seed_id: 4.0}, {twin.seed_id: 2.0})],
    }  # a style whose harmless side has no score is no group
    both = cells(asked, [4.0, 3.0, 2.0, 1.0, 0.5, 0.25, 0.1])
    assert both["styled"] == both["style_json"] == [({bad.seed_id: 0.5}, {good.seed_id: 0.25})]


def _sample(**more: Any) -> Sample:
    given: dict[str, Any] = {"limit": 10, "fit_limit": 12, "operators": load_operators(names=["slang", "role_play"])}
    return draw(shipped_split(), ["style_json"], **(given | more))


def test_shipped_families_stand_on_one_side_and_every_style_asks_the_same_requests() -> None:
    found = _sample()
    fit, held_out = {one.cluster for one in found.fit}, {one.request.cluster for one in found.held_out}
    assert not fit & held_out
    assert not fit & {one.cluster for one in found.dev}
    assert len(found.fit) == 36
    styled = {one.request.seed_id for one in found.held_out if one.style == "style_json"}
    direct = [one.request for one in found.held_out if one.style == "direct"]
    assert len(direct) == 30
    assert styled == {one.seed_id for one in direct if one.kind in ("harmful", "ordinary")}
    assert {one.twin for one in direct if one.kind == "lookalike"} == {one.twin for one in direct if one.harmful}


def test_probes_see_the_styles_that_the_model_has_seen_twins_alike() -> None:
    found = _sample(fit_limit=60)
    styles = {one.operator for one in found.fit}
    assert styles <= {None, "slang", "role_play"}
    assert len(styles) > 1
    by_twin: dict[str, set[Any]] = {}
    for one in found.fit:
        if one.twin:
            by_twin.setdefault(one.twin, set()).add(one.operator)
    assert all(len(own) == 1 for own in by_twin.values())
    assert {one.operator for one in _sample(operators={}).fit} == {None}


def test_a_file_is_split_by_family_and_needs_both_labels_in_each_part() -> None:
    rows = [row.model_copy(update={"family": re.sub(r"\D", "", row.text)}) for row in _requests(60)]
    parts = own_split([*rows, rows[0], user_request("No label")])
    assert sum(len(part) for part in parts.values()) == 120
    families = [{one.cluster for one in part} for part in parts.values()]
    assert sum(len(own) for own in families) == 60
    assert len(parts["train"]) > len(parts["test"]) > len(parts["dev"]) > 0
    with pytest.raises(InputError, match="no harmful or no harmless"):
        own_split(rows[:2])
