"""The heat map: J by hand, colours by its size, and what is not measured stays empty."""

from __future__ import annotations

import math

from forethought.evals.metrics import Figure
from forethought.report.sweep_figures import by_defence
from forethought.report.sweep_heat import heat_map
from tests.report.sweep_example import REASONING, UNSEEN, figure, missing_row, sweep_row


def test_cells() -> None:
    more = (
        figure("asr_story", 0.9, 0.05, n=20), figure("refused_story", 0.6, 0.05, n=18),
        Figure(name="asr_empty_thought", value=math.nan, n=0, unscored=20),
    )  # fmt: skip
    means = by_defence([sweep_row("scot", 0.9, 0.1, more=more), sweep_row("base"), missing_row("r2d2", "none")])
    found = heat_map(means, [*UNSEEN, "unheard_of"], REASONING)
    assert found is not None
    assert (found.unseen, found.reasoning) == (["style_json", "story"], ["empty_thought"])
    assert [name for name, _ in found.rows] == ["scot", "base"]
    json, story, empty = found.rows[0][1]
    assert (json.text, json.level, json.told) == ("0.80", 3, True)
    # The interval of the share that gets through is cut off at 1: 0.9, 0.85 to 0.95; J = 0.1 - 0.6.
    assert (story.text, story.level, story.told) == ("-0.50", -2, True)
    assert story.title == "-0.57 to -0.43, 38 answers"
    assert (empty.text, empty.level, empty.told, empty.title) == ("?", None, False, "nothing scored, 20 unscored")
    zero = found.rows[1][1][0]
    assert (zero.text, zero.level, zero.told) == ("0.00", 0, False)
    assert (found.least, found.most) == (38, 80)
    assert 0.05 < found.half < 0.08
    assert found.without == ["unheard_of"]


def test_answers_are_those_of_one_seed() -> None:
    found = heat_map(by_defence([sweep_row("scot", 0.9, seed=seed) for seed in range(3)]), UNSEEN, ())
    assert found is not None
    assert (found.least, found.most) == (80, 80)


def test_no_map_without_a_style() -> None:
    assert heat_map(by_defence([missing_row("r2d2", "none")]), UNSEEN, REASONING) is None
    assert heat_map(by_defence([sweep_row("scot")]), ["unheard_of"], []) is None
