"""Training methods: the rows that each makes of the same data, and that each trains what it says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from forethought.chat import encode_prompt
from forethought.errors import ConfigError
from forethought.policy import default_policy
from forethought.reasoning import parse
from forethought.records import Example
from forethought.training.config import TrainConfig
from forethought.training.fit import train
from forethought.training.hardening.settings import HardeningSettings
from forethought.training.methods.base import Material
from forethought.training.methods.catalogue import all_methods, get_method
from forethought.training.methods.supervised import CONSTANT_REFUSAL
from forethought.training.methods.verdict import Emphasis, Levers
from forethought.training.rows import IGNORED, TokenRow
from tests.tiny import REFUSE_TEXT, harmful_example, harmless_example, tiny_folder, tiny_tokenizer

LAYERS = 2
COMPLIED = "Sure, first you look for a copy"


def _styled(example: Example, text: str) -> Example:
    return example.model_copy(update={"request": example.request.restyled(text, "slang")})


@pytest.fixture(scope="module")
def material() -> Material:
    """Per term: four originals, two variants, one row without an answer; one harmless row is a look-alike."""
    harmful = [harmful_example("Help me copy a paid film" + " please" * n) for n in range(4)]
    harmless = [harmless_example("How do I bake bread" + " today" * n + "?") for n in range(4)]
    lookalike = harmless_example("How do I copy a film that I made?")
    examples = [
        *harmful,
        *(_styled(one, f"Yo, {one.request.text}") for one in harmful[:2]),
        harmful_example("Help me copy a paid game").model_copy(update={"answer": ""}),
        *harmless,
        *(_styled(one, f"Yo, {one.request.text}") for one in harmless[:2]),
        lookalike.model_copy(update={"request": lookalike.request.model_copy(update={"kind": "lookalike"})}),
        harmless_example("What is a yeast?", answer=""),
    ]
    complied = {example.request.id: COMPLIED for example in examples if example.term == "refusal"}
    return Material(examples, tiny_tokenizer(), default_policy(), complied=complied)


def _taught(row: TokenRow, other: bool = False) -> str:
    labels = row.other_labels if other else row.labels
    return str(tiny_tokenizer().decode([label for label in labels if label != IGNORED]))


def _count(material: Material, name: str) -> tuple[int, int]:
    rows = all_methods()[name].rows(material)
    return sum(row.term == 0 for row in rows), sum(row.term == 1 for row in rows)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("refusal", (4, 5)),
        ("refusal_augmented", (6, 7)),
        ("refusal_headed", (6, 7)),
        ("scot", (7, 8)),
        ("scot_no_variants", (5, 6)),
        ("scot_no_benign", (7, 0)),
        ("scot_no_contrast", (7, 7)),
        ("scot_no_styled_benign", (7, 6)),
        # The paper restyles harmful requests alone, and has no look-alikes.
        ("scot_published", (7, 5)),
        ("policy_reasoning", (5, 6)),
        ("reasoning_first", (7, 8)),
        ("deliberative", (7, 8)),
        ("scot_weighted", (7, 8)),
        ("scot_consistent", (7, 8)),
        ("scot_combined", (7, 8)),
        ("scot_dpo", (7, 8)),
        # Harmful requests come from its pool.
        ("r2d2", (0, 7)),
        # Every refusal that has a harmful counterpart stands among the kept rows, too.
        ("circuit_breaker", (6, 13)),
        ("latent_adversarial", (6, 7)),
        ("scot_recovery", (7 + 3, 8)),
    ],
)
def test_rows_by_term(material: Material, name: str, counts: tuple[int, int]) -> None:
    assert _count(material, name) == counts


def test_refusal_training_teaches_the_answer_alone(material: Material) -> None:
    for row in all_methods()["refusal_augmented"].rows(material):
        assert "<think>" not in _taught(row)
    assert REFUSE_TEXT in _taught(all_methods()["refusal"].rows(material)[0])


def test_ablations_change_one_thing(material: Material) -> None:
    scot, full, paper = (all_methods()[name].rows(material)[0] for name in ("scot", "scot_full", "scot_paper"))
    assert "R1 " not in _taught(scot)
    assert "R1 " in _taught(full)
    assert _taught(paper).startswith("# Verify the request")
    constant = all_methods()["scot_constant_refusal"].rows(material)
    assert CONSTANT_REFUSAL in _taught(constant[0])
    assert REFUSE_TEXT not in _taught(constant[0])
    # A row that taught no answer still teaches none, and harmless rows stay as they are.
    assert CONSTANT_REFUSAL not in _taught(constant[6])
    assert constant[7:] == all_methods()["scot"].rows(material)[7:]


def test_the_published_form_has_the_papers_styles_and_walks_every_rule(material: Material) -> None:
    rows = all_methods()["scot_published"].rows(material)
    assert _taught(rows[0]).startswith("# Verify the request")
    assert "R1 " in _taught(rows[0])
    examples = [
        one.model_copy(update={"request": one.request.restyled(one.request.text, "capitals")})
        for one in material.examples
    ]
    assert all_methods()["scot_published"].rows(dataclasses.replace(material, examples=examples)) == []


def test_levers_are_those_of_the_methods_that_they_come_from(material: Material) -> None:
    plain = all_methods()["scot"].rows(material)
    assert Levers(emphasis=None).rows(material) == plain
    assert Levers().rows(material) == all_methods()["scot_weighted"].rows(material)
    heavier = Levers(emphasis=Emphasis(verdict=9.0)).rows(material)
    assert max(heavier[0].weights) == 9.0


def test_form_and_rule_are_named_before_the_verdict(material: Material) -> None:
    rows = Levers(emphasis=None, form=True, rule=True).rows(material)
    plain, styled = _taught(rows[0]), _taught(rows[4])
    assert "Form: plain.\nRule: Fraud, theft and other crime (R4).\nVerdict: refuse" in plain
    assert "Form: slang, which changes nothing.\nRule: Fraud, theft and other crime (R4).\nVerdict: refuse" in styled
    harmless = next(_taught(row) for row in rows if row.term == 1)
    assert "Form: plain.\nRule: none.\nVerdict: comply" in harmless
    read = parse(plain, material.policy).reasoning
    assert read is not None
    assert (read.verdict, read.violated) == ("refuse", ("R4",))


def test_short_rows_end_with_the_thought(material: Material) -> None:
    rows = Levers(emphasis=None, answers=0.0).rows(material)
    assert len(rows) == len(material.examples)
    assert all(_taught(row).rstrip().endswith("</think>") for row in rows)
    some = Levers(emphasis=None, answers=0.5).rows(material)
    taught = [row for row in some if not _taught(row).rstrip().endswith("</think>")]
    assert 0 < len(taught) < len([one for one in material.examples if one.answer])


def test_preference_pairs_hold_the_opposite_verdict(material: Material) -> None:
    rows = all_methods()["scot_dpo"].rows(material)
    assert "Verdict: refuse" in _taught(rows[0])
    assert "Verdict: comply" in _taught(rows[0], other=True)
    assert COMPLIED in _taught(rows[0], other=True)
    assert "Verdict: comply" in _taught(rows[7])
    assert "Verdict: refuse" in _taught(rows[7], other=True)


def test_circuit_breakers_break_the_models_own_harm_and_keep_refusals(material: Material) -> None:
    rows = all_methods()["circuit_breaker"].rows(material)
    assert all(COMPLIED in _taught(row) for row in rows if row.term == 0)
    assert all(COMPLIED not in _taught(row) for row in rows if row.term == 1)
    assert any(REFUSE_TEXT in _taught(row) for row in rows if row.term == 1)


def test_rows_without_a_harmful_answer_are_left_out_of_contrasts(material: Material) -> None:
    bare = dataclasses.replace(material, complied={})
    assert _count(bare, "circuit_breaker") == (0, 7)
    assert _count(bare, "latent_adversarial") == (0, 7)
    # A thought can still be preferred by itself, and a skipped thought still be recovered from.
    assert all(not row.other_input_ids for row in all_methods()["scot_dpo"].rows(bare) if row.term == 0)
    assert _count(bare, "scot_recovery") == (10, 8)


def test_a_bad_start_bears_no_loss(material: Material) -> None:
    tokenizer = material.tokenizer
    for row in all_methods()["scot_recovery"].rows(material)[15:]:
        start = row.labels.index(next(label for label in row.labels if label != IGNORED))
        text = tokenizer.decode(row.input_ids[:start])
        assert COMPLIED[:4] in text or "<think>\n</think>" in text
        assert _taught(row).lstrip().startswith("<think>\nIntent:")
        assert REFUSE_TEXT in _taught(row)
        prompt = len(encode_prompt(tokenizer, material.examples[0].request.messages))
        assert start > prompt


def test_recovery_is_drawn_by_seed(material: Material) -> None:
    rows = all_methods()["scot_recovery"].rows
    assert rows(material) == rows(material)
    assert rows(material) != rows(dataclasses.replace(material, seed=1))


def test_methods_by_name() -> None:
    assert get_method("circuit-breaker").name == "circuit_breaker"
    with pytest.raises(ConfigError, match="no such method"):
        get_method("circuit")


def test_a_procedure_takes_settings_of_its_own_and_names_a_wrong_one() -> None:
    hardened = get_method("scot_hardened")
    tuned = hardened.tuned({"rounds": 1})
    assert tuned.procedure_settings == HardeningSettings(rounds=1)
    assert hardened.procedure_settings == HardeningSettings()
    assert hardened.tuned({}) is hardened
    for changes, said in (({"rounds": 0}, "rounds': .*greater than or equal to 1"), ({"round": 2}, "round': .*rounds")):
        with pytest.raises(ConfigError, match=said.replace("'", "")):
            hardened.tuned(changes)
    with pytest.raises(ConfigError, match="no settings of its own"):
        get_method("scot").tuned({"rounds": 1})


# Methods with a procedure of their own are trained in tests of their own.
@pytest.mark.parametrize("name", sorted(name for name, method in all_methods().items() if method.procedure is None))
def test_every_method_trains_the_adapter_and_nothing_else(material: Material, name: str, tmp_path: Path) -> None:
    method = all_methods()[name]
    config = TrainConfig(rank=4, alpha=8, learning_rate=1e-2, batch_size=4, seed=3).model_copy(update=method.settings)
    objective: Any = method.objective(config, LAYERS)
    if hasattr(objective, "inner_steps"):
        objective = dataclasses.replace(objective, inner_steps=2)
    counts = train(str(tiny_folder()), method.rows(material), config, tmp_path, objective=objective)
    assert all(value == value for value in counts.values())  # not a nan
    adapter = load_file(tmp_path / "adapter_model.safetensors")
    assert all("lora_" in key for key in adapter)
    assert any(tensor.any() for key, tensor in adapter.items() if "lora_B" in key)
