"""Parquet and Arrow files by batches, and sets of the `datasets` library."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from forethought.data.readers.base import OnBad, Opener, Row
from forethought.errors import InputError

_BATCH = 4096


def read_parquet(name: str, opener: Opener, on_bad: OnBad) -> Iterator[Row]:
    """Rows of a Parquet file, a batch of its row groups at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with _on_disk(opener) as file:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=_BATCH):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise InputError(name, f"is not Parquet ({_first_line(error)})", "Write it again") from None


def read_arrow(name: str, opener: Opener, on_bad: OnBad) -> Iterator[Row]:
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
                    yield from batch.slice(start, _BATCH).to_pylist()
    except pa.ArrowException as error:
        raise InputError(name, f"is not Arrow ({_first_line(error)})", "Write it again, or as Parquet") from None


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


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


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
            f"could not be loaded ({_first_line(error)})",
            "Check the name and the network, or give a local file",
        ) from error
    for row in loaded:
        yield name, dict(row)
