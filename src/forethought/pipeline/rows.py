"""Stages 3 and 4, over blocks: answers, and rows that are taught, verified and fitted; and all data stages in order."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forethought.cluster import Here, Workers
from forethought.data.answers import OwnAnswer, own_answers
from forethought.data.files import file_system, is_address
from forethought.data.shipped import shipped_requests
from forethought.data.sources import sample, within_budget
from forethought.data.teach import Answer, Lesson, teach, verify
from forethought.errors import StageError
from forethought.manifest import file_hash, key_of, replacing, write_json
from forethought.pipeline.blocks import Block, added_up, block_of, join, over_blocks
from forethought.pipeline.evolve import BLOCKS, LESSONS, PARTS, Part, Teaching, evolve_rows
from forethought.pipeline.recipe import BuildConfig, Recipe
from forethought.pipeline.requests import select
from forethought.pipeline.solving import answered_as, with_solution
from forethought.pipeline.stage import StageRunner
from forethought.policy import Policy
from forethought.progress import Bar, Progress
from forethought.records import Example, Request, read_jsonl, write_jsonl

EXAMPLES, DROPPED = "examples.jsonl", "dropped.jsonl"
ASKED = "asked.jsonl"


def answer_rows(recipe: Recipe, evolved: Path, out: Path, bar: Bar, asked: Path | None = None) -> dict[str, Any]:
    """The target model's own answers to some harmless train rows, where the recipe wants them.

    `asked`: where every answer is kept as it comes, for other runs with the same model and length as well.
    """
    build = recipe.build
    file = out / "answers.jsonl"
    harmless = [row for row in read_jsonl(evolved / "train.jsonl", Request) if row.harmful is False]
    if build.solve is not None:
        harmless = list({one.id: one for one in (answered_as(row, build.solve) for row in harmless)}.values())
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


def build_rows(
    recipe: Recipe, policy: Policy, evolved: Path, answered: Path, out: Path, workers: Workers | None = None
) -> dict[str, Any]:
    """Teaches, verifies and fits the rows to the token budget; writes them, and each dropped row with its cause."""
    parts = _parts(evolved)
    blocks = [block_of(evolved / "train.jsonl", *part.rows) for part in parts]
    of_blocks = {block.key: part for block, part in zip(blocks, parts, strict=True)}
    own = answered / "answers.jsonl"
    answers = _own_answers(own) if own.stat().st_size else {}
    done = over_blocks(
        workers or Here(), _build, blocks, out / BLOCKS, of_blocks, recipe, policy, evolved / LESSONS, answers
    )
    folders, counted = [folder for folder, _ in done], [counts for _, counts in done]
    dropped = added_up(counts["dropped"] for counts in counted)
    kept, terms = sum(counts["kept"] for counts in counted), Counter[str]()
    if not kept:
        raise StageError("0 rows", "no row passed verification", f"Causes: {dropped}")
    join(out / DROPPED, [folder / DROPPED for folder in folders])
    join(out / EXAMPLES, [folder / EXAMPLES for folder in folders])
    budget, tokens = recipe.build.max_tokens, {}
    if budget is not None:
        lengths = [length for counts in counted for length in counts["lengths"]]
        chosen = within_budget(lengths, budget, recipe.seed)
        tokens = {"tokens": sum(lengths[place] for place in chosen)}
        if len(chosen) < kept:
            wanted = set(chosen)
            rows = (row for place, row in enumerate(read_jsonl(out / EXAMPLES, Example)) if place in wanted)
            terms.update(row.term for row in rows)
            _keep_lines(out / EXAMPLES, wanted)
            dropped = dict(Counter(dropped | {"over the token budget": kept - len(chosen)}).most_common())
    if not terms:
        for counts in counted:
            terms.update(counts["terms"])
    write_json(out / "dropped.json", dropped)
    shutil.rmtree(out / BLOCKS)
    counts = {"rows": terms.total(), "refusal": terms["refusal"], "benign": terms["benign"]}
    taught = kept + sum(count for counts in counted for count in counts["dropped"].values())
    return counts | tokens | {"verified_share": round(kept / taught, 4)}


def _parts(evolved: Path) -> list[Part]:
    """What a block is taught of, as the stage before left it; of one that was run before there were blocks, all."""
    file = evolved / PARTS
    if file.is_file():
        return [Part.model_validate(part) for part in json.loads(file.read_text(encoding="utf-8"))]
    size = {name: (evolved / name).stat().st_size for name in ("train.jsonl", LESSONS)}
    return [Part(rows=(0, size["train.jsonl"]), lessons=(0, size[LESSONS]))]


def _keep_lines(file: Path, places: set[int]) -> None:
    with replacing(file) as part, file.open("rb") as lines, part.open("wb") as kept:
        kept.writelines(line for place, line in enumerate(lines) if place in places)


def _build(
    block: Block,
    out: Path,
    parts: Mapping[str, Part],
    recipe: Recipe,
    policy: Policy,
    written: Path,
    own: Mapping[str, Answer],
) -> dict[str, Any]:
    """The rows of a block, taught and verified."""
    build, part = recipe.build, parts[block.key]
    lessons = {lesson.request_id: lesson for lesson in read_jsonl(written, Lesson, *part.lessons)}
    rng = random.Random(recipe.seed)
    for _ in range(part.harmful_before):  # one draw for each harmful row, as if all stood in one block
        rng.random()
    examples = []
    for request in read_jsonl(block.file, Request, block.start, block.stop):
        thought_only = bool(request.harmful) and rng.random() >= build.refusal_share
        answer, lesson = _answer_to(request, build, own), lessons.get(request.plain_id)
        example = teach(request, policy, recipe.seed, answer, thought_only=thought_only, lesson=lesson)
        examples.append(with_solution(example, build.solve))
    kept, dropped = verify(examples, policy, build.format, build.detail)
    write_jsonl(out / EXAMPLES, kept)
    write_jsonl(out / DROPPED, dropped)
    counts = {"kept": len(kept), "terms": Counter(row.term for row in kept)}
    return counts | {"dropped": Counter(row.cause for row in dropped), "lengths": _lengths(kept, recipe, policy)}


def _own_answers(file: Path) -> dict[str, Answer]:
    """The target model's own answers by request id: they were cut at a length."""
    rows = read_jsonl(file, OwnAnswer)
    return {row.request_id: Answer(text=row.answer, complete=False) for row in rows if row.complies}


