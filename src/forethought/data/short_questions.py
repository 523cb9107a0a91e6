"""Short questions with known answers: what a model must still be able to do behind a defence."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources

SAMPLE, FURTHER = "capability.jsonl", "questions.jsonl"
"""The fixed sample that stands in every plan, and more of the kind, asked where a small loss has to be seen: of forty
questions one is 2.5 points."""


@lru_cache
def accepted_answers(file: str) -> dict[str, tuple[str, ...]]:
    """The questions of SAMPLE or FURTHER, and the answers that are right, in lower case."""
    text = resources.files("forethought").joinpath(f"data/{file}").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return {row["text"]: tuple(row["accepted"]) for row in rows}
