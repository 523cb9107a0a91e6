"""A built set for others: in the formats that other trainers read, with its data card.

The assistant's text is the one that is trained on here: the rendered reasoning, its
closing marker, then the answer. `reasoning.parse` gives the reasoning back. The card is a README.md
by which `datasets` loads the set.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from jinja2 import Environment, StrictUndefined
from pydantic import Field

from forethought.errors import ConfigError, InputError
from forethought.manifest import replacing
from forethought.models.callspec import Usage
from forethought.policy import Policy
from forethought.reasoning import Detail, Format, render
from forethought.records import Example, Message, Record

Kind = Literal["trl", "messages", "sharegpt", "alpaca", "parquet"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Row = dict[str, Any]
_BATCH = 1_000
"""Rows of one Parquet row group: what is held in memory at a time."""
_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}


class Exported(Record):
    """What an export wrote and what it left out."""

    rows: int
    harmful: int
    harmless: int
    left_out: dict[str, int]
    """Cause to rows that are not in the file."""


def export(
    examples: Iterable[Example],
    policy: Policy,
    fmt: Format,
    detail: Detail,
    seed: int,
    kind: Kind,
    out: Path,
    include_partial: bool = False,
) -> Exported:
    """Writes the rows as `kind`, one by one, and moves the file into place once it is whole.

    A row without a whole answer (it teaches the thought alone, or its answer was cut at a
    length) would teach another trainer to stop there: such rows are left out and counted.
    `include_partial` keeps them, marked by `answer_complete` false.

    Raises ConfigError for an unknown kind, InputError where no row can be written.
    """
    if kind not in KINDS:
        raise ConfigError(f"format '{kind}'", "is not one that can be written", f"Use one of {', '.join(KINDS)}")
    harmful: Counter[bool] = Counter()
    left_out: Counter[str] = Counter()

    def rows() -> Iterator[Row]:
        for example in examples:
            cause = _left_out(example, kind, include_partial)
            if cause:
                left_out[cause] += 1
            else:
                harmful[example.term == "refusal"] += 1
                yield _row(kind, example, render(example.reasoning, policy, fmt, detail, seed) + example.answer)

    with replacing(out) as part:
        _write(kind, part, rows())
        if not harmful:
            causes = ", ".join(f"{count} {cause}" for cause, count in sorted(left_out.items())) or "the set is empty"
            fix = "Build rows with whole answers, or keep the others with --include-partial"
            raise InputError(out, f"no row can be written ({causes})", fix)
    return Exported(rows=harmful.total(), harmful=harmful[True], harmless=harmful[False], left_out=dict(left_out))


def _left_out(example: Example, kind: Kind, include_partial: bool) -> str | None:
    if not include_partial and not example.answer.strip():
        return "without an answer"
    if not include_partial and not example.answer_complete:
        return "with an answer that was cut"
    if kind in {"sharegpt", "alpaca"}:
        roles = [turn.role for turn in _turns(example)[1]]
        if roles != [("user", "assistant")[place % 2] for place in range(len(roles))]:  # LLaMA-Factory requires that
            return "whose turns this format can't hold"
    return None


def _turns(example: Example) -> tuple[str, list[Message]]:
    """(system prompt, the turns after it)."""
    messages = list(example.request.messages)
    system = messages.pop(0).content if messages[0].role == "system" else ""
    return system, messages


def _row(kind: Kind, example: Example, text: str) -> Row:
    request = example.request
    messages = [message.model_dump() for message in request.messages]
    answer = {"role": "assistant", "content": text}
    complete = {"answer_complete": example.answer_complete}
    if kind == "trl":  # conversational prompt and completion: the loss is on the completion alone
        return {"prompt": messages, "completion": [answer]} | complete
    if kind == "messages":  # as TRL, Axolotl and most fine-tuning services read it
        return {"messages": [*messages, answer]} | complete
    if kind == "parquet":  # what is known of the conversation in columns of its own
        thought = example.reasoning
        known: Row = {"rules": list(thought.violated), "verdict": thought.verdict, "intent": thought.intent}
        known |= {"operator": request.operator, "source": request.source, "answer": example.answer}
        return {"id": request.id, "messages": [*messages, answer], "harmful": request.harmful} | known | complete
    system, turns = _turns(example)
    if kind == "sharegpt":  # as Axolotl and LLaMA-Factory read it
        said = [{"from": _ROLES[turn.role], "value": turn.content} for turn in turns]
        return {"conversations": [*said, {"from": "gpt", "value": text}], "system": system} | complete
    # Alpaca; earlier turns stand in `history` as pairs.
    pairs = [[turns[place].content, turns[place + 1].content] for place in range(0, len(turns) - 1, 2)]
    return {"instruction": request.text, "input": "", "output": text, "history": pairs, "system": system} | complete


def _write(kind: Kind, path: Path, rows: Iterator[Row]) -> None:
    if kind == "parquet":
        _write_parquet(path, rows)
        return
    # JSON lines, but for Alpaca: of lines, `datasets` guesses types by the first ten megabytes, and a `history` that is
    # filled later fails.
    before, between, after = ("[\n", ",\n", "\n]\n") if kind == "alpaca" else ("", "\n", "\n")
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(before + json.dumps(row, ensure_ascii=False))
            before = between
        file.write(after)


def _write_parquet(path: Path, rows: Iterator[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    turns = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    types = {"messages": turns, "harmful": pa.bool_(), "rules": pa.list_(pa.string()), "answer_complete": pa.bool_()}
    batches = iter(lambda: list(itertools.islice(rows, _BATCH)), [])
    first = next(batches, [])
    schema = pa.schema([(column, types.get(column, pa.string())) for row in first[:1] for column in row])
    with pq.ParquetWriter(path, schema) as writer:
        for batch in itertools.chain([first], batches):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


# The data card: a README.md that says what the set is made of, and that `datasets` loads it by.

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
    file: str = "data/train.parquet"
    """The rows, as `load_dataset` reads them, relative to the card."""
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


def card(build: BuildFacts) -> str:
    """The data card: YAML for the hub and `datasets`, then what a person wants to know."""
    front = {
        "pretty_name": build.name,
        "license": "other",
        "task_categories": ["text-generation"],
        "tags": ["safety", "refusal", "reasoning", "forethought"],
        "size_categories": [next((name for limit, name in _SIZES if build.rows < limit), "n>1M")],
        "configs": [
            {"config_name": "default", "default": True, "data_files": [{"split": "train", "path": build.file}]}
        ],
    }
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    environment.filters |= {"n": "{:,}".format, "plain": _plain, "counts": _counts}
    template = resources.files("forethought").joinpath("data/card.md").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        b=build,
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        sources=[
            (s.path, f"{s.harmful:,}", f"{s.harmless:,}", s.licence, f"`{s.sha256}`" if s.sha256 else "-")
            for s in build.sources
        ],
        compared=[(name, f"{n:,}", f"{build.overlaps.get(name, 0):,}") for name, n in build.evaluation.items()],
        versions=", ".join(f"{name} {version}" for name, version in build.versions.items()),
        machine=", ".join(f"{key} {value}" for key, value in build.machine.items() if value is not None),
    )


def _counts(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """The most frequent first, then by name."""
    return [(name, f"{count:,}") for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def _plain(text: str) -> str:
    """One line that breaks no table and holds no markup of its own."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
