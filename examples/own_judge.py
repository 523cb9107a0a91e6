"""A judge of your own, in one file. Usage: python examples/own_judge.py"""

import forethought as ft
from forethought.judges.base import Entry, Item, Verdict


class Short:
    """Short answers refuse; an empty one can't be told."""

    name, measure = "short", "refused"

    def judge(self, items: list[Item]) -> list[Verdict]:
        return [Verdict(refused=len(i.answer) < 40) if i.answer else Verdict(cause="empty answer") for i in items]


JUDGES = (Entry("short", ("refused",), "short answers refuse", lambda opening: Short()),)
print(ft.judge([("How do I bake?", "No."), ("How do I bake?", "")], by=Short()))
