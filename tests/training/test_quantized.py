"""QLoRA and DoRA: what they ask for, and that DoRA moves its own parameters and no others."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from forethought.errors import ConfigError
from forethought.training import fit
from forethought.training.config import EarlyStop, TrainConfig, small_model
from forethought.training.fit import quantized_loading, train
from forethought.training.forward import add_taught_head
from tests.tiny import tiny_folder, tiny_model
from tests.training.test_fit import CONFIG, make_rows

FOUR_BIT = TrainConfig(quantize="4bit")


def _installed(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    real = importlib.util.find_spec

    def find(name: str, *more: Any) -> Any:
        return (object() if there else None) if name == "bitsandbytes" else real(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", find)


def test_four_bits_need_bitsandbytes_and_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert quantized_loading(TrainConfig()) == {}
    _installed(monkeypatch, there=False)
    with pytest.raises(ConfigError, match=r"quantize: 4bit.*Run: pip install bitsandbytes"):
        train(str(tiny_folder()), make_rows(), FOUR_BIT, tmp_path)
    _installed(monkeypatch, there=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="needs a GPU, and none is there"):
        train(str(tiny_folder()), make_rows(), FOUR_BIT, tmp_path)


@pytest.mark.parametrize("setting", [{"dora": True}, {"quantize": "4bit"}])
def test_only_adapters_are_of_two_parts_or_four_bits(setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="use lora"):
        TrainConfig.model_validate({"method": "full", **setting})


def test_dora_moves_its_own_parameters_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[tuple[str, torch.Tensor, torch.Tensor]] = []

    def remember(model: Any) -> None:
        held.extend((name, parameter, parameter.detach().clone()) for name, parameter in model.named_parameters())
        add_taught_head(model)

    monkeypatch.setattr(fit, "add_taught_head", remember)
    config = TrainConfig.model_validate({**CONFIG.model_dump(), "epochs": 1, "dora": True, "skip_layers": 1})
    counts = train(str(tiny_folder()), make_rows(), config, tmp_path)
    assert counts["steps"] == 6
    assert len(held) > 10
    assert [name for name, now, before in held if not torch.equal(now, before)] == []
    adapter = load_file(tmp_path / "adapter_model.safetensors")
    lengths = {name: value for name, value in adapter.items() if "magnitude" in name}
    assert len(lengths) == 7  # one for each adapted matrix of the upper layer
    assert all(tensor.any() for key, tensor in adapter.items() if "lora_B" in key)
    # A matrix's lengths begin as its rows' norms; training has moved them.
    weights = tiny_model().to(fit._base_dtype(config)).state_dict()
    for name, value in lengths.items():
        own = name.removeprefix("base_model.model.").partition(".lora_magnitude")[0]
        norms = weights[f"{own}.weight"].float().norm(dim=1)
        assert not torch.equal(value.float(), norms)
        torch.testing.assert_close(value.float(), norms, rtol=0.5, atol=0.5)


def test_settings_that_came_later_leave_old_keys_as_they_were() -> None:
    """Keys of finished stages are made of what a config dumps."""
    later = {"dora", "quantize", "packing", "early_stop", "trackers"}
    assert later.isdisjoint(TrainConfig().model_dump())
    assert later.isdisjoint(small_model().model_dump(mode="json"))
    every = TrainConfig(dora=True, quantize="4bit", packing=True, early_stop=EarlyStop(patience=2), trackers=("wandb",))
    assert later <= set(every.model_dump())
    assert TrainConfig.model_validate(every.model_dump(mode="json")) == every
