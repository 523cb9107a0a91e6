"""Servers share the work, die and come back; a conversation that nobody answers has failed, and is nothing else."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from contextlib import closing
from typing import Any

import pytest
from inspect_ai.model import ChatMessageAssistant, ContentReasoning, ContentText, ModelOutput, ModelUsage, get_model

from forethought.errors import ConfigError, ModelError
from forethought.models.conversation import Able, Conversation, Failed, Respondent, Response
from forethought.models.servers import Servers, ServerSettings
from tests.mock_teacher import MockTeacher, Reply, Script
from tests.scripted import as_messages

MOCK = "openai-api/mock/attacked"
FAST = ServerSettings(backoff_s=0.01, max_retries=3)
THOUGHT = "<think>\nIntent: bake bread.\nVerdict: comply. No rule applies.\n</think>\nMix flour and water."


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCK_API_KEY", "sk-secret")


def _asked(count: int, text: str = "say {}") -> list[Conversation]:
    return [Conversation(messages=as_messages(text.format(n))) for n in range(count)]


def _echo(messages: list[dict[str, str]], number: int) -> Reply:
    return Reply(messages[-1]["content"].upper())


def _answers(replies: list[Response | Failed]) -> list[str]:
    return [reply.answer if isinstance(reply, Response) else f"failed: {reply.cause}" for reply in replies]


def _texts(server: MockTeacher) -> list[str]:
    return [body["messages"][-1]["content"] for body in server.bodies]


def test_each_conversation_gets_its_own_reply_and_is_told_once() -> None:
    told: list[tuple[int, Any]] = []
    with MockTeacher(_echo) as server, closing(Servers(MOCK, [server.url], FAST)) as servers:
        respondent: Respondent = servers
        replies = respondent.reply(_asked(30), 17, lambda place, reply: told.append((place, reply)))
        again = respondent.reply(_asked(2), 5)
    assert _answers(replies) == [f"SAY {n}" for n in range(30)]
    assert _answers(again) == ["SAY 0", "SAY 1"]
    assert sorted(place for place, _ in told) == list(range(30))
    assert all(replies[place] is reply for place, reply in told)
    assert Counter(body["max_tokens"] for body in server.bodies) == {17: 30, 5: 2}
    assert servers.able == Able(prefill=False)
    first = replies[0]
    assert isinstance(first, Response)
    assert first.prompt_tokens > 0


def test_sampling_settings_reach_the_server_and_equal_conversations_are_asked_once_when_greedy() -> None:
    with MockTeacher(_echo) as server:
        with closing(Servers(MOCK, [server.url], FAST)) as servers:
            assert _answers(servers.reply(_asked(2) * 3)) == ["SAY 0", "SAY 1"] * 3
        assert len(server.bodies) == 2
        assert {(body["temperature"], body["seed"]) for body in server.bodies} == {(0.0, 0)}
        warm = FAST.model_copy(update={"temperature": 0.7, "seed": 5})
        with closing(Servers(MOCK, [server.url], warm)) as servers:
            servers.reply(_asked(1) * 3)
    assert [(body["temperature"], body["seed"]) for body in server.bodies[2:]] == [(0.7, 5)] * 3


def test_reasoning_in_the_text_and_reasoning_of_its_own() -> None:
    with (
        MockTeacher(lambda messages, number: Reply(THOUGHT)) as server,
        closing(Servers(MOCK, [server.url], FAST)) as servers,
    ):
        (tagged,) = servers.reply(_asked(1))

    def told(*_: Any) -> ModelOutput:
        content: list[Any] = [
            ContentReasoning(reasoning="Intent: x.\nVerdict: refuse."),
            ContentText(text="No. </think> is a tag."),
        ]
        output = ModelOutput.from_message(ChatMessageAssistant(content=content))
        output.usage = ModelUsage(input_tokens=7, output_tokens=10, reasoning_tokens=6)
        return output

    with closing(Servers([get_model("mockllm/model", custom_outputs=told, memoize=False)], settings=FAST)) as servers:
        (apart,) = servers.reply(_asked(1))
    assert isinstance(tagged, Response)
    assert isinstance(apart, Response)
    assert (tagged.answer, tagged.decision) == ("Mix flour and water.", "comply")
    assert (apart.answer, apart.decision) == ("No. </think> is a tag.", "refuse")
    assert "Verdict: refuse" in apart.reasoning_text
    assert (apart.prompt_tokens, apart.reasoning_tokens, apart.answer_tokens) == (7, 6, 4)


def test_prefill_is_sent_where_the_server_takes_it_and_fails_where_it_does_not() -> None:
    asked = [Conversation(messages=as_messages("Hi"), prefill="<think>\n\n</think>\n\nSure,")]
    with MockTeacher(lambda messages, number: Reply(" it is green.")) as server:
        with closing(Servers(MOCK, [server.url], FAST)) as servers:
            (failed,) = servers.reply(asked)
            assert not server.bodies
        with closing(Servers(MOCK, [server.url], FAST.model_copy(update={"prefill": True}))) as servers:
            assert servers.able.prefill
            (reply,) = servers.reply(asked)
    assert isinstance(failed, Failed)
    assert isinstance(reply, Response)
    assert reply.answer == "Sure, it is green."  # the whole answer turn, for judges
    (body,) = server.bodies
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert body["messages"][-1]["role"] == "assistant"


def test_faster_server_takes_more_and_like_prompts_stay_together() -> None:
    def paced(seconds: float) -> Script:
        return lambda messages, number: Reply("yes", seconds=seconds)

    asked = [*_asked(60, "a long beginning of one kind {}"), *_asked(60, "quite another beginning {}")]
    with MockTeacher(paced(0.005)) as fast, MockTeacher(paced(0.2)) as slow:
        settings = FAST.model_copy(update={"concurrency": 2})
        with closing(Servers(MOCK, [fast.url, slow.url], settings)) as servers:
            replies = servers.reply(asked)
    assert _answers(replies) == ["yes"] * 120
    assert len(fast.bodies) + len(slow.bodies) == 120
    assert len(fast.bodies) > 2 * len(slow.bodies) > 0
    first = _texts(fast)[:10]
    assert len({text[:5] for text in first}) == 1


@pytest.mark.slow
def test_work_of_a_dead_server_goes_to_the_others_and_it_is_used_again() -> None:
    dead = threading.Event()
    dead.set()

    def ill(messages: list[dict[str, str]], number: int) -> Reply:
        return Reply(status=503) if dead.is_set() else _echo(messages, number)

    def well(messages: list[dict[str, str]], number: int) -> Reply:
        if number == 40:
            dead.clear()
        return Reply(messages[-1]["content"].upper(), seconds=0.01)

    settings = FAST.model_copy(update={"concurrency": 4})
    with (
        MockTeacher(ill) as one,
        MockTeacher(well) as other,
        closing(Servers(MOCK, [one.url, other.url], settings)) as servers,
    ):
        replies = servers.reply(_asked(300))
    assert _answers(replies) == [f"SAY {n}" for n in range(300)]
    assert sum(one.answered.values()) > 0
    assert max((one.answered + other.answered).values()) == 1  # nothing is answered twice


def test_server_that_was_gone_in_one_call_is_asked_in_the_next() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with closing(Servers(MOCK, [f"http://127.0.0.1:{port}/v1"], FAST)) as servers:
        told: list[int] = []
        began = time.monotonic()
        gone = servers.reply(_asked(50), on_reply=lambda place, reply: told.append(place))
        assert time.monotonic() - began < 10
        assert _answers(gone) == ["failed: no connection"] * 50
        assert sorted(told) == list(range(50))
        with MockTeacher(_echo, port):
            assert _answers(servers.reply(_asked(3))) == ["SAY 0", "SAY 1", "SAY 2"]


def test_server_that_dies_for_good_in_mid_run_leaves_the_rest_failed_with_the_cause() -> None:
    def dies(messages: list[dict[str, str]], number: int) -> Reply:
        return _echo(messages, number) if number < 20 else Reply(status=500)

    with MockTeacher(dies) as server, closing(Servers(MOCK, [server.url], FAST)) as servers:
        replies = servers.reply(_asked(60))
    answers = Counter("failed" if isinstance(reply, Failed) else "answered" for reply in replies)
    assert answers == {"answered": 20, "failed": 40}
    assert {reply.cause for reply in replies if isinstance(reply, Failed)} == {"server error (500)"}
    assert len(server.bodies) <= 20 + 32 + 10  # what was in flight and a few tries more, not four times all


def test_hiccups_and_rate_limits_lose_nothing() -> None:
    def shaky(messages: list[dict[str, str]], number: int) -> Reply:
        return Reply(status=(429, 500)[number % 2]) if number % 5 == 0 else _echo(messages, number)

    settings = FAST.model_copy(update={"max_retries": 8})
    with MockTeacher(shaky) as server, closing(Servers(MOCK, [server.url], settings)) as servers:
        assert _answers(servers.reply(_asked(80))) == [f"SAY {n}" for n in range(80)]


def test_a_trial_that_comes_too_early_is_not_the_last() -> None:
    """A server that failed is tried with one call. Where that one meets a rate limit, the next may try."""
    statuses = {0: 500, 1: 429, 2: 429}

    def busy(messages: list[dict[str, str]], number: int) -> Reply:
        return Reply(status=statuses[number]) if number in statuses else _echo(messages, number)

    settings = FAST.model_copy(update={"max_retries": 8})
    with MockTeacher(busy) as server, closing(Servers(MOCK, [server.url], settings)) as servers:
        assert _answers(servers.reply(_asked(1))) == ["SAY 0"]


def test_calls_that_fail_together_are_one_failure() -> None:
    """Sixteen calls in flight when a server hiccups don't make it a server that failed sixteen times on end."""

    def hiccup(messages: list[dict[str, str]], number: int) -> Reply:
        return Reply(status=503, seconds=0.1) if number < 16 else _echo(messages, number)

    with MockTeacher(hiccup) as server, closing(Servers(MOCK, [server.url], FAST)) as servers:
        assert _answers(servers.reply(_asked(40))) == [f"SAY {n}" for n in range(40)]


