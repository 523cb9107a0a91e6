"""A judge that workers of a Ray cluster hold: as any other, in blocks of answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from forethought.cluster.holders import Done, Holders, Lost, Say
from forethought.judges.base import Item, Judge, Verdict

_BLOCK = 256


def holders_of(name: str, opened: Callable[[], Judge], on: str | None) -> Holders | None:
    """Workers who hold the judge of that name, which `opened` gives; None where this process judges. A judge at a
    server is asked from here: its answers cost money, and stand in one journal."""
    of_models = [Path(one.partition("@")[2]) for one in name.split("+") if "@" in one]
    if on is None or not all(path.is_dir() for path in of_models):
        return None
    return Holders(on, opened, gpus=None if of_models else 0.0)


class SpreadJudge:
    """A Judge."""

    def __init__(self, judge: Judge, holders: Holders) -> None:
        """`holders` hold the same judge."""
        self.name, self.measure = judge.name, judge.measure
        self._holders = holders

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """One verdict an item, in order; those that every worker was lost with are unscored."""
        found: list[Verdict] = [Verdict(cause="not judged")] * len(items)
        blocks = ((start, items[start : start + _BLOCK]) for start in range(0, len(items), _BLOCK))
        for (start, block), said in self._holders.each(_judge, blocks):
            if isinstance(said, Lost):
                found[start : start + len(block)] = [Verdict(cause=said.cause)] * len(block)
            elif not isinstance(said, Done):
                found[start : start + len(block)] = said
        return found


def _judge(held: Judge, block: tuple[int, Sequence[Item]], say: Say) -> None:
    say(held.judge(block[1]))
