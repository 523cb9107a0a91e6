"""Tokens drawn at random, so that a row's draws are its own: the same whatever stands beside it in a batch.

A row takes one number from its own generator for each token that it is given, used or not. Its seed is that of its
prompt, its temperature and the caller's number, so that no two prompts are drawn alike.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

import torch


class Draws:
    """The random numbers of one row."""

    def __init__(self, temperature: float, seed: int, prompt: Sequence[int]) -> None:
        """`temperature` above 0 divides the logits: 1 samples as the model predicts, less is nearer to greedy."""
        self.temperature = temperature
        said = f"{seed}:{temperature!r}:{','.join(map(str, prompt))}"
        self._random = random.Random(hashlib.sha256(said.encode()).digest())

    def number(self) -> float:
        """The next one, uniform in [0, 1)."""
        return self._random.random()


def draws_for(temperature: float, seed: int, prompt: Sequence[int]) -> Draws | None:
    """A row's draws; None for a temperature of 0, which is greedy."""
    return Draws(temperature, seed, prompt) if temperature > 0 else None


def drawn(logits: torch.Tensor, draws: Sequence[Draws]) -> list[int]:
    """A token for each row by the inverse of its cumulative distribution. `logits` of shape (rows, vocabulary).

    In double precision: over a vocabulary, sums in single precision would move the borders between rare tokens.
    """
    temperatures = torch.tensor([one.temperature for one in draws], dtype=torch.float64, device=logits.device)
    cumulative = (logits.double() / temperatures[:, None]).softmax(-1).cumsum(-1)  # B V
    numbers = torch.tensor([one.number() for one in draws], dtype=torch.float64, device=logits.device)
    # To the right: the first token whose border lies above the number, so that none of probability 0 is drawn.
    found = torch.searchsorted(cumulative, (numbers * cumulative[:, -1])[:, None], right=True)
    return [int(token) for token in found[:, 0].clamp(max=logits.shape[-1] - 1).tolist()]
