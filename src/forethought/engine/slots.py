"""The keys and values of sequences that are decoded side by side, each in a slot of one buffer.

All sequences end at the same place and begin where their length puts them. A token is written in place,
where a cache that grows by concatenation copies everything at every token; a sequence that ends gives its
slot to the last one, and a new one is copied into the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from forethought.engine.prefix import Node, Past, copy_path

_ROOM = 64
"""Tokens by which the buffer grows beyond what is needed."""


class _Window:
    """What all layers share: slots in use, the places they take, and the buffer's size."""

    def __init__(self) -> None:
        self.count, self.low, self.high = 0, 0, 0
        self.slots, self.places = 0, 0


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values, of shape (slots, heads, places, size of a head)."""

    is_sliding = False

    def __init__(self, window: _Window) -> None:
        super().__init__()
        self.is_initialized: bool = False
        self._window = window

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.hold(key_states, value_states, 0)

    def held(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Its buffers."""
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def hold(self, keys: torch.Tensor, values: torch.Tensor, high: int) -> None:
        """New buffers of the window's size, what is in use moved over so that it ends at `high`.

        `keys`, `values`: an example of each, (..., heads, tokens, size of a head).
        """
        window, made = self._window, []
        for example, old in zip((keys, values), self.held() if self.is_initialized else (None, None), strict=True):
            new = example.new_zeros(window.slots, example.shape[-3], window.places, example.shape[-1])
            if old is not None:
                span = window.high - window.low
                new[: window.count, :, high - span : high] = old[: window.count, :, window.low : window.high]
            made.append(new)
        self.keys, self.values = made
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def move(self, high: int) -> None:
        """Moves what is in use inside the buffers so that it ends at `high`."""
        window = self._window
        for held in self.held():
            kept = held[: window.count, :, window.low : window.high].clone()
            held[: window.count, :, high - kept.shape[2] : high] = kept

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        window = self._window
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = window.high + key_states.shape[2]
        keys, values = self.held()
        keys[: window.count, :, window.high : end] = key_states
        values[: window.count, :, window.high : end] = value_states
        return keys[: window.count, :, window.low : end], values[: window.count, :, window.low : end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        return self._window.high - self._window.low

    def get_max_length(self) -> int:
        return -1


class Slots:
    """The cache of sequences side by side. Slots in use are the first `count`."""

    def __init__(self, n_layers: int, device: Any) -> None:
        self._window = _Window()
        self._layers = [_Layer(self._window) for _ in range(n_layers)]
        self.cache = Cache(layers=list(self._layers))
        self._device = device
        self._starts: list[int] = []

    @property
    def span(self) -> int:
        """Places that every sequence in use attends over, its own or not."""
        return self._window.high - self._window.low

    @torch.inference_mode()
    def add(self, paths: Sequence[Sequence[Node]]) -> None:
        """Takes sequences in, each given as its nodes from first to last, already filled."""
        window = self._window
        lengths = [sum(len(node.tokens) for node in path) for path in paths]
        example = next((node.past for path in paths for node in path if node.tokens), None)
        self._make_room(len(paths), max(lengths), example)
        for slot, path in enumerate(paths, start=window.count):
            for number, layer in enumerate(self._layers):
                if layer.is_initialized:
                    keys, values = layer.held()
                    copy_path(path, number, keys[slot], values[slot], window.high)
        self._starts += [window.high - length for length in lengths]
        window.count += len(paths)
        window.low = min(self._starts)

    @torch.inference_mode()
    def drop(self, slot: int) -> None:
        """Frees a slot; the last sequence moves into it."""
        window = self._window
        last = window.count - 1
        if slot != last:
            start = self._starts[last]
            for layer in self._layers:
                for held in layer.held():
                    held[slot, :, start : window.high] = held[last, :, start : window.high]
            self._starts[slot] = start
        self._starts.pop()
        window.count = last
        window.low = min(self._starts, default=window.high)

    def next_token(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mask (slots in use, span + 1) and positions (slots in use, 1) of one more token, with room for it."""
        self._make_room(0, 0, None)
        window = self._window
        starts = torch.tensor(self._starts, device=self._device)
        places = torch.arange(window.low, window.high + 1, device=self._device)
        return (places[None] >= starts[:, None]).long(), (window.high - starts)[:, None]

    def wrote(self) -> None:
        """One token was written to every slot in use."""
        self._window.high += 1

    def _make_room(self, more: int, length: int, example: Past | None) -> None:
        """Room for one more token, and for `more` sequences of up to `length` that end where the others do."""
        window = self._window
        slots, high = window.count + more, max(length, self.span)
        if slots <= window.slots and high <= window.high < window.places:
            return
        if slots <= window.slots and high + _ROOM // 2 <= window.places:
            for layer in self._layers:
                if layer.is_initialized:
                    layer.move(high)
        else:
            window.slots, window.places = max(slots, window.count), high + max(_ROOM, high // 4)
            for number, layer in enumerate(self._layers):
                if layer.is_initialized:
                    layer.hold(*layer.held(), high)
                elif example is not None:
                    layer.hold(*example[number], high)
        self._starts = [start + high - window.high for start in self._starts]
        window.low, window.high = high - self.span, high
