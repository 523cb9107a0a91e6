"""Built examples read from their file one by one: what holds a million of them without holding them in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from forethought.errors import InputError
from forethought.manifest import file_hash, key_of
from forethought.records import Example


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
                f"is not a Example row ({str(error).splitlines()[0]})",
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
