"""A guard on this machine: its decision read off the logits of one token, with its probability."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache

from forethought.errors import ModelError, reason_of
from forethought.judges.base import Measure
from forethought.judges.guard_formats import OFF_FORM, Finding, GuardFormat, GuardPrompt, Slot
from forethought.models.callspec import Reject
from forethought.models.weights import DType, device, resolve_dtype
from forethought.records import Message

LEAST_MASS = 0.5
"""Probability that the labels have together, below which the model was about to say something else."""
UNSURE_FORM = "the guard was about to say something else"
PROMPT_TOO_LONG = "too long for the guard"


class LocalGuard:
    """A guard model in memory."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: int = 16, least_mass: float = LEAST_MASS) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._batch_size, self._least_mass = batch_size, least_mass
        self._marks = sorted(set(tokenizer.get_added_vocab()) | set(tokenizer.all_special_tokens), key=len)[::-1]
        eos = getattr(model.generation_config, "eos_token_id", None) or tokenizer.eos_token_id
        self._ends = frozenset(eos if isinstance(eos, list) else [eos])
        self._most_tokens = int(getattr(model.config, "max_position_embeddings", 8192))

    @classmethod
    def load(cls, folder: Path, batch_size: int = 16, dtype: DType = "auto") -> LocalGuard:
        """Reads a folder; the hub is never asked.

        Raises ModelError for a folder without a model, one of images and text, or one whose weights are incomplete:
        transformers would fill those in at random.
        """
        if not (folder / "config.json").is_file():
            raise ModelError(folder, "holds no model", "Give the folder of a guard, or ask one behind a server")
        try:
            if hasattr(AutoConfig.from_pretrained(str(folder)), "vision_config"):
                raise ModelError(folder, "is a model of images and text", "Serve it with vLLM, and ask it there")
            tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(folder), dtype=resolve_dtype(dtype), local_files_only=True, output_loading_info=True
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(folder, f"can't be loaded ({reason_of(error)})", "Check the folder") from None
        model, info = loaded
        if info["missing_keys"]:
            missing = sorted(info["missing_keys"])[0]
            raise ModelError(folder, f"lacks weights ({missing})", "Copy the model again")
        return cls(model.to(device()).eval(), tokenizer, batch_size)

    def ask(self, guard: GuardFormat, prompts: Sequence[GuardPrompt]) -> list[Finding | Reject]:
        """One answer a prompt; longest first, so that memory peaks at once."""
        encoded = [self._encode(guard, prompt) for prompt in prompts]
        room = guard.tail_tokens + 32
        answers: dict[int, Finding | Reject] = {
            place: Reject(PROMPT_TOO_LONG) for place, ids in enumerate(encoded) if len(ids) + room > self._most_tokens
        }
        waiting = sorted((n for n in range(len(prompts)) if n not in answers), key=lambda n: (-len(encoded[n]), n))
        for start in range(0, len(waiting), self._batch_size):
            places = waiting[start : start + self._batch_size]
            batch = _Batch(self._model, self._tokenizer, self._ends, [encoded[place] for place in places])
            batch.run(guard, self._least_mass)
            for row, place in enumerate(places):
                answers[place] = batch.answer(row, guard, prompts[place].part)
        return [answers[place] for place in range(len(prompts))]

    def _encode(self, guard: GuardFormat, prompt: GuardPrompt) -> list[int]:
        lead = guard.slots[0].lead
        if guard.prompt:  # a raw prompt's own control tokens are part of it; the texts in it were made neutral
            return list(self._tokenizer(prompt.messages[0].content + lead)["input_ids"])
        messages = [Message(role=turn.role, content=self._inert(turn.content)) for turn in prompt.messages]
        text = self._render(messages)
        if not text.endswith(lead):
            text += lead
        ids = list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        bos = self._tokenizer.bos_token_id
        own = list(self._tokenizer("x")["input_ids"])
        return [bos, *ids] if bos is not None and own[:1] == [bos] and ids[:1] != [bos] else ids

    def _inert(self, text: str) -> str:
        """The text with every token that this tokenizer adds to its vocabulary broken by a space."""
        for mark in self._marks:
            if len(mark.strip()) > 1 and mark in text:
                text = text.replace(mark, f"{mark[0]} {mark[1:]}")
        return text

    def _render(self, messages: Sequence[Message]) -> str:
        """The guard's own template, which has to show both the request and the answer."""
        plain = [{"role": turn.role, "content": turn.content} for turn in messages]
        # Templates of models that also take images want content in pieces.
        pieces = [{"role": turn.role, "content": [{"type": "text", "text": turn.content}]} for turn in messages]
        wanted = [turn.content.strip() for turn in messages[-2:]]
        for turns in (plain, pieces):
            try:
                text = str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
            except (TemplateError, TypeError, ValueError, KeyError, AttributeError):
                continue
            if all(part in text for part in wanted):
                return text
        raise ModelError(
            self._tokenizer.name_or_path or "guard",
            "its chat template does not show a request and its answer",
            "Use the guard's own tokenizer, with its template",
        )


