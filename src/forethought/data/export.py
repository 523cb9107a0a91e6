"""A built set in the formats that other trainers read, and on the Hugging Face Hub.

The assistant's text is the one that is trained on here: the rendered reasoning, its
closing marker, then the answer. `reasoning.parse` gives the reasoning back. A folder is sent to the
Hub when the user asks for it, and nowhere but to the name given.
"""

from __future__ import annotations

import glob
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from forethought.errors import ConfigError, InputError, StageError
from forethought.policy import Policy
from forethought.reasoning import Detail, Format, render
from forethought.records import Example, Message, Record

Kind = Literal["trl", "messages", "sharegpt", "alpaca", "parquet"]
Row = dict[str, Any]
_BATCH = 1_000
"""Rows of one Parquet row group: what is held in memory at a time."""
_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}
_SENT = {".parquet", ".jsonl", ".json", ".md", ".yaml"}


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
                yield KINDS[kind](example, render(example.reasoning, policy, fmt, detail, seed) + example.answer)

    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    try:
        _WRITERS.get(kind, _write_lines)(part, rows())
        if not harmful:
            causes = ", ".join(f"{count} {cause}" for cause, count in sorted(left_out.items())) or "the set is empty"
            raise InputError(
                out,
                f"no row can be written ({causes})",
                "Build rows with whole answers, or keep the others with --include-partial",
            )
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    return Exported(rows=harmful.total(), harmful=harmful[True], harmless=harmful[False], left_out=dict(left_out))


def _left_out(example: Example, kind: Kind, include_partial: bool) -> str | None:
    if not include_partial and not example.answer.strip():
        return "without an answer"
    if not include_partial and not example.answer_complete:
        return "with an answer that was cut"
    if kind in {"sharegpt", "alpaca"} and not _alternates(_turns(example)[1]):
        return "whose turns this format can't hold"
    return None


def _turns(example: Example) -> tuple[str, list[Message]]:
    """(system prompt, the turns after it)."""
    messages = list(example.request.messages)
    system = messages.pop(0).content if messages[0].role == "system" else ""
    return system, messages


def _alternates(turns: list[Message]) -> bool:
    """Whether user and assistant speak in turn, as LLaMA-Factory requires."""
    return [turn.role for turn in turns] == [("user", "assistant")[place % 2] for place in range(len(turns))]


def _trl(example: Example, text: str) -> Row:
    """TRL's conversational prompt and completion: the loss is on the completion alone."""
    return {
        "prompt": [message.model_dump() for message in example.request.messages],
        "completion": [{"role": "assistant", "content": text}],
        "answer_complete": example.answer_complete,
    }


def _messages(example: Example, text: str) -> Row:
    """One conversation a row, as TRL, Axolotl and most fine-tuning services read it."""
    return {"messages": _conversation(example, text), "answer_complete": example.answer_complete}


def _conversation(example: Example, text: str) -> list[dict[str, str]]:
    turns = [message.model_dump() for message in example.request.messages]
    return [*turns, {"role": "assistant", "content": text}]


def _sharegpt(example: Example, text: str) -> Row:
    """ShareGPT, as Axolotl and LLaMA-Factory read it."""
    system, turns = _turns(example)
    said = [{"from": _ROLES[turn.role], "value": turn.content} for turn in turns]
    return {
        "conversations": [*said, {"from": "gpt", "value": text}],
        "system": system,
        "answer_complete": example.answer_complete,
    }


def _alpaca(example: Example, text: str) -> Row:
    """Alpaca; earlier turns stand in `history` as pairs."""
    system, turns = _turns(example)
    pairs = [[turns[place].content, turns[place + 1].content] for place in range(0, len(turns) - 1, 2)]
    return {
        "instruction": example.request.text,
        "input": "",
        "output": text,
        "history": pairs,
        "system": system,
        "answer_complete": example.answer_complete,
    }


def _table_row(example: Example, text: str) -> Row:
    """The conversation, and what is known of it in columns of its own."""
    request = example.request
    return {
        "id": request.id,
        "messages": _conversation(example, text),
        "harmful": request.harmful,
        "rules": list(example.reasoning.violated),
        "verdict": example.reasoning.verdict,
        "intent": example.reasoning.intent,
        "operator": request.operator,
        "source": request.source,
        "answer": example.answer,
        "answer_complete": example.answer_complete,
    }


KINDS: dict[str, Callable[[Example, str], Row]] = {
    "trl": _trl,
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "parquet": _table_row,
}
"""Name of a format to what makes a row of it."""


def _write_lines(path: Path, rows: Iterator[Row]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_list(path: Path, rows: Iterator[Row]) -> None:
    """One JSON list. Of lines, `datasets` guesses types by the first ten megabytes: a `history` filled later fails."""
    with path.open("w", encoding="utf-8") as file:
        before = "[\n"
        for row in rows:
            file.write(before + json.dumps(row, ensure_ascii=False))
            before = ",\n"
        file.write("\n]\n")


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


_WRITERS = {"alpaca": _write_list, "parquet": _write_parquet}
"""Formats that are no JSON lines."""


def files_to_push(folder: Path) -> list[Path]:
    """The data files of a built set, its card and reports: what stands in the folder itself or in `data/`.

    Caches, half-written and hidden files stay here. Raises InputError where there is no data card.
    """
    if not (folder / "README.md").is_file():
        raise InputError(folder, "has no data card (README.md)", "Push the folder of a built set")
    found = [*sorted(folder.glob("*")), *sorted((folder / "data").glob("*"))]
    return [path for path in found if path.is_file() and path.suffix in _SENT and not path.name.startswith(".")]


def push(folder: Path, name: str, private: bool = True) -> str:
    """Uploads a built set to the dataset repository `owner/name`, which is made where there is none.

    Returns its address. Raises ConfigError without a token, or where the repository is
    public though a private one is asked for; StageError where the hub can't be reached or
    says no.
    """
    from huggingface_hub import HfApi, errors, get_token

    # The error of the HTTP library that this version of the hub's client is built on.
    http_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    paths = [str(path.relative_to(folder)) for path in files_to_push(folder)]
    if get_token() is None:
        raise ConfigError("Hugging Face Hub", "there is no token to write with", "Run: hf auth login, or set HF_TOKEN")
    api = HfApi()
    try:
        url = api.create_repo(name, repo_type="dataset", private=private, exist_ok=True)
        if private and not api.repo_info(name, repo_type="dataset").private:
            raise ConfigError(
                name,
                "is a public repository, and a private one was asked for",
                "Make it private, or push with --public",
            )
        api.upload_folder(
            repo_id=name,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=[glob.escape(path) for path in paths],
            commit_message="Safety reasoning built with Forethought",
        )
    except errors.HFValidationError as error:
        raise ConfigError(name, f"is no name of a repository ({_first_line(error)})", "Use owner/name") from None
    except (http_error, OSError) as error:
        raise StageError(
            f"push to {name}",
            f"did not succeed ({_first_line(error)})",
            "Check the network, the name and the token's right to write, then run again",
        ) from None
    return str(url)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
