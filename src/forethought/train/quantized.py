"""Frozen weights in four bits: QLoRA, Dettmers et al. 2023, arXiv 2305.14314."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from forethought.errors import ConfigError
from forethought.train.config import TrainConfig

INSTALL = "pip install bitsandbytes"


def quantized_loading(config: TrainConfig) -> dict[str, Any]:
    """What `from_pretrained` is given besides for a config: NF4 with double quantisation, as in the paper.

    Empty where nothing is quantised. Raises ConfigError without bitsandbytes or without a GPU.
    """
    if config.quantize is None:
        return {}
    rule = "needs bitsandbytes, which is not installed, and a GPU"
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("quantize: 4bit", rule, f"Run: {INSTALL}; or leave quantize out")
    if not torch.cuda.is_available():
        raise ConfigError("quantize: 4bit", "needs a GPU, and none is there", "Leave quantize out on this machine")
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": settings, "device_map": {"": torch.cuda.current_device()}}
