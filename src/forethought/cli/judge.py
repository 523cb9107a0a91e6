"""`forethought judge`: trains judges on labelled answers, measures them, and tries to fool them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from typer.core import TyperGroup

from forethought.cli import options
from forethought.cli.terminal import Terminal, say, show_table

if TYPE_CHECKING:
    from pydantic import BaseModel

    from forethought.judges.evaluate import Evaluation
    from forethought.judges.labelled import Columns
    from forethought.metrics import Figure

_SHOWN = ("accuracy", "precision", "recall", "f1", "kappa", "auroc", "brier")


class _Listing(TyperGroup):
    """A group whose help ends with the judges there are: looked up when it is asked for, and not before."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # typer keeps their types under a private name
        from forethought.judges import DEFAULT_JUDGE
        from forethought.judges.catalogue import entries

        lines = [f"{one.written} ({' or '.join(one.decides)}): {one.what}." for one in entries()]
        first = f"JUDGE is one of these, by default {DEFAULT_JUDGE}; or a trained judge's folder."
        self.epilog = "\n\n".join([first, *lines])
        super().format_help(ctx, formatter)


judge = typer.Typer(
    name="judge",
    cls=_Listing,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Judges of answers: train them on labelled files, measure them, try to fool them.",
)


Measure = Literal["refused", "harmful"]
JudgeArgument = Annotated[
    str,
    typer.Argument(
        help="A judge of `forethought judge --help`, such as rules, harm or strongreject@openai/NAME, or a trained"
        " one's folder."
    ),
]
GuardMeasure = Annotated[Measure, typer.Option(help="What a guard that decides both is asked for.")]
Journal = Annotated[Path, typer.Option(help="Where a model's answers are kept: judging again pays nothing.")]
BaseUrl = Annotated[str | None, typer.Option(help="Address of the model's OpenAI-compatible server.")]
_JOURNAL = Path("judge-calls.jsonl")
ColumnNames = Annotated[list[str] | None, options.column("answer, request or label")]
Positive = Annotated[
    list[str] | None,
    typer.Option(help="Label value that means refused (or harmful); can be given again. All others then mean not."),
]
FullOnly = Annotated[
    bool, typer.Option("--full-only", help="Partial refusals count as compliances. Default: as refusals.")
]


@judge.command()
def train(
    files: Annotated[list[str], typer.Argument(help="Labelled files: answer, label and, better, request.")],
    out: Annotated[Path, typer.Option(help="Folder for the judge.")],
    measure: Annotated[Measure, typer.Option(help="What the labels say.")] = "refused",
    reads: Annotated[
        str | None,
        typer.Option(
            help="A judge of harm that reads request and answer with this model: embedded, or a model's name or"
            " folder. Default: n-grams, which need none."
        ),
    ] = None,
    columns: ColumnNames = None,
    positive: Positive = None,
    full_only: FullOnly = False,
    without_shipped: Annotated[
        bool, typer.Option("--without-shipped", help="Leave out the shipped training answers.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the shipped answers' composition.")] = 0,
) -> None:
    """Trains a judge on labelled answers: of n-grams, in seconds on one core, or with --reads one that reads.

    The folder holds weights and settings, and no text. The same files and seed give the same judge. One that
    reads is measured on each file when the others taught; stopped, it goes on where it was.

    Examples:

      forethought judge train xstest_completions.csv --out judges/mine

      forethought judge train mine.jsonl --measure harmful --out judges/harm

      forethought judge train a.csv b.csv --measure harmful --reads MODEL --out DIR
    """
    if reads is not None:
        _train_reader(files, out, measure, _columns(columns, positive), reads)
        return
    from forethought.judges.trained import train_judge

    model = train_judge(
        files, out, measure, _columns(columns, positive), partial_counts=not full_only,
        with_shipped=not without_shipped, seed=seed,
    )  # fmt: skip
    rows = ", ".join(f"{source} {n}" for source, n in model.settings.rows.items())
    say(f"Trained a judge of '{measure}' on {rows}: {out}")
    say(f"Calibrated on held-out {model.settings.calibrated_on}. Measure it on a source that it never saw.")


def _train_reader(files: list[str], out: Path, measure: Measure, columns: Columns, reads: str) -> None:
    from forethought.errors import ConfigError
    from forethought.judges.heads import train_reader

    if measure != "harmful":
        raise ConfigError("--reads", f"trains no judge of '{measure}'", "Give --measure harmful, or leave it out")
    made = train_reader(files, out, reads, columns, progress=Terminal()).settings
    held = {"sources": "when the others taught", "groups": "on requests that did not teach"}[made.calibrated_on]
    areas = {name: f"{value:.3f}" for name, value in made.auroc.items()}
    rows = [(escape(name), str(n), areas.get(name, "-")) for name, n in made.rows.items()]
    show_table(("source", "answers", f"AUROC {held}"), rows)
    say(f"Trained a judge that reads layers {', '.join(map(str, made.layers))} of {made.model}: {out}")


