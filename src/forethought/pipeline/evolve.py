"""Stage 2: what a teacher writes about each request, and requests in other styles; over blocks of requests.

A row depends on the request itself and on what is the same for all: styles, demonstrations, the pairs that a source
brings, and a classifier that is fitted once.
"""

from __future__ import annotations

import functools
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forethought.cluster import Here, Workers
from forethought.data.classify import RuleClassifier
from forethought.data.dedupe import decontaminate, known_evaluation_sets
from forethought.data.evolve import Operator, apply_style, draw_styles, load_operators
from forethought.data.llm_teacher import Estimate, added, choose_demonstrations, estimate, lessons_from_model
from forethought.data.preserve import preservation
from forethought.data.shipped import under
from forethought.data.sources import load_split
from forethought.data.taught import TeachTask, lessons_from_dataset
from forethought.data.teach import Lesson, with_twins
from forethought.errors import ConfigError, StageError
from forethought.manifest import write_json
from forethought.models.callspec import Usage, price_of
from forethought.pipeline.blocks import Block, added_up, cut, join, over_blocks
from forethought.pipeline.recipe import BuildConfig, Recipe
from forethought.pipeline.solving import solving_rows
from forethought.policy import Policy
from forethought.progress import Bar, Progress
from forethought.records import Message, Record, Request, read_jsonl, write_jsonl
from forethought.store import locked

LOST, USAGE, LESSONS, PARTS = "lost.json", "usage.json", "lessons.jsonl", "parts.json"
ROWS = 2_000
"""Rows of a block on a cluster: few enough that a lost one is soon done again."""
ASKED_ROWS = 250
"""The same where a model is asked about each."""
BLOCKS = "blocks"
"""In a stage's folder while it is at work: the files of each block."""
_SIDES = {True: "harmful", False: "harmless"}
Draws = Sequence[tuple[Request, str | None]]


@dataclass(frozen=True)
class _Journals:
    """Where answers of a teacher are kept, one writer a file."""

    folder: Path
    """Holds one for each block."""
    own: Path | None
    """The one, where there is one block."""
    others: tuple[Path, ...]
    """Read as well."""


@dataclass(frozen=True)
class Teaching:
    """What a teacher that is a model needs besides the recipe."""

    journal: Path
    """Where every answer is kept as soon as it is there; it outlives a stage whose settings changed."""
    progress: Progress
    bar: Bar = field(default_factory=Bar)
    """Shows where the calls stand."""

    def journals(self, blocks: Sequence[Block]) -> _Journals:
        """Where the answers about these blocks go, and where further ones may stand: what was paid for before counts,
        on one machine or on several, with other rows beside these."""
        folder = self.journal.with_suffix("")
        keys = {block.key for block in blocks} if len(blocks) > 1 else set()
        others = [file for file in sorted(folder.glob("*.jsonl")) if file.stem not in keys]
        if len(blocks) == 1:
            return _Journals(folder, self.journal, tuple(others))
        return _Journals(folder, None, (*others, *([self.journal] if self.journal.is_file() else [])))


class Part(Record):
    """Where the rows of one side of a block stand in the stage's files, in bytes."""

    rows: tuple[int, int]
    lessons: tuple[int, int]
    harmful_before: int = 0
    """Harmful rows before the first."""


@dataclass(frozen=True)
class _Shared:
    """What every block needs."""

    build: BuildConfig
    seed: int
    policy: Policy
    operators: Mapping[str, Operator]
    """With a teacher that is a model: with the demonstrations that stand for their pools."""
    paired: Sequence[Request]
    """Requests that their source pairs with another."""


def evolve_rows(
    recipe: Recipe, policy: Policy, selected: Path, out: Path, teaching: Teaching, workers: Workers | None = None
) -> dict[str, Any]:
    """Restyles train and dev requests, harmful and harmless alike; a teacher's lessons are kept beside them.

    Development rows are restyled by rule: nobody trains on them.
    """
    workers = workers or Here()
    build, seed = recipe.build, recipe.seed
    operators = operators_of(build)
    counts: dict[str, Any] = {"operators": len(operators)}
    dev = list(read_jsonl(selected / "dev.jsonl", Request))
    each = {name: max(1.0, getattr(build, name)) for name in ("rows_per_harmful", "rows_per_harmless")}
    drawn = _draw(dev, operators, build.model_copy(update=each), seed)  # thresholds rest on all of them
    styled = (row if name is None else apply_style(row, operators[name], seed) for row, name in drawn)
    counts["dev"] = write_jsonl(out / "dev.jsonl", styled)

    train = selected / "train.jsonl"
    _check_left_out(train, build.leave_out)
    here = isinstance(workers, Here)
    blocks = cut(train, None if here else ASKED_ROWS if build.teacher.is_model else ROWS)
    shared = _Shared(build, seed, policy, operators, list(_paired(train)))
    if build.teacher.is_model:
        tested = [*read_jsonl(selected / "test.jsonl", Request), *dev]
        shared = _agreed(shared, blocks, tested, teaching, workers)
    restyles = build.styled_share > 0 or max(build.rows_per_harmful, build.rows_per_harmless) > 1
    classifier = RuleClassifier(policy) if restyles and len(policy.rules) > 1 else None
    teaching.bar.total(None if here else len(blocks))
    done = over_blocks(
        workers, _evolve, blocks, out / BLOCKS, shared, classifier, teaching.journals(blocks),
        teaching.bar.calls if here and build.teacher.is_model else None,
        on_done=None if here else lambda place, counted: teaching.bar.advance(1),
    )  # fmt: skip
    solving: list[Request] = []
    if build.solve is not None:
        kept = [row for row in read_jsonl(train, Request) if not set(build.leave_out) & set(row.categories)]
        solving = solving_rows(with_twins(kept, build.twins, seed), build.solve, seed)
    return counts | _joined(done, out, solving)


