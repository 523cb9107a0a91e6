"""How likely a target string is after a suffix, for many suffixes at once, and its gradient by the suffix's tokens.

What makes it fast: the fixed head of the prompt goes through the model once; candidates differ from the current suffix
in one token, so that sorted by the place of it each batch shares all that stands before; and logits are computed where
the target is predicted and nowhere else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

KeyValues = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values by layer, each of shape (1, heads, tokens, head size)."""
_CPU_ROWS = 32
"""Sequences a batch on a processor: more gain nothing there, and share less of the suffix."""
_GPU_ROWS = 128


class _Shared(DynamicLayer):  # type: ignore[misc]
    """Cached keys and values of one sequence that all rows of a batch begin with; what a batch adds is not kept."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.device = keys, values, keys.device
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = key_states.shape[0]
        assert self.keys is not None
        assert self.values is not None
        return (
            torch.cat([self.keys.expand(rows, -1, -1, -1), key_states], dim=-2),
            torch.cat([self.values.expand(rows, -1, -1, -1), value_states], dim=-2),
        )


class TargetLoss:
    """Mean negative log-likelihood of a target string, in nats a token, as a function of the suffix before it."""

    def __init__(
        self,
        weights: Any,
        head: Sequence[int],
        tail: Sequence[int],
        target: Sequence[int],
        *,
        mellowmax: bool = False,
        prefix_cache: bool = True,
        context: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        """`weights`: a transformers causal language model; `context` is entered for each of its passes.

        The model reads head, suffix, tail and target. `mellowmax`: that of the target's negated logits takes the place
        of the likelihood (nanoGCG's option). `prefix_cache` False computes each sequence whole.
        """
        self.weights = weights
        self.target = torch.tensor(target, device=weights.device)  # T
        self._head = torch.tensor(head, device=weights.device, dtype=torch.long)
        self._tail = torch.tensor([*tail, *target[:-1]], device=weights.device, dtype=torch.long)
        self._mellowmax = mellowmax
        self._prefix_cache = prefix_cache
        self._context = context
        self._rows = _GPU_ROWS if weights.device.type == "cuda" else _CPU_ROWS
        self._head_cache: KeyValues | None = None

    def losses(self, suffixes: torch.Tensor, current: torch.Tensor | None = None) -> torch.Tensor:
        """Loss of each suffix. Shapes (B, n) and (B,).

        `current` (n): the suffix that they are made from; what a batch has in common with it is computed once.
        """
        found = torch.empty(len(suffixes), device=self.weights.device)
        shared = suffixes[0] if current is None else current
        with torch.inference_mode(), self._passes():
            cache = self._extended(shared[:-1]) if self._prefix_cache else []
            start = _first_change(suffixes, shared)
            order = start.argsort(stable=True)
            place = 0
            while place < len(order):
                batch = order[place : place + self._rows]
                try:
                    # Copied out of inference mode's tensors by assignment.
                    found[batch] = self._batch(suffixes[batch], cache, int(start[batch[0]]))
                except torch.OutOfMemoryError:
                    if self._rows == 1:
                        raise
                    self._rows //= 2
                    continue
                place += len(batch)
        return found

    def gradient(self, suffix: torch.Tensor) -> torch.Tensor:
        """Gradient of the loss by the one-hot vectors of a suffix (n). Shape (n, V), in float32.

        It is the gradient by the embeddings times the embedding matrix. For a model that scales its embeddings it is
        right up to that factor, which orders tokens alike.
        """
        embed = self.weights.get_input_embeddings()
        with self._passes(), torch.enable_grad():
            known = self._tail if self._prefix_cache else torch.cat([self._head, self._tail])
            fixed = embed(known).detach()
            own = embed(suffix).detach().requires_grad_()
            if self._prefix_cache:
                logits = self._logits({"inputs_embeds": torch.cat([own, fixed])[None]}, self._head_kv())
            else:
                cut = len(self._head)
                logits = self._logits({"inputs_embeds": torch.cat([fixed[:cut], own, fixed[cut:]])[None]}, [])
            (by_embedding,) = torch.autograd.grad(self._loss(logits).sum(), own)  # n H
        with torch.no_grad():
            found: torch.Tensor = by_embedding.float() @ embed.weight.float().T
            return found

    def predicted(self, suffix: torch.Tensor) -> bool:
        """Whether greedy decoding writes the target string after this suffix (n)."""
        with torch.inference_mode(), self._passes():
            ids = torch.cat([suffix, self._tail])[None]
            cache = self._head_kv() if self._prefix_cache else []
            logits = self._logits({"input_ids": ids if cache else torch.cat([self._head[None], ids], dim=1)}, cache)
            return bool((logits[0].argmax(-1) == self.target).all())

    def _batch(self, suffixes: torch.Tensor, cache: KeyValues, start: int) -> torch.Tensor:
        rows = len(suffixes)
        if not self._prefix_cache:
            ids = torch.cat([self._head.expand(rows, -1), suffixes, self._tail.expand(rows, -1)], dim=1)
            return self._loss(self._logits({"input_ids": ids}, []))
        cut = len(self._head) + start
        known = [(keys[:, :, :cut], values[:, :, :cut]) for keys, values in cache]
        ids = torch.cat([suffixes[:, start:], self._tail.expand(rows, -1)], dim=1)
        return self._loss(self._logits({"input_ids": ids}, known))

    def _logits(self, given: dict[str, torch.Tensor], known: KeyValues) -> torch.Tensor:
        """Logits that predict the target. Shape (B, T, V)."""
        cache = Cache(layers=[_Shared(keys, values) for keys, values in known]) if known else None
        kept = len(self.target)
        made = self.weights(**given, past_key_values=cache, use_cache=cache is not None, logits_to_keep=kept)
        logits: torch.Tensor = made.logits[:, -kept:].float()
        return logits

    def _loss(self, logits: torch.Tensor) -> torch.Tensor:
        """Shape (B,)."""
        rows, kept, _ = logits.shape
        if self._mellowmax:
            wanted = logits.gather(-1, self.target.expand(rows, -1)[..., None])[..., 0]  # B T
            return torch.logsumexp(-wanted, dim=-1) - torch.log(torch.tensor(float(kept)))
        labels = self.target.repeat(rows)
        return cross_entropy(logits.reshape(rows * kept, -1), labels, reduction="none").view(rows, kept).mean(-1)

    def _head_kv(self) -> KeyValues:
        if self._head_cache is None:
            # Not in inference mode: the gradient's pass reads it too.
            with torch.inference_mode(False), torch.no_grad():
                self._head_cache = self._read(self._head, [])
        return self._head_cache

    def _extended(self, suffix: torch.Tensor) -> KeyValues:
        return self._read(suffix, self._head_kv()) if len(suffix) else self._head_kv()

    def _read(self, ids: torch.Tensor, known: KeyValues) -> KeyValues:
        """Keys and values of what is known and some tokens more."""
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(known):
            cache.update(keys, values, layer)
        self.weights(input_ids=ids[None], past_key_values=cache, use_cache=True, logits_to_keep=1)
        return [(layer.keys, layer.values) for layer in cache.layers]

    @contextlib.contextmanager
    def _passes(self) -> Iterator[None]:
        """The model's passes take place in here."""
        # Of the last of many positions torch would make a product for each row, with a copy of the vocabulary's matrix.
        output = self.weights.get_output_embeddings()
        hook = output.register_forward_pre_hook(lambda module, args: (args[0].contiguous(), *args[1:]))
        try:
            with self._context():
                yield
        finally:
            hook.remove()


def _first_change(suffixes: torch.Tensor, current: torch.Tensor) -> torch.Tensor:
    """Place of the first token of each suffix that is another than in `current`. Shape (B,), the last where none is."""
    differs = suffixes != current  # B n
    last = torch.full((len(suffixes),), suffixes.shape[1] - 1, device=suffixes.device)
    return torch.where(differs.any(-1), differs.int().argmax(-1), last)
