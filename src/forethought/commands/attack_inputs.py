"""What `forethought attack` works on: the model, the attacks, and the requests that they are put to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from forethought.commands.shared import around, column_overrides
from forethought.errors import ConfigError
from forethought.evals.judges import DEFAULT_JUDGE

if TYPE_CHECKING:
    from forethought.engine.conversation import Respondent
    from forethought.engine.local import LocalModel
    from forethought.engine.pricing import Price
    from forethought.engine.settings import Settings
    from forethought.evals.attacks.adaptive.base import Method
    from forethought.evals.attacks.base import Attack
    from forethought.evals.benchmarks.behaviors import Behavior

SHIPPED = "shipped"
"""Our own requests: scenarios held out of training."""
_LOCAL = "forethought/"
_COPYRIGHT = "copyright"


@dataclass(frozen=True)
class AttackChoice:
    """What the command line says."""

    model: str
    adapter: Path | None = None
    defence: str | None = None
    """At inference, around the model."""
    suite: str | None = None
    """None: `quick`, unless attacks are named."""
    attacks: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] = ()
    harmless: tuple[str, ...] = ()
    layout: str | None = None
    columns: tuple[str, ...] = ()
    skip_bad: bool = False
    by: str = "category"
    n: int = 50
    """Most requests of each label under an attack."""
    minutes: float | None = None
    attacker: str | None = None
    attacker_base_url: str | None = None
    evaluator: str | None = None
    """None: the attacker."""
    templates: Path | None = None
    persuasion: Path | None = None
    judge: str = DEFAULT_JUDGE
    judge_base_url: str | None = None
    base_urls: tuple[str, ...] = ()
    takes_prefill: bool = False
    price_in: float | None = None
    price_out: float | None = None
    max_cost: float = 1.0
    """US dollars from which to ask."""
    query_budget: int = 100
    goals: int = 10
    """Most requests of each label that searches are run for."""
    max_answer_tokens: int = 64
    seed: int = 0
    out: Path | None = None
    results: Path | None = None
    compare: Path | None = None
    control: bool = False
    rejudge: bool = False
    show: bool = False
    yes: bool = False

    @property
    def price(self) -> Price | None:
        """The attacked model's, where both halves are given."""
        from forethought.engine.pricing import Price

        if self.price_in is None or self.price_out is None:
            return None
        return Price(input=self.price_in, output=self.price_out)


@dataclass(frozen=True)
class Target:
    """The attacked model, opened."""

    respondent: Respondent
    local: LocalModel | None
    """None for a server's."""
    paid: bool
    """Whether asking it may cost money."""

    @property
    def settings(self) -> Settings | None:
        """What stands beside a trained model."""
        return self.local.settings if self.local is not None else None

    @property
    def thinks(self) -> bool:
        return self.local is not None and self.local.thinks


@dataclass(frozen=True)
class Requests:
    """What attacks are put to, and how it was read."""

    harmful: list[Behavior]
    harmless: list[Behavior]
    said: list[str] = field(default_factory=list)
    """A line a source."""


def is_local(choice: AttackChoice) -> bool:
    """Whether the model is loaded here; else it is asked for at a server."""
    name = choice.model
    if choice.adapter is not None or name.startswith(_LOCAL) or Path(name).exists():
        return True
    return "/" not in name and not choice.base_urls


def fingerprint(choice: AttackChoice) -> list[tuple[str, int, int]]:
    """Names, sizes and times of a model folder's files: a model that was trained again is another one."""
    folder = Path(choice.adapter or choice.model.removeprefix(_LOCAL))
    files = sorted(folder.glob("*")) if folder.is_dir() else []
    stats = [(file.name, file.stat()) for file in files if file.is_file()]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def open_target(choice: AttackChoice) -> Target:
    """The attacked model. Raises ModelError where it can't be opened."""
    if is_local(choice):
        from forethought.engine.local import LocalModel

        if choice.base_urls or choice.takes_prefill:
            option = "--base-url" if choice.base_urls else "--takes-prefill"
            raise ConfigError(option, "is for models of a server", "Leave it out, or name PROVIDER/MODEL")
        local = LocalModel.load(choice.model.removeprefix(_LOCAL), choice.adapter)
        defended = around(choice.defence, local, local) if choice.defence else local
        return Target(defended, local, paid=False)
    from forethought.engine.servers import Servers, ServerSettings

    servers = Servers(choice.model, choice.base_urls, ServerSettings(prefill=choice.takes_prefill))
    defended = around(choice.defence, servers, None) if choice.defence else servers
    return Target(defended, None, paid=choice.price is not None or not choice.base_urls)


