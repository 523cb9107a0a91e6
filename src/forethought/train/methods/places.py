"""Where in a completion the words stand that decide, as places of tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence

from forethought.chat import Tokenizer, encode_completion
from forethought.errors import ModelError
from forethought.reasoning import VERDICT_ANCHOR
from forethought.train.rows import IGNORED, TokenRow

Span = tuple[int, int]
"""Characters of a text, from the first to behind the last."""
_DECISION = re.compile(rf"(?m)^{VERDICT_ANCHOR} (refuse|comply)\b")
_INTENT = re.compile(r"(?m)^Intent: (.+)$")


def verdict_span(thought: str) -> Span:
    """Where the word `refuse` or `comply` of a rendered thought's verdict stands."""
    return list(_DECISION.finditer(thought))[-1].span(1)


def intent_span(thought: str) -> Span:
    """Where the intent of a rendered thought stands."""
    found = _INTENT.search(thought)
    assert found is not None
    return found.span(1)


def opposite(decision: str) -> str:
    """The other verdict."""
    return "comply" if decision == "refuse" else "refuse"


def rival_at(tokenizer: Tokenizer, text: str, span: Span, other: str) -> tuple[int, int]:
    """(place, rival): the token of `text` at which it would first differ, did it hold `other` in the span, and the
    token that would stand there.

    Raises ModelError where the tokenizer begins both alike to the end.
    """
    own = encode_completion(tokenizer, text, end=False)
    changed = encode_completion(tokenizer, text[: span[0]] + other + text[span[1] :], end=False)
    for place, (mine, its) in enumerate(zip(own, changed, strict=False)):
        if mine != its:
            return place, its
    raise ModelError(
        tokenizer.name_or_path or "tokenizer",
        f"does not tell '{text[span[0] : span[1]]}' from '{other}'",
        "Use another model",
    )


def with_rivals(row: TokenRow, n_prompt: int, found: Sequence[tuple[int, int]]) -> TokenRow:
    """The row with rivals at places of its completion, which begins after `n_prompt` tokens."""
    rivals = [IGNORED] * row.length
    for place, rival in found:
        rivals[n_prompt + place] = rival
    return row.model_copy(update={"rivals": tuple(rivals)})


def token_spans(tokenizer: Tokenizer, text: str) -> list[Span]:
    """The characters of each token. Raises ModelError for a tokenizer that can't say."""
    if not tokenizer.is_fast:
        raise ModelError(
            tokenizer.name_or_path or "tokenizer", "does not say where its tokens stand", "Use a fast tokenizer"
        )
    return [
        (int(a), int(b))
        for a, b in tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    ]


def prompt_tokens(row: TokenRow) -> int:
    """Tokens before the first that is taught."""
    return next((place for place, label in enumerate(row.labels) if label != IGNORED), row.length)
