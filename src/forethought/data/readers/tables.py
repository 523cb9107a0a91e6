"""Tables as text and plain lines, row by row."""

from __future__ import annotations

import csv
import re
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, TextIO, cast

from forethought.data.readers.files import MEND, NOT_UTF_8, WORDS, Numbered, OnBad, Opener, Row, is_damaged, open_text
from forethought.errors import InputError, reason_of

csv.field_size_limit(16 * 1024 * 1024)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


def words_in(text: str) -> int:
    """About how many words a text has; scripts without spaces count two characters a word."""
    return max(len(text.split()), len(re.findall(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]", text)) // 2)


def is_header(cells: Sequence[object]) -> bool:
    """Whether a first line names columns; where it reads like a request itself, the table has no header."""
    texts = [cell.strip() for cell in cells if isinstance(cell, str)]
    if len(texts) < len(cells) or not any(texts):
        return False
    if any(text.lower() in WORDS["keys"]["header"] for text in texts):
        return True
    return not any(words_in(text) >= 5 or (text.endswith("?") and words_in(text) > 2) for text in texts)


def column_names(count: int) -> list[str]:
    """Names for the columns of a table without a header."""
    return ["text"] if count == 1 else [f"column_{number}" for number in range(1, count + 1)]


class _Lines:
    """Lines of a file that can be given back: a quote that is never closed must not swallow the rows after it."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._returned: deque[str] = deque()
        self.taken: list[str] = []
        """Lines taken since the last row was finished."""
        self.number = 0
        """Number of the line taken last, from 1."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else next(self._file)
        self.number += 1
        self.taken.append(line)
        return line

    def give_back(self, lines: list[str]) -> None:
        """Puts lines back, the first of them to be taken next."""
        self._returned.extendleft(reversed(lines))
        self.number -= len(lines)
        self.taken = []


def read_table(name: str, opener: Opener, on_bad: OnBad) -> Iterator[Numbered]:
    """CSV, TSV and their like: the delimiter is the one that the first line has most of.

    A first line that reads like a request is no header. A row with more cells than
    columns, or with a quote that is never closed, is bad; one with fewer is filled up.
    """
    with open_text(name, opener) as file:
        lines = _Lines(file)
        first = _first_line(lines)
        if first is None:
            return
        delimiter = "\t" if name.lower().endswith(".tsv") else None
        if first.lower().startswith("sep=") and len(first.strip()) == 5:  # a spreadsheet's own note
            delimiter, first = first.strip()[-1], next(lines, "")
        bare = _QUOTED.sub("", first)
        delimiter = delimiter or max(",;\t|", key=bare.count)
        lines.give_back([first])
        if delimiter not in bare:
            yield from _single_column(name, lines, on_bad)
        else:
            yield from _columns(name, lines, delimiter, on_bad)


def _first_line(lines: _Lines) -> str | None:
    """The first line that is neither blank nor a comment."""
    for line in lines:
        comment = line.startswith("#") and ("," not in line or re.match(r"#\s*[\w.-]+\s*[:=]", line))
        if line.strip() and not comment:
            return line
    return None


def _columns(name: str, lines: _Lines, delimiter: str, on_bad: OnBad) -> Iterator[Numbered]:
    header: list[str] | None = None
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        lines.taken = []
        try:
            cells = next(reader)
            fault = _fault(cells, header)
        except StopIteration:
            return
        except csv.Error as error:
            cells, fault = [], f"is not a row of a table ({error})"
        start = lines.number - len(lines.taken) + 1
        if fault is not None:
            on_bad(InputError(f"{name}, line {start}", fault, MEND))
            lines.give_back(lines.taken[1:])
            reader = csv.reader(lines, delimiter=delimiter)
        elif header is None:
            header = [cell.strip() for cell in cells] if is_header(cells) else column_names(len(cells))
            if not is_header(cells):
                yield start, dict(zip(header, cells, strict=True))
        elif any(cells):
            yield start, dict(zip(header, [*cells, *[None] * (len(header) - len(cells))], strict=False))


def _fault(cells: list[str], header: list[str] | None) -> str | None:
    if any(is_damaged(cell) for cell in cells):
        return NOT_UTF_8
    if header is None:
        return None
    if any(cell.strip() for cell in cells[len(header) :]):
        return f"has {len(cells)} cells for {len(header)} columns"
    if len(cells) < len(header) and cells and "\n" in cells[-1]:
        return "has a quote that is never closed"
    return None


def _single_column(name: str, lines: _Lines, on_bad: OnBad) -> Iterator[Numbered]:
    """One column needs no quotes: its commas belong to the text, and so does a quote that opens no cell."""
    header: str | None = None
    while True:
        lines.taken = []
        start = lines.number + 1
        cell = _single_cell(lines)
        if cell is None:
            return
        if is_damaged(cell):
            on_bad(InputError(f"{name}, line {start}", NOT_UTF_8, MEND))
        elif header is None and is_header([cell]):
            header = cell.strip()
        elif cell.strip():
            header = header or column_names(1)[0]
            yield start, {header: cell}


def _single_cell(lines: _Lines, most: int = 1000) -> str | None:
    """The next cell, over several lines where its quotes ask for it; None at the end."""
    for line in lines:
        whole = line.rstrip("\r\n")
        if not whole.startswith('"'):
            return whole
        while whole.count('"') % 2 and len(lines.taken) < most:
            more = next(lines, None)
            if more is None:
                break
            whole = "".join(lines.taken).rstrip("\r\n")
        if _QUOTED.fullmatch(whole):
            return whole[1:-1].replace('""', '"')
        lines.give_back(lines.taken[1:])  # the quote opens no cell: the line is the text
        return line.rstrip("\r\n")
    return None


def read_lines(name: str, opener: Opener, on_bad: OnBad) -> Iterator[Numbered]:
    """One text a line."""
    with open_text(name, opener) as file:
        for number, line in enumerate(file, start=1):
            if is_damaged(line):
                on_bad(InputError(f"{name}, line {number}", NOT_UTF_8, MEND))
            elif line.strip():
                yield number, {"text": line.strip()}


# Parquet and Arrow files by batches, and sets of the `datasets` library.

_BATCH = 4096


def read_parquet(name: str, opener: Opener, on_bad: OnBad) -> Iterator[Numbered]:
    """Rows of a Parquet file, a batch of its row groups at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with _on_disk(opener) as file:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=_BATCH):
                yield from ((0, row) for row in batch.to_pylist())
    except pa.ArrowException as error:
        raise InputError(name, f"is not Parquet ({reason_of(error)})", "Write it again") from None


def read_arrow(name: str, opener: Opener, on_bad: OnBad) -> Iterator[Numbered]:
    """Rows of an Arrow or Feather file, or of an Arrow stream as `datasets` writes it."""
    import pyarrow as pa

    try:
        with _on_disk(opener) as file:
            magic = file.read(6)
            file.seek(0)
            if magic == b"ARROW1":
                reader = pa.ipc.open_file(file)
                batches: Any = (reader.get_batch(number) for number in range(reader.num_record_batches))
            else:
                batches = pa.ipc.open_stream(file)
            for batch in batches:
                for start in range(0, batch.num_rows, _BATCH):
                    yield from ((0, row) for row in batch.slice(start, _BATCH).to_pylist())
    except pa.ArrowException as error:
        raise InputError(name, f"is not Arrow ({reason_of(error)})", "Write it again, or as Parquet") from None


def _on_disk(opener: Opener) -> BinaryIO:
    """The file itself, or a copy on disk where it is compressed: these formats are read from their end."""
    opened = opener()
    if hasattr(opened, "fileno") and type(opened).__module__ in ("_io", "io"):
        return opened
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with opened:
        shutil.copyfileobj(opened, copy)
    copy.seek(0)
    return cast(BinaryIO, copy)


def read_datasets(spec: str) -> Iterator[tuple[str, Row]]:
    """Streams a hub set (`hub:owner/name:config@split`) or a folder saved by `datasets` (`disk:PATH@split`)."""
    import datasets

    scheme, _, rest = spec.partition(":")
    name, _, split = rest.partition("@")
    name, _, config = name.partition(":") if scheme == "hub" else (name, "", "")
    try:
        if scheme == "hub":
            loaded: Any = datasets.load_dataset(name, config or None, split=split or "train", streaming=True)
        else:
            loaded = datasets.load_from_disk(name)
            if isinstance(loaded, datasets.DatasetDict):
                loaded = loaded[split or next(iter(loaded))]
    except Exception as error:  # the library raises many kinds; each becomes one line for the user
        raise InputError(
            spec,
            f"could not be loaded ({reason_of(error)})",
            "Check the name and the network, or give a local file",
        ) from error
    for row in loaded:
        yield name, dict(row)
