"""Training a base model on rows: load, train with an objective, save, and go on where a stopped run was."""

from __future__ import annotations

import importlib.util
import json
import time
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback

from forethought.disk import LEAST_BYTES, require, told_when_full
from forethought.errors import ConfigError, ModelError, reason_of
from forethought.manifest import key_of, write_json
from forethought.models.weights import batches_in_bfloat16, resolve_model
from forethought.training.config import EarlyStop, TrainConfig, is_first
from forethought.training.forward import add_taught_head, pack_attention, suit_attention
from forethought.training.held_out import HeldOutRows, HeldOutStop, best_counts
from forethought.training.objective import Objective, PairedObjective
from forethought.training.rows import TokenRow, collate
from forethought.training.streamed import RowSet
from forethought.training.trainer import (
    ObjectiveTrainer,
    OnStep,
    PairedSampler,
    Progress,
    arguments,
    check_trackers,
    disturb,
    lora,
    tracker_callbacks,
)


def train(
    base: str,
    rows: Sequence[TokenRow],
    config: TrainConfig,
    out: Path,
    on_step: OnStep | None = None,
    objective: Objective | None = None,
    held_out: Sequence[TokenRow] | None = None,
) -> dict[str, float]:
    """Trains on tokenised rows and saves adapter (or full model) and tokenizer into `out`.

    `rows` may be a RowSet, which stays on disk. `objective` None is the paired loss of SCoT. Checkpoints go to
    `out`/checkpoints; when some stand there, training resumes from the last and ends as if it had not been interrupted.
    `held_out` is rows of both terms: training ends as `config.early_stop` says (None: as its defaults say), and the
    weights that were best on them are saved.
    Returns counts: rows, tokens, steps, the share of time spent waiting for data, the last value of each loss term, and
    of held-out rows the best step's losses, which step that is (its weights are kept) and whether training was ended
    early.
    Raises ModelError for a base model that can't be loaded, and where `out` holds checkpoints of another training;
    ConfigError for settings that don't go together or need what is not there.
    """
    objective = objective or PairedObjective(config.benign_weight)
    check_settings(config, objective, held_out)
    rows = RowSet.of(rows)
    said = [base, rows.key, config.model_dump(), repr(objective), held_out and RowSet.of(held_out).key]
    claim(out, key_of(said))
    trainer = _trainer(base, rows, config, out, on_step, objective, held_out)
    last = last_checkpoint(out)
    several = trainer.args.save_steps * config.batch_size < len(rows) * config.epochs
    need, what = disk_need(trainer.model, out, several), "the training, with its checkpoints,"
    require(out, need, what)
    with told_when_full(out, need, what):
        began = time.perf_counter()
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        seconds = time.perf_counter() - began
        trainer.save_model(str(out))
        if is_first():
            trainer.processing_class.save_pretrained(str(out))
    return {
        "rows": float(len(rows)),
        "tokens": float(rows.tokens * config.epochs),
        "steps": float(trainer.state.global_step),
        "data_wait_share": trainer.data_wait_s / seconds,
        **_last_terms(trainer.state.log_history),
        **({} if held_out is None else best_counts(trainer.state)),
    }


def _trainer(
    base: str,
    rows: RowSet,
    config: TrainConfig,
    out: Path,
    on_step: OnStep | None,
    objective: Objective,
    held_out: Sequence[TokenRow] | None,
) -> ObjectiveTrainer:
    """The model with all that trains it."""
    model, tokenizer = _load(base, config, max(rows.lengths.tolist(), default=0))
    measure = None if held_out is None else HeldOutRows(held_out, tokenizer.pad_token_id, config.batch_size)
    stop = config.early_stop or EarlyStop()
    trainer = ObjectiveTrainer(
        model=model,
        args=arguments(config, out, None if measure is None else stop.every),
        train_dataset=rows.trained,
        eval_dataset=None if measure is None else rows.trained,  # asked for, and not looked at: `measure` has its own
        processing_class=tokenizer,
        data_collator=partial(collate, pad_id=tokenizer.pad_token_id),
        peft_config=lora(config, model.config.num_hidden_layers) if config.method == "lora" else None,
        callbacks=[
            *([Progress(on_step)] if on_step is not None else []),
            *tracker_callbacks(config.trackers, out),
            *([] if measure is None else [HeldOutStop(stop)]),
        ],
        objective=objective,
        measure=measure,
        benign_weight=config.benign_weight,
        sampler=PairedSampler(rows.lengths.tolist(), rows.terms.tolist(), config.batch_size, config.seed),
    )
    if config.initial_noise and config.method == "lora":
        disturb(trainer.model, config.initial_noise, config.seed)
    trainer.remove_callback(PrinterCallback)  # progress goes to `on_step`, not to the terminal
    return trainer