def test_a_server_that_failed_is_given_time() -> None:
    settings = ServerSettings(backoff_s=0.2, max_retries=2)
    with (
        MockTeacher(lambda messages, number: Reply(status=503)) as server,
        closing(Servers(MOCK, [server.url], settings)) as servers,
    ):
        began = time.monotonic()
        (reply,) = servers.reply(_asked(1))
        took_s = time.monotonic() - began
    assert reply == Failed(cause="server error (503)")
    assert len(server.bodies) == 3
    assert took_s >= 0.3  # waits of at least half of 0.2 and 0.4 seconds


def test_refused_conversation_fails_alone() -> None:
    def picky(messages: list[dict[str, str]], number: int) -> Reply:
        return Reply(status=400) if messages[-1]["content"] == "say 3" else _echo(messages, number)

    with MockTeacher(picky) as server, closing(Servers(MOCK, [server.url], FAST)) as servers:
        answers = _answers(servers.reply(_asked(8)))
    assert [n for n, answer in enumerate(answers) if answer.startswith("failed")] == [3]
    assert answers[3] == "failed: bad request (400)"


def test_filtered_answer_has_failed() -> None:
    def filtered(*_: Any) -> ModelOutput:
        output = ModelOutput.from_content("mock", "", stop_reason="content_filter")
        output.usage = ModelUsage(input_tokens=10, output_tokens=0)
        return output

    model = get_model("mockllm/model", custom_outputs=filtered, memoize=False)
    with closing(Servers([model], settings=FAST)) as servers:
        (reply,) = servers.reply(_asked(1))
    assert reply == Failed(cause="the provider's filter stopped the answer")


def test_wrong_key_ends_the_call_where_nothing_worked() -> None:
    with MockTeacher(lambda messages, number: Reply(status=401)) as server:
        with closing(Servers(MOCK, [server.url], FAST)) as servers, pytest.raises(ModelError, match="access denied"):
            servers.reply(_asked(30))
        with MockTeacher(_echo) as good, closing(Servers(MOCK, [server.url, good.url], FAST)) as servers:
            assert _answers(servers.reply(_asked(5))) == [f"SAY {n}" for n in range(5)]


def test_no_server_is_an_error_and_no_conversation_is_none() -> None:
    with pytest.raises(ConfigError):
        Servers([])
    with MockTeacher(_echo) as server, closing(Servers(MOCK, [server.url], FAST)) as servers:
        assert servers.reply([]) == []


def test_error_of_the_caller_is_its_own() -> None:
    def breaks(place: int, reply: Any) -> None:
        raise ZeroDivisionError

    with MockTeacher(_echo) as server, closing(Servers(MOCK, [server.url], FAST)) as servers:
        with pytest.raises(ZeroDivisionError):
            servers.reply(_asked(5), on_reply=breaks)
        assert _answers(servers.reply(_asked(1))) == ["SAY 0"]
