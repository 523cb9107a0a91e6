"""What a model is attacked with: settings, the attacks that they name, and the requests that those are put to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from forethought.errors import ConfigError
from forethought.extensions import FILE, add_file
from forethought.judges import DEFAULT_JUDGE
from forethought.models.callspec import Price
from forethought.records import Record

if TYPE_CHECKING:
    from forethought.attacks.base import Attack
    from forethought.attacks.searches.base import Method
    from forethought.data.behaviors import Behavior

SHIPPED = "shipped"
"""Our own requests: scenarios held out of training."""
_COPYRIGHT = "copyright"


class AttackSettings(Record, use_attribute_docstrings=True):
    """What is put to a model, by whom it is written and rated, and who judges."""

    suite: str | None = None
    """quick, paper, reasoning, adaptive, all or a YAML file. Default: quick, unless attacks are named."""
    attacks: tuple[str, ...] = ()
    """An attack or search, options and composition included (docs/attacks.md), besides the suite's; or a .py file of
    yours that lists ATTACKS."""
    benchmarks: tuple[str, ...] = ()
    """A benchmark of any layout, or `shipped`. Default: the shipped requests."""
    harmless: tuple[str, ...] = ()
    """Harmless requests, the control. Default: the benchmark's own, else shipped."""
    layout: str | None = None
    """The benchmark's layout, where it isn't recognised."""
    columns: dict[str, str] = Field(default_factory=dict)
    """The benchmark's column of a noun, instead of a layout, as `forethought benchmark` has it."""
    harmless_columns: dict[str, str] = Field(default_factory=dict)
    """The same of the harmless requests."""
    skip_bad: bool = False
    """Leave malformed rows out and name them; else the first is an error."""
    by: str = "category"
    """Strata of the sample: category, attack or a tag."""
    n: int = Field(default=50, ge=1)
    """Most requests of each label under an attack."""
    minutes: float | None = Field(default=None, gt=0)
    """Shrink the sample, all attacks alike, to what fits in so many minutes. Searches come on top."""
    attacker: str | None = None
    """A model that translates, rewrites and searches. Without: what needs one is not run."""
    attacker_base_url: str | None = None
    """Address of the attacker's server."""
    evaluator: str | None = None
    """A model that rates for searches. Default: the attacker."""
    templates: Path | None = None
    """A local file of jailbreak templates."""
    persuasion: Path | None = None
    """A local file of persuasion techniques."""
    judge: str = DEFAULT_JUDGE
    """A judge's name (`forethought judge --help`), its folder, or ROLE@MODEL."""
    judge_base_url: str | None = None
    """Address of the judge's server."""
    price_in: float | None = Field(default=None, ge=0)
    """US dollars for a million input tokens of the attacked model."""
    price_out: float | None = Field(default=None, ge=0)
    """US dollars for a million output tokens of the attacked model."""
    query_budget: int = Field(default=100, ge=1)
    """Queries of a search for one request."""
    goals: int = Field(default=10, ge=1)
    """Most requests of each label that searches are run for."""
    max_answer_tokens: int = Field(default=64, ge=1)
    """Longest answer, in tokens."""
    seed: int = 0
    """Of the sample, the attacks and the searches."""
    compare: Path | None = None
    """Another run's folder, such as the base model's: paired differences."""
    control: bool = False
    """Measure on a trained model's base which styles can be read."""

    @property
    def price(self) -> Price | None:
        """The attacked model's; None where it is not known."""
        if self.price_in is None or self.price_out is None:
            return None
        return Price(input=self.price_in, output=self.price_out)


@dataclass(frozen=True)
class Requests:
    """What attacks are put to, and how it was read."""

    harmful: list[Behavior]
    harmless: list[Behavior]
    said: list[str] = field(default_factory=list)
    """A line a source."""


