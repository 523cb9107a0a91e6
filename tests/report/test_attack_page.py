"""The page of an attack run: groups apart, and what was not run with its reason."""

from __future__ import annotations

from pathlib import Path


def test_groups_stand_apart_and_what_was_not_run_is_told(pages: dict[str, Path]) -> None:
    page = pages["attack"].read_text(encoding="utf-8")
    order = [
        "No attack</th>", "Unseen styles</th>", "Attacks on reasoning</th>", "Apart: styles seen in training</th>",
        "Apart: styles that the model can&#39;t read</th>",
    ]  # fmt: skip
    places = [page.index(title) for title in order]
    assert places == sorted(places)
    assert '<th scope="row">translate:ta</th><td>needs an attacker model (6 requests)</td>' in page
    assert '<th scope="row">gcg</th><td>needs the model&#39;s weights</td>' in page
    assert "9% of the answers in direct are unscored." in page
