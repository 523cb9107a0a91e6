"""Texts that an attacker model wrote, kept in a file, so that each is asked for once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from forethought.errors import InputError
from forethought.records import Record, cut_half_line


class Rewrite(Record):
    """One text."""

    key: str
    """`Wanted.key`: a hash of what was asked."""
    model: str
    """Who wrote it: texts of another model are not used."""
    rewriter: str
    text: str


class Rewrites(Mapping[str, str]):
    """The texts of one model by `Wanted.key`, in a file that only grows. One writer at a time."""

    def __init__(self, path: Path, model: str) -> None:
        """Reads the file; a last line that a kill cut short is removed. Raises InputError for a damaged one."""
        self._path, self._model = path, model
        self._texts: dict[str, str] = {}
        if path.is_file():
            cut_half_line(path)
            self._read()

    def __getitem__(self, key: str) -> str:
        return self._texts[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, texts: Mapping[str, tuple[str, str]]) -> None:
        """Keeps (rewriter, text) by key; they are on disk when this returns. Known keys keep their text."""
        new = {key: pair for key, pair in texts.items() if key not in self._texts}
        if not new:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            for key, (rewriter, text) in new.items():
                row = Rewrite(key=key, model=self._model, rewriter=rewriter, text=text)
                file.write(row.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._texts |= {key: text for key, (_, text) in new.items()}

    def _read(self) -> None:
        with self._path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    row = Rewrite.model_validate(json.loads(line))
                except (ValidationError, json.JSONDecodeError):
                    raise InputError(
                        f"{self._path}, line {number}",
                        "is not a rewrite",
                        "Delete that line: its text is asked for again",
                    ) from None
                if row.model == self._model:
                    self._texts.setdefault(row.key, row.text)
