"""Tokens drawn at random, so that a row's draws are its own: the same whatever stands beside it in a batch.

A row takes one number from its own generator for each token that it is given, used or not. Its seed is that of its
prompt, its temperature and the caller's number, so that no two prompts are drawn alike.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from forethought.models.known import Known
from forethought.models.prefix import Node, Slots, read, share


@dataclass(frozen=True)
class Draws:
    """The random numbers of one row, and its temperature: 1 samples as the model predicts, less is nearer to greedy."""

    temperature: float
    random: random.Random


def draws_for(temperature: float, seed: int, prompt: Sequence[int]) -> Draws | None:
    """A row's draws; None for a temperature of 0, which is greedy."""
    if temperature <= 0:
        return None
    said = f"{seed}:{temperature!r}:{','.join(map(str, prompt))}"
    return Draws(temperature, random.Random(hashlib.sha256(said.encode()).digest()))


def drawn(logits: torch.Tensor, draws: Sequence[Draws]) -> list[int]:
    """A token for each row by the inverse of its cumulative distribution. `logits` of shape (rows, vocabulary).

    In double precision: over a vocabulary, sums in single precision would move the borders between rare tokens.
    """
    temperatures = torch.tensor([one.temperature for one in draws], dtype=torch.float64, device=logits.device)
    cumulative = (logits.double() / temperatures[:, None]).softmax(-1).cumsum(-1)  # B V
    numbers = torch.tensor([one.random.random() for one in draws], dtype=torch.float64, device=logits.device)
    # To the right: the first token whose border lies above the number, so that none of probability 0 is drawn.
    found = torch.searchsorted(cumulative, (numbers * cumulative[:, -1])[:, None], right=True)
    return [int(token) for token in found[:, 0].clamp(max=logits.shape[-1] - 1).tolist()]


# One sequence at each token, with a hand on the verdict; `continuous` runs many of them side by side.
#
# One rule serves everything. A row may be *watched*: when its text reaches the verdict's
# anchor, the log-odds of refusing against complying are read from the very logits that
# would pick the next token, and the token is chosen by the threshold. A row that thinks
# past its budget, or closes its thought without a verdict, is led to the anchor: every
# thought ends in a verdict with a probability. One that rambles on after its verdict, or
# stops there, is closed: every verdict is acted on.

_TAIL = 8
"""Last tokens of a turn in which the verdict's anchor, or the closing marker, may end."""
VERDICT_TOKENS = 48
"""Room for the verdict's rules and reasons, the closing marker included."""


@dataclass(frozen=True)
class VerdictTokens:
    """Token ids that the decoder needs to steer a verdict."""

    anchor: str
    """Text after which the verdict comes."""
    lead_in: tuple[int, ...]
    """Tokens that bring a row to the anchor when its budget is spent."""
    refuse: tuple[int, ...]
    comply: tuple[int, ...]
    closing: str
    """Text that ends the thought."""
    close: tuple[int, ...]
    """Tokens that end it where the model does not."""


@dataclass
class Row:
    """One sequence being decoded; the working state of the loop."""

    index: int
    """The caller's number for it."""
    prompt: list[int]
    """Prompt token ids, forced opening included."""
    max_new: int
    """Most tokens to generate; for a watched row, most tokens of answer after its thought has closed."""
    watch: bool = False
    """True to steer and record a verdict."""
    stop_at_comply: bool = False
    """True to stop where the thought closes after `comply`: the answer comes from elsewhere."""
    stop_at_verdict: bool = False
    """True to stop with the verdict itself: only its odds are wanted."""
    think_budget: int = 64
    """Tokens of thought after which the row is led to its verdict; 0 leads it there at once."""
    opened: int = 0
    """Last tokens of the prompt that belong to the model's own turn: an anchor may begin in them."""
    draws: Draws | None = None
    """Random numbers that its tokens are drawn by; None is greedy."""
    threshold: float | None = None
    """Log-odds from which it refuses; None is what all rows of its batch have."""
    shape: Callable[[torch.Tensor], torch.Tensor] | None = None
    """Changes the logits, of shape (vocabulary,), that its next token is chosen by: a bias, a grammar."""
    by_base: bool = False
    """Whether it is the base's, in a batch of rows with an adapter and without."""
    made: list[int] = field(default_factory=list)
    forced: list[int] = field(default_factory=list)
    log_odds: float | None = None
    led: bool = False
    refuses: bool | None = None
    verdict_at: int | None = None
    closed_at: int | None = None
    """Number of tokens made when the thought closed."""
    done: bool = False


