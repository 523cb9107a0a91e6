"""Arguments and options that several commands take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from forethought.errors import ConfigError

Model = Annotated[
    str,
    typer.Argument(
        help="A run folder, a trained folder, a model folder, a .gguf file, a hub name, `embedded`, or a "
        "server's model: http://HOST:PORT/v1#NAME or PROVIDER/NAME."
    ),
]
Defence = Annotated[
    str | None,
    typer.Option(
        help="A defence at inference around the model (docs/defences.md). Default: a run's own; none: without."
    ),
]
TextColumn = Annotated[str | None, typer.Option(help="Column that holds the requests, where the guess is wrong.")]
Source = Annotated[str, typer.Argument(help="File, folder, glob, wheel::member, pkg:NAME/path, hub:NAME, shipped:SET.")]
Kept = Annotated[
    Path | None,
    typer.Option(
        help="Folder of another run of the same file, or of its committed log: cells that are not done here are taken "
        "from there."
    ),
]
ShowHarmful = Annotated[bool, typer.Option("--show-harmful", help="Leave harmful texts unredacted.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", help="Don't ask what it may cost.")]
MaxCost = Annotated[float, typer.Option(min=0.0, help="US dollars from which to ask before calling.")]
PriceIn = Annotated[float | None, typer.Option(help="US dollars for a million input tokens.")]
PriceOut = Annotated[float | None, typer.Option(help="US dollars for a million output tokens.")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave malformed rows out and name them; else the first is an error.")
]
# Of commands that attack.
Suite = Annotated[
    str | None, typer.Option(help="quick, paper, reasoning, adaptive, all or a YAML file. Default: quick.")
]
Attacks = Annotated[
    list[str] | None,
    typer.Option(
        "--attack",
        metavar="SPEC",
        help="An attack, options and composition included (docs/attacks.md), or a .py file of yours; can be repeated.",
    ),
]
Benchmarks = Annotated[
    list[str] | None,
    typer.Option("--benchmark", metavar="FILE", help="A benchmark of any layout, or `shipped`; can be repeated."),
]
BenchmarkColumn = Annotated[
    list[str] | None, typer.Option(metavar="NOUN=NAME", help="Instead of a layout, as `forethought benchmark`.")
]
Harmless = Annotated[
    list[str] | None, typer.Option(help="Harmless requests, the control. Default: the benchmark's, else shipped.")
]
MaxAnswerTokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
RunResults = Annotated[Path | None, typer.Option(help="Where the figures go. Default: OUT/results.json.")]


def column_overrides(options: Sequence[str] | None, known: Sequence[str] = ()) -> dict[str, str]:
    """Columns by noun, from options written NOUN=NAME.

    Raises ConfigError for one that is not, or whose noun is none of the known ones.
    """
    pairs = [option.partition("=") for option in options or ()]
    for noun, equals, column in pairs:
        if not (noun and equals and column):
            raise ConfigError(f"--column {noun}", "is not NOUN=NAME", "Write it as: --column category=my_column")
        if known and noun not in known:
            raise ConfigError(f"--column {noun}={column}", "names nothing that is read", f"Use {', '.join(known)}")
    return {noun: column for noun, _, column in pairs}
