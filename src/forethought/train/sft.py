"""Safety reasoning by supervised fine-tuning: TRL's trainer with a loss of two terms.

L = L_refusal + lambda * L_benign (arXiv 2501.19180): each step pairs harmful and harmless
rows, each term is a mean over its own taught tokens, and both are logged apart. Logits
are computed for taught tokens only (TRL's fused head).
"""

from __future__ import annotations

import json
import zipfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from forethought.engine.device import has_fast_bfloat16, resolve_dtype
from forethought.engine.embedded import resolve_model
from forethought.errors import ModelError
from forethought.manifest import key_of, write_json
from forethought.train.config import TrainConfig
from forethought.train.head import add_taught_head
from forethought.train.rows import TERMS, TokenRow, collate
from forethought.train.sampler import PairedSampler


def paired_loss(
    log_probs: torch.Tensor,  # B T
    taught: torch.Tensor,  # B T, true where a token bears loss
    term: torch.Tensor,  # B
    benign_weight: float,
) -> tuple[torch.Tensor, dict[str, float]]:
    """L_refusal + benign_weight * L_benign, each the mean over its rows' taught tokens.

    A term without rows in the batch is zero. Returns the loss and each term's value.
    """
    total = log_probs.new_zeros(())
    values: dict[str, float] = {}
    for number, name in enumerate(TERMS):
        mask = taught & (term == number).unsqueeze(1)
        count = mask.sum()
        if count == 0:
            continue
        value = -(log_probs * mask).sum() / count
        values[name] = float(value.detach())
        total = total + (value if name == "refusal" else benign_weight * value)
    return total, values


class ReasoningTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's SFT trainer with our loss and order of rows; nothing else differs."""

    def __init__(self, *args: Any, benign_weight: float, sampler: PairedSampler, **kwargs: Any) -> None:
        self._benign_weight = benign_weight
        self._sampler = sampler
        self._terms: dict[str, list[float]] = defaultdict(list)
        super().__init__(*args, **kwargs)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["input_ids", "attention_mask", "labels", "term"]

    def _get_train_sampler(self, train_dataset: Any = None) -> PairedSampler:
        return self._sampler

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        term = inputs.pop("term")
        outputs = model(**inputs, taught_only=True)
        loss, values = paired_loss(outputs.log_probs, outputs.taught, term, self._benign_weight)
        for name, value in values.items():
            self._terms[name].append(value)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        for name, values in self._terms.items():
            if values:
                logs[f"loss_{name}"] = round(sum(values) / len(values), 4)
        self._terms.clear()
        super().log(logs, start_time)


class _Progress(TrainerCallback):  # type: ignore[misc]
    """Tells the caller about steps, and nothing to the terminal."""

    def __init__(self, on_step: Callable[[int, int, dict[str, float]], None]) -> None:
        self._on_step = on_step
        self._last: dict[str, float] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self._last = {key: value for key, value in (logs or {}).items() if key.startswith("loss_")}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._on_step(state.global_step, state.max_steps, self._last)


def train(
    base: str,
    rows: Sequence[TokenRow],
    config: TrainConfig,
    out: Path,
    on_step: Callable[[int, int, dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Trains on tokenised rows and saves adapter (or full model) and tokenizer into `out`.

    Checkpoints go to `out`/checkpoints; when some stand there, training resumes from the
    last and ends as if it had not been interrupted. `on_step(step, steps, losses)` reports
    progress. Returns counts: rows, tokens, steps, and the last value of each loss term.
    Raises ModelError for a base model that can't be loaded, and where `out` holds checkpoints
    of another training.
    """
    _claim(out, key_of({"base": base, "rows": [row.model_dump() for row in rows], "config": config.model_dump()}))
    resolved = resolve_model(base)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(resolved)
        model: Any = AutoModelForCausalLM.from_pretrained(resolved, dtype=_base_dtype(config))
    except (OSError, ValueError) as error:
        raise ModelError(base, f"can't be loaded ({str(error).splitlines()[0]})", "Check the name or folder") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    add_taught_head(model)
    trainer = ReasoningTrainer(
        model=model,
        args=_arguments(config, out),
        train_dataset=Dataset.from_list([row.model_dump() for row in rows]),
        processing_class=tokenizer,
        data_collator=partial(collate, pad_id=tokenizer.pad_token_id),
        peft_config=_lora(config, model.config.num_hidden_layers) if config.method == "lora" else None,
        callbacks=[_Progress(on_step)] if on_step is not None else None,
        benign_weight=config.benign_weight,
        sampler=PairedSampler([row.length for row in rows], [row.term for row in rows], config.batch_size, config.seed),
    )
    trainer.remove_callback(PrinterCallback)  # progress goes to `on_step`, not to the terminal
    last = last_checkpoint(out)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    trainer.save_model(str(out))
    tokenizer.save_pretrained(str(out))
    losses = [entry for entry in trainer.state.log_history if "loss_refusal" in entry or "loss_benign" in entry]
    tail = losses[-1] if losses else {}
    return {
        "rows": float(len(rows)),
        "tokens": float(sum(row.length for row in rows) * config.epochs),
        "steps": float(trainer.state.global_step),
    } | {key: value for key, value in tail.items() if key.startswith("loss_")}


def _base_dtype(config: TrainConfig) -> torch.dtype:
    """Frozen weights in the machine's faster type; weights that are trained stay float32."""
    return resolve_dtype("auto") if config.method == "lora" else torch.float32


def _claim(out: Path, key: str) -> None:
    """Marks the folder as this training's: going on from other rows or settings would keep the old weights."""
    file = out / "checkpoints" / "training.json"
    if last_checkpoint(out) is not None and file.is_file() and json.loads(file.read_text(encoding="utf-8")) != key:
        raise ModelError(
            out, "holds checkpoints of another training (other model, rows or settings)", "Give another folder"
        )
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
    return all(zipfile.is_zipfile(file) for pattern in ("*.pt", "*.pth") for file in checkpoint.glob(pattern))


def _lora(config: TrainConfig, n_layers: int) -> LoraConfig:
    layers = list(range(config.skip_layers, n_layers)) if config.skip_layers else None
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.target_modules),
        layers_to_transform=layers,
        task_type="CAUSAL_LM",
    )


def _arguments(config: TrainConfig, out: Path) -> SFTConfig:
    return SFTConfig(
        output_dir=str(out / "checkpoints"),
        learning_rate=config.learning_rate,
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup,
        max_grad_norm=config.max_grad_norm,
        gradient_checkpointing=config.gradient_checkpointing,
        bf16=has_fast_bfloat16(),
        seed=config.seed,
        data_seed=config.seed,
        save_steps=config.checkpoint_steps,
        save_total_limit=2,
        logging_steps=5,
        disable_tqdm=True,
        report_to=[],
        max_length=None,
        remove_unused_columns=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        use_cpu=not torch.cuda.is_available(),
    )