def _check_left_out(train: Path, left_out: Sequence[str]) -> None:
    """Raises ConfigError for a category that no request has."""
    open_ones = set(left_out)
    for row in read_jsonl(train, Request) if open_ones else ():
        open_ones -= set(row.categories)
    for name in sorted(open_ones):
        raise ConfigError(f"category '{name}'", "no training request has it", "Mend build.leave_out")


def _paired(train: Path) -> Iterator[Request]:
    with train.open("rb") as lines:
        for line in lines:
            if b'"twin":' in line:  # a quote inside a text is escaped: this is the field
                yield Request.model_validate_json(line)


def rows_besides(recipe: Recipe, policy: Policy, selected: Path) -> list[Request]:
    """All of `fit_on`, restyled as what is trained on; none is near a tested request or selected.

    Harmful requests that no rule of the policy speaks of are left out, as in training, and whole pairs whose harmful
    request breaks a rule that is held out.
    """
    build = recipe.build
    train, dev, test = (list(read_jsonl(selected / f"{name}.jsonl", Request)) for name in ("train", "dev", "test"))
    known = {request.id for request in (*train, *dev)}
    held_out = set(recipe.data.held_out_rules)
    parts = load_split(recipe.fit_on, False, 0.0, 0.0, both=True).values()
    found, _ = under(policy, [row for part in parts for row in part if row.harmful is not None])
    left_out = {request.twin or request.id for request in found if held_out & set(request.rules)}
    fresh = [one for one in found if one.id not in known and (one.twin or one.id) not in left_out]
    kept, _ = decontaminate(fresh, {"test rows of this run": test} | known_evaluation_sets())
    operators = operators_of(build)
    drawn = draw_styles(kept, operators, 1.0, build.styled_share, recipe.seed)
    return [row if name is None else apply_style(row, operators[name], recipe.seed) for row, name in drawn]


def operators_of(build: BuildConfig) -> dict[str, Operator]:
    """The styles that a recipe trains on. Raises ConfigError for a name that is not there."""
    operators = load_operators(build.operator_folder, build.operators)
    for name in build.exclude_operators:
        if operators.pop(name, None) is None:
            raise ConfigError(f"operator '{name}'", "is not there to be excluded", "Mend build.exclude_operators")
    return operators


def _draw(
    requests: Sequence[Request],
    operators: Mapping[str, Operator],
    build: BuildConfig,
    seed: int,
    paired: Sequence[Request] = (),
) -> list[tuple[Request, str | None]]:
    drawn: list[tuple[Request, str | None]] = []
    for harmful, per_seed in ((True, build.rows_per_harmful), (False, build.rows_per_harmless)):
        group = [request for request in requests if request.harmful is harmful]
        beside = [request for request in requests if request.harmful is not harmful and request.twin]
        drawn += draw_styles(group, dict(operators), per_seed, build.styled_share, seed, [*beside, *paired])
    return drawn


def _drawn(block: Block, shared: _Shared) -> tuple[list[Request], list[Request], Draws]:
    """(requests of a block with the twins that rules write, those elsewhere that they are paired with, draws)."""
    build, seed = shared.build, shared.seed
    rows = read_jsonl(block.file, Request, block.start, block.stop)
    kept = [row for row in rows if not set(build.leave_out) & set(row.categories)]
    requests = with_twins(kept, build.twins, seed)
    twins = {request.twin for request in requests if request.twin}
    paired = [request for request in shared.paired if request.twin in twins]
    return requests, paired, _draw(requests, shared.operators, build, seed, paired)


