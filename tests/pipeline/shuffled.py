"""Workers that do their pieces in another order, and some of them twice: what a cluster may do, without one."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Sequence
from typing import Any


class Shuffled:
    """Not `Here`: rows come in blocks, and what a piece needs travels."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = random.Random(seed)
        self.pieces = 0

    def map(
        self,
        function: Callable[..., Any],
        items: Sequence[Any],
        *shared: Any,
        on_result: Callable[[int, Any], None] | None = None,
        cpus: float = 1.0,
        gpus: float = 0.0,
    ) -> list[Any]:
        function, held = pickle.loads(pickle.dumps((function, shared)))
        places = list(range(len(items)))
        self._rng.shuffle(places)
        results: dict[int, Any] = {}
        for place in places:
            for _ in range(1 + (self._rng.random() < 0.3)):
                results[place] = pickle.loads(pickle.dumps(function(pickle.loads(pickle.dumps(items[place])), *held)))
                self.pieces += 1
            if on_result is not None:
                on_result(place, results[place])
        return [results[place] for place in range(len(items))]
