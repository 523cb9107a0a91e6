"""Texts that an attacker model wrote, kept in a file, so that each is asked for once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from forethought.records import Record
from forethought.store import Store, locked, read_store


class Rewrite(Record):
    """One text."""

    key: str
    """`Wanted.key`: a hash of what was asked."""
    model: str
    """Who wrote it: texts of another model are not used."""
    rewriter: str
    text: str


class Rewrites(Mapping[str, str]):
    """The texts of one model by `Wanted.key`, in a store that other models and runs may share."""

    def __init__(self, path: Path, model: str) -> None:
        """Raises InputError for a damaged line."""
        self._path, self._model = path, model
        kept = read_store(path, Rewrite).values()
        self._texts = {row.key: row.text for row in kept if row.model == model}

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
        with locked(self._path.with_suffix(".lock"), wait=True), Store(self._path, write=True) as store:
            for key, (rewriter, text) in new.items():
                row = Rewrite(key=key, model=self._model, rewriter=rewriter, text=text)
                store.add(f"{self._model}:{key}", row)
        self._texts |= {key: text for key, (_, text) in new.items()}
