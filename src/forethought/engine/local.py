"""A local model that thinks, decides and answers: batched, with or without an adapter.

Two steps that chat, evaluation and server share. Think up to the verdict and record its
log-odds; then answer: with the adapter, or, when `answer_with` is `base` and the verdict
is to comply, with the adapter off and without the thought in context, so that ability
on allowed requests is the base model's own.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from forethought.chat import encode_prompt, end_token
from forethought.engine.conversation import Response
from forethought.engine.decode import Decoder, Row, VerdictTokens
from forethought.engine.device import DType, device, resolve_dtype
from forethought.engine.embedded import resolve_model
from forethought.errors import ModelError
from forethought.policy import Policy
from forethought.reasoning import VERDICT_ANCHOR, Detail, Format, markers, parse
from forethought.records import Message, Record

SETTINGS_FILE = "forethought.json"
"""Beside the adapter: how the model was taught to think and where its operating point is."""


_SMALL_MODEL = 1_000_000_000
"""Parameters below which base and merged model are both kept in memory."""


class Settings(Record):
    """What has to be known to use a trained model as it was trained."""

    policy: Policy
    format: Format = "think"
    detail: Detail = "short"
    answer_with: Literal["adapter", "base"] = "base"
    threshold: float = 0.0
    """Verdict log-odds (natural logarithm) from which the model refuses."""
    threshold_note: str = "not calibrated"
    """How the threshold was set."""
    seen_operators: tuple[str, ...] = ()
    """Styles it was trained on: an evaluation reports these apart."""


class LocalModel:
    """A transformers model, its tokenizer and, when it was trained by us, its settings and its base."""

    def __init__(
        self, model: Any, tokenizer: Any, settings: Settings | None, base: Any = None, batch_size: int = 128
    ) -> None:
        """`base` answers after `comply` when the settings say so; None switches the model's adapter off instead."""
        self.model = model
        self.tokenizer = tokenizer
        self.settings = settings
        self.known_answers: dict[tuple[str, int], Response] = {}
        """The base's answers by (prompt text, token limit), where some run has them already."""
        self.on_progress: Callable[[int], None] | None = None
        """Called with the number of conversations finished, where a caller of `respond` gives nothing else."""
        ends = {end_token(tokenizer)} | ({tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set())
        self.base_weights: Any = base if base is not None else model
        """What answers after `comply` when the settings say so; within `adapter_off` these are the base model's."""
        self.batch_size = batch_size
        self._thinker = Decoder(model, tokenizer, frozenset(ends), batch_size)
        self._answerer = Decoder(self.base_weights, tokenizer, frozenset(ends), batch_size)
        self._has_base = base is not None

    @classmethod
    def load(cls, name: str, adapter: Path | None = None, dtype: DType = "auto", batch_size: int = 128) -> LocalModel:
        """Loads a model by name or folder, or a trained adapter folder (which names its base).

        The adapter of a small model is merged, which decodes about twice as fast, and the
        base stands beside it; a large model switches its adapter on and off instead.
        Raises ModelError when a folder can't be read or an adapter is not one of ours.
        """
        folder = (
            adapter if adapter is not None else Path(name) if (Path(name) / "adapter_config.json").is_file() else None
        )
        base_name = name if adapter is not None or folder is None else _base_of(folder)
        settings = read_settings(folder) if folder is not None else _settings_if_any(Path(name))
        kind = resolve_dtype(dtype)
        base: Any = None
        try:
            resolved = resolve_model(base_name)
            tokenizer: Any = AutoTokenizer.from_pretrained(resolved)
            model: Any = AutoModelForCausalLM.from_pretrained(resolved, dtype=kind)
            if folder is not None:
                from peft import PeftModel

                small = model.num_parameters() < _SMALL_MODEL
                if small:
                    base, model = model, AutoModelForCausalLM.from_pretrained(resolved, dtype=torch.float32)
                model = PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=False)
                model = (model.merge_and_unload() if small else model).to(kind)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(
                folder or base_name, f"can't be loaded ({reason})", "Check the name or folder, or train it again"
            ) from error
        base = base.to(device()).eval() if base is not None else None
        return cls(model.to(device()).eval(), tokenizer, settings, base, batch_size)

    @property
    def thinks(self) -> bool:
        """Whether it was trained to reason before it answers."""
        return self.settings is not None

    def respond(
        self,
        conversations: Sequence[Sequence[Message]],
        max_answer_tokens: int = 128,
        think_budget: int = 64,
        threshold: float | None = None,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Response]:
        """One response a conversation, in order.

        `think_budget`: tokens of thought after which a verdict is asked for. `threshold`
        None is the model's own operating point. `on_done(n)` reports finished conversations.
        """
        on_done = on_done or self.on_progress
        prompts = [encode_prompt(self.tokenizer, conversation) for conversation in conversations]
        if self.settings is None:
            return self._answer(prompts, max_answer_tokens, on_done)
        return self._think_and_answer(prompts, max_answer_tokens, think_budget, threshold, on_done)

    def think(
        self,
        conversations: Sequence[Sequence[Message]],
        think_budget: int = 64,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Response]:
        """Thoughts up to the verdict, with its log-odds and without an answer.

        Raises ModelError for a model that was not trained to think.
        """
        if self.settings is None:
            raise ModelError(
                self.tokenizer.name_or_path, "was not trained to reason", "Train it with: forethought train"
            )
        prompts = [encode_prompt(self.tokenizer, conversation) for conversation in conversations]
        rows = self._watched_rows(prompts, 0, split=False)
        for row in rows:
            row.stop_at_verdict = True
        self._thinker.run(rows, self._verdict_tokens(), self.settings.threshold, think_budget, on_done)
        return [self._read(row, 0) for row in rows]

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """The rendered prompt, as the model sees it."""
        return str(self.tokenizer.decode(encode_prompt(self.tokenizer, messages)))

    def _watched_rows(self, prompts: list[list[int]], room: int, split: bool) -> list[Row]:
        assert self.settings is not None
        opening = self._ids(markers(self.settings.format)[0] + "\n")
        return [
            Row(index, prompt + opening, room, watch=True, stop_at_comply=split) for index, prompt in enumerate(prompts)
        ]

    def _answer(
        self, prompts: list[list[int]], max_tokens: int, on_done: Callable[[int], None] | None
    ) -> list[Response]:
        keys = [(self.tokenizer.decode(prompt), max_tokens) for prompt in prompts]
        rows = [
            Row(index, prompt, max_tokens)
            for index, prompt in enumerate(prompts)
            if keys[index] not in self.known_answers
        ]
        self._answerer.run(rows, on_done=on_done)
        made = {
            row.index: Response(answer=self._text(row.made), prompt_tokens=len(row.prompt), answer_tokens=len(row.made))
            for row in rows
        }
        return [made[index] if index in made else self.known_answers[key] for index, key in enumerate(keys)]

    def _think_and_answer(
        self,
        prompts: list[list[int]],
        max_tokens: int,
        think_budget: int,
        threshold: float | None,
        on_done: Callable[[int], None] | None,
    ) -> list[Response]:
        assert self.settings is not None
        split = self.settings.answer_with == "base"
        rows = self._watched_rows(prompts, max_tokens, split)
        limit = self.settings.threshold if threshold is None else threshold
        self._thinker.run(rows, self._verdict_tokens(), limit, think_budget, on_done)
        responses = [self._read(row, max_tokens) for row in rows]
        allowed = [row.index for row in rows if split and row.refuses is False]
        if allowed:
            with self.adapter_off():
                answers = self._answer([prompts[index] for index in allowed], max_tokens, None)
            for index, answer in zip(allowed, answers, strict=True):
                update = {"answer": answer.answer, "answer_tokens": answer.answer_tokens}
                responses[index] = responses[index].model_copy(update=update)
        return responses

    def _read(self, row: Row, max_answer_tokens: int) -> Response:
        """A decoded row as a response; its parts are cut where the thought closes."""
        assert self.settings is not None
        opening, closing = markers(self.settings.format)
        text = f"{opening}\n{self._text(row.made)}"
        parsed = parse(text, self.settings.policy)
        _, closed, tail = text.partition(closing)
        n_answer = len(self._ids(tail)) if closed else 0
        answer_ids = self._ids(parsed.answer)[:max_answer_tokens]
        return Response(
            reasoning_text=parsed.reasoning_text,
            reasoning=parsed.reasoning,
            answer=self._text(answer_ids),
            decision="refuse" if row.refuses else "comply",
            log_odds=row.log_odds,
            cause=parsed.cause or ("the verdict had to be asked for" if row.led else ""),
            prompt_tokens=len(row.prompt),
            reasoning_tokens=max(len(row.made) - n_answer, 0),
            answer_tokens=min(n_answer, max_answer_tokens),
        )

    def _verdict_tokens(self) -> VerdictTokens:
        assert self.settings is not None
        refuse, comply = self._ids(" refuse"), self._ids(" comply")
        if refuse[0] == comply[0]:
            raise ModelError(
                self.tokenizer.name_or_path, "its tokenizer begins both verdicts alike", "Use another model"
            )
        closing = markers(self.settings.format)[1]
        return VerdictTokens(
            anchor=VERDICT_ANCHOR,
            lead_in=tuple(self._ids("\n" + VERDICT_ANCHOR)),
            refuse=tuple(refuse),
            comply=tuple(comply),
            closing=closing,
        )

    def adapter_off(self) -> contextlib.AbstractContextManager[Any]:
        """While it lasts, the weights are the base model's. Raises ModelError without an adapter to switch off."""
        if self._has_base:
            return contextlib.nullcontext()
        disable = getattr(self.model, "disable_adapter", None)
        if disable is None:
            raise ModelError(
                "answer_with: base",
                "the model has no adapter to switch off",
                "Set answer_with: adapter, or don't merge",
            )
        manager: contextlib.AbstractContextManager[Any] = disable()
        return manager

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()


