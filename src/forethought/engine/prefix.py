"""Prompts that begin alike are read once: a tree of shared beginnings, filled level by level.

Every chat shares its template's head, the attacks of one template share its text, and variants of one request share
all but their end. Rows are sorted by their tokens; where neighbours share at least `MIN_SHARED` tokens more than what
is shared already, these become a node whose keys and values are computed once and copied into each row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

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
    """Its own tokens' keys and values, once it is filled."""

    def path(self) -> list[Node]:
        """From the root to here."""
        return [*(self.parent.path() if self.parent is not None else []), self]


def share(rows: Sequence[Sequence[int]], caps: Sequence[int] | None = None) -> list[list[Node]]:
    """The tree of shared beginnings, level by level. A parent stands in an earlier level than its children.

    `caps`: how many of a row's first tokens may be shared; None is all. Each row ends in exactly one node.
    """
    levels: list[list[Node]] = []
    limits = [len(row) for row in rows] if caps is None else list(caps)
    order = sorted(range(len(rows)), key=lambda place: (list(rows[place]), place))
    # Grown by hand, not by recursion: a tree of prompts may be deeper than Python's stack is kind to.
    open_groups: list[tuple[list[int], Node | None, int, int]] = [(order, None, 0, 0)]
    while open_groups:
        places, parent, depth, level = open_groups.pop()
        while len(levels) <= level:
            levels.append([])
        for group in _groups(rows, limits, places, depth):
            single = len(group) == 1
            end = len(rows[group[0]]) if single else _common(rows, limits, group)
            node = Node(list(rows[group[0]][depth:end]), parent, depth)
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
            batch = batch_of(nodes, model.device)
            model.get_decoder()(**batch.inputs)
            for place, node in enumerate(nodes):
                end = batch.before + len(node.tokens)
                node.past = [
                    (
                        layer.keys[place, :, batch.before : end].clone(),
                        layer.values[place, :, batch.before : end].clone(),
                    )
                    for layer in batch.cache.layers
                ]


def passes(nodes: Sequence[Node], overhead: int) -> Iterator[list[Node]]:
    """Nodes of like length side by side: the division that costs least, padding and passes counted in tokens.

    `overhead`: what a pass costs however little it reads.
    """
    ordered = sorted(nodes, key=lambda node: (len(node.tokens), node.start))
    best, first = [0] * (len(ordered) + 1), [0] * (len(ordered) + 1)
    for end in range(1, len(ordered) + 1):
        longest = len(ordered[end - 1].tokens)
        before = 0
        best[end] = -1
        for start in reversed(range(end)):
            before = max(before, ordered[start].start)
            if start < end - 1 and (end - start) * (before + longest) > PASS_TOKENS:
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


@dataclass
class Batch:
    """Nodes side by side: what came before padded on the left, their own tokens on the right."""

    inputs: dict[str, Any]
    """For a model's call."""
    cache: DynamicCache
    before: int
    """Tokens, padding included, that stand in the cache before the nodes' own."""


def batch_of(nodes: Sequence[Node], device: Any) -> Batch:
    """Inputs for one pass over nodes of one level, with what came before each in the cache."""
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
        example = next(path for path in paths if path)[0].past
        for layer, (key, value) in enumerate(example):
            keys = key.new_zeros(len(nodes), key.shape[0], before, key.shape[2])
            values = value.new_zeros(len(nodes), value.shape[0], before, value.shape[2])
            for place, path in enumerate(paths):
                copy_path(path, layer, keys[place], values[place], before)
            cache.update(keys, values, layer)
    positions = starts + torch.arange(longest)[None]
    inputs = {
        "input_ids": ids.to(device),
        "attention_mask": mask.to(device),
        "position_ids": positions.to(device),
        "past_key_values": cache,
    }
    return Batch(inputs, cache, before)


def copy_path(path: Sequence[Node], layer: int, keys: torch.Tensor, values: torch.Tensor, end: int) -> None:
    """Writes one layer's keys and values of a path so that they end at `end`; shapes (heads, tokens, size)."""
    for node in reversed(path):
        if node.tokens:
            start = end - len(node.tokens)
            keys[:, start:end], values[:, start:end] = node.past[layer]
            end = start
