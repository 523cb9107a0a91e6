"""SCoT whose loss looks harder at the words that decide: the verdict, steps that lead to it, first words after it.

`scot_weighted`, ours: weights on intent, verdict and first words.

`reasoning_first`, Reasoning-to-Defend (R2D), Zhu et al. 2025, arXiv 2502.12970: after each step the model says how
things stand. The paper's: steps that end in a pivot, [SAFE], [UNSAFE] or [RETHINK]; contrastive pivot optimisation;
LoRA on all layers. Ours: the steps are SCoT's own findings and no stronger model's distilled reasoning; pivots stand in
the thought alone, the answer has none; they are plain text and no new tokens of the vocabulary, so that the adapter
fits the base model's tokenizer (the pivot is the token in which [SAFE] and [UNSAFE] first differ); [RETHINK] marks a
request whose wording hides what is asked; and the thought ends with SCoT's verdict line, so that there is a verdict
with log-odds.

`scot_consistent`, ours, in the manner of self-training: a disguise must not change the verdict. Its probability on a
disguised request is drawn to what the model says, at that moment, to the same request undisguised. Only the disguised
side bears the gradient: the plain one is a teacher, and not pulled to the disguise.

`scot_combined`, several levers at once: what each gives alone, `recipes/ladder` tells. They are those of other methods,
whose rows and losses are used as they are: the weights of `scot_weighted`, the rule heads of `scot_headed`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from forethought.chat import Tokenizer, encode_completion
from forethought.errors import ModelError
from forethought.policy import Policy
from forethought.reasoning import VERDICT_ANCHOR
from forethought.records import Example, Record
from forethought.training.methods.base import Job, Material, Procedure, TrainingMethod
from forethought.training.methods.headed import HEADS_WEIGHT, train_headed
from forethought.training.methods.supervised import SCOT_PAPER
from forethought.training.objective import Batch, Step, inputs_of, mean_over_all, others_of, paired_loss
from forethought.training.rows import IGNORED, TokenRow, gap_behind, prompt_tokens, with_other

if TYPE_CHECKING:
    import torch


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


_SOLVING = re.compile(r"(?m)^(?:Step|Asked): (.+)$")


class Emphasis(Record):
    """How much tokens count, others counting 1. Mild: 6 for the verdict and 3 for the answer was worse than none."""

    intent: float = Field(default=1.5, ge=0.0)
    verdict: float = Field(default=3.0, ge=0.0)
    """Of the word `refuse` or `comply`."""
    answer: float = Field(default=2.0, ge=0.0)
    """Of the answer's first tokens, in which it refuses or doesn't."""
    answer_tokens: int = Field(default=4, ge=0)
    solving: float = Field(default=3.0, ge=0.0)
    """Of the steps of a thought that solves and of what it finds: of two texts that begin alike, few words decide which
    is copied."""


def weighted(material: Material, example: Example, emphasis: Emphasis) -> TokenRow:
    """SCoT's row, with a weight for each token."""
    row, thought = material.row(example, reasoning=True), material.thought(example)
    start = len(gap_behind(example.prefill))
    text = gap_behind(example.prefill) + thought + example.answer
    spans = token_spans(material.tokenizer, text)
    weights = [1.0] * row.length
    n_prompt = prompt_tokens(row)
    spoken = [(intent_span(thought), emphasis.intent), (verdict_span(thought), emphasis.verdict)]
    spoken += [(match.span(1), emphasis.solving) for match in _SOLVING.finditer(thought)]
    for (first, last), weight in spoken:
        for place in _within(spans, (start + first, start + last)):
            weights[n_prompt + place] = weight
    for place in _within(spans, (start + len(thought), len(text)))[: emphasis.answer_tokens]:
        weights[n_prompt + place] = emphasis.answer
    return row.model_copy(update={"weights": tuple(weights)})


def _within(spans: Sequence[Span], span: Span) -> list[int]:
    """Places of the tokens that share a character with a span."""
    return [place for place, (start, end) in enumerate(spans) if start < span[1] and end > span[0]]


SAFE, UNSAFE, RETHINK = "[SAFE]", "[UNSAFE]", "[RETHINK]"
_PIVOT = re.compile(r"(?m)^\[(?:SAFE|UNSAFE)\]$")
_DISGUISED = "The wording hides it; what is asked counts."
_CLEAR = "No rule is broken."


def stepwise(material: Material, example: Example) -> TokenRow:
    """SCoT's row with a thought in steps, each followed by a pivot on a line of its own."""
    reasoning = example.reasoning.model_copy(update={"deliberation": steps_of(example, material.policy)})
    example = example.model_copy(update={"reasoning": reasoning})
    row = material.row(example, reasoning=True)
    thought = material.thought(example)
    found = [
        rival_at(material.tokenizer, thought, match.span(), SAFE if match[0] == UNSAFE else UNSAFE)
        for match in _PIVOT.finditer(thought)
    ]
    return with_rivals(row, prompt_tokens(row), found)


