"""What a model made of each question; which questions are asked; and what tells one model from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from forethought.evals.capability.questions import Question
from forethought.records import Record


class ItemScore(Record):
    """What one model made of one question."""

    id: str
    correct: bool | None = None
    """lm-eval's verdict (options: by likelihood per character, its `acc_norm`); None where there is none."""
    correct_raw: bool | None = None
    """The same by plain likelihood (its `acc`); options alone."""
    refused: bool = False
    """The model's verdict was to refuse: wrong, whatever it would have said."""
    log_likelihoods: tuple[float, ...] = ()
    """Natural, one an option, or one for the reference answer; empty when refused or generated."""
    bits_per_byte: float | None = None
    """Of the reference answer, in UTF-8 bytes; None for other items."""
    answer: str = ""
    """Generated text without its reasoning."""
    cause: str = ""
    """Why it is unscored."""


def sample_questions(questions: Sequence[Question], limit: int | None, seed: int) -> list[Question]:
    """At most `limit` questions: strata (subject, position of the right option) keep their shares.

    Depends on the seed and the questions alone; a smaller limit is a part of a larger one.
    """
    strata: dict[tuple[str, int], list[tuple[str, Question]]] = {}
    for question in questions:
        drawn = hashlib.sha256(f"{seed}:{question.id}".encode()).hexdigest()
        strata.setdefault((question.group, min(question.right, default=-1)), []).append((drawn, question))
    spread: list[tuple[float, str, Question]] = []
    for stratum in strata.values():
        for place, (drawn, question) in enumerate(sorted(stratum, key=lambda pair: pair[0])):
            spread.append(((place + 0.5) / len(stratum), drawn, question))
    spread.sort(key=lambda one: one[:2])
    return [question for _, _, question in spread[:limit]]


def model_key(folder: Path | None, name: str) -> str:
    """What tells one model from another: its name, and the contents or size and time of its files.

    Weights above 64 MiB are told by size and time of change: hashing them takes longer than a small run.
    """
    seen: list[object] = [name]
    if folder is not None and folder.is_dir():
        for file in sorted(folder.rglob("*")):
            if file.suffix in {".safetensors", ".bin", ".json", ".jinja"}:
                stat = file.stat()
                small = stat.st_size < 64 * 2**20
                mark = hashlib.sha256(file.read_bytes()).hexdigest() if small else str(stat.st_mtime_ns)
                seen.append((str(file.relative_to(folder)), stat.st_size, mark))
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:12]
