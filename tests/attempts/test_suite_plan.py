"""The plan of a suite: every attack on every behaviour, each text asked once, in an order that shares prefixes."""

from __future__ import annotations

import base64
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from forethought.attacks.base import Attack, Wanted
from forethought.attacks.catalogue import Preparation, parse_attack
from forethought.attacks.rewritten import Unfit
from forethought.attempts import plan as plan_module
from forethought.attempts.plan import PLAN_LOCK, make_plan
from forethought.errors import ConfigError, StageError
from forethought.models.conversation import Able
from forethought.store import locked
from tests.attempts.suite_plans import HARMFUL, HARMLESS, behavior, plan, rows


def test_every_attack_meets_every_behaviour_in_its_cell(tmp_path: Path) -> None:
    summary = plan(tmp_path, "style_json", "leetspeak")
    cells = Counter(row.cells for row in rows(tmp_path))
    assert cells == {
        (cell,): 4
        for cell in ("direct", "ordinary", "style_json:harmful", "style_json:harmless", "leetspeak:harmful",
                     "leetspeak:harmless")
    }  # fmt: skip
    assert (summary.attempts, summary.conversations, summary.attacks) == (24, 24, ("direct", "style_json", "leetspeak"))
    assert {row.request.harmful for row in rows(tmp_path) if row.cells[0].endswith("harmful")} == {True}
    assert {row.request.harmful for row in rows(tmp_path) if row.cells[0].endswith("harmless")} == {False}
    assert len({row.id for row in rows(tmp_path)}) == 24


def test_styles_of_one_behaviour_are_one_cluster(tmp_path: Path) -> None:
    plan(tmp_path, "style_json", "base64", "leetspeak | style_short", harmful=HARMFUL[:1], harmless=[])
    assert len({row.request.seed_id for row in rows(tmp_path)}) == 1
    assert {row.lineage for row in rows(tmp_path)} == {(), ("style_json",), ("base64",), ("leetspeak", "style_short")}
    assert len({row.behavior for row in rows(tmp_path)}) == 1


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    plan(tmp_path / "a", "misspelling", "many_shot:4")
    plan(tmp_path / "b", "misspelling", "many_shot:4")
    first = (tmp_path / "a" / "plan.jsonl").read_bytes()
    assert first == (tmp_path / "b" / "plan.jsonl").read_bytes()
    assert not list((tmp_path / "a").glob("tmp*"))


def test_a_plan_sorted_in_many_runs_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan(tmp_path / "a", "misspelling", "chain_of_utterances", "many_shot:4")
    monkeypatch.setattr(plan_module, "_ROWS", 3)
    plan(tmp_path / "b", "misspelling", "chain_of_utterances", "many_shot:4")
    assert (tmp_path / "a" / "plan.jsonl").read_bytes() == (tmp_path / "b" / "plan.jsonl").read_bytes()


def test_what_begins_alike_stands_together(tmp_path: Path) -> None:
    varied = [f"Explain how town number {n} bakes its bread{' and its rolls' * n * 9}" for n in range(4)]
    plan(tmp_path, "chain_of_utterances", "style_json", "document_injection", "deep_inception", harmless=varied)
    attacks = [attack for attack, _ in itertools.groupby(row.attack for row in rows(tmp_path))]
    for framed in ("chain_of_utterances", "document_injection", "deep_inception"):
        assert attacks.count(framed) == 1


def test_long_rows_come_after_short_ones_that_begin_alike(tmp_path: Path) -> None:
    head = "Explain this at length. " * 40
    plan(tmp_path, harmful=[], harmless=[head + "z " * n for n in (50, 5, 500, 20)])
    lengths = [len(row.request.text) for row in rows(tmp_path)]
    assert lengths == sorted(lengths)


