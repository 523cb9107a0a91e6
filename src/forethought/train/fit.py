"""Training a base model on rows: load, train with an objective, save, and go on where a stopped run was."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback

from forethought.engine.device import resolve_dtype
from forethought.engine.embedded import resolve_model
from forethought.errors import ModelError
from forethought.manifest import key_of
from forethought.train.checkpoints import claim, last_checkpoint
from forethought.train.config import TrainConfig
from forethought.train.head import add_taught_head
from forethought.train.objectives.base import Objective
from forethought.train.objectives.paired import PairedObjective
from forethought.train.processes import is_first
from forethought.train.rows import TokenRow, collate
from forethought.train.sampler import PairedSampler
from forethought.train.trainer import ObjectiveTrainer, OnStep, Progress, arguments, lora


def train(
    base: str,
    rows: Sequence[TokenRow],
    config: TrainConfig,
    out: Path,
    on_step: OnStep | None = None,
    objective: Objective | None = None,
) -> dict[str, float]:
    """Trains on tokenised rows and saves adapter (or full model) and tokenizer into `out`.

    `objective` None is the paired loss of SCoT. Checkpoints go to `out`/checkpoints; when some stand
    there, training resumes from the last and ends as if it had not been interrupted.
    Returns counts: rows, tokens, steps, and the last value of each loss term.
    Raises ModelError for a base model that can't be loaded, and where `out` holds checkpoints
    of another training.
    """
    objective = objective or PairedObjective(config.benign_weight)
    said = {"base": base, "rows": [row.model_dump() for row in rows], "config": config.model_dump()}
    claim(out, key_of({**said, "objective": repr(objective)}))
    model, tokenizer = _load(base, config)
    trainer = ObjectiveTrainer(
        model=model,
        args=arguments(config, out),
        train_dataset=Dataset.from_list([row.model_dump() for row in rows]),
        processing_class=tokenizer,
        data_collator=partial(collate, pad_id=tokenizer.pad_token_id),
        peft_config=lora(config, model.config.num_hidden_layers) if config.method == "lora" else None,
        callbacks=[Progress(on_step)] if on_step is not None else None,
        objective=objective,
        sampler=PairedSampler([row.length for row in rows], [row.term for row in rows], config.batch_size, config.seed),
    )
    trainer.remove_callback(PrinterCallback)  # progress goes to `on_step`, not to the terminal
    last = last_checkpoint(out)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    trainer.save_model(str(out))
    if is_first():
        tokenizer.save_pretrained(str(out))
    return {
        "rows": float(len(rows)),
        "tokens": float(sum(row.tokens for row in rows) * config.epochs),
        "steps": float(trainer.state.global_step),
    } | _last_terms(trainer.state.log_history)


def _load(base: str, config: TrainConfig) -> tuple[Any, Any]:
    resolved = resolve_model(base)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(resolved)
        model: Any = AutoModelForCausalLM.from_pretrained(resolved, dtype=_base_dtype(config))
    except (OSError, ValueError) as error:
        raise ModelError(base, f"can't be loaded ({str(error).splitlines()[0]})", "Check the name or folder") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    add_taught_head(model)
    return model, tokenizer


def _base_dtype(config: TrainConfig) -> torch.dtype:
    """Frozen weights in the machine's faster type; weights that are trained stay float32."""
    return resolve_dtype("auto") if config.method == "lora" else torch.float32


def _last_terms(history: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The last logged value of each term of the loss."""
    terms = [{key: value for key, value in entry.items() if key.startswith("loss_")} for entry in history]
    return next((entry for entry in reversed(terms) if entry), {})