class Scores(Protocol):
    """Logits of tokens by their ids, or log-probabilities: their differences are the same."""

    def __getitem__(self, token: int, /) -> Any: ...


class Steering:
    """What happens to a row at each token: what the model proposes, forced, or decided at the verdict."""

    def __init__(
        self,
        tokenizer: Any,
        end_ids: frozenset[int],
        verdict: VerdictTokens | None = None,
        threshold: float = 0.0,
    ) -> None:
        """`threshold`: a watched row refuses when its log-odds are at least this."""
        self._tokenizer, self._end_ids = tokenizer, end_ids
        self._verdict, self._threshold = verdict, threshold

    def step(self, row: Row, logits: Scores, proposed: int) -> None:
        """Adds one token to a row, and says on it whether it is done.

        `proposed`: the likeliest token, or the one that was drawn. The verdict is the threshold's all the same.
        """
        verdict = self._verdict
        token = proposed
        if row.forced:
            token = row.forced.pop(0)
        elif row.watch and verdict is not None and row.verdict_at is None:
            token = self._watched(row, logits, proposed, verdict)
        elif row.verdict_at is not None and verdict is not None and row.closed_at is None:
            token = self._closed(row, row.verdict_at, proposed, verdict)
        row.made.append(token)
        if token in self._end_ids and not row.forced:
            row.done = True
        elif not row.watch:
            row.done = len(row.made) >= row.max_new
        elif row.verdict_at is not None and verdict is not None and not row.forced:
            row.done = self._finished(row, row.verdict_at, verdict)

    def _finished(self, row: Row, verdict_at: int, verdict: VerdictTokens) -> bool:
        """Whether a row with a verdict has all that is wanted of it."""
        if row.stop_at_verdict:
            return True
        if row.closed_at is None and verdict.closing in self._text(row.made[verdict_at:]):
            row.closed_at = len(row.made)
        if row.closed_at is None:
            return False
        if row.stop_at_comply and row.refuses is False:
            return True
        return len(row.made) - row.closed_at >= row.max_new

    def _closed(self, row: Row, verdict_at: int, proposed: int, verdict: VerdictTokens) -> int:
        """The next token between verdict and closing marker."""
        spent = len(row.made) - verdict_at >= VERDICT_TOKENS - len(verdict.close)
        if not spent and proposed not in self._end_ids:
            return proposed
        first, *rest = verdict.close
        row.forced = list(rest)
        return first

    def _watched(self, row: Row, logits: Scores, proposed: int, verdict: VerdictTokens) -> int:
        """The next token of a row that has no verdict yet."""
        if self._tail_of(row).endswith(verdict.anchor):
            odds = float(logits[verdict.refuse[0]] - logits[verdict.comply[0]])
            row.log_odds = odds
            row.refuses = odds >= (self._threshold if row.threshold is None else row.threshold)
            row.verdict_at = len(row.made)
            first, *rest = verdict.refuse if row.refuses else verdict.comply
            row.forced = list(rest)
            return first
        closes = proposed in self._end_ids or verdict.closing in self._tail_of(row, proposed)
        if len(row.made) >= row.think_budget or closes:
            row.led = True
            first, *rest = verdict.lead_in
            row.forced = list(rest)
            return first
        return proposed

    def _tail_of(self, row: Row, *further: int) -> str:
        """The end of the model's own turn."""
        made = row.made[-_TAIL:]
        n_before = min(_TAIL - len(made), row.opened)
        before = row.prompt[-n_before:] if n_before else []
        return self._text([*before, *made, *further])

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False)) if ids else ""


