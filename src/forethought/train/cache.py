"""Rows of a method, tokenised once and kept on disk under the content that they were made of."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from forethought import chat, reasoning
from forethought.data.select import within_budget
from forethought.engine.cache import cache_folder
from forethought.errors import InputError
from forethought.manifest import file_hash, key_of
from forethought.records import Example, read_jsonl
from forethought.train import rows as rows_module
from forethought.train.example_file import ExampleFile
from forethought.train.methods import supervised
from forethought.train.methods.base import Material, TrainingMethod
from forethought.train.prepare import method_rows, seen_operators
from forethought.train.rows import TokenRow
from forethought.train.rowset import RowSet

_BY_ROW = (
    supervised.SCOT,
    supervised.SCOT_SPLIT,
    supervised.REFUSAL,
    supervised.REFUSAL_AUGMENTED,
    supervised.POLICY_REASONING,
    *supervised.ABLATIONS,
)
"""Methods that make at most one row of an example without looking at another; all else needs the whole set at once."""
LARGE = 5000
"""Examples from which on they are streamed: fewer are tokenised in seconds, and kept nowhere."""
_CODE: tuple[ModuleType, ...] = (chat, reasoning, rows_module, supervised)
"""What makes a row: an edit there makes other rows, and another key."""


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
    training of the same content. Raises InputError as `prepare.method_rows` does.
    """
    examples = material.examples
    if isinstance(examples, ExampleFile) and goes_by_row(method):
        key = rows_key(method, material, examples)
        if key is not None:
            kept = _kept(method, material, key, folder or cache_folder() / "rows")
            kept = kept if max_tokens is None else _within(kept, max_tokens, material.seed)
            return kept, kept.styles
    rows = method_rows(method, material, max_tokens)
    return rows, seen_operators(rows, examples, material.tokenizer)


def goes_by_row(method: TrainingMethod) -> bool:
    """Whether a method makes its rows example by example, and does no more than train on them."""
    return method.procedure is None and any(method.rows is one.rows for one in _BY_ROW)


def rows_key(method: TrainingMethod, material: Material, examples: ExampleFile) -> str | None:
    """Content key of a method's rows; None for a tokenizer that can't be told from another."""
    tokenizer = tokenizer_key(material.tokenizer)
    if tokenizer is None:
        return None
    made_by = [file_hash(Path(str(module.__file__))) for module in _CODE]
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


def _within(rows: RowSet, max_tokens: int, seed: int) -> RowSet:
    counts = rows.token_counts.tolist()
    places = within_budget(counts, max_tokens, seed)
    if not places:
        raise InputError(f"--max-tokens {max_tokens}", f"no row fits, the shortest has {min(counts)}", "Give more")
    return rows.select(places)
