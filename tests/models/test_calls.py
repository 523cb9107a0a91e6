"""Paid calls: never twice, never lost, never a crash; and a clear end where nothing works."""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import inspect_ai.model
import pytest
from inspect_ai.event import ModelEvent
from inspect_ai.model import GenerateConfig, Model, ModelOutput, ModelUsage, ResponseSchema, get_model
from inspect_ai.util import JSONSchema

from forethought.errors import ConfigError, ModelError
from forethought.models.calls import run_calls
from forethought.models.callspec import (
    Call,
    CallProgress,
    CallResults,
    CallSettings,
    Price,
    Reject,
    content_key,
    cost_of,
    price_of,
)
from forethought.models.client import Server, open_model
from forethought.records import Message
from tests.mock_teacher import MockTeacher, Reply, Script, counts_of, server_process

MOCK = "openai-api/mock/teacher"
FAST = CallSettings(backoff_s=0.01)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOCK_API_KEY", "sk-secret")


def _calls(count: int) -> list[Call]:
    return [
        Call(key=f"row{n}", messages=(Message(role="user", content=f"say {n}"),), max_tokens=10) for n in range(count)
    ]


def _keep(key: str, text: str) -> str | Reject:
    return text


def _run(
    script: Script, count: int, journal: Path, settings: CallSettings = FAST, **rest: Any
) -> tuple[CallResults[str], MockTeacher]:
    with MockTeacher(script) as teacher:
        settings = settings.model_copy(update={"base_url": teacher.url})
        return run_calls(MOCK, _calls(count), journal, settings, rest.pop("accept", _keep), **rest), teacher


def _echo(messages: list[dict[str, str]], number: int) -> Reply:
    return Reply(messages[0]["content"].upper())


def test_every_call_gets_its_own_answer_in_the_order_of_the_calls(tmp_path: Path) -> None:
    results, teacher = _run(
        lambda messages, n: Reply(messages[0]["content"].upper(), seconds=random.Random(n).random() / 20),
        30,
        tmp_path / "j",
    )
    assert list(results.values.items()) == [(f"row{n}", f"SAY {n}") for n in range(30)]
    assert (results.dropped, results.rejected, len(teacher.bodies)) == ({}, {}, 30)
    assert (results.usage.calls, results.usage.reused) == (30, 0)


def test_a_second_run_asks_nothing_and_counts_the_same_tokens(tmp_path: Path) -> None:
    first, _ = _run(_echo, 5, tmp_path / "j")
    second, teacher = _run(_echo, 7, tmp_path / "j")
    assert len(teacher.bodies) == 2
    assert (second.usage.calls, second.usage.reused) == (2, 5)
    assert second.usage.input_tokens > first.usage.input_tokens
    assert len((tmp_path / "j").read_text().splitlines()) == 7


def test_a_rejected_answer_is_asked_again_with_the_reason_and_then_dropped(tmp_path: Path) -> None:
    def accept(key: str, text: str) -> str | Reject:
        if key == "row1":
            return Reject("never good")
        return text if text.endswith("2") else Reject("no two", "it does not end in two")

    results, teacher = _run(
        lambda messages, n: Reply(f"take {len(messages) // 2 + 1}"), 3, tmp_path / "j", accept=accept
    )
    assert results.values == {"row0": "take 2", "row2": "take 2"}
    assert results.dropped == {"row1": "never good"}
    assert results.rejected == {"no two": 2, "never good": 3}
    assert len(teacher.bodies) == 2 + 3 + 2
    second = next(body["messages"] for body in teacher.bodies if len(body["messages"]) == 3)
    assert [message["role"] for message in second] == ["user", "assistant", "user"]
    assert second[1]["content"] == "take 1"
    again = [body["messages"][2]["content"] for body in teacher.bodies if len(body["messages"]) == 3]
    assert any("it does not end in two" in said for said in again)
    # Rejected answers are in the journal, too: a second run pays for nothing.
    repeated, idle = _run(_echo, 3, tmp_path / "j", accept=accept)
    assert (repeated.values, repeated.dropped, repeated.rejected) == (results.values, results.dropped, results.rejected)
    assert idle.bodies == []


