"""Stage 2: what a teacher writes about each request, and requests in other styles."""

from __future__ import annotations

import importlib.util
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forethought.data.answers import OwnAnswer, own_answers
from forethought.data.classify import RuleClassifier
from forethought.data.evolve import Operator, apply_style, draw_styles, load_operators
from forethought.data.preserve import preservation
from forethought.data.shipped import shipped_requests
from forethought.data.sources import SourceSpec, sample, within_budget
from forethought.data.teach import Answer, Lesson, teach, verify, with_twins
from forethought.errors import ConfigError, StageError
from forethought.manifest import file_hash, key_of, write_json
from forethought.pipeline.recipe import BuildConfig, Recipe
from forethought.pipeline.requests import Teaching, select, teach_seeds
from forethought.pipeline.stage import StageRunner
from forethought.policy import Policy
from forethought.progress import Bar, Progress
from forethought.records import Example, Message, Request, read_jsonl, write_jsonl

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
    drawn = _draw(dev, operators, build, seed)
    styled = (row if name is None else apply_style(row, operators[name], seed) for row, name in drawn)
    counts["dev"] = write_jsonl(out / "dev.jsonl", styled)

    requests = with_twins(_kept(read_jsonl(selected / "train.jsonl", Request), build.leave_out), build.twins, seed)
    draws = _draw(requests, operators, build, seed)
    tested = [*read_jsonl(selected / "test.jsonl", Request), *dev]
    lessons, lost, usage = teach_seeds(draws, operators, policy, build, teaching, tested, seed)
    rows = _rows(draws, operators, lessons, build, seed)
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
    classifier = RuleClassifier(policy) if len(policy.rules) > 1 else None

    def probabilities(texts: Sequence[str]) -> list[dict[str, float]]:
        if classifier is None:
            return [dict.fromkeys(policy.rule_ids, 1.0) for _ in texts]
        rows_of = classifier.probabilities(texts)
        return [dict(zip(classifier.rules, map(float, row), strict=True)) for row in rows_of]

    found = preservation(pairs, operators, probabilities, beside=seeds)
    causes = {id(row): cause for row, cause in zip(styled, found, strict=True)}
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


# Stages 3 and 4: answers of harmless rows, and rows that are taught, verified and fitted to the budget.

EXAMPLES, DROPPED, LESSONS = "examples.jsonl", "dropped.jsonl", "lessons.jsonl"
ASKED = "asked.jsonl"


def answer_rows(recipe: Recipe, evolved: Path, out: Path, bar: Bar, asked: Path | None = None) -> dict[str, Any]:
    """The target model's own answers to some harmless train rows, where the recipe wants them.

    `asked`: where every answer is kept as it comes, for other runs with the same model and length as well.
    """
    build = recipe.build
    file = out / "answers.jsonl"
    harmless = [row for row in read_jsonl(evolved / "train.jsonl", Request) if row.harmful is False]
    most = len(harmless) if build.own_answers is None else build.own_answers
    chosen = sample(harmless, most, recipe.seed) if build.answers == "own" and most else []
    if not chosen:
        file.touch()
        return {"answers": 0}
    from forethought.models.local import LocalModel

    bar.total(len(chosen))
    model = LocalModel.load(recipe.model)
    answers = own_answers(model, chosen, asked or out / ASKED, build.own_answer_tokens, bar.advance)
    write_jsonl(file, (OwnAnswer(request_id=key, answer=text, complies=True) for key, text in answers.items()))
    return {"answers": len(answers), "not_used": len(chosen) - len(answers)}


def build_rows(recipe: Recipe, policy: Policy, evolved: Path, answered: Path, out: Path) -> dict[str, Any]:
    """Teaches, verifies and fits the rows to the token budget; writes them, and each dropped row with its cause."""
    build = recipe.build
    lessons = {lesson.request_id: lesson for lesson in read_jsonl(evolved / LESSONS, Lesson)}
    requests = list(read_jsonl(evolved / "train.jsonl", Request))
    answers, rng = _answers(requests, build, answered / "answers.jsonl"), random.Random(recipe.seed)
    examples = [
        teach(
            request,
            policy,
            recipe.seed,
            answers.get(request.id),
            thought_only=bool(request.harmful) and rng.random() >= build.refusal_share,
            lesson=lessons.get(request.plain_id),
        )
        for request in requests
    ]
    kept, dropped = verify(examples, policy, build.format, build.detail)
    if not kept:
        causes = dict(Counter(row.cause for row in dropped))
        raise StageError("0 rows", "no row passed verification", f"Causes: {causes}")
    chosen, tokens = _fitted(kept, recipe, policy)
    write_jsonl(out / EXAMPLES, [kept[place] for place in chosen])
    write_jsonl(out / DROPPED, dropped)
    causes = Counter(row.cause for row in dropped)
    if len(chosen) < len(kept):
        causes["over the token budget"] = len(kept) - len(chosen)
    write_json(out / "dropped.json", dict(causes.most_common()))
    terms = Counter(kept[place].term for place in chosen)
    counts: dict[str, Any] = {"rows": len(chosen), "refusal": terms["refusal"], "benign": terms["benign"]}
    return counts | tokens | {"verified_share": round(len(kept) / len(examples), 4)}


