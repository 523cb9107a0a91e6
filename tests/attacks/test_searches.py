"""Searches by what suites write, and the writers that answer for attacker and evaluator."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from inspect_ai.model import ModelOutput, get_model

from forethought.attacks.catalogue import load_suite
from forethought.attacks.rewritten import EMPTY
from forethought.attacks.searches.base import Reply, Write, all_searches, parse_method
from forethought.attacks.searches.models import LocalWriter, RemoteWriter, text_model
from forethought.errors import ConfigError, ModelError
from forethought.models.callspec import CallSettings
from forethought.models.conversation import Conversation, Failed, Response
from forethought.records import Message
from tests.mock_teacher import MockTeacher
from tests.mock_teacher import Reply as Answered
from tests.scripted import Scripted


@pytest.mark.parametrize(
    ("written", "name", "chosen"),
    [
        ("pair", "pair", {}),
        ("best_of_n:100", "best_of_n:n=100", {"n": 100}),
        ("best_of_n:n=100,sigma=0.2", "best_of_n:n=100,sigma=0.2", {"n": 100, "sigma": 0.2}),
        (" best_of_n : sigma = 0.2 , n = 100 ", "best_of_n:n=100,sigma=0.2", {"n": 100, "sigma": 0.2}),
        ("best_of_n:sigma=0.4,n=10000", "best_of_n", {}),
        ("gcg:loss=mellowmax", "gcg:loss=mellowmax", {"loss": "mellowmax"}),
    ],
)
def test_one_search_has_one_name(written: str, name: str, chosen: dict[str, object]) -> None:
    method = parse_method(written)
    assert (method.name, method.chosen) == (name, chosen)
    assert method.options == {**all_searches()[name.partition(":")[0]].options, **chosen}
    assert parse_method(method.name) == method


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("pairs", "no such search.*pair"),
        ("", "no such search"),
        ("best_of_n:m=4", "no option 'm'.*It takes n, sigma, batch"),
        ("best_of_n:n=0", "1 to 1000000"),
        ("best_of_n:n=2.5", "whole number"),
        ("best_of_n:sigma=high", "not a number"),
        ("best_of_n:sigma=1.1", "0 to 1"),
        ("best_of_n:sigma=nan", "out of range"),
        ("best_of_n:3,n=4", "twice"),
        ("gcg:loss=l2", "cross_entropy, mellowmax"),
    ],
)
def test_a_mistake_is_named(written: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_method(written)


def test_every_search_is_told_in_full_and_its_defaults_are_in_range() -> None:
    for name, method in all_searches().items():
        assert method.name == name
        assert "arXiv" in method.paper
        assert method.title
        assert method.cost
        assert method.queries > 0
        for parameter in method.parameters:
            assert parameter.default is not None, (name, parameter.name)
            assert parameter.read(name, parameter.default) == parameter.default
        assert method.white_box == bool({"gradients", "log_probs"} & set(method.needs))


def test_the_suite_adaptive_holds_every_search() -> None:
    assert set(load_suite("adaptive").adaptive) == set(all_searches())


@pytest.mark.slow
def test_the_catalogue_loads_no_heavy_library() -> None:
    code = "import forethought.attacks.catalogue, sys; print(*({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == []


def write(text: str, take: int = 0, **fields: object) -> Write:
    messages = ({"role": "user", "content": text},)
    return Write.model_validate({"role": "attacker", "messages": messages, "take": take, **fields})


def written_by(model: object, *asked: Write) -> list[Reply]:
    last: dict[int, Reply] = {}
    text_model(model).write(asked, last.__setitem__)  # type: ignore[arg-type]
    return [last[place] for place in range(len(asked))]


def test_a_local_model_writes_and_takes_are_numbered_in_its_prompt() -> None:
    def answer(conversation: Conversation) -> str | Failed | Response:
        said = conversation.messages[-1].content
        return Failed(cause="too long") if "long" in said else " " if "silent" in said else said.upper()

    model = Scripted(answer, name="little")
    found = written_by(
        model, write("a"), write("a", 3), write("a", 3, temperature=0.0), write("long"), write("silent"),
        write("b", max_tokens=9),
    )  # fmt: skip
    assert [one.text for one in found] == ["A", "A\n\n(DRAFT 3.)", "A", None, None, "B"]
    assert [one.cause for one in found] == ["", "", "", "too long", EMPTY, ""]
    assert (found[0].tokens, found[4].tokens) == (12, 12)
    assert model.limits == [9, 512]
    assert text_model(model).name == "little"


def test_a_model_of_inspect_writes_each_take_apart_with_tokens() -> None:
    def script(messages: list[dict[str, str]], number: int) -> Answered:
        return Answered("" if "silent" in messages[-1]["content"] else f"text {number}")

    told: list[tuple[int, Reply]] = []
    long, other = "a" * 40, "b" * 40
    with MockTeacher(script) as server:
        settings = CallSettings(base_url=server.url, attempts=1, max_retries=0)
        asked = [write(long, 1), write(long, 2), write(other, 1), write("silent"), write(long, temperature=0.0)]
        RemoteWriter("openai/gpt-4o", settings).write(asked, lambda place, one: told.append((place, one)))
    last = dict(told)
    texts = {last[place].text for place in (0, 1, 2, 4)}
    assert len(texts) == 4
    assert None not in texts
    assert (last[3].text, last[3].cause) == (None, EMPTY)
    assert last[0].tokens == 11  # 40 characters and 6 at four a token
    assert [place for place, _ in told].count(0) == 2  # at once, so that it is kept, and again with its tokens
    assert len({body["seed"] for body in server.bodies}) == 3
    assert {body["temperature"] for body in server.bodies} == {1.0, 0.0}


def test_a_server_that_never_answers_is_a_broken_set_up_and_one_that_dies_fails_its_texts() -> None:
    up = [False]
    with MockTeacher(lambda messages, number: Answered("text") if up[0] else Answered("", status=401)) as server:
        writer = RemoteWriter("openai/gpt-4o", CallSettings(base_url=server.url, attempts=1, max_retries=0))
        with pytest.raises(ModelError):
            writer.write([write("a")], lambda place, one: None)
        up[0] = True
        last: dict[int, Reply] = {}
        writer.write([write("a")], last.__setitem__)
        assert last[0].text == "text"
        up[0] = False
        writer.write([write("b"), write("c")], last.__setitem__)
    assert [last[place].text for place in (0, 1)] == [None, None]
    assert all(last[place].cause for place in (0, 1))


def test_a_scripted_model_of_inspect_can_be_given_as_it_is() -> None:
    model = get_model("mockllm/model", custom_outputs=[ModelOutput.from_content("mockllm", "said")])
    assert isinstance(text_model(model), RemoteWriter)
    assert isinstance(text_model("openai/x"), RemoteWriter)
    assert isinstance(text_model(Scripted(lambda conversation: "x")), LocalWriter)


def test_prompts_are_sent_whole() -> None:
    with MockTeacher(lambda messages, number: Answered(json.dumps([m["role"] for m in messages]))) as server:
        writer = RemoteWriter("openai/gpt-4o", CallSettings(base_url=server.url, attempts=1))
        last: dict[int, Reply] = {}
        turns = tuple(Message(role=role, content=role) for role in ("system", "user", "assistant", "user"))
        writer.write([Write(role="attacker", messages=turns)], last.__setitem__)
    assert json.loads(str(last[0].text)) == ["system", "user", "assistant", "user"]


def test_the_writer_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with MockTeacher(lambda messages, number: Answered("text")) as server:
        RemoteWriter("openai/gpt-4o", CallSettings(base_url=server.url, attempts=1)).write(
            [write("a")], lambda *_: None
        )
    assert list(tmp_path.iterdir()) == []
