"""Where an adversarial suffix stands in a prompt, as tokens and as text, and which tokens it may hold.

A suffix is optimised as token ids and sent as text. Ids that the tokenizer would not read back from their own text,
within the whole prompt, are therefore never kept: what was optimised is what the model is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from forethought.chat import Tokenizer, encode_prompt, render_prompt
from forethought.errors import ModelError
from forethought.records import Message

_PLACE = "\ue000"
"""Stands for the suffix while the chat template is filled in: a private character that no template touches."""
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Slot:
    """A prompt with room for a suffix at the end of its last user turn."""

    head: Ids
    """All tokens before the suffix."""
    tail: Ids
    """The tokens after it, up to where the model's turn begins."""
    first: Ids
    """The suffix that the search starts with."""
    before: str
    """The text of `head`, without the BOS that the tokenizer adds by itself."""
    after: str
    bos: int
    """Leading tokens of `head` that stand in no text: 0 or 1."""


def user_text(messages: Sequence[Message], suffix: str) -> str:
    """The last user turn with a suffix, which brings its own leading space."""
    return messages[-1].content.rstrip() + suffix


def _said(messages: Sequence[Message], suffix: str) -> tuple[Message, ...]:
    return (*messages[:-1], Message(role=messages[-1].role, content=user_text(messages, suffix)))


def find_slot(tokenizer: Tokenizer, messages: Sequence[Message], first: str) -> Slot:
    """The place for a suffix in a conversation, and the ids of the first one, such as " ! ! !".

    Raises ModelError where the tokenizer joins the suffix with its neighbours: its ids could not be changed alone then.
    """
    before, place, after = render_prompt(tokenizer, _said(messages, _PLACE)).partition(_PLACE)
    whole = tuple(encode_prompt(tokenizer, _said(messages, first)))
    head, tail = encode_text(tokenizer, before), encode_text(tokenizer, after)
    bos = len(whole) - len(encode_text(tokenizer, before + first + after))
    end = len(whole) - len(tail)
    if not place or whole[bos : bos + len(head)] != head or whole[end:] != tail or bos + len(head) >= end:
        raise ModelError(
            tokenizer.name_or_path or "tokenizer",
            "joins the suffix with the text around it",
            "Use another first suffix: init=x",
        )
    cut = bos + len(head)
    return Slot(head=whole[:cut], tail=tail, first=whole[cut:end], before=before, after=after, bos=bos)


def encode_text(tokenizer: Tokenizer, text: str) -> Ids:
    """Token ids of a text, special tokens only where the text spells them."""
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def suffix_texts(tokenizer: Tokenizer, slot: Slot, suffixes: Sequence[Sequence[int]]) -> list[str]:
    """Suffixes as they read behind the prompt's head."""
    # Decoded with the token before them: some tokenizers drop the space of a first word.
    anchor = list(slot.head[-1:])
    skip = len(tokenizer.decode(anchor, clean_up_tokenization_spaces=False))
    rows = [[*anchor, *suffix] for suffix in suffixes]
    return [text[skip:] for text in tokenizer.batch_decode(rows, clean_up_tokenization_spaces=False)]


def survivors(tokenizer: Tokenizer, slots: Sequence[Slot], suffixes: Sequence[Sequence[int]]) -> list[bool]:
    """Whether each suffix is read back as the same ids, in every one of the prompts."""
    if not suffixes:
        return []
    texts = suffix_texts(tokenizer, slots[0], suffixes)
    # A chat template may strip what ends a turn.
    kept = [bool(text) and text == text.rstrip() for text in texts]
    for slot in slots:
        prompts = [slot.before + text + slot.after for text in texts]
        encoded = tokenizer(prompts, add_special_tokens=False)["input_ids"]
        for place, suffix in enumerate(suffixes):
            kept[place] = kept[place] and tuple(encoded[place]) == (*slot.head[slot.bos :], *suffix, *slot.tail)
    return kept


@lru_cache(maxsize=4)
def printable_ids(tokenizer: Tokenizer) -> Ids:
    """Tokens that a suffix may hold: printable ASCII and no special token, as in the paper's own code."""
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))], clean_up_tokenization_spaces=False)
    return tuple(
        token
        for token, text in enumerate(texts)
        if text and text.isascii() and text.isprintable() and token not in special
    )
