"""Deliberative alignment, Guan et al. 2024, arXiv 2412.16339: context distillation.

The paper's: the model reasons about requests with the policy in its prompt; what a judge finds right is taught with the
policy left out, so that the model knows it by heart. Ours: the rows' labels take the judge's place (verdict, and a rule
that the row names), one greedy thought a request is asked for, answers are the rows' own, as for every other method,
and there is no reinforcement learning after it (`scot_rl` is a method of its own).

A small model gets few thoughts right; one that gets none of the first right is asked no more. Where less than half of
a term's are, the rest of the term is taught with the rows' reasoning, which a teacher wrote with the policy before it:
context distillation still, from another model. Terms are counted apart, or a model that always complies would leave
nothing to refuse.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from forethought.chat import encode_completion
from forethought.reasoning import markers
from forethought.records import Example
from forethought.train.config import is_first
from forethought.train.methods.base import Job, Material, TrainingMethod
from forethought.train.methods.supervised import affordable, paired, reasoned
from forethought.train.methods.thoughts import is_right, own_thoughts
from forethought.train.rows import TERMS, TokenRow, prompt_tokens

if TYPE_CHECKING:
    from forethought.engine.local import LocalModel

THOUGHTS = "thoughts.jsonl"
"""In the training's folder: the base model's thoughts, right or wrong."""
MINIMUM = 0.5
"""Share of a term's thoughts that has to be right for the others to be left out."""
TRIED = 48
"""At least so many requests are asked first; a model that gets none of them right is asked no more."""


def deliberate(job: Job) -> dict[str, float]:
    """Asks, filters, says how many were right, and trains; counts are `fit.train`'s and `asked`, `own`, `teacher`.

    A killed run asks only for what is missing. Of several processes each asks for itself.
    """
    from forethought.engine.local import LocalModel
    from forethought.train.run import train_rows

    material = job.material
    chosen = affordable(material, job.max_tokens)
    if not chosen:  # says so as every method does
        return train_rows(dataclasses.replace(job, method=job.method.model_copy(update={"procedure": None})))
    base = functools.cache(lambda: LocalModel.load(job.base))
    first = chosen[:: max(len(chosen) // TRIED, 1)]
    asked, right = first, _right(job, base, first)
    if right:
        asked, right = chosen, _right(job, base, chosen)
    elif len(first) < len(chosen):
        job.say(f"none of the first {len(first)} own thoughts was right: no more are asked for")
    base.cache_clear()  # its memory is needed for training
    rows, own = _taught(job, chosen, right)

    def taught(given: Material) -> list[TokenRow]:
        return rows if given.examples is material.examples else reasoned(given)  # others are held out

    plain = job.method.model_copy(update={"procedure": None, "rows": taught})
    counts = train_rows(dataclasses.replace(job, method=plain))
    return counts | {"asked": float(len(asked)), "own": float(own), "teacher": float(len(rows) - own)}


def _right(job: Job, base: Callable[[], LocalModel], examples: Sequence[Example]) -> dict[str, str]:
    """The base model's thoughts that may be taught, by request."""
    material = job.material
    requests = [example.request for example in examples]
    thoughts = own_thoughts(base, requests, material.policy, material.format, material.tokenizer, _file(job.out))
    return {
        example.request.id: thought
        for example in examples
        if (thought := thoughts.get(example.request.id)) is not None
        and is_right(example, thought, material.policy, material.format)
    }


def _file(out: Path) -> Path:
    """The first process writes the file that stays; others ask alike and keep theirs to themselves."""
    return out / (THOUGHTS if is_first() else f"thoughts-{os.environ.get('RANK', '0')}.jsonl")


def _taught(job: Job, chosen: Sequence[Example], right: Mapping[str, str]) -> tuple[list[TokenRow], int]:
    """(rows, how many hold the model's own thought); says what came of it."""
    rows: list[TokenRow] = []
    n_own = 0
    for term in TERMS:
        examples = [example for example in chosen if example.term == term]
        own = [example for example in examples if example.request.id in right]
        rest = [example for example in examples if example.request.id not in right]
        filled = len(own) < MINIMUM * len(examples)
        job.say(
            f"{term}: {len(own)} of {len(examples)} own thoughts were right; "
            + (f"the other {len(rest)} are taught with the teacher's" if filled else "the others are left out")
        )
        rows += [own_row(job.material, example, right[example.request.id]) for example in own]
        rows += [job.material.row(example, reasoning=True) for example in rest] if filled else []
        n_own += len(own)
    return rows, n_own


def own_row(material: Material, example: Example, thought: str) -> TokenRow:
    """A row that teaches a thought as the model wrote it, the policy absent from the prompt."""
    opening, closing = markers(material.format)
    row = material.row(example, reasoning=True)
    prompt = row.input_ids[: prompt_tokens(row)]
    text = f"{opening}\n{thought}\n{closing}\n{example.answer}"
    end = bool(example.answer) and example.answer_complete
    taught = encode_completion(material.tokenizer, text, end=end)
    return row.model_copy(update={"input_ids": (*prompt, *taught), "labels": (*row.labels[: len(prompt)], *taught)})


DELIBERATIVE = TrainingMethod(
    name="deliberative",
    title="Deliberative alignment",
    paper="Guan et al. 2024, arXiv 2412.16339, its supervised half",
    rows=reasoned,
    objective=paired,
    procedure=deliberate,
)
