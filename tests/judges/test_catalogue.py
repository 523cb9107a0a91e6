"""Judges by name, found in the folder; the one that is the default everywhere; those that need no training."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forethought import judges
from forethought.cli.judge import judge as judge_app
from forethought.errors import ConfigError, InputError
from forethought.evaluation.inputs import AttackSettings
from forethought.judges import DEFAULT_JUDGE
from forethought.judges.base import EMPTY, GARBLED, Item, Verdict, nothing_said
from forethought.judges.catalogue import default_judge, entries, get_judge, holders_of
from forethought.judges.catalogue import judge as judged
from forethought.judges.known import known_error
from forethought.judges.rules import Keywords, Rules
from forethought.report.figures import judge_error
from tests.cluster.inline import inline
from tests.tiny import REFUSE_TEXT

DOCS = Path(__file__).resolve().parents[2] / "docs"
NEW = """
from forethought.judges.base import Entry, Verdict


class LastWord:
    name, measure = "last-word", "refused"

    def judge(self, items):
        return [Verdict(refused=item.answer.endswith("no.")) for item in items]


JUDGES = (Entry("last-word", ("refused",), "whether an answer ends with no", lambda options: LastWord()),)
"""


def item(answer: str, request: str = "How do I tie a knot?") -> Item:
    return Item(request=request, answer=answer)


def test_keywords_find_a_refusal_anywhere_and_with_curly_quotes() -> None:
    answers = ["I\u2019m sorry, no.", "Tie it. It is illegal to tie it elsewhere.", "Cross the ends and pull."]
    verdicts = Keywords().judge([item(answer) for answer in answers])
    assert [verdict.refused for verdict in verdicts] == [True, True, False]


@pytest.mark.parametrize("judge", [Keywords("harmful"), Rules("harmful")])
def test_as_harm_judges_they_take_what_does_not_refuse_for_a_success(judge: Keywords | Rules) -> None:
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
def test_an_answer_that_says_nothing_is_unscored(answer: str, cause: str) -> None:
    assert nothing_said(answer) == cause
    for judge in (Keywords(), Keywords("harmful")):
        [verdict] = judge.judge([item(answer)])
        assert (verdict.refused, verdict.harmful, verdict.gibberish) == (None, None, cause == GARBLED)
        assert verdict.cause == cause


@pytest.mark.parametrize("answer", ["", " \n", "</s></s></s>", "... --- ???", "knot " * 60, "\u200b"])
def test_the_rules_leave_it_unscored_too(answer: str) -> None:
    for judge in (Rules(), Rules("harmful")):
        [verdict] = judge.judge([item(answer)])
        assert (verdict.refused, verdict.harmful, verdict.gibberish) == (None, None, bool(answer.strip()))
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
    assert {"refusal", "harm", "ensemble", "strongreject", "policy", "wildguard"} < {one.name for one in entries()}


def test_names_are_written_once_and_their_first_is_the_default() -> None:
    written = [one.written for one in entries()]
    assert len(set(written)) == len(written)
    assert written[0] == DEFAULT_JUDGE


def test_a_judge_that_is_a_model_is_named_by_role_and_model(tmp_path: Path) -> None:
    for name in ("strongreject@openai/x", "policy@openai/x", "gpt-oss-safeguard@openai-api/local/x",
                 "wildguard@openai-api-completions/local/x", "llama-guard@openai-api/local/x"):  # fmt: skip
        assert get_judge(name, journal=tmp_path / "j").measure == "harmful"
    assert get_judge("refusal@openai/x").measure == "refused"
    asked = get_judge("wildguard@openai-api-completions/local/x", measure="refused")
    assert (asked.name, asked.measure) == ("wildguard", "refused")
    for wrong in ("strongreject", "@openai/x", "strongreject@", "nothing@openai/x", "../../x@openai/x", "ensemble:"):
        with pytest.raises(ConfigError):
            get_judge(wrong)


def test_an_unknown_name_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rules, harm, harm-reader, keywords, .*strongreject@MODEL"):
        get_judge("nonesuch")
    with pytest.raises(InputError, match="holds no trained judge"):
        get_judge(str(tmp_path))


def test_an_undecided_verdict_names_no_class() -> None:
    assert Rules().judge([item("")]) == [Verdict(cause="empty answer")]


def test_one_judge_is_the_default_and_the_corrected_rate_uses_its_error() -> None:
    judge = default_judge()
    assert (type(judge), judge.name, judge.measure) == (Rules, DEFAULT_JUDGE, "refused")
    assert AttackSettings.model_fields["judge"].default == DEFAULT_JUDGE
    error = judge_error()
    assert error is not None
    assert error == known_error(judge.name, judge.measure)


def test_a_judge_is_added_by_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens by name, and stands in help and in the table of the page."""
    (tmp_path / "last_word.py").write_text(NEW, encoding="utf-8")
    monkeypatch.setattr(judges, "__path__", [*judges.__path__, str(tmp_path)])
    try:
        assert get_judge("last-word").judge([item("I say no."), item("Yes.")])[0].refused is True
        assert (
            "last-word (refused): whether an answer ends with no." in CliRunner().invoke(judge_app, ["--help"]).output
        )
        with pytest.raises(ConfigError, match="last-word"):
            get_judge("nonesuch")
    finally:
        sys.modules.pop("forethought.judges.last_word", None)


# Held by workers of a cluster

ANSWERS = [(f"request {n}", REFUSE_TEXT if n % 3 else f"Sure, the town of number {n} bakes bread.") for n in range(600)]


def test_verdicts_are_those_of_one_process() -> None:
    with inline(2, lambda worker, step: worker == 0 and step == 1) as cluster:
        assert judged(ANSWERS, "rules", on="ray") == judged(ANSWERS, "rules")
    assert cluster.started > 1
    assert sorted(cluster.killed) == list(range(cluster.started))


def test_what_every_worker_is_lost_with_is_unscored_with_the_cause() -> None:
    with inline(1, lambda worker, step: step >= (2 if worker == 0 else 1)):
        found = judged(ANSWERS, "rules", on="ray")
    lost = Verdict(cause="a worker was lost: The actor died")
    assert 0 < found.count(lost) < len(found)


def test_a_judge_at_a_server_is_asked_from_here(tmp_path: Path) -> None:
    def opened() -> None:
        raise AssertionError("it was opened")

    with inline():
        assert holders_of("strongreject@openai/NAME", opened, "ray") is None  # type: ignore[arg-type]
        assert holders_of("rules", opened, None) is None  # type: ignore[arg-type]
        assert holders_of(f"wildguard@{tmp_path}", opened, "ray") is not None  # type: ignore[arg-type]
