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
    weights: tuple[float, ...] = ()
    """How much each token's loss counts, same length as input_ids; empty where all count 1."""
    rivals: tuple[int, ...] = ()
    """At a token that decides (a verdict, a pivot) the token that would decide otherwise, IGNORED elsewhere; same
    length as input_ids, empty where none decides."""
    other_input_ids: tuple[int, ...] = ()
    """Another completion, of the same prompt or of another, for objectives that compare two; empty where there is
    none."""
    other_labels: tuple[int, ...] = ()
    """Labels of the other completion, as `labels`."""
    other_rivals: tuple[int, ...] = ()
    """Of the other completion, as `rivals`."""

    @property
    def length(self) -> int:
        return len(self.input_ids)

    @property
    def tokens(self) -> int:
        """Tokens of both completions, the prompt counted with each: what one pass over the row reads."""
        return len(self.input_ids) + len(self.other_input_ids)


def taught_after(prompt: Sequence[int], taught: Sequence[int], term: str) -> TokenRow:
    """A row that teaches all tokens behind its prompt."""
    labels = (*([IGNORED] * len(prompt)), *taught)
    return TokenRow(input_ids=(*prompt, *taught), labels=labels, term=TERMS.index(term))


def tokenize(
    example: Example,
    tokenizer: Tokenizer,
    policy: Policy,
    fmt: Format,
    detail: Detail,
    seed: int,
    reasoning: bool = True,
) -> TokenRow:
    """An example as tokens. Without `reasoning` only the answer is taught (refusal training).

    A row without an answer ends where its thought closes, and no end token is taught. A prefill is part of the prompt,
    with tokens of its own, as when the model is attacked.
    """
    begun = encode_completion(tokenizer, example.prefill, end=False) if example.prefill else []
    prompt = [*encode_prompt(tokenizer, example.request.messages), *begun]
    thought = gap_behind(example.prefill) + render(example.reasoning, policy, fmt, detail, seed) if reasoning else ""
    end = bool(example.answer) and example.answer_complete
    return taught_after(prompt, encode_completion(tokenizer, thought + example.answer, end=end), example.term)


def gap_behind(prefill: str) -> str:
    """Behind a turn that was begun, the thought is opened anew, on a line of its own."""
    return "" if not prefill or prefill.endswith("\n") else "\n"


def with_other(row: TokenRow, other: TokenRow) -> TokenRow:
    """A row that holds a second completion, of its own prompt or of another."""
    return row.model_copy(
        update={"other_input_ids": other.input_ids, "other_labels": other.labels, "other_rivals": other.rivals}
    )


def collate(rows: Sequence[dict[str, Any]], pad_id: int) -> dict[str, Any]:
    """Rows padded on the right to one length. Padding bears no loss and is masked.

    Returns input_ids, attention_mask and labels of shape (batch, tokens), term of shape (batch,). Where some rows have
    them: weights and rivals of shape (batch, tokens). Where some rows hold another completion: other_input_ids,
    other_attention_mask, other_labels, and other_rivals where some have them, of shape (others, tokens), and other_of
    of shape (others,), the row each belongs to.
    """
    import torch

    batch = _padded(rows, "", pad_id)
    batch["term"] = torch.tensor([row["term"] for row in rows])
    places = [place for place, row in enumerate(rows) if row.get("other_input_ids")]
    if places:
        batch |= _padded([rows[place] for place in places], "other_", pad_id)
        batch["other_of"] = torch.tensor(places)
    return batch


def _padded(rows: Sequence[dict[str, Any]], prefix: str, pad_id: int) -> dict[str, Any]:
    import torch

    lengths = [len(row[f"{prefix}input_ids"]) for row in rows]
    longest = max(lengths)

    def padded(name: str, fill: float, missing: float | None = None) -> Any:
        own = [list(row.get(name) or [missing] * length) for row, length in zip(rows, lengths, strict=True)]
        return torch.tensor([values + [fill] * (longest - len(values)) for values in own])

    found = {
        f"{prefix}input_ids": padded(f"{prefix}input_ids", pad_id),
        f"{prefix}attention_mask": torch.tensor([[1] * length + [0] * (longest - length) for length in lengths]),
        f"{prefix}labels": padded(f"{prefix}labels", IGNORED),
    }
    for name, fill, missing in ((f"{prefix}weights", 0.0, 1.0), (f"{prefix}rivals", IGNORED, IGNORED)):
        if any(row.get(name) for row in rows):
            found[name] = padded(name, fill, missing)
    return found


def prompt_tokens(row: TokenRow) -> int:
    """Tokens before the first that is taught."""
    return next((place for place, label in enumerate(row.labels) if label != IGNORED), row.length)
