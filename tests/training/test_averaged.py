"""Trainings whose weights are averaged: the mean by hand, what a stopped run trains anew, and what is left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from forethought.errors import ModelError
from forethought.models.settings import read_settings
from forethought.policy import default_policy
from forethought.training.averaged import average, train_averaged
from forethought.training.config import TrainConfig
from forethought.training.methods.base import Job, Material
from forethought.training.methods.catalogue import get_method
from forethought.training.run import train_method
from tests.child import code
from tests.tiny import harmful_example, harmless_example, tiny_folder, tiny_tokenizer

ADAPTER, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
A, B = "base_model.model.layer.lora_A.weight", "base_model.model.layer.lora_B.weight"
CONFIG = TrainConfig(rank=2, alpha=4, learning_rate=1e-2, batch_size=4, epochs=2, seed=3, averaged=2)


def _job(out: Path, **changed: Any) -> Job:
    rows = [harmful_example(), harmless_example()] * 4
    material = Material(rows, tiny_tokenizer(), default_policy())
    return Job(str(tiny_folder()), get_method("scot"), material, CONFIG.model_copy(update=changed), out)


def _stored(folder: Path, weights: dict[str, torch.Tensor], **config: Any) -> Path:
    folder.mkdir()
    save_file(weights, str(folder / ADAPTER))
    (folder / CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
    return folder


def _changes(folder: Path) -> dict[str, torch.Tensor]:
    """What an adapter adds to each weight."""
    weights, config = load_file(str(folder / ADAPTER)), json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    scale = config["lora_alpha"] / config["r"]
    return {
        name: scale * weights[name.replace("lora_A", "lora_B")] @ weights[name] for name in weights if "lora_A" in name
    }


def test_the_mean_of_two_adapters_by_hand(tmp_path: Path) -> None:
    """Changes 2 * [3, 6] and 2 * [-1, 4], of rank 1 and scale 2, have the mean [2, 10]: not what the means of their
    factors give, [[1, 2.5] * 1.5] * 2."""
    first = _stored(tmp_path / "0", {A: torch.tensor([[1.0, 2.0]]), B: torch.tensor([[3.0]])}, r=1, lora_alpha=2)
    second = _stored(tmp_path / "1", {A: torch.tensor([[-1.0, 4.0]]), B: torch.tensor([[1.0]])}, r=1, lora_alpha=2)
    (first / "tokenizer.json").write_text("{}", encoding="utf-8")
    out = tmp_path / "out"
    average([first, second], out)
    assert torch.equal(_changes(out)[A], torch.tensor([[2.0, 10.0]]))
    assert json.loads((out / CONFIG_FILE).read_text(encoding="utf-8")) == {"r": 2, "lora_alpha": 4}
    assert (out / "tokenizer.json").is_file()


def test_whole_weights_are_averaged_as_they_are(tmp_path: Path) -> None:
    folders = [tmp_path / "0", tmp_path / "1"]
    for folder, value in zip(folders, (1.0, 4.0), strict=True):
        folder.mkdir()
        save_file({"layer.weight": torch.full((2,), value, dtype=torch.bfloat16)}, str(folder / "model.safetensors"))
    out = tmp_path / "out"
    average(folders, out)
    assert load_file(str(out / "model.safetensors"))["layer.weight"].tolist() == [2.5, 2.5]


def test_trainings_that_hold_other_weights_have_no_mean(tmp_path: Path) -> None:
    first = _stored(tmp_path / "0", {A: torch.ones(1, 2), B: torch.ones(1, 1)}, r=1, lora_alpha=2)
    second = _stored(tmp_path / "1", {A: torch.ones(1, 2)}, r=1, lora_alpha=2)
    with pytest.raises(ModelError, match="do not hold the same weights"):
        average([first, second], tmp_path / "out")


def test_averaged_weights_are_the_mean_of_what_each_seed_trains(tmp_path: Path) -> None:
    counts = train_method(_job(tmp_path / "both"))
    each = [tmp_path / str(seed) for seed in (3, 1003)]
    alone = [train_method(_job(out, averaged=1, seed=int(out.name))) for out in each]
    first, second = (_changes(out) for out in each)
    found = _changes(tmp_path / "both")
    assert not torch.allclose(first[next(iter(first))], second[next(iter(first))], atol=1e-6)
    for name, change in found.items():
        assert torch.allclose(change, (first[name] + second[name]) / 2, atol=1e-6), name
    assert (counts["tokens"], counts["steps"]) == (2 * alone[0]["tokens"], 2 * alone[0]["steps"])
    assert counts["rows"] == alone[0]["rows"]
    assert counts["loss_refusal"] == pytest.approx((alone[0]["loss_refusal"] + alone[1]["loss_refusal"]) / 2)
    assert read_settings(tmp_path / "both").method == "scot"
    assert not (tmp_path / "both" / "trainings").exists()


def test_a_stopped_run_trains_what_was_not_done_alone(tmp_path: Path, monkeypatch: Any) -> None:
    begun: list[str] = []
    fails = True

    def once(job: Job) -> dict[str, float]:
        begun.append(job.out.name)
        if fails and job.out.name == "1":
            raise KeyboardInterrupt
        return real(job)

    from forethought.training import run as module

    real = module.train_rows
    monkeypatch.setattr(module, "train_rows", once)
    with pytest.raises(KeyboardInterrupt):
        train_method(_job(tmp_path))
    fails = False
    train_method(_job(tmp_path))
    assert begun == ["0", "1", "1"]
    counts = train_method(_job(tmp_path))  # done: nothing is trained
    assert (len(begun), counts["rows"]) == (3, 8)
    assert (tmp_path / ADAPTER).is_file()


def test_a_folder_of_another_training_is_not_gone_on_from(tmp_path: Path) -> None:
    train_method(_job(tmp_path / "done"))
    with pytest.raises(ModelError, match=r"another training .*other model, rows or settings"):
        train_method(_job(tmp_path / "done", learning_rate=2e-2))
    shutil.copytree(tmp_path / "done", tmp_path / "half" / "trainings" / "0")
    with pytest.raises(ModelError, match="another training"):
        train_method(_job(tmp_path / "half"))


_CHILD = """
import dataclasses, sys, time
from pathlib import Path
from tests.listening import Listening
from tests.training.test_averaged import _job
from forethought.training.run import train_method

