"""Training by a method, whatever that takes: what the command and every sweep call, and what stands before and behind
it: the model's own harmful answers, rows, settings.

Rows of a large file are tokenised once and kept on disk under the content that they were made of.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from transformers import AutoConfig

from forethought import chat, reasoning
from forethought import language as language_module
from forethought.chat import Tokenizer, encode_completion, encode_prompt
from forethought.data.answers import kept_answers, own_answers
from forethought.data.sources import within_budget
from forethought.errors import ConfigError, InputError, ModelError, reason_of
from forethought.manifest import file_hash, key_of
from forethought.models.local import LocalModel
from forethought.models.settings import THINK_BUDGET, Settings, write_settings
from forethought.models.weights import cache_folder, resolve_model
from forethought.progress import Progress
from forethought.reasoning import VERDICT_ANCHOR
from forethought.records import Example, Request, read_jsonl
from forethought.training import rows as rows_module
from forethought.training.config import TrainConfig, is_first
from forethought.training.fit import check_settings, train
from forethought.training.held_out import hold_out
from forethought.training.methods import base as base_module
from forethought.training.methods.base import Job, Material, TrainingMethod
from forethought.training.rows import TERMS, TokenRow, prompt_tokens
from forethought.training.streamed import ExampleFile, RowSet


def train_method(job: Job) -> dict[str, float]:
    """Trains by the job's method into its folder; returns counts as `fit.train` does.

    Raises InputError where the rows hold nothing that the method can learn from, ConfigError and ModelError as
    `method_settings` and `fit.train` do.
    """
    job, method = _with_held_out(job), job.method
    return train_rows(job) if method.procedure is None else method.procedure(job, method.procedure_settings)


def _with_held_out(job: Job) -> Job:
    """The job with families held out of its examples where its settings stop early and none were given."""
    early = job.config.early_stop
    if early is None or job.held_out:
        return job
    examples, held_out = hold_out(job.material.examples, early.held_out)
    return dataclasses.replace(job, material=dataclasses.replace(job.material, examples=examples), held_out=held_out)


def train_rows(job: Job) -> dict[str, float]:
    """One run of the trainer over the method's rows, and the settings beside what it saved.

    Examples in a file are streamed, and their rows kept for the next training of the same content.
    """
    objective = job.method.objective(job.config, n_layers(job.base))
    check_settings(job.config, objective, job.held_out or None)  # before hours of tokenising
    rows, seen = training_rows(job.method, job.material, job.max_tokens)
    held_out = None
    if job.held_out:
        held_out, _ = training_rows(job.method, dataclasses.replace(job.material, examples=job.held_out))
    config = job.config
    if job.budget is not None:
        tokens, most = job.budget
        passes = min(most, max(1.0, tokens / sum(row.tokens for row in rows)))
        config = config.model_copy(update={"epochs": round(passes, 2)})
    settings = method_settings(job.method, job.material, config, seen)
    if settings.thinks:
        budget = think_budget(rows, job.material.tokenizer)
        taught = Counter(example.reasoning.language for example in job.material.examples)
        update = {"think_budget": budget, "languages": dict(taught.most_common())}
        settings = settings.model_copy(update=update)
    with job.progress.bar(job.title) as bar:
        counts = train(job.base, rows, config, job.out, bar.step, objective, held_out)
    if is_first():  # of several processes one writes
        write_settings(job.out, settings)
    return {**counts, "passes": config.epochs} if job.budget is not None else counts


_LOOKED_AT = 512
"""Rows that are looked at, evenly spread."""
_SHARE = 0.99
"""Of the taught thoughts, so many are no longer than what the budget is measured by: one odd row decides nothing, and
the longest kind decides where few thoughts are of it, such as those that spell a cipher out."""
_ROOM = 1.25
"""A new request may need more words than one that was trained on."""


def think_budget(rows: Sequence[TokenRow], tokenizer: Tokenizer) -> int:
    """Tokens of thought after which a verdict is asked for; never fewer than `THINK_BUDGET`.

    Counted from where the model's turn begins to its verdict. Rows without a verdict say nothing.
    """
    step = max(len(rows) // _LOOKED_AT, 1)
    lengths = [_before_verdict(rows[place], tokenizer) for place in range(0, len(rows), step)]
    taught = [length for length in lengths if length is not None]
    if not taught:
        return THINK_BUDGET
    return max(THINK_BUDGET, math.ceil(_ROOM * float(np.quantile(taught, _SHARE))))


def _before_verdict(row: TokenRow, tokenizer: Tokenizer) -> int | None:
    text = str(tokenizer.decode(list(row.input_ids[prompt_tokens(row) :])))
    before, anchor, _ = text.partition(VERDICT_ANCHOR)
    return len(encode_completion(tokenizer, before, end=False)) if anchor else None


COMPLIED = "complied.jsonl"
"""In the training's folder: the base model's own answers to harmful requests. They are shown nowhere else."""
COMPLIED_TOKENS = 32
"""Longest of these answers: what a method turns a model away from is how compliance begins."""


def harmful_requests(examples: Sequence[Example]) -> list[Request]:
    """The requests of the refusal term, each once."""
    return list({e.request.id: e.request for e in examples if e.term == "refusal"}.values())


def complied_answers(base: str, examples: Sequence[Example], file: Path, progress: Progress) -> dict[str, str]:
    """The base model's own answers to harmful requests that comply, by request id; refusals and garbage are left out.

    All answers are kept in `file` batch by batch: a later call asks only for what is missing, and loads no model where
    nothing is. Raises ModelError for a base that can't be loaded.
    """
    requests = harmful_requests(examples)
    with progress.bar("own answers") as bar:
        bar.total(len(requests))
        found = kept_answers(requests, file)
        if found is None:
            found = own_answers(LocalModel.load(base), requests, file, COMPLIED_TOKENS, bar.advance)
    progress.say(f"The base model complies with {len(found)} of {len(requests)} harmful requests: {file}")
    return found


def method_rows(method: TrainingMethod, material: Material, max_tokens: int | None = None) -> list[TokenRow]:
    """The method's rows, within a budget of tokens a pass: rows are dropped at random by seed, both terms alike.

    Raises InputError where none are left that the method can learn from.
    """
    rows = method.rows(material)
    value, wanted = f"method '{method.name}'", _wants(method)
    if not rows or (method.needs_complied and not any(row.term == TERMS.index("refusal") for row in rows)):
        raise InputError(value, f"finds no rows that it can learn from: {wanted[0]}", wanted[1])
    if max_tokens is None:
        return rows
    return [rows[place] for place in _places([row.tokens for row in rows], max_tokens, material.seed)]


def _places(tokens: Sequence[int], max_tokens: int, seed: int) -> list[int]:
    """Which rows of so many tokens each a budget leaves."""
    places = within_budget(tokens, max_tokens, seed)
    if not places:
        raise InputError(f"a token budget of {max_tokens}", f"no row fits, the shortest has {min(tokens)}", "Give more")
    return places


def _wants(method: TrainingMethod) -> tuple[str, str]:
    """What rows a method learns from, and what to do where there are none."""
    if method.needs_complied:
        rule = "it needs harmful requests with a refusal that the base model complies with"
        return rule, "Give more rows, or use a method that needs no such answers: forethought train --list-methods"
    if not method.thinks:
        return "it learns from answers alone", "Build rows that hold answers (build.refusal_share, build.answers)"
    return "it leaves all of these rows out", "Give other rows, or use --method scot"


def seen_operators(rows: Sequence[TokenRow], examples: Sequence[Example], tokenizer: Tokenizer) -> tuple[str, ...]:
    """Styles that the rows hold, sorted: those of the examples whose prompt one of the rows begins with."""
    styles: dict[tuple[int, ...], set[str]] = defaultdict(set)
    for example in examples:
        if example.request.operator is not None:
            styles[tuple(encode_prompt(tokenizer, example.request.messages))].add(example.request.operator)
    lengths = sorted({len(prompt) for prompt in styles})
    return tuple(sorted({s for row in rows for n in lengths for s in styles.get(row.input_ids[:n], ())}))


def method_settings(method: TrainingMethod, material: Material, config: TrainConfig, seen: tuple[str, ...]) -> Settings:
    """What is written beside the trained model. Raises ConfigError for an answer of weights that are not kept."""
    if method.answer_with == "base" and config.method != "lora":
        raise ConfigError(
            f"method '{method.name}'", "answers with the base weights, which full training changes", "Use --method scot"
        )
    return Settings(
        policy=material.policy,
        method=method.name,
        thinks=method.thinks,
        format=method.format or material.format,
        detail=method.detail or material.detail,
        answer_with=method.answer_with,
        seen_operators=seen,
    )


def n_layers(base: str) -> int:
    """Layers of a base model. Raises ModelError where its configuration can't be read."""
    try:
        config = AutoConfig.from_pretrained(resolve_model(base))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            base, f"its configuration can't be read ({reason_of(error)})", "Check the name or folder"
        ) from error
    return int(config.get_text_config().num_hidden_layers)


