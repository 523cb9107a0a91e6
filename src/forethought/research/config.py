"""A sweep: bases times methods times seeds times budgets, in one YAML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from pydantic import Field, ValidationInfo, field_validator, model_validator

from forethought.data.sources import SourceSpec
from forethought.errors import ConfigError
from forethought.manifest import key_of
from forethought.pipeline.recipe import (
    NAME,
    STYLED_LOOKALIKES,
    BuildConfig,
    DataConfig,
    OperatingPoint,
    Recipe,
    default_file,
)
from forethought.pipeline.rows import fingerprint
from forethought.records import Record
from forethought.training.config import TrainConfig
from forethought.yamlfile import load_extended, merged, validated

if TYPE_CHECKING:
    from forethought.training.methods.base import TrainingMethod
    from forethought.training.objective import Objective

PROMPT = "prompt"
"""Name of the best prompt among the defences of a sweep."""


class Benchmark(Record):
    """Requests of somebody else's that defences are put to, in place of those that the sweep's own data holds out."""

    requests: tuple[SourceSpec, ...] = ()
    """Sets with labels; where `harmless` is given, sets without any are harmful throughout."""
    harmless: tuple[SourceSpec, ...] = ()
    lookalikes: tuple[SourceSpec, ...] = ()
    """Harmless sets that are meant to look harmful, as XSTest's safe half."""

    @property
    def sources(self) -> dict[str, str]:
        """Content hash by path."""
        return {one.path: fingerprint(one.path) for one in (*self.requests, *self.harmless, *self.lookalikes)}

    @property
    def key(self) -> str:
        """Of what it asks, wherever the files lie; empty where it asks nothing."""
        sides = (self.requests, self.harmless, self.lookalikes)
        return key_of([[_content(one) for one in side] for side in sides])[:8] if any(sides) else ""


def _content(spec: SourceSpec) -> dict[str, Any]:
    """A file is its content and kind, under any name; a hub set or a member of an archive needs its name as well."""
    path = Path(spec.path).expanduser()
    known = path.suffix if path.is_file() else spec.path
    return spec.model_dump(mode="json") | {"path": known, "content": fingerprint(spec.path)}


class GcgConfig(Record):
    """A small search for suffixes, by gradients, against some of the defences."""

    defences: tuple[str, ...] = ()
    """Ids of the defences that are attacked; others have no such figure."""
    goals: int = Field(default=4, ge=1)
    """Harmful test requests, each with a suffix of its own."""
    steps: int = Field(default=10, ge=1)
    candidates: int = Field(default=32, ge=1)


class SearchConfig(Record):
    """An adaptive attack on some of the defences, with the same number of queries for each."""

    method: str
    """As attack suites write it, such as `best_of_n:n=16`: one that needs no attacker and no evaluator."""
    defences: tuple[str, ...] = ()
    """Ids of the defences that are attacked; others have no such figure."""
    goals: int = Field(default=8, ge=1)
    """Harmful test requests, each searched for by itself."""
    budget: int | None = Field(default=32, ge=1)
    """Most queries for a goal; None is the method's own."""

    @property
    def name(self) -> str:
        """What its figure is called by, as `asr_NAME`."""
        return self.method.partition(":")[0].strip()


class LatencyConfig(Record):
    """How defences are timed beside the undefended model, one request at a time."""

    requests: int = Field(default=10, ge=2)
    """Ordinary ones."""
    max_answer_tokens: int = Field(default=48, ge=1)