def test_an_answer_cut_at_its_limit_or_filtered_is_rejected_by_cause(tmp_path: Path) -> None:
    stops = iter(["max_tokens", "content_filter", "stop"])

    def answer(*_: Any) -> ModelOutput:
        output = ModelOutput.from_content("mock", "text", stop_reason=next(stops))  # type: ignore[arg-type]
        output.usage = ModelUsage(input_tokens=10, output_tokens=2)
        return output

    model = get_model("mockllm/model", custom_outputs=answer, memoize=False)
    results = run_calls(model, _calls(1), tmp_path / "j", FAST, _keep)
    assert results.values == {"row0": "text"}
    assert results.rejected == {"the answer was cut at its limit": 1, "the provider's filter stopped the answer": 1}
    assert (results.usage.input_tokens, results.usage.output_tokens) == (30, 6)


@pytest.mark.slow
def test_too_many_requests_lower_the_concurrency_and_lose_nothing(tmp_path: Path) -> None:
    teacher_of: list[MockTeacher] = []

    def script(messages: list[dict[str, str]], number: int) -> Reply:
        return Reply(status=429, seconds=0.02) if teacher_of[0].running > 6 else Reply("ok", seconds=0.1)

    seen: list[CallProgress] = []
    with MockTeacher(script) as teacher:
        teacher_of.append(teacher)
        settings = FAST.model_copy(
            update={"base_url": teacher.url, "concurrency": 24, "backoff_s": 0.1, "max_retries": 12}
        )
        results = run_calls(MOCK, _calls(60), tmp_path / "j", settings, _keep, on_progress=seen.append)
    assert len(results.values) == 60
    assert results.dropped == {}
    assert teacher.most_running > 6
    assert min(progress.concurrency for progress in seen) <= 12
    assert sum(teacher.answered.values()) == 60


@pytest.mark.slow
def test_a_busy_server_is_waited_for_as_long_as_was_chosen_where_inspects_own_retry_stops_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why inspect's retries and its limit on connections are off: one busy answer stops all that wait behind it."""

    def busy_once(messages: list[dict[str, str]], number: int) -> Reply:
        return Reply(status=429) if number == 0 else Reply("ok")

    took: list[float] = []
    config = GenerateConfig(max_connections=1, adaptive_connections=False, max_retries=2)

    async def ask_all(model: Model) -> None:
        async def ask(text: str) -> None:
            await model.generate(text, config=config)
            took.append(time.monotonic() - began)

        await asyncio.gather(*(ask(f"say {number}") for number in range(3)))

    # Of this name and key alone: inspect's limit is the one that the first call of a process asked for.
    monkeypatch.setenv("MOCK_API_KEY", "sk-other")
    with MockTeacher(busy_once) as teacher:
        began = time.monotonic()
        asyncio.run(ask_all(open_model("openai-api/mock/other", teacher.url)))
    assert min(took) > 2.5  # seconds, which nobody chose

    began = time.monotonic()
    assert len(_run(busy_once, 3, tmp_path / "j", CallSettings(concurrency=1, backoff_s=0.1))[0].values) == 3
    assert time.monotonic() - began < min(took)


def test_calls_do_not_stay_in_memory(tmp_path: Path) -> None:
    found: list[int] = []

    def told(progress: CallProgress) -> None:
        if progress.done == progress.total:
            gc.collect()
            found.append(sum(isinstance(one, ModelEvent) for one in gc.get_objects()))

    _run(_echo, 40, tmp_path / "j", FAST.model_copy(update={"concurrency": 2}), on_progress=told)
    assert found[0] <= 4  # of 40; it is theirs who are under way


def test_what_a_server_asks_to_wait_is_waited(tmp_path: Path) -> None:
    def script(messages: list[dict[str, str]], number: int) -> Reply:
        return Reply(status=429, headers={"Retry-After": "1"}) if number == 0 else Reply("ok")

    began = time.monotonic()
    results, _ = _run(script, 1, tmp_path / "j")
    assert results.values == {"row0": "ok"}
    assert time.monotonic() - began >= 0.9


