"""Token rows on disk, mapped into memory: a million rows cost a trainer no more memory than a thousand."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray

from forethought.errors import InputError
from forethought.manifest import key_of
from forethought.train.rows import TokenRow

_AT_ONCE = 1000
"""Rows of one arrow batch."""
_OWN = ("length", "tokens", "style")
"""Columns beside a row's own: `length` and `tokens` as TokenRow has them, and the style its request was written in."""


def _schema() -> Any:
    fields = [pa.field("term", pa.int8())]
    for name, field in TokenRow.model_fields.items():
        if name != "term":
            fields.append(pa.field(name, pa.list_(pa.float32() if "float" in str(field.annotation) else pa.int32())))
    return pa.schema(
        [*fields, pa.field("length", pa.int32()), pa.field("tokens", pa.int32()), pa.field("style", pa.string())]
    )


class RowSet(Sequence[TokenRow]):
    """Rows in an arrow file. Lengths and terms are held in memory, five bytes a row; the rest is read where needed."""

    def __init__(self, data: Dataset, key: str) -> None:
        self.data = data
        self.key = key
        """Content key of the rows and their order."""
        columns = data.with_format("numpy")
        self.lengths: NDArray[np.int32] = np.asarray(columns["length"][:], dtype=np.int32)
        self.terms: NDArray[np.int8] = np.asarray(columns["term"][:], dtype=np.int8)

    @classmethod
    def write(cls, rows: Iterable[tuple[TokenRow, str | None]], file: Path, key: str) -> RowSet:
        """Writes (row, style) pairs as they come, beside the file and then into place, and opens it.

        Raises InputError for no rows.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.name}.part-{os.getpid()}")  # two processes may write the same content
        schema, held = _schema(), 0
        try:
            with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
                batch: list[dict[str, Any]] = []
                for row, style in rows:
                    batch.append(row.model_dump() | {"length": row.length, "tokens": row.tokens, "style": style})
                    held += 1
                    if len(batch) == _AT_ONCE:
                        writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
                        batch = []
                if batch:
                    writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
            if not held:
                raise InputError(file.name, "no rows to write", "Give rows that the method can learn from")
            os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)
        return cls.open(file, key)

    @classmethod
    def open(cls, file: Path, key: str) -> RowSet:
        """A file that `write` left."""
        return cls(Dataset.from_file(str(file)), key)

    @property
    def tokens(self) -> int:
        """Tokens that one pass reads, as `TokenRow.tokens`."""
        return int(self.token_counts.sum())

    @property
    def token_counts(self) -> NDArray[np.int32]:
        """`TokenRow.tokens` of each row."""
        return np.asarray(self.data.with_format("numpy")["tokens"][:], dtype=np.int32)

    @property
    def styles(self) -> tuple[str, ...]:
        """Styles that the rows hold, sorted."""
        # Not `unique`: of selected rows it would write a copy beside the file.
        batches = self.data.select_columns("style").iter(_AT_ONCE)
        return tuple(sorted({style for batch in batches for style in batch["style"] if style is not None}))

    @property
    def trained(self) -> Dataset:
        """The columns that the trainer's collator reads."""
        return self.data.remove_columns(list(_OWN))

    def select(self, places: Sequence[int]) -> RowSet:
        """The rows at these places, in this order; nothing is copied."""
        return RowSet(self.data.select(places), key_of([self.key, list(places)]))

    def __len__(self) -> int:
        return len(self.data)

    @overload
    def __getitem__(self, place: int) -> TokenRow: ...

    @overload
    def __getitem__(self, place: slice) -> RowSet: ...

    def __getitem__(self, place: int | slice) -> TokenRow | RowSet:
        if isinstance(place, slice):
            return self.select(range(*place.indices(len(self))))
        held = self.data[place]
        return TokenRow.model_validate({name: value for name, value in held.items() if name not in _OWN})