def load_tokenizer(name: str) -> Any:
    """A model's tokenizer, by name or folder. Raises ModelError when it can't be read."""
    try:
        return AutoTokenizer.from_pretrained(resolve_model(name))
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(name, f"its tokenizer can't be loaded ({reason})", "Check the name or folder") from error


def read_settings(folder: Path) -> Settings:
    """The settings beside a trained model. Raises ModelError when there are none."""
    settings = _settings_if_any(folder)
    if settings is None:
        raise ModelError(
            folder, f"has no {SETTINGS_FILE}: it was not trained by forethought", "Train it with: forethought train"
        )
    return settings


def _settings_if_any(folder: Path) -> Settings | None:
    file = folder / SETTINGS_FILE
    if not file.is_file():
        return None
    try:
        return Settings.model_validate_json(file.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise ModelError(file, error.errors()[0]["msg"], "Train the model again") from None


def write_settings(folder: Path, settings: Settings) -> None:
    """Writes the settings beside a trained model, replacing the file in one step."""
    part = folder / f"{SETTINGS_FILE}.part"
    part.write_text(settings.model_dump_json(indent=2) + "\n", encoding="utf-8")
    part.replace(folder / SETTINGS_FILE)


def _base_of(folder: Path) -> str:
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        return str(config["base_model_name_or_path"])
    except (OSError, json.JSONDecodeError, KeyError):
        raise ModelError(folder, "its adapter_config.json can't be read", "Train the adapter again") from None


def merge_adapter(folder: Path) -> Path:
    """Writes base and adapter as one plain transformers model into `folder`/merged; returns it.

    A merged model answers with its own weights: it has no base to switch to.
    """
    from peft import PeftModel

    settings = read_settings(folder)
    resolved = resolve_model(_base_of(folder))
    base: Any = AutoModelForCausalLM.from_pretrained(resolved, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
    merged.save_pretrained(folder / "merged")
    AutoTokenizer.from_pretrained(resolved).save_pretrained(folder / "merged")
    write_settings(folder / "merged", settings.model_copy(update={"answer_with": "adapter"}))
    return folder / "merged"


def as_messages(text: str, system: str | None = None) -> tuple[Message, ...]:
    """A user's text as a conversation, behind a system prompt when given."""
    head = (Message(role="system", content=system),) if system else ()
    return (*head, Message(role="user", content=text))


__all__ = ["LocalModel", "Settings", "as_messages", "load_tokenizer", "read_settings", "write_settings"]