# Decoding as a stream: a row that ends makes place for the next, and gives its result at once.
#
# No batch waits for its slowest row, rows of one wave share the beginnings of their prompts, and memory is
# bounded by the tokens that are held, however many rows there are.

REFILL = 0.75
"""Share of a batch below which it is filled up: prompts are read a good number at a time."""
_SHORT = 255
"""Tokens up to which prompts of any length stand side by side."""
_CPU_BYTES = 1 << 30
_GPU_SHARE = 0.35
"""Memory for keys and values of one stream: bytes on a CPU, a share of what is free on a GPU."""


@dataclass(frozen=True)
class Without:
    """How rows of the base stand among those with an adapter."""

    off: Callable[[], AbstractContextManager[Any]]
    """Within which the adapter is off for all of a pass."""
    adapter: str
    """PEFT's name of it."""

    def names(self, rows: Sequence[Row]) -> dict[str, Any]:
        """What a pass is told of its rows; nothing where all are the adapter's."""
        if not any(row.by_base for row in rows):
            return {}
        return {"adapter_names": ["__base__" if row.by_base else self.adapter for row in rows]}


class Decoder:
    """Decoding of many rows with one model: greedy, or drawn where a row has draws of its own."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        end_ids: frozenset[int],
        batch_size: int = 128,
        context: Callable[[], AbstractContextManager[Any]] | None = None,
        most_tokens: int | None = None,
    ) -> None:
        """`batch_size`: most rows side by side. `most_tokens`: most tokens held, None is what memory allows.

        `context`: what every pass of the model runs in, such as one that switches an adapter off.
        """
        self._model, self._tokenizer, self._end_ids = model, tokenizer, end_ids
        self._batch_size, self._most_tokens = batch_size, most_tokens
        self._context: Callable[[], AbstractContextManager[Any]] = context or contextlib.nullcontext

    def run(self, rows: Sequence[Row], verdict: VerdictTokens | None = None, threshold: float = 0.0) -> None:
        """Decodes all rows in place. `threshold`: a watched row refuses when its log-odds are at least this."""
        for _ in self.stream(iter(in_order(rows)), verdict, threshold):
            pass

    def stream(
        self, rows: Iterator[Row], verdict: VerdictTokens | None = None, threshold: float = 0.0
    ) -> Iterator[Row]:
        """Decodes rows as they come, best in the order of `in_order`, and gives each back when it is finished."""
        batch = self.batch(verdict, threshold)
        while True:
            if len(batch.rows) <= REFILL * self._batch_size:
                new: list[Row] = []
                while (row := next(rows, None)) is not None:
                    if not batch.has_room(row, new):
                        rows = itertools.chain([row], rows)
                        break
                    new.append(row)
                batch.join(new)
            if not batch.rows:
                return
            yield from batch.step()

    def batch(self, verdict: VerdictTokens | None = None, threshold: float = 0.0, base: Without | None = None) -> Batch:
        """A batch of its own, empty. With `base` its rows may be those of the base as well."""
        steering = Steering(self._tokenizer, self._end_ids, verdict, threshold)
        limit = self._most_tokens or tokens_that_fit(self._model)
        return Batch(self._model, steering, self._context, self._batch_size, limit, base)


class Batch:
    """Rows that are decoded side by side. They join and leave between two tokens."""

    def __init__(
        self,
        model: Any,
        steering: Steering,
        context: Callable[[], AbstractContextManager[Any]],
        most_rows: int,
        most_tokens: int,
        base: Without | None = None,
    ) -> None:
        self.rows: list[Row] = []
        """Those that run, each in the slot of its place."""
        self._model, self._steering, self._context = model, steering, context
        self._most_rows, self._most_tokens, self._base = most_rows, most_tokens, base
        self.known = Known()
        """What is read already of those that join."""
        self._slots = Slots(_text_config(model).num_hidden_layers, model.device)

    def has_room(self, row: Row, joining: Sequence[Row] = ()) -> bool:
        """Whether a row fits beside those that run and those that are about to join; into an empty batch it does."""
        n_rows = len(self.rows) + len(joining)
        most = max([self._slots.span + _still(one) for one in self.rows] + [_whole(one) for one in (*joining, row)])
        return not n_rows or (n_rows < self._most_rows and (n_rows + 1) * most <= self._most_tokens)

    def join(self, rows: Sequence[Row]) -> None:
        """Reads prompts but for their last tokens, which begin the decoding."""
        self.add(rows, self.read(rows))

    def read(self, rows: Sequence[Row]) -> list[list[Node]]:
        """What `add` takes of each row: the nodes of its prompt, filled."""
        found: dict[int, list[Node]] = {}
        for by_base in (False, True):
            alike = [row for row in rows if row.by_base is by_base]
            if not alike:
                continue
            with self._context(), self._base.off() if self._base and by_base else contextlib.nullcontext():
                levels = share([row.prompt[:-1] for row in alike], known=self.known.node(self._model, by_base))
                self.known.resume(levels, [row.prompt for row in alike], by_base)
                read(self._model, levels)
            found |= {id(alike[place]): node.path() for level in levels for node in level for place in node.rows}
        return [found[id(row)] for row in rows]

    def add(self, rows: Sequence[Row], paths: Sequence[Sequence[Node]]) -> None:
        """Takes rows in, each with what `read` gave of it."""
        if rows:
            self._slots.add(paths)
            self.rows += rows

    def leave(self, row: Row) -> None:
        """Frees a row's slot. The last row moves into it."""
        place = next(place for place, one in enumerate(self.rows) if one is row)
        self._slots.drop(place)
        self.rows[place] = self.rows[-1]
        self.rows.pop()

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """One more token for every row; those that it finished have left."""
        mask, positions = self._slots.next_token()
        last = [[row.made[-1] if row.made else row.prompt[-1]] for row in self.rows]
        with self._context():
            out = self._model(
                input_ids=torch.tensor(last, device=self._model.device),
                attention_mask=mask,
                position_ids=positions,
                past_key_values=self._slots.cache,
                **(self._base.names(self.rows) if self._base is not None else {}),
            )
        self._slots.wrote()
        logits = out.logits[:, -1].float()  # B V
        for place, row in enumerate(self.rows):
            if row.shape is not None:
                logits[place] = row.shape(logits[place])
        proposed = logits.argmax(-1).tolist()
        draws = {place: row.draws for place, row in enumerate(self.rows) if row.draws is not None}
        if draws:
            for place, token in zip(draws, drawn(logits[list(draws)], list(draws.values())), strict=True):
                proposed[place] = token
        for place, row in enumerate(self.rows):
            self._steering.step(row, logits[place], proposed[place])
        finished = [row for row in reversed(self.rows) if row.done]
        for row in finished:
            self.leave(row)
        return finished


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Long prompts first, those of similar length by their tokens: neighbours share what they can.

    A row attends over the span of the longest beside it, which costs little below `_SHORT` tokens and much above.
    """
    return sorted(rows, key=lambda row: (-max(len(row.prompt), _SHORT).bit_length(), row.prompt))


def _still(row: Row) -> int:
    """Most tokens that a row may yet be given."""
    thought = row.think_budget + VERDICT_TOKENS if row.watch else 0
    return max(thought + row.max_new - len(row.made), 1)


def _whole(row: Row) -> int:
    """Most tokens that a row may come to, its prompt included."""
    return len(row.prompt) + _still(row)


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
