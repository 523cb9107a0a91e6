"""Training rows as tokens: prompt and completion, with labels on the completion alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from forethought.chat import Tokenizer, encode_completion, encode_prompt
from forethought.policy import Policy
from forethought.reasoning import Detail, Format, render
from forethought.records import Example, Record

IGNORED = -100
"""Label of a token that bears no loss (torch's convention)."""
TERMS = ("refusal", "benign")
"""The two terms of the loss, by their number in `TokenRow.term`."""


class TokenRow(Record):
    """One training row as token ids."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    """input_ids where the row is taught, IGNORED elsewhere; same length."""
    term: int
    """Index into TERMS."""

    @property
    def length(self) -> int:
        return len(self.input_ids)


def tokenize(
    example: Example,
    tokenizer: Tokenizer,
    policy: Policy,
    fmt: Format,
    detail: Detail,
    seed: int,
    reasoning: bool = True,
    opening_taught: bool = True,
) -> TokenRow:
    """An example as tokens. Without `reasoning` only the answer is taught (refusal training).

    A row without an answer ends where its thought closes, and no end token is taught.
    """
    prompt = encode_prompt(tokenizer, example.request.messages)
    thought = render(example.reasoning, policy, fmt, detail, seed) if reasoning else ""
    text = thought + example.answer
    end = bool(example.answer) and example.answer_complete
    completion = encode_completion(tokenizer, text, end=end)
    labels = list(completion)
    if reasoning and not opening_taught:
        skip = len(encode_completion(tokenizer, thought.split("\n", 1)[0] + "\n", end=False))
        labels[:skip] = [IGNORED] * skip
    return TokenRow(
        input_ids=(*prompt, *completion),
        labels=(*([IGNORED] * len(prompt)), *labels),
        term=TERMS.index(example.term),
    )


def collate(rows: Sequence[dict[str, Any]], pad_id: int) -> dict[str, Any]:
    """Rows padded on the right to one length. Padding bears no loss and is masked.

    Returns input_ids, attention_mask and labels of shape (batch, tokens), term of shape (batch,).
    """
    import torch

    longest = max(len(row["input_ids"]) for row in rows)

    def padded(name: str, fill: int) -> Any:
        return torch.tensor([list(row[name]) + [fill] * (longest - len(row[name])) for row in rows])

    return {
        "input_ids": padded("input_ids", pad_id),
        "attention_mask": torch.tensor(
            [[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows]
        ),
        "labels": padded("labels", IGNORED),
        "term": torch.tensor([row["term"] for row in rows]),
    }
