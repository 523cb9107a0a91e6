"""The local model: think, decide, answer; loading and saving; own answers that resume."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from forethought.data.answers import own_answers
from forethought.errors import ModelError
from forethought.models import weights as weights_module
from forethought.models.conversation import Conversation, Response
from forethought.models.decode import Row
from forethought.models.local import LocalModel
from forethought.models.settings import EMBEDDED, Settings, read_settings, write_settings
from forethought.models.weights import base_of, merge_adapter
from forethought.policy import default_policy
from forethought.records import Message, user_request
from tests.scripted import as_messages
from tests.tiny import Scripted, tiny_adapter, tiny_folder, tiny_model, tiny_tokenizer

TEXTS = ("Hello", "What is the capital of Norway?", "Name three kinds of pasta.")
CONVERSATIONS = [as_messages(text) for text in TEXTS]


@pytest.fixture(scope="module")
def base() -> LocalModel:
    return LocalModel.load(str(tiny_folder()), dtype="float32")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_adapter(tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="module")
def thinker(adapter: Path) -> LocalModel:
    return LocalModel.load(str(tiny_folder()), adapter, dtype="float32")


def test_base_answers_without_reasoning(base: LocalModel) -> None:
    responses = base.respond(CONVERSATIONS, 6)
    assert not base.thinks
    assert len(responses) == 3
    for response in responses:
        assert (response.reasoning, response.decision, response.log_odds) == (None, None, None)
        assert 0 < response.answer_tokens <= 6
        assert response.prompt_tokens > 0


def test_base_answer_is_what_generate_writes(base: LocalModel) -> None:
    tokenizer, model = tiny_tokenizer(), tiny_model()
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**inputs, do_sample=False, max_new_tokens=8, pad_token_id=0)
    expected = tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert base.respond(CONVERSATIONS[:1], 8)[0].answer == expected


def test_every_thought_ends_in_a_verdict(thinker: LocalModel) -> None:
    for response in thinker.respond(CONVERSATIONS, 5, think_budget=6):
        assert response.decision in {"refuse", "comply"}
        assert response.log_odds is not None
        assert math.isfinite(response.log_odds)
        assert response.cause  # a random model's verdict has to be asked for, and that is said
        assert response.reasoning_tokens > 0


def test_threshold_moves_the_decision_and_not_the_odds(thinker: LocalModel) -> None:
    refusing = thinker.respond(CONVERSATIONS, 4, think_budget=6, threshold=-math.inf)
    complying = thinker.respond(CONVERSATIONS, 4, think_budget=6, threshold=math.inf)
    assert {response.decision for response in refusing} == {"refuse"}
    assert {response.decision for response in complying} == {"comply"}
    assert [r.log_odds for r in refusing] == [c.log_odds for c in complying]


def test_own_operating_point_is_used(adapter: Path, tmp_path: Path) -> None:
    for threshold, decision in ((-1e9, "refuse"), (1e9, "comply")):
        folder = tiny_adapter(tmp_path / decision, threshold=threshold)
        model = LocalModel.load(str(folder), dtype="float32")
        assert model.respond(CONVERSATIONS[:1], 2, think_budget=4)[0].decision == decision


def test_split_answer_is_the_base_models_own(thinker: LocalModel, base: LocalModel) -> None:
    """After `comply` the answer comes from the base weights, without the thought in its context."""
    complying = thinker.respond(CONVERSATIONS, 8, think_budget=6, threshold=math.inf)
    own = base.respond(CONVERSATIONS, 8)
    assert [response.answer for response in complying] == [response.answer for response in own]
    assert [response.answer_tokens for response in complying] == [response.answer_tokens for response in own]


def test_adapter_that_is_switched_off_answers_as_the_base(
    adapter: Path, thinker: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large model isn't merged: the same answers must come from one set of weights."""
    monkeypatch.setattr(weights_module, "_LARGE", 0)
    switching = LocalModel.load(str(tiny_folder()), adapter, dtype="float32")
    assert isinstance(switching.model, PeftModel)
    merged = thinker.respond(CONVERSATIONS, 6, think_budget=6, threshold=math.inf)
    got = switching.respond(CONVERSATIONS, 6, think_budget=6, threshold=math.inf)
    assert [response.answer for response in got] == [response.answer for response in merged]
    for one, other in zip(got, merged, strict=True):
        assert one.log_odds == pytest.approx(other.log_odds, abs=1e-3)