def _answer_to(request: Request, build: BuildConfig, own: Mapping[str, Answer]) -> Answer | None:
    """The answer of a harmless row: the dataset's own, which is whole, or the model's."""
    if build.answers != "source":
        return own.get(answered_as(request, build.solve).id)
    return Answer(text=request.answer, complete=True) if request.harmful is False and request.answer else None


def _lengths(examples: Sequence[Example], recipe: Recipe, policy: Policy) -> list[int]:
    """Tokens of each row, where there is a budget."""
    if recipe.build.max_tokens is None:
        return []
    from forethought.models.weights import load_tokenizer
    from forethought.training.rows import tokenize

    tokenizer, build = load_tokenizer(recipe.model), recipe.build
    return [tokenize(row, tokenizer, policy, build.format, build.detail, recipe.seed).length for row in examples]


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
    workers: Workers | None = None,
) -> DataFolders:
    """Runs the data stages of a recipe. `progress` agrees to the teacher's estimated cost before the first call.

    `own_answers`: a file of the model's own answers that several runs share; None keeps them with the stage. Without
    `rows` no model is asked for answers: what was not built yet is passed over, and its folders don't exist.
    """
    data, build = recipe.data, recipe.build
    sources = {spec.path: fingerprint(spec.path) for spec in data.sources}
    against = {path: fingerprint(path) for path in data.against}
    config: dict[str, Any] = {"data": data.model_dump(mode="json"), "policy": policy.hash}
    config |= {"sources": sources, "against": against}
    config |= {"classify": not build.teacher.is_model}
    with progress.bar(stages.title("1-select")):
        selected = stages.run(
            "1-select", config, lambda out: select(data, policy, out, progress, not build.teacher.is_model, workers)
        )
    folder = build.operator_folder
    styles = {"own": [file_hash(file) for file in sorted(folder.glob("*.yaml"))]} if folder else {}
    settings = build.model_dump(mode="json", exclude=_NOT_PART_OF_A_ROW)
    config = {"build": settings, "seed": str(recipe.seed), "styles": styles}
    with progress.bar(stages.title("2-evolve")) as bar:
        teaching = Teaching(journal=stages.folder / JOURNAL, progress=progress, bar=bar)
        evolved = stages.run(
            "2-evolve", config, lambda out: evolve_rows(recipe, policy, selected, out, teaching, workers),
            keep_partial=True,
        )  # fmt: skip
    answerer = {"model": recipe.model if build.answers == "own" else None}
    if not rows and not stages.finished(_BUILD):
        return DataFolders(selected, evolved, stages.pass_over(_ANSWERS, answerer), stages.pass_over(_BUILD, {}))
    with progress.bar(stages.title(_ANSWERS)) as bar:
        answered = stages.run(
            _ANSWERS, answerer, lambda out: answer_rows(recipe, evolved, out, bar, own_answers), keep_partial=True
        )
    with progress.bar(stages.title(_BUILD)):
        built = stages.run(
            _BUILD, {}, lambda out: build_rows(recipe, policy, evolved, answered, out, workers), keep_partial=True
        )
    return DataFolders(selected, evolved, answered, built)


def fingerprint(spec: str) -> str:
    """What a source's content is known by, so that a changed file makes its stage run again.

    A hub set is known by its name alone, files elsewhere by what their store says of them.
    """
    if spec.startswith("shipped:"):
        return key_of([request.id for request in shipped_requests(spec.removeprefix("shipped:"))])
    package, _, inner = spec.removeprefix("pkg:").partition("/")
    if spec.startswith("pkg:"):
        found = importlib.util.find_spec(package)
        roots = list(found.submodule_search_locations or ()) if found else []
        return key_of([file_hash(Path(root) / inner) for root in roots if (Path(root) / inner).is_file()])
    if is_address(spec):
        system, name = file_system(spec)
        return key_of({file: system.ukey(file) for file in (system.glob(name) if "*" in name else system.find(name))})
    path = Path(spec.partition("::")[0].removeprefix("disk:").partition("@")[0]).expanduser()
    files = [path] if path.is_file() else path.rglob("*") if path.is_dir() else path.parent.glob(path.name or "*")
    return key_of([file_hash(file) for file in sorted(files) if file.is_file()])