def chosen_attacks(choice: AttackChoice) -> tuple[list[Attack], list[Method], dict[str, Path]]:
    """(static attacks, searches, local files by attack) of the suite and of --attack.

    Raises ConfigError and InputError for what does not exist or can't be read.
    """
    from forethought.evals.attacks.adaptive.catalogue import all_searches, parse_method
    from forethought.evals.attacks.catalogue import parse_attack
    from forethought.evals.attacks.suites import load_suite, suite_attacks

    named = choice.suite or (None if choice.attacks else "quick")
    files = {"templates": choice.templates, "persuasion": choice.persuasion}
    given = {name: path for name, path in files.items() if path is not None}
    attacks: dict[str, Attack] = {}
    methods: dict[str, Method] = {}
    if named is not None:
        suite = load_suite(named)
        suite = suite.model_copy(update={"files": {**suite.files, **given}})
        given = suite.files
        attacks = {attack.name: attack for attack in suite_attacks(suite)}
        methods = {method.name: method for method in map(parse_method, suite.adaptive)}
    for spec in choice.attacks:
        if spec.partition(":")[0].strip() in all_searches():
            method = parse_method(spec)
            methods[method.name] = method
        else:
            attack = parse_attack(spec)
            attacks[attack.name] = attack
    return list(attacks.values()), list(methods.values()), given


def chosen_requests(choice: AttackChoice) -> Requests:
    """The requests of all benchmarks, each once, at most `n` of each label, drawn by seed with strata in proportion.

    Rows without a label count as harmful in a benchmark and as harmless in a control. Raises InputError and
    ConfigError as `load_benchmark` does.
    """
    from forethought.evals.benchmarks.behaviors import sample

    harmful, own, said = _read(choice, choice.benchmarks or (SHIPPED,), "harmful", harmful=True)
    controls = choice.harmless or (() if own else (SHIPPED,))
    strays, harmless, more = _read(choice, controls, "ordinary", harmful=False)
    if strays:
        said.append(f"{len(strays)} harmful rows of the control are left out")
    if not harmful:
        raise ConfigError(", ".join(choice.benchmarks), "holds no harmful request", "Give a benchmark that does")

    def drawn(behaviors: Sequence[Behavior]) -> list[Behavior]:
        unique = list({behavior.request.id: behavior for behavior in behaviors}.values())
        return sample(unique, choice.n, choice.seed, strata(choice.by, unique)) if unique else []

    return Requests(drawn(harmful), drawn([*harmless, *own]), [*said, *more])


def strata(by: str, behaviors: Sequence[Behavior]) -> str:
    """What makes strata: `by`, or nothing where a control doesn't say it. Harmful ones that don't say it are an error
    of the sampling."""
    names = [name.strip() for name in by.split(",")]
    harmful = any(behavior.request.harmful for behavior in behaviors)
    return by if harmful or all(any(row.says(name) for row in behaviors) for name in names) else ""


def _read(
    choice: AttackChoice, sources: Sequence[str], shipped: str, harmful: bool
) -> tuple[list[Behavior], list[Behavior], list[str]]:
    """(harmful, harmless, what was read)."""
    bad: list[Behavior] = []
    good: list[Behavior] = []
    said = []
    for source in sources:
        rows, line = _shipped(shipped) if source == SHIPPED else _loaded(choice, source, harmful)
        said.append(line)
        bad += [row for row in rows if row.request.harmful]
        good += [row for row in rows if row.request.harmful is False]
    return bad, good, said


def _shipped(name: str) -> tuple[list[Behavior], str]:
    from forethought.data.shipped import shipped_requests
    from forethought.evals.benchmarks.behaviors import Behavior

    rows = [Behavior(id=r.id, benchmark=SHIPPED, request=r) for r in shipped_requests(name, "test")]
    return rows, f"shipped:{name}: {len(rows)} requests of scenarios that no training uses"


def _loaded(choice: AttackChoice, source: str, harmful: bool) -> tuple[list[Behavior], str]:
    from forethought.evals.benchmarks.load import load_benchmark

    # A layout and columns that are named are the benchmark's; a control is recognised by itself.
    named = (choice.layout, column_overrides(choice.columns)) if harmful else (None, {})
    read = load_benchmark(source, *named, harmful, choice.skip_bad)
    rows = [row for row in read.behaviors if row.request.kind != _COPYRIGHT]
    counts = Counter(row.says("label") for row in rows)
    notes = [f"{count} {label}" for label, count in sorted(counts.items())]
    if left := len(read.behaviors) - len(rows):
        notes.append(f"{left} about copyright left out: other judges are needed for them")
    if read.malformed:
        notes.append(f"{len(read.malformed)} malformed left out, the first is {read.malformed[0]}")
    return rows, f"{source}: {', '.join(notes)} ({'; '.join(read.columns)})"
