"""Embedding-space attack: the prompt's embeddings are moved freely, as nobody can who only writes text.

Schwinn et al. 2024 (arXiv 2402.09063). A bound for whoever holds the weights, not an attack through a chat window:
what withstands it withstands any suffix, and hardly anything does. Signed gradient descent on the loss of the target;
the model is asked along the way, since what breaks through early may be lost again later.

Steps run in blocks, one `Compute` from each checkpoint to the next. A block keeps what the model said and the losses,
a few hundred bytes; the perturbation itself (up to megabytes for a large model, and as much again at each checkpoint)
is not kept. A search that was killed makes the steps of its first block that was not finished again from step 0,
which comes out the same on the same machine and costs at most one request's steps.
"""

from __future__ import annotations

import random
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from forethought.attacks.base import Options
from forethought.attacks.searches.base import Compute, Goal, Grade, Run, Tools, aim_at, described
from forethought.attacks.searches.suffix import Slot, find_slot
from forethought.chat import Tokenizer
from forethought.errors import ModelError
from forethought.records import Message

if TYPE_CHECKING:
    from forethought.attacks.searches.weights.embedding import Perturbed


def search(goal: Goal, rng: random.Random, options: Options, tools: Tools) -> Run:
    """Moves the embeddings, and grades what the model says at each checkpoint until it is broken.

    Draws nothing at random. Raises ModelError without the model's weights.
    """
    if tools.model is None:
        raise ModelError("embedding attack", "needs the attacked model's weights", "Give a local model")
    aim, model = aim_at(goal, tools, str(options["aim"])), tools.model

    @cache
    def begin() -> Perturbed:
        """Made where it is first wanted: a search that is replayed may never need the model."""
        from forethought.attacks.searches.weights.embedding import Perturbed

        return Perturbed(model, _slot(goal, options, model.tokenizer), aim, float(options["step"]))

    def block(end: int) -> dict[str, Any]:
        perturbed = begin()
        losses = perturbed.reach(end)
        thinks = options["aim"] != "answer"
        said = perturbed.say(thinks, int(options["think_tokens"]), int(options["answer_tokens"]))
        return {
            "losses": [round(loss, 6) for loss in losses],
            "loss": round(perturbed.loss(), 6),
            "moved": round(float(perturbed.moved.norm(dim=-1).mean()), 6),
            **said.model_dump(),
        }

    iterations, every = int(options["iterations"]), int(options["every"])
    for done in range(0, iterations, every):
        end = min(done + every, iterations)
        (computed,) = yield [Compute(name=f"steps/{end}", work=partial(block, end), forwards=end - done + 1)]
        if computed.made is None:
            continue  # the next block takes these steps along
        grade = Grade(request=goal.request, answer=computed.made["answer"], reasoning=computed.made["reasoning"])
        (graded,) = yield [grade]
        if graded.broken:
            return


def _slot(goal: Goal, options: Options, tokenizer: Tokenizer) -> Slot:
    """Where the prompt is moved: at tokens behind the request, or at the request itself."""
    messages = goal.request.messages
    if options["place"] == "suffix":
        return find_slot(tokenizer, messages, " !" * int(options["tokens"]))
    empty = Message(role="user", content="")
    return find_slot(tokenizer, (*messages[:-1], empty), goal.request.text.strip())


METHODS = described("embedding", embedding=search)
