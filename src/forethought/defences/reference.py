"""The page about defences, written from the code: `docs/defences.md`."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources

from forethought.defences.base import Defence, InferenceDefence
from forethought.defences.catalogue import all_defences
from forethought.training.methods.base import TrainingMethod
from forethought.training.methods.catalogue import all_methods

_KINDS = {"prompt": "Prompts: words around the request", "wrapper": "Wrappers: code around the model"}


def defences_page() -> str:
    """The page as markdown: the tables, in the text around them."""
    defences, methods = all_defences().values(), all_methods().values()
    parts = []
    for kind, title in _KINDS.items():
        found = [defence for defence in defences if defence.kind == kind]
        parts += [_table(title, found), _options(found)]
    parts.append(_table("Training: the weights are changed", map(trained, methods)))
    text = resources.files("forethought").joinpath("defences", "reference.md").read_text(encoding="utf-8")
    return text.format(count=len(defences), trained=len(methods), tables="\n".join(filter(None, parts)))


def trained(method: TrainingMethod) -> Defence:
    """A training method as a defence."""
    return Defence(
        id=method.name,
        title=method.title,
        paper=method.paper,
        kind="training",
        trains=method.trains,
        cost=method.cost,
        when_to_choose=method.when_to_choose,
        score=method.score,
    )


def _table(title: str, defences: Iterable[Defence]) -> str:
    rows = [_row(defence) for defence in defences]
    return (
        f"## {title}\n\n"
        "| defence | | paper | trains | cost | score | needs | choose it when |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"
    )


def _row(defence: Defence) -> str:
    cells = (
        f"`{defence.id}`",
        defence.title,
        defence.paper or "none",
        defence.trains,
        defence.cost,
        defence.score or "none of its own",
        ", ".join(defence.needs) or "nothing",
        defence.when_to_choose,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _options(defences: Iterable[InferenceDefence]) -> str:
    """The options of defences that take some; numbers stand in code marks, being settings and no measurements."""
    lines = []
    for defence in defences:
        for name, option in defence.options.model_fields.items():
            default = "has to be given" if option.is_required() else f"default `{option.default}`"
            default = "none by default" if option.default == "" else default
            lines.append(f"| `{defence.id}` | `{name}` | {option.description} | {default} |")
    if not lines:
        return ""
    return "| defence | option | meaning | |\n| --- | --- | --- | --- |\n" + "\n".join(lines) + "\n"
