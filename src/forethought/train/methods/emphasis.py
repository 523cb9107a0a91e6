"""SCoT whose loss looks harder at what decides: verdict-weighted, and consistent between disguises."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from forethought.chat import Tokenizer
from forethought.reasoning import render
from forethought.records import Example, Message, Record, Request
from forethought.train.config import TrainConfig
from forethought.train.methods.base import Material, TrainingMethod
from forethought.train.objectives.base import Objective
from forethought.train.objectives.consistency import ConsistencyObjective
from forethought.train.objectives.paired import PairedObjective
from forethought.train.rows import (
    Span,
    TokenRow,
    intent_span,
    opposite,
    prompt_tokens,
    rival_at,
    token_spans,
    verdict_span,
    with_other,
    with_rivals,
)


class Emphasis(Record):
    """How much tokens count, others counting 1. Mild: 6 for the verdict and 3 for the answer was worse than none."""

    intent: float = Field(default=1.5, ge=0.0)
    verdict: float = Field(default=3.0, ge=0.0)
    """Of the word `refuse` or `comply`."""
    answer: float = Field(default=2.0, ge=0.0)
    """Of the answer's first tokens, in which it refuses or doesn't."""
    answer_tokens: int = Field(default=4, ge=0)


EMPHASIS = Emphasis()


def weighted(material: Material) -> list[TokenRow]:
    """SCoT's rows, with a weight for each token."""
    return weighted_by(material, EMPHASIS)


def weighted_by(material: Material, emphasis: Emphasis) -> list[TokenRow]:
    """As `weighted`, by weights of the caller's."""
    return [_weighted(material, example, emphasis) for example in material.examples]


def _weighted(material: Material, example: Example, emphasis: Emphasis) -> TokenRow:
    row, thought = material.row(example, reasoning=True), thought_of(material, example)
    return emphasised(material.tokenizer, row, thought, example.answer, emphasis)


def emphasised(
    tokenizer: Tokenizer, row: TokenRow, thought: str, answer: str, emphasis: Emphasis, before: str = ""
) -> TokenRow:
    """A row with a weight for each token. It teaches `before`, the thought and the answer, in this order."""
    start, end = len(before), len(before) + len(thought)
    text = before + thought + answer
    spans = token_spans(tokenizer, text)
    weights = [1.0] * row.length
    n_prompt = prompt_tokens(row)
    for (first, last), weight in ((intent_span(thought), emphasis.intent), (verdict_span(thought), emphasis.verdict)):
        for place in _within(spans, (start + first, start + last)):
            weights[n_prompt + place] = weight
    for place in _within(spans, (end, len(text)))[: emphasis.answer_tokens]:
        weights[n_prompt + place] = emphasis.answer
    return row.model_copy(update={"weights": tuple(weights)})


def _within(spans: Sequence[Span], span: Span) -> list[int]:
    """Places of the tokens that share a character with a span."""
    return [place for place, (start, end) in enumerate(spans) if start < span[1] and end > span[0]]


def thought_of(material: Material, example: Example) -> str:
    """The example's thought as `material.row` writes it."""
    return render(example.reasoning, material.policy, material.format, material.detail, material.seed)


def consistent(material: Material) -> list[TokenRow]:
    """SCoT's rows; a disguised request's other completion is the same thought on the undisguised request, as far as
    the verdict, where alone it is looked at."""
    return [_consistent(material, example) for example in material.examples]


def _consistent(material: Material, example: Example) -> TokenRow:
    row = material.row(example, reasoning=True)
    plain = undisguised(example.request)
    if plain is None:
        return row
    thought = thought_of(material, example)
    span = verdict_span(thought)
    found = rival_at(material.tokenizer, thought, span, opposite(example.reasoning.verdict))
    other = material.row(example.model_copy(update={"request": plain}), reasoning=True)
    end = prompt_tokens(other) + found[0] + 1
    other = other.model_copy(update={"input_ids": other.input_ids[:end], "labels": other.labels[:end]})
    return with_other(with_rivals(row, prompt_tokens(row), [found]), with_rivals(other, prompt_tokens(other), [found]))


def undisguised(request: Request) -> Request | None:
    """The request as it was before it was restyled; None for one that never was."""
    if request.operator is None or request.seed_text is None:
        return None
    last = Message(role=request.messages[-1].role, content=request.seed_text)
    return request.model_copy(update={"messages": (*request.messages[:-1], last), "operator": None, "seed_text": None})


def weighted_objective(config: TrainConfig, n_layers: int) -> Objective:
    """The two-term loss, each token by its weight."""
    return PairedObjective(config.benign_weight, columns=("weights",))


def _consistent_objective(config: TrainConfig, n_layers: int) -> Objective:
    return ConsistencyObjective(config.benign_weight)


WEIGHTED = TrainingMethod(
    name="scot_weighted",
    title="SCoT, verdict and first words weighted",
    paper="",
    rows=weighted,
    objective=weighted_objective,
)
CONSISTENT = TrainingMethod(
    name="scot_consistent",
    title="SCoT, one verdict for all disguises",
    paper="",
    rows=consistent,
    objective=_consistent_objective,
)
