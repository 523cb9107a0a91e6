"""Workers that do their pieces in another order, and some of them twice: what a cluster may do, without one."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Generator, Sequence
from typing import Any

from forethought.cluster import Workers


class Shuffled(Workers):
    """Not `Here`: rows come in blocks, and what a piece needs travels."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = random.Random(seed)
        self.pieces = 0

    def _done(
        self, function: Callable[..., Any], items: Sequence[Any], shared: tuple[Any, ...]
    ) -> Generator[tuple[int, Any]]:
        function, held = pickle.loads(pickle.dumps((function, shared)))
        places = list(range(len(items)))
        self._rng.shuffle(places)
        for place in places:
            for _ in range(1 + (self._rng.random() < 0.3)):
                result = pickle.loads(pickle.dumps(function(pickle.loads(pickle.dumps(items[place])), *held)))
                self.pieces += 1
            yield place, result
