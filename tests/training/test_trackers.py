"""Trackers: what is named is written to, nothing else is, and a missing package is an error."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from forethought.errors import ConfigError
from forethought.training import trainer
from forethought.training.config import TrainConfig
from forethought.training.fit import train
from forethought.training.trainer import arguments, check_trackers, reported_to, tracker_callbacks
from tests.tiny import tiny_folder
from tests.training.test_fit import CONFIG, make_rows


def _without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted, *a: None if wanted == name else real(wanted, *a))


def _with(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda wanted, *a: object() if wanted == name else real(wanted, *a)
    )


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_package_that_is_missing_is_said_before_anything_is_loaded(
    name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without(name, monkeypatch)
    with pytest.raises(ConfigError, match=f"trackers: {name}.*Run: pip install {name}"):
        train("no/model", make_rows(), TrainConfig(trackers=(name,)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    _with(name, monkeypatch)
    check_trackers([name])


def test_nothing_is_reported_to_what_is_not_named(tmp_path: Path) -> None:
    """transformers' own default is every tracker that is installed."""
    assert arguments(CONFIG, tmp_path).report_to == []
    assert reported_to(("tensorboard", "wandb", "mlflow")) == ["wandb", "mlflow"]
    assert tracker_callbacks((), tmp_path) == []
    assert tracker_callbacks(("wandb",), tmp_path) == []


def test_one_process_of_several_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "is_first", lambda: False)
    assert tracker_callbacks(("tensorboard",), tmp_path) == []


class Writer:
    """What torch's SummaryWriter is to the callback."""

    def __init__(self, log_dir: str) -> None:
        self.log_dir = log_dir
        self.scalars: dict[str, float] = {}
        writers.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars[name] = value

    def add_text(self, *_: Any) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


writers: list[Writer] = []


def test_the_terms_of_the_loss_reach_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a writer in the package's place: it is not among those that we install."""
    module: Any = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr("transformers.integrations.integration_utils.is_tensorboard_available", lambda: True)
    _with("tensorboard", monkeypatch)
    writers.clear()
    config = TrainConfig.model_validate({**CONFIG.model_dump(), "epochs": 1, "trackers": ("tensorboard",)})
    train(str(tiny_folder()), make_rows(), config, tmp_path)
    (writer,) = writers
    assert writer.log_dir == str(tmp_path / "tensorboard")
    assert {"train/loss_refusal", "train/loss_benign", "train/learning_rate"} <= set(writer.scalars)
    assert writer.scalars["train/loss_refusal"] > 0


def test_the_file_is_there(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    config = TrainConfig.model_validate({**CONFIG.model_dump(), "epochs": 1, "trackers": ("tensorboard",)})
    train(str(tiny_folder()), make_rows(), config, tmp_path)
    (file,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    assert b"train/loss_refusal" in file.read_bytes()
