"""The weights that an objective looks at: those being trained, and those that were there before."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel

from forethought.errors import ConfigError
from forethought.train.objectives.base import Batch


def bare(model: Any) -> Any:
    """The model without its parallel wrapper."""
    return extract_model_from_parallel(model)


def before_training(model: Any) -> contextlib.AbstractContextManager[Any]:
    """While it lasts, the weights are the base model's. Raises ConfigError where all weights are trained."""
    own = bare(model)
    if not hasattr(own, "disable_adapter"):
        raise ConfigError("method: full", "this objective compares with the base model's weights", "Use method: lora")
    manager: contextlib.AbstractContextManager[Any] = own.disable_adapter()
    return manager


def layers_of(model: Any) -> Any:
    """The decoder's layers, a ModuleList."""
    own = bare(model)
    base = own.get_base_model() if hasattr(own, "get_base_model") else own
    return base.get_decoder().layers


def inputs_of(batch: Batch, prefix: str = "", rows: torch.Tensor | None = None) -> Batch:
    """input_ids, attention_mask and labels of a batch, or of its other completions with the prefix `other_`."""
    found = {name: batch[f"{prefix}{name}"] for name in ("input_ids", "attention_mask", "labels")}
    return found if rows is None else {name: value[rows] for name, value in found.items()}
