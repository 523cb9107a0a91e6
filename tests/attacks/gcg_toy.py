"""A model and a tokenizer of thirty words, small enough that every suffix can be tried."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from forethought.models.local import LocalModel

WORDS = (
    *("red", "blue", "green", "one", "two", "three", "cat", "dog", "bird", "sun", "moon", "star"),
    *("up", "down", "left", "right", "what", "is", "the", "sure", "!", "x"),
)
_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}> {{ message.content }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<user>", "<assistant>", "<system>", "<end>"]
    vocabulary = {word: place for place, word in enumerate([*special, *WORDS, "süß"])}
    base = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    base.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=base, unk_token="<unk>", eos_token="<end>", additional_special_tokens=special[1:4]
    )
    made.chat_template = _TEMPLATE
    return made


@lru_cache(maxsize=1)
def toy() -> LocalModel:
    """Two layers, random weights; words are set apart by spaces."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer()
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 4, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, initializer_range=0.5, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return LocalModel(LlamaForCausalLM(config).eval(), tokenizer, None)
