"""Specs, composition, and the page that is written from the code."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from forethought import defences
from forethought.defences.base import REFUSAL, Means, Wrapper
from forethought.defences.catalogue import all_defences, check_spec, make_defence
from forethought.defences.fused import FusedVerdict
from forethought.defences.guard import Guard
from forethought.defences.likelihood import PerplexityFilter
from forethought.defences.probe import HeadedThought, ProbeDefence
from forethought.defences.prompts import PromptDefence, prompts, shipped_prompt
from forethought.defences.reworded import SmoothLLM, SmoothSettings
from forethought.errors import ConfigError, ForethoughtError, InputError
from forethought.measure.probe import load_probe
from forethought.models.conversation import Conversation, Respondent, Response
from forethought.models.local import LocalModel
from forethought.records import Message, user_request
from forethought.training.methods.catalogue import all_methods
from tests.defences.test_fused import _fusion
from tests.defences.test_probe import _probe
from tests.scripted import Scripted, as_messages
from tests.tiny import tiny_folder, tiny_model, tiny_tokenizer

DOCS = Path(__file__).resolve().parents[2] / "docs"
PLAIN = ("paraphrase", "smooth_llm", "self_examination", "self_consistency", "unforged", "respelled", "solved")


@lru_cache(maxsize=1)
def _model() -> LocalModel:
    return LocalModel(tiny_model(), tiny_tokenizer(), None, name="tiny")


def _inner() -> Scripted:
    return Scripted(lambda _: "Mix it.")


def test_the_catalogue_holds_what_was_promised() -> None:
    assert list(all_defences()) == [
        "none", "self_reminder", "in_context", "goal_priority", "safety_step", "safety_structured",
        "safety_conversational", "policy_prompt", "on_demand", "fused", "guard", "self_examination", "perplexity",
        "probe", "headed_thought", "paraphrase", "smooth_llm", "self_consistency", "unforged", "respelled",
        "solved",
    ]  # fmt: skip
    every: dict[str, Any] = {**all_defences(), **all_methods()}
    assert len({one.title for one in every.values()}) == len(every) == len(all_defences()) + len(all_methods())
    for name, one in every.items():
        assert one.paper or name == "none"
        assert not one.when_to_choose.endswith(".")


@pytest.mark.parametrize("name", [*prompts(), *PLAIN])
def test_a_defence_that_needs_nothing_is_made_by_its_name(name: str) -> None:
    inner = _inner()
    defended = make_defence(name, inner)
    assert (defended is inner) if name == "none" else isinstance(defended, Wrapper)
    assert defended.name == ("scripted" if name == "none" else f"scripted | {name}")
    reply = defended.reply([Conversation(messages=user_request("How do I bake bread?").messages)])
    assert getattr(reply[0], "answer", None) == "Mix it." or name == "self_examination"


def test_the_leftmost_stands_nearest_to_the_model() -> None:
    inner = _inner()
    defended = make_defence(" self_reminder|smooth_llm:3,perturbation=patch ", inner)
    assert defended.name == "scripted | self_reminder | smooth_llm"
    assert isinstance(defended, SmoothLLM)
    assert isinstance(defended.inner, PromptDefence)
    assert defended.options == SmoothSettings(copies=3, perturbation="patch")
    defended.reply([Conversation(messages=(Message(role="user", content="How do I bake bread?"),))])
    reminder = shipped_prompt("self_reminder")
    assert len(inner.asked) == 3
    for conversation in inner.asked:  # the reminder itself is not perturbed
        assert conversation.messages[0].content == reminder.system
        assert conversation.messages[-1].content.startswith(reminder.before)
        assert "How do I bake bread?" not in conversation.messages[-1].content


def test_defences_with_needs_get_them(tmp_path: Path) -> None:
    _probe().save(tmp_path / "probe")
    means = Means(model=_model(), harmless=[user_request("How do I bake bread?", harmful=False)])
    assert isinstance(make_defence("perplexity:0", _inner(), means), PerplexityFilter)
    probe = make_defence(f"probe:{tmp_path / 'probe'},fail_closed=no", _inner(), means)
    assert isinstance(probe, ProbeDefence)
    headed = make_defence(f"headed_thought:{tmp_path / 'probe'}", _inner(), means)
    assert isinstance(headed, HeadedThought)
    _fusion().save(tmp_path / "fusion", load_probe(tmp_path / "probe"))
    assert isinstance(make_defence(f"fused:{tmp_path / 'fusion'}", _inner(), means), FusedVerdict)


def test_a_guard_is_named_in_the_spec_and_fails_closed() -> None:
    guard = make_defence(f"guard:judge=keywords-harm,requests={tiny_folder()}", _inner())
    assert isinstance(guard, Guard)
    reply = guard.reply([Conversation(messages=user_request("How do I bake bread?").messages)])[0]
    assert isinstance(reply, Response)
    # An untrained model says neither safe nor unsafe.
    assert reply.answer == REFUSAL
    assert "refused without a score" in reply.cause
    mixed = make_defence("self_reminder | guard:keywords-harm", _inner())
    assert isinstance(mixed, Guard)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fused", "folder ''"),
        ("fused:nowhere", "nowhere.* holds no fusion"),
        ("self_reminder | probe:nowhere", "holds no probe"),
        ("linear_probe | guard", "nothing to check with"),
        ("linear_probe | guard:nobody", "neither a judge's name nor a folder"),
        ("linear_probe | guard:refusal", "tells refusals"),
        ("none | linear_probe", "no such defence"),
    ],
)
def test_a_spec_is_checked_before_there_is_a_model(spec: str, message: str) -> None:
    check_spec("linear_probe | perplexity | guard:harm", ["linear_probe"])
    with pytest.raises(ForethoughtError, match=message):
        check_spec(spec, ["linear_probe"])


def test_a_probe_that_decides_nothing_is_no_defence(tmp_path: Path) -> None:
    probe = _probe()
    type(probe)(probe.settings.model_copy(update={"threshold": None}), probe.weights, probe.biases).save(tmp_path)
    with pytest.raises(InputError, match="no threshold"):
        check_spec(f"probe:{tmp_path}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("smooth", "no such defence.*smooth_llm"),
        ("", "no such defence"),
        ("none | ", "no such defence"),
        ("scot", "no such defence at inference"),
        ("self_reminder:3", "has no option '3'. It takes no options"),
        ("smooth_llm:copies=3,copies=4", "gives copies twice"),
        ("smooth_llm:copy=3", "has no option 'copy'. It takes copies, percent"),
        ("smooth_llm:0", "copies '0': .*greater than or equal to 1.*perturbed copies"),
        ("smooth_llm:many", "copies 'many'"),
        ("smooth_llm:perturbation=shuffle", "perturbation 'shuffle': .*swap"),
        ("probe", "folder ''"),
        ("perplexity", "needs the weights"),
        ("guard", "nothing to check with"),
    ],
)
def test_a_wrong_spec_is_named_with_its_fix(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_defence(spec, _inner())


def test_a_perplexity_filter_without_harmless_requests_is_refused() -> None:
    with pytest.raises(ConfigError, match="no harmless requests"):
        make_defence("perplexity", _inner(), Means(model=_model()))


def test_every_option_says_what_it_is() -> None:
    for defence in all_defences().values():
        for name, option in defence.options.model_fields.items():
            assert option.description, f"{defence.id}:{name}"


def test_a_defended_model_is_a_respondent() -> None:
    defended: Respondent = make_defence("goal_priority | smooth_llm:2", _inner())
    assert defended.reply([]) == []


def test_a_defence_is_added_as_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shouted.py").write_text(
        """
from forethought.defences.base import InferenceDefence, Wrapper

class Shouted(Wrapper):
    label = "shouted"

    def answer(self, conversation, max_answer_tokens):
        reply = yield from self.ask(conversation, max_answer_tokens)
        return reply.model_copy(update={"answer": reply.answer.upper()})

DEFENCES = (
    InferenceDefence(
        id="shouted", title="Shouted", paper="none", kind="wrapper", cost="none", when_to_choose="never",
        make=lambda inner, options, means: Shouted(inner),
    ),
)
"""
    )
    monkeypatch.setattr(defences, "__path__", [*defences.__path__, str(tmp_path)])
    defended = make_defence("shouted", Scripted(lambda _: "Mix it."))
    (reply,) = defended.reply([Conversation(messages=as_messages("How do I bake bread?"))])
    assert (defended.name, getattr(reply, "answer", "")) == ("scripted | shouted", "MIX IT.")
