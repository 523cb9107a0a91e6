"""The data stages of a run: select, evolve, answer, build."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from forethought.data.answers import own_answers
from forethought.data.classify import assign_rules
from forethought.data.evolve import evolve, load_operators
from forethought.data.select import Selection, cap_per_rule, disjoint, load_split, sample
from forethought.data.sources import Mapping
from forethought.data.teach import teach
from forethought.data.verify import verify
from forethought.engine.local import LocalModel, load_tokenizer
from forethought.errors import ConfigError, StageError
from forethought.manifest import write_json
from forethought.pipeline.recipe import BuildConfig, DataConfig, Recipe
from forethought.policy import Policy
from forethought.records import Example, Request, Split, read_jsonl, write_jsonl
from forethought.train.rows import TokenRow, tokenize

Progress = Callable[[int], None]


def select(data: DataConfig, policy: Policy, out: Path, on_mapping: Callable[[str, Mapping], None]) -> dict[str, Any]:
    """Loads the sources, finds each harmful request's rules, and writes disjoint train, dev and test sets."""
    harmful = load_split(data.harmful, True, data.held_out_share, data.dev_share, on_mapping)
    harmless = load_split(data.harmless, False, data.held_out_share, data.dev_share, on_mapping)
    tested_only = [
        *_whole(load_split(data.test_harmful, True, data.held_out_share, data.dev_share, on_mapping)),
        *_whole(load_split(data.test_harmless, False, data.held_out_share, data.dev_share, on_mapping)),
    ]
    by_classifier = 0
    ready: dict[Split, list[Request]] = {}
    for split in ("train", "dev", "test"):
        ruled, classified = assign_rules(harmful[split], policy)
        by_classifier += classified
        capped = cap_per_rule(ruled, data.per_rule) if split == "train" else ruled
        ready[split] = [*capped, *_capped_by_source(harmless[split], data.max_harmless)]
    selection = disjoint(ready["train"], ready["dev"], [*ready["test"], *tested_only])
    _need(selection)
    for split, rows in (("train", selection.train), ("dev", selection.dev), ("test", selection.test)):
        write_jsonl(out / f"{split}.jsonl", rows)
    write_json(out / "removed.json", selection.removed)
    counts: dict[str, Any] = {"train": len(selection.train), "dev": len(selection.dev), "test": len(selection.test)}
    return counts | {"rules_by_classifier": by_classifier, "removed": sum(selection.removed.values())}


def _whole(parts: dict[Split, list[Request]]) -> list[Request]:
    return [request for rows in parts.values() for request in rows]


def _capped_by_source(requests: Sequence[Request], most: int) -> list[Request]:
    names = dict.fromkeys(request.source for request in requests)
    return [r for name in names for r in sample([q for q in requests if q.source == name], most)]


def _need(selection: Selection) -> None:
    for split, rows, least in (("train", selection.train, 8), ("test", selection.test, 2)):
        for label in (True, False):
            count = sum(request.harmful is label for request in rows)
            if count < least:
                kind = "harmful" if label else "harmless"
                raise StageError(
                    f"{count} {kind} requests to {split} on",
                    f"at least {least} are needed, after duplicates are removed",
                    "Add a source, or lower data.held_out_share",
                )


def evolve_rows(build: BuildConfig, seed: int, selected: Path, out: Path) -> dict[str, Any]:
    """Restyles train and dev requests, harmful and harmless alike."""
    operators = load_operators(build.operator_folder, build.operators)
    for name in build.exclude_operators:
        if operators.pop(name, None) is None:
            raise ConfigError(f"operator '{name}'", "is not there to be excluded", "Mend build.exclude_operators")
    counts: dict[str, Any] = {"operators": len(operators)}
    for split in ("train", "dev"):
        requests = list(read_jsonl(selected / f"{split}.jsonl", Request))
        rows = [
            *evolve([r for r in requests if r.harmful], operators, build.rows_per_harmful, build.styled_share, seed),
            *evolve(
                [r for r in requests if not r.harmful], operators, build.rows_per_harmless, build.styled_share, seed
            ),
        ]
        counts[split] = write_jsonl(out / f"{split}.jsonl", rows)
    return counts


def answer_rows(recipe: Recipe, evolved: Path, out: Path, on_total: Progress, on_done: Progress) -> dict[str, Any]:
    """The target model's own answers to some harmless train rows."""
    harmless = [row for row in read_jsonl(evolved / "train.jsonl", Request) if row.harmful is False]
    chosen = sample(harmless, recipe.build.own_answers, recipe.seed)
    file = out / "answers.jsonl"
    if not chosen:
        file.touch()
        return {"answers": 0}
    on_total(len(chosen))
    model = LocalModel.load(recipe.model)
    answers = own_answers(model, chosen, file, recipe.build.own_answer_tokens, on_done)
    return {"answers": len(answers), "not_used": len(chosen) - len(answers)}


def build_rows(recipe: Recipe, policy: Policy, evolved: Path, answers: dict[str, str], out: Path) -> dict[str, Any]:
    """Teaches, verifies and fits the rows to the token budget; writes them and what was dropped."""
    build, seed = recipe.build, recipe.seed
    rng = random.Random(seed)
    examples = [
        teach(
            request,
            policy,
            seed,
            answers.get(request.id),
            thought_only=bool(request.harmful) and rng.random() >= build.refusal_share,
        )
        for request in read_jsonl(evolved / "train.jsonl", Request)
    ]
    kept, dropped = verify(examples, policy, build.format, build.detail)
    if not kept:
        raise StageError("0 rows", "no row passed verification", f"Causes: {dict(dropped)}")
    rows = to_tokens(recipe, policy, kept)
    chosen = _within_budget(rows, build.max_tokens, seed)
    if len(chosen) < len(rows):
        dropped["over the token budget"] += len(rows) - len(chosen)
    write_jsonl(out / "examples.jsonl", [kept[index] for index in chosen])
    write_json(out / "dropped.json", dict(dropped))
    terms = Counter(kept[index].term for index in chosen)
    tokens = sum(rows[index].length for index in chosen)
    return {"rows": len(chosen), "refusal": terms["refusal"], "benign": terms["benign"], "tokens": tokens} | {
        "verified_share": round(len(kept) / len(examples), 4)
    }


def to_tokens(recipe: Recipe, policy: Policy, examples: Sequence[Example]) -> list[TokenRow]:
    """Examples as token rows for the recipe's model."""
    tokenizer = load_tokenizer(recipe.model)
    build = recipe.build
    return [tokenize(example, tokenizer, policy, build.format, build.detail, recipe.seed) for example in examples]


def _within_budget(rows: Sequence[TokenRow], budget: int, seed: int) -> list[int]:
    """Indices of rows, drawn at random, that fit the budget; in their first order."""
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    chosen: list[int] = []
    spent = 0
    for index in order:
        if spent + rows[index].length <= budget:
            chosen.append(index)
            spent += rows[index].length
    return sorted(chosen)
