"""How likely a model is to say each of several short texts, in one pass a prompt.

The texts stand behind the prompt as a tree, beginnings that they share once. A mask lets each token see the prompt
and its own past alone; its position is the one that it would have in its text. A dozen openings of a refusal share
their first words, so that they cost little more than the longest. It takes a decoder with rotary positions and
full attention.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from forethought.models.prefix import PASS_TOKENS, Node, batch_of, overhead_of, passes, read, share

Ids = tuple[int, ...]
FEWEST = 3
"""Texts of one prompt from which a tree is worth its mask."""


@dataclass
class Tree:
    """Texts by the tokens that they share."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    """Place of what each token follows; -1 for the prompt."""
    depths: list[int] = field(default_factory=list)
    ends: list[list[int]] = field(default_factory=list)
    """By text: the places of its tokens."""

    @classmethod
    def of(cls, texts: Sequence[Ids]) -> Tree:
        """The tree of some texts, each of one token or more."""
        tree = cls()
        known: dict[tuple[int, int], int] = {}
        for text in texts:
            parent, path = -1, []
            for depth, token in enumerate(text):
                place = known.get((parent, token))
                if place is None:
                    place = known[parent, token] = len(tree.tokens)
                    tree.tokens.append(token)
                    tree.parents.append(parent)
                    tree.depths.append(depth)
                path.append(place)
                parent = place
            tree.ends.append(path)
        return tree

    @property
    def forks(self) -> list[int]:
        """What tokens follow: -1, the end of the prompt, and the places of all that are not the last of their text."""
        return sorted(set(self.parents))

    def sees(self) -> torch.Tensor:
        """(tokens, tokens), true where the row's token sees the column's: itself and what it follows."""
        seen = torch.zeros(len(self.tokens), len(self.tokens), dtype=torch.bool)
        for place, parent in enumerate(self.parents):
            if parent >= 0:
                seen[place] = seen[parent]
            seen[place, place] = True
        return seen


def fits(config: Any) -> bool:
    """Whether a model takes a mask of ours: rotary positions, and attention to all that came before in every layer."""
    windowed = "sliding_attention" if getattr(config, "sliding_window", None) else "full_attention"
    kinds = set(getattr(config, "layer_types", None) or [windowed])
    rotary = getattr(config, "rope_parameters", None) is not None or getattr(config, "rope_theta", None) is not None
    plain = getattr(config, "_attn_implementation", "") in ("sdpa", "eager")
    return rotary and plain and kinds == {"full_attention"}


@torch.inference_mode()
def tree_log_probs(model: Any, prompts: Sequence[Ids], texts: Sequence[Ids]) -> list[list[float]]:
    """By prompt, the natural log-probability of each text right after it, summed over the text's tokens."""
    tree = Tree.of(texts)
    found: list[list[float]] = [[] for _ in prompts]
    for places in _passes([len(prompt) + len(tree.tokens) for prompt in prompts]):
        for place, sums in zip(places, _pass(model, [prompts[place] for place in places], tree), strict=True):
            found[place] = sums
    return found


def _passes(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of rows of like length, as many as fit a pass."""
    group: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if group and (len(group) + 1) * lengths[place] > PASS_TOKENS:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def _pass(model: Any, prompts: Sequence[Ids], tree: Tree) -> list[list[float]]:
    longest, n = max(map(len, prompts)), len(tree.tokens)
    width = longest + n
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    positions = torch.zeros(len(prompts), width, dtype=torch.long)
    # Every token sees itself, padding too: a row that sees nothing has no softmax.
    seen = torch.eye(width, dtype=torch.bool).repeat(len(prompts), 1, 1)  # B Q K
    depths, among = torch.tensor(tree.depths), tree.sees()
    for row, prompt in enumerate(prompts):
        start = longest - len(prompt)  # padding stands on the left, so that all trees stand at one place
        ids[row, start:longest] = torch.tensor(prompt)
        ids[row, longest:] = torch.tensor(tree.tokens)
        positions[row, start:longest] = torch.arange(len(prompt))
        positions[row, longest:] = len(prompt) + depths
        seen[row, start:longest, start:longest] = torch.ones(len(prompt), len(prompt), dtype=torch.bool).tril()
        seen[row, longest:, start:longest] = True
        seen[row, longest:, longest:] = among
    mask = torch.zeros(seen.shape, dtype=model.dtype).masked_fill(~seen, torch.finfo(model.dtype).min)[:, None]
    device = model.device
    logits = model(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        position_ids=positions.to(device),
        use_cache=False,
        logits_to_keep=longest + torch.tensor(tree.forks, device=device),
    ).logits  # B forks V
    return [_sums(one.float().log_softmax(-1), tree) for one in logits]


def _sums(log_probs: torch.Tensor, tree: Tree) -> list[float]:
    """Of each text, from log-probabilities behind each fork, of shape (forks, vocabulary)."""
    at = {fork: number for number, fork in enumerate(tree.forks)}
    before = torch.tensor([at[parent] for parent in tree.parents])
    own = log_probs[before, torch.tensor(tree.tokens)].double().cpu()
    return [float(own[path].sum()) for path in tree.ends]


# How likely a model is to say a text: what random search, AutoDAN and judges of the first token ask for.
#
# Prompts that begin alike are read once, rows run side by side sorted by length, and logits are computed for the
# text's own positions alone. Several short texts of one prompt are read in one pass, as a tree.

_WAVE = 256
"""Rows whose shared beginnings are held at once."""
_SHORT = 16
"""Longest text, in tokens, that stands in a tree with others."""
_LOGITS = 1024
"""Most positions in one pass that logits are computed for: a vocabulary each."""


def log_probs(weights: Any, questions: Sequence[tuple[Ids, Ids]]) -> list[float]:
    """Of (prompt, target) pairs, the natural log-probability of the target right after the prompt, summed over its
    tokens. Equal questions are computed once."""
    # Sorted by tokens, so that a wave holds what begins alike.
    todo = sorted(set(questions))
    known = _in_trees(weights, todo) if fits(weights.config) else {}
    todo = [one for one in todo if one not in known]
    for start in range(0, len(todo), _WAVE):
        wave = todo[start : start + _WAVE]
        known |= dict(zip(wave, _wave(weights, wave), strict=True))
    return [known[one] for one in questions]


def _in_trees(weights: Any, asked: Sequence[tuple[Ids, Ids]]) -> dict[tuple[Ids, Ids], float]:
    """Log-probabilities where the same few texts are asked of several prompts, or many of one."""
    texts: dict[Ids, list[Ids]] = defaultdict(list)
    for prompt, target in asked:
        texts[prompt].append(target)
    alike: dict[tuple[Ids, ...], list[Ids]] = defaultdict(list)
    for prompt, targets in texts.items():
        if len(targets) >= FEWEST and max(map(len, targets)) <= _SHORT:
            alike[tuple(targets)].append(prompt)
    found: dict[tuple[Ids, Ids], float] = {}
    for few, prompts in alike.items():
        for prompt, sums in zip(prompts, tree_log_probs(weights, prompts, few), strict=True):
            found |= {(prompt, target): one for target, one in zip(few, sums, strict=True)}
    return found


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