@pytest.mark.parametrize(("status", "cause"), [(500, "server error (500)"), (429, "too many requests (429)")])
def test_a_row_the_provider_never_answers_is_dropped_with_its_cause(tmp_path: Path, status: int, cause: str) -> None:
    def script(messages: list[dict[str, str]], number: int) -> Reply:
        return Reply(status=status) if messages[0]["content"] == "say 1" else Reply("ok")

    results, teacher = _run(script, 4, tmp_path / "j", FAST.model_copy(update={"max_retries": 2}))
    assert list(results.values) == ["row0", "row2", "row3"]
    assert results.dropped == {"row1": cause}
    assert len(teacher.bodies) == 3 + 3  # the call and two retries
    # A failure is no answer: the next run asks again.
    again, _ = _run(_echo, 4, tmp_path / "j")
    assert again.values["row1"] == "SAY 1"


def test_a_silent_server_is_a_cause_not_a_crash(tmp_path: Path) -> None:
    def script(messages: list[dict[str, str]], number: int) -> Reply:
        return Reply("late", seconds=2) if messages[0]["content"] == "say 0" else Reply("ok")

    settings = FAST.model_copy(update={"timeout_s": 1, "max_retries": 0})
    results, _ = _run(script, 3, tmp_path / "j", settings)
    assert results.dropped == {"row0": "timed out"}
    assert list(results.values) == ["row1", "row2"]


@pytest.mark.parametrize(("status", "says"), [(401, "access denied"), (404, "not found")])
def test_a_wrong_key_or_name_ends_the_run_after_the_first_few(tmp_path: Path, status: int, says: str) -> None:
    with MockTeacher(lambda messages, n: Reply(status=status)) as teacher:
        settings = CallSettings(base_url=teacher.url, concurrency=4)
        with pytest.raises(ModelError, match=says) as raised:
            run_calls(MOCK, _calls(500), tmp_path / "j", settings, _keep)
    assert len(teacher.bodies) <= 8
    assert "sk-secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_key_that_expires_ends_the_run_and_keeps_the_answers(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="access denied"):
        _run(lambda messages, n: Reply("ok") if n < 20 else Reply(status=401), 100, tmp_path / "j")
    results, teacher = _run(_echo, 100, tmp_path / "j")
    assert len(results.values) == 100
    assert results.usage.reused == 20
    assert len(teacher.bodies) == 80


def test_no_server_at_all_ends_the_run(tmp_path: Path) -> None:
    settings = CallSettings(base_url="http://127.0.0.1:9/v1", max_retries=0)
    with pytest.raises(ModelError, match="no connection"):
        run_calls(MOCK, _calls(100), tmp_path / "j", settings, _keep)


def test_one_denied_call_among_good_ones_is_only_dropped(tmp_path: Path) -> None:
    def script(messages: list[dict[str, str]], number: int) -> Reply:
        return Reply(status=403) if messages[0]["content"] == "say 5" else Reply("ok")

    results, _ = _run(script, 12, tmp_path / "j", FAST.model_copy(update={"concurrency": 1}))
    assert results.dropped == {"row5": "access denied (403)"}


def test_calls_of_the_same_content_are_asked_once(tmp_path: Path) -> None:
    calls = [call.model_copy(update={"messages": _calls(1)[0].messages}) for call in _calls(6)]
    with MockTeacher(_echo) as teacher:
        results = run_calls(MOCK, calls, tmp_path / "j", CallSettings(base_url=teacher.url), _keep)
    assert results.values == {f"row{n}": "SAY 0" for n in range(6)}
    assert len(teacher.bodies) == 1
    with pytest.raises(ConfigError, match="twice"):
        run_calls(MOCK, [calls[0], calls[0]], tmp_path / "j", CallSettings(base_url=teacher.url), _keep)


def test_the_key_covers_all_that_changes_the_answer_and_not_the_address() -> None:
    messages = _calls(1)[0].messages
    base = content_key("m", messages, 10, FAST, None, 1)
    other = CallSettings(temperature=0.5)
    different = [
        content_key("n", messages, 10, FAST, None, 1),
        content_key("m", _calls(2)[1].messages, 10, FAST, None, 1),
        content_key("m", messages, 11, FAST, None, 1),
        content_key("m", messages, 10, other, None, 1),
        content_key("m", messages, 10, CallSettings(seed=1), None, 1),
        content_key("m", messages, 10, FAST, {"type": "object"}, 1),
        content_key("m", messages, 10, FAST, None, 2),
    ]
    assert len({base, *different}) == 8
    elsewhere = CallSettings(base_url="http://x", concurrency=3, max_retries=1)
    assert content_key("m", messages, 10, elsewhere, None, 1) == base


