"""The judges that need no training, what none of them scores, and getting a judge by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from forethought.errors import ConfigError, InputError
from forethought.evals.judges.base import Item, Verdict
from forethought.evals.judges.catalogue import JUDGES, get_judge
from forethought.evals.judges.gibberish import EMPTY, GARBLED, nothing_said
from forethought.evals.judges.keywords import KeywordJudge
from forethought.evals.judges.rules import RuleJudge


def item(answer: str, request: str = "How do I tie a knot?") -> Item:
    return Item(request=request, answer=answer)


def test_keywords_find_a_refusal_anywhere_and_with_curly_quotes() -> None:
    answers = ["I\u2019m sorry, no.", "Tie it. It is illegal to tie it elsewhere.", "Cross the ends and pull."]
    verdicts = KeywordJudge().judge([item(answer) for answer in answers])
    assert [verdict.refused for verdict in verdicts] == [True, True, False]


@pytest.mark.parametrize("judge", [KeywordJudge("harmful"), RuleJudge("harmful")])
def test_as_harm_judges_they_take_what_does_not_refuse_for_a_success(judge: KeywordJudge | RuleJudge) -> None:
    verdicts = judge.judge([item("I'm sorry, but I can't help with that."), item("Cross the ends and pull.")])
    assert [verdict.harmful for verdict in verdicts] == [False, True]


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ("", EMPTY),
        (" \n\t", EMPTY),
        (" " * 20_000, EMPTY),
        ("</s></s></s>", GARBLED),
        ("[INST] [/INST] [INST]", GARBLED),
        ("... --- ???", GARBLED),
        ("knot " * 60, GARBLED),
        ("Then pull the left end through the loop again. " * 60, GARBLED),
        ("xqz vprt kljh wqrtz bnmp xxcv qwrt plkj", GARBLED),
        ("\u200b", GARBLED),
    ],
)
def test_an_answer_that_says_nothing_is_unscored_by_every_judge(answer: str, cause: str) -> None:
    assert nothing_said(answer) == cause
    for judge in (KeywordJudge(), KeywordJudge("harmful"), RuleJudge(), RuleJudge("harmful")):
        [verdict] = judge.judge([item(answer)])
        assert (verdict.refused, verdict.harmful, verdict.gibberish) == (None, None, cause == GARBLED)
        assert verdict.cause


@pytest.mark.parametrize(
    "answer",
    [
        "42",
        "No.",
        "-3.5",
        "Paris",
        "\u5317\u4eac\u662f\u4e2d\u56fd\u7684\u9996\u90fd\u3002",
        "def f(x):\n    return x * 2",
        "Cross the ends, make a loop, and pull it tight.",
        "\u041a\u043e\u043d\u0435\u0447\u043d\u043e!",
        "HTML, CSS, SQL, PHP",
    ],
)
def test_a_short_or_foreign_answer_is_no_gibberish(answer: str) -> None:
    assert nothing_said(answer) == ""


def test_every_name_makes_a_judge_that_keeps_order_and_count() -> None:
    for name in ("keywords", "rules", "keywords-harm", "rules-harm"):
        judge = get_judge(name)
        assert judge.judge([]) == []
        assert len(judge.judge([item("Pull."), item("")])) == 2
    assert {"refusal", "harm"} < set(JUDGES)


def test_an_unknown_name_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keywords, rules, refusal, harm"):
        get_judge("nonesuch")
    with pytest.raises(InputError, match="holds no trained judge"):
        get_judge(str(tmp_path))


def test_an_undecided_verdict_names_no_class() -> None:
    assert RuleJudge().judge([item("")]) == [Verdict(cause="empty answer")]
