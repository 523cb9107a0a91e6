"""What a benchmark holds, in one form for all of them."""

from __future__ import annotations

from collections import Counter

from pydantic import Field

from forethought.records import Record, Request

CONTEXT_END = "\n\n---\n\n"
"""Between a context and what is asked about it, as HarmBench places it (arXiv 2402.04249)."""


class Behavior(Record):
    """One row of a benchmark, or one language of it: what is asked, and what the benchmark says of it."""

    id: str
    """The benchmark's own id where it has one, else the request's content id; unique in what was loaded."""
    benchmark: str
    """Name of the layout, or of the file where it has none."""
    request: Request
    """As it is put to a model, a context included. `harmful` is None where the benchmark doesn't say."""
    context: str = ""
    """Text that the request is about; it stands at the head of the request's last turn."""
    reference: str | None = None
    """A target string for optimisers, or a reference answer. It is never taken for an answer."""
    tags: dict[str, str] = Field(default_factory=dict)
    """What else the benchmark says, by name: `language`, `function`, `prompt_style`."""

    @property
    def asked(self) -> str:
        """The last turn without its context: what an attack restyles."""
        return self.request.text.removeprefix(self.context + CONTEXT_END) if self.context else self.request.text

    def placed(self, text: str) -> str:
        """A restyled `asked` with the context put before it again."""
        return f"{self.context}{CONTEXT_END}{text}" if self.context else text

    def says(self, name: str) -> str:
        """A property by name: `category` (the first), `label`, `kind`, `attack` or a tag. Empty: it has none."""
        known = {
            "category": next(iter(self.request.categories), ""),
            "label": {True: "harmful", False: "harmless", None: "unlabelled"}[self.request.harmful],
            "kind": self.request.kind,
            "attack": self.request.operator or "",
        }
        return known[name] if name in known else self.tags.get(name, "")


class Benchmark(Record):
    """A benchmark as it was read, with all that was left out."""

    name: str
    layout: str | None
    """Name of the layout; None where the columns were guessed or named by the user."""
    columns: tuple[str, ...]
    """How the columns were understood, a line a file."""
    behaviors: tuple[Behavior, ...]
    malformed: tuple[str, ...] = ()
    """Rows that were skipped because the user asked for it: place and fault."""
    without_text: int = 0
    """Rows, or languages of a row, that ask nothing."""
    repeated: int = 0
    """Rows that stand there before in every respect; each is kept once."""
    renamed: int = 0
    """Rows whose id was another row's: they got `~2` and so on."""

    @property
    def by_label(self) -> Counter[bool | None]:
        """How many behaviours are harmful, harmless and unlabelled."""
        return Counter(behavior.request.harmful for behavior in self.behaviors)

    def labelled(self, harmful: bool | None) -> list[Behavior]:
        """The behaviours with one label; None is those without."""
        return [behavior for behavior in self.behaviors if behavior.request.harmful is harmful]

    def of_kind(self, *kinds: str) -> list[Behavior]:
        """The behaviours of some kinds: HarmBench's `copyright` rows never stand in a mean with `harmful` ones."""
        return [behavior for behavior in self.behaviors if behavior.request.kind in kinds]
