"""Stage 2: what a teacher writes about each request, and requests in other styles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from forethought.data.evolve import Operator, apply_style, draw_styles, load_operators
from forethought.data.preserve import RuleProbabilities, preservation
from forethought.data.rule_classifier import RuleClassifier
from forethought.data.teach import Lesson
from forethought.data.twins import with_twins
from forethought.errors import ConfigError
from forethought.manifest import write_json
from forethought.pipeline.recipe import BuildConfig, Recipe
from forethought.pipeline.rows import LESSONS
from forethought.pipeline.teaching import Teaching, teach_seeds
from forethought.policy import Policy
from forethought.records import Message, Request, read_jsonl, write_jsonl

LOST, USAGE = "lost.json", "usage.json"
Draws = Sequence[tuple[Request, str | None]]


def evolve_rows(recipe: Recipe, policy: Policy, selected: Path, out: Path, teaching: Teaching) -> dict[str, Any]:
    """Restyles train and dev requests, harmful and harmless alike; a teacher's lessons are kept beside them.

    Development rows are restyled by rule: nobody trains on them.
    """
    build, seed = recipe.build, recipe.seed
    operators = operators_of(build)
    counts: dict[str, Any] = {"operators": len(operators)}
    dev = list(read_jsonl(selected / "dev.jsonl", Request))
    counts["dev"] = write_jsonl(out / "dev.jsonl", _by_rule(_draw(dev, operators, build, seed), operators, seed))

    requests = with_twins(_kept(read_jsonl(selected / "train.jsonl", Request), build.leave_out), build.twins, seed)
    draws = _draw(requests, operators, build, seed)
    tested = [*read_jsonl(selected / "test.jsonl", Request), *dev]
    lessons, lost, usage = teach_seeds(draws, operators, policy, build, teaching, tested, seed)
    rows = _rows(draws, operators, lessons, build, seed, lost)
    rows = [*_preserved(requests, rows, operators, policy, lost), *_written_twins(requests, lessons)]
    counts["train"] = write_jsonl(out / "train.jsonl", rows)
    write_jsonl(out / LESSONS, lessons.values())
    write_json(out / LOST, dict(lost.most_common()))
    write_json(out / USAGE, usage.model_dump(mode="json"))
    return counts | ({"lessons": len(lessons)} if lessons else {}) | {"lost": sum(lost.values())}


def _kept(requests: Iterable[Request], left_out: Sequence[str]) -> list[Request]:
    """Requests of none of the categories. Raises ConfigError for one that no request has."""
    rows = list(requests)
    for name in left_out:
        if not any(name in row.categories for row in rows):
            raise ConfigError(f"category '{name}'", "no training request has it", "Mend build.leave_out")
    return [row for row in rows if not set(left_out) & set(row.categories)]


def operators_of(build: BuildConfig) -> dict[str, Operator]:
    """The styles that a recipe trains on. Raises ConfigError for a name that is not there."""
    operators = load_operators(build.operator_folder, build.operators)
    for name in build.exclude_operators:
        if operators.pop(name, None) is None:
            raise ConfigError(f"operator '{name}'", "is not there to be excluded", "Mend build.exclude_operators")
    return operators


def _draw(
    requests: Sequence[Request], operators: dict[str, Operator], build: BuildConfig, seed: int
) -> list[tuple[Request, str | None]]:
    drawn: list[tuple[Request, str | None]] = []
    for harmful, per_seed in ((True, build.rows_per_harmful), (False, build.rows_per_harmless)):
        group = [request for request in requests if request.harmful is harmful]
        beside = [request for request in requests if request.harmful is not harmful and request.twin]
        drawn += draw_styles(group, operators, per_seed, build.styled_share, seed, beside)
    return drawn


def _by_rule(draws: Draws, operators: Mapping[str, Operator], seed: int) -> Iterable[Request]:
    return (r if name is None else apply_style(r, operators[name], seed) for r, name in draws)


def _rows(
    draws: Draws,
    operators: Mapping[str, Operator],
    lessons: Mapping[str, Lesson],
    build: BuildConfig,
    seed: int,
    lost: Counter[str],
) -> list[Request]:
    """The drawn rows: variants as the teacher wrote them, else by rule where the recipe allows it."""
    written_by_model = build.teacher.is_model
    rows: list[Request] = []
    for request, name in draws:
        lesson = lessons.get(request.id)
        if lesson is None and build.teacher.on_failure == "drop" and _needs_lesson(request, build):
            continue  # counted by its cause where the teacher failed
        ruled = request
        if lesson is not None and lesson.verdict == "refuse" and not request.rules:
            broken = tuple(finding.rule for finding in lesson.findings if finding.violated)
            ruled = request.model_copy(update={"rules": broken})
        if name is None:
            rows.append(ruled)
        elif lesson is not None and written_by_model:
            if text := lesson.variants.get(name, ""):
                rows.append(ruled.restyled(text, name))
            elif build.teacher.on_failure == "rules":
                rows.append(apply_style(ruled, operators[name], seed))
        else:
            rows.append(apply_style(ruled, operators[name], seed))
    return rows


def _needs_lesson(request: Request, build: BuildConfig) -> bool:
    """A model teaches every request; a dataset's own reasoning is about its harmful ones."""
    return build.teacher.is_model or (build.teacher.name == "own" and bool(request.harmful))


def _preserved(
    seeds: Sequence[Request],
    rows: Sequence[Request],
    operators: dict[str, Operator],
    policy: Policy,
    lost: Counter[str],
) -> list[Request]:
    """Rows whose variants still ask what their seeds ask; the others are counted by cause."""
    by_id = {seed.id: seed for seed in seeds}
    styled = [row for row in rows if row.operator is not None]
    if not styled:
        return list(rows)
    pairs = [(by_id[row.plain_id], row) for row in styled]
    found = preservation(pairs, operators, rule_probabilities(policy), beside=seeds)
    causes = {id(row): one.cause for row, one in zip(styled, found, strict=True)}
    lost.update(f"variant: {cause}" for cause in causes.values() if cause)
    return [row for row in rows if not causes.get(id(row))]


def _written_twins(requests: Sequence[Request], lessons: Mapping[str, Lesson]) -> list[Request]:
    """Harmless look-alikes that the teacher wrote."""
    twins = []
    for request in requests:
        lesson = lessons.get(request.id)
        if lesson is not None and lesson.twin and request.harmful:
            turn = Message(role="user", content=lesson.twin)
            update = {"messages": (turn,), "harmful": False, "rules": (), "kind": "lookalike", "answer": None}
            twins.append(request.model_copy(update=update))
    return sorted({twin.id: twin for twin in twins}.values(), key=lambda twin: twin.id)


def rule_probabilities(policy: Policy) -> RuleProbabilities:
    """The rule classifier as `preservation` asks it."""
    classifier = RuleClassifier(policy)

    def probabilities(texts: Sequence[str]) -> list[dict[str, float]]:
        found = classifier.probabilities(texts)
        return [dict(zip(classifier.rules, map(float, row), strict=True)) for row in found]

    return probabilities
