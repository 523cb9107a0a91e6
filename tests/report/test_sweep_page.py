"""The page of a sweep: one file, nothing hidden, colours that can be read in light and dark."""

from __future__ import annotations

import math
import re
from html import unescape
from importlib import resources
from pathlib import Path

import pytest

from forethought.evals.goals import Goal, reached
from forethought.evals.metrics import Figure
from forethought.report.sweep_figures import SweepRow
from forethought.report.sweep_page import write_sweep_page
from tests.report.sweep_example import REASONING, UNSEEN, example, missing_row, sweep_row


def _page(tmp_path: Path, rows: list[SweepRow], notes: tuple[str, ...] = ()) -> str:
    path = tmp_path / "sweep.html"
    write_sweep_page(path, "The <zoo>", rows, UNSEEN, REASONING, notes)
    assert [file.name for file in tmp_path.iterdir()] == ["sweep.html"]
    return path.read_text(encoding="utf-8").replace("<wbr>", "")


def _text(page: str) -> str:
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", page).split()))


def test_page_is_one_file_without_scripts(tmp_path: Path) -> None:
    page = _page(tmp_path, example())
    assert re.findall(r"""(?:src|href|action)\s*=\s*["'](?!#)""", page) == []
    for tag in ("<script", "<link", "<iframe", "<img", "<image", "@import"):
        assert tag not in page
    assert page.count("<svg") == 3
    assert page.count('role="img" aria-label="') == 3
    # Every plot, the heat map among them, says how it is read.
    assert page.count("<figure>") == page.count("<figcaption>") == 4


def test_table_has_intervals_ranges_and_reasons(tmp_path: Path) -> None:
    page = _page(
        tmp_path, [*example(), missing_row("scot_<rl>", "stopped: <out of memory>")], ("A shake-down & no more.",)
    )
    text = _text(page)
    assert "0.66 (0.55 to 0.77)" in text
    assert "seeds 0.60 to 0.72" in text
    assert "r2d2 needs an accelerator" in text
    assert "scot_<rl> stopped: <out of memory>" in text
    assert "prompt self_reminder was the best prompt" in text
    assert "A shake-down & no more." in text
    assert "<rl>" not in page
    assert "<h1>The &lt;zoo&gt;</h1>" in page
    order = [page.index(f'<th scope="row">{name}<') for name in ("scot", "scot_split", "base", "r2d2")]
    assert order == sorted(order)


def test_page_says_what_can_not_be_told(tmp_path: Path) -> None:
    text = _text(_page(tmp_path, example()))
    assert "Trained with several seeds: scot. All others were trained once: another seed would move these" in text
    assert "Can't be told from scot by Youden's J, unseen styles: scot_split." in text
    once = _text(_page(tmp_path, [sweep_row("scot", 0.8, 0.1), sweep_row("refusal", 0.2, 0.1)]))
    assert "Each was trained once, with one seed: another seed would move these numbers" in once
    assert "All others are further from scot than their interval is wide." in once
    seeds = [sweep_row(name, 0.8, 0.1, seed) for name in ("scot", "refusal") for seed in (0, 1)]
    assert "another seed would move" not in _text(_page(tmp_path, seeds))


def test_paired_differences_stand_where_there_are_some(tmp_path: Path) -> None:
    heading = "Against refusal_augmented, on the same requests"
    assert heading not in _page(tmp_path, example())
    more = (
        Figure(name="diff_auroc_unseen_scot_vs_refusal_augmented", value=0.06, low=0.01, high=0.11, n=80),
        Figure(name="p_auroc_unseen_scot_vs_refusal_augmented", value=0.0004, unit="p"),
    )
    text = _text(_page(tmp_path, [sweep_row("scot", 0.8, 0.1, more=more), sweep_row("refusal_augmented", 0.7, 0.1)]))
    assert heading in text
    assert "scot AUROC, unseen styles +0.06 (+0.01 to +0.11) below 0.001 80" in text


def test_unscored_answers_are_told(tmp_path: Path) -> None:
    lost = Figure(name="asr_gcg", value=math.nan, n=0, unscored=40)
    text = _text(_page(tmp_path, [sweep_row("scot", 0.8, 0.1, more=(lost,))]))
    assert "not scored" in text
    assert "40 of 560 answers are unscored and in no share." in text
    assert "nan" not in text


def test_page_of_runs_that_all_failed(tmp_path: Path) -> None:
    page = _page(tmp_path, [missing_row("scot", "no memory"), missing_row("refusal", "no memory")])
    assert "<svg" not in page
    assert "scot no memory" in _text(page)


def test_style_without_a_harmless_side_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sweep.html"
    write_sweep_page(path, "The zoo", example(), UNSEEN, ["fake_turn"])
    text = _text(path.read_text(encoding="utf-8"))
    assert "Not drawn, since nobody was measured on harmful and on harmless requests: fake_turn." in text


def test_each_base_has_a_section(tmp_path: Path) -> None:
    page = _page(tmp_path, [*example(), sweep_row("scot", 0.9, 0.1, base="large")])
    assert re.findall(r'<h2 class="base">(\w+)</h2>', page) == ["small", "large"]
    assert page.count("<h1>") == 1
    assert page.count('<table class="figures">') == 2


def _themes() -> dict[str, dict[str, str]]:
    """The page's colours in light and dark."""
    css = resources.files("forethought").joinpath("report/templates/sweep.html.j2").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    return {
        name: dict(re.findall(r"(--\w+): (#[0-9a-f]{6}|#[0-9a-f]{3});", block))
        for name, block in (("light", light), ("dark", dark))
    }


def _contrast(first: str, second: str) -> float:
    """WCAG 2.2's contrast ratio, 1 to 21."""

    def luminance(colour: str) -> float:
        digits = colour.lstrip("#")
        digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
        parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    lights = sorted((luminance(first), luminance(second)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_can_be_read(theme: str) -> None:
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)
    found = _themes()[theme]
    texts = [
        ("--ink", "--back"), ("--soft", "--back"), ("--ink", "--warn"), ("--ink", "--card"),
        *(("--ink", f"--{side}{level}") for side in "pn" for level in (1, 2)),
        *(("--strong", f"--{side}{level}") for side in "pn" for level in (3, 4)),
    ]  # fmt: skip
    assert {pair: ratio for pair in texts if (ratio := _contrast(*(found[name] for name in pair))) < 4.5} == {}
    marks = [("--one", "--back"), ("--best", "--back")]
    assert {pair: ratio for pair in marks if (ratio := _contrast(*(found[name] for name in pair))) < 3} == {}


def test_goals_stand_before_the_figures_with_what_came_of_them(tmp_path: Path) -> None:
    goals = [Goal(figure="auroc_unseen_scot", least=0.9, why="told apart"), Goal(figure="asr_gcg_scot", most=0.1)]
    found = reached(goals, [Figure(name="auroc_unseen_scot", value=0.95, low=0.85, high=0.99)])
    path = tmp_path / "sweep.html"
    write_sweep_page(path, "The zoo", example(), UNSEEN, REASONING, goals=found)
    text = _text(path.read_text(encoding="utf-8").replace("<wbr>", ""))
    assert "told apart auroc_unseen_scot at least 0.9 0.950 (0.850 to 0.990) met, not shown" in text
    assert "asr_gcg_scot at most 0.1 - not measured" in text
    assert text.index("What was asked for") < text.index("All figures")
    assert "What was asked for" not in _text(_page(tmp_path, example()))
