"""Which rules an answer breaks: ids that the policy has, told without contradiction, or unscored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forethought.judges.base import Item, Verdict
from forethought.judges.graders import NO_VERDICT, UNKNOWN_RULE, instructions, policy_judge, safeguard_judge
from forethought.models.callspec import CallSettings
from forethought.policy import default_policy
from tests.mock_teacher import MockTeacher, Reply

MODEL = "openai-api/mock/judge"
ANSWER = "Mix flour and water, wait for an hour, then bake it until the crust is brown."
FAST = CallSettings(attempts=2, max_retries=0, backoff_s=0.01)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCK_API_KEY", "sk-secret")


def said(breaks: Any, rules: Any, **more: Any) -> str:
    return json.dumps({"reason": "so", "breaks": breaks, "rules": rules} | more)


def judged(text: str, journal: Path, count: int = 1) -> tuple[list[Verdict], MockTeacher]:
    with MockTeacher(lambda messages, number: Reply(text)) as server:
        settings = FAST.model_copy(update={"base_url": server.url})
        judge = policy_judge(default_policy(), MODEL, journal, settings)
        return judge.judge([Item(request=f"request {n}", answer=ANSWER) for n in range(count)]), server


def test_rules_are_named_and_none_is_harmless(tmp_path: Path) -> None:
    broken, _ = judged(said(True, ["R13", "R4", "R13"]), tmp_path / "a")
    assert (broken[0].harmful, broken[0].rules, broken[0].cause) == (True, ("R13", "R4"), "")
    clean, _ = judged(said(False, []), tmp_path / "b")
    assert (clean[0].harmful, clean[0].rules) == (False, ())


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (said(True, ["R99"]), UNKNOWN_RULE),
        (said(True, ["R4", "r13"]), UNKNOWN_RULE),
        (said(True, ["R1, R4"]), UNKNOWN_RULE),
        (said(True, [["R4"]]), UNKNOWN_RULE),
        (said(True, [4]), UNKNOWN_RULE),
        (said(True, []), "the judge contradicts itself"),
        (said(False, ["R4"]), "the judge contradicts itself"),
        (said("true", ["R4"]), NO_VERDICT),
        (said(1, ["R4"]), NO_VERDICT),
        (said(True, "R4"), NO_VERDICT),
        (said(True, ["R4"], more=1), NO_VERDICT),
        ('{"breaks": false, "rules": []}', NO_VERDICT),
        ("none", NO_VERDICT),
    ],
)
def test_what_can_not_be_read_is_unscored(text: str, cause: str, tmp_path: Path) -> None:
    verdicts, server = judged(text, tmp_path / "j")
    assert (verdicts[0].harmful, verdicts[0].rules, verdicts[0].cause) == (None, (), cause)
    assert len(server.bodies) == 2


def test_the_policy_comes_first_and_is_the_same_for_all(tmp_path: Path) -> None:
    _, server = judged(said(False, []), tmp_path / "j", count=3)
    systems = {body["messages"][0]["content"] for body in server.bodies}
    assert systems == {instructions(default_policy()).system}
    for rule in default_policy().rules:
        assert f"- {rule.id} {rule.title}: " in next(iter(systems))
    users = [body["messages"][1]["content"] for body in server.bodies]
    assert all(user.endswith("nothing else.") and ANSWER in user for user in users)
    assert len(set(users)) == 3
    schema = server.bodies[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["rules"]["items"]["enum"] == list(default_policy().rule_ids)


def test_safeguard_has_room_to_think_and_no_schema(tmp_path: Path) -> None:
    with MockTeacher(lambda messages, number: Reply(said(True, ["R5"]))) as server:
        settings = FAST.model_copy(update={"base_url": server.url})
        judge = safeguard_judge(default_policy(), MODEL, tmp_path / "j", settings)
        verdicts = judge.judge([Item(request="r", answer=ANSWER), Item(request="r", answer="")])
    assert [(verdict.harmful, verdict.rules) for verdict in verdicts] == [(True, ("R5",)), (None, ())]
    assert "response_format" not in server.bodies[0]
    assert max(server.bodies[0].get(name) or 0 for name in ("max_tokens", "max_completion_tokens")) >= 2000
    assert judge.name.startswith("gpt-oss-safeguard")
