"""The card of a trained model in the hub's format: what it is for, its policy, data and figures, and no more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, StrictUndefined

from forethought.errors import InputError
from forethought.metrics import Figure
from forethought.model import RunModel, run_model, trained_folder
from forethought.models.settings import Settings, read_settings
from forethought.report.tables import Rows, interval, table_rows

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

EMBEDDED = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""What the hub calls the embedded model."""
_STAGES = (("1-select", "Requests"), ("4-build", "Training rows"))
_SHORT = 16
"""Characters of a hash."""


def card(model: str | Path, results: Sequence[Path] = ()) -> ModelCard:
    """The card of a run or a trained folder, from what lies in it; `.save(file)` writes it.

    `results` are further results files, of attacks or checks of this model. Nothing is looked up at a hub. Raises
    ModelError for a folder that was not trained here, InputError for a damaged results file.
    """
    from huggingface_hub import ModelCard, ModelCardData

    folder = Path(model)
    settings, run = read_settings(trained_folder(folder)), run_model(folder)
    base = hub_name(run.base if run else _base_of(folder))
    ours = ("scot_best" if run.defence else "scot") if run else ""
    own = folder / "results.json"
    files = [*([own] if own.is_file() else []), *results]
    measured = [_measured(json_of(file), ours) for file in files]
    data = ModelCardData(
        base_model=base if "/" in base else None,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["forethought", "safety", "refusal", *(["reasoning"] if settings.thinks else [])],
        language=list(settings.languages) or None,
        model_name=folder.resolve().name,
        eval_results=[one for made in measured for one in made["evaluated"]] or None,
    )
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    template = resources.files("forethought").joinpath("report/card.md").read_text(encoding="utf-8")
    return ModelCard(
        environment.from_string(template).render(
            front=data.to_yaml(),
            name=folder.resolve().name,
            base=base,
            settings=settings,
            policy=settings.policy,
            defence=_without_folders(run),
            languages=", ".join(settings.languages) or "languages that are not recorded",
            rules=[(one.id, one.title, one.description.replace("|", "\\|")) for one in settings.policy.rules],
            sources=_sources(folder),
            data=_data(folder),
            measured=measured,
            limits=_limits(settings, measured),
        ),
        ignore_metadata_errors=True,
    )


def hub_name(base: str) -> str:
    """A base model as others can know it: no folder of this machine stands in it."""
    if base == "embedded" or "smollm2-135m-instruct" in base.lower():
        return EMBEDDED
    return Path(base).name if Path(base).exists() or base.startswith(("/", ".", "~")) else base


def json_of(file: Path) -> dict[str, Any]:
    """A results file. Raises InputError where it is none."""
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        found = {}
    if not isinstance(found, dict) or "figures" not in found:
        raise InputError(file, "is no results file", "Give the results.json of a run, an attack or a check")
    return found


def _measured(results: dict[str, Any], ours: str) -> dict[str, Any]:
    """What a results file says of the model: the rows of a comparison, or every figure that has an interval."""
    figures = [Figure.model_validate(one) for one in results["figures"]]
    rows: Rows = table_rows(figures, ("base", ours)) + table_rows(figures, ("base", ours), "reasoning_rows")
    head = ["share", "base model", "this model", "n"]
    if not any(cells[1] for _, cells in rows):
        rows = [(f"`{one.name}`", [one]) for one in figures if one.low is not None]
        head = ["figure", "this model", "n"]
    shown = [(title, cells) for title, cells in rows if cells[-1] is not None]
    return {
        "head": head,
        "rows": [
            (title, *map(interval, cells), str(cells[-1].n if cells[-1] and cells[-1].n is not None else "-"))
            for title, cells in shown
        ],
        "figures": [cells[-1] for _, cells in shown if cells[-1]],
        "evaluated": [_evaluated(title, cells[-1]) for title, cells in shown if cells[-1]],
        "missing": "; ".join(f"`{name}` ({why})" for name, why in results.get("missing", {}).items()),
        "command": results["command"],
        "seeds": ", ".join(map(str, results["seeds"])),
        "date": results["date"],
        "commit": str(results["commit"] or "not recorded")[:_SHORT],
        "machine": ", ".join(f"{key} {value}" for key, value in results["machine"].items() if value is not None),
        "versions": ", ".join(f"{name} {version}" for name, version in results["versions"].items()),
    }


def _evaluated(title: str, figure: Figure) -> Any:
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type="text-generation",
        dataset_type="forethought",
        dataset_name="held-out requests of the run",
        metric_type=figure.name,
        metric_name=title.strip("`"),
        metric_value=round(figure.value, 4),
        metric_args={"low": figure.low, "high": figure.high, "n": figure.n, "unscored": figure.unscored},
    )


def _limits(settings: Settings, measured: Sequence[dict[str, Any]]) -> list[str]:
    """What the figures can't say, as far as they show it themselves."""
    figures = [figure for made in measured for figure in made["figures"]]
    counts = [figure.n for figure in figures if figure.n]
    limits = []
    if counts:
        limits.append(f"The smallest figure rests on {min(counts)} answers: read the intervals.")
    if unscored := max((figure.unscored for figure in figures), default=0):
        limits.append(f"Up to {unscored} answers behind a figure could not be judged, and are in no rate.")
    if len({seed for made in measured for seed in made["seeds"].split(", ")}) == 1:
        limits.append("One seed: how much another training differs was not measured.")
    if measured:
        limits.append("Refusals were told by one judge, whose error is not in the intervals.")
        limits.append("Attacks, languages and subjects that no row above names were not tried.")
    if settings.languages:
        limits.append(f"It was taught to think in {', '.join(settings.languages)} alone.")
    return [*limits, "Whoever holds the weights can train the refusals away."]


def _sources(folder: Path) -> list[tuple[str, str]]:
    """(harmful or harmless, file) of the run's recipe, without the folders of a machine."""
    file = folder / "recipe.yaml"
    if not file.is_file():
        return []
    data = yaml.safe_load(file.read_text(encoding="utf-8")).get("data", {})
    read = [(kind, one) for kind in ("harmful", "harmless") for one in data.get(kind) or ()]
    return [(kind, f"`{_named(one['path'])}`") for kind, one in read]


def _named(path: str) -> str:
    outer, parted, inner = path.partition("::")
    return path if outer.startswith(("shipped:", "hub:", "pkg:")) else Path(outer).name + parted + inner


def _data(folder: Path) -> list[tuple[str, str]]:
    """What the stages of a run counted."""
    found = []
    for stage, title in _STAGES:
        file = folder / stage / "manifest.json"
        if file.is_file():
            counts = json.loads(file.read_text(encoding="utf-8"))["counts"]
            found.append((title, ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items())))
    return found


def _base_of(folder: Path) -> str:
    """The base of a trained folder, as PEFT keeps it."""
    file = folder / "adapter_config.json"
    said = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return str(said.get("base_model_name_or_path") or "a model that is not recorded")


def _without_folders(run: RunModel | None) -> str:
    return run.defence.replace("{run}/", "") if run else ""