def test_answer_with_adapter_goes_on_after_the_thought(tmp_path: Path, base: LocalModel) -> None:
    folder = tiny_adapter(tmp_path, answer_with="adapter")
    model = LocalModel.load(str(folder), dtype="float32")
    responses = model.respond(CONVERSATIONS, 8, think_budget=6, threshold=math.inf)
    assert [r.answer for r in responses] != [r.answer for r in base.respond(CONVERSATIONS, 8)]


def test_known_answers_are_not_asked_again(adapter: Path, base: LocalModel) -> None:
    model = LocalModel.load(str(tiny_folder()), adapter, dtype="float32")
    known = base.respond(CONVERSATIONS[:1], 8)[0].model_copy(update={"answer": "from before"})
    model.known_answers[(model.prompt_text(CONVERSATIONS[0]), 8)] = known
    answers = [r.answer for r in model.respond(CONVERSATIONS, 8, think_budget=6, threshold=math.inf)]
    assert answers[0] == "from before"
    assert answers[1:] == [r.answer for r in base.respond(CONVERSATIONS[1:], 8)]
    # Another length is another answer.
    assert model.respond(CONVERSATIONS[:1], 4, think_budget=6, threshold=math.inf)[0].answer != "from before"


@pytest.fixture
def unthinking(tmp_path: Path) -> Path:
    """A trained model that does not think, as refusal training leaves it."""
    return tiny_adapter(tmp_path / "refusal", method="refusal", thinks=False, answer_with="adapter")


