"""How likely a model is to say a text: what random search, AutoDAN and judges of the first token ask for.

Prompts that begin alike are read once, rows run side by side sorted by length, and logits are computed for the
text's own positions alone. Several short texts of one prompt are read in one pass, as a tree (`fan.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from forethought.chat import encode_prompt
from forethought.engine.conversation import Conversation
from forethought.engine.fan import FEWEST, Ids, fan_log_probs, fits
from forethought.engine.prefix import Node, batch_of, overhead_of, passes, read, share
from forethought.errors import InputError

if TYPE_CHECKING:
    from forethought.engine.local import LocalModel

_WAVE = 256
"""Rows whose shared beginnings are held at once."""
_SHORT = 16
"""Longest text, in tokens, that stands in a tree with others."""
_LOGITS = 1024
"""Most positions in one pass that logits are computed for: a vocabulary each."""


def log_probs(
    model: LocalModel,
    conversations: Sequence[Conversation],
    target_strings: Sequence[str],
    first_only: Sequence[bool] | bool = False,
) -> list[float]:
    """Natural log-probability of each text in the model's turn, right after the prompt and its prefill.

    Summed over the text's tokens; `first_only` is that of its first token alone. The text is tokenised by itself,
    as a model writes it, and the weights are those that think where there are such. Equal questions are computed once.

    Raises InputError for a text without tokens or a prompt longer than the model's context, ModelError for a
    conversation that the chat template doesn't take.
    """
    firsts = [first_only] * len(conversations) if isinstance(first_only, bool) else list(first_only)
    known: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {}
    asked = []
    for conversation, text, first in zip(conversations, target_strings, firsts, strict=True):
        target = model.ids(text)[: 1 if first else None]
        if not target:
            raise InputError(f"target string '{text}'", "has no tokens", "Give a text")
        prompt = encode_prompt(model.tokenizer, conversation.messages) + model.ids(conversation.prefill)
        if len(prompt) + len(target) > model.context_tokens:
            raise InputError(
                f"a prompt of {len(prompt)} tokens",
                f"is more than the model's context of {model.context_tokens}",
                "Shorten the conversation",
            )
        asked.append((tuple(prompt), tuple(target)))
    # Sorted by tokens, so that a wave holds what begins alike.
    todo = sorted(set(asked))
    if fits(model.model.config):
        known |= _fanned(model, todo)
        todo = [one for one in todo if one not in known]
    for start in range(0, len(todo), _WAVE):
        wave = todo[start : start + _WAVE]
        known |= dict(zip(wave, _wave(model, wave), strict=True))
    return [known[one] for one in asked]


def _fanned(model: LocalModel, asked: Sequence[tuple[Ids, Ids]]) -> dict[tuple[Ids, Ids], float]:
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
        for prompt, sums in zip(prompts, fan_log_probs(model.model, prompts, few), strict=True):
            found |= {(prompt, target): one for target, one in zip(few, sums, strict=True)}
    return found


@torch.inference_mode()
def _wave(model: LocalModel, wave: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[float]:
    """Log-probabilities of (prompt, target) pairs."""
    rows = [[*prompt, *target[:-1]] for prompt, target in wave]
    # The last token of a prompt predicts the first of the target: its logits are needed for every row.
    levels = share(rows, [len(prompt) - 1 for prompt, _ in wave])
    ends = [node for level in levels for node in level if node.rows]
    read(model.model, [[node for node in level if not node.rows] for level in levels])
    found = [0.0] * len(wave)
    for nodes in passes(ends, overhead_of(model.model)):
        for node, summed in zip(nodes, _summed(model, nodes, [wave[n.rows[0]][1] for n in nodes]), strict=True):
            found[node.rows[0]] = summed
    return found


def _summed(model: LocalModel, nodes: Sequence[Node], targets: Sequence[tuple[int, ...]]) -> list[float]:
    """Of nodes side by side that end with what predicts their targets."""
    firsts = [len(node.tokens) - len(target) for node, target in zip(nodes, targets, strict=True)]
    low, high = min(firsts), max(len(node.tokens) for node in nodes)
    if len(nodes) > 1 and len(nodes) * (high - low) > _LOGITS:
        half = len(nodes) // 2
        return [*_summed(model, nodes[:half], targets[:half]), *_summed(model, nodes[half:], targets[half:])]
    batch = batch_of(nodes, model.model.device)
    kept = torch.arange(low, high, device=model.model.device)
    logits = model.model(**batch.inputs, logits_to_keep=kept).logits  # B kept V
    summed = []
    for place, (first, target) in enumerate(zip(firsts, targets, strict=True)):
        own = logits[place, first - low : first - low + len(target)].float().log_softmax(-1)
        summed.append(float(own[torch.arange(len(target)), torch.tensor(target)].double().sum()))
    return summed
