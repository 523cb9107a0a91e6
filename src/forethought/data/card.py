"""The data card of a built set: a README.md that says what it is made of, and that `datasets` loads it by."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import PurePath
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined
from pydantic import Field

from forethought.errors import ConfigError
from forethought.models.callspec import Usage
from forethought.records import Record

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


class SourceFacts(Record):
    """A file that requests were read from."""

    path: str
    """As the user wrote it; no folder of the machine needs to stand in it."""
    sha256: str = ""
    """Of the file; empty where it is no single file."""
    harmful: int = 0
    """Harmful requests read."""
    harmless: int = 0
    licence: str = "not stated"


class BuildFacts(Record):
    """What there is to say about a built set."""

    name: str
    command: str = ""
    """The command that built it."""
    files: dict[str, str] = Field(default_factory=lambda: {"default": "data/train.parquet"})
    """Config of `load_dataset` to the file of its train split, relative to the card; the first is the default.

    All of one format: `datasets` reads every config of a folder with one reader."""
    sources: tuple[SourceFacts, ...] = ()
    policy_name: str = ""
    policy_version: str = ""
    policy_hash: str = ""
    teacher: str = "rules (no language model)"
    usage: Usage = Usage()
    rows: int = 0
    """Rows in the set."""
    harmful_rows: int = 0
    harmless_rows: int = 0
    thought_only: int = 0
    """Rows that hold reasoning and no answer."""
    requests: int = 0
    """Requests read, before anything was removed."""
    taught: int = 0
    """Rows written by the teacher, before verification."""
    verified: int = 0
    """Rows that passed verification."""
    rules: dict[str, int] = Field(default_factory=dict)
    """Rule id to rows that cite it."""
    operators: dict[str, int] = Field(default_factory=dict)
    """Operator to rows restyled by it."""
    dropped: dict[str, int] = Field(default_factory=dict)
    """Cause to rows dropped by verification."""
    lost: dict[str, int] = Field(default_factory=dict)
    """Cause to requests that the teacher failed on, and to variants that lost their meaning."""
    removed: dict[str, int] = Field(default_factory=dict)
    """Cause to requests removed before teaching: duplicates and overlaps with evaluation sets."""
    evaluation: dict[str, int] = Field(default_factory=dict)
    """Evaluation set that was compared with to its number of requests."""
    overlaps: dict[str, int] = Field(default_factory=dict)
    """Evaluation set to requests that were near one of its."""
    intent_kept: float | None = None
    """Share of checked variants that still ask what their seed asked, 0 to 1; None where not measured."""
    intent_checked: int = 0
    """Variants that the share rests on."""
    format: str = "think"
    detail: str = "short"
    seed: int | None = None
    commit: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    machine: dict[str, Any] = Field(default_factory=dict)
    licence_note: str = "Each source keeps its own licence; whoever shares this set has to keep to all of them."


def card(build: BuildFacts) -> str:
    """The data card: YAML for the hub and `datasets`, then what a person wants to know.

    Raises ConfigError where the files are of several formats, which `datasets` can't load.
    """
    if len({PurePath(file).suffix for file in build.files.values()}) > 1:
        raise ConfigError(
            ", ".join(build.files.values()), "are of several formats", "Name files of one format, such as Parquet"
        )
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    environment.filters |= {"n": "{:,}".format, "plain": _plain, "counts": _counts}
    template = resources.files("forethought").joinpath("data/card.md").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        b=build,
        front=yaml.safe_dump(_front(build), sort_keys=False, allow_unicode=True),
        sources=[
            (s.path, f"{s.harmful:,}", f"{s.harmless:,}", s.licence, f"`{s.sha256}`" if s.sha256 else "-")
            for s in build.sources
        ],
        compared=[(name, f"{n:,}", f"{build.overlaps.get(name, 0):,}") for name, n in build.evaluation.items()],
        versions=", ".join(f"{name} {version}" for name, version in build.versions.items()),
        machine=", ".join(f"{key} {value}" for key, value in build.machine.items() if value is not None),
    )


def _front(build: BuildFacts) -> dict[str, Any]:
    size = next((name for limit, name in _SIZES if build.rows < limit), "n>1M")
    configs = [
        {
            "config_name": name,
            **({"default": True} if number == 0 else {}),
            "data_files": [{"split": "train", "path": path}],
        }
        for number, (name, path) in enumerate(build.files.items())
    ]
    return {
        "pretty_name": build.name,
        "license": "other",
        "task_categories": ["text-generation"],
        "tags": ["safety", "refusal", "reasoning", "forethought"],
        "size_categories": [size],
        "configs": configs,
    }


def _counts(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """The most frequent first, then by name."""
    return [(name, f"{count:,}") for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def _plain(text: str) -> str:
    """One line that breaks no table and holds no markup of its own."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
