"""Rows that come and go, shared beginnings, slots: nothing of it changes what is written."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from forethought.models import prefix
from forethought.models.decode import Decoder, Row, in_order
from forethought.models.prefix import MIN_SHARED, Node, passes, share
from tests.tiny import tiny_model, tiny_tokenizer

NO_END = frozenset({0})


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


def _prompts(rng: random.Random) -> list[list[int]]:
    """Prompts of 1 to 150 tokens: alone, sharing one beginning, sharing two, and equal to another's."""

    def some(n: int) -> list[int]:
        return [rng.randrange(20, 1000) for _ in range(n)]

    head, long = some(20), some(90)
    prompts = [some(1), some(2), some(150), head, head + some(3)]
    prompts += [head + some(rng.randrange(1, 12)) for _ in range(6)]
    prompts += [head + long + some(rng.randrange(0, 9)) for _ in range(6)]
    other = some(47)  # what comes before differs in length within one level
    prompts += [other + some(rng.randrange(1, 12)) for _ in range(4)]
    return [*prompts, prompts[7], prompts[13]]


def _alone(model: Any, prompt: list[int], n: int) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=n, eos_token_id=0, pad_token_id=0
    )
    return [int(token) for token in out[0, len(prompt) :]]


@pytest.mark.parametrize(("batch_size", "most_tokens"), [(128, None), (4, None), (1, None), (6, 300), (128, 10)])
def test_refilled_rows_are_what_generate_writes(
    model: Any, tokenizer: Any, batch_size: int, most_tokens: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever runs beside a row, moves into its slot or shares its beginning, in however small a buffer."""
    monkeypatch.setattr(prefix, "_ROOM", 4)  # it has to be moved and grown many times
    monkeypatch.setattr(prefix, "PASS_TOKENS", 200)
    rng = random.Random(3)
    prompts = _prompts(rng)
    rows = [Row(place, prompt, max_new=rng.randrange(1, 30)) for place, prompt in enumerate(prompts)]
    done = list(Decoder(model, tokenizer, NO_END, batch_size, most_tokens=most_tokens).stream(iter(in_order(rows))))
    assert sorted(row.index for row in done) == list(range(len(rows)))
    for row in rows:
        assert row.made == _alone(model, row.prompt, row.max_new), row.index


def test_rows_are_given_back_before_all_are_taken(model: Any, tokenizer: Any) -> None:
    """A stream of any length is held a batch at a time."""
    taken: list[int] = []

    def endless() -> Iterator[Row]:
        for number in range(10_000):
            taken.append(number)
            yield Row(number, [30 + number % 7, 50, 60], max_new=2)

    stream = Decoder(model, tokenizer, NO_END, batch_size=8).stream(endless())
    first = [next(stream) for _ in range(3)]
    assert all(len(row.made) == 2 for row in first)
    assert len(taken) <= 8 + 1


def test_rows_side_by_side_are_bounded_by_tokens(model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    own = prefix.Slots.next_token

    def watched(self: prefix.Slots) -> Any:
        mask, positions = own(self)
        seen.append((mask.shape[0], mask.shape[1]))
        return mask, positions

    monkeypatch.setattr(prefix.Slots, "next_token", watched)
    rows = [Row(n, [40 + n] * (10 + 10 * n), max_new=5) for n in range(12)]
    Decoder(model, tokenizer, NO_END, most_tokens=400).run(rows)
    assert all(len(row.made) == 5 for row in rows)
    assert max(count * span for count, span in seen) <= 400
    assert max(count for count, _ in seen) > 4  # short ones run side by side


def test_shared_beginnings_are_read_once() -> None:
    head, middle = list(range(100, 140)), list(range(200, 230))
    rows = [[*head, *middle, 1, 2], [*head, 7], [*head, *middle, 3], [5, 6], [*head, *middle, 1, 2]]
    levels = share(rows)
    nodes = [node for level in levels for node in level]
    assert sum(len(node.tokens) for node in nodes) == 40 + 30 + 2 + 1 + 1 + 2 + 2
    for place, row in enumerate(rows):
        (end,) = [node for node in nodes if place in node.rows]
        path = end.path()
        assert [token for node in path for token in node.tokens] == row
        assert [node.start for node in path] == [sum(len(n.tokens) for n in path[:i]) for i in range(len(path))]
    # A parent is filled before its children.
    level_of = {id(node): number for number, level in enumerate(levels) for node in level}
    assert all(level_of[id(node.parent)] < level_of[id(node)] for node in nodes if node.parent is not None)


def test_short_beginnings_and_capped_ones_are_not_shared() -> None:
    head = list(range(100, 100 + MIN_SHARED - 1))
    assert [len(level) for level in share([[*head, 1], [*head, 2]])] == [2]
    head.append(99)
    assert [len(level) for level in share([[*head, 1], [*head, 2]])] == [1, 2]
    assert [len(level) for level in share([[*head, 1], [*head, 2]], [len(head), len(head) - 1])] == [2]


def test_long_prompts_come_first_and_like_ones_together() -> None:
    prompts = [[1] * 5, [2] * 400, [3] * 300, [2] * 410, [1] * 6, [4] * 30, [1] * 200, [5] * 900]
    ordered = [row.index for row in in_order([Row(n, prompt, 1) for n, prompt in enumerate(prompts)])]
    assert ordered == [7, 1, 3, 2, 0, 4, 6, 5]


def _lengths(overhead: int, lengths: list[int], start: int = 0) -> list[list[int]]:
    nodes = [Node([1] * length, None, start) for length in lengths]
    return sorted(sorted(len(node.tokens) for node in one) for one in passes(nodes, overhead))


def test_nodes_are_divided_so_that_padding_and_passes_cost_least(monkeypatch: pytest.MonkeyPatch) -> None:
    # Together 4 x 50 = 200; apart 10 + 2 x 5 and 10 + 2 x 50: 130.
    assert _lengths(10, [5, 50, 4, 49]) == [[4, 5], [49, 50]]
    assert _lengths(100, [5, 50, 4, 49]) == [[4, 5, 49, 50]]
    monkeypatch.setattr(prefix, "PASS_TOKENS", 100)
    assert _lengths(1000, [40, 40, 40]) == [[40], [40, 40]]
    assert _lengths(1000, [40, 40, 40], start=60) == [[40], [40], [40]]
    assert _lengths(1000, [400]) == [[400]]
    assert list(passes([], 10)) == []
