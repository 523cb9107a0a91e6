"""Rejection sampling: of the model's own thoughts, those that lead it to the right verdict, as rows for another pass.

Yuan et al. 2023, arXiv 2308.01825 (and STaR, Zelikman et al. 2022, arXiv 2203.14465) keep the chains of thought that
reach the right answer. What is the model's own here is the stated intent: it is what the verdict rests on. Rules and
answer stay the row's, so that a refusal names what its thought names.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from forethought.errors import ConfigError
from forethought.manifest import key_of
from forethought.models.conversation import LED, Conversation, Failed, Response
from forethought.reasoning import leak
from forethought.records import Example, Record
from forethought.store import Store
from forethought.training.methods.base import Job, TrainingMethod
from forethought.training.methods.reinforced import supervised_first
from forethought.training.methods.supervised import affordable
from forethought.training.reward import nearness, right_verdict, sample_seed, says_something

if TYPE_CHECKING:
    from forethought.models.local import LocalModel


class RejectionSettings(Record):
    """How thoughts are sampled and chosen."""

    samples: int = Field(default=4, ge=1)
    """Thoughts of each request."""
    temperature: float = Field(default=1.0, gt=0)
    keep: int = Field(default=1, ge=1)
    """Most thoughts kept of a request, each a row of its own."""
    least_nearness: float = Field(default=0.1, ge=0, le=1)
    """An intent less near than this to what is really asked is not kept, whatever its verdict."""
    think_budget: int | None = Field(default=None, ge=8)
    """Tokens in which a thought has to come to its verdict by itself; None is the sampled model's own."""


_BATCH = 32
"""Requests whose thoughts are kept at once: what a kill loses."""
_MORE = 1.15
"""Share of the token budget whose rows are thought about: a model's own intents may be shorter than those written."""


def reject(job: Job, settings: RejectionSettings) -> dict[str, float]:
    """SCoT by example, thoughts sampled from it, and SCoT again with those that reached the right verdict."""
    from forethought.training.run import train_rows

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"method '{job.method.name}'", "samples in one process", "Start it without a launcher")
    start = supervised_first(job)
    chosen = affordable(job.material, None if job.max_tokens is None else int(_MORE * job.max_tokens))
    examples = own_thoughts(start, chosen, settings, job.out, job.material.seed, job.progress.say)
    material = dataclasses.replace(job.material, examples=examples)
    return train_rows(dataclasses.replace(job, material=material))


class OwnThought(Record):
    """An intent that the model stated, after which its verdict was right."""

    intent: str
    nearness: float
    """To what is really asked, 0 to 1, as in the reward."""
    margin: float
    """Log-odds by which the verdict was the right one."""


class Sampled(Record):
    """What was sampled for one request."""

    request_id: str
    right: tuple[OwnThought, ...] = ()
    """Best first: by nearness, then by margin; each intent once."""
    samples: int
    """Thoughts that came back."""


def own_thoughts(
    start: Path,
    examples: Sequence[Example],
    settings: RejectionSettings,
    out: Path,
    seed: int,
    say: Callable[[str], None],
) -> list[Example]:
    """The rows with the model's own right thoughts in place of those that were written for it.

    A request for which no sample was right keeps its own row: it is what the model has yet to learn. Samples are kept
    in `out` batch by batch, so that a stopped run goes on. Raises ModelError where `start` can't be loaded.
    """
    from forethought.models.local import LocalModel

    trained = start / "checkpoints" / "training.json"
    of = trained.read_text(encoding="utf-8") if trained.is_file() else ""
    log = out / f"thoughts-{key_of([settings.model_dump(), of, seed])}.jsonl"
    asked = {example.request.id: example for example in examples if right_verdict(example) is not None}
    with Store(log, write=True) as store:
        missing = [example for key, example in asked.items() if key not in store]
        if missing:
            sample(LocalModel.load(str(start)), missing, settings, store, seed)
        known = store.records(Sampled)
    right = sum(bool(known[key].right) for key in asked)
    say(f"Right thoughts of its own for {right} of {len(asked)} requests; the others keep the thought of their row")
    return [row for example in examples for row in _rows(example, known.get(example.request.id), settings.keep)]


def sample(
    model: LocalModel, examples: Sequence[Example], settings: RejectionSettings, store: Store, seed: int
) -> None:
    """Keeps in `store`, batch by batch, what is sampled for each request, by its id."""
    for first in range(0, len(examples), _BATCH):
        batch = examples[first : first + _BATCH]
        conversations = [
            Conversation(
                messages=example.request.messages,
                think_budget=settings.think_budget,
                temperature=settings.temperature,
                sample_seed=sample_seed(seed, 0, number),
            )
            for example in batch
            for number in range(settings.samples)
        ]
        replies = model.reply(conversations, max_answer_tokens=0)
        for place, example in enumerate(batch):
            own = replies[place * settings.samples : (place + 1) * settings.samples]
            store.add(example.request.id, chosen(example, own, settings))


def chosen(example: Example, replies: Sequence[Response | Failed], settings: RejectionSettings) -> Sampled:
    """The right thoughts among replies that stopped at their verdict, best first."""
    came = [reply for reply in replies if isinstance(reply, Response)]
    found: dict[str, OwnThought] = {}
    for thought in (_right(example, reply, settings) for reply in came):
        if thought is not None:
            known = found.setdefault(thought.intent.lower(), thought)
            if thought.margin > known.margin:
                found[thought.intent.lower()] = thought
    best = sorted(found.values(), key=lambda one: (-one.nearness, -one.margin, one.intent))
    return Sampled(request_id=example.request.id, right=tuple(best), samples=len(came))


def _right(example: Example, reply: Response, settings: RejectionSettings) -> OwnThought | None:
    """The thought behind a right verdict that it came to by itself, with an intent that says something of its own."""
    if reply.reasoning is None or reply.log_odds is None or reply.cause == LED:
        return None
    request, intent = example.request, reply.reasoning.intent.strip()
    near = nearness(intent, request.plain)
    says = says_something(intent, 2) and near >= settings.least_nearness
    if (
        reply.decision != right_verdict(example)
        or not says
        or leak(intent, f"{request.text}\n{request.plain}") is not None
    ):
        return None
    margin = reply.log_odds if example.term == "refusal" else -reply.log_odds
    return OwnThought(intent=intent, nearness=near, margin=margin)


def _rows(example: Example, sampled: Sampled | None, keep: int) -> list[Example]:
    thoughts = sampled.right[:keep] if sampled is not None else ()
    if not thoughts:
        return [example]
    reasonings = [example.reasoning.model_copy(update={"intent": thought.intent}) for thought in thoughts]
    return [example.model_copy(update={"reasoning": reasoning}) for reasoning in reasonings]


REJECTION = TrainingMethod(
    name="scot_rejection",
    title="SCoT on its own right thoughts (rejection sampling)",
    paper="ours, with rejection sampling: Yuan et al. 2023, arXiv 2308.01825",
    cost="SCoT twice, and four thoughts sampled for each row in between",
    when_to_choose="intents written by rules don't sound like the model, and compute is at hand",
    procedure=reject,
    procedure_settings=RejectionSettings(),
)
METHODS = (REJECTION,)
