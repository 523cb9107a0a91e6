"""What made a stage's files: configuration, seeds, input hashes, commit, versions, counts, durations."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_PLACE = re.compile(r"(?<![\w./~-])/(?:[^/=:,|]+/)*(?=[^/\s])")
"""Of a path from the root what stands before its last part."""
_PACKAGES = (
    "forethought",
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "inspect-ai",
    "lm-eval",
    "scikit-learn",
    "statsmodels",
)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits; read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def input_hashes(files: Iterable[str | Path]) -> dict[str, str]:
    """Hash of each file by its name. A set that is no file of its own, such as a shipped one, is left out."""
    return {Path(file).name: file_hash(Path(file)) for file in files if Path(file).is_file()}


def key_of(value: Any) -> str:
    """Content hash of a JSON-like value, 16 hexadecimal digits; the order of keys doesn't matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Versions of the packages that a result depends on."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the checkout that the code runs from, `-dirty` added where it was changed; None outside git."""
    folder = Path(__file__).parent
    shown = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if shown.returncode != 0:
        return None
    changed = subprocess.run(
        ["git", "-C", str(folder), "status", "--porcelain", "--", "."], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")


def this_command() -> str:
    """What runs this process, as somebody would type it: the program with its arguments, or the script. Of a path
    from the root the last part: it is published, and where things lie on a machine is nobody else's affair."""
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    name = "forethought" if program in ("forethought", "__main__.py") else program
    return shlex.join([name, *map(without_place, sys.argv[1:])])


def without_place(word: str) -> str:
    """A word of a command, of each path from the root in it the last part alone; an address stays as it is."""
    return word if "://" in word else _PLACE.sub("", word)


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON as `write_whole` writes text."""
    write_whole(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Writes a text, whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def let_read(folder: Path, like: Path) -> None:
    """Makes the weights in a folder as readable as another file: safetensors writes them for its own user alone, and a
    server may be another."""
    for file in folder.rglob("*.safetensors"):
        file.chmod(like.stat().st_mode & 0o777)


@contextmanager
def replacing(path: Path, shared: bool = False) -> Iterator[Path]:
    """A file beside `path` to write to, moved into its place at the end: a half-written one is never taken for whole.

    `shared`: several processes may write the same content at once, each beside the others.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part" + (f"-{os.getpid()}" if shared else ""))
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
