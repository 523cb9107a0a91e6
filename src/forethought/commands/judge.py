"""`forethought judge`: train judges on labelled answers, measure them, and try to fool them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.markup import escape
from rich.table import Table

from forethought.commands.terminal import console
from forethought.errors import ConfigError

if TYPE_CHECKING:
    from forethought.judges.base import Judge, Measure
    from forethought.judges.evaluate import Evaluation
    from forethought.judges.labelled import LabelledItem
    from forethought.metrics import Figure


class ColumnChoice(NamedTuple):
    """Columns that the user named; None is guessed."""

    answer: str | None = None
    request: str | None = None
    label: str | None = None
    positive: tuple[str, ...] = ()
    """Label values that are positive; empty means by the usual words."""


class JudgeChoice(NamedTuple):
    """A judge by name; the rest is for judges that are models."""

    name: str
    measure: Measure
    journal: Path
    base_url: str | None

    def open(self) -> Judge:
        """The judge. Raises ConfigError or ModelError where there is none."""
        from forethought.judges.catalogue import get_judge

        return get_judge(*self)


def listing() -> str:
    """The judges there are, a paragraph each."""
    from forethought.judges import DEFAULT_JUDGE
    from forethought.judges.catalogue import entries

    lines = [f"{one.written} ({' or '.join(one.decides)}): {one.what}." for one in entries()]
    return "\n\n".join([f"JUDGE is one of these, by default {DEFAULT_JUDGE}; or a trained judge's folder.", *lines])


_SHOWN = ("accuracy", "precision", "recall", "f1", "kappa", "auroc", "brier")


def train(
    files: Sequence[str], measure: Measure, out: Path, columns: ColumnChoice, full_only: bool, shipped: bool, seed: int
) -> None:
    """Trains on the files, and on the shipped answers unless told not to; writes the judge to `out`."""
    from forethought.judges.labelled import truths
    from forethought.judges.trained import Lesson, shipped_lessons, train_judge

    items = _read(files, measure, columns)
    lessons = shipped_lessons(measure, not full_only, seed) if shipped else []
    for labelled, truth in zip(items, truths(items, not full_only), strict=True):
        if truth is not None:
            lessons.append(Lesson(item=labelled.item, positive=truth, source=labelled.source))
    model = train_judge(lessons, measure, out.name, not full_only, seed=seed)
    model.save(out)
    rows = ", ".join(f"{source} {n}" for source, n in model.settings.rows.items())
    console.print(f"Trained a judge of '{measure}' on {rows}: {escape(str(out))}", highlight=False)
    console.print(f"Calibrated on held-out {model.settings.calibrated_on}. Measure it on a source that it never saw.")


def evaluate(
    chosen: JudgeChoice,
    files: Sequence[str],
    columns: ColumnChoice,
    full_only: bool,
    max_unscored: float,
    as_json: bool,
) -> int:
    """Prints the judge against the labels, beside the keyword list. Returns the exit code: 1 for too many unscored."""
    from forethought.judges.evaluate import evaluate as measured
    from forethought.judges.keywords import Keywords

    judge = chosen.open()
    items = _read(files, judge.measure, columns)
    found = measured(judge, items, not full_only)
    beside = [] if judge.name == "keywords" else measured(Keywords(judge.measure), items, not full_only)
    if as_json:
        print(json.dumps([_plain(e.model_dump()) for e in (*found, *beside)], indent=2))
    else:
        _show(found, beside)
    worst = max(found, key=lambda evaluation: evaluation.unscored_share)
    if worst.unscored_share > max_unscored:
        if not as_json:
            console.print(
                f"{worst.unscored} of {worst.n} answers of {escape(worst.source)} are unscored, more than"
                f" {max_unscored:.0%}: {escape(', '.join(f'{cause} ({n})' for cause, n in worst.causes.items()))}",
                highlight=False,
            )
        return 1
    return 0


def robustness(chosen: JudgeChoice, files: Sequence[str], columns: ColumnChoice, as_json: bool) -> None:
    """Prints the table of flips on the files' full compliances, or on shipped ones."""
    from forethought.judges.robustness import compliances
    from forethought.judges.robustness import robustness as probed

    judge = chosen.open()
    items = compliances(_read(files, judge.measure, columns) if files else [], judge)
    if not items:
        raise ConfigError(", ".join(files), "holds no full compliance", "Give a file with some, or none")
    results = probed(judge, items)
    if as_json:
        print(json.dumps([_plain(result.model_dump()) for result in results], indent=2))
        return
    table = Table("probe", "flipped", "95 %", "n", "became unscored", "ms an answer")
    for result in results:
        flips = result.flips
        table.add_row(
            result.probe,
            f"{flips.value:.3f}",
            _interval(flips.low, flips.high),
            str(flips.n),
            str(result.became_unscored),
            f"{1000 * result.s_per_answer:.1f}",
        )
    console.print(table)


def _read(files: Sequence[str], measure: Measure, columns: ColumnChoice) -> list[LabelledItem]:
    from forethought.judges.labelled import Columns, labelled_items

    given = Columns.model_validate(columns._asdict())
    return [item for file in files for item in labelled_items(file, measure, given)]


def _show(found: Sequence[Evaluation], beside: Sequence[Evaluation]) -> None:
    """A table a source: the judge's figures, and the keyword list's beside them."""
    for number, evaluation in enumerate(found):
        pair = [evaluation, *beside[number : number + 1]]
        table = Table(escape(evaluation.source), *(cell for one in pair for cell in (one.judge, "95 %")))
        for name in _SHOWN:
            table.add_row(name, *(cell for one in pair for cell in _cells(one.figure(name))))
        table.add_row("unscored", *(cell for one in pair for cell in (f"{one.unscored} of {one.n}", "")))
        console.print(table)
    speed = next((e.answers_per_s for e in found if e.answers_per_s), None)
    if speed:
        console.print(f"{speed:.0f} answers a second", highlight=False)


def _cells(figure: Figure | None) -> tuple[str, str]:
    if figure is None or math.isnan(figure.value):
        return "-", ""
    return f"{figure.value:.3f}", _interval(figure.low, figure.high)


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.2f}-{high:.2f}"


def _plain(value: Any) -> Any:
    """Numbers that are not numbers become null: JSON has no nan."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and value != value else value
