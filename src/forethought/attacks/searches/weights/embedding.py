"""A perturbed prompt on the model's weights: its loss, its steps down the gradient, and what the model says to it.

Nothing here touches the weights: gradients are taken of the perturbation alone and never stored on a parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from forethought.attacks.searches.base import Aim
from forethought.attacks.searches.suffix import Slot, encode_text
from forethought.chat import end_tokens
from forethought.models.local import LocalModel
from forethought.reasoning import markers, parse
from forethought.records import Record


class Said(Record):
    """What a model said to a perturbed prompt."""

    answer: str
    reasoning: str = ""
    """Its thought as text; empty for a model that doesn't think, or where the attack skipped it."""
    decision: str = ""
    """The verdict read from that text; empty where there is none."""


class Perturbed:
    """A prompt whose embeddings at one place are moved; deterministic, so that it can be made again from its start."""

    def __init__(self, local: LocalModel, slot: Slot, aim: Aim, step: float) -> None:
        """The embeddings of `slot.first` are moved, `step` in each coordinate at a time, to make the aim likely."""
        self._local = local
        self._weights: Any = local.model
        self._step = step
        tokenizer = local.tokenizer
        self.target = torch.tensor(encode_text(tokenizer, aim.target_string), device=self._weights.device)  # T
        self._head = self._embedded(slot.head)
        self._first = self._embedded(slot.first)
        self._tail = self._embedded(slot.tail)
        self._opened = self._embedded(encode_text(tokenizer, aim.prefill))
        self._goal = self._embedded(self.target.tolist()[:-1])
        # In float32 whatever the model's type: steps of 0.001 would be lost in bfloat16.
        self.moved = torch.zeros_like(self._first, dtype=torch.float32)  # n H
        self.at = 0
        """Steps taken."""

    def reach(self, steps: int) -> list[float]:
        """Goes on to so many steps, from the start where it is past them. Loss in nats a token before each step."""
        if steps < self.at:
            self.moved.zero_()
            self.at = 0
        losses = []
        while self.at < steps:
            moved = self.moved.clone().requires_grad_()
            with torch.enable_grad():
                loss = self._loss(moved)
                (gradient,) = torch.autograd.grad(loss, moved)
            self.moved -= self._step * gradient.sign()
            self.at += 1
            losses.append(loss.item())
        return losses

    @torch.no_grad()
    def loss(self) -> float:
        """Mean negative log-likelihood of the aim's target, in nats a token."""
        return float(self._loss(self.moved))

    def say(self, forced_thought: bool, think_tokens: int, answer_tokens: int) -> Said:
        """What the model says, greedily. `forced_thought`: its turn begins with the opening of its thought.

        The thought is the model's own, and its verdict is read from its text: no threshold is held against it. An
        answer after `comply` comes from the base where the model is set so, on the perturbed prompt, as in use.
        """
        settings = self._local.thinking
        if settings is None:
            return Said(answer=self._text(self._write(self._weights, "", answer_tokens)))
        opening, closing = markers(settings.format)
        begun = f"{opening}\n" if forced_thought else ""
        ids = self._write(self._weights, begun, think_tokens + answer_tokens, closing if begun else "", answer_tokens)
        parsed = parse(begun + self._text(ids), settings.policy)
        decision = parsed.reasoning.verdict if parsed.reasoning is not None else ""
        answer = parsed.answer
        if decision == "comply" and settings.answer_with == "base":
            with self._local.adapter_off():
                answer = self._text(self._write(self._local.base_weights, "", answer_tokens))
        return Said(answer=answer, reasoning=parsed.reasoning_text, decision=decision)

    def _loss(self, moved: torch.Tensor) -> torch.Tensor:
        whole = torch.cat([self._prompt(moved), self._opened, self._goal])[None]  # 1 L H
        logits = self._weights(inputs_embeds=whole, use_cache=False, logits_to_keep=len(self.target)).logits
        return cross_entropy(logits[0, -len(self.target) :].float(), self.target)

    def _prompt(self, moved: torch.Tensor) -> torch.Tensor:
        own = (self._first.float() + moved).to(self._first.dtype)
        return torch.cat([self._head, own, self._tail])

    @torch.inference_mode()
    def _write(self, weights: Any, begun: str, most: int, closing: str = "", after: int = 0) -> list[int]:
        """Greedy token ids after prompt and `begun`; at most `most`, and `after` more once `closing` was written."""
        ends = end_tokens(self._local.tokenizer)
        prompt = torch.cat([self._prompt(self.moved), self._embedded(encode_text(self._local.tokenizer, begun))])
        given: dict[str, torch.Tensor] = {"inputs_embeds": prompt[None]}
        cache, made = DynamicCache(), list[int]()
        while len(made) < most:
            logits = weights(**given, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            token = int(logits[0, -1].argmax())
            if token in ends:
                break
            made.append(token)
            if closing and closing in self._text(made[-8:]):
                closing, most = "", min(most, len(made) + after)
            given = {"input_ids": torch.tensor([[token]], device=self._weights.device)}
        return made

    @torch.no_grad()
    def _embedded(self, ids: Sequence[int]) -> torch.Tensor:
        tokens = torch.tensor(list(ids), device=self._weights.device, dtype=torch.long)
        found: torch.Tensor = self._weights.get_input_embeddings()(tokens)
        return found

    def _text(self, ids: list[int]) -> str:
        return str(self._local.tokenizer.decode(ids, skip_special_tokens=True))
