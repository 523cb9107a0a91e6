"""What a benchmark holds, in one form for all of them; and a part of it that stands for the whole."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import Field

from forethought.errors import ConfigError
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


@dataclass
class Benchmark:
    """A benchmark as it was read, with all that was left out."""

    name: str
    layout: str | None = None
    """Name of the layout; None where the columns were guessed or named by the user."""
    columns: list[str] = field(default_factory=list)
    """How the columns were understood, a line a file."""
    behaviors: list[Behavior] = field(default_factory=list)
    malformed: list[str] = field(default_factory=list)
    """Rows that were skipped because the user asked for it: place and fault."""
    without_text: int = 0
    """Rows, or languages of a row, that ask nothing."""
    repeated: int = 0
    """Rows that stand there before in every respect; each is kept once."""
    renamed: int = 0
    """Rows whose id was another row's: they got `~2` and so on."""
    _by_id: dict[str, list[Behavior]] = field(default_factory=dict, repr=False)

    def add(self, behavior: Behavior) -> None:
        """Keeps a behaviour once, under an id that no other has."""
        known = self._by_id.setdefault(behavior.id, [])
        if behavior in known:
            self.repeated += 1
            return
        known.append(behavior)
        if len(known) > 1:
            self.renamed += 1
            behavior = behavior.model_copy(update={"id": f"{behavior.id}~{len(known)}"})
        self.behaviors.append(behavior)


def sample(behaviors: Sequence[Behavior], n: int, seed: int, by: str = "category") -> list[Behavior]:
    """At most `n` behaviours, strata in proportion to their size, in the order in which they stand.

    `by`: what makes a stratum besides label and kind: `category`, `attack` or a tag, several joined
    by commas; empty for none. Places are divided by the method of Sainte-Laguë, so that a smaller
    sample is a part of every larger one of the same seed, and a stratum's share is within rounding of
    its share of the whole. Within a stratum the smallest hashes of seed and content are
    drawn: the order of rows and the names of files don't matter, and a row that is added
    changes at most the row it displaces and one place between strata. Translations and styles of one request share a
    hash, so that strata by language hold the same requests. Raises ConfigError for n below 1 and
    for a `by` that no behaviour has.
    """
    if n < 1:
        raise ConfigError(f"a sample of {n}", "is empty", "Draw at least 1")
    names = [name.strip() for name in by.split(",") if name.strip()]
    if len(behaviors) > 0:
        known = [
            "category",
            "label",
            "kind",
            "attack",
            *sorted({tag for behavior in behaviors for tag in behavior.tags}),
        ]
        if unknown := [name for name in names if name not in known]:
            fix = f"Use one of {', '.join(known)}"
            raise ConfigError(f"'{unknown[0]}'", "is nothing that these behaviours have", fix)
    strata: dict[tuple[str, ...], list[tuple[str, str, int]]] = defaultdict(list)
    for place, behavior in enumerate(behaviors):
        stratum = tuple(behavior.says(name) for name in ("label", "kind", *names))
        strata[stratum].append((*_rank(behavior, seed), place))
    queue = [
        ((number + 0.5) / len(members), *member)
        for members in strata.values()
        for number, member in enumerate(sorted(members))
    ]
    return [behaviors[place] for place in sorted(entry[-1] for entry in sorted(queue)[:n])]


def _rank(behavior: Behavior, seed: int) -> tuple[str, str]:
    """Where a behaviour stands in its stratum: by its family, then by itself."""

    def digest(text: str) -> str:
        return hashlib.sha256(f"{seed}\x1f{text}".encode()).hexdigest()

    own = digest(f"{behavior.request.id}\x1f{behavior.request.operator or ''}")
    return (digest(behavior.request.family) if behavior.request.family else own), own
