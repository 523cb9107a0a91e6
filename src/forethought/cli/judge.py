"""`forethought judge`, to be mounted by the root of the command line."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from forethought.commands import judge as judge_command


class _Listing(TyperGroup):
    """A group whose help ends with the judges there are: looked up when it is asked for, and not before."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # typer keeps their types under a private name
        self.epilog = judge_command.listing()
        super().format_help(ctx, formatter)


judge_app = typer.Typer(
    name="judge",
    cls=_Listing,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Judges of answers: train them on labelled files, measure them, try to fool them.",
)


class MeasureName(StrEnum):
    """What a judge decides."""

    refused = "refused"
    harmful = "harmful"


JudgeArgument = Annotated[
    str,
    typer.Argument(
        help="A judge of `forethought judge --help`, such as rules, harm or strongreject@openai/NAME, or a trained"
        " one's folder."
    ),
]
GuardMeasure = Annotated[MeasureName, typer.Option(help="What a guard that decides both is asked for.")]
Journal = Annotated[Path, typer.Option(help="Where a model's answers are kept: judging again pays nothing.")]
BaseUrl = Annotated[str | None, typer.Option(help="Address of the model's OpenAI-compatible server.")]
_JOURNAL = Path("judge-calls.jsonl")
AnswerColumn = Annotated[str | None, typer.Option(help="Column of the answers, where the guess is wrong.")]
RequestColumn = Annotated[str | None, typer.Option(help="Column of the requests, where the guess is wrong.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column of the labels, where the guess is wrong.")]
Positive = Annotated[
    list[str] | None,
    typer.Option(help="Label value that means refused (or harmful); can be given again. All others then mean not."),
]
FullOnly = Annotated[
    bool, typer.Option("--full-only", help="Partial refusals count as compliances. Default: as refusals.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@judge_app.command()
def train(
    files: Annotated[list[str], typer.Argument(help="Labelled files: answer, label and, better, request.")],
    out: Annotated[Path, typer.Option(help="Folder for the judge.")],
    measure: Annotated[MeasureName, typer.Option(help="What the labels say.")] = MeasureName.refused,
    answer_column: AnswerColumn = None,
    request_column: RequestColumn = None,
    label_column: LabelColumn = None,
    positive: Positive = None,
    full_only: FullOnly = False,
    without_shipped: Annotated[
        bool, typer.Option("--without-shipped", help="Leave out the shipped training answers.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the shipped answers' composition.")] = 0,
) -> None:
    """Trains an embedded judge on labelled answers; seconds on one core.

    The folder holds weights and settings, and no text. The same files and seed give the same judge.

    Examples:

      forethought judge train xstest_completions.csv --out judges/mine

      forethought judge train mine.jsonl --measure harmful --label-column verdict --positive unsafe --out judges/harm
    """
    given = _columns(answer_column, request_column, label_column, positive)
    judge_command.train(files, measure.value, out, given, full_only, not without_shipped, seed)


@judge_app.command("eval")
def evaluate(
    judge: JudgeArgument,
    files: Annotated[list[str], typer.Argument(help="Labelled files that the judge was not trained on.")],
    answer_column: AnswerColumn = None,
    request_column: RequestColumn = None,
    label_column: LabelColumn = None,
    positive: Positive = None,
    full_only: FullOnly = False,
    max_unscored: Annotated[
        float, typer.Option(min=0, max=1, help="Share of undecided answers from which the exit code is 1.")
    ] = 0.02,
    measure: GuardMeasure = MeasureName.harmful,
    journal: Journal = _JOURNAL,
    base_url: BaseUrl = None,
    json_output: Json = False,
) -> None:
    """Measures a judge against people's labels, source by source, beside the keyword list.

    Answers that the judge doesn't decide are counted apart. Exits with 1 where they are more
    than --max-unscored of any source.

    Examples:

      forethought judge eval refusal xstest_completions.csv

      forethought judge eval judges/harm labelled.csv --json
    """
    given = _columns(answer_column, request_column, label_column, positive)
    chosen = judge_command.JudgeChoice(judge, measure.value, journal, base_url)
    raise typer.Exit(judge_command.evaluate(chosen, files, given, full_only, max_unscored, json_output))


@judge_app.command()
def robustness(
    judge: JudgeArgument,
    files: Annotated[
        list[str] | None, typer.Argument(help="Labelled files whose full compliances to probe. Default: shipped ones.")
    ] = None,
    answer_column: AnswerColumn = None,
    request_column: RequestColumn = None,
    label_column: LabelColumn = None,
    positive: Positive = None,
    measure: GuardMeasure = MeasureName.harmful,
    journal: Journal = _JOURNAL,
    base_url: BaseUrl = None,
    json_output: Json = False,
) -> None:
    """Counts the verdicts that flip when an answer is wrapped and does the same as before.

    A safety preamble, a disavowal, a reasoning, a quoted refusal, text that instructs the judge,
    great length; and answers in other languages, and empty ones.
    """
    given = _columns(answer_column, request_column, label_column, positive)
    chosen = judge_command.JudgeChoice(judge, measure.value, journal, base_url)
    judge_command.robustness(chosen, files or [], given, json_output)


def _columns(
    answer: str | None, request: str | None, label: str | None, positive: list[str] | None
) -> judge_command.ColumnChoice:
    return judge_command.ColumnChoice(answer, request, label, tuple(positive or ()))
