"""Prompts read once however many share them: for decoding side by side, and for how likely a text is after each.

First the keys and values of sequences that are decoded side by side, each in a slot of one buffer.

All sequences end at the same place and begin where their length puts them. A token is written in place,
where a cache that grows by concatenation copies everything at every token; a sequence that ends gives its
slot to the last one, and a new one is copied into the next.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, CacheLayerMixin

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
        window.slots, window.places = slots, high + max(_ROOM, high // 4)
        for number, layer in enumerate(self._layers):
            if layer.is_initialized:
                layer.hold(*layer.held(), high)
            elif example is not None:
                layer.hold(*example[number], high)
        self._starts = [start + high - window.high for start in self._starts]
        window.low, window.high = high - self.span, high


# Prompts that begin alike are read once: a tree of shared beginnings, filled level by level.
#
# Every chat shares its template's head, the attacks of one template share its text, and variants of one request share
# all but their end. Rows are sorted by their tokens; where neighbours share at least `MIN_SHARED` tokens more than what
# is shared already, these become a node whose keys and values are computed once and copied into each row.

MIN_SHARED = 16
"""Fewest tokens worth a node of their own: below, the extra pass costs more than it saves."""
PASS_TOKENS = 8192
"""Most tokens in one pass, padding and what came before included: bounds the memory that activations take."""
_OVERHEAD = {"cpu": 16, "cuda": 2048}
"""Measured on a CPU with a 135M model: a pass over one token takes as long as 16 to 18 more in a large one."""

Past = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of every layer, each of shape (heads, tokens, size of a head)."""


@dataclass
class Node:
    """A run of tokens that follows its parent's, shared by one row or more."""

    tokens: list[int]
    parent: Node | None
    start: int
    """Number of tokens before it."""
    rows: list[int] = field(default_factory=list)
    """Rows that end here, by their place."""
    past: Past = field(default_factory=list)
    """Its own tokens' keys and values, of the first layers or of all, once they have read it."""
    hidden: torch.Tensor | None = None
    """What one of these layers gave for its tokens, where others are to go on from there; (tokens, hidden size)."""
    row: int = 0
    """A row that begins with it."""

    def path(self) -> list[Node]:
        """From the root to here."""
        return [*(self.parent.path() if self.parent is not None else []), self]


def share(
    rows: Sequence[Sequence[int]], caps: Sequence[int] | None = None, known: Node | None = None
) -> list[list[Node]]:
    """The tree of shared beginnings, level by level. A parent stands in an earlier level than its children.

    `caps`: how many of a row's first tokens may be shared; None is all. `known`: a node that is filled already, and in
    no level, for the rows that begin with it. Each row ends in exactly one node.
    """
    levels: list[list[Node]] = []
    limits = [len(row) for row in rows] if caps is None else list(caps)
    order = sorted(range(len(rows)), key=lambda place: (list(rows[place]), place))
    # Grown by hand, not by recursion: a tree of prompts may be deeper than Python's stack is kind to.
    head = known.tokens if known is not None else []
    begun = [place for place in order if 0 < len(head) <= limits[place] and list(rows[place][: len(head)]) == head]
    others = [place for place in order if place not in set(begun)]
    open_groups: list[tuple[list[int], Node | None, int, int]] = [(others, None, 0, 0), (begun, known, len(head), 0)]
    while open_groups:
        places, parent, depth, level = open_groups.pop()
        while len(levels) <= level:
            levels.append([])
        for group in _groups(rows, limits, places, depth):
            single = len(group) == 1
            end = len(rows[group[0]]) if single else _common(rows, limits, group)
            node = Node(list(rows[group[0]][depth:end]), parent, depth, row=group[0])
            levels[level].append(node)
            if single:
                node.rows = group
            else:
                open_groups.append((group, node, end, level + 1))
    return levels


def _groups(
    rows: Sequence[Sequence[int]], limits: Sequence[int], places: Sequence[int], depth: int
) -> Iterator[list[int]]:
    """Runs of sorted rows whose neighbours share enough beyond `depth`."""
    group: list[int] = []
    for place in places:
        if group and _common(rows, limits, [group[-1], place]) < depth + MIN_SHARED:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def _common(rows: Sequence[Sequence[int]], limits: Sequence[int], places: Sequence[int]) -> int:
    """Number of first tokens that sorted rows share: those of the first and the last."""
    most = min(limits[place] for place in places)
    first, last = rows[places[0]], rows[places[-1]]
    for at in range(most):
        if first[at] != last[at]:
            return at
    return most


