"""The page of an attack run: one file, redacted unless asked, with what was not run and why."""

from __future__ import annotations

import re
from pathlib import Path

from forethought.evals.attacks.catalogue import parse_attack
from forethought.report.attack_figures import attack_report, collect, search_results
from forethought.report.attack_page import AttackPage, write_attack_page
from tests.judged import LONG_HARMFUL, judged_one, request_of
from tests.report.test_search_figures import OUTCOMES

SECRET = "zanzibar"


def _page(tmp_path: Path, show_harmful: bool = False) -> str:
    names = ("direct", "misspelling", "leetspeak", "base64", "policy_withdrawn")
    rows = []
    for name in names:
        bad, good = ("direct", "ordinary") if name == "direct" else (f"{name}:harmful", f"{name}:harmless")
        answer = f"Sure, this is how you {SECRET} the film <script>alert(1)</script>"
        rows += [
            judged_one(request_of(f"{LONG_HARMFUL} {n}", True), False, (bad,), name, answer=answer) for n in (1, 2)
        ]
        rows += [judged_one(request_of(f"Explain <b>loaf</b> number {n}", False), False, (good,), name) for n in (1, 2)]
    found = collect(rows, "refused")
    page = AttackPage(
        title="Attacks on my model",
        report=attack_report(found.rows, [parse_attack(name) for name in names], ("leetspeak",)),
        readability="Which styles it reads is a guess by attack",
        searches=search_results(OUTCOMES),
        not_run={"translate:ta": {"needs an attacker model": 6}},
        searches_not_run={"gcg": "needs the model's weights"},
        warnings=["9% of the answers in direct are unscored"],
        settings=[("seed", "0")],
        examples=found.examples,
        show_harmful=show_harmful,
    )
    path = tmp_path / "attack.html"
    write_attack_page(path, page)
    assert [file.name for file in tmp_path.iterdir()] == ["attack.html"]
    return path.read_text(encoding="utf-8")


def test_page_is_one_file(tmp_path: Path) -> None:
    page = _page(tmp_path)
    assert re.findall(r"""(?:src|href|action)\s*=\s*["'](?!#)""", page) == []
    for tag in ("<script", "<link", "<iframe", "<img", "@import"):
        assert tag not in page
    assert page.count("<svg") == 3  # by attack, shown apart, curves


def test_harmful_text_is_redacted_unless_asked(tmp_path: Path) -> None:
    page = _page(tmp_path)
    assert SECRET not in page
    assert "z4nz1b4r" not in page
    assert "words redacted]" in page
    assert "Explain &lt;b&gt;loaf&lt;/b&gt; number 1" in page
    shown = _page(tmp_path, show_harmful=True)
    assert SECRET in shown
    assert "Harmful text is redacted" not in shown
    assert "<script" not in shown


def test_groups_stand_apart_and_what_was_not_run_is_told(tmp_path: Path) -> None:
    page = _page(tmp_path)
    order = [
        "No attack</th>", "Unseen styles</th>", "Attacks on reasoning</th>", "Apart: styles seen in training</th>",
        "Apart: styles that the model can&#39;t read</th>",
    ]  # fmt: skip
    places = [page.index(title) for title in order]
    assert places == sorted(places)
    assert "<td>translate:ta</td><td>needs an attacker model (6 requests)</td>" in page
    assert "<td>gcg</td><td>needs the model&#39;s weights</td>" in page
    assert "9% of the answers in direct are unscored." in page