def _evolve(
    block: Block,
    out: Path,
    shared: _Shared,
    classifier: RuleClassifier | None,
    journals: _Journals,
    on_progress: Callable[[Any], None] | None,
) -> dict[str, Any]:
    """The rows and lessons of a block, each side in a file of its own."""
    build, seed = shared.build, shared.seed
    requests, paired, draws = _drawn(block, shared)
    lessons, lost, usage = _lessons(block, draws, paired, shared, journals, on_progress)
    rows = _rows(draws, shared.operators, lessons, build, seed)
    rows = _preserved([*requests, *paired], rows, shared.operators, shared.policy, lost, classifier)
    for harmful, side in _SIDES.items():
        write_jsonl(out / f"{side}.jsonl", (row for row in rows if row.harmful is harmful))
        ids = {request.id for request in requests if request.harmful is harmful}
        write_jsonl(out / f"{side}-lessons.jsonl", (one for one in lessons.values() if one.request_id in ids))
    write_jsonl(out / "twins.jsonl", _written_twins(requests, lessons))
    return {
        "harmful": sum(bool(row.harmful) for row in rows),
        "rows": len(rows),
        "lessons": len(lessons),
        "lost": dict(lost),
        "usage": usage.model_dump(mode="json"),
    }


def _joined(done: Sequence[tuple[Path, Mapping[str, Any]]], out: Path, solving: Sequence[Request]) -> dict[str, Any]:
    """The files of all blocks as those of the stage: harmful rows, harmless ones, look-alikes that a teacher wrote,
    rows that have to be solved."""
    twins = {twin.id: twin for folder, _ in done for twin in read_jsonl(folder / "twins.jsonl", Request)}
    further = [out / "twins.jsonl", out / "solving.jsonl"]
    for file, some in zip(further, ([twins[key] for key in sorted(twins)], solving), strict=True):
        write_jsonl(file, some)
    rows = [folder / f"{side}.jsonl" for side in _SIDES.values() for folder, _ in done]
    lessons = [folder / f"{side}-lessons.jsonl" for side in _SIDES.values() for folder, _ in done]
    join(out / "train.jsonl", [*rows, *further])
    join(out / LESSONS, lessons)
    parts, at, lesson_at, before = [], 0, 0, 0
    for place, (row, lesson) in enumerate(zip([*rows, *further], [*lessons, None, None], strict=True)):
        end, lesson_end = at + row.stat().st_size, lesson_at + (lesson.stat().st_size if lesson is not None else 0)
        parts.append(Part(rows=(at, end), lessons=(lesson_at, lesson_end), harmful_before=before))
        at, lesson_at = end, lesson_end
        before += done[place][1]["harmful"] if place < len(done) else 0
    for file in further:
        file.unlink()
    counted = [counts for _, counts in done]
    lost = added_up(counts["lost"] for counts in counted)
    usage = functools.reduce(Usage.and_also, (Usage.model_validate(counts["usage"]) for counts in counted))
    write_json(out / PARTS, [part.model_dump(mode="json") for part in parts if part.rows[0] < part.rows[1]])
    write_json(out / LOST, lost)
    write_json(out / USAGE, usage.model_dump(mode="json"))
    n_lessons = sum(counts["lessons"] for counts in counted)
    total = sum(counts["rows"] for counts in counted) + len(twins) + len(solving)
    shutil.rmtree(out / BLOCKS)
    return {"train": total} | ({"lessons": n_lessons} if n_lessons else {}) | {"lost": sum(lost.values())}


def _rows(
    draws: Draws,
    operators: Mapping[str, Operator],
    lessons: Mapping[str, Lesson],
    build: BuildConfig,
    seed: int,
) -> list[Request]:
    """The drawn rows: variants as the teacher wrote them, else by rule where the recipe allows it."""
    teacher = build.teacher
    rows: list[Request] = []
    for request, name in draws:
        lesson = lessons.get(request.id)
        # A model teaches every request; a dataset's own reasoning is about its harmful ones.
        taught = teacher.is_model or (teacher.name == "own" and bool(request.harmful))
        if lesson is None and teacher.on_failure == "drop" and taught:
            continue  # counted by its cause where the teacher failed
        ruled = request
        if lesson is not None and lesson.verdict == "refuse" and not request.rules:
            broken = tuple(finding.rule for finding in lesson.findings if finding.violated)
            ruled = request.model_copy(update={"rules": broken})
        written = lesson.variants if lesson is not None and teacher.is_model else None
        if name is None:
            rows.append(ruled)
        elif written and written.get(name):
            rows.append(ruled.restyled(written[name], name))
        elif written is None or teacher.on_failure == "rules":
            rows.append(apply_style(ruled, operators[name], seed))
    return rows