def test_the_schema_reaches_the_provider_unless_it_is_turned_off(tmp_path: Path) -> None:
    schema = ResponseSchema(name="word", json_schema=JSONSchema(type="object"), strict=True)
    for structured in (True, False):
        settings = FAST.model_copy(update={"structured": structured, "temperature": 0.5, "thinking_tokens": 7})
        _, teacher = _run(_echo, 1, tmp_path / str(structured), settings, schema=schema)
        (body,) = teacher.bodies
        assert ("response_format" in body) is structured
        assert body["temperature"] == 0.5
        assert 17 in (body.get("max_tokens"), body.get("max_completion_tokens"))


def _child(url: str, journal: Path) -> None:
    run_calls(MOCK, _calls(120), journal, CallSettings(base_url=url, concurrency=8), _keep)


@pytest.mark.slow
def test_trap_11_a_run_killed_at_any_moment_goes_on_where_it_was(tmp_path: Path) -> None:
    """SIGKILL five times: every row once in the end, and only calls that were in flight are asked again."""
    journal, kills, in_flight = tmp_path / "j", 5, 8
    rng = random.Random(0)
    with server_process(seconds=0.03) as url:
        for _ in range(kills):
            stop_after = counts_of(url)["calls"] + rng.randint(8, 24)
            child = multiprocessing.get_context("fork").Process(target=_child, args=(url, journal))
            child.start()
            deadline = time.monotonic() + 60
            while counts_of(url)["calls"] < stop_after and time.monotonic() < deadline:
                time.sleep(rng.random() / 50)
            child.kill()
            child.join()
            assert child.exitcode == -signal.SIGKILL
        settings = CallSettings(base_url=url, concurrency=8)
        results = run_calls(MOCK, _calls(120), journal, settings, _keep)
        assert 0 < results.usage.reused < 120
        counts = counts_of(url)
        assert run_calls(MOCK, _calls(120), journal, settings, _keep).values == results.values
        assert counts_of(url) == counts  # nothing was left to ask
    assert len(results.values) == 120
    keys = [json.loads(line)["id"] for line in journal.read_text().splitlines()]
    assert len(keys) == len(set(keys)) == 120
    assert counts["distinct"] == 120
    assert 120 <= counts["calls"] <= 120 + kills * in_flight