out = Path(sys.argv[1])

def hang(step, total, values):
    if (out / "trainings/0/averaged.json").exists():
        (out / "in-the-second").touch()
        time.sleep(600)

train_method(dataclasses.replace(_job(out), progress=Listening(hang)))
"""


@pytest.mark.slow
def test_a_run_that_is_killed_in_the_second_training_keeps_the_first(tmp_path: Path) -> None:
    out, whole = tmp_path / "killed", tmp_path / "whole"
    out.mkdir()
    code(_CHILD, out).kill_once((out / "in-the-second").exists)
    assert not (out / ADAPTER).exists()
    kept = (out / "trainings/0" / ADAPTER).stat().st_mtime_ns
    begun: list[str] = []

    def once(job: Job) -> dict[str, float]:
        begun.append(job.out.name)
        assert (out / "trainings/0" / ADAPTER).stat().st_mtime_ns == kept
        return train_method(job)

    train_averaged(_job(out), once)
    assert begun == ["1"]
    train_method(_job(whole))
    changes, expected = _changes(out), _changes(whole)
    assert all(torch.equal(changes[name], change) for name, change in expected.items())


def test_a_recipe_that_averages_says_so_and_one_that_does_not_keeps_its_key() -> None:
    assert "averaged" not in TrainConfig().model_dump()
    assert TrainConfig(averaged=3).model_dump()["averaged"] == 3
    with pytest.raises(ValueError, match="dora keeps lengths"):
        TrainConfig(averaged=2, dora=True)
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        TrainConfig(averaged=0)
