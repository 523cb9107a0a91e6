"""SCoT with recovery: the model is shown its own bad starts, and how to stop there, think and refuse."""

from __future__ import annotations

import random

from forethought.chat import encode_completion, encode_prompt
from forethought.reasoning import markers
from forethought.records import Example
from forethought.training.methods.base import Material, TrainingMethod
from forethought.training.methods.supervised import paired, reasoned
from forethought.training.rows import IGNORED, TERMS, TokenRow

_SHARE = 0.5
"""Share of the harmful rows that are also shown from a bad start."""
_MOST_TOKENS = 12
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
    chosen = sorted(rng.sample(range(len(harmful)), round(len(harmful) * _SHARE)))
    return [_from_bad_start(material, harmful[place], rng) for place in chosen]


def _from_bad_start(material: Material, example: Example, rng: random.Random) -> TokenRow:
    tokenizer = material.tokenizer
    opening, closing = markers(material.format)
    complied = material.complied.get(example.request.id, "")
    skipped = encode_completion(tokenizer, f"{opening}\n{closing}\n", end=False)
    harm = encode_completion(tokenizer, complied, end=False)[: rng.randint(1, _MOST_TOKENS)] if complied else []
    start = harm if harm and rng.random() < 0.5 else skipped + harm
    thought = material.thought(example)
    taught = encode_completion(tokenizer, f"\n{thought}{example.answer}", end=example.answer_complete)
    prompt = encode_prompt(tokenizer, example.request.messages)
    return TokenRow(
        input_ids=(*prompt, *start, *taught),
        labels=(*([IGNORED] * (len(prompt) + len(start))), *taught),
        term=TERMS.index("refusal"),
    )


RECOVERY = TrainingMethod(
    name="scot_recovery",
    title="SCoT that recovers from a bad start",
    paper="ours, after deep alignment: Qi et al. 2024, arXiv 2406.05946",
    cost="as SCoT, with half of the harmful rows once more from a bad start",
    when_to_choose="the model's turn can be prefilled or its thought skipped",
    rows=recovering,
    objective=paired,
    needs_complied=True,
)


METHODS = (RECOVERY,)
