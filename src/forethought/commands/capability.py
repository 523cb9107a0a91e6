"""`forethought capability`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from forethought.commands.shared import column_overrides, quiet
from forethought.commands.terminal import console
from forethought.errors import ConfigError

if TYPE_CHECKING:
    from forethought.measure.capability.questions import QuestionSet
    from forethought.measure.capability.run import SetResult
    from forethought.metrics import Figure
    from forethought.models.local import LocalModel
    from forethought.models.weights import DType


def capability(
    model: str,
    files: Sequence[str],
    options: Mapping[str, Any],
    base: str | None,
    columns: Sequence[str],
    grader: str | None,
    batch_size: int,
    out: Path | None,
) -> None:
    """Scores a model, and its base beside it, on question files; prints a table and writes the figures.

    `options` are fields of CapabilityConfig; a prompt of None is `chat` for a trained model, and its base beside it.
    """
    quiet()
    from forethought.measure.capability import need_lm_eval

    need_lm_eval()
    from forethought.commands.terminal import Terminal
    from forethought.measure.capability.run import CapabilityConfig, chosen_questions, compare_models

    _silence()
    if grader is not None and options["form"] != "generate":
        raise ConfigError("--grader", "compares written answers", "Add --form generate")
    sets = _sets(files, columns)
    models = _models(model, base)
    prompt = options["prompt"] or ("chat" if models.local.trained else "plain")
    config = CapabilityConfig(**{**options, "prompt": prompt})
    folder = out.with_name(f"{out.stem}-items") if out else Path("runs") / "capability"
    with Terminal(console).bar("capability") as bar:
        bar.total(models.count * sum(len(chosen_questions(qset, config)[0]) for qset in sets))
        results = compare_models(
            models.local, models.key, sets, config, folder, models.base, models.base_key, batch_size, bar.advance
        )
    figures = [figure for result in results for figure in result.figures()]
    figures += _graded(results, grader, folder, config.seed) if grader is not None else []
    _show(results, figures, config)
    if out is not None:
        _write(out, files, figures, config.seed)


@dataclass(frozen=True)
class _Models:
    """What is scored, and the base beside it."""

    local: LocalModel
    key: str
    base: LocalModel | None
    """A base of its own; None where the adapter's is inside `local`, or there is none."""
    base_key: str
    count: int
    """How many systems are scored: 2 with a base."""


def _models(model: str, base: str | None) -> _Models:
    """Loads what is scored; says so where nothing stands beside a trained model."""
    from forethought.measure.capability.run import has_base
    from forethought.measure.capability.summary import model_key
    from forethought.model import load_local, trained_folder
    from forethought.models.weights import device, resolve_model

    dtype: DType = "float32" if device().type == "cpu" else "auto"
    local, folder = load_local(model, dtype=dtype), trained_folder(model)
    other = load_local(base, dtype=dtype) if base is not None and local.trained else None
    count = 2 if local.trained and (other is not None or has_base(local)) else 1
    if local.trained and count == 1:
        console.print(
            "No base model stands beside this one: no difference is measured. Name it: --base", style="yellow"
        )
    key = model_key(Path(resolve_model(str(folder))), str(folder))
    base_name = base or _base_name(folder)
    base_key = model_key(Path(resolve_model(base_name)), base_name) if base_name else ""
    return _Models(local, key, other, base_key, count)


def _sets(files: Sequence[str], columns: Sequence[str]) -> list[QuestionSet]:
    """Reads the question files and shows how each was understood. Raises ConfigError for two of one name."""
    from forethought.measure.capability.questions import load_questions

    sets = [load_questions(file, column_overrides(columns)) for file in files]
    if len({qset.name for qset in sets}) < len(sets):
        raise ConfigError(", ".join(files), "two files have the same name", "Rename one: figures carry the names")
    for qset in sets:
        left = "".join(f"; left out {count}: {cause}" for cause, count in sorted(qset.left_out.items()))
        taken = ", ".join(f"{noun}={column}" for noun, column in qset.columns.items())
        console.print(
            escape(f"{qset.name}: {len(qset.questions)} of kind {qset.kind} ({taken}){left}"), highlight=False
        )
    return sets


def _silence() -> None:
    import logging

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    logging.getLogger("lm-eval").setLevel(logging.ERROR)


def _base_name(folder: Path) -> str:
    """The base that an adapter folder names; empty for any other model."""
    file = folder / "adapter_config.json"
    return str(json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]) if file.is_file() else ""


def _graded(results: Sequence[SetResult], grader: str | None, folder: Path, seed: int) -> list[Figure]:
    """Win rates of the defended model's open answers, where both models answered."""
    from forethought.manifest import key_of
    from forethought.measure.capability.helpfulness import Pair, grade_pairs, win_rate

    assert grader is not None
    figures = []
    for result in results:
        if result.kind != "open" or len(result.scores) < 2:
            continue
        pairs = [
            Pair(id=question.id, instruction=question.text, base=one.answer, defended=two.answer)
            for question, one, two in zip(
                result.questions, result.scores["base"], result.scores["defended"], strict=True
            )
        ]
        log_dir = folder / f"grader-{result.name}-{key_of([grader, seed, [pair.model_dump() for pair in pairs]])}"
        figures.append(win_rate(grade_pairs(pairs, grader, log_dir, seed)).named(f"capability_win_rate_{result.name}"))
    if not figures:
        raise ConfigError("--grader", "needs open instructions and a base model to compare with", "See --base")
    return figures


def _show(results: Sequence[SetResult], figures: Sequence[Figure], config: Any) -> None:
    from forethought.report.tables import interval

    by_name = {figure.name: figure for figure in figures}
    systems = list(results[0].scores)
    columns = ["", "n", "chance", *systems, *(["refused", "difference", "p"] if len(systems) > 1 else []), ""]
    caption = f"Prompt: {config.prompt}, form: {config.form}, seed {config.seed}; 95 % intervals in brackets"
    table = Table(*columns, caption=caption, caption_justify="left")
    for result in results:
        name = result.name
        stem = next((s for s in ("", "bits_", "words_") if f"capability_{s}{name}_{systems[-1]}" in by_name), "")
        cells = [interval(by_name.get(f"capability_{stem}{name}_{system}")) for system in systems]
        if len(systems) > 1:
            cells += [
                interval(by_name.get(f"capability_refused_{name}_{systems[-1]}")),
                interval(by_name.get(f"capability_{stem}difference_{name}")),
                f"{by_name[p].value:.2g}" if (p := f"capability_mcnemar_p_{name}") in by_name else "-",
            ]
        chance = "-" if result.chance is None else f"{result.chance:.2f}"
        unit = {"bits_": "bits a byte", "words_": "words"}.get(stem, "")
        note = "uninformative: base at chance" if result.informative is False else unit
        table.add_row(f"{name}", str(len(result.questions)), chance, *cells, note)
    console.print(table)
    for figure in figures:
        if figure.name.startswith("capability_win_rate_"):
            console.print(f"{figure.name.removeprefix('capability_')}: {interval(figure)}", highlight=False)


def _write(out: Path, files: Sequence[str], figures: Sequence[Figure], seed: int) -> None:
    from forethought.manifest import file_hash
    from forethought.report.results import write_results

    inputs = {Path(file).name: file_hash(Path(file)) for file in files if Path(file).is_file()}
    write_results(out, [seed], inputs, figures)
    console.print(f"Figures: {out}", highlight=False, soft_wrap=True)