LARGE = 5000
"""Examples from which on they are streamed: fewer are tokenised in seconds, and kept nowhere."""
_CODE: tuple[ModuleType, ...] = (chat, language_module, reasoning, rows_module, base_module)
"""What makes a row, besides its method's file: an edit there makes other rows, and another key."""


def read_examples(path: Path, method: TrainingMethod) -> Sequence[Example]:
    """A file's examples: a large file's as they are needed where the method goes row by row, else all in memory.

    Raises InputError for a file that is not there, and of one that is read whole for a row that is none.
    """
    if goes_by_row(method):
        file = ExampleFile(path)
        if len(file) >= LARGE:
            return file
    return list(read_jsonl(path, Example))


def training_rows(
    method: TrainingMethod, material: Material, max_tokens: int | None = None, folder: Path | None = None
) -> tuple[Sequence[TokenRow], tuple[str, ...]]:
    """(the method's rows within a budget of tokens a pass, the styles that they hold).

    Examples that stand in a file are streamed, and their rows kept in `folder` (None: the user's cache) for the next
    training of the same content. Raises InputError as `method_rows` does.
    """
    examples = material.examples
    if isinstance(examples, ExampleFile) and goes_by_row(method):
        key = rows_key(method, material, examples)
        if key is not None:
            kept = _kept(method, material, key, folder or cache_folder() / "rows")
            if max_tokens is not None:
                kept = kept.select(_places(kept.token_counts.tolist(), max_tokens, material.seed))
            return kept, kept.styles
    rows = method_rows(method, material, max_tokens)
    return rows, seen_operators(rows, examples, material.tokenizer)


