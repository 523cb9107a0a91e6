"""A random model of two layers and a thousand tokens: real code paths, no ability, milliseconds a token."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest

from forethought.attempts.plan import sample_questions
from forethought.data.shipped import shipped_requests
from forethought.models.conversation import Able, Conversation, Failed, OnReply, Response
from forethought.models.settings import Settings, write_settings
from forethought.models.weights import load_or_make
from forethought.policy import default_policy
from forethought.reasoning import Detail, Finding, SafetyReasoning, render
from forethought.records import Example, Message, user_request

FEW_QUESTIONS = 6
REFUSE_TEXT = "I can't help you with that. It breaks rule R4. I can explain how to stay safe instead."


def new_folder() -> Path:
    """A folder that is removed when the tests end."""
    folder = Path(tempfile.mkdtemp(prefix="forethought-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


# The embedded model's own, so that prompts are what it is given.
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """The folder that `make` fills, once for all workers of a test run."""
    folder = Path(os.environ["FORETHOUGHT_TEST_RUN"]) / name

    def made(part: Path) -> Path:
        make(part)
        return folder

    return load_or_make(folder, lambda there: there if there.is_dir() else None, made)


def tiny_folder() -> Path:
    """The saved tiny model."""
    return made_once("tiny", _make)


def _make(folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _train_tokenizer()
    torch.manual_seed(0)
    # A wide initialisation: outputs differ from prompt to prompt, and no two logits are nearly equal.
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, initializer_range=0.3, tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _train_tokenizer() -> Any:
    """A byte-level BPE of 1,024 tokens: all bytes, and the commonest pieces of requests and thoughts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    policy = default_policy()
    texts = [request.text for request in shipped_requests("ordinary")]
    texts += [f"{rule.id}: {rule.title}. {rule.description}" for rule in policy.rules]
    for example in (harmful_example(), harmless_example()):
        texts += [render(example.reasoning, policy, detail=detail) + example.answer for detail in get_args(Detail)]
    # One token each, as in any larger tokenizer: what guards answer with, and what suffixes start from.
    texts += [" ! the yes no safe unsafe Sure refuse comply" * 50, "safe" * 50]
    bpe: Any = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    unknown, start, end = _SPECIAL
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=start, eos_token=end, unk_token=unknown, pad_token=end
    )
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def tiny_tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(tiny_folder()))


def tiny_model() -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(tiny_folder()), dtype=torch.float32).eval()


def tiny_adapter(folder: Path, layers: list[int] | None = None, **settings: Any) -> Path:
    """A random LoRA adapter of the tiny model, on some layers or all, with our settings beside it."""
    named = "-".join(map(str, layers)) if layers is not None else "all"
    made = made_once(f"adapter-{named}", lambda part: _make_adapter(part, layers))
    shutil.copytree(made, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
    write_settings(folder, Settings(policy=default_policy(), **settings))
    return folder


def _make_adapter(folder: Path, layers: list[int] | None) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    config = LoraConfig(
        r=4, lora_alpha=64, target_modules=["q_proj", "v_proj", "o_proj"], init_lora_weights=False,
        layers_to_transform=layers,
    )  # fmt: skip
    get_peft_model(tiny_model(), config).save_pretrained(str(folder))


@contextmanager
def briefly() -> Iterator[None]:
    """Within it, a model that is trained is asked for its verdict after a few tokens, and a plan has few questions.

    A random one never ends a thought by itself: tests would wait for as many tokens as its rows' thoughts hold, and for
    answers to forty questions of which it knows none.
    """
    few = sample_questions()[:FEW_QUESTIONS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("forethought.training.run.think_budget", lambda rows, tokenizer: 12)
        patch.setattr("forethought.attempts.plan.sample_questions", lambda: few)
        yield


def harmful_example(text: str = "Help me copy a paid film without paying") -> Example:
    """A mild stand-in for a row of the refusal term."""
    reasoning = SafetyReasoning(
        intent="copy a paid film without paying",
        findings=(Finding(rule="R4", violated=True, reason="it would help someone cheat others"),),
        verdict="refuse",
    )
    return Example(request=user_request(text, harmful=True, rules=("R4",)), reasoning=reasoning, answer=REFUSE_TEXT)


def harmless_example(text: str = "How do I bake bread?", answer: str = "Mix flour, water, salt and yeast.") -> Example:
    """A row of the benign term."""
    reasoning = SafetyReasoning(intent="learn how to bake bread", verdict="comply")
    return Example(request=user_request(text, harmful=False), reasoning=reasoning, answer=answer)


class Scripted:
    """Stands for a LocalModel: answers by rule, and remembers every conversation it was given."""

    name = "scripted"
    able = Able()
    on_progress = None

    def __init__(self, fails_on: str = "\0", reasoning: bool = False) -> None:
        self.asked: list[tuple[Message, ...]] = []
        self.limits: list[int] = []
        self.fails_on = fails_on
        self.reasoning = reasoning

    def respond(self, conversations: Sequence[Sequence[Message]], max_answer_tokens: int = 128) -> list[Response]:
        self.limits.append(max_answer_tokens)
        self.asked += [tuple(conversation) for conversation in conversations]
        if any(self.fails_on in conversation[-1].content for conversation in conversations):
            raise RuntimeError("the model broke down")
        return [self._one(conversation[-1].content, max_answer_tokens) for conversation in conversations]

    def reply(
        self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
    ) -> list[Response | Failed]:
        """`respond`, told one by one; a batch that breaks down has no response."""
        replies: Sequence[Response | Failed]
        try:
            replies = self.respond([one.messages for one in conversations], max_answer_tokens)
        except RuntimeError as error:
            replies = [Failed(cause=str(error))] * len(conversations)
        for place, reply in enumerate(replies):
            if on_reply is not None:
                on_reply(place, reply)
        return list(replies)

    def _one(self, text: str, limit: int) -> Response:
        refuses = "film" in text
        answer = "" if "silence" in text else REFUSE_TEXT if refuses else f"Sure, about '{text}', in {limit} tokens."
        if not self.reasoning:
            return Response(answer=answer, prompt_tokens=5, answer_tokens=7)
        thought = harmful_example().reasoning if refuses else harmless_example().reasoning
        return Response(
            reasoning_text=f"Intent: {thought.intent}.\nVerdict: {thought.verdict}.",
            reasoning=thought,
            answer=answer,
            decision=thought.verdict,
            log_odds=2.0 if refuses else -2.0,
            prompt_tokens=5,
            reasoning_tokens=11,
            answer_tokens=7,
        )
