"""Mistakes that were found in published code of this kind, each by its number, and that each has a test.

A test is one for trap 4 by its name, `test_trap_4_...`; it stands where the code is that could fall into it.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

TRAPS = {
    1: "Labels are a copy of the padded ids, so that the loss counts tokens that are not there.",
    2: "Training begins a text with two BOS tokens, where inference begins it with one.",
    3: "The prompt at inference lacks the template's opening of the answer, and slicing strings makes up for it.",
    4: "What could not be judged, or has no label, counts as safe or harmless.",
    5: "A guard model is shown an empty user turn in place of the request.",
    6: "A success rate counts refusals: the better the defence, the worse its figure.",
    7: "The parser no longer fits what the renderer writes, so that every row has lost its rules.",
    8: "Demonstrations for rewriting come from the very benchmark that is tested on.",
    9: "All refusals are one constant sentence; what they should explain is gone.",
    10: "Harmless rows are never rewritten, so that the style itself becomes a reason to refuse.",
    11: "A teacher is asked one call after the other and saved at the end: a crash loses all that was paid for.",
    12: "Draws without a seed, paths of one machine: nobody else gets the same figures.",
}


def test_every_trap_has_a_test_and_every_such_test_a_trap() -> None:
    tested: Counter[int] = Counter()
    for file in Path(__file__).parent.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_trap_"):
                tested[int(node.name.split("_")[2])] += 1
    assert set(tested) == set(TRAPS)