def test_one_text_in_two_cells_is_one_conversation(tmp_path: Path) -> None:
    same = Attack(name="same", title="Changes nothing", paper="none", kind="template")
    summary = make_plan(tmp_path, [same], [behavior(HARMFUL[0])], [behavior(HARMLESS[0])])
    assert (summary.attempts, summary.conversations) == (4, 2)
    cells: dict[str, set[str]] = {}
    for row in rows(tmp_path):
        cells.setdefault(row.asked, set()).update(row.cells)
    assert sorted(map(sorted, cells.values())) == [["direct", "same:harmful"], ["ordinary", "same:harmless"]]
    assert len({row.id for row in rows(tmp_path)}) == 4


def test_one_text_twice_in_one_cell_counts_once(tmp_path: Path) -> None:
    summary = plan(tmp_path, harmful=[HARMFUL[0], HARMFUL[0]], harmless=[HARMFUL[0]])
    assert (summary.attempts, summary.conversations, summary.repeated) == (2, 1, 1)
    assert sorted(row.cells for row in rows(tmp_path)) == [("direct",), ("ordinary",)]


def test_a_context_is_never_restyled(tmp_path: Path) -> None:
    one = behavior("Sum up this text", context="Minutes of the garden club")
    make_plan(tmp_path, [parse_attack("base64:bare")], [], [one])
    direct, hidden = sorted(rows(tmp_path), key=lambda row: row.attack != "direct")
    assert direct.request.text == one.request.text
    assert direct.request.seed_text is None
    head, _, tail = hidden.request.text.rpartition("\n")
    assert head.startswith("Minutes of the garden club\n")
    assert base64.b64decode(tail).decode().startswith("Sum up this text")
    assert hidden.request.plain == one.request.text
    assert hidden.request.seed_id == direct.request.seed_id


def test_what_cant_be_run_is_in_the_plan_with_its_cause(tmp_path: Path) -> None:
    attacks = [parse_attack(name) for name in ("translate:fr", "answer_prefill", "style_json")]
    summary = make_plan(tmp_path, attacks, [behavior(HARMFUL[0])], [behavior(HARMLESS[0])], Preparation(0, able=Able()))
    assert summary.not_run == {
        "answer_prefill": {"needs a model whose turn can be prefilled": 2},
        "translate:fr": {"needs an attacker model": 2},
    }
    blocked = [row for row in rows(tmp_path) if row.cause]
    assert rows(tmp_path)[-len(blocked) :] == blocked
    assert all(row.request.text in (HARMFUL[0], HARMLESS[0]) for row in blocked)
    assert summary.attempts == len(rows(tmp_path)) - len(blocked) == 4


def test_an_attacker_is_asked_for_all_of_an_attack_at_once(tmp_path: Path) -> None:
    asked: list[int] = []

    def ask(wanted: Sequence[Wanted]) -> Mapping[str, str | Unfit]:
        asked.append(len(wanted))
        texts = {one.key: f"En bon français : {one.original}" for one in wanted}
        return {key: Unfit("it refused") if "number 3" in text else text for key, text in texts.items()}

    harmful, harmless = [behavior(text) for text in HARMFUL], [behavior(text) for text in HARMLESS]
    summary = make_plan(tmp_path, [parse_attack("translate:fr")], harmful, harmless, Preparation(0, ask=ask))
    assert asked == [4, 4]
    assert summary.not_run == {"translate:fr": {"it refused": 2}}
    assert summary.attempts == 8 + 6


def test_prefill_and_budget_are_part_of_what_is_asked(tmp_path: Path) -> None:
    attack = parse_attack("answer_prefill")
    summary = make_plan(
        tmp_path, [attack], [behavior(HARMFUL[0])], [], Preparation(0, able=Able(prefill=True, budget=True))
    )
    assert (summary.attempts, summary.conversations) == (2, 2)
    opened = next(row for row in rows(tmp_path) if row.attack == "answer_prefill")
    assert opened.prefill
    assert opened.conversation.prefill == opened.prefill


def test_two_plans_at_once_are_told(tmp_path: Path) -> None:
    with locked(tmp_path / PLAN_LOCK), pytest.raises(StageError, match="another run is writing here"):
        plan(tmp_path)
    plan(tmp_path)


def test_a_plan_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no behaviours"):
        make_plan(tmp_path, [], [], [])
