"""Chats become tokens here and nowhere else: for training, generation and serving alike.

The tokenizer's own template is used as it is. What is checked is what goes wrong
in practice: a template that adds no generation prompt, one that refuses the roles
given, two BOS tokens, a missing end token.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from forethought.errors import ModelError
from forethought.records import Message

Tokenizer = Any
"""A transformers PreTrainedTokenizerBase; its own types are not strict."""


def render_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> str:
    """The prompt as text, generation prompt included, as the tokenizer's template has it.

    Raises ModelError when the tokenizer has no template, or one without generation prompt.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            tokenizer.name_or_path or "tokenizer",
            "has no chat template",
            "Use an instruction-tuned model, or set tokenizer.chat_template and save it beside the model",
        )
    turns = [message.model_dump() for message in messages]
    try:
        with_prompt = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        without = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=False))
    except TemplateError as error:
        raise ModelError(
            tokenizer.name_or_path or "tokenizer",
            f"its chat template does not take this conversation ({error})",
            "Check its roles and their order: some templates know no system prompt",
        ) from None
    # Mistral's template is right without one: its user turn ends with [/INST] and the answer follows.
    if with_prompt == without and not _answer_follows(tokenizer, turns, with_prompt):
        raise ModelError(
            tokenizer.name_or_path or "tokenizer",
            "its chat template adds no generation prompt",
            "Mend the template: with add_generation_prompt it must end where the assistant's turn begins",
        )
    return with_prompt


def _answer_follows(tokenizer: Tokenizer, turns: list[dict[str, str]], prompt: str) -> bool:
    probe = "probe-7f3a"
    answered = str(tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": probe}], tokenize=False))
    if not answered.startswith(prompt):
        return False
    return answered[len(prompt) :].lstrip().startswith(probe)


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Token ids of the prompt, with exactly the special tokens that the template writes: one BOS at most."""
    ids = list(tokenizer(render_prompt(tokenizer, messages), add_special_tokens=False)["input_ids"])
    bos = tokenizer.bos_token_id
    if bos is None or ids[:1] == [bos]:
        return ids
    # A template that leaves BOS to the tokenizer: add it where the tokenizer itself would.
    own = list(tokenizer("x")["input_ids"])
    return [bos, *ids] if own[:1] == [bos] else ids


def opening_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Token ids that prompts of one user turn begin with, nearly whatever it says; none where the template takes no
    such."""
    try:
        one, other = (encode_prompt(tokenizer, (Message(role="user", content=text),)) for text in ("a", "Z"))
    except ModelError:
        return ()
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return tuple(token for token, _ in alike)


def encode_completion(tokenizer: Tokenizer, text: str, end: bool = True) -> list[int]:
    """Token ids of an assistant's text, closed by the end-of-turn token when `end`."""
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return [*ids, end_token(tokenizer)] if end else ids


def end_tokens(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids at which an assistant's turn ends: the template's end-of-turn token, and EOS where there is one."""
    return frozenset({end_token(tokenizer), tokenizer.eos_token_id} - {None})


def end_token(tokenizer: Tokenizer) -> int:
    """Id of the token that ends an assistant's turn, read off the template, else EOS.

    Raises ModelError when there is neither.
    """
    probe = "probe-7f3a"
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": probe}]
    rendered = str(tokenizer.apply_chat_template(turns, tokenize=False))
    tail = list(tokenizer(rendered.rpartition(probe)[2].strip(), add_special_tokens=False)["input_ids"])
    special = set(tokenizer.all_special_ids)
    if tail and tail[0] in special:
        return int(tail[0])
    if tokenizer.eos_token_id is None:
        raise ModelError(tokenizer.name_or_path or "tokenizer", "has no end-of-turn token", "Set tokenizer.eos_token")
    return int(tokenizer.eos_token_id)