def test_a_trained_model_that_does_not_think_answers_with_its_own_weights(
    unthinking: Path, base: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LocalModel.load(str(unthinking), dtype="float32")
    assert (model.trained, model.thinks, model.able.budget) == (True, False, False)
    responses = model.respond(CONVERSATIONS, 8)
    adapted: Any = PeftModel.from_pretrained(tiny_model(), str(unthinking)).eval()
    plain = LocalModel(adapted, tiny_tokenizer(), None)
    assert [one.answer for one in responses] == [one.answer for one in plain.respond(CONVERSATIONS, 8)]
    assert [one.answer for one in responses] != [one.answer for one in base.respond(CONVERSATIONS, 8)]
    for one in responses:
        assert (one.reasoning_text, one.decision, one.log_odds, one.cause) == ("", None, None, "")
    # A large model isn't merged: its adapter stays on while it answers.
    monkeypatch.setattr(weights_module, "_LARGE", 0)
    switching = LocalModel.load(str(unthinking), dtype="float32")
    assert isinstance(switching.model, PeftModel)
    assert [one.answer for one in switching.respond(CONVERSATIONS, 8)] == [one.answer for one in responses]


def test_it_neither_thinks_nor_takes_the_bases_answers(unthinking: Path) -> None:
    model = LocalModel.load(str(unthinking), dtype="float32")
    own = model.respond(CONVERSATIONS[:1], 8)[0].answer
    model.known_answers[(model.prompt_text(CONVERSATIONS[0]), 8)] = Response(answer="the base's")
    assert model.respond(CONVERSATIONS[:1], 8)[0].answer == own
    with pytest.raises(ModelError, match="not trained to reason"):
        model.think(CONVERSATIONS)


def test_its_turn_can_be_begun_for_it(unthinking: Path) -> None:
    model = LocalModel.load(str(unthinking), dtype="float32")
    (reply,) = model.reply([Conversation(messages=CONVERSATIONS[0], prefill="<think>\nVerdict:")], 4)
    assert isinstance(reply, Response)
    assert reply.answer.startswith("<think>\nVerdict:")
    assert reply.decision is None


def test_settings_of_before_there_were_methods_are_read(tmp_path: Path) -> None:
    settings = Settings(policy=default_policy(), threshold=0.5)
    old = settings.model_dump_json(exclude={"method", "thinks"})
    (tmp_path / "forethought.json").write_text(old)
    read = read_settings(tmp_path)
    assert read == settings
    assert (read.method, read.thinks, read.answer_with) == ("scot", True, "base")


def test_thoughts_alone_have_the_same_odds(thinker: LocalModel) -> None:
    done: list[int] = []
    thoughts = thinker.think(CONVERSATIONS, think_budget=6, on_done=done.append)
    full = thinker.respond(CONVERSATIONS, 4, think_budget=6)
    assert [t.log_odds for t in thoughts] == [pytest.approx(f.log_odds, abs=1e-4) for f in full]
    assert {thought.answer for thought in thoughts} == {""}
    assert sum(done) == 3


def test_base_model_can_not_think(base: LocalModel) -> None:
    with pytest.raises(ModelError, match="not trained to reason"):
        base.think(CONVERSATIONS)


def test_trap_5_real_turns_stand_in_the_prompt(base: LocalModel) -> None:
    """The user's words, and a system prompt where there is one, are in what the model sees."""
    text = base.prompt_text(as_messages("Where do puffins nest?", "Be brief."))
    assert "Where do puffins nest?" in text
    assert "Be brief." in text


def test_reasoning_and_answer_are_cut_apart(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished row whose text is known: what stands before the closing tag is thought, what follows is answer."""
    model = LocalModel.load(str(tiny_folder()), adapter, dtype="float32")
    text = "Intent: bake bread.\nVerdict: refuse. R4 Fraud: it would cheat.\n</think>\nI can't help you with that."

    def written(rows: Iterator[Row], *rest: Any) -> Iterator[Row]:
        for row in rows:
            yield dataclasses.replace(row, made=model.ids(text), log_odds=1.5, refuses=True)

    monkeypatch.setattr(model.thinker, "stream", written)
    (response,) = model.respond(CONVERSATIONS[:1], 40)
    assert response.answer == "I can't help you with that."
    assert "can't help" not in response.reasoning_text
    assert response.reasoning is not None
    assert response.reasoning.violated == ("R4",)
    assert response.reasoning_tokens + response.answer_tokens == len(model.ids(text))


def test_settings_come_back_as_written(tmp_path: Path) -> None:
    settings = Settings(policy=default_policy(), detail="full", threshold=-0.25, seen_operators=("slang",))
    write_settings(tmp_path, settings)
    assert read_settings(tmp_path) == settings
    assert [file.name for file in tmp_path.iterdir()] == ["forethought.json"]


def test_merged_model_is_a_plain_one(tmp_path: Path) -> None:
    folder = tiny_adapter(tmp_path / "adapter")
    merged = merge_adapter(folder)
    plain = AutoModelForCausalLM.from_pretrained(str(merged), dtype=torch.float32).eval()
    adapted = PeftModel.from_pretrained(tiny_model(), str(folder)).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, adapted(ids).logits, rtol=1e-4, atol=1e-4)
    loaded = LocalModel.load(str(merged), dtype="float32")
    assert loaded.settings is not None
    # A merged model has no base weights to answer with.
    assert loaded.settings.answer_with == "adapter"
    assert loaded.respond(CONVERSATIONS[:1], 3, think_budget=4)[0].log_odds is not None


def test_an_adapter_of_the_embedded_model_comes_along_to_another_machine(tmp_path: Path) -> None:
    folder = tiny_adapter(tmp_path / "adapter")
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    for named, expected in (("/elsewhere/smollm2-135m-instruct", EMBEDDED), ("someone/model", "someone/model")):
        file.write_text(json.dumps({**config, "base_model_name_or_path": named}), encoding="utf-8")
        assert base_of(folder) == expected


@pytest.mark.parametrize("answer_with", ["adapter", "base"])
def test_all_weights_are_loaded_as_an_adapter_is(tmp_path: Path, answer_with: Literal["adapter", "base"]) -> None:
    """Full fine-tuning leaves a plain model where others leave an adapter."""
    folder = tiny_adapter(tmp_path / "adapter")
    merged = merge_adapter(folder)
    settings = read_settings(folder).model_copy(update={"answer_with": answer_with})
    for one in (folder, merged):
        write_settings(one, settings)
    whole, adapted = (LocalModel.load(str(tiny_folder()), one, dtype="float32") for one in (merged, folder))
    assert whole.thinks
    replies = [model.respond(CONVERSATIONS, 6, think_budget=8) for model in (whole, adapted)]
    assert [one.answer for one in replies[0]] == [one.answer for one in replies[1]]
    assert [one.log_odds for one in replies[0]] == pytest.approx([one.log_odds for one in replies[1]], abs=1e-3)


def _damage(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter_model.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{"),
        ("adapter_model.safetensors", b""),
        ("adapter_config.json", b'{"base_mod'),
        ("forethought.json", b'{"policy": '),
        ("forethought.json", b"{}"),
    ],
)
def test_damaged_adapter_is_a_clear_error(tmp_path: Path, name: str, content: bytes) -> None:
    folder = tiny_adapter(tmp_path)
    _damage(folder, name, content)
    with pytest.raises(ModelError) as caught:
        LocalModel.load(str(folder), dtype="float32")
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folder_without_settings_is_not_ours(tmp_path: Path) -> None:
    folder = tiny_adapter(tmp_path)
    (folder / "forethought.json").unlink()
    with pytest.raises(ModelError, match="not trained by forethought"):
        LocalModel.load(str(folder))


def test_missing_model_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        LocalModel.load(str(tmp_path / "nowhere"))


class _Asked(Scripted):
    """Counts what it is asked."""

    @property
    def texts(self) -> list[str]:
        return [conversation[-1].content for conversation in self.asked]


def test_trap_11_own_answers_resume_after_half_a_line(tmp_path: Path) -> None:
    """What a kill cut short is asked for again, what stands there is not."""
    requests = [user_request(f"Tell me about {name}", harmful=False) for name in ("bread", "käse", "tea")]
    file = tmp_path / "answers.jsonl"
    first = _Asked()
    whole = own_answers(cast(LocalModel, first), requests, file, 16)
    assert len(first.texts) == 3
    lines = file.read_bytes().splitlines(keepends=True)
    # The cut falls inside a letter of two bytes.
    cut = lines[1].index("ä".encode()) + 1
    file.write_bytes(lines[0] + lines[1][:cut])
    second, done = _Asked(), list[int]()
    assert own_answers(cast(LocalModel, second), requests, file, 16, done.append) == whole
    kept = json.loads(lines[0])["id"]
    assert set(second.texts) == {request.text for request in requests if request.id != kept}
    assert sum(done) == 3
    third = _Asked()
    assert own_answers(cast(LocalModel, third), requests, file, 16) == whole
    assert third.texts == []


class _Breaks(_Asked):
    """Breaks down at its second batch."""

    def respond(self, conversations: Sequence[Sequence[Message]], max_answer_tokens: int = 128) -> list[Any]:
        if self.asked:
            raise KeyboardInterrupt
        return super().respond(conversations, max_answer_tokens)


def test_trap_11_own_answers_are_saved_batch_by_batch(tmp_path: Path) -> None:
    requests = [user_request(f"Tell me about town number {n}", harmful=False) for n in range(70)]
    file = tmp_path / "answers.jsonl"
    with pytest.raises(KeyboardInterrupt):
        own_answers(cast(LocalModel, _Breaks()), requests, file, 16)
    again = _Asked()
    assert len(own_answers(cast(LocalModel, again), requests, file, 16)) == 70
    assert len(again.texts) == 6


def test_own_answers_that_refuse_are_not_taught(tmp_path: Path) -> None:
    requests = [user_request("Review this film", harmful=False), user_request("Review this tea", harmful=False)]
    answers = own_answers(cast(LocalModel, Scripted()), requests, tmp_path / "answers.jsonl", 16)
    assert set(answers) == {requests[1].id}


def test_known_replies_are_not_thought_again_unless_asked_at_another_threshold(adapter: Path) -> None:
    model = LocalModel.load(str(tiny_folder()), adapter, dtype="float32")
    asked = [Conversation(messages=turns, think_budget=6) for turns in CONVERSATIONS]
    model.known_replies[(asked[0], 8)] = Response(answer="from before", decision="refuse")
    got = [one.answer for one in model.reply(asked, 8) if isinstance(one, Response)]
    assert len(got) == len(asked)
    assert [one == "from before" for one in got] == [True] + [False] * (len(asked) - 1)
    # Another length, threshold or beginning of the turn is asked.
    begun = asked[0].model_copy(update={"prefill": "<think>\nVerdict:"})
    others = [*model.reply(asked[:1], 4), *model.reply(asked[:1], 8, threshold=math.inf), *model.reply([begun], 8)]
    assert all(isinstance(one, Response) and one.answer != "from before" for one in others)