def chosen_attacks(settings: AttackSettings) -> tuple[list[Attack], list[Method], dict[str, Path]]:
    """(static attacks, searches, local files by attack) of the suite and of --attack.

    Raises ConfigError and InputError for what does not exist or can't be read.
    """
    from forethought import attacks as package
    from forethought.attacks.catalogue import load_suite, parse_attack, suite_attacks
    from forethought.attacks.searches.base import all_searches, parse_method

    named = settings.suite or (None if settings.attacks else "quick")
    files = {"templates": settings.templates, "persuasion": settings.persuasion}
    given = {name: path for name, path in files.items() if path is not None}
    attacks: dict[str, Attack] = {}
    methods: dict[str, Method] = {}
    if named is not None:
        suite = load_suite(named)
        suite = suite.model_copy(update={"files": {**suite.files, **given}})
        given = suite.files
        attacks = {attack.name: attack for attack in suite_attacks(suite)}
        methods = {method.name: method for method in map(parse_method, suite.adaptive)}
    for spec in settings.attacks:
        if spec.endswith(FILE):
            attacks |= {one.name: one for one in add_file(package, spec, "ATTACKS")}
            continue
        if spec.partition(":")[0].strip() in all_searches():
            method = parse_method(spec)
            methods[method.name] = method
        else:
            attack = parse_attack(spec)
            attacks[attack.name] = attack
    return list(attacks.values()), list(methods.values()), given


def chosen_requests(settings: AttackSettings) -> Requests:
    """The requests of all benchmarks, each once, at most `n` of each label, drawn by seed with strata in proportion.

    Rows without a label count as harmful in a benchmark and as harmless in a control. Raises InputError and
    ConfigError as `load_benchmark` does.
    """
    from forethought.data.behaviors import sample

    harmful, own, said = _read(settings, settings.benchmarks or (SHIPPED,), "harmful", harmful=True)
    controls = settings.harmless or (() if own else (SHIPPED,))
    strays, harmless, more = _read(settings, controls, "ordinary", harmful=False)
    if strays:
        said.append(f"{len(strays)} harmful rows of the control are left out")
    if not harmful:
        raise ConfigError(", ".join(settings.benchmarks), "holds no harmful request", "Give a benchmark that does")

    def drawn(behaviors: Sequence[Behavior]) -> list[Behavior]:
        unique = list({behavior.request.id: behavior for behavior in behaviors}.values())
        return sample(unique, settings.n, settings.seed, strata(settings.by, unique)) if unique else []

    return Requests(drawn(harmful), drawn([*harmless, *own]), [*said, *more])


def strata(by: str, behaviors: Sequence[Behavior]) -> str:
    """What makes strata: `by`, or nothing where a control doesn't say it. Harmful ones that don't say it are an error
    of the sampling."""
    names = [name.strip() for name in by.split(",")]
    harmful = any(behavior.request.harmful for behavior in behaviors)
    return by if harmful or all(any(row.says(name) for row in behaviors) for name in names) else ""


def _read(
    settings: AttackSettings, sources: Sequence[str], shipped: str, harmful: bool
) -> tuple[list[Behavior], list[Behavior], list[str]]:
    """(harmful, harmless, what was read)."""
    bad: list[Behavior] = []
    good: list[Behavior] = []
    said = []
    for source in sources:
        rows, line = _shipped(shipped) if source == SHIPPED else _loaded(settings, source, harmful)
        said.append(line)
        bad += [row for row in rows if row.request.harmful]
        good += [row for row in rows if row.request.harmful is False]
    return bad, good, said


def _shipped(name: str) -> tuple[list[Behavior], str]:
    from forethought.data.behaviors import Behavior
    from forethought.data.shipped import shipped_requests

    rows = [Behavior(id=r.id, benchmark=SHIPPED, request=r) for r in shipped_requests(name, "test")]
    return rows, f"shipped:{name}: {len(rows)} requests of scenarios that no training uses"


def _loaded(settings: AttackSettings, source: str, harmful: bool) -> tuple[list[Behavior], str]:
    from forethought.data.benchmarks import load_benchmark

    # A layout that is named is the benchmark's; a control is recognised by itself, or its columns are named.
    named = (settings.layout, settings.columns) if harmful else (None, settings.harmless_columns)
    read = load_benchmark(source, *named, harmful, settings.skip_bad)
    rows = [row for row in read.behaviors if row.request.kind != _COPYRIGHT]
    counts = Counter(row.says("label") for row in rows)
    notes = [f"{count} {label}" for label, count in sorted(counts.items())]
    if left := len(read.behaviors) - len(rows):
        notes.append(f"{left} about copyright left out: other judges are needed for them")
    if read.malformed:
        notes.append(f"{len(read.malformed)} malformed left out, the first is {read.malformed[0]}")
    return rows, f"{source}: {', '.join(notes)} ({'; '.join(read.columns)})"
