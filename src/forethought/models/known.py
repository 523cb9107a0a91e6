"""What was read of prompts before: how they begin, and prompts that were looked at and are to be answered.

A defence reads a prompt's hidden states, and then the base answers it. Layers that both have in common read it once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from forethought.models.prefix import PASS_TOKENS, Node, Past, read

KEPT_TOKENS = PASS_TOKENS // 2
"""Most tokens of prompts that are kept until they are answered."""


class _Kept(NamedTuple):
    """A prompt as the first layers have read it, from some token on."""

    start: int
    past: Past
    hidden: torch.Tensor
    """What the last of these layers gave, (tokens, hidden size)."""
    by_base: bool


@dataclass
class Known:
    """The tokens that prompts commonly begin with, and the last prompts that were looked at."""

    tokens: tuple[int, ...] = ()
    """What prompts commonly begin with, read once by each of the weights."""
    alike: int = 0
    """First layers that are the same in the base and in the weights that think."""
    answers_by_base: bool | None = None
    """Who answers what is kept; None keeps no prompt."""
    _read: dict[bool, Node] = field(default_factory=dict)
    _kept: dict[tuple[int, ...], _Kept] = field(default_factory=dict)

    def node(self, weights: Any, by_base: bool) -> Node | None:
        """The tokens as the weights read them, which are now the base's or not; None without any."""
        if self.tokens and by_base not in self._read:
            node = Node(list(self.tokens), None, 0)
            read(weights, [[node]])
            self._read[by_base] = node
        return self._read.get(by_base)

    def depth(self, top: int, by_base: bool) -> int:
        """Up to which layer a reading up to `top` is kept."""
        if self.answers_by_base is None:
            return 0
        return top if by_base is self.answers_by_base else min(top, self.alike)

    def keep(self, prompt: Sequence[int], end: Node, depth: int, by_base: bool) -> None:
        """Keeps a prompt whose nodes hold what the layer `depth` gave; the oldest ones make room."""
        path = [node for node in end.path() if node is not self._read.get(by_base)]
        hidden = [node.hidden for node in path if node.hidden is not None]
        if len(hidden) < len(path) or len(prompt) > KEPT_TOKENS:
            return
        pasts = zip(*[node.past[:depth] for node in path], strict=True)
        past = [(torch.cat([keys for keys, _ in one], 1), torch.cat([values for _, values in one], 1)) for one in pasts]
        self._kept.pop(tuple(prompt), None)
        self._kept[tuple(prompt)] = _Kept(path[0].start, past, torch.cat(hidden), by_base)
        while sum(len(ids) for ids in self._kept) > KEPT_TOKENS:
            del self._kept[next(iter(self._kept))]

    def resume(
        self, levels: list[list[Node]], prompts: Sequence[Sequence[int]], by_base: bool, below: int | None = None
    ) -> None:
        """Gives nodes what was kept of the prompts, where the weights may go on from it. `below`: the first layer whose
        states are asked for."""
        for node in [node for level in levels for node in level]:
            kept = self._kept.get(tuple(prompts[node.row]))
            if kept is None or node.start < kept.start or (below is not None and len(kept.past) >= below):
                continue
            if kept.by_base is by_base or len(kept.past) <= self.alike:
                own = slice(node.start - kept.start, node.start - kept.start + len(node.tokens))
                node.past = [(keys[:, own], values[:, own]) for keys, values in kept.past]
                node.hidden = kept.hidden[own]