def _preserved(
    seeds: Sequence[Request],
    rows: Sequence[Request],
    operators: Mapping[str, Operator],
    policy: Policy,
    lost: Counter[str],
    classifier: RuleClassifier | None,
) -> list[Request]:
    """Rows whose variants still ask what their seeds ask; the others are counted by cause."""
    by_id = {seed.id: seed for seed in seeds}
    styled = [row for row in rows if row.operator is not None]
    if not styled:
        return list(rows)
    pairs = [(by_id[row.plain_id], row) for row in styled]

    def probabilities(texts: Sequence[str]) -> list[dict[str, float]]:
        if classifier is None:
            return [dict.fromkeys(policy.rule_ids, 1.0) for _ in texts]
        rows_of = classifier.probabilities(texts)
        return [dict(zip(classifier.rules, map(float, row), strict=True)) for row in rows_of]

    found = preservation(pairs, dict(operators), probabilities, beside=seeds)
    causes = {id(row): cause for row, cause in zip(styled, found, strict=True)}
    lost.update(f"variant: {cause}" for cause in causes.values() if cause)
    return [row for row in rows if not causes.get(id(row))]


def _written_twins(requests: Sequence[Request], lessons: Mapping[str, Lesson]) -> Iterator[Request]:
    """Harmless look-alikes that the teacher wrote."""
    for request in requests:
        lesson = lessons.get(request.id)
        if lesson is not None and lesson.twin and request.harmful:
            turn = Message(role="user", content=lesson.twin)
            update = {"messages": (turn,), "harmful": False, "rules": (), "kind": "lookalike", "answer": None}
            yield request.model_copy(update=update)


# The teacher of a recipe: nobody (rules), the dataset itself, or a model.


def _lessons(
    block: Block,
    draws: Draws,
    paired: Sequence[Request],
    shared: _Shared,
    journals: _Journals,
    on_progress: Callable[[Any], None] | None,
) -> tuple[dict[str, Lesson], Counter[str], Usage]:
    """(lessons by request id, what was lost by cause, what it cost) for the drawn requests and their styles.

    Raises ModelError when the model can't be used.
    """
    build, policy = shared.build, shared.policy
    if build.teacher.name == "rules":
        return {}, Counter(), Usage()
    requests = list({request.id: request for request, _ in draws}.values())
    if build.teacher.name == "own":
        lessons, causes = lessons_from_dataset([request for request in requests if request.harmful], policy)
        return lessons, Counter({f"own reasoning: {cause}": count for cause, count in causes.items()}), Usage()
    tasks = _tasks(draws, paired, shared)
    own = journals.own or journals.folder / f"{block.key}.jsonl"
    with locked(own.with_suffix(".lock"), wait=True):  # one writer, also where a node was given up and lives on
        return lessons_from_model(
            tasks, policy, build.teacher.name, own, build.teacher.calls, on_progress, journals.others
        )


def _agreed(
    shared: _Shared, blocks: Sequence[Block], tested: Sequence[Request], teaching: Teaching, workers: Workers
) -> _Shared:
    """With demonstrations for the styles drawn, none of them near a tested request, once the cost is agreed to.

    Raises StageError where it is declined.
    """
    from forethought.models.client import open_model  # takes seconds to import, also in each worker of a cluster

    build, seed, folder = shared.build, shared.seed, shared.build.demonstration_folder
    names = sorted({name for found in workers.map(_names_drawn, blocks, shared) for name in found})
    shown = {
        name: shared.operators[name].model_copy(
            update={
                "demonstrations": choose_demonstrations(
                    shared.operators[name], seed=seed, against=tested, folder=folder
                )
            }
        )
        for name in names
    }
    shared = _Shared(build, seed, shared.policy, {**shared.operators, **shown}, shared.paired)
    opened = open_model(build.teacher.name, build.teacher.base_url)
    expected = added(workers.map(_estimated, blocks, shared), price_of(opened, build.teacher.calls.price))
    if not teaching.progress.agree(expected):
        raise StageError("the teacher's cost", "was not agreed to", "Choose another teacher, or --limit the sources")
    return shared


def _names_drawn(block: Block, shared: _Shared) -> set[str]:
    return {name for _, name in _drawn(block, shared)[2] if name is not None}


def _estimated(block: Block, shared: _Shared) -> Estimate:
    _, paired, draws = _drawn(block, shared)
    return estimate(_tasks(draws, paired, shared), shared.policy, shared.build.teacher.calls, None)


def _tasks(draws: Draws, paired: Sequence[Request], shared: _Shared) -> list[TeachTask]:
    """One task a request: all its styles in one call."""
    requests = list({request.id: request for request, _ in draws}.values())
    styles: dict[str, list[str]] = defaultdict(list)
    for request, name in draws:
        if name is not None and name not in styles[request.id]:
            styles[request.id].append(name)
    has_twin = {request.twin for request in (*requests, *paired) if request.harmful is False and request.twin}
    return [
        TeachTask(
            request=request,
            operators=tuple(shared.operators[name] for name in styles[request.id]),
            twin=bool(request.harmful) and shared.build.twins > 0 and request.twin not in has_twin,
        )
        for request in requests
    ]
