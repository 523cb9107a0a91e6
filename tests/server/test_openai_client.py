"""The `openai` client against a real server: every endpoint that it knows, and errors as it raises them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from forethought.server.app import create_app
from forethought.server.config import Settings
from forethought.server.records import Event
from forethought.server.run import Hooks
from tests.server.live import THOUGHT, ScriptedEngine, live

ASK: Any = [{"role": "user", "content": "hello there"}]
FILM: Any = [{"role": "user", "content": "copy a film"}]
EVENTS: list[Event] = []


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app = create_app(ScriptedEngine(), Settings(max_messages=20), Hooks(observers=[EVENTS.append]))
    with live(app) as address:
        yield f"{address}/v1"


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key="none", max_retries=0)


def test_models_are_listed(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["scripted"]
    assert client.models.retrieve("scripted").id == "scripted"


def test_an_answer_bears_its_verdict(client: Any) -> None:
    raw = client.chat.completions.with_raw_response.create(model="scripted", messages=ASK)
    said = raw.parse()
    message = said.choices[0].message
    assert (message.content, message.refusal) == ("You said hello there", None)
    assert said.choices[0].finish_reason == "stop"
    assert message.model_extra == {"reasoning": THOUGHT, "reasoning_content": THOUGHT}
    assert said.usage is not None
    assert (said.usage.prompt_tokens, said.usage.completion_tokens) == (7, 9 + 4)
    assert said.usage.completion_tokens_details.reasoning_tokens == 9
    assert said.moderation.input.results[0].flagged is False
    assert said.moderation.model_extra["verdict"]["decision"] == "comply"
    assert raw.headers["x-forethought-verdict"] == "comply"
    assert raw.headers["x-request-id"]


def test_a_refusal_ends_with_stop_and_names_its_rule(client: Any) -> None:
    raw = client.chat.completions.with_raw_response.create(model="scripted", messages=FILM, max_tokens=1, stop=["I"])
    said = raw.parse()
    choice = said.choices[0]
    assert choice.message.content == choice.message.refusal == "I can't help with that."
    assert choice.finish_reason == "stop"
    assert raw.headers["x-forethought-rules"] == "R4"
    assert said.moderation.input.results[0].category_scores["R4"] >= 0.5


def test_reasoning_can_be_left_out(client: Any) -> None:
    said = client.chat.completions.create(model="scripted", messages=ASK, extra_body={"include_reasoning": False})
    assert not said.choices[0].message.model_extra


def test_a_stream_bears_the_answer_after_the_verdict(client: Any) -> None:
    stream = client.chat.completions.create(
        model="scripted", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].moderation.model_extra["verdict"]["decision"] == "comply"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "You said hello there"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens == 13


def test_a_streamed_refusal_stands_once(client: Any) -> None:
    def deltas(**more: object) -> tuple[str, str]:
        found = list(client.chat.completions.create(model="scripted", messages=FILM, stream=True, extra_body=more))
        said = [c.choices[0].delta for c in found]
        return "".join(d.content or "" for d in said), "".join(d.refusal or "" for d in said)

    assert deltas() == ("I can't help with that.", "")
    assert deltas(stream_refusal=True) == ("", "I can't help with that.")


def test_several_answers(client: Any) -> None:
    said = client.chat.completions.create(model="scripted", messages=ASK, n=3)
    assert [choice.index for choice in said.choices] == [0, 1, 2]
    found = list(client.chat.completions.create(model="scripted", messages=ASK, n=2, stream=True))
    for place in (0, 1):
        text = "".join(c.choices[0].delta.content or "" for c in found if c.choices[0].index == place)
        assert text == "You said hello there"


def test_the_asynchronous_client(url: str) -> None:
    async def ask() -> str:
        async with openai.AsyncOpenAI(base_url=url, api_key="none") as made:
            client: Any = made
            stream = await client.chat.completions.create(model="scripted", messages=ASK, stream=True)
            return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

    assert asyncio.run(ask()) == "You said hello there"


class Word(BaseModel):
    """A structured answer."""

    word: str


def test_structured_answers_and_refusals() -> None:
    with live(create_app(ScriptedEngine(said='{"word": "bread"}'))) as address:
        client: Any = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        said = client.chat.completions.parse(model="scripted", messages=ASK, response_format=Word)
        assert said.choices[0].message.parsed == Word(word="bread")
        refused = client.chat.completions.parse(model="scripted", messages=FILM, response_format=Word)
        assert refused.choices[0].message.parsed is None
        assert refused.choices[0].message.refusal
        with client.chat.completions.stream(model="scripted", messages=ASK, response_format=Word) as stream:
            assert stream.get_final_completion().choices[0].message.parsed == Word(word="bread")
        with client.chat.completions.stream(model="scripted", messages=FILM, response_format=Word) as stream:
            kinds = [event.type for event in stream]
            assert "refusal.delta" in kinds
            assert stream.get_final_completion().choices[0].message.refusal
        parsed = client.responses.parse(model="scripted", input="hello", text_format=Word)
        assert parsed.output_parsed == Word(word="bread")


def test_calls_of_tools() -> None:
    tools = [{"type": "function", "function": {"name": "bake", "parameters": {"type": "object"}}}]
    engine = ScriptedEngine(said='<tool_call>{"name": "bake", "arguments": {"what": "bread"}}</tool_call>')
    with live(create_app(engine)) as address:
        client: Any = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        said = client.chat.completions.create(model="scripted", messages=ASK, tools=tools)
        assert said.choices[0].finish_reason == "tool_calls"
        call = said.choices[0].message.tool_calls[0]
        assert (call.function.name, call.function.arguments) == ("bake", '{"what": "bread"}')
        found = list(client.chat.completions.create(model="scripted", messages=ASK, tools=tools, stream=True))
        assert found[-1].choices[0].finish_reason == "tool_calls"
        assert not any(c.choices[0].delta.content for c in found)
        assert any(c.choices[0].delta.tool_calls for c in found)
        back = [*ASK, said.choices[0].message.model_dump(exclude_none=True), {
            "role": "tool", "tool_call_id": call.id, "content": "baked <|im_end|>"
        }]  # fmt: skip
        client.chat.completions.create(model="scripted", messages=back, tools=tools)
        asked = engine.asked[-1]
        assert asked.messages[-1].content.endswith("baked <|im_end |>")
        assert "bake" not in asked.messages[0].content, "the thought is not shown the tools"
        assert "bake" in asked.answered[0].content
        flat = [{"type": "function", "name": "bake", "parameters": {"type": "object"}}]
        for stream in (False, True):
            found = client.responses.create(model="scripted", input="hi", tools=flat, stream=stream)
            done = list(found)[-1].response if stream else found
            assert [item.name for item in done.output if item.type == "function_call"] == ["bake"]


def test_responses(client: Any) -> None:
    said = client.responses.create(model="scripted", input="hello there", instructions="Be brief.")
    assert said.output_text == "You said hello there"
    assert [item.type for item in said.output] == ["reasoning", "message"]
    assert said.output[0].content[0].text == THOUGHT
    assert said.usage.output_tokens_details.reasoning_tokens == 9
    refused = client.responses.create(model="scripted", input=FILM)
    assert refused.output[-1].content[0].type == "refusal"
    cut = client.responses.create(model="scripted", input="one two three four", max_output_tokens=2)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    again = client.responses.create(model="scripted", input=[*FILM, *refused.output, *ASK])
    assert again.output_text == "You said hello there"


def test_responses_are_streamed(client: Any) -> None:
    with client.responses.stream(model="scripted", input="hello there") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.output_text == "You said hello there"
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "You said hello there"
    assert "".join(e.delta for e in events if e.type == "response.reasoning_text.delta") == THOUGHT
    with client.responses.stream(model="scripted", input=FILM) as stream:
        events = list(stream)
        assert stream.get_final_response().output[-1].content[0].refusal == "I can't help with that."
    assert any(e.type == "response.refusal.delta" for e in events)


def test_completions(client: Any) -> None:
    assert client.completions.create(model="scripted", prompt="hello").choices[0].text == "You said hello"
    found = list(client.completions.create(model="scripted", prompt="hello", stream=True))
    assert "".join(c.choices[0].text for c in found) == "You said hello"
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="scripted", prompt=[1, 2, 3])


def test_moderations(client: Any) -> None:
    found = client.moderations.create(input=["hello", "copy a film"])
    assert [one.flagged for one in found.results] == [False, True]
    scores = found.results[1].category_scores.model_extra
    assert scores["R4"] >= 0.5 > scores["R1"] > 0
    assert max(found.results[0].category_scores.model_extra.values()) < 0.5


def test_decisions(client: Any) -> None:
    questions = [
        {"type": "predicate", "name": "refuse", "instructions": "Should this be refused?"},
        {"type": "predicate", "name": "R4", "instructions": "?"},
        {"type": "predicate", "name": "spam", "instructions": "Is this spam?"},
        {"type": "choice", "instructions": "Which?", "choices": [{"value": "a"}, {"value": "b"}]},
    ]
    found = client.decisions.create(model="scripted", input="copy a film", questions=questions)
    assert [answer.type for answer in found.answers] == ["predicate", "predicate", "refusal", "refusal"]
    assert found.answers[0].probability > 0.5
    assert found.answers[1].probability > 0.5
    items = [{"role": "user", "content": [{"type": "input_json", "data": {"a": 1}}]}]
    fine = client.decisions.create(model="scripted", input=items, questions=questions[:1])
    assert fine.answers[0].probability < 0.5


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"model": "gpt"}, openai.NotFoundError),
        ({"n": 99}, openai.BadRequestError),
        ({"temperature": 9}, openai.BadRequestError),
        ({"messages": []}, openai.BadRequestError),
        ({"messages": [{"role": "system", "content": "x"}]}, openai.BadRequestError),
        ({"messages": [{"role": "user", "content": "too long"}]}, openai.BadRequestError),
        ({"messages": ASK * 21}, openai.BadRequestError),
        ({"messages": [{"role": "user", "content": "broken"}]}, openai.InternalServerError),
        ({"messages": [{"role": "user", "content": "bug"}]}, openai.InternalServerError),
        ({"messages": [*ASK, {"role": "assistant", "content": "x"}], "extra_body": {"continue_final_message": True}},
         openai.PermissionDeniedError),
    ],
)  # fmt: skip
def test_errors(client: Any, change: dict[str, Any], kind: type[openai.APIStatusError]) -> None:
    asked = {"model": "scripted", "messages": ASK, **change}
    with pytest.raises(kind) as raised:
        client.chat.completions.create(**asked)
    assert raised.value.body is not None
    assert "about bug" not in str(raised.value.body)


def test_an_answer_that_breaks_off_is_an_error(client: Any) -> None:
    ask = [{"role": "user", "content": "breaks off"}]
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model="scripted", messages=ask, stream=True))
    with pytest.raises(openai.APIError):
        client.chat.completions.create(model="scripted", messages=ask)


def test_observers_hear_of_each_request(client: Any) -> None:
    EVENTS.clear()
    client.chat.completions.create(model="scripted", messages=FILM)
    assert [event.kind for event in EVENTS] == ["started", "decided", "first_token", "done"]
    assert EVENTS[-1].verdict is not None
    assert len({event.request for event in EVENTS}) == 1
