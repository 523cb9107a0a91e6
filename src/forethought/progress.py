"""How work that takes long says where it stands, and asks before it costs money. Silent unless somebody listens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from forethought.errors import ConfigError


class Cost(Protocol):
    """What something will cost, before the first call; its text says so."""

    @property
    def calls(self) -> int:
        """Calls to a model that is paid for."""
        ...

    @property
    def cost(self) -> float | None:
        """US dollars; None where the price is not known."""
        ...


class Bar:
    """The steps of one piece of work. This one shows nothing."""

    def total(self, total: int | None) -> None:
        """So many steps there are; None where nobody knows."""

    def advance(self, steps: int, note: str = "") -> None:
        """So many steps more are done; `note` is told beside the bar."""

    def show(self, done: int, total: int, note: str = "") -> None:
        """Where the work stands as a whole."""

    def calls(self, state: Any) -> None:
        """Where a run of model calls stands: rows done, rate, cost and calls at once."""
        cost = "" if state.usage.cost is None else f", ${state.usage.cost:.2f}"
        note = f"{state.rate:.1f} rows/s, {state.usage.calls} calls{cost}, {state.concurrency} at once"
        self.show(state.done, state.total, note)

    def step(self, step: int, steps: int, losses: Mapping[str, float]) -> None:
        """A training step is done, with these losses."""
        self.show(step, steps, " ".join(f"{key.removeprefix('loss_')} {value:.3f}" for key, value in losses.items()))


class Progress:
    """Hears what long work says. This one is silent, and agrees to costs up to its limit: what a program wants.

    The command line's (`cli.terminal.Terminal`) prints, draws bars and asks.
    """

    def __init__(self, max_cost: float = 0.0) -> None:
        """`max_cost`: US dollars up to which models that are paid for may be asked."""
        self.max_cost = max_cost

    def say(self, line: Any) -> None:
        """One line, in rich's markup, or a table of rich's."""

    def mapping(self, name: str, mapping: Any) -> None:
        """Which columns of a source were taken for what."""

    @contextmanager
    def bar(self, name: str) -> Iterator[Bar]:
        """A bar for one piece of work, gone when it is done."""
        yield Bar()

    def agree(self, cost: Cost) -> bool:
        """Whether to go on at this cost. Raises ConfigError where that is more than was allowed, or not known."""
        if cost.calls == 0 or (cost.cost is not None and cost.cost <= self.max_cost):
            return True
        price = "a model of unknown price" if cost.cost is None else f"about ${cost.cost:.2f}"
        raise ConfigError(
            price, f"may cost more than max_cost {self.max_cost:g}", "Allow more, or give the model's price"
        )