class SweepEvaluation(Record):
    """What every defence is put to."""

    attacks: tuple[str, ...] = Field(min_length=1)
    """Styles, on harmful and harmless requests alike."""
    reasoning: tuple[str, ...] = ()
    """Attacks on reasoning, likewise."""
    split: Literal["test", "dev"] = "test"
    """Whose requests: `dev` for choosing among recipes, so that the test stays unseen."""
    benchmark: Benchmark = Benchmark()
    """Requests of somebody else's, in place of those."""
    files: dict[str, Path] = Field(default_factory=dict)
    """Local files by the attack that reads them: `templates` alone."""
    instead: bool = False
    """Whether all this is asked in place of what the sweep's own file asks, so that those answers are kept."""
    n_direct: int = Field(default=50, ge=2)
    n_styled: int = Field(default=20, ge=2)
    n_styled_lookalike: int = Field(default=STYLED_LOOKALIKES, ge=0, exclude_if=lambda value: value == 0)
    """Look-alikes with their harmful twins under each style, others under the next. Not dumped at 0: what was asked
    without any is known as before."""
    n_reasoning: int = Field(default=8, ge=2)
    n_ordinary: int = Field(default=40, ge=2)
    n_lookalike: int = Field(default=30, ge=2)
    n_questions: int = Field(default=0, ge=0)
    """At most so many of the package's further short questions (data/questions.jsonl), besides the sample that is asked
    in any case: of its forty one is 2.5 points."""
    n_prompt_choice: int = Field(default=16, ge=2)
    """Development requests of each label that the best prompt is chosen on."""
    max_answer_tokens: int = Field(default=24, ge=4)
    gcg: GcgConfig = GcgConfig()
    searches: tuple[SearchConfig, ...] = ()
    """Adaptive attacks besides."""
    latency: LatencyConfig | None = None
    """None times nothing."""

    @property
    def asks(self) -> str:
        """Key of what is asked in place of the sweep's own requests or styles; empty where nothing is."""
        if self.instead:
            return key_of([self.benchmark.key, self.attacks, self.reasoning])[:8]
        return self.benchmark.key

    @property
    def all_searches(self) -> tuple[SearchConfig, ...]:
        """GCG, where any defence is put to it, and the other searches."""
        gcg = self.gcg
        written = f"gcg:steps={gcg.steps},candidates={gcg.candidates}"
        first = SearchConfig(method=written, defences=gcg.defences, goals=gcg.goals, budget=None)
        return (*([first] if gcg.defences else []), *self.searches)

    @field_validator("searches")
    @classmethod
    def _each_once(cls, value: tuple[SearchConfig, ...]) -> tuple[SearchConfig, ...]:
        names = [one.name for one in value]
        twice = [name for name in names if names.count(name) > 1 or name == "gcg"]
        if twice:
            raise ValueError(f"{twice[0]} stands twice, or has its own field: figures are called by the search's name")
        return value


class MethodEntry(Record):
    """A trained defence of a sweep: a method, with what it changes."""

    id: str = Field(default="", pattern=r"^[A-Za-z0-9_]*$")
    """How tables and figures call it; empty is the method's name."""
    name: str = ""
    """As `forethought train --list-methods` has it; empty is that of `after`."""
    after: str = ""
    """Id of an entry before it whose changes it takes over: a step of a ladder changes one thing more."""
    weights_of: str = ""
    """Id of an entry before it whose weights it answers with: it differs in how it answers alone."""
    around: str = ""
    """Defences at inference around the trained model, as docs/defences.md writes them. A first one that
    `pipeline/fitting.py` knows by name, such as `fused_trained`, is fitted first."""
    why: str = ""
    """What it is to show; for the page."""
    seeds: tuple[int, ...] = ()
    """Seeds that it is trained with; empty is the sweep's."""
    build: dict[str, Any] = Field(default_factory=dict)
    """Fields of `build` in place of the sweep's, merged key by key: it gets rows of its own."""
    data: dict[str, Any] = Field(default_factory=dict, exclude_if=lambda value: not value)
    """Likewise of `data`, such as one source more. What is tested stays the sweep's own. Not dumped where empty:
    stages' keys hold an entry."""
    fit_on: tuple[SourceSpec, ...] = Field(default=(), exclude_if=lambda value: not value)
    """What its probe is fitted on besides the sweep's own `fit_on`. Not dumped where empty."""
    train: dict[str, Any] = Field(default_factory=dict)
    """Training settings in place of the sweep's and the method's own."""
    objective: dict[str, Any] = Field(default_factory=dict)
    """Fields of the method's objective in place of its paper's, such as the inner steps of an attack."""
    procedure: dict[str, Any] = Field(default_factory=dict)
    """Fields of its procedure's settings in place of the defaults, such as the rounds of hardening."""
    passes: float = Field(default=1.0, ge=1.0, exclude_if=lambda value: value == 1.0)
    """Passes that the budget is for: at 3 it pays for a third of the rows, three times. Where all rows take less than
    that, there are more. Not dumped at 1: stages' keys hold an entry."""
    answer_with: Literal["", "adapter", "base"] = Field(default="", exclude_if=lambda value: not value)
    """What answers after `comply`, or, of a model without a thought, what the defence around it lets through; empty is
    the method's own. Not dumped then either."""
    threshold: float | None = None
    """Verdict log-odds from which it refuses; None is the operating point that development requests give."""
    think_budget: int | None = Field(default=None, ge=1, exclude_if=lambda value: value is None)
    """Tokens of thought after which a verdict is asked for; None is what the taught thoughts need. Not dumped then."""

    @property
    def label(self) -> str:
        """Its id, or its method's name."""
        return self.id or self.name

    @property
    def reads_besides(self) -> str:
        """Content hash of `fit_on` as it is written; empty where nothing stands there."""
        return key_of([spec.model_dump(mode="json") for spec in self.fit_on])[:8] if self.fit_on else ""

    @property
    def trains_otherwise(self) -> bool:
        """Whether its weights are others than its method's alone."""
        return bool(self.build or self.data or self.train or self.objective or self.procedure or self.passes != 1.0)


