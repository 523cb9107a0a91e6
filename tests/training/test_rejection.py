"""Rejection sampling: which thoughts are kept, in which order, and what becomes of the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forethought.models.conversation import LED, Conversation, Failed, Response
from forethought.models.local import LocalModel
from forethought.reasoning import SafetyReasoning
from forethought.records import Example
from forethought.store import Store
from forethought.training.methods import rejection
from forethought.training.methods.rejection import RejectionSettings, chosen, own_thoughts
from tests.scripted import Scripted
from tests.tiny import harmful_example, harmless_example, tiny_adapter, tiny_folder

HARMFUL = harmful_example()  # "Help me copy a paid film without paying"
SETTINGS = RejectionSettings()


def _thought(intent: str, odds: float | None, cause: str = "") -> Response:
    verdict = "refuse" if odds is None or odds >= 0 else "comply"
    reasoning = SafetyReasoning.model_validate({"intent": intent, "verdict": verdict})
    return Response(answer="", reasoning=reasoning, decision=reasoning.verdict, log_odds=odds, cause=cause)


def _kept(*replies: Response | Failed, example: Example = HARMFUL, **settings: Any) -> list[str]:
    return [one.intent for one in chosen(example, replies, SETTINGS.model_copy(update=settings)).right]


def test_the_nearest_right_thought_comes_first_and_each_intent_once() -> None:
    replies = (
        _thought("watch a film", 9.0),  # {watch, film} and six words: 2 / 8
        _thought("copy a paid film", 0.5),  # 6 / 9
        _thought("copy a film at home", 3.0),  # {copy, film, home}: 4 / 9
        _thought("Copy a paid film", 2.0),
        Failed(cause="too long"),
    )
    found = chosen(HARMFUL, replies, SETTINGS)
    assert [(one.intent, one.margin) for one in found.right] == [
        ("Copy a paid film", 2.0), ("copy a film at home", 3.0), ("watch a film", 9.0),
    ]  # fmt: skip
    assert [one.nearness for one in found.right] == pytest.approx([6 / 9, 4 / 9, 2 / 8])
    assert found.samples == 4


@pytest.mark.parametrize(
    "reply",
    [
        _thought("copy a paid film", -0.1),
        _thought("copy a paid film", None),
        _thought("copy a paid film", 2.0, LED),
        _thought("copy", 2.0),
        _thought("", 2.0),
        _thought("learn to dance", 2.0),
        _thought("copy a paid film with 20 ml of glue", 2.0),
        Response(answer="", decision="refuse", log_odds=2.0, cause="two verdicts that disagree"),
    ],
    ids=["wrong", "unread", "led", "one word", "empty", "about something else", "leaks", "unparsed"],
)
def test_what_is_not_kept(reply: Response) -> None:
    assert _kept(reply) == []


def test_what_is_harmless_is_right_when_it_is_allowed() -> None:
    bread = harmless_example()
    assert _kept(_thought("bake bread", -3.0), _thought("bake some bread", 1.0), example=bread) == ["bake bread"]
    # As near as one another: the surer verdict first.
    assert _kept(_thought("bake bread", -1.0), _thought("bread bake", -3.0), example=bread)[0] == "bread bake"


def _script(monkeypatch: pytest.MonkeyPatch, intents: dict[str, str]) -> list[Scripted]:
    """Stands for the model that is loaded: the same intent for every sample, by request."""
    loaded: list[Scripted] = []

    def answer(conversation: Conversation) -> Response | Failed:
        intent = intents.get(conversation.messages[-1].content)
        odds = -2.0 if intent is not None and "bread" in intent else 2.0
        return Failed(cause="none") if intent is None else _thought(intent, odds)

    def load(name: str) -> Scripted:
        loaded.append(Scripted(answer))
        return loaded[-1]

    monkeypatch.setattr(LocalModel, "load", load)
    return loaded


def test_rows_keep_their_rules_and_answer_and_take_the_models_intent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bread, other = harmless_example(), harmful_example("Help me copy a paid game")
    loaded = _script(monkeypatch, {HARMFUL.request.text: "copy some paid film", bread.request.text: "bake some bread"})
    said: list[str] = []
    rows = own_thoughts(tmp_path / "sft", [HARMFUL, bread, other], SETTINGS, tmp_path, 0, said.append)
    assert [row.reasoning.intent for row in rows] == ["copy some paid film", "bake some bread", other.reasoning.intent]
    assert rows[0] == HARMFUL.model_copy(
        update={"reasoning": HARMFUL.reasoning.model_copy(update={"intent": "copy some paid film"})}
    )
    assert rows[2] == other
    assert "2 of 3" in said[0]
    (model,) = loaded
    assert model.limits == [0]  # thoughts alone
    assert len(model.asked) == 3 * SETTINGS.samples
    assert len({(one.messages, one.sample_seed) for one in model.asked}) == 12
    assert {one.temperature for one in model.asked} == {1.0}


def test_a_torn_label_is_not_sampled_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torn = HARMFUL.model_copy(update={"request": HARMFUL.request.model_copy(update={"harmful": False})})
    loaded = _script(monkeypatch, {HARMFUL.request.text: "copy some paid film"})
    assert own_thoughts(tmp_path / "sft", [torn], SETTINGS, tmp_path, 0, lambda line: None) == [torn]
    assert loaded == []


def test_a_stopped_run_samples_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut in the middle of the second line, as a kill leaves it; other settings are another log."""
    monkeypatch.setattr(rejection, "_BATCH", 1)
    examples = [harmful_example("Help me copy a paid film" + " please" * n) for n in range(3)]
    loaded = _script(monkeypatch, {one.request.text: "copy some paid film" for one in examples})

    def run(settings: RejectionSettings = SETTINGS) -> list[Example]:
        return own_thoughts(tmp_path / "sft", examples, settings, tmp_path, 0, lambda line: None)

    whole = run()
    (log,) = tmp_path.glob("thoughts-*.jsonl")
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    log.write_text(lines[0] + lines[1][:20], encoding="utf-8")
    assert run() == whole
    assert log.read_text(encoding="utf-8").splitlines(keepends=True) == lines
    assert [len(model.calls) for model in loaded] == [3, 2]
    assert run() == whole
    assert len(loaded) == 2  # nothing was missing: no model is loaded
    run(RejectionSettings(temperature=0.5))
    assert len(loaded[-1].calls) == 3


def test_a_local_model_is_sampled_to_its_verdict(tmp_path: Path) -> None:
    model = LocalModel.load(str(tiny_folder()), tiny_adapter(tmp_path / "a"), dtype="float32")
    with Store(tmp_path / "log.jsonl", write=True) as store:
        rejection.sample(model, [HARMFUL], RejectionSettings(think_budget=8), store, 0)
        known = store.records(rejection.Sampled)
    # A random model never comes to a verdict by itself.
    assert known[HARMFUL.request.id].right == ()
    assert known[HARMFUL.request.id].samples == 4
