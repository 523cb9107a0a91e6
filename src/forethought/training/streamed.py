"""Examples and rows that stay on disk: a million cost a trainer no more memory than a thousand."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray
from pydantic import ValidationError

from forethought.errors import InputError, reason_of
from forethought.manifest import file_hash, key_of, replacing
from forethought.records import Example
from forethought.training.rows import TokenRow


class ExampleFile(Sequence[Example]):
    """Examples of a JSONL file, eight bytes each in memory. Raises InputError for a file that is not there."""

    def __init__(self, path: Path, starts: NDArray[np.int64] | None = None) -> None:
        if not path.is_file():
            raise InputError(path, "there is no such file", "Run the stage that writes it, or give another path")
        self.path = path
        self._whole = starts is None
        self._starts = _line_starts(path) if starts is None else starts

    @property
    def key(self) -> str:
        """Content key of the examples and their order."""
        content = file_hash(self.path)
        return content[:16] if self._whole else key_of([content, self._starts.tolist()])

    def select(self, places: Sequence[int]) -> ExampleFile:
        """The examples at these places."""
        return ExampleFile(self.path, self._starts[np.asarray(places, dtype=np.int64)])

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Example]:
        with self.path.open("rb") as file:
            for start in self._starts:
                if file.tell() != start:  # in the file's own order nothing is skipped, and its buffer is kept
                    file.seek(start)
                yield self._read(file.readline(), int(start))

    @overload
    def __getitem__(self, place: int) -> Example: ...

    @overload
    def __getitem__(self, place: slice) -> ExampleFile: ...

    def __getitem__(self, place: int | slice) -> Example | ExampleFile:
        if isinstance(place, slice):
            return ExampleFile(self.path, self._starts[place])
        with self.path.open("rb") as file:
            file.seek(self._starts[place])
            return self._read(file.readline(), int(self._starts[place]))

    def _read(self, line: bytes, start: int) -> Example:
        try:
            return Example.model_validate(json.loads(line))
        except (ValidationError, ValueError) as error:
            raise InputError(
                f"{self.path}, line {self._line_number(start)}",
                f"is not a Example row ({reason_of(error)})",
                "Delete the file and run its stage again",
            ) from None

    def _line_number(self, start: int) -> int:
        with self.path.open("rb") as file:
            return file.read(start).count(b"\n") + 1


def _line_starts(path: Path) -> NDArray[np.int64]:
    """Where each line begins that is not blank."""
    starts, at = [], 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                starts.append(at)
            at += len(line)
    return np.array(starts, dtype=np.int64)


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


def _columns(row: TokenRow, style: str | None = None) -> dict[str, Any]:
    return row.model_dump() | {"length": row.length, "tokens": row.tokens, "style": style}


class RowSet(Sequence[TokenRow]):
    """Rows in an arrow table, in memory or in a file; of a file's, lengths and terms are held in memory, five bytes a
    row, and the rest is read where needed."""

    def __init__(self, data: Dataset, key: str) -> None:
        self.data = data
        self.key = key
        """Content key of the rows and their order."""
        columns = data.with_format("numpy")
        self.lengths: NDArray[np.int32] = np.asarray(columns["length"][:], dtype=np.int32)
        self.terms: NDArray[np.int8] = np.asarray(columns["term"][:], dtype=np.int8)

    @classmethod
    def of(cls, rows: Sequence[TokenRow]) -> RowSet:
        """Rows in memory; what is a RowSet already stays as it is."""
        if isinstance(rows, RowSet):
            return rows
        table = pa.Table.from_pylist([_columns(row) for row in rows], schema=_schema())
        return cls(Dataset(table), key_of([row.model_dump() for row in rows]))

    @classmethod
    def write(cls, rows: Iterable[tuple[TokenRow, str | None]], file: Path, key: str) -> RowSet:
        """Writes (row, style) pairs as they come, beside the file and then into place, and opens it.

        Raises InputError for no rows.
        """
        schema, columns, held = _schema(), (_columns(row, style) for row, style in rows), 0
        with replacing(file, shared=True) as part:
            with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
                while batch := list(itertools.islice(columns, _AT_ONCE)):
                    writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
                    held += len(batch)
            if not held:
                raise InputError(file.name, "no rows to write", "Give rows that the method can learn from")
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