def _answers(requests: Sequence[Request], build: BuildConfig, own: Path) -> dict[str, Answer]:
    """Answers of harmless rows by request id. The dataset's own are whole; the model's were cut at a length."""
    if build.answers == "source":
        return {r.id: Answer(text=r.answer, complete=True) for r in requests if r.harmful is False and r.answer}
    rows = read_jsonl(own, OwnAnswer)
    return {row.request_id: Answer(text=row.answer, complete=False) for row in rows if row.complies}


def _fitted(examples: Sequence[Example], recipe: Recipe, policy: Policy) -> tuple[list[int], dict[str, int]]:
    """Places of the rows that fit the token budget, in their first order; and their tokens."""
    budget = recipe.build.max_tokens
    if budget is None:
        return list(range(len(examples))), {}
    from forethought.models.weights import load_tokenizer
    from forethought.training.rows import tokenize

    tokenizer, build = load_tokenizer(recipe.model), recipe.build
    lengths = [
        tokenize(example, tokenizer, policy, build.format, build.detail, recipe.seed).length for example in examples
    ]
    chosen = within_budget(lengths, budget, recipe.seed)
    return chosen, {"tokens": sum(lengths[place] for place in chosen)}


# The stages from sources to verified rows, which `run` and `build` share.

JOURNAL = "teacher.jsonl"
"""Every answer of a teacher that is a model; beside the stages, so that no change of settings pays twice."""
_ANSWERS, _BUILD = "3-answers", "4-build"
_NOT_PART_OF_A_ROW: dict[str, set[str]] = {
    "teacher": {"base_url", "concurrency", "timeout_s", "price_in", "price_out"}
}  # fmt: skip
"""Settings that change how long a build takes or what it costs, and no row of it."""


@dataclass(frozen=True)
class DataFolders:
    """Where each data stage wrote."""

    selected: Path
    evolved: Path
    answered: Path
    built: Path


def data_stages(
    recipe: Recipe,
    policy: Policy,
    stages: StageRunner,
    progress: Progress,
    own_answers: Path | None = None,
    rows: bool = True,
) -> DataFolders:
    """Runs the data stages of a recipe. `progress` agrees to the teacher's estimated cost before the first call.

    `own_answers`: a file of the model's own answers that several runs share; None keeps them with the stage. Without
    `rows` no model is asked for answers: what was not built yet is passed over, and its folders don't exist.
    """
    data, build = recipe.data, recipe.build
    sources = {spec.path: fingerprint(spec.path) for spec in all_sources(recipe)}
    against = {path: fingerprint(path) for path in data.against}
    config: dict[str, Any] = {"data": data.model_dump(mode="json"), "policy": policy.hash}
    config |= {"sources": sources, "against": against}
    config |= {"classify": not build.teacher.is_model}
    with progress.bar(stages.title("1-select")):
        selected = stages.run(
            "1-select", config, lambda out: select(data, policy, out, progress, not build.teacher.is_model)
        )
    folder = build.operator_folder
    styles = {"own": [file_hash(file) for file in sorted(folder.glob("*.yaml"))]} if folder else {}
    settings = build.model_dump(mode="json", exclude=_NOT_PART_OF_A_ROW)
    config = {"build": settings, "seed": str(recipe.seed), "styles": styles}
    with progress.bar(stages.title("2-evolve")) as bar:
        teaching = Teaching(journal=stages.folder / JOURNAL, progress=progress, bar=bar)
        evolved = stages.run("2-evolve", config, lambda out: evolve_rows(recipe, policy, selected, out, teaching))
    answerer = {"model": recipe.model if build.answers == "own" else None}
    if not rows and not stages.finished(_BUILD):
        return DataFolders(selected, evolved, stages.pass_over(_ANSWERS, answerer), stages.pass_over(_BUILD, {}))
    with progress.bar(stages.title(_ANSWERS)) as bar:
        answered = stages.run(
            _ANSWERS, answerer, lambda out: answer_rows(recipe, evolved, out, bar, own_answers), keep_partial=True
        )
    with progress.bar(stages.title(_BUILD)):
        built = stages.run(_BUILD, {}, lambda out: build_rows(recipe, policy, evolved, answered, out))
    return DataFolders(selected, evolved, answered, built)


def all_sources(recipe: Recipe) -> Sequence[SourceSpec]:
    """Every source that a recipe reads."""
    data = recipe.data
    return [*data.harmful, *data.harmless, *data.test_harmful, *data.test_harmless]


def fingerprint(spec: str) -> str:
    """What a source's content is known by, so that a changed file makes its stage run again.

    A hub set is known by its name alone.
    """
    if spec.startswith("shipped:"):
        return key_of([request.id for request in shipped_requests(spec.removeprefix("shipped:"))])
    package, _, inner = spec.removeprefix("pkg:").partition("/")
    if spec.startswith("pkg:"):
        found = importlib.util.find_spec(package)
        roots = list(found.submodule_search_locations or ()) if found else []
        return key_of([file_hash(Path(root) / inner) for root in roots if (Path(root) / inner).is_file()])
    path = Path(spec.partition("::")[0].removeprefix("disk:").partition("@")[0]).expanduser()
    files = [path] if path.is_file() else path.rglob("*") if path.is_dir() else path.parent.glob(path.name or "*")
    return key_of([file_hash(file) for file in sorted(files) if file.is_file()])
