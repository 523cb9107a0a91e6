"""What changes the choice of an answer's next token: a bias, a nucleus, a grammar. A thought is never shaped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from forethought.errors import InputError
from forethought.models.decode import Row
from forethought.server.records import Options

Shape = Callable[[torch.Tensor], torch.Tensor]
"""Logits of shape (vocabulary,) to those that the token is chosen by."""


class Grammars:
    """Makes answers follow a JSON schema, by llguidance. The tokenizer is prepared when it is first needed."""

    def __init__(self, tokenizer: Any, end_ids: frozenset[int]) -> None:
        self._tokenizer, self._end_ids = tokenizer, sorted(end_ids)
        self._prepared: Any = None

    def matcher(self, schema: dict[str, Any]) -> Any:
        """A fresh one. Raises InputError for a schema that it can't follow."""
        from llguidance import LLMatcher
        from llguidance.hf import from_tokenizer

        if self._prepared is None:
            self._prepared = from_tokenizer(self._tokenizer, eos_token=self._end_ids)
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema or {"type": "object"}, {"whitespace_flexible": False})
        except (ValueError, TypeError) as error:
            raise InputError("response_format", f"can't be followed ({error})", "Give another JSON schema") from None
        matcher = LLMatcher(self._prepared, grammar, log_level=0)
        if matcher.is_error():
            cause = str(matcher.get_error()).splitlines()[0][:200]
            raise InputError("response_format", f"can't be followed ({cause})", "Give another JSON schema")
        return matcher


def check_shape(options: Options, grammars: Grammars, vocabulary: int) -> None:
    """Raises InputError for a token that there is not, and for a schema that can't be followed."""
    if any(not 0 <= token < vocabulary for token in options.logit_bias):
        raise InputError("logit_bias", f"names a token beyond the {vocabulary} of the model", "Leave it out")
    if options.grammar is not None:
        grammars.matcher(options.grammar)


def shape_of(options: Options, row: Row, grammars: Grammars) -> Shape | None:
    """What shapes the answer in a row, whose options were checked; None where nothing does."""
    shapes: list[Shape] = []
    if options.logit_bias:
        tokens = torch.tensor(list(options.logit_bias))
        values = torch.tensor(list(options.logit_bias.values()))
        shapes.append(lambda logits: logits.index_add(0, tokens.to(logits.device), values.to(logits)))
    if options.grammar is not None:
        shapes.append(_follows(grammars.matcher(options.grammar), row))
    if options.top_p < 1 and options.temperature > 0:
        shapes.append(lambda logits: _nucleus(logits, options.top_p, options.temperature))
    if not shapes:
        return None

    def shape(logits: torch.Tensor) -> torch.Tensor:
        for one in shapes:
            logits = one(logits)
        return logits

    return shape


def _follows(matcher: Any, row: Row) -> Shape:
    read = 0

    def shape(logits: torch.Tensor) -> torch.Tensor:
        nonlocal read
        matcher.consume_tokens(row.made[read:])
        read = len(row.made)
        allowed = torch.frombuffer(bytearray(matcher.compute_logit_bias()), dtype=torch.uint8)[: len(logits)] > 0
        mask = torch.zeros(len(logits), dtype=torch.bool)
        mask[: len(allowed)] = allowed
        return logits.masked_fill(~mask.to(logits.device), float("-inf")) if mask.any() else logits

    return shape


def _nucleus(logits: torch.Tensor, top_p: float, temperature: float) -> torch.Tensor:
    """Without the tokens beyond the likeliest that hold `top_p` of the probability together."""
    ordered, places = (logits / temperature).softmax(-1).sort(descending=True)
    beyond = ordered.cumsum(-1) - ordered >= top_p
    return logits.index_fill(0, places[beyond], float("-inf"))
