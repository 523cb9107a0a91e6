"""Arguments and options that several commands take, and those of a settings record."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from forethought.errors import ConfigError
from forethought.records import Record

Command = TypeVar("Command", bound=Callable[..., None])
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
RunResults = Annotated[Path | None, typer.Option(help="Where the figures go. Default: OUT/results.json.")]
ShowHarmful = Annotated[bool, typer.Option("--show-harmful", help="Leave harmful texts unredacted.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", help="Don't ask what it may cost.")]
MaxCost = Annotated[float, typer.Option(min=0.0, help="US dollars from which to ask before calling.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
On = Annotated[
    str | None,
    typer.Option("--on", help="Where the work runs: ray, ray://HOST:PORT, or HOST:PORT of a cluster. Default: here."),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave malformed rows out and name them; else the first is an error.")
]

SPELLED: dict[str, dict[str, Any]] = {
    "n": {"decls": ("--limit",)},
    "max_answer_tokens": {"decls": ("--max-tokens",)},
    "attacks": {"decls": ("--attack",), "metavar": "SPEC"},
    "benchmarks": {"decls": ("--benchmark",), "metavar": "FILE"},
    "columns": {"decls": ("--column",), "metavar": "NOUN=NAME"},
    "harmless_columns": {"decls": ("--harmless-column",), "metavar": "NOUN=NAME"},
}
"""How options of an attack are written: those that can be given again by one of them, others as elsewhere."""


def column(nouns: str) -> Any:
    """The option that names a file's columns by noun, as `column_overrides` reads it."""
    return typer.Option(
        "--column", metavar="NOUN=NAME", help=f"Column of {nouns}, where the guess is wrong; can be given again."
    )


_NOUNS = (
    "text, messages, answer, category, label, ..., or what turns call role, content, user, labels harmful, harmless"
)
Columns = Annotated[list[str] | None, column(_NOUNS)]


def spelled_out(record: type[Record], *fields: str, **own: Any) -> Callable[[Command], Command]:
    """Gives a command, in place of its parameter `settings`, an option for each of the record's fields (all of them
    where none is named): name, default, limits and text are those that stand in the record.

    `own` has, by field, what typer is told otherwise: such as `decls`, the option's own spelling.
    """
    chosen = {name: record.model_fields[name] for name in fields or record.model_fields}

    def with_options(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        of_record = [_option(name, field, own.get(name, {})) for name, field in chosen.items()]
        parameters = [
            one.replace(kind=Parameter.KEYWORD_ONLY)
            for name, parameter in signature.parameters.items()
            for one in (of_record if name == "settings" else [parameter])
        ]

        @wraps(command)
        def called(*arguments: Any, **given: Any) -> None:
            said = {name: given.pop(name) for name in chosen if given.get(name) is not None}
            for name in chosen:
                given.pop(name, None)
            for name in ("columns", "harmless_columns"):
                if name in said:
                    said[name] = column_overrides(said[name])
            try:
                settings = record(**said)
            except ValidationError as error:
                first = error.errors()[0]
                raise ConfigError(f"{first['loc'][0]} = {first['input']}", first["msg"], "See --help") from None
            command(*arguments, settings=settings, **given)

        called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return called  # type: ignore[return-value]

    return with_options


def _option(name: str, field: Any, own: dict[str, Any]) -> Parameter:
    """A field of a record as a parameter that typer reads; of several values, each is given by an option of its own."""
    kind, default, text = field.annotation, field.get_default(call_default_factory=True), field.description
    if isinstance(default, tuple | dict):
        kind, default, text = list[str] | None, None, f"{text} Can be given again."
    flag = (f"--{name.replace('_', '-')}",) if kind is bool else ()
    limits = {"ge": "min", "gt": "min", "le": "max"}
    found = {
        limits[word]: getattr(limit, word)
        for limit in field.metadata
        for word in limits
        if getattr(limit, word, None) is not None
    }
    own = {"help": text, **found, **own}
    option = typer.Option(*own.pop("decls", flag), **own)
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


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
