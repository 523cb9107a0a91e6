"""`forethought capability`, to be mounted by the root of the command line."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from forethought.cli.options import ModelArgument
from forethought.commands import capability as capability_command


class Form(StrEnum):
    """How an answer is read."""

    loglikelihood = "loglikelihood"
    generate = "generate"


class Choices(StrEnum):
    """What is scored as an answer to a question with options."""

    text = "text"
    letter = "letter"


class Prompt(StrEnum):
    """Whether questions stand in a chat."""

    plain = "plain"
    chat = "chat"


def capability(
    model: ModelArgument,
    files: Annotated[
        list[str], typer.Argument(help="Question files: MMLU, GSM8K, ARC, PIQA, IFEval, Alpaca and the like, or yours.")
    ],
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many questions a file, drawn by seed, strata kept.")
    ] = None,
    form: Annotated[
        Form,
        typer.Option(help="Compare likelihoods of the options, or let the model write and extract the answer."),
    ] = Form.loglikelihood,
    choices: Annotated[
        Choices, typer.Option(help="Score each option's text, or the letter of an option that the prompt lists.")
    ] = Choices.text,
    prompt: Annotated[
        Prompt | None, typer.Option(help="Default: chat for a trained model (and its base), else plain.")
    ] = None,
    shots: Annotated[int, typer.Option(min=0, help="Worked examples before each question.")] = 0,
    base: Annotated[
        str | None, typer.Option(help="The base to compare with, for a model that was merged or fully trained.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="NOUN=COLUMN (question, options, answer, context, group); can be repeated.")
    ] = None,
    grader: Annotated[
        str | None, typer.Option(help="A model that compares open answers, by inspect-ai name; with --form generate.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest written answer. Default: by kind.")] = None,
    think_budget: Annotated[
        int | None, typer.Option(min=1, help="Tokens of thought before a verdict is asked for. Default: the model's.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows scored at once.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the sample and the worked examples.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Write the figures as JSON. Items stand beside it, to resume.")
    ] = None,
) -> None:
    """What a model can still do, through lm-eval, from local files, against chance and against its base.

    A model that thinks gets the same prompts as its base; its thought is taken out before anything
    is scored, and an item that its verdict refuses counts as wrong. Differences are paired on the
    same items. A set on which the base is no better than chance can't show a loss, and is marked so.

    Examples:

      forethought capability embedded arc.jsonl piqa.jsonl --limit 200

      forethought capability runs/quickstart/5-train gsm8k.jsonl --form generate --out results.json
    """
    options = {
        "form": form.value, "choices": choices.value, "prompt": prompt.value if prompt else None, "shots": shots,
        "limit": limit, "seed": seed, "max_tokens": max_tokens, "think_budget": think_budget,
    }  # fmt: skip
    capability_command.capability(model, files, options, base, column or [], grader, batch_size, out)
