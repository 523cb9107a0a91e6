"""The rows of a round: what the attacks added, always kept, and as many of the old ones as the budget still holds."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from forethought.chat import encode_completion, encode_prompt
from forethought.data.sources import within_budget
from forethought.reasoning import render
from forethought.records import Example
from forethought.training.hardening.pairs import Pair
from forethought.training.methods.base import Material
from forethought.training.methods.combined import PLAIN, Levers
from forethought.training.methods.weighted import emphasised
from forethought.training.rows import IGNORED, TERMS, TokenRow


@dataclass(frozen=True)
class RoundRows:
    """What one round is trained on."""

    rows: tuple[TokenRow, ...]
    examples: tuple[Example, ...]
    """The examples that the rows were made of, in the same order."""
    added: int
    """Rows that attacks added; they come last."""
    left_out: int
    """Pairs for which the budget had no room."""
    attacks: tuple[str, ...]
    """Attacks of the pairs that are trained on, sorted."""


def round_rows(
    material: Material,
    trainable: Sequence[Example],
    added: Sequence[Pair],
    budget: int,
    added_share: float,
    levers: Levers = PLAIN,
) -> RoundRows:
    """The rows of a round within a budget of tokens.

    Pairs are taken whole, at random, until they fill `added_share` of the budget; then old rows, at random, until it
    is full. An old row that an attack added again is not taken twice.
    """
    kept, new = _within_share(material, added, int(budget * added_share), levers)
    left = budget - sum(row.tokens for row in new)
    pool = [(row, example) for example in trainable if (row := taught_row(material, example, levers)) not in new]
    chosen = [pool[place] for place in within_budget([row.tokens for row, _ in pool], left, material.seed)]
    return RoundRows(
        rows=(*(row for row, _ in chosen), *new),
        examples=(*(example for _, example in chosen), *new.values()),
        added=len(new),
        left_out=len(added) - len(kept),
        attacks=tuple(sorted({pair.attack for pair in kept})),
    )


def taught_row(material: Material, example: Example, levers: Levers = PLAIN) -> TokenRow:
    """An example as tokens. Behind a turn that was begun, the thought is opened anew, on a line of its own."""
    example = levers.shown(example, material.policy)
    thought = render(example.reasoning, material.policy, material.format, material.detail, material.seed)
    gap = "" if not example.prefill or example.prefill.endswith("\n") else "\n"
    row = (
        _behind_prefill(material, example, gap + thought) if example.prefill else material.row(example, reasoning=True)
    )
    if levers.emphasis is None:
        return row
    return emphasised(material.tokenizer, row, thought, example.answer, levers.emphasis, before=gap)


def _behind_prefill(material: Material, example: Example, thought: str) -> TokenRow:
    tokenizer = material.tokenizer
    # The turn's beginning has tokens of its own, as when the model is attacked.
    begun = encode_completion(tokenizer, example.prefill, end=False)
    prompt = [*encode_prompt(tokenizer, example.request.messages), *begun]
    end = bool(example.answer) and example.answer_complete
    taught = encode_completion(tokenizer, thought + example.answer, end=end)
    return TokenRow(
        input_ids=(*prompt, *taught),
        labels=(*([IGNORED] * len(prompt)), *taught),
        term=TERMS.index(example.term),
    )


def _within_share(
    material: Material, added: Sequence[Pair], most: int, levers: Levers
) -> tuple[list[Pair], dict[TokenRow, Example]]:
    """The pairs that fit into so many tokens, and their rows, each once, with its example."""
    order = random.Random(f"{material.seed}:added").sample(range(len(added)), len(added))
    chosen: list[int] = []
    taken: set[TokenRow] = set()
    spent = 0
    for place in order:
        rows = _rows_of(material, added[place], levers).keys() - taken
        cost = sum(row.tokens for row in rows)
        if spent + cost <= most:
            chosen.append(place)
            taken |= rows
            spent += cost
    kept = [added[place] for place in sorted(chosen)]
    return kept, {row: example for pair in kept for row, example in _rows_of(material, pair, levers).items()}


def _rows_of(material: Material, pair: Pair, levers: Levers) -> dict[TokenRow, Example]:
    return {taught_row(material, case.taught, levers): case.taught for case in (pair.harmful, pair.harmless)}
