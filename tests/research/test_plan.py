"""A plan: counts and hours by hand, whether it fits, and that the fix it names does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from forethought.errors import ConfigError, ModelError
from forethought.research.footprint import GIB, Devices, footprint
from forethought.research.plan import Amount, architecture, known_shapes, measured_flops_a_second, plan
from forethought.training import fit
from forethought.training.config import TrainConfig
from tests.tiny import tiny_folder
from tests.training.test_fit import CONFIG, make_rows

AMOUNT = Amount(rows=1250, tokens=125_000, longest=512, taught_share=0.5)


@pytest.fixture(scope="module")
def llama() -> Any:
    """Some layers of Llama-3.1-8B's 32: they are alike, and fewer are counted sooner."""
    return _cut("llama-8b", 2)


@pytest.fixture(scope="module")
def mistral() -> Any:
    return _cut("mistral-7b", 8)


def _cut(name: str, layers: int) -> Any:
    shape = architecture(name)
    shape.num_hidden_layers = layers
    return shape


def test_hours_by_hand(llama: Any) -> None:
    found = plan("llama", llama, TrainConfig(epochs=2.0), AMOUNT, Devices(n=4), 80.0, 1e12)
    assert found.hours == pytest.approx(250_000 * found.footprint.flops_a_token / 4e12 / 3600)


@pytest.mark.parametrize("name", ["llama-1b", "llama-8b", "mistral-7b", "llama-70b"])
def test_shapes_are_those_of_the_models(name: str) -> None:
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(architecture(name))
    assert sum(p.numel() for p in model.parameters()) == known_shapes()[name].parameters


def test_parameters_are_those_that_the_models_are_known_by() -> None:
    """The counts that the models' cards on the Hugging Face Hub give (safetensors)."""
    counts = {name: shape.parameters for name, shape in known_shapes().items()}
    assert counts["llama-8b"] == 8_030_261_248
    assert counts["mistral-7b"] == 7_241_732_096
    assert counts["llama-70b"] == 70_553_706_496


def test_a_hub_name_is_known_without_looking_it_up() -> None:
    assert architecture("meta-llama/Llama-3.1-8B-Instruct").to_dict() == architecture("llama-8b").to_dict()
    assert architecture("mistralai/Mistral-7B-Instruct-v0.2").model_type == "mistral"


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(ModelError, match="llama-70b"):
        architecture("./no-such-folder")


def test_counts_by_hand(llama: Any) -> None:
    config = TrainConfig(batch_size=16, epochs=1.5, gradient_checkpointing=True)
    found = plan("x", llama, config, AMOUNT, Devices(n=2), 80.0, 1e14)
    # 1,250 rows make 79 batches of 16 (the last is short); one and a half times that, rounded up.
    assert found.steps == 119
    assert found.tokens == 187_500
    assert found.hours == pytest.approx(187_500 * found.footprint.flops_a_token / 2e14 / 3600)
    part = found.footprint
    assert found.needed_gib == part.device_gib
    assert found.fits
    assert found.fix == ""


def test_gathered_weights_by_hand(llama: Any) -> None:
    """Sharded, two units are whole: of this model the embedding is larger than a layer."""
    config = TrainConfig(gradient_checkpointing=True)
    sharded = footprint(llama, config, 64, 0.5, Devices(n=4, sharded=True))
    assert sharded.gathered_gib * GIB == pytest.approx(2 * 128256 * 4096 * 2)
    assert footprint(llama, config, 64, 0.5, Devices(n=4)).gathered_gib == 0.0
    assert footprint(llama, config, 64, 0.5, Devices(n=1, sharded=True)).gathered_gib == 0.0


@pytest.mark.parametrize(
    ("n", "sharded", "gib", "fix", "changed", "spread"),
    [
        (1, False, 19.0, "gradient_checkpointing: true", {"gradient_checkpointing": True}, Devices()),
        (4, False, 8.0, "gradient_checkpointing: true", {"gradient_checkpointing": True}, Devices(n=4)),
        (8, False, 4.5, "shard (", {}, Devices(n=8, sharded=True)),
        (1, False, 6.0, "batch_size: 1,", {"gradient_checkpointing": True, "batch_size": 1}, Devices()),
        (
            1, False, 4.0, "--devices 2 --sharded", {"gradient_checkpointing": True, "batch_size": 2},
            Devices(n=2, sharded=True),
        ),
    ],
)  # fmt: skip
def test_the_fix_makes_it_fit(
    mistral: Any, n: int, sharded: bool, gib: float, fix: str, changed: dict[str, Any], spread: Devices
) -> None:
    config = TrainConfig(gradient_checkpointing=n == 8)
    found = plan("x", mistral, config, AMOUNT, Devices(n=n, sharded=sharded), gib, 1e14)
    assert not found.fits
    assert found.needed_gib > 0.9 * gib
    assert found.fix.startswith(fix)
    after = plan("x", mistral, config.model_copy(update=changed), AMOUNT, spread, gib, 1e14)
    assert after.fits
    assert f"{after.needed_gib:.1f} GiB" in found.fix
    assert all(f"{name}: {str(value).lower()}" in found.fix for name, value in changed.items())


def test_what_never_fits_is_said(mistral: Any) -> None:
    found = plan("x", mistral, TrainConfig(gradient_checkpointing=True), AMOUNT, Devices(n=32), 0.5, 1e14)
    assert not found.fits
    assert "no setting" in found.fix


def test_the_rate_is_that_of_the_steps_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows()
    given: list[Any] = []

    def stands_in(base: str, chosen: Any, config: TrainConfig, out: Any, on_step: Any) -> None:
        given.extend(chosen)
        for step in range(3):
            on_step(step, 3, {})

    times = iter([100.0, 101.0, 104.0])
    monkeypatch.setattr(fit, "train", stands_in)
    monkeypatch.setattr("forethought.research.plan.time.perf_counter", lambda: next(times))
    rate = measured_flops_a_second("x", rows, CONFIG, 6.0)
    # Two of three steps of four rows took 4 s.
    assert len(given) == 12
    assert {row.term for row in given} == {0, 1}
    assert rate == pytest.approx(sum(row.length for row in given) * 2 / 3 * 6.0 / 4.0)


def test_three_steps_need_rows() -> None:
    with pytest.raises(ConfigError, match="needs 12 rows of examples, there are 5"):
        measured_flops_a_second("x", make_rows()[:5], CONFIG, 6.0)


def test_a_real_measurement_leaves_nothing_behind() -> None:
    shape = AutoConfig.from_pretrained(str(tiny_folder()))
    work = footprint(shape, CONFIG, 100, 0.5, Devices(weight_bytes=4)).flops_a_token
    assert measured_flops_a_second(str(tiny_folder()), make_rows(), CONFIG, work) > 0