class _Batch:
    """Prompts that are decided together, column by column over one cache."""

    def __init__(self, model: Any, tokenizer: Any, ends: frozenset[int], prompts: list[list[int]]) -> None:
        self._model, self._tokenizer, self._ends = model, tokenizer, ends
        self._waiting = prompts
        """Token ids that the model has not read yet, row by row."""
        self._cache = DynamicCache()
        self._mask = torch.zeros(len(prompts), 0, dtype=torch.long, device=model.device)
        self._said = ["" for _ in prompts]
        self._last_label = ["" for _ in prompts]
        self._probabilities: list[dict[Measure, float]] = [{} for _ in prompts]
        self._off = [False for _ in prompts]

    @torch.inference_mode()
    def run(self, guard: GuardFormat, least_mass: float) -> None:
        """Decides every slot, then lets the model finish where there is more to say."""
        for number, slot in enumerate(guard.slots):
            if number:
                lead = _ids_after(self._tokenizer, "x" + guard.slots[number - 1].labels[0], slot.lead)
                self._waiting = [[*ids, *lead] for ids in self._waiting]
            self._decide(slot, self._read(), least_mass)
        if guard.tail_tokens:
            self._finish(guard)

    def answer(self, row: int, guard: GuardFormat, part: str) -> Finding | Reject:
        if self._off[row]:
            return Reject(UNSURE_FORM)
        finding = guard.read(part, self._said[row])
        if isinstance(finding, Reject):
            return finding
        return finding.model_copy(update={"probabilities": self._probabilities[row]})

    def _read(self) -> torch.Tensor:
        """Feeds what waits; logits after each row's last token, B V. Shorter rows are padded on the left."""
        wide = max(len(ids) for ids in self._waiting)
        chunk = torch.tensor([[0] * (wide - len(ids)) + ids for ids in self._waiting], device=self._model.device)
        real = torch.tensor([[0] * (wide - len(ids)) + [1] * len(ids) for ids in self._waiting], device=chunk.device)
        self._mask = torch.cat([self._mask, real], dim=1)
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)[:, -wide:]
        out = self._model(
            input_ids=chunk,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,  # a head on every position of a long prompt would take more memory than the model
        )
        self._waiting = [[] for _ in self._waiting]
        logits: torch.Tensor = out.logits[:, -1].float()
        return logits

    def _decide(self, slot: Slot, logits: torch.Tensor, least_mass: float) -> None:
        tokens = [_ids_after(self._tokenizer, "x" + slot.lead if slot.lead else "\n", label) for label in slot.labels]
        first = [ids[0] for ids in tokens]
        if len(set(first)) < len(first):
            raise ModelError(
                self._tokenizer.name_or_path or "guard", "begins two of its labels alike", "Ask it behind a server"
            )
        chances = logits.softmax(-1)[:, first].cpu()  # B labels
        for row, among in enumerate(chances.tolist()):
            mass = sum(among)
            best = max(range(len(among)), key=lambda n: among[n])
            self._off[row] = self._off[row] or not mass >= least_mass  # NaN is off, too
            self._said[row] += slot.lead + slot.labels[best]
            self._last_label[row] = slot.labels[best]
            if slot.measure is not None and mass > 0:
                self._probabilities[row][slot.measure] = among[slot.labels.index(slot.positive)] / mass
            self._waiting[row] = list(tokens[best])

    def _finish(self, guard: GuardFormat) -> None:
        """Greedy text after the last label, for the rows that have more to say."""
        active = [label in guard.tail_after and not off for label, off in zip(self._last_label, self._off, strict=True)]
        made: list[list[int]] = [[] for _ in active]
        for _ in range(guard.tail_tokens):
            if not any(active):
                break
            tokens = self._read().argmax(-1).tolist()
            for row, token in enumerate(tokens):
                active[row] = active[row] and token not in self._ends
                if active[row]:
                    made[row].append(token)
                self._waiting[row] = [token]
        for row, ids in enumerate(made):
            if active[row]:
                self._said[row] = OFF_FORM  # it went on past its limit: whatever it says, it is not the form
            elif ids:
                self._said[row] += str(self._tokenizer.decode(ids, skip_special_tokens=True))


def _ids_after(tokenizer: Any, before: str, text: str) -> list[int]:
    """Token ids of a text where it follows another: tokenizers write a word's first letters otherwise at a start."""
    known = list(tokenizer(before, add_special_tokens=False)["input_ids"])
    both = list(tokenizer(before + text, add_special_tokens=False)["input_ids"])
    return both[len(known) :] if both[: len(known)] == known else _alone(tokenizer, text)


def _alone(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
