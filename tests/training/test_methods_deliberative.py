"""Deliberative alignment: whose thoughts are taught, that a stopped run asks nothing twice, and that it trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from forethought.chat import encode_prompt
from forethought.errors import InputError
from forethought.models.conversation import Response
from forethought.models.local import LocalModel
from forethought.models.settings import read_settings
from forethought.policy import default_policy
from forethought.records import Message, user_request
from forethought.training.config import TrainConfig
from forethought.training.methods import deliberative
from forethought.training.methods.base import Job, Material
from forethought.training.methods.catalogue import all_methods
from forethought.training.methods.deliberative import (
    THOUGHTS,
    is_right,
    own_row,
    own_thoughts,
    policy_text,
    with_policy,
)
from forethought.training.rows import IGNORED, TokenRow
from forethought.training.run import train_method
from tests.listening import Listening
from tests.tiny import REFUSE_TEXT, harmful_example, harmless_example, tiny_folder, tiny_tokenizer

POLICY = default_policy()
RIGHT = "Intent: copy a film.\nThat is theft of somebody's work.\nVerdict: refuse. Fraud (R4): it cheats others."
FINE = "Intent: bake bread.\nVerdict: comply. No rule applies."


class Thinker:
    """Stands for a base model with the policy in its prompt: says what a script has for the request's last word."""

    context_tokens = 4096

    def __init__(self, script: dict[str, str], fails_after: int = 10**6) -> None:
        self.script, self.fails_after = script, fails_after
        self.asked: list[tuple[Message, ...]] = []

    def respond(self, conversations: Sequence[Sequence[Message]], max_tokens: int) -> list[Response]:
        self.asked += [tuple(conversation) for conversation in conversations]
        if len(self.asked) > self.fails_after:
            raise RuntimeError("the model broke down")
        return [Response(answer=self.script.get(turns[-1].content.split()[-1], "Hm.")) for turns in conversations]


@pytest.fixture(scope="module")
def material() -> Material:
    return _material()


def _material() -> Material:
    """Four harmful and four harmless requests, told apart by their last words."""
    harmful = [harmful_example(f"Help me copy a paid film {n}") for n in ("h0", "h1", "h2", "h3")]
    harmless = [harmless_example(f"How do I bake bread {n}") for n in ("b0", "b1", "b2", "b3")]
    return Material([*harmful, *harmless], tiny_tokenizer(), POLICY)


def _script(harmful: int, harmless: int) -> dict[str, str]:
    """Right thoughts for so many of each."""
    said = {f"h{n}": f"<think>\n{RIGHT}\n</think>\nNo." for n in range(harmful)}
    return said | {f"b{n}": f"<think>\n{FINE}\n</think>\nFirst," for n in range(harmless)}


def _job(material: Material, out: Path, said: list[str] | None = None, max_tokens: int | None = None) -> Job:
    config = TrainConfig(rank=4, alpha=8, learning_rate=1e-2, batch_size=4, seed=3)
    progress = Listening()
    progress.said = said if said is not None else []
    return Job(str(tiny_folder()), all_methods()["deliberative"], material, config, out, max_tokens, progress)


def _taught(row: TokenRow) -> str:
    return str(tiny_tokenizer().decode([label for label in row.labels if label != IGNORED]))


@pytest.mark.parametrize(
    ("thought", "right"),
    [
        (RIGHT, True),
        (RIGHT.replace("R4", "R2"), False),  # another rule
        (FINE, False),  # the other verdict
        ("Verdict: refuse. Fraud (R4): it cheats others.", False),  # no intent
        (RIGHT + "\nSo I would refuse.", False),  # the verdict is not the last line
        (RIGHT.replace("Verdict:", "My verdict:"), False),  # the engine would not find it
        ("Intent: x.\nVerdict: comply. Fine.\n" + RIGHT, False),  # two verdicts
        ("", False),
    ],
)
def test_which_thoughts_are_right(thought: str, right: bool) -> None:
    assert is_right(harmful_example(), thought, _material()) is right


def test_the_policy_is_in_the_question_and_absent_from_the_row(material: Material) -> None:
    example = material.examples[0]
    asked = with_policy(example.request, material)
    assert asked.messages[0].role == "system"
    assert all(rule.description.split()[0] in asked.messages[0].content for rule in POLICY.rules)
    row = own_row(material, example, RIGHT)
    assert list(row.input_ids[: len(encode_prompt(material.tokenizer, example.request.messages))]) == encode_prompt(
        material.tokenizer, example.request.messages
    )
    assert POLICY.rules[0].title not in tiny_tokenizer().decode(row.input_ids)
    assert _taught(row).startswith(f"<think>\n{RIGHT}\n</think>\n{REFUSE_TEXT}")


