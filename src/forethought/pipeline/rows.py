"""Stages 3 and 4: answers of harmless rows, and rows that are taught, verified and fitted to the budget."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from forethought.data.answers import OwnAnswer, own_answers
from forethought.data.select import sample, within_budget
from forethought.data.teach import Answer, Lesson, teach
from forethought.data.verify import verify
from forethought.errors import StageError
from forethought.manifest import write_json
from forethought.pipeline.recipe import BuildConfig, Recipe
from forethought.policy import Policy
from forethought.records import Example, Request, read_jsonl, write_jsonl

OnSteps = Callable[[int], None]
EXAMPLES, DROPPED, LESSONS = "examples.jsonl", "dropped.jsonl", "lessons.jsonl"
ASKED = "asked.jsonl"


def answer_rows(
    recipe: Recipe, evolved: Path, out: Path, on_total: OnSteps, on_done: OnSteps, asked: Path | None = None
) -> dict[str, Any]:
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
    from forethought.engine.local import LocalModel

    on_total(len(chosen))
    model = LocalModel.load(recipe.model)
    answers = own_answers(model, chosen, asked or out / ASKED, build.own_answer_tokens, on_done)
    write_jsonl(file, (OwnAnswer(request_id=key, answer=text, complies=True) for key, text in answers.items()))
    return {"answers": len(answers), "not_used": len(chosen) - len(answers)}


def build_rows(recipe: Recipe, policy: Policy, evolved: Path, answered: Path, out: Path) -> dict[str, Any]:
    """Teaches, verifies and fits the rows to the token budget; writes them, and each dropped row with its cause."""
    build = recipe.build
    lessons = {lesson.request_id: lesson for lesson in read_jsonl(evolved / LESSONS, Lesson)}
    requests = list(read_jsonl(evolved / "train.jsonl", Request))
    examples = _examples(requests, policy, recipe, lessons, _answers(requests, build, answered / "answers.jsonl"))
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


def _examples(
    requests: Sequence[Request],
    policy: Policy,
    recipe: Recipe,
    lessons: Mapping[str, Lesson],
    answers: Mapping[str, Answer],
) -> list[Example]:
    rng = random.Random(recipe.seed)
    share = recipe.build.refusal_share
    return [
        teach(
            request,
            policy,
            recipe.seed,
            answers.get(request.id),
            thought_only=bool(request.harmful) and rng.random() >= share,
            lesson=lessons.get(request.plain_id),
        )
        for request in requests
    ]


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
    from forethought.engine.weights import load_tokenizer
    from forethought.train.rows import tokenize

    tokenizer, build = load_tokenizer(recipe.model), recipe.build
    lengths = [
        tokenize(example, tokenizer, policy, build.format, build.detail, recipe.seed).length for example in examples
    ]
    chosen = within_budget(lengths, budget, recipe.seed)
    return chosen, {"tokens": sum(lengths[place] for place in chosen)}
