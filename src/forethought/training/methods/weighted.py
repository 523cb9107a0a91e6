"""SCoT whose loss looks harder at what decides: weights on intent, verdict and first words."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from forethought.chat import Tokenizer
from forethought.records import Example, Record
from forethought.training.config import TrainConfig
from forethought.training.methods.base import Material, TrainingMethod
from forethought.training.objective import Objective, PairedObjective
from forethought.training.rows import Span, TokenRow, intent_span, prompt_tokens, token_spans, verdict_span


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
    row, thought = material.row(example, reasoning=True), material.thought(example)
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


def weighted_objective(config: TrainConfig, n_layers: int) -> Objective:
    """The two-term loss, each token by its weight."""
    return PairedObjective(config.benign_weight, columns=("weights",))


WEIGHTED = TrainingMethod(
    name="scot_weighted",
    title="SCoT, verdict and first words weighted",
    paper="ours",
    cost="as SCoT",
    when_to_choose="answers contradict the verdict, or verdicts are uncertain",
    rows=weighted,
    objective=weighted_objective,
)
METHODS = (WEIGHTED,)
