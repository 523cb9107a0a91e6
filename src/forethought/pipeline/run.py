"""`forethought run`: from data to a report, stage by stage, each kept when nothing before it changed."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forethought.data.select import sample
from forethought.data.shipped import shipped_requests
from forethought.engine.local import LocalModel, Settings, read_settings, write_settings
from forethought.errors import ConfigError
from forethought.evals.attacks.static import attack_names
from forethought.evals.calibrate import Calibration, choose_threshold
from forethought.evals.metrics import Figure
from forethought.evals.plan import plan_attempts
from forethought.evals.respond import Judged, run_defence
from forethought.manifest import file_hash, key_of
from forethought.pipeline.prepare import answer_rows, build_rows, evolve_rows, select, to_tokens
from forethought.pipeline.recipe import Recipe
from forethought.pipeline.stage import StageRunner
from forethought.pipeline.terminal import Terminal
from forethought.policy import Policy, load_policy
from forethought.records import Example, Request, read_jsonl, write_jsonl
from forethought.report.figures import attack_sets, defence_figures
from forethought.report.page import write_page
from forethought.report.results import write_results
from forethought.train.sft import train

DEFENCES = ("base", "prompt", "scot")


def run_recipe(recipe: Recipe, folder: Path, results: Path, command: str, terminal: Terminal) -> Path:
    """Runs all stages of a recipe in `folder`, writes `results` and returns the report page.

    Raises ForethoughtError when a stage can't do its work; finished stages stay.
    """
    for attack in recipe.evaluate.attacks:
        if attack not in attack_names():
            raise ConfigError(
                f"attack '{attack}'", "there is no such attack", f"Use one of {', '.join(attack_names())}"
            )
    policy = load_policy(recipe.policy)
    stages = StageRunner(folder, terminal.say)
    evolved, selected, built = _data_stages(recipe, policy, stages, terminal)
    adapter = _train_stage(recipe, policy, built, stages, terminal)
    _calibrate_stage(recipe, evolved, adapter, stages, terminal)
    judged = _respond_stages(recipe, selected, adapter, stages, terminal)
    figures = _figures(recipe, judged, read_settings(adapter), built, stages)
    inputs = {name: file_hash(selected / name) for name in ("train.jsonl", "dev.jsonl", "test.jsonl")}
    inputs["policy"] = policy.hash
    write_results(results, command, [recipe.seed], inputs, figures)
    page = folder / "report.html"
    write_page(page, recipe.name, recipe.evaluate.attacks, judged, figures, read_settings(adapter))
    terminal.table(figures, DEFENCES)
    return page


def _data_stages(recipe: Recipe, policy: Policy, stages: StageRunner, terminal: Terminal) -> tuple[Path, Path, Path]:
    data, build = recipe.data, recipe.build
    sources = {spec.path: _fingerprint(spec.path) for spec in _all_sources(recipe)}
    config = {"data": data.model_dump(mode="json"), "policy": policy.hash, "sources": sources}
    selected = stages.run("1-select", config, lambda out: select(data, policy, out, terminal.mapping))
    folder = build.operator_folder
    styles = {"own": [file_hash(file) for file in sorted(folder.glob("*.yaml"))]} if folder else {}
    config = {"build": build.model_dump(mode="json"), "seed": str(recipe.seed), "styles": styles}
    evolved = stages.run("2-evolve", config, lambda out: evolve_rows(build, recipe.seed, selected, out))
    with terminal.progress("3-answers") as bar:
        answered = stages.run(
            "3-answers",
            {"model": recipe.model},
            lambda out: answer_rows(recipe, evolved, out, bar.total, bar.advance),
            keep_partial=True,
        )
    built = stages.run(
        "4-build", {}, lambda out: build_rows(recipe, policy, evolved, _answers(answered / "answers.jsonl"), out)
    )
    return evolved, selected, built


def _all_sources(recipe: Recipe) -> Sequence[Any]:
    data = recipe.data
    return [*data.harmful, *data.harmless, *data.test_harmful, *data.test_harmless]


def _fingerprint(spec: str) -> str:
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


def _answers(file: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {row["request_id"]: row["answer"] for row in rows if row["complies"]}


def _train_stage(recipe: Recipe, policy: Policy, built: Path, stages: StageRunner, terminal: Terminal) -> Path:
    def work(out: Path) -> dict[str, Any]:
        rows = to_tokens(recipe, policy, list(read_jsonl(built / "examples.jsonl", Example)))
        counts = train(recipe.model, rows, recipe.training, out, bar.step)
        examples = read_jsonl(built / "examples.jsonl", Example)
        seen = sorted({example.request.operator for example in examples if example.request.operator})
        settings = Settings(
            policy=policy,
            format=recipe.build.format,
            detail=recipe.build.detail,
            answer_with=recipe.answer_with if recipe.training.method == "lora" else "adapter",
            seen_operators=tuple(seen),
        )
        write_settings(out, settings)
        return counts

    with terminal.progress("5-train") as bar:
        config = {"train": recipe.training.model_dump(mode="json"), "answer_with": recipe.answer_with}
        return stages.run("5-train", config, work, keep_partial=True)


def _calibrate_stage(recipe: Recipe, evolved: Path, adapter: Path, stages: StageRunner, terminal: Terminal) -> None:
    """Sets the threshold beside the adapter, from development rows."""
    point = recipe.operating_point

    def work(out: Path) -> dict[str, Any]:
        dev = list(read_jsonl(evolved / "dev.jsonl", Request))
        groups = {
            kind: sample([r for r in dev if r.kind == kind], point.rows // 3)
            for kind in ("harmful", "ordinary", "lookalike")
        }
        rows = [row for group in groups.values() for row in group]
        bar.total(len(rows))
        model = LocalModel.load(recipe.model, adapter)
        responses = model.think([row.messages for row in rows], on_done=bar.advance)
        odds: dict[str, list[float]] = {kind: [] for kind in groups}
        for row, response in zip(rows, responses, strict=True):
            if response.log_odds is not None:
                odds[row.kind].append(response.log_odds)
        chosen = choose_threshold(
            odds["harmful"],
            odds["ordinary"],
            odds["lookalike"],
            point.max_false_refusal,
            point.max_false_refusal_lookalike,
        )
        (out / "calibration.json").write_text(chosen.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return {"threshold": round(chosen.threshold, 3), "note": str(chosen)}

    with terminal.progress("6-calibrate") as bar:
        folder = stages.run("6-calibrate", point.model_dump(mode="json"), work)
    chosen = Calibration.model_validate_json((folder / "calibration.json").read_text(encoding="utf-8"))
    settings = read_settings(adapter)
    update = {"threshold": chosen.threshold, "threshold_note": str(chosen)}
    write_settings(adapter, settings.model_copy(update=update))


def _respond_stages(
    recipe: Recipe, selected: Path, adapter: Path, stages: StageRunner, terminal: Terminal
) -> dict[str, list[Judged]]:
    """Every defence against the same plan; judged attempts by defence."""
    plan = recipe.evaluate
    test = list(read_jsonl(selected / "test.jsonl", Request))
    attempts = plan_attempts(
        test, plan.attacks, plan.n_direct, plan.n_styled, plan.n_ordinary, plan.n_lookalike, recipe.seed
    )
    judged: dict[str, list[Judged]] = {}
    for name in DEFENCES:

        def work(out: Path, name: str = name) -> dict[str, Any]:
            bar.total(len(attempts))
            local = LocalModel.load(recipe.model, adapter if name == "scot" else None)
            local.on_progress = bar.advance
            if name == "scot":
                _reuse_base(local, judged["base"], plan.max_answer_tokens)
            system = plan.safety_prompt if name == "prompt" else None
            rows = run_defence(name, local, attempts, out / "logs", system, plan.max_answer_tokens)
            write_jsonl(out / "judged.jsonl", rows)
            return {"attempts": len(rows), "unscored": sum(row.refused is None for row in rows)}

        with terminal.progress(f"7-respond-{name}") as bar:
            config = {"evaluate": plan.model_dump(mode="json"), "attempts": key_of([a.id for a in attempts])}
            folder = stages.run(f"7-respond-{name}", config, work, keep_partial=True)
        judged[name] = list(read_jsonl(folder / "judged.jsonl", Judged))
    return judged


def _reuse_base(local: LocalModel, base: Sequence[Judged], max_tokens: int) -> None:
    """What the base weights answered to a prompt is what they answer after `comply`: the prompt is the same."""
    for one in base:
        if one.response is not None:
            local.known_answers[(local.prompt_text(one.attempt.request.messages), max_tokens)] = one.response


def _figures(
    recipe: Recipe, judged: dict[str, list[Judged]], settings: Settings, built: Path, stages: StageRunner
) -> list[Figure]:
    unseen, _ = attack_sets(recipe.evaluate.attacks, settings.seen_operators)
    figures = [
        figure for name in judged for figure in defence_figures(name, judged[name], recipe.evaluate.attacks, unseen)
    ]
    tokens = json.loads((built / "manifest.json").read_text(encoding="utf-8"))["counts"]["tokens"]
    return [
        *figures,
        Figure(name="train_tokens", value=float(tokens) * recipe.training.epochs, unit="tokens"),
        Figure(name="minutes", value=stages.seconds / 60, unit="minutes"),
        Figure(name="peak_gib", value=stages.peak_gib, unit="GiB"),
    ]