def goes_by_row(method: TrainingMethod) -> bool:
    """Whether a method makes its rows example by example, and does no more than train on them."""
    return method.procedure is None and method.by_row


def rows_key(method: TrainingMethod, material: Material, examples: ExampleFile) -> str | None:
    """Content key of a method's rows; None for a tokenizer that can't be told from another."""
    tokenizer = tokenizer_key(material.tokenizer)
    if tokenizer is None:
        return None
    code = (*_CODE, sys.modules[method.rows.__module__])
    made_by = [file_hash(Path(str(module.__file__))) for module in code]
    made_by += [words.model_dump_json() for words in language_module.languages().values()]
    shape = [method.name, material.format, material.detail, material.seed, material.policy.hash]
    return key_of([examples.key, tokenizer, shape, made_by])


def tokenizer_key(tokenizer: Any) -> str | None:
    """Content key of a tokenizer: its tables, its chat template and its special tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    told = [backend.to_str(), tokenizer.chat_template, tokenizer.special_tokens_map, tokenizer.bos_token_id]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _kept(method: TrainingMethod, material: Material, key: str, folder: Path) -> RowSet:
    file = folder / f"{key}.arrow"
    if file.is_file():
        return RowSet.open(file, key)
    rows = _stream(method, material)
    first = next(rows, None)
    if first is None:  # the error names what the method looks for
        method_rows(method, dataclasses.replace(material, examples=[]))
    return RowSet.write(itertools.chain([first] if first else [], rows), file, key)


def _stream(method: TrainingMethod, material: Material) -> Iterator[tuple[TokenRow, str | None]]:
    for example in material.examples:
        for row in method.rows(dataclasses.replace(material, examples=[example])):
            yield row, example.request.operator