@judge.command("eval")
def evaluate(
    judge: JudgeArgument,
    files: Annotated[list[str], typer.Argument(help="Labelled files that the judge was not trained on.")],
    columns: ColumnNames = None,
    positive: Positive = None,
    full_only: FullOnly = False,
    max_unscored: Annotated[
        float, typer.Option(min=0, max=1, help="Share of undecided answers from which the exit code is 1.")
    ] = 0.02,
    measure: GuardMeasure = "harmful",
    journal: Journal = _JOURNAL,
    base_url: BaseUrl = None,
    on: options.On = None,
    json_output: options.Json = False,
) -> None:
    """Measures a judge against people's labels, source by source, beside the keyword list.

    Answers that the judge doesn't decide are counted apart. Exits with 1 where they are more
    than --max-unscored of any source.

    Examples:

      forethought judge eval refusal xstest_completions.csv

      forethought judge eval judges/harm labelled.csv --json
    """
    from forethought.judges.catalogue import judge_on
    from forethought.judges.evaluate import evaluate_judge

    with judge_on(on, judge, measure, journal, base_url) as opened:
        found, beside = evaluate_judge(opened, files, _columns(columns, positive), not full_only)
    if json_output:
        _print_json([*found, *beside])
    else:
        _show(found, beside)
    worst = max(found, key=lambda evaluation: evaluation.unscored_share)
    if worst.unscored_share > max_unscored:
        causes = ", ".join(f"{cause} ({n})" for cause, n in worst.causes.items())
        if not json_output:
            say(
                f"{worst.unscored} of {worst.n} answers of {worst.source} are unscored, more than {max_unscored:.0%}:"
                f" {causes}"
            )
        raise typer.Exit(1)


@judge.command()
def robustness(
    judge: JudgeArgument,
    files: Annotated[
        list[str] | None, typer.Argument(help="Labelled files whose full compliances to probe. Default: shipped ones.")
    ] = None,
    columns: ColumnNames = None,
    positive: Positive = None,
    measure: GuardMeasure = "harmful",
    journal: Journal = _JOURNAL,
    base_url: BaseUrl = None,
    json_output: options.Json = False,
) -> None:
    """Counts the verdicts that flip when an answer is wrapped and does the same as before.

    A safety preamble, a disavowal, a reasoning, a quoted refusal, text that instructs the judge,
    great length; and answers in other languages, and empty ones.
    """
    from forethought.judges.catalogue import get_judge
    from forethought.judges.evaluate import probe_judge

    opened = get_judge(judge, measure, journal, base_url)
    results = probe_judge(opened, files or (), _columns(columns, positive))
    if json_output:
        _print_json(results)
        return
    rows = [
        (
            result.probe,
            *_cells(result.flips),
            str(result.flips.n),
            str(result.became_unscored),
            f"{1000 * result.s_per_answer:.1f}",
        )
        for result in results
    ]
    show_table(("probe", "flipped", "95 %", "n", "became unscored", "ms an answer"), rows)


def _columns(columns: list[str] | None, positive: list[str] | None) -> Columns:
    from forethought.judges.labelled import Columns

    named = options.column_overrides(columns, known=("answer", "request", "label"))
    return Columns(**named, positive=tuple(positive or ()))


def _print_json(records: Sequence[BaseModel]) -> None:
    """A list of records; a number that is none is null, since JSON has no other word for it."""
    print("[" + ",\n".join(record.model_dump_json(indent=2) for record in records) + "]")


def _show(found: Sequence[Evaluation], beside: Sequence[Evaluation]) -> None:
    """A table a source: the judge's figures, and the keyword list's beside them."""
    for number, evaluation in enumerate(found):
        pair = [evaluation, *beside[number : number + 1]]
        rows = [(name, *(cell for one in pair for cell in _cells(one.figure(name)))) for name in _SHOWN]
        rows.append(("unscored", *(cell for one in pair for cell in (f"{one.unscored} of {one.n}", ""))))
        show_table((escape(evaluation.source), *(cell for one in pair for cell in (one.judge, "95 %"))), rows)
    speed = next((e.answers_per_s for e in found if e.answers_per_s), None)
    if speed:
        say(f"{speed:.0f} answers a second")


def _cells(figure: Figure | None) -> tuple[str, str]:
    """A value and its interval."""
    if figure is None or math.isnan(figure.value):
        return "-", ""
    interval = "" if figure.low is None or figure.high is None else f"{figure.low:.2f}-{figure.high:.2f}"
    return f"{figure.value:.3f}", interval
