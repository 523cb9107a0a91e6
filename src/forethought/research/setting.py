"""What all cells of one base and seed share: rows, test requests, the attempts, and the base's own answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from forethought.attacks.base import Given
from forethought.attempts.plan import further_attempts, plan_attempts, reasoning_attempts
from forethought.attempts.records import Attempt
from forethought.data.classify import rules_by_name
from forethought.data.dedupe import remove_duplicates
from forethought.data.sources import load_requests
from forethought.errors import InputError
from forethought.manifest import file_hash, key_of
from forethought.models.weights import load_tokenizer
from forethought.pipeline.evolve import rows_besides
from forethought.pipeline.recipe import BuildConfig
from forethought.pipeline.requests import what_was_removed
from forethought.pipeline.rows import data_stages
from forethought.pipeline.stage import StageRunner
from forethought.policy import Policy
from forethought.progress import Progress
from forethought.records import Example, Request, read_jsonl
from forethought.research.config import Benchmark, MethodEntry, Sweep
from forethought.store import locked
from forethought.training.methods.base import Material
from forethought.training.run import COMPLIED, complied_answers


@dataclass(frozen=True)
class Setting:
    """One base and seed of a sweep."""

    base: str
    seed: int
    folder: Path
    key: str
    """Of everything that its data depends on."""
    policy: Policy
    build: BuildConfig
    train: Sequence[Request]
    dev: Sequence[Request]
    test: Sequence[Request]
    """What may be tested: near no training row."""
    examples: Sequence[Example]
    """Rows to train on; none where nothing is to be trained and they were not built."""
    fit_on: Sequence[Request]
    """What probes are fitted on besides the training requests."""
    attempts: Sequence[Attempt]
    questions: Sequence[Attempt] = ()
    """Further short questions, asked apart from them."""
    asks: str = ""
    """Key of what is asked in place of its own requests and styles: those answers have stages of their own."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Hashes of the files that were trained and tested on."""
    contamination: str = ""
    """What was done about test requests in training."""

    def stage(self, name: str) -> str:
        """Name of a stage that asks the setting's requests."""
        return f"{name}-{self.asks}" if self.asks else name

    def material(self, complied: bool, progress: Progress) -> Material:
        """As methods are given it; with `complied` the base's own harmful answers as well, asked for once."""
        tokenizer, answers = load_tokenizer(self.base), dict[str, str]()
        if complied:
            file = self.folder / f"{self.key}-{COMPLIED}"
            with locked(file.with_suffix(".lock"), wait=True):
                answers = complied_answers(self.base, self.examples, file, progress)
        return Material(self.examples, tokenizer, self.policy, self.build.format, self.build.detail, self.seed, answers)


def prepare_setting(
    sweep: Sweep,
    base: str,
    seed: int,
    root: Path,
    policy: Policy,
    progress: Progress,
    entry: MethodEntry | None = None,
    rows: bool = True,
) -> Setting:
    """Runs the data stages of one base and seed, with what an entry changes of them, or takes what they left.

    Without `rows` those to train on are left out where they were not built yet, so that no model is asked for anything.

    What is asked of the defences does not depend on how the rows are built.
    """
    build, data = (entry.build, entry.data) if entry is not None else ({}, {})
    changes = {"build": build, "data": data} if data else build
    name = f"data-{key_of(changes)[:8]}" if changes else "data"
    place = root / f"{slug(base)}-s{seed}"
    stages = StageRunner(place / name, progress.say)
    recipe = sweep.recipe(base, seed, entry)
    own = root / f"{slug(base)}-answers-{recipe.build.own_answer_tokens}.jsonl"
    with locked(own.with_suffix(".lock"), wait=True):  # workers of one sweep build the same data once
        found = data_stages(recipe, policy, stages, progress, own, rows)
    plan = sweep.evaluate
    train = list(read_jsonl(found.evolved / "train.jsonl", Request))
    if plan.benchmark.key:
        test = benchmark_requests(plan.benchmark, train, policy, progress.say)
    else:
        test = list(read_jsonl(found.selected / f"{plan.split}.jsonl", Request))
    built = found.built / "examples.jsonl"
    given = Given(policy=policy, format=sweep.build.format, files=plan.files)
    # The same for every seed of training, so that seeds can be paired.
    attempts = plan_attempts(
        test, plan.attacks, plan.n_direct, plan.n_styled, plan.n_ordinary, plan.n_lookalike, sweep.seeds[0],
        sweep.data.held_out_rules, given, plan.n_styled_lookalike,
    )  # fmt: skip
    attempts += reasoning_attempts(attempts, plan.reasoning, plan.n_reasoning, sweep.seeds[0], given)
    return Setting(
        base=base,
        seed=seed,
        folder=place,
        key=stages.key,
        policy=policy,
        build=recipe.build,
        train=train,
        dev=list(read_jsonl(found.evolved / "dev.jsonl", Request)),
        test=test,
        examples=list(read_jsonl(built, Example)) if built.is_file() else [],
        fit_on=rows_besides(recipe, policy, found.selected) if recipe.fit_on else (),
        attempts=attempts,
        questions=() if plan.asks else further_attempts(train, plan.n_questions),
        asks=plan.asks,
        inputs={name: file_hash(found.selected / name) for name in ("train.jsonl", "dev.jsonl", "test.jsonl")}
        | {f"benchmark/{Path(path).name}": held for path, held in plan.benchmark.sources.items()},
        contamination=what_was_removed(found.selected),
    )


def slug(name: str) -> str:
    """A model's name or folder as part of a folder's name."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in Path(name).name or name)


# Requests of somebody else's. Nothing is trained otherwise for them: those near a training row are left out.


def benchmark_requests(
    benchmark: Benchmark, train: Sequence[Request], policy: Policy, say: Callable[[str], None]
) -> list[Request]:
    """The benchmark's requests that are near no training row and no other of it; `say` is told how many were left out.

    Raises InputError for a set without labels where no harmless one is given, and where one side has no request.
    """
    rows, beside = [], bool(benchmark.harmless or benchmark.lookalikes)
    for spec in benchmark.requests:
        own = list(load_requests(spec, True if beside else None))
        if unknown := sum(row.harmful is None for row in own):
            raise InputError(
                spec.path, f"does not say of {unknown} requests whether they are harmful",
                "Give a column such as `label`, or the harmless requests as a set of their own",
            )  # fmt: skip
        # The rules that its categories name, where it has none of its own.
        ruled = [row.rules or (rules_by_name(row, policy)[0] if row.harmful else ()) for row in own]
        rows += [row.model_copy(update={"rules": rules}) for row, rules in zip(own, ruled, strict=True)]
    rows += [row for spec in benchmark.harmless for row in load_requests(spec, False)]
    alike = [row for spec in benchmark.lookalikes for row in load_requests(spec, False)]
    rows += [row.model_copy(update={"kind": "lookalike"}) for row in alike]
    kept, removed = remove_duplicates(rows, against=train)
    harmful = sum(row.harmful is True for row in kept)
    for label, n in (("harmful", harmful), ("harmless", len(kept) - harmful)):
        if not n:
            told = f"leave no {label} request, {removed.total()} left out as near others"
            raise InputError(", ".join(benchmark.sources), told, "Give a set that holds some")
    left_out = [f"; left out: {n} {cause.replace('an evaluation', 'a training')}" for cause, n in removed.items()]
    say(f"benchmark: {harmful} harmful and {len(kept) - harmful} harmless requests{''.join(left_out)}")
    return kept