_CHECKPOINTS = 3
"""At once, where there are several: two are kept, and a third is whole before the oldest goes."""
_BYTES_A_PARAMETER = 12
"""Of a trained one in a checkpoint: itself and the optimiser's two averages, in float32."""
_BESIDE = 16 * 1024**2
"""Of a checkpoint: tokenizer, state, settings."""


def disk_need(model: Any, out: Path, several: bool) -> int:
    """Bytes that a training, with one checkpoint or several, writes beside what stands in its folder already."""
    trained: int = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    whole = (_CHECKPOINTS if several else 1) * (_BYTES_A_PARAMETER * trained + _BESIDE) + 4 * trained + _BESIDE
    there = sum(file.stat().st_size for file in (out / "checkpoints").rglob("*") if file.is_file())
    return max(LEAST_BYTES, whole - there)


def check_settings(config: TrainConfig, objective: Objective, held_out: Sequence[object] | None) -> None:
    """Raises ConfigError for settings that don't go together and packages that are not there; loads nothing."""
    check_trackers(config.trackers)
    if config.early_stop is not None and held_out is None:
        raise ConfigError("early_stop", "nothing is held out to stop by", "Give held-out rows (--held-out 0.1)")
    paired = isinstance(objective, PairedObjective)
    if held_out is not None and not paired:
        raise ConfigError(
            f"held-out rows with {type(objective).__name__}",
            "their paired loss is not what this objective minimises",
            "Hold nothing out",
        )
    if config.packing and not paired:
        raise ConfigError(
            f"packing: true with {type(objective).__name__}",
            "this objective may look at states row by row, which packed rows have not",
            "Set packing: false",
        )


def _load(base: str, config: TrainConfig, longest: int) -> tuple[Any, Any]:
    resolved, quantized = resolve_model(base), quantized_loading(config)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(resolved)
        model: Any = AutoModelForCausalLM.from_pretrained(resolved, dtype=_base_dtype(config), **quantized)
    except (OSError, ValueError) as error:
        raise ModelError(base, f"can't be loaded ({reason_of(error)})", "Check the name or folder") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if config.packing:
        pack_attention(model)
        add_taught_head(model, packed=True)
    else:
        suit_attention(model, longest)
        add_taught_head(model)
    return model, tokenizer


def _base_dtype(config: TrainConfig) -> torch.dtype:
    """Frozen weights in the machine's faster type; weights that are trained stay float32."""
    return torch.bfloat16 if config.method == "lora" and batches_in_bfloat16() else torch.float32


def _last_terms(history: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The last logged value of each term of the loss."""
    terms = [{key: value for key, value in entry.items() if key.startswith("loss_")} for entry in history]
    return next((entry for entry in reversed(terms) if entry), {})


def claim(out: Path, key: str) -> None:
    """Marks the folder as this training's: going on from other rows or settings would keep the old weights.

    Raises ModelError where checkpoints of another training stand there.
    """
    file = out / "checkpoints" / "training.json"
    if last_checkpoint(out) is not None and file.is_file() and json.loads(file.read_text(encoding="utf-8")) != key:
        raise ModelError(
            out, "holds checkpoints of another training (other model, rows or settings)", "Give another folder"
        )
    if is_first():
        write_json(file, key)


def last_checkpoint(out: Path) -> Path | None:
    """The newest complete checkpoint of a run; a half-written one is passed over."""
    found = sorted(
        (out / "checkpoints").glob("checkpoint-*"),
        key=lambda path: int(path.name.rpartition("-")[2]),
        reverse=True,
    )
    return next((path for path in found if _complete(path)), None)


def _complete(checkpoint: Path) -> bool:
    """Whether all files of a checkpoint can be read; the trainer's state is written last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        for file in checkpoint.glob("*.safetensors"):
            with safe_open(file, framework="pt"):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    return all(zipfile.is_zipfile(file) for pattern in ("*.pt", "*.pth", "*.bin") for file in checkpoint.glob(pattern))


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
