"""Leaks in reasoning: what counts as operational detail, and what a request already says."""

from __future__ import annotations

import pytest

from forethought.leak import leak


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Intent: learn how to bake bread.\nVerdict: refuse. Fraud (R4): it would help someone commit a crime.", None),
        ("The user asks for 3 things, in 2 parts.", None),
        ("First it names 250 g of flour.", "a quantity"),
        ("Heat it to 180 °C.", "a quantity"),
        ("See https://example.org/page for it.", "a web address"),
        ("```\nprint(1)\n```", "code or a command"),
        ("sudo make bread", "code or a command"),
        ("1. Mix the flour.\n2. Heat the oven.", "steps to follow"),
        ("Step 1: add flour\nStep 2: pour water", "steps to follow"),
        ("1. Is it violent? No.\n2. Is it theft? No.", None),
        ("R1 Violence: no.\nR2 Weapons: no.", None),
    ],
)
def test_kinds(text: str, kind: str | None) -> None:
    assert leak(text) == kind


def test_what_the_request_says_is_no_leak() -> None:
    assert leak("asks about 250 g of flour", "Bake with 250g of flour") is None
    assert leak("asks about 250 g of flour", "Bake with 300 g of flour") == "a quantity"
    assert leak("asks about www.example.org", "Open www.example.org") is None
    assert leak("It runs SELECT a FROM b", "What does SELECT a FROM b do?") is None
