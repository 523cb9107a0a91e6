"""Whole turns of a model that is being trained, drawn by our decoder, as a reward reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from forethought.chat import encode_completion, encode_prompt, end_token
from forethought.engine.continuous import Decoder, in_order
from forethought.engine.decode import Row
from forethought.engine.draws import draws_for
from forethought.reasoning import Format, markers
from forethought.records import Message
from forethought.train.rl.reward import Turn


@dataclass(frozen=True)
class Rollout:
    """One sampled turn."""

    prompt_ids: list[int]
    """The conversation and the thought's opening marker, which every turn begins with at inference, too."""
    completion_ids: list[int]
    """What was drawn, the end token included where there was one."""


def roll_out(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Sequence[Message]],
    seeds: Sequence[int],
    fmt: Format,
    temperature: float,
    max_new_tokens: int,
) -> list[Rollout]:
    """A turn for each conversation, in order; equal conversations need seeds of their own.

    Nothing is steered: verdict, markers and end are drawn like all else, so that each token is the policy's own and
    bears its gradient. The model decodes in evaluation mode and is given back as it was.
    """
    opening = encode_completion(tokenizer, opening_of(fmt), end=False)
    rows = []
    for place, (messages, seed) in enumerate(zip(conversations, seeds, strict=True)):
        prompt = encode_prompt(tokenizer, messages) + opening
        rows.append(Row(place, prompt, max_new_tokens, draws=draws_for(temperature, seed, prompt)))
    ends = {end_token(tokenizer)} | ({tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set())
    was_training = model.training
    model.eval()
    try:
        for _ in Decoder(model, tokenizer, frozenset(ends)).stream(iter(in_order(rows))):
            pass
    finally:
        model.train(was_training)
    return [Rollout(row.prompt, row.made) for row in rows]


def opening_of(fmt: Format) -> str:
    """What the model's turn begins with."""
    return markers(fmt)[0] + "\n"


def turn_of(tokenizer: Any, completion_ids: Sequence[int], fmt: Format) -> Turn:
    """A completion as a whole turn. A thought that was never closed is as long as the completion."""
    text = str(tokenizer.decode(completion_ids, skip_special_tokens=True))
    thought, closed, _ = text.partition(markers(fmt)[1])
    tokens = len(encode_completion(tokenizer, thought, end=False)) if closed else len(completion_ids)
    return Turn(text=opening_of(fmt) + text, thought_tokens=tokens)


def sample_seed(seed: int, step: int, place: int) -> int:
    """A seed for one turn of one step: a run that is resumed at a step draws what it would have drawn."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{step}:{place}".encode()).digest()[:6], "big")
