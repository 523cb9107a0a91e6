"""The local model behind inspect-ai."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    ModelOutput,
    get_model,
)

from forethought.models.conversation import Conversation, Failed, Response
from forethought.models.local import LocalModel
from forethought.records import Message
from tests.scripted import Scripted as Respondent
from tests.tiny import REFUSE_TEXT, Scripted, tiny_folder


def _ask(local: Any, prompts: list[list[ChatMessage]], limits: list[int] | None = None) -> list[Any]:
    """Asks all prompts at once, as the samples of an evaluation do; an error stands in place of its output."""

    async def ask() -> list[Any]:
        model = get_model("forethought/scripted", local=local, memoize=False)
        configs = [GenerateConfig(max_tokens=limit) for limit in limits or [16] * len(prompts)]
        calls = [model.generate(prompt, config=config) for prompt, config in zip(prompts, configs, strict=True)]
        return list(await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), timeout=60))

    return asyncio.run(ask())


def _user(text: str) -> list[ChatMessage]:
    return [ChatMessageUser(content=text)]


def test_reasoning_comes_back_apart_from_the_answer() -> None:
    (output,) = _ask(Scripted(reasoning=True), [_user("Copy this film")])
    assert isinstance(output, ModelOutput)
    content = output.choices[0].message.content
    assert isinstance(content, list)
    thought, answer = content
    assert isinstance(thought, ContentReasoning)
    assert "Verdict: refuse" in thought.reasoning
    assert isinstance(answer, ContentText)
    assert answer.text == REFUSE_TEXT
    # What a judge reads is the answer alone.
    assert output.completion == REFUSE_TEXT


def test_verdict_and_tokens_are_recorded() -> None:
    (output,) = _ask(Scripted(reasoning=True), [_user("Copy this film")])
    assert output.metadata is not None
    response = Response.model_validate(output.metadata["response"])
    assert (response.decision, response.log_odds) == ("refuse", 2.0)
    assert output.usage is not None
    assert (output.usage.input_tokens, output.usage.output_tokens, output.usage.reasoning_tokens) == (5, 18, 11)


def test_model_that_does_not_think_has_an_answer_alone() -> None:
    (output,) = _ask(Scripted(), [_user("Bake bread")])
    assert [type(part) for part in output.choices[0].message.content] == [ContentText]


def test_trap_5_whole_conversation_reaches_the_model() -> None:
    """The real user turn, after the turns before it, in order."""
    local = Scripted()
    turns: list[ChatMessage] = [
        ChatMessageSystem(content="Be brief."),
        ChatMessageUser(content="Hello"),
        ChatMessageAssistant(content="Hi."),
        ChatMessageUser(content="Where do puffins nest?"),
    ]
    _ask(local, [turns])
    (conversation,) = local.asked
    assert [message.role for message in conversation] == ["system", "user", "assistant", "user"]
    assert [message.content for message in conversation] == ["Be brief.", "Hello", "Hi.", "Where do puffins nest?"]


def test_trailing_assistant_turn_is_a_prefill_and_not_history() -> None:
    def answer(conversation: Conversation) -> str:
        return f"{len(conversation.messages)}|{conversation.prefill}|{conversation.think_budget}"

    turns: list[ChatMessage] = [
        ChatMessageUser(content="Hello"),
        ChatMessageAssistant(content="Hi."),
        ChatMessageUser(content="Where do puffins nest?"),
        ChatMessageAssistant(content="<think>\n\n</think>\n\nSure,"),
    ]
    outputs = _ask(Respondent(answer), [turns, turns[:3]])
    assert [output.completion for output in outputs] == ["3|<think>\n\n</think>\n\nSure,|None", "3||None"]

    async def cut() -> ModelOutput:
        model = get_model("forethought/scripted", local=Respondent(answer), memoize=False)
        return await model.generate("Hello", config=GenerateConfig(reasoning_tokens=4))

    assert asyncio.run(cut()).completion == "1||4"


def test_conversation_without_a_response_fails_alone() -> None:
    def answer(conversation: Conversation) -> str | Failed:
        return Failed(cause="too long") if conversation.messages[-1].content == "long" else "fine"

    failed, whole = _ask(Respondent(answer), [_user("long"), _user("short")])
    assert "too long" in str(failed)
    assert whole.completion == "fine"


def test_waiting_requests_run_as_one_batch_and_keep_their_own_answers() -> None:
    local = Scripted()
    outputs = _ask(local, [_user(f"topic {number}") for number in range(20)])
    assert len(local.limits) == 1
    for number, output in enumerate(outputs):
        assert f"'topic {number}'" in output.completion


def test_each_request_keeps_its_own_limit() -> None:
    outputs = _ask(Scripted(), [_user("one"), _user("two"), _user("three")], [8, 24, 8])
    assert [output.completion.split()[-2] for output in outputs] == ["8", "24", "8"]


def test_failure_reaches_its_batch_and_no_other() -> None:
    """One broken batch must neither hang nor fail the requests that came while it ran."""
    outputs = _ask(Scripted(fails_on="broken"), [_user("broken"), _user("whole")], [8, 24])
    assert isinstance(outputs[0], Exception)
    assert isinstance(outputs[1], ModelOutput)


class _Slow(Scripted):
    """Breaks down after a while, so that others come in meanwhile."""

    def respond(self, conversations: Sequence[Sequence[Message]], max_answer_tokens: int = 128) -> list[Response]:
        time.sleep(0.5)
        return super().respond(conversations, max_answer_tokens)


def test_requests_that_wait_during_a_failure_are_still_answered() -> None:
    async def ask() -> list[Any]:
        model = get_model("forethought/scripted", local=_Slow(fails_on="broken"), memoize=False)
        first = asyncio.create_task(model.generate(_user("broken")))
        await asyncio.sleep(0.3)
        second = asyncio.create_task(model.generate(_user("whole")))
        return list(await asyncio.wait_for(asyncio.gather(first, second, return_exceptions=True), timeout=20))

    first, second = asyncio.run(ask())
    assert isinstance(first, Exception)
    assert isinstance(second, ModelOutput)


def test_model_is_loaded_at_the_first_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """inspect builds providers only to look a name up, too."""
    loaded: list[str] = []

    def load(name: str, *args: Any) -> Scripted:
        loaded.append(name)
        return Scripted()

    monkeypatch.setattr(LocalModel, "load", load)
    model = get_model("forethought/some/model", memoize=False)
    assert loaded == []
    for text in ("one", "two"):
        asyncio.run(model.generate(text))
    assert loaded == ["some/model"]


@pytest.mark.parametrize("prompt", ["Hello", "Name three kinds of pasta."])
def test_a_real_model_answers_through_inspect(prompt: str) -> None:
    async def ask() -> ModelOutput:
        model = get_model(f"forethought/{tiny_folder()}", dtype="float32", memoize=False)
        return await model.generate(prompt, config=GenerateConfig(max_tokens=5))

    output = asyncio.run(ask())
    assert output.usage is not None
    assert 0 < output.usage.output_tokens <= 5