def steps_of(example: Example, policy: Policy) -> str:
    """What stands between intent and verdict: a pivot for the intent, then steps with theirs.

    A disguised request is thought about again before it is called safe or unsafe, a harmless one as well as a harmful
    one: the disguise decides nothing.
    """
    reasoning = example.reasoning
    pivot = UNSAFE if reasoning.verdict == "refuse" else SAFE
    lines = [RETHINK, _DISGUISED, pivot] if example.request.operator is not None else [pivot]
    if reasoning.deliberation:
        lines += [reasoning.deliberation.strip(), pivot]
    for finding in reasoning.findings:
        if finding.violated:
            rule = policy.rule(finding.rule)
            lines += [f"It breaks the rule on {rule.title} ({rule.id}).", UNSAFE]  # the verdict says why
    if reasoning.verdict == "comply":
        lines += [_CLEAR, SAFE]
    return "\n".join(lines)


@dataclass(frozen=True)
class PivotObjective:
    """The paired loss, and contrastive pivot optimisation (CPO) at the tokens that have a rival.

    A pivot is a token that says how the reasoning stands: safe or unsafe. Besides being taught like any token, it is
    set against the one that would say the opposite. As in the authors' code: two terms of one weight, the mean over the
    pivots of one kind and the mean over those of the other.
    """

    benign_weight: float = 1.0
    pivot_weight: float = 1.0
    """Of CPO beside the paired loss, the authors' 1."""

    def loss(self, model: Any, batch: Batch, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        """The paired loss plus CPO; a batch without the column has no pivots."""
        out, rivals = _with_margins(model, batch)
        taught, values = paired_loss(out.log_probs, out.taught, batch["term"], self.benign_weight, step)
        pivots, value = pivot_loss(out.margins, batch["labels"][:, 1:], rivals[:, 1:], step)
        return taught + self.pivot_weight * pivots, values | {"pivot": value}


def _with_margins(model: Any, batch: Batch) -> tuple[Any, torch.Tensor]:
    """(what the model says of the taught tokens, margins over their rivals included; those rivals)."""
    import torch

    rivals = batch.get("rivals", torch.full_like(batch["labels"], IGNORED))
    return model(**inputs_of(batch), rivals=rivals, taught_only=True), rivals


def pivot_loss(
    margins: torch.Tensor, labels: torch.Tensor, rivals: torch.Tensor, step: Step
) -> tuple[torch.Tensor, float]:
    """(loss, value): the mean of -log sigmoid(margin) over each kind of pivot, both added. Shapes (batch, tokens).

    With two pivots the kinds are told apart by which of the two ids is the smaller.
    """
    from torch.nn.functional import logsigmoid

    loss, value = margins.new_zeros(()), 0.0
    where = (rivals != IGNORED) & (labels != IGNORED)
    for kind in (where & (labels < rivals), where & (labels > rivals)):
        found, mean = mean_over_all(-(logsigmoid(margins) * kind).sum(), kind.sum(), step)
        loss, value = loss + found, value + mean
    return loss, value


def consistent(material: Material, example: Example) -> TokenRow:
    """SCoT's row; a disguised request's other completion is the same thought on the undisguised request, as far as
    the verdict, where alone it is looked at."""
    row = material.row(example, reasoning=True)
    if example.request.operator is None or example.request.seed_text is None:
        return row
    thought = material.thought(example)
    span = verdict_span(thought)
    found = rival_at(material.tokenizer, thought, span, opposite(example.reasoning.verdict))
    other = material.row(example.model_copy(update={"request": example.request.undisguised}), reasoning=True)
    end = prompt_tokens(other) + found[0] + 1
    other = other.model_copy(update={"input_ids": other.input_ids[:end], "labels": other.labels[:end]})
    return with_other(with_rivals(row, prompt_tokens(row), [found]), with_rivals(other, prompt_tokens(other), [found]))


@dataclass(frozen=True)
class ConsistencyObjective:
    """The paired loss, and KL(plain || disguised) at the verdict for rows whose other completion is undisguised."""

    benign_weight: float = 1.0
    consistency_weight: float = 1.0
    """Of the divergence, in nats a pair, beside the paired loss."""

    def loss(self, model: Any, batch: Batch, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        """The paired loss plus the mean divergence over all pairs of all processes."""
        import torch

        out, rivals = _with_margins(model, batch)
        taught, values = paired_loss(out.log_probs, out.taught, batch["term"], self.benign_weight, step)
        found = others_of(batch, step)
        if found is None:
            return taught, values
        rows, plain = found
        plain_rivals = batch.get("other_rivals", torch.full_like(plain["labels"], IGNORED))
        with torch.no_grad():
            teacher = model(**plain, rivals=plain_rivals, taught_only=True).margins.sum(-1)
        paired = (plain_rivals != IGNORED).any(-1) & (rivals[rows] != IGNORED).any(-1)
        divergence = (verdict_divergence(teacher, out.margins[rows].sum(-1)) * paired).sum()
        loss, value = mean_over_all(divergence, paired.sum(), step)
        return taught + self.consistency_weight * loss, values | {"consistency": value}


def verdict_divergence(plain: torch.Tensor, disguised: torch.Tensor) -> torch.Tensor:
    """KL(plain || disguised) of two-way verdicts in nats, from log-odds of shape (rows,); `plain` bears no gradient.

    Refuse and comply share all probability: what the model would say besides is the paired loss's business.
    """
    from torch.nn.functional import logsigmoid

    plain = plain.detach()
    yes = plain.sigmoid() * (logsigmoid(plain) - logsigmoid(disguised))
    no = (-plain).sigmoid() * (logsigmoid(-plain) - logsigmoid(-disguised))
    divergence: torch.Tensor = yes + no
    return divergence


class Levers(Record):
    """Which levers are pulled, and how far."""

    emphasis: Emphasis | None = Emphasis()
    """Weights on what decides; None weighs all tokens alike."""
    heads: bool = False
    """Rule heads on the state before the thought, as an auxiliary loss."""
    heads_weight: float = Field(default=HEADS_WEIGHT, gt=0.0)
    """Of that loss, beside 1 for the thought's."""
    answers: float = Field(default=1.0, ge=0.0, le=1.0)
    """Share of the rows that teach an answer; the others end with the thought, so that more rows fit a budget."""
    form: bool = False
    """The thought names the disguise before its verdict, and discards it."""
    rule: bool = False
    """The thought names the rule that is broken, or none, before its verdict, and not behind it alone."""

    def rows(self, material: Material) -> list[TokenRow]:
        """SCoT's rows under these levers."""
        return [self.row(material, example) for example in material.examples]

    def row(self, material: Material, example: Example) -> TokenRow:
        """One example under these levers."""
        example = self.shown(example, material.policy)
        if self.emphasis is not None:
            return weighted(material, example, self.emphasis)
        return material.row(example, reasoning=True)

    def shown(self, example: Example, policy: Policy) -> Example:
        """What of an example is taught: its answer or not, which depends on its content alone, and a thought that
        says more between intent and verdict."""
        bare = {} if _drawn(example, self.answers) else {"answer": "", "answer_complete": False}
        reasoning = example.reasoning
        lines = [reasoning.deliberation] if reasoning.deliberation else []
        if self.form:
            disguise = example.request.operator
            lines.append(f"Form: {disguise.replace('_', ' ')}, which changes nothing." if disguise else "Form: plain.")
        if self.rule:
            named = [policy.rule(rule) for rule in reasoning.violated]
            lines.append("Rule: " + ("; ".join(f"{rule.title} ({rule.id})" for rule in named) or "none") + ".")
        told = reasoning.model_copy(update={"deliberation": "\n".join(lines)})
        return example.model_copy(update={"reasoning": told, **bare})

    @property
    def procedure(self) -> Procedure | None:
        """What trains on the rows, where that is more than the trainer."""
        return (lambda job, _: train_headed(job, self.heads_weight)) if self.heads else None


PLAIN = Levers(emphasis=None)
"""SCoT as it is, no lever pulled."""


def _drawn(example: Example, share: float) -> bool:
    name = example.request.id
    return int(name, 16) < share * float(16 ** len(name))


def combine(job: Job, levers: Levers) -> dict[str, float]:
    """One training with rows and losses of the levers."""
    from forethought.training.run import train_method

    return train_method(job.with_method(rows=levers.rows, procedure=levers.procedure, procedure_settings=None))


WEIGHTED = TrainingMethod(
    name="scot_weighted",
    title="SCoT, verdict and first words weighted",
    paper="ours",
    cost="as SCoT",
    when_to_choose="answers contradict the verdict, or verdicts are uncertain",
    rows=lambda material: [weighted(material, example, Emphasis()) for example in material.examples],
)
REASONING_FIRST = TrainingMethod(
    name="reasoning_first",
    title="Reasoning-to-defend (R2D): a pivot after each step",
    paper="in the manner of Zhu et al. 2025, arXiv 2502.12970",
    cost="one pass; some fifteen more tokens of thought than SCoT, and as many again for a disguised request",
    when_to_choose="the thought is to say after each step how things stand, or a data set brings steps of its own",
    rows=lambda material: [stepwise(material, example) for example in material.examples],
    objective=lambda config, _: PivotObjective(config.benign_weight),
)
CONSISTENT = TrainingMethod(
    name="scot_consistent",
    title="SCoT, one verdict for all disguises",
    paper="ours",
    cost="as SCoT, and a pass without gradients over the plain side of each disguised row",
    when_to_choose="verdicts change with the disguise though the request does not",
    rows=lambda material: [consistent(material, example) for example in material.examples],
    objective=lambda config, _: ConsistencyObjective(config.benign_weight),
)
COMBINED = TrainingMethod(
    name="scot_combined",
    title="SCoT with several levers",
    paper=f"ours, after {SCOT_PAPER}",
    cost="as SCoT; with rule heads a pass of the base model over the rows besides",
    when_to_choose="several levers help: weights on what decides, rule heads, rows without answers",
    rows=Levers().rows,
    procedure=combine,
    one_run=True,
    procedure_settings=Levers(),
)
METHODS = (WEIGHTED, REASONING_FIRST, CONSISTENT, COMBINED)
