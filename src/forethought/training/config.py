"""Settings of a training: a recipe's, and which of its processes this is. Read without loading torch."""

from __future__ import annotations

import operator
import os
from typing import Literal, Self

from pydantic import Field, model_validator

from forethought.records import Record

_ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Tracker = Literal["tensorboard", "wandb", "mlflow"]
_UNSET = operator.not_
"""Of settings that came later: left out of a dump where they are unset, keys of finished stages and trainings stay."""


class EarlyStop(Record):
    """When training ends before its last step, and what it is measured by."""

    held_out: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of the families, of each term, that are held out and measured; where none are given."""

    patience: int = Field(default=3, ge=1)
    """So many evaluations in a row in which neither held-out loss falls below its best, and training ends."""
    every: int = Field(default=10, ge=1)
    """Steps between evaluations."""
    min_delta: float = Field(default=0.0, ge=0.0)
    """Nats by which a loss has to fall below its best to count."""


class TrainConfig(Record):
    """How to train. The defaults suit models of billions of parameters; `small_model` is for the embedded one."""

    method: Literal["lora", "full"] = "lora"
    rank: int = Field(default=32, ge=1)
    alpha: int = Field(default=64, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    target_modules: tuple[str, ...] = _ALL_LINEAR
    skip_layers: int = Field(default=0, ge=0)
    """So many layers from the bottom stay as they are: no adapter, no backward pass through them."""
    depth: float = Field(default=1.0, gt=0.0, le=1.0, exclude_if=lambda value: value == 1.0)
    """Share of the layers, from the bottom, that are adapted; those above stay as they are."""
    initial_noise: float = Field(default=0.0, ge=0.0, exclude_if=_UNSET)
    """Standard deviation of the adapter's second factor to begin with. 0, as is usual, begins with the model as it is:
    where a loss has no slope there, as the cosine with the model's own states, nothing would ever move."""
    learning_rate: float = Field(default=2e-4, gt=0.0)
    epochs: float = Field(default=1.0, gt=0.0)
    batch_size: int = Field(default=16, ge=1)
    benign_weight: float = Field(default=1.0, ge=0.0)
    """Lambda of the loss."""
    warmup: float = Field(default=0.05, ge=0.0, lt=1.0)
    """Share of the steps over which the learning rate rises; then it falls to zero along a cosine."""
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    checkpoint_steps: int = Field(default=20, ge=1)
    gradient_checkpointing: bool = False
    seed: int = 0
    dora: bool = Field(default=False, exclude_if=_UNSET)
    """Direction and length of each weight are adapted apart (DoRA, arXiv 2402.09353); LoRA alone. About twice the
    adapter's cost."""
    quantize: Literal["4bit"] | None = Field(default=None, exclude_if=_UNSET)
    """Frozen weights kept in four bits (QLoRA's NF4, arXiv 2305.14314); LoRA alone, needs a GPU and bitsandbytes."""
    packing: bool = Field(default=False, exclude_if=_UNSET)
    """Rows of a batch stand end to end instead of padded, each attending to itself alone; losses are the same."""
    early_stop: EarlyStop | None = Field(default=None, exclude_if=_UNSET)
    """None trains to the last step."""
    trackers: tuple[Tracker, ...] = Field(default=(), exclude_if=_UNSET)
    """Where losses are sent besides the terminal; nothing is sent anywhere that is not named here."""

    @model_validator(mode="after")
    def _lora_alone(self) -> Self:
        for name, value in (("dora", self.dora), ("quantize", self.quantize)):
            if value and self.method != "lora":
                raise ValueError(f"{name} adapts frozen weights, and method: {self.method} freezes none; use lora")
        return self


def small_model() -> TrainConfig:
    """Settings for a model of about a hundred million parameters on two cores.

    Such a model needs a rate ten times higher than large ones, and its lowest layers
    change little: leaving them out saves a fifth of the time. What it learns rests on how many steps it takes: half
    the batch did better for the same tokens (docs/research/study.md).
    """
    return TrainConfig(learning_rate=2e-3, batch_size=4, skip_layers=8)


def is_first() -> bool:
    """Whether this process speaks and writes for all; True where it is alone."""
    return int(os.environ.get("RANK", "0")) == 0
