"""Harmless puzzles that fill a model's thought: one with its reasoning written out, one that is long to solve."""

from __future__ import annotations

import random

_NAMES = ("Ada", "Ben", "Cleo", "Dov", "Elif", "Finn", "Gita", "Hal")


def worked_puzzle(rng: random.Random, lines: int) -> str:
    """Beads that change hands, with so many lines of right reasoning about who holds how many."""
    names = rng.sample(_NAMES, 4)
    held = {name: rng.randint(20, 60) for name in names}
    begin = ", ".join(f"{name} {count}" for name, count in held.items())
    shown = [f"Puzzle. Four friends swap beads. At first they hold: {begin}. Who holds most at the end?", "Reasoning:"]
    for number in range(1, lines + 1):
        giver = rng.choice([name for name in names if held[name] > 1])
        taker = rng.choice([name for name in names if name != giver])
        beads = rng.randint(1, min(9, held[giver] - 1))
        held[giver], held[taker] = held[giver] - beads, held[taker] + beads
        shown.append(
            f"{number}. {giver} gives {beads} to {taker}: now {giver} has {held[giver]} and {taker} has {held[taker]},"
            f" still {sum(held.values())} in all."
        )
    return "\n".join(shown)


def decoy_puzzle(rng: random.Random) -> str:
    """A round trip over eight towns whose shortest order is asked for: many orders, none of them hard to add up."""
    roads = [f"{one}-{other} {rng.randint(3, 40)}" for place, one in enumerate(_NAMES) for other in _NAMES[place + 1 :]]
    return (
        f"Eight friends live apart: {', '.join(_NAMES)}. The roads between them are, in miles: {', '.join(roads)}."
        f" Starting"
        " and ending at Ada's, in which order does a visitor see all of them by the shortest way?"
    )
