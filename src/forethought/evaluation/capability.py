"""What a model can still do, on question files, against chance and beside its base; through lm-eval."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forethought.errors import ConfigError
from forethought.manifest import input_hashes, key_of
from forethought.measure.capability import CapabilityConfig, need_lm_eval
from forethought.measure.capability.helpfulness import Pair, grade_pairs, win_rate
from forethought.measure.capability.questions import QuestionSet, load_questions
from forethought.measure.capability.summary import model_key
from forethought.metrics import Figure
from forethought.model import load_local, trained_folder
from forethought.models.weights import device, resolve_model
from forethought.progress import Progress
from forethought.report.results import write_results

if TYPE_CHECKING:  # it imports lm-eval, which not everybody installs
    from forethought.measure.capability.run import SetResult
    from forethought.models.weights import DType


@dataclass(frozen=True)
class CapabilityRun:
    """What a model, and where it was trained its base, made of question files."""

    config: CapabilityConfig
    """As it was asked, its prompt decided."""
    results: tuple[SetResult, ...]
    figures: tuple[Figure, ...]


def capability(
    model: str | Path,
    files: str | Sequence[str],
    config: CapabilityConfig | None = None,
    *,
    base: str | None = None,
    columns: Mapping[str, str] | None = None,
    grader: str | None = None,
    batch_size: int = 16,
    out: Path | None = None,
    progress: Progress | None = None,
) -> CapabilityRun:
    """Scores a model, and its base beside it, on question files: MMLU, GSM8K, ARC and the like, or one's own.

    `base` names the base of a model that was merged or fully trained. `columns` names columns by noun where the guess
    is wrong. `grader` is a model, as inspect-ai names it, that compares written answers. `out` is a file for the
    figures; scores of each question are kept beside it, else in runs/capability, and found there by the same call.
    Raises ConfigError without lm-eval, and for what does not go together.
    """
    need_lm_eval()
    from forethought.measure.capability.run import chosen_questions, compare_models, has_base

    config, progress = config or CapabilityConfig(), progress or Progress()
    files = [files] if isinstance(files, str) else list(files)
    if grader is not None and config.form != "generate":
        raise ConfigError("--grader", "compares written answers", "Add --form generate")
    sets = _question_sets(files, columns, progress)
    dtype: DType = "float32" if device().type == "cpu" else "auto"
    local, folder = load_local(model, dtype=dtype), trained_folder(model)
    base_name = base or _base_name(folder)
    own_base = load_local(base, dtype=dtype) if base is not None and local.trained else None
    compared = local.trained and (own_base is not None or has_base(local))
    if local.trained and not compared:
        progress.say(
            "[yellow]No base model stands beside this one: no difference is measured. Name it: --base[/yellow]"
        )
    config = config.prompted(local.trained)
    items = out.with_name(f"{out.stem}-items") if out else Path("runs") / "capability"
    with progress.bar("capability") as bar:
        bar.total((2 if compared else 1) * sum(len(chosen_questions(qset, config)[0]) for qset in sets))
        results = compare_models(
            local, _key(folder), sets, config, items, own_base, _key(base_name) if base_name else "", batch_size,
            bar.advance,
        )  # fmt: skip
    figures = [figure for result in results for figure in result.figures()]
    if grader is not None:
        figures += _graded(results, grader, items, config.seed)
    if out is not None:
        write_results(out, [config.seed], input_hashes(files), figures)
    return CapabilityRun(config, tuple(results), tuple(figures))


def _question_sets(files: Sequence[str], columns: Mapping[str, str] | None, progress: Progress) -> list[QuestionSet]:
    """Reads the question files, and says how each was understood. Raises ConfigError for two of one name."""
    sets = [load_questions(file, columns) for file in files]
    if len({qset.name for qset in sets}) < len(sets):
        raise ConfigError(", ".join(files), "two files have the same name", "Rename one: figures carry the names")
    for qset in sets:
        left = "".join(f"; left out {count}: {cause}" for cause, count in sorted(qset.left_out.items()))
        taken = ", ".join(f"{noun}={column}" for noun, column in qset.columns.items())
        progress.mapping(qset.name, f"{len(qset.questions)} of kind {qset.kind} ({taken}){left}")
    return sets


def _key(name: str | Path) -> str:
    """What tells a model from others, and from itself when it is trained again."""
    return model_key(Path(resolve_model(str(name))), str(name))


def _base_name(folder: Path) -> str:
    """The base that an adapter folder names; empty for any other model."""
    file = folder / "adapter_config.json"
    return str(json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]) if file.is_file() else ""


def _graded(results: Sequence[SetResult], grader: str, folder: Path, seed: int) -> list[Figure]:
    """Win rates of the defended model's open answers, where both models answered."""
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