class Goal(Record):
    """A bound for one figure."""

    figure: str
    """Its name among the results, such as `auroc_unseen_scot_best`."""
    least: float | None = None
    most: float | None = None
    of: str = ""
    """Name of a second figure that the bound is a multiple of: `most: 0.5` is then half of that."""
    why: str = Field(default="", max_length=120)
    """What it is for, in a few words; for tables."""

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.least is None) == (self.most is None):
            raise ValueError("a goal has either `least` or `most`")
        return self


class Contrast(Record):
    """A difference of two defences that has a name of its own among the figures."""

    of: str
    """Id of the defence that the other is taken from."""
    against: str


class Sweep(Record):
    """Everything that a sweep depends on."""

    name: str = Field(pattern=NAME)
    bases: tuple[str, ...] = ("embedded",)
    seeds: tuple[int, ...] = (0,)
    budgets: tuple[int, ...] = Field(default=(60_000,), min_length=1)
    """Training tokens, all passes together: a method with fewer rows makes more passes."""
    most_passes: float = Field(default=4.0, ge=1.0)
    """Passes over the same rows beyond which a method stays below the budget."""
    reference: str = "scot"
    """Id of the defence at whose rate of false refusals others are compared, and that they are paired with."""
    false_refusal: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Rate of false refusals on disguised harmless requests at which attack success is compared; None is the
    reference's."""
    contrasts: dict[str, Contrast] = Field(default_factory=dict)
    """By name: `best_refusal: {of: scot_best, against: refusal}` gives `diff_auroc_unseen_best_refusal` and so on. One
    that is null takes away what the file that it extends has."""
    goals: tuple[Goal, ...] = ()
    """What its figures are asked to reach; table and page say which did."""
    methods: tuple[MethodEntry, ...] = ()
    prompts: tuple[str, ...] = ()
    """Prompting defences; the best of them on development requests is evaluated, as `prompt`."""
    wrappers: tuple[str, ...] = ()
    """Defences at inference around the base model, as docs/defences.md writes them; each stands under its ids."""
    policy: Path | None = None
    data: DataConfig
    fit_on: tuple[SourceSpec, ...] = ()
    """As in a recipe: look-alikes that nothing is trained on and every probe is fitted on besides."""
    build: BuildConfig = BuildConfig()
    train: TrainConfig | None = None
    """As in a recipe: what it doesn't name suits the model."""
    operating_point: OperatingPoint = OperatingPoint()
    evaluate: SweepEvaluation

    @property
    def defences(self) -> tuple[str, ...]:
        """The names that tables and figures give them: the undefended model first, then what is not trained."""
        untrained = ("base", *((PROMPT,) if self.prompts else ()), *map(wrapper_label, self.wrappers))
        return tuple(dict.fromkeys((*untrained, *(entry.label for entry in self.methods))))

    @field_validator("methods", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """A bare name is a method without changes."""
        return [{"name": one} if isinstance(one, str) else one for one in value] if isinstance(value, list) else value

    @field_validator("contrasts", mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        """An extended file's contrasts stay, but for those that are null in the one that extends it."""
        return {name: one for name, one in value.items() if one is not None} if isinstance(value, dict) else value

    @field_validator("bases", "seeds", "budgets", "methods", "prompts", "wrappers")
    @classmethod
    def _once(cls, value: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
        names = [one.label if isinstance(one, MethodEntry) else one for one in value]
        if info.field_name == "wrappers":
            names = [wrapper_label(one) for one in value]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"{twice[0]} stands twice")
        return value

    def trains_plainly(self, method: str) -> bool:
        """Whether the entry called like a method trains that method's weights, by the sweep's settings alone."""
        found = next((one for one in self.methods if one.label == method), None)
        if found is None or found.weights_of:
            return False
        entry = self.resolved(found)
        return entry.name == method and not entry.trains_otherwise

    def resolved(self, entry: MethodEntry) -> MethodEntry:
        """The entry with the changes of all that it comes after, or shares the weights of.

        Raises ConfigError for one that is not before it, and for changes to weights that are another's.
        """
        field = "weights_of" if entry.weights_of else "after"
        wanted = entry.weights_of or entry.after
        if not wanted:
            return entry
        earlier = self.methods[: self.methods.index(entry)]
        found = next((one for one in earlier if one.label == wanted), None)
        place = f"method '{entry.label}', {field}: {wanted}"
        if found is None:
            raise ConfigError(place, "no entry before it is called so", "Mend it")
        if entry.weights_of and (entry.after or entry.trains_otherwise):
            raise ConfigError(place, "an entry with another's weights can't train otherwise", "Use `after` for that")
        parent = self.resolved(found)
        return entry.model_copy(
            update={
                "name": entry.name or parent.name,
                "answer_with": entry.answer_with or ("" if entry.name else parent.answer_with),
                "build": {**parent.build, **entry.build},
                "data": {**parent.data, **entry.data},
                "train": {**parent.train, **entry.train},
                "objective": {**parent.objective, **entry.objective},
                "procedure": {**parent.procedure, **entry.procedure},
                "passes": entry.passes if entry.passes != 1.0 else parent.passes,
                "think_budget": entry.think_budget or parent.think_budget,
            }
        )

    def build_of(self, changes: Mapping[str, Any]) -> BuildConfig:
        """The build settings with some fields changed; its own budget stands aside, for those of the sweep.

        Raises ConfigError for a bad field, and for a change of that budget, which would change nothing.
        """
        if "max_tokens" in changes:
            raise ConfigError("build.max_tokens", "a sweep holds rows to its budgets", "Use `passes`, or `budgets`")
        fields = merged(self.build.model_dump(), {**changes, "max_tokens": None})
        return validated(fields, "build", BuildConfig, "docs/build.md")

    def fitted_on(self, *entries: MethodEntry) -> dict[str, Any]:
        """What fits of probes depend on besides their rows, those of entries too: nothing where no source is named."""
        specs = [*self.fit_on, *(spec for entry in entries for spec in entry.fit_on)]
        return {"fit_on": {spec.path: fingerprint(spec.path) for spec in specs}} if specs else {}

    def data_of(self, entry: MethodEntry) -> DataConfig:
        """Where the rows of an entry come from. Raises ConfigError for a bad field."""
        if not entry.data:
            return self.data
        fields, place = merged(self.data.model_dump(), entry.data), f"method '{entry.label}', data"
        return validated(fields, place, DataConfig, "docs/run.md")

    def sources_of(self, entries: Sequence[MethodEntry]) -> dict[str, Any]:
        """What entries with data of their own depend on besides their rows: nothing where none has any."""
        specs = [spec for entry in entries if entry.data for spec in self.data_of(entry).sources]
        return {"sources": {spec.path: fingerprint(spec.path) for spec in specs}} if specs else {}

    def recipe(self, base: str, seed: int, entry: MethodEntry | None = None) -> Recipe:
        """What the data stages need for one base and seed; of an entry, with what it changes (`resolved`)."""
        entry = entry or MethodEntry()
        return Recipe(
            name=self.name, model=base, policy=self.policy, seed=seed, data=self.data_of(entry),
            fit_on=(*self.fit_on, *entry.fit_on), build=self.build_of(entry.build), train=self.train,
            operating_point=self.operating_point,
        )  # fmt: skip

    def training(self, base: str, seed: int) -> TrainConfig:
        """The training settings for a base, before a method changes them."""
        return self.recipe(base, seed).training.model_copy(update={"seed": seed})


def wrapper_label(spec: str) -> str:
    """How tables and figures call defences around the base model: by their ids, without options."""
    return "_".join(step.partition(":")[0].strip() for step in spec.split("|"))


def load_sweep(path: Path) -> Sweep:
    """Reads a sweep. Raises ConfigError for a missing file, bad YAML, a field that is wrong or a name unknown.

    The file may be a short one that `extends` another.
    """
    hint, needs = "Give a YAML file, such as recipes/zoo.yaml", "at least name, data and evaluate"
    sweep = load_extended(path, "sweep", hint, Sweep, needs, "docs/research/sweep.md", default_file().parent)
    check(sweep)
    return sweep


def check(sweep: Sweep) -> None:
    """Raises ConfigError for whatever would fail hours later: unknown methods, prompts, wrappers, attacks, options."""
    from forethought.attacks.catalogue import parse_attack, unmet
    from forethought.attacks.searches.base import parse_method
    from forethought.defences.catalogue import check_spec
    from forethought.defences.prompts import shipped_prompt
    from forethought.pipeline.fitting import FITS
    from forethought.pipeline.solving import check_apart

    evaluate = sweep.evaluate
    for name, contrast in sweep.contrasts.items():
        for end, defence in (("of", contrast.of), ("against", contrast.against)):
            if defence not in sweep.defences:
                place = f"contrasts.{name}, {end}: {defence}"
                raise ConfigError(place, "the sweep has no such defence", f"Use one of {', '.join(sweep.defences)}")
    for entry in sweep.methods:
        full = sweep.resolved(entry)
        sweep.data_of(full)
        solve = sweep.build_of(full.build).solve
        if solve is not None:
            check_apart(solve, evaluate.attacks)
        method, _ = method_of(sweep, full, sweep.bases[0], sweep.seeds[0])
        if full.passes != 1.0 and method.procedure is not None:
            rule = f"{method.name} shares its budget out by itself"
            raise ConfigError(f"method '{entry.label}', passes: {full.passes:g}", rule, "Change its procedure")
        if full.think_budget and not method.thinks:
            place = f"method '{entry.label}', think_budget: {full.think_budget}"
            raise ConfigError(place, f"{method.name} has no thought", "Leave it out")
        if full.answer_with == "base" and not method.thinks and not entry.around:
            rule = "the base answers in place of a model without a thought, and nothing decides"
            raise ConfigError(f"method '{entry.label}', answer_with: base", rule, "Put a defence `around` it")
    for prompt in sweep.prompts:
        shipped_prompt(prompt)
    for wrapper in (*sweep.wrappers, *(entry.around for entry in sweep.methods if entry.around)):
        check_spec(wrapper, FITS)
    needs: dict[str, Collection[str]] = {
        f"search '{one.method}'": {*parse_method(one.method).needs} - {"gradients"} for one in evaluate.all_searches
    }
    for attack in (*evaluate.attacks, *evaluate.reasoning):
        needs[f"attack '{attack}'"] = {*unmet(parse_attack(attack), evaluate.files)} - {"prefill"}
    for place, wanted in needs.items():
        if wanted:
            rule = f"needs {', '.join(sorted(wanted))}, which a sweep does not give"
            raise ConfigError(place, rule, "Leave it out")


def method_of(sweep: Sweep, entry: MethodEntry, base: str, seed: int) -> tuple[TrainingMethod, TrainConfig]:
    """(the training method, the settings that it is trained with). Raises ConfigError for what is not there."""
    from forethought.training.methods.catalogue import get_method

    method = get_method(entry.name).tuned(entry.procedure)
    if entry.answer_with:
        method = method.model_copy(update={"answer_with": entry.answer_with})
    settings = {**method.configured(sweep.training(base, seed)).model_dump(), **entry.train}  # `entry` is resolved
    config = validated(settings, f"method '{entry.name}', train", TrainConfig, "docs/train.md")
    return (_with_objective(method, entry.objective, config) if entry.objective else method), config


def _with_objective(method: TrainingMethod, changes: Mapping[str, Any], config: TrainConfig) -> TrainingMethod:
    """The method with fields of its objective changed. Raises ConfigError for a field that it does not have."""
    known = {field.name for field in dataclasses.fields(cast(Any, method.objective(config, 32)))}
    for name in set(changes) - known:
        raise ConfigError(
            f"method '{method.name}', objective.{name}", "there is no such field", f"It has {', '.join(sorted(known))}"
        )

    def changed(config: TrainConfig, n_layers: int) -> Objective:
        made: Objective = dataclasses.replace(cast(Any, method.objective(config, n_layers)), **changes)
        return made

    return method.model_copy(update={"objective": changed})


def lenders(sweep: Sweep, labels: Sequence[str]) -> list[str]:
    """Defences whose weights some others share: they come first."""
    found = []
    for entry in sweep.methods:
        if entry.label in labels:
            method, _ = method_of(sweep, sweep.resolved(entry), sweep.bases[0], sweep.seeds[0])
            found += [name for name in (entry.weights_of, method.weights_of) if name]
    return list(dict.fromkeys([*lenders(sweep, found), *found])) if found else []
