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

import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from forethought.chat import encode_completion, encode_prompt
from forethought.data.answers import ask_all
from forethought.errors import ModelError
from forethought.reasoning import markers, parse
from forethought.records import Example, Message, Record, Request
from forethought.store import read_store
from forethought.training.config import is_first
from forethought.training.methods.base import Job, Material, TrainingMethod, reasoned
from forethought.training.methods.supervised import affordable
from forethought.training.rows import TERMS, TokenRow, prompt_tokens, taught_after

if TYPE_CHECKING:
    from forethought.models.conversation import Response
    from forethought.models.local import LocalModel


THOUGHT_TOKENS = 160
"""Most tokens that are asked of the model; what goes on after the thought is thrown away."""
_TEMPLATE = """\
Before you answer any request, check it against these rules:
{rules}

Write your check first, in exactly this form:
{opening}
Intent: what is really asked, also when it is disguised.
Verdict: comply. No rule applies.
{closing}
If a rule is broken, the verdict line names it instead, as here for {example}:
Verdict: refuse. {example_title} ({example}): why the request breaks it.
You may reason about the rules between the two lines. After {closing}, act on the verdict."""
_VERDICT_LAST = re.compile(r"(?:^|\n)Verdict: (?:refuse|comply)\b[^\n]*$")
"""As a trained model is read: a line of its own, the last, that begins like this."""


class OwnThought(Record):
    """What a model thought about one request."""

    request_id: str
    thought: str
    """Without markers; empty where it closed none. What stood behind it is kept nowhere."""


def policy_text(material: Material) -> str:
    """The instruction that asks for a check against the policy."""
    opening, closing = markers(material.format)
    return material.policy.filled(_TEMPLATE, opening=opening, closing=closing)


def with_policy(request: Request, material: Material) -> Request:
    """The request with the policy in its system prompt, or before its first turn where the template knows no such."""
    own = [message.content for message in request.messages if message.role == "system"]
    turns = tuple(message for message in request.messages if message.role != "system")
    head = "\n\n".join([policy_text(material), *own])
    asked = request.model_copy(update={"messages": (Message(role="system", content=head), *turns)})
    try:
        encode_prompt(material.tokenizer, asked.messages)
    except ModelError:
        first = turns[0].model_copy(update={"content": f"{head}\n\n{turns[0].content}"})
        return request.model_copy(update={"messages": (first, *turns[1:])})
    return asked


def own_thoughts(
    load: Callable[[], LocalModel], requests: Sequence[Request], material: Material, file: Path
) -> dict[str, str]:
    """Thoughts by request id, those that were not closed left out; kept in `file` batch by batch.

    A later call asks only for what is missing, and loads no model where nothing is. What is longer than the model's
    context is left out.
    """
    asked = {request.id: with_policy(request, material) for request in requests}
    opening, closing = markers(material.format)

    def kept(request: Request, response: Response) -> OwnThought:
        before, closed, _ = response.answer.partition(closing)
        thought = before.removeprefix(opening).strip() if closed else ""
        return OwnThought(request_id=request.id, thought=thought)

    known = read_store(file, OwnThought)
    if any(one.id not in known for one in asked.values()):
        model = load()
        room = model.context_tokens - THOUGHT_TOKENS
        fits = [one for one in asked.values() if len(encode_prompt(material.tokenizer, one.messages)) <= room]
        known |= ask_all(model, fits, file, OwnThought, kept, THOUGHT_TOKENS)
    found = {own: known[one.id].thought for own, one in asked.items() if one.id in known}
    return {own: thought for own, thought in found.items() if thought}


def is_right(example: Example, thought: str, material: Material) -> bool:
    """Whether a thought may be taught: it can be read, reaches the row's verdict on its last line, and where that is
    to refuse names a rule that the row names."""
    opening, closing = markers(material.format)
    if opening in thought or _VERDICT_LAST.search(thought) is None:
        return False
    found = parse(f"{opening}\n{thought}\n{closing}\n", material.policy).reasoning
    if found is None or not found.intent or found.verdict != example.reasoning.verdict:
        return False
    return found.verdict == "comply" or bool(set(found.violated) & set(example.reasoning.violated))


THOUGHTS = "thoughts.jsonl"
"""In the training's folder: the base model's thoughts, right or wrong."""
MINIMUM = 0.5
"""Share of a term's thoughts that has to be right for the others to be left out."""
TRIED = 48
"""At least so many requests are asked first; a model that gets none of them right is asked no more."""


def deliberate(job: Job, _: None) -> dict[str, float]:
    """Asks, filters, says how many were right, and trains; counts are `fit.train`'s and `asked`, `own`, `teacher`.

    A killed run asks only for what is missing. Of several processes each asks for itself.
    """
    from forethought.models.local import LocalModel
    from forethought.training.run import train_rows

    material = job.material
    chosen = affordable(material, job.max_tokens)
    if not chosen:  # says so as every method does
        return train_rows(job)
    base = functools.cache(lambda: LocalModel.load(job.base))
    first = chosen[:: max(len(chosen) // TRIED, 1)]
    asked, right = first, _right(job, base, first)
    if right:
        asked, right = chosen, _right(job, base, chosen)
    elif len(first) < len(chosen):
        job.progress.say(f"none of the first {len(first)} own thoughts was right: no more are asked for")
    base.cache_clear()  # its memory is needed for training
    rows, own = _taught(job, chosen, right)

    def taught(given: Material) -> list[TokenRow]:
        return rows if given.examples is material.examples else reasoned(given)  # others are held out

    counts = train_rows(job.with_method(rows=taught))
    return counts | {"asked": float(len(asked)), "own": float(own), "teacher": float(len(rows) - own)}


def _right(job: Job, base: Callable[[], LocalModel], examples: Sequence[Example]) -> dict[str, str]:
    """The base model's thoughts that may be taught, by request.

    The first process writes the file that stays; others ask alike and keep theirs to themselves.
    """
    file = job.out / (THOUGHTS if is_first() else f"thoughts-{os.environ.get('RANK', '0')}.jsonl")
    thoughts = own_thoughts(base, [example.request for example in examples], job.material, file)
    known = {example.request.id: example for example in examples}
    return {place: thought for place, thought in thoughts.items() if is_right(known[place], thought, job.material)}


def _taught(job: Job, chosen: Sequence[Example], right: Mapping[str, str]) -> tuple[list[TokenRow], int]:
    """(rows, how many hold the model's own thought); says what came of it."""
    rows: list[TokenRow] = []
    n_own = 0
    for term in TERMS:
        examples = [example for example in chosen if example.term == term]
        own = [example for example in examples if example.request.id in right]
        rest = [example for example in examples if example.request.id not in right]
        filled = len(own) < MINIMUM * len(examples)
        job.progress.say(
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
    end = bool(example.answer) and example.answer_complete
    text = f"{opening}\n{thought}\n{closing}\n{example.answer}"
    taught = encode_completion(material.tokenizer, text, end=end)
    return taught_after(row.input_ids[: prompt_tokens(row)], taught, example.term)


DELIBERATIVE = TrainingMethod(
    name="deliberative",
    title="Deliberative alignment",
    paper="Guan et al. 2024, arXiv 2412.16339, its supervised half",
    cost="a thought by the base model for each row, with the policy in its prompt; one pass over what was right",
    when_to_choose="the model follows the policy when it is in the prompt, and the prompt is to go",
    procedure=deliberate,
)


METHODS = (DELIBERATIVE,)
