"""The data card of a built set: a README.md that says what it is made of, and that `datasets` loads it by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import yaml
from pydantic import Field

from forethought.errors import ConfigError
from forethought.records import Record

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LIMITS = (
    "Rules and intents are a teacher's; a verified row is consistent, which is not the same as right.",
    "Near duplicates are found by words: a paraphrase in other words, or in another language, is not.",
    "Requests stand at the level at which their sources publish them; none has been tried out.",
)


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


class Usage(Record):
    """What the teacher was asked and what that cost."""

    calls: int = 0
    """Model calls, those answered from the cache left out."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    """US dollars; None where no price is known."""


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
    limits: tuple[str, ...] = _LIMITS


def card(build: BuildFacts) -> str:
    """The data card: YAML for the hub and `datasets`, then what a person wants to know.

    Raises ConfigError where the files are of several formats, which `datasets` can't load.
    """
    if len({PurePath(file).suffix for file in build.files.values()}) > 1:
        raise ConfigError(
            ", ".join(build.files.values()), "are of several formats", "Name files of one format, such as Parquet"
        )
    sections = [
        f"---\n{yaml.safe_dump(_front(build), sort_keys=False, allow_unicode=True)}---\n\n# {_plain(build.name)}",
        _summary(build),
        _loading(build),
        _sources(build),
        _policy_and_teacher(build),
        _styles(build),
        _checks(build),
        _overlap(build),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in build.limits),
        _origin(build),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


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


def _summary(build: BuildFacts) -> str:
    return (
        f"{build.rows:,} training rows of safety reasoning (Safety Chain-of-Thought, arXiv 2501.19180): each has a "
        "request, what is really asked, the rules that it breaks, a verdict, and an answer. "
        f"{build.harmful_rows:,} requests are harmful and refused, {build.harmless_rows:,} are harmless and answered"
        + (f"; {build.thought_only:,} rows hold the reasoning alone." if build.thought_only else ".")
        + "\n\n**The requests of harmful rows are harmful text**, for training and testing defences."
    )


def _loading(build: BuildFacts) -> str:
    lines = ["from datasets import load_dataset", ""]
    for number, name in enumerate(build.files):
        config = f', "{name}"' if number else ""
        lines.append(f'rows = load_dataset("FOLDER"{config}, split="train")')
    return "## Load it\n\n```python\n" + "\n".join(lines) + "\n```"


def _sources(build: BuildFacts) -> str:
    rows = [
        (s.path, f"{s.harmful:,}", f"{s.harmless:,}", s.licence, f"`{s.sha256}`" if s.sha256 else "-")
        for s in build.sources
    ]
    table = _table(("source", "harmful", "harmless", "licence", "SHA-256"), rows)
    return f"## Sources\n\n{table}\n\n{build.licence_note}" if rows else ""


def _policy_and_teacher(build: BuildFacts) -> str:
    used = build.usage
    cost = "cost not known" if used.cost is None else f"{used.cost:.2f} US dollars"
    spent = (
        f"{used.calls:,} calls, {used.input_tokens:,} tokens in, {used.output_tokens:,} out, {cost}."
        if used.calls
        else "No model calls."
    )
    counts = _table(("rule", "rows"), _counts(build.rules))
    return (
        "## Policy and teacher\n\n"
        f"Policy {_plain(build.policy_name)} {_plain(build.policy_version)}, hash `{build.policy_hash or '-'}`. "
        f"Teacher: {_plain(build.teacher)}. {spent} Reasoning format `{build.format}`, detail `{build.detail}`."
        + (f"\n\n{counts}" if build.rules else "")
    )


def _styles(build: BuildFacts) -> str:
    if not build.operators:
        return ""
    kept = (
        "Whether the rewritten requests still ask the same was not measured."
        if build.intent_kept is None
        else f"Of {build.intent_checked:,} rewritten requests that were checked, {build.intent_kept:.1%} still ask what"
        " their seed asks."
    )
    return f"## Styles\n\n{_table(('operator', 'rows'), _counts(build.operators))}\n\n{kept}"


def _checks(build: BuildFacts) -> str:
    share = f" ({build.verified / build.taught:.1%})" if build.taught else ""
    said = f"{build.verified:,} of {build.taught:,} rows passed verification{share}."
    dropped = _table(("dropped because", "rows"), _counts(build.dropped))
    lost = _table(("lost while teaching", "times"), _counts(build.lost))
    parts = [f"## Verification\n\n{said}", dropped if build.dropped else "", lost if build.lost else ""]
    return "\n\n".join(part for part in parts if part)


def _overlap(build: BuildFacts) -> str:
    if build.evaluation:
        rows = [(name, f"{n:,}", f"{build.overlaps.get(name, 0):,}") for name, n in build.evaluation.items()]
        compared = _table(("evaluation set", "its requests", "removed from here"), rows)
    else:
        compared = "The set was compared with no evaluation set."
    removed = _table(("removed because", "requests"), _counts(build.removed))
    return f"## Duplicates and evaluation sets\n\n{build.requests:,} requests were read.\n\n{compared}" + (
        f"\n\n{removed}" if build.removed else ""
    )


def _origin(build: BuildFacts) -> str:
    machine = ", ".join(f"{key} {value}" for key, value in build.machine.items() if value is not None)
    versions = ", ".join(f"{name} {version}" for name, version in build.versions.items())
    lines = [
        f"- Command: `{build.command or 'not recorded'}`",
        f"- Seed: {'not recorded' if build.seed is None else build.seed}",
        f"- Commit: {build.commit or 'not recorded'}",
        f"- Versions: {versions or 'not recorded'}",
        f"- Machine: {machine or 'not recorded'}",
    ]
    return "## Made by\n\n" + "\n".join(lines)


def _counts(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """The most frequent first, then by name."""
    return [(name, f"{count:,}") for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)


def _plain(text: str) -> str:
    """One line that breaks no table and holds no markup of its own."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
