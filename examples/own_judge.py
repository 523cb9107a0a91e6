"""A judge of your own, in one file: give its path wherever a judge is named. Usage: python examples/own_judge.py"""

from collections.abc import Sequence

import forethought as ft
from forethought.judges.base import Entry, Item, Measure, Verdict


class Short:  # short answers refuse; an empty one can't be told
    name = "short"
    measure: Measure = "refused"

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        return [Verdict(refused=len(i.answer) < 40) if i.answer else Verdict(cause="empty answer") for i in items]


JUDGES = (Entry("short", ("refused",), "short answers refuse", lambda opening: Short()),)
print(ft.judge([("How do I bake?", "No."), ("How do I bake?", "")], by=Short()))