@torch.inference_mode()
def read(model: Any, levels: list[list[Node]]) -> None:
    """Fills every node of a tree with its keys and values."""
    for level in levels:
        for nodes in passes([node for node in level if node.tokens], overhead_of(model)):
            inputs = batch_of(nodes, model.device)
            decoder_of(model, nodes)(**inputs)
            fill(nodes, inputs["past_key_values"])


def fill(nodes: Sequence[Node], cache: Cache, top: int | None = None, hidden: torch.Tensor | None = None) -> None:
    """Takes over what a pass over nodes left behind, of the layers up to `top`; `hidden` is for the nodes' own."""
    start = max(node.start for node in nodes)
    for place, node in enumerate(nodes):
        own = slice(start, start + len(node.tokens))
        node.past = node.past + [
            (layer.keys[place, :, own].clone(), layer.values[place, :, own].clone())
            for layer in cache.layers[len(node.past) : top]
        ]
        node.hidden = None if hidden is None else hidden[place, : len(node.tokens)]


def decoder_of(model: Any, nodes: Sequence[Node]) -> Any:
    """What one pass over nodes is run with: a model's decoder, which goes on from the layers that have read them."""
    decoder, n_read = model.get_decoder(), len(nodes[0].past)
    if not n_read:
        return decoder
    hidden = torch.nn.utils.rnn.pad_sequence([node.hidden for node in nodes if node.hidden is not None], True)
    rest = copy.copy(decoder)
    layers = torch.nn.ModuleList([*[_Given(hidden)] * n_read, *decoder.layers[n_read:]])
    rest._modules = {**decoder._modules, "layers": layers}
    return rest


class _Given(torch.nn.Module):
    """Stands in the place of layers that have read their tokens already, and gives what they gave."""

    def __init__(self, hidden: torch.Tensor) -> None:
        super().__init__()
        self._hidden = hidden

    def forward(self, *_inputs: Any, **_more: Any) -> torch.Tensor:
        return self._hidden


def passes(nodes: Sequence[Node], overhead: int) -> Iterator[list[Node]]:
    """Nodes of like length side by side that as many layers have read: the division that costs least, padding and
    passes counted in tokens.

    `overhead`: what a pass costs however little it reads.
    """
    ordered = sorted(nodes, key=lambda node: (len(node.past), len(node.tokens), node.start))
    best, first = [0] * (len(ordered) + 1), [0] * (len(ordered) + 1)
    for end in range(1, len(ordered) + 1):
        longest = len(ordered[end - 1].tokens)
        before = 0
        best[end] = -1
        for start in reversed(range(end)):
            before = max(before, ordered[start].start)
            if start < end - 1 and (
                (end - start) * (before + longest) > PASS_TOKENS
                or len(ordered[start].past) < len(ordered[end - 1].past)
            ):
                break
            cost = best[start] + overhead + (end - start) * longest
            if best[end] < 0 or cost < best[end]:
                best[end], first[end] = cost, start
    end = len(ordered)
    while end:
        yield ordered[first[end] : end]
        end = first[end]


def overhead_of(model: Any) -> int:
    """What a pass costs however little it reads, in tokens: the weights are read once, kernels are started."""
    return _OVERHEAD.get(torch.device(model.device).type, _OVERHEAD["cpu"])


