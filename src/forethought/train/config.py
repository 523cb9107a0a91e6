"""How to train; read by recipes without loading torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from forethought.records import Record

_ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class TrainConfig(Record):
    """How to train. The defaults suit models of billions of parameters; `small_model` is for the embedded one."""

    method: Literal["lora", "full"] = "lora"
    rank: int = Field(default=32, ge=1)
    alpha: int = Field(default=64, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    target_modules: tuple[str, ...] = _ALL_LINEAR
    skip_layers: int = Field(default=0, ge=0)
    """So many layers from the bottom stay as they are: no adapter, no backward pass through them."""
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


def small_model() -> TrainConfig:
    """Settings for a model of about a hundred million parameters on two cores.

    Such a model needs a rate ten times higher than large ones, and its lowest layers
    change little: leaving them out saves a fifth of the time.
    """
    return TrainConfig(learning_rate=2e-3, batch_size=8, skip_layers=8)
