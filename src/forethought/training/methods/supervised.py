"""Methods that are taught by example: refusal training, SCoT, what SCoT is without one of its parts, and SCoT that is
shown its own bad starts, and how to stop there, think and refuse."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

from forethought.chat import encode_completion, encode_prompt
from forethought.data.sources import within_budget
from forethought.reasoning import Detail, Format, markers
from forethought.records import Example
from forethought.training.methods.base import Material, TrainingMethod, reasoned
from forethought.training.rows import TokenRow, taught_after

SCOT_PAPER = "Yang et al. 2025, arXiv 2501.19180"
PAPER_STYLES = frozenset(
    {"slang", "uncommon_dialect", "role_play", "evidence_persuasion", "logical_appeal", "expert_endorsement"}
)
"""The six operators of the paper."""
CONSTANT_REFUSAL = "I'm sorry, but I can't help with that."
Keep = Callable[[Example], bool]


def original(example: Example) -> bool:
    """Whether the request stands as its source has it."""
    return example.request.operator is None


def affordable(material: Material, max_tokens: int | None) -> list[Example]:
    """The examples whose rows a budget leaves, so that no more are thought about than can be taught."""
    if max_tokens is None:
        return list(material.examples)
    lengths = [row.tokens for row in reasoned(material)]
    return [material.examples[place] for place in within_budget(lengths, max_tokens, material.seed)]


def unreasoned(material: Material, keep: Keep = lambda example: True) -> list[TokenRow]:
    """Rows of the answer alone; examples that teach no answer have nothing to teach without their thought."""
    answered = [example for example in material.examples if example.answer and keep(example)]
    return [material.row(example, reasoning=False) for example in answered]


def _without(part: Keep) -> Callable[[Material], list[TokenRow]]:
    return lambda material: reasoned(material, lambda example: not part(example))


def _in_the_paper(example: Example) -> bool:
    """Whether the paper has such a row: its six styles on harmful requests alone, and no look-alikes."""
    if example.term == "benign":
        return original(example) and example.request.kind != "lookalike"
    return original(example) or example.request.operator in PAPER_STYLES


def _one_refusal(material: Material) -> list[TokenRow]:
    """Trap 9 of the published code, as an ablation: every refusal is the same sentence."""
    examples = [
        example.model_copy(update={"answer": CONSTANT_REFUSAL})
        if example.term == "refusal" and example.answer
        else example
        for example in material.examples
    ]
    return reasoned(dataclasses.replace(material, examples=examples))


def _ablation(
    name: str,
    title: str,
    shows: str,
    rows: Callable[[Material], list[TokenRow]] = reasoned,
    fmt: Format | None = None,
    detail: Detail | None = None,
) -> TrainingMethod:
    return TrainingMethod(
        name=f"scot_{name}",
        title=f"SCoT, {title}",
        paper=f"ours, an ablation of {SCOT_PAPER}",
        cost="as SCoT",
        when_to_choose=f"to see {shows}",
        rows=lambda material: rows(_shaped(material, fmt, detail)),
        format=fmt,
        detail=detail,
        by_row=True,
    )


def _shaped(material: Material, fmt: Format | None = None, detail: Detail | None = None) -> Material:
    """The same data, its thoughts in another format or detail."""
    return dataclasses.replace(material, format=fmt or material.format, detail=detail or material.detail)


_RECOVERED_SHARE = 0.5
"""Share of the harmful rows that are also shown from a bad start."""
_MOST_BAD_TOKENS = 12
"""Most tokens of a harmful opening before the model recovers."""


def recovering(material: Material) -> list[TokenRow]:
    """SCoT's rows, and half of the harmful ones again from a bad start, which bears no loss.

    A bad start is what a prefill attack or a skipped thought leaves: a few tokens of the base model's own
    compliance, or an empty thought. What is taught is to stop there, think, and refuse.
    """
    return reasoned(material) + _recovered(material)


def _recovered(material: Material) -> list[TokenRow]:
    """A share of the harmful rows that teach a refusal, each from a bad start."""
    rng = random.Random(f"{material.seed}:recovery")
    harmful = [example for example in material.examples if example.term == "refusal" and example.answer]
    chosen = sorted(rng.sample(range(len(harmful)), round(len(harmful) * _RECOVERED_SHARE)))
    return [_from_bad_start(material, harmful[place], rng) for place in chosen]


def _from_bad_start(material: Material, example: Example, rng: random.Random) -> TokenRow:
    tokenizer = material.tokenizer
    opening, closing = markers(material.format)
    complied = material.complied.get(example.request.id, "")
    skipped = encode_completion(tokenizer, f"{opening}\n{closing}\n", end=False)
    harm = encode_completion(tokenizer, complied, end=False)[: rng.randint(1, _MOST_BAD_TOKENS)] if complied else []
    start = harm if harm and rng.random() < 0.5 else skipped + harm
    thought = material.thought(example)
    taught = encode_completion(tokenizer, f"\n{thought}{example.answer}", end=example.answer_complete)
    prompt = encode_prompt(tokenizer, example.request.messages)
    return taught_after([*prompt, *start], taught, "refusal")


REFUSAL = TrainingMethod(
    name="refusal",
    title="Refusal training",
    paper=f"{SCOT_PAPER} (ablation without reasoning and without variants)",
    cost="one pass over the rows; nothing at inference",
    when_to_choose="as the yardstick for reasoning: the same rows without it",
    rows=lambda material: unreasoned(material, original),
    thinks=False,
    by_row=True,
)
REFUSAL_AUGMENTED = TrainingMethod(
    name="refusal_augmented",
    title="Refusal training with variants",
    paper=f"{SCOT_PAPER} (ablation without reasoning)",
    cost="one pass over more rows; nothing at inference",
    when_to_choose="disguises are expected and no thought may be shown or paid for",
    rows=unreasoned,
    thinks=False,
    by_row=True,
)
SCOT = TrainingMethod(
    name="scot",
    title="Safety chain-of-thought (SCoT)",
    paper=SCOT_PAPER,
    cost="one pass over the rows; a thought of some 40 tokens before each answer",
    when_to_choose="refusals have to name the rule, and the operating point has to be set afterwards",
    by_row=True,
)
SCOT_SPLIT = SCOT.model_copy(
    update={
        "name": "scot_split",
        "title": "SCoT with split answering",
        "paper": f"ours, after {SCOT_PAPER}",
        "cost": "as SCoT, and a second prompt for requests that are allowed",
        "when_to_choose": "ability on allowed requests has to stay the base model's own",
        "answer_with": "base",
        "weights_of": "scot",
    }
)
SCOT_PUBLISHED = TrainingMethod(
    name="scot_published",
    title="SCoT as published",
    paper=SCOT_PAPER,
    cost="one pass over fewer rows; a thought of some 200 tokens before each answer",
    when_to_choose="to compare with the paper's own form: every rule walked, six styles, harmless rows as they are",
    rows=lambda material: reasoned(_shaped(material, "paper", "full"), _in_the_paper),
    format="paper",
    detail="full",
)
"""Headings, every rule walked, six styles, harmless rows as they are. What is taught comes from our policy and teacher,
and not from the paper's rules and model."""
POLICY_REASONING = TrainingMethod(
    name="policy_reasoning",
    title="Policy reasoning: every rule is walked",
    paper="in the manner of STAR-1, Wang et al. 2025, arXiv 2504.01903",
    cost="one pass over the rows without variants; a thought over every rule before each answer",
    when_to_choose="the thought has to show that every rule was looked at",
    rows=lambda material: reasoned(_shaped(material, detail="full"), original),
    detail="full",
    by_row=True,
)
RECOVERY = TrainingMethod(
    name="scot_recovery",
    title="SCoT that recovers from a bad start",
    paper="ours, after deep alignment: Qi et al. 2024, arXiv 2406.05946",
    cost="as SCoT, with half of the harmful rows once more from a bad start",
    when_to_choose="the model's turn can be prefilled or its thought skipped",
    rows=recovering,
    needs_complied=True,
)
METHODS = (
    REFUSAL,
    REFUSAL_AUGMENTED,
    SCOT,
    SCOT_SPLIT,
    SCOT_PUBLISHED,
    POLICY_REASONING,
    RECOVERY,
    _ablation(
        "no_variants", "without variants", "what restyled rows add", lambda material: reasoned(material, original)
    ),
    _ablation(
        "no_benign",
        "without harmless rows",
        "how much is refused when nothing harmless is taught",
        _without(lambda example: example.term == "benign"),
    ),
    _ablation(
        "no_contrast",
        "without look-alikes",
        "what harmless rows that look harmful add",
        _without(lambda example: example.request.kind == "lookalike"),
    ),
    _ablation(
        "no_styled_benign",
        "harmless rows never restyled",
        "whether a disguise alone gets refused",
        _without(lambda example: example.term == "benign" and not original(example)),
    ),
    _ablation("full", "every rule walked", "what a longer thought adds", detail="full"),
    _ablation("paper", "the paper's headings", "whether headings do as well as tags", fmt="paper"),
    _ablation("constant_refusal", "one refusal for all", "what refusals that name the rule add", _one_refusal),
)