def batch_of(nodes: Sequence[Node], device: Any) -> dict[str, Any]:
    """A model's inputs for one pass over nodes side by side, with what came before each in the cache.

    That is padded on the left up to the longest, the nodes' own tokens on the right.
    """
    longest = max(len(node.tokens) for node in nodes)
    before = max(node.start for node in nodes)
    ids = torch.zeros(len(nodes), longest, dtype=torch.long)
    mask = torch.zeros(len(nodes), before + longest, dtype=torch.long)
    for place, node in enumerate(nodes):
        ids[place, : len(node.tokens)] = torch.tensor(node.tokens)
        mask[place, before - node.start : before + len(node.tokens)] = 1
    starts = torch.tensor([[node.start] for node in nodes])
    cache = DynamicCache()
    if before:
        paths = [node.parent.path() if node.parent is not None else [] for node in nodes]
        held = [node.past for path in paths for node in path if node.tokens]
        for layer in range(min(len(past) for past in held)):
            key, value = held[0][layer]
            keys = key.new_zeros(len(nodes), key.shape[0], before, key.shape[2])
            values = value.new_zeros(len(nodes), value.shape[0], before, value.shape[2])
            for place, path in enumerate(paths):
                copy_path(path, layer, keys[place], values[place], before)
            cache.update(keys, values, layer)
    positions = starts + torch.arange(longest)[None]
    return {
        "input_ids": ids.to(device),
        "attention_mask": mask.to(device),
        "position_ids": positions.to(device),
        "past_key_values": cache,
    }


def copy_path(path: Sequence[Node], layer: int, keys: torch.Tensor, values: torch.Tensor, end: int) -> None:
    """Writes one layer's keys and values of a path so that they end at `end`; shapes (heads, tokens, size)."""
    for node in reversed(path):
        if node.tokens:
            start = end - len(node.tokens)
            keys[:, start:end], values[:, start:end] = node.past[layer]
            end = start


# How likely a model is to say a text: what random search, AutoDAN and judges of the first token ask for.
#
# Prompts that begin alike are read once, rows run side by side sorted by length, and logits are computed for the
# text's own positions alone.

Ids = tuple[int, ...]
_WAVE = 256
"""Rows whose shared beginnings are held at once."""
_LOGITS = 1024
"""Most positions in one pass that logits are computed for: a vocabulary each."""


def log_probs(weights: Any, questions: Sequence[tuple[Ids, Ids]]) -> list[float]:
    """Of (prompt, target) pairs, the natural log-probability of the target right after the prompt, summed over its
    tokens. Equal questions are computed once."""
    # Sorted by tokens, so that a wave holds what begins alike.
    todo = sorted(set(questions))
    known: dict[tuple[Ids, Ids], float] = {}
    for start in range(0, len(todo), _WAVE):
        wave = todo[start : start + _WAVE]
        known |= dict(zip(wave, _wave(weights, wave), strict=True))
    return [known[one] for one in questions]


@torch.inference_mode()
def _wave(weights: Any, wave: Sequence[tuple[Ids, Ids]]) -> list[float]:
    """Log-probabilities of (prompt, target) pairs."""
    rows = [[*prompt, *target[:-1]] for prompt, target in wave]
    # The last token of a prompt predicts the first of the target: its logits are needed for every row.
    levels = share(rows, [len(prompt) - 1 for prompt, _ in wave])
    ends = [node for level in levels for node in level if node.rows]
    read(weights, [[node for node in level if not node.rows] for level in levels])
    found = [0.0] * len(wave)
    for nodes in passes(ends, overhead_of(weights)):
        for node, summed in zip(nodes, _summed(weights, nodes, [wave[n.rows[0]][1] for n in nodes]), strict=True):
            found[node.rows[0]] = summed
    return found


def _summed(weights: Any, nodes: Sequence[Node], targets: Sequence[Ids]) -> list[float]:
    """Of nodes side by side that end with what predicts their targets."""
    firsts = [len(node.tokens) - len(target) for node, target in zip(nodes, targets, strict=True)]
    low, high = min(firsts), max(len(node.tokens) for node in nodes)
    if len(nodes) > 1 and len(nodes) * (high - low) > _LOGITS:
        half = len(nodes) // 2
        return [*_summed(weights, nodes[:half], targets[:half]), *_summed(weights, nodes[half:], targets[half:])]
    kept = torch.arange(low, high, device=weights.device)
    logits = weights(**batch_of(nodes, weights.device), logits_to_keep=kept).logits  # B kept V
    summed = []
    for place, (first, target) in enumerate(zip(firsts, targets, strict=True)):
        own = logits[place, first - low : first - low + len(target)].float().log_softmax(-1)
        summed.append(float(own[torch.arange(len(target)), torch.tensor(target)].double().sum()))
    return summed
