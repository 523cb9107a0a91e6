"""Decoding as a stream: a row that ends makes place for the next, and gives its result at once.

No batch waits for its slowest row, rows of one wave share the beginnings of their prompts, and memory is
bounded by the tokens that are held, however many rows there are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from forethought.engine.decode import VERDICT_TOKENS, Row, Steering, VerdictTokens
from forethought.engine.draws import drawn
from forethought.engine.prefix import Node, read, share
from forethought.engine.slots import Slots

REFILL = 0.75
"""Share of a batch below which it is filled up: prompts are read a good number at a time."""
_SHORT = 255
"""Tokens up to which prompts of any length stand side by side."""
_CPU_BYTES = 1 << 30
_GPU_SHARE = 0.35
"""Memory for keys and values of one stream: bytes on a CPU, a share of what is free on a GPU."""


class Decoder:
    """Decoding of many rows with one model: greedy, or drawn where a row has draws of its own."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        end_ids: frozenset[int],
        batch_size: int = 128,
        around: Callable[[], AbstractContextManager[Any]] | None = None,
        most_tokens: int | None = None,
    ) -> None:
        """`batch_size`: most rows side by side. `most_tokens`: most tokens held, None is what memory allows.

        `around`: a context that every pass of the model runs in, such as one that switches an adapter off.
        """
        self._model, self._tokenizer, self._end_ids = model, tokenizer, end_ids
        self._batch_size, self._most_tokens = batch_size, most_tokens
        self._around: Callable[[], AbstractContextManager[Any]] = around or contextlib.nullcontext

    def run(self, rows: Sequence[Row], verdict: VerdictTokens | None = None, threshold: float = 0.0) -> None:
        """Decodes all rows in place. `threshold`: a watched row refuses when its log-odds are at least this."""
        for _ in self.stream(iter(in_order(rows)), verdict, threshold):
            pass

    def stream(
        self, rows: Iterator[Row], verdict: VerdictTokens | None = None, threshold: float = 0.0
    ) -> Iterator[Row]:
        """Decodes rows as they come, best in the order of `in_order`, and gives each back when it is finished."""
        steering = Steering(self._tokenizer, self._end_ids, verdict, threshold)
        slots = Slots(_text_config(self._model).num_hidden_layers, self._model.device)
        limit = self._most_tokens or tokens_that_fit(self._model)
        waiting = _Waiting(rows)
        active: list[Row] = []
        while True:
            if len(active) <= REFILL * self._batch_size and (new := self._admitted(waiting, active, slots, limit)):
                self._take_in(new, slots)
                active += new
            if not active:
                return
            self._step(active, slots, steering)
            # From the end: the last row moves into a freed slot, and is looked at already.
            for slot in reversed(range(len(active))):
                if active[slot].done:
                    done = active[slot]
                    slots.drop(slot)
                    active[slot] = active[-1]
                    active.pop()
                    yield done

    def _admitted(self, waiting: _Waiting, active: Sequence[Row], slots: Slots, limit: int) -> list[Row]:
        """The next rows that fit beside those that run; one at least where none run."""
        new: list[Row] = []
        most = slots.span + max((_still(row) for row in active), default=0)
        while len(active) + len(new) < self._batch_size and (row := waiting.first()) is not None:
            most = max(most, len(row.prompt) + _still(row))
            if (active or new) and (len(active) + len(new) + 1) * most > limit:
                break
            new.append(waiting.take())
        return new

    @torch.inference_mode()
    def _take_in(self, rows: Sequence[Row], slots: Slots) -> None:
        """Reads prompts but for their last tokens, which begin the decoding."""
        with self._around():
            levels = share([row.prompt[:-1] for row in rows])
            read(self._model, levels)
        ends: dict[int, Node] = {place: node for level in levels for node in level for place in node.rows}
        slots.add([ends[place].path() for place in range(len(rows))])

    @torch.inference_mode()
    def _step(self, active: Sequence[Row], slots: Slots, steering: Steering) -> None:
        mask, positions = slots.next_token()
        last = [[row.made[-1] if row.made else row.prompt[-1]] for row in active]
        with self._around():
            out = self._model(
                input_ids=torch.tensor(last, device=self._model.device),
                attention_mask=mask,
                position_ids=positions,
                past_key_values=slots.cache,
            )
        slots.wrote()
        logits = out.logits[:, -1].float()  # B V
        proposed = logits.argmax(-1).tolist()
        draws = {place: row.draws for place, row in enumerate(active) if row.draws is not None}
        if draws:
            for place, token in zip(draws, drawn(logits[list(draws)], list(draws.values())), strict=True):
                proposed[place] = token
        for place, row in enumerate(active):
            steering.step(row, logits[place], proposed[place])


class _Waiting:
    """Rows to come, with a look at the first."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self._first: Row | None = None

    def first(self) -> Row | None:
        if self._first is None:
            self._first = next(self._rows, None)
        return self._first

    def take(self) -> Row:
        row, self._first = self._first, None
        assert row is not None
        return row


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Long prompts first, those of similar length by their tokens: neighbours share what they can.

    A row attends over the span of the longest beside it, which costs little below `_SHORT` tokens and much above.
    """
    return sorted(rows, key=lambda row: (-max(len(row.prompt), _SHORT).bit_length(), row.prompt))


def _still(row: Row) -> int:
    """Most tokens that a row may yet be given."""
    thought = row.think_budget + VERDICT_TOKENS if row.watch else 0
    return max(thought + row.max_new - len(row.made), 1)


def tokens_that_fit(model: Any) -> int:
    """How many tokens of keys and values the memory for one stream holds."""
    config = _text_config(model)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    bytes_per_token: int = config.num_hidden_layers * heads * size * 2 * model.dtype.itemsize
    device = torch.device(model.device)
    room = _GPU_SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _CPU_BYTES
    return max(int(room) // bytes_per_token, 1)


def _text_config(model: Any) -> Any:
    return model.config.get_text_config()