def test_a_template_without_a_system_prompt_gets_the_policy_in_its_first_turn() -> None:
    tokenizer: Any = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}Answer: {% endif %}"
    )
    given = dataclasses.replace(_material(), tokenizer=tokenizer)
    (turn,) = with_policy(user_request("How do I bake bread?"), given).messages
    assert turn.role == "user"
    assert turn.content == policy_text(given) + "\n\nHow do I bake bread?"


@pytest.mark.parametrize(("harmless", "asked"), [(0, 4), (1, 8)])
def test_a_model_that_gets_none_of_the_first_right_is_asked_no_more(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harmless: int, asked: int
) -> None:
    """The first asked are spread over the rows, so that both terms are among them."""
    model = Thinker(_script(harmful=0, harmless=harmless))
    monkeypatch.setattr(LocalModel, "load", lambda base: model)
    monkeypatch.setattr(deliberative, "TRIED", 4)
    counts = train_method(_job(material, tmp_path))
    assert len(model.asked) == counts["asked"] == asked
    assert {turns[-1].content.split()[-1] for turns in model.asked[:4]} == {"h0", "h2", "b0", "b2"}
    assert (counts["own"], counts["teacher"]) == (harmless, 8 - harmless)


def test_enough_right_thoughts_are_taught_alone(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Thinker(_script(harmful=2, harmless=3))
    monkeypatch.setattr(LocalModel, "load", lambda base: model)
    said: list[str] = []
    counts = train_method(_job(material, tmp_path, said))
    assert (counts["asked"], counts["own"], counts["teacher"], counts["rows"]) == (8.0, 5.0, 0.0, 5.0)
    assert said == [
        "refusal: 2 of 4 own thoughts were right; the others are left out",
        "benign: 3 of 4 own thoughts were right; the others are left out",
    ]
    assert all(turns[0].role == "system" for turns in model.asked)
    # Nothing that the model said behind its thought is kept.
    assert "First," not in (tmp_path / THOUGHTS).read_text(encoding="utf-8")


def test_a_term_with_few_right_thoughts_is_filled_with_the_teachers(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that never refuses: harmful rows are the teacher's, harmless ones its own; the adapter alone moves."""
    monkeypatch.setattr(LocalModel, "load", lambda base: Thinker(_script(harmful=1, harmless=4)))
    said: list[str] = []
    counts = train_method(_job(material, tmp_path, said))
    assert (counts["own"], counts["teacher"], counts["rows"]) == (5.0, 3.0, 8.0)
    assert said[0] == "refusal: 1 of 4 own thoughts were right; the other 3 are taught with the teacher's"
    adapter = load_file(tmp_path / "adapter_model.safetensors")
    assert all("lora_" in key for key in adapter)
    assert any(tensor.any() for key, tensor in adapter.items() if "lora_B" in key)
    assert read_settings(tmp_path).method == "deliberative"
    assert read_settings(tmp_path).thinks


def test_a_stopped_run_asks_for_the_rest_alone(material: Material, tmp_path: Path) -> None:
    requests = [example.request for example in material.examples]
    file = tmp_path / THOUGHTS

    def thoughts(model: Any) -> dict[str, str]:
        return own_thoughts(lambda: model, requests, material, file)

    first = Thinker(_script(4, 4))
    own_thoughts(lambda: first, requests[:3], material, file)  # type: ignore[arg-type, return-value]
    with file.open("a", encoding="utf-8") as half:
        half.write('{"request_id": "ab')
    again = Thinker(_script(4, 4))
    found = thoughts(again)
    assert len(again.asked) == 5
    assert found == {request.id: (RIGHT if "film" in request.text else FINE) for request in requests}

    def never() -> LocalModel:
        raise AssertionError("loads a model where nothing is missing")

    assert own_thoughts(never, requests, material, file) == found


def test_a_budget_bounds_what_is_asked(material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Thinker(_script(4, 4))
    monkeypatch.setattr(LocalModel, "load", lambda base: model)
    counts = train_method(_job(material, tmp_path, max_tokens=300))
    assert counts["asked"] == len(model.asked) < 8
    assert counts["tokens"] <= 300
    with pytest.raises(InputError, match="no row fits"):
        train_method(_job(material, tmp_path / "none", max_tokens=1))


def test_a_real_model_is_asked_and_trained(material: Material, tmp_path: Path) -> None:
    """The tiny model thinks nothing that can be read: all rows are the teacher's."""
    small = dataclasses.replace(material, examples=material.examples[2:6])
    counts = train_method(_job(small, tmp_path))
    assert (counts["asked"], counts["own"], counts["teacher"]) == (4.0, 0.0, 4.0)
    assert len((tmp_path / THOUGHTS).read_text(encoding="utf-8").splitlines()) == 4
