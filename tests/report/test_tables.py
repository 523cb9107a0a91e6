"""The comparison table."""

from __future__ import annotations

from forethought.metrics import Figure, share
from forethought.report.tables import interval, table_rows


def test_rows_without_any_figure_are_left_out() -> None:
    rows = table_rows([Figure(name="asr_direct_scot", value=0.1, n=10)], ["base", "scot"])
    assert len(rows) == 1
    title, (base, scot) = rows[0]
    assert "Attack success, direct" in title
    assert base is None
    assert scot is not None
    assert scot.value == 0.1


def test_each_column_holds_its_own_system() -> None:
    figures = [Figure(name=f"tokens_{name}", value=value, unit="tokens") for name, value in (("base", 1), ("scot", 2))]
    ((_, cells),) = table_rows(figures, ["scot", "base"])
    assert [cell.value for cell in cells if cell] == [2, 1]


def test_interval_shows_value_bounds_and_unscored() -> None:
    assert interval(share([True] * 7 + [False] * 3)) == "0.70 (0.40 to 0.89)"
    assert interval(share([True, False, None])).endswith("1 unscored")
    assert interval(None) == "-"


def test_counts_have_one_digit() -> None:
    assert interval(Figure(value=31.26, unit="tokens")) == "31.3"


def test_what_was_not_measured_is_not_shown_as_a_number() -> None:
    shown = interval(share([None, None]))
    assert "0" not in shown
    assert shown.endswith("2 unscored")


def test_reasoning_has_rows_of_its_own() -> None:
    figures = [Figure(name="verdict_right_scot", value=0.9, n=10), Figure(name="asr_direct_scot", value=0.1, n=10)]
    ((title, cells),) = table_rows(figures, ["base", "scot"], "reasoning_rows")
    assert "Verdict fits the label" in title
    assert [cell.value if cell else None for cell in cells] == [None, 0.9]
    assert len(table_rows(figures, ["base", "scot"])) == 1