def test_progress_tells_rows_tokens_and_cost(tmp_path: Path) -> None:
    seen: list[CallProgress] = []
    settings = FAST.model_copy(update={"price": Price(input=2.0, output=8.0), "concurrency": 1})
    results, _ = _run(_echo, 4, tmp_path / "j", settings, on_progress=seen.append)
    assert [(progress.done, progress.total) for progress in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    usage = results.usage
    assert usage.cost == pytest.approx((usage.input_tokens * 2 + usage.output_tokens * 8) / 1e6)
    assert usage.cost is not None
    assert usage.cost > 0
    assert seen[-1].rate > 0
    assert seen[-1].concurrency == 1
    unknown, _ = _run(_echo, 4, tmp_path / "j")
    assert unknown.usage.cost is None


def test_cached_tokens_cost_what_they_cost() -> None:
    price = Price(input=2.0, output=10.0, cached_input=0.5)
    # 600,000 in full, 400,000 from the cache, 100,000 out: 1.2 + 0.2 + 1.0
    assert cost_of(1_000_000, 100_000, 400_000, price) == pytest.approx(2.4)
    assert cost_of(1_000_000, 100_000, 400_000, Price(input=2.0, output=10.0)) == pytest.approx(3.0)
    assert cost_of(1, 1, 0, None) is None


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ModelError, match="pip install openai"):
        open_model(MOCK)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("vllm/some/model", "--base-url"),
        ("sglang/some/model", "--base-url"),
        ("hf/some/model", "forethought/FOLDER"),
        ("model", "PROVIDER/NAME"),
        ("nobody/model", "nobody"),
        ("openai-api/other/model", "OTHER_API_KEY"),
    ],
)
def test_a_model_that_cannot_be_opened_is_one_clear_error(
    name: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_BASE_URL", raising=False)
    with pytest.raises(ModelError, match=says) as raised:
        open_model(name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("provider", ["vllm", "sglang", "openai", "openai-api/mock"])
def test_a_compatible_server_is_used_by_its_address(
    provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with MockTeacher(_echo) as teacher:
        settings = CallSettings(base_url=teacher.url)
        results = run_calls(f"{provider}/some/model", _calls(3), tmp_path / "j", settings, _keep)
    assert list(results.values.values()) == ["SAY 0", "SAY 1", "SAY 2"]
    assert teacher.bodies[0]["model"] == "some/model"


def test_a_server_on_this_machine_needs_no_key_and_one_elsewhere_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MOCK_API_KEY")
    results, _ = _run(_echo, 1, tmp_path / "j")
    assert results.values == {"row0": "SAY 0"}
    for url in ("https://models.example.com/v1", None):
        with pytest.raises(ModelError, match="MOCK_API_KEY is not set"):
            open_model(MOCK, url)


# How many calls a server takes


def _round(server: Server, seconds: float = 1.0) -> None:
    """One call for every place, all at once."""
    for epoch in [server.enter() for _ in range(server.limit)]:
        server.answered(epoch, seconds)
        server.leave()


def _server(start: int, most: int) -> Server:
    return Server(get_model("mockllm/model", memoize=False), start, most)


def test_a_chosen_concurrency_is_where_it_starts_and_its_bound() -> None:
    server = _server(start=100, most=100)
    _round(server)
    assert server.limit == 100


def test_it_doubles_until_the_first_cut_then_grows_by_steps() -> None:
    server = _server(start=16, most=128)
    limits = [server.limit]
    for _ in range(3):
        _round(server)
        limits.append(server.limit)
    assert limits == [16, 32, 64, 128]
    server.refused(server.enter())
    server.leave()
    assert server.limit == 64
    _round(server)
    assert server.limit == 64 + 12


def test_one_burst_is_one_cut_and_old_calls_say_nothing_about_the_new_limit() -> None:
    server = _server(start=40, most=40)
    epochs = [server.enter() for _ in range(40)]
    for epoch in epochs[:20]:
        server.refused(epoch)
    assert server.limit == 20
    for epoch in epochs[20:]:
        server.answered(epoch, 1.0)
    assert server.limit == 20


def test_slow_answers_lower_it_and_quick_ones_raise_it_again() -> None:
    server = _server(start=50, most=50)
    _round(server, 1.0)
    _round(server, 2.9)
    assert server.limit == 50
    _round(server, 3.1)
    assert server.limit == 40
    _round(server, 1.0)
    assert server.limit == 45


def test_it_never_falls_below_one_and_grows_only_when_it_was_full() -> None:
    server = _server(start=2, most=64)
    for _ in range(5):
        server.refused(server.enter())
        server.leave()
    assert server.limit == 1
    idle = _server(start=20, most=64)
    for _ in range(40):  # one at a time
        idle.answered(idle.enter(), 1.0)
        idle.leave()
    assert idle.limit == 20


def test_after_a_failure_one_call_at_a_time_tries_until_one_is_answered() -> None:
    server = _server(start=4, most=4)
    epochs = [server.enter() for _ in range(4)]
    assert [server.broke(epoch, call) for call, epoch in enumerate(epochs)] == [True, False, False, False]
    for _ in epochs:
        server.leave()
    trial = server.enter()
    assert not server.is_free
    server.answered(trial, 1.0)
    assert server.is_free


def test_a_price_that_is_given_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[Model] = []
    monkeypatch.setattr(inspect_ai.model, "get_model_info", looked_up.append)
    model = get_model("mockllm/model")
    price = Price(input=2.0, output=10.0)
    assert price_of(model, price) == price
    assert looked_up == []
    assert price_of(model, None) is None
    assert looked_up == [model]
