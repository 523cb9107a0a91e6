"""Weights as they lie in a folder: a base model, an adapter of ours on one, or all weights of a trained model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from forethought.engine.device import DType, device, resolve_dtype
from forethought.engine.embedded import resolve_model
from forethought.engine.settings import Settings, read_settings, settings_if_any, write_settings
from forethought.errors import ModelError

_SMALL_MODEL = 1_000_000_000
"""Parameters below which base and merged model are both kept in memory."""


class Weights(NamedTuple):
    """What a local model is made of, on its device."""

    model: Any
    tokenizer: Any
    settings: Settings | None
    """None for a model that we did not train."""
    base: Any
    """The base model beside it; None where there is none, or where an adapter is switched off for it."""
    name: str


def load_weights(name: str, adapter: Path | None, dtype: DType) -> Weights:
    """As `LocalModel.load`."""
    folder = adapter if adapter is not None else Path(name) if _is_adapter(Path(name)) else None
    base_name = name if adapter is not None or folder is None else _base_of(folder)
    settings = read_settings(folder) if folder is not None else settings_if_any(Path(name))
    kind = resolve_dtype(dtype)
    try:
        resolved = resolve_model(base_name)
        tokenizer: Any = AutoTokenizer.from_pretrained(resolved)
        if folder is None or settings is None:
            base, model = None, AutoModelForCausalLM.from_pretrained(resolved, dtype=kind)
        elif not _is_adapter(folder) and (folder / "config.json").is_file():
            base, model = _all_weights(resolved, folder, settings, kind)
        else:
            base, model = _adapted(resolved, folder, kind)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            folder or base_name, f"can't be loaded ({reason})", "Check the name or folder, or train it again"
        ) from error
    base = base.to(device()).eval() if base is not None else None
    return Weights(model.to(device()).eval(), tokenizer, settings, base, folder.name if folder is not None else name)


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def _adapted(resolved: str, folder: Path, kind: torch.dtype) -> tuple[Any, Any]:
    """(the base beside it where that is small, the model with its adapter)."""
    from peft import PeftModel

    model: Any = AutoModelForCausalLM.from_pretrained(resolved, dtype=kind)
    base, small = None, model.num_parameters() < _SMALL_MODEL
    if small:
        base, model = model, AutoModelForCausalLM.from_pretrained(resolved, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=False)
    return base, (model.merge_and_unload() if small else model).to(kind)


def _all_weights(resolved: str, folder: Path, settings: Settings, kind: torch.dtype) -> tuple[Any, Any]:
    """(the base where it answers, the trained model)."""
    base = AutoModelForCausalLM.from_pretrained(resolved, dtype=kind) if settings.answer_with == "base" else None
    return base, AutoModelForCausalLM.from_pretrained(str(folder), dtype=kind)


def load_tokenizer(name: str) -> Any:
    """A model's tokenizer, by name or folder. Raises ModelError when it can't be read."""
    try:
        return AutoTokenizer.from_pretrained(resolve_model(name))
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(name, f"its tokenizer can't be loaded ({reason})", "Check the name or folder") from error


def _base_of(folder: Path) -> str:
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        return str(config["base_model_name_or_path"])
    except (OSError, json.JSONDecodeError, KeyError):
        raise ModelError(folder, "its adapter_config.json can't be read", "Train the adapter again") from None


def merge_adapter(folder: Path) -> Path:
    """Writes base and adapter as one plain transformers model into `folder`/merged; returns it.

    A merged model answers with its own weights: it has no base to switch to.
    """
    from peft import PeftModel

    settings = read_settings(folder)
    resolved = resolve_model(_base_of(folder))
    base: Any = AutoModelForCausalLM.from_pretrained(resolved, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
    merged.save_pretrained(folder / "merged")
    AutoTokenizer.from_pretrained(resolved).save_pretrained(folder / "merged")
    write_settings(folder / "merged", settings.model_copy(update={"answer_with": "adapter"}))
    return folder / "merged"
