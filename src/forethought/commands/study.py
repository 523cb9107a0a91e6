"""`forethought study`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forethought.commands.shared import quiet
from forethought.commands.sweep import Choice, show_plan, some, tell
from forethought.commands.terminal import console
from forethought.errors import ConfigError

if TYPE_CHECKING:
    from forethought.research.config import Sweep


@dataclass(frozen=True)
class Asked:
    """What the defences are put to, in place of what the study's own file says."""

    benchmark: Sequence[str] = ()
    harmless: Sequence[str] = ()
    lookalikes: Sequence[str] = ()
    styles: Sequence[str] = ()
    templates: Path | None = None
    """A file of templates, each of which is a style."""


def study(file: Path, asked: Asked, choice: Choice) -> int:
    """Runs the study and shows its table. Returns the exit code, as `forethought sweep` does."""
    quiet()
    from forethought.commands.terminal import Terminal
    from forethought.research.config import load_sweep
    from forethought.research.run import run_cells

    chosen = put_to(load_sweep(file), asked)
    if choice.plan:
        show_plan(chosen)
        return 0
    folder, terminal = choice.folder(chosen), Terminal(console, 1.0, choice.yes)
    kept = choice.log()
    if choice.only:
        return some(chosen, folder, choice.only, terminal)
    run = run_cells(chosen, folder, terminal, so_far=choice.so_far, kept=kept)
    own = folder / f"asked-{chosen.evaluate.asks}" if chosen.evaluate.asks else folder
    own.mkdir(parents=True, exist_ok=True)  # what somebody else asked stands beside the study's own
    return tell(chosen, run, own, choice.results or own / "results.json", kept)


def put_to(chosen: Sweep, asked: Asked) -> Sweep:
    """The study with other requests or styles; training is as it was.

    Raises ConfigError for harmless sets without a benchmark, and for a style that there is not.
    """
    from forethought.data.sources import SourceSpec
    from forethought.research.config import Benchmark, check

    if (asked.harmless or asked.lookalikes) and not asked.benchmark:
        raise ConfigError("--benchmark-harmless", "has no harmful requests beside it", "Give them as --benchmark")
    given = (asked.benchmark, asked.harmless, asked.lookalikes)
    requests, harmless, lookalikes = (tuple(SourceSpec(path=one) for one in paths) for paths in given)
    styles = [*asked.styles, *_templates(asked.templates)]
    changes: dict[str, object] = {"instead": bool(asked.benchmark or styles)}
    if asked.benchmark:
        changes["benchmark"] = Benchmark(requests=requests, harmless=harmless, lookalikes=lookalikes)
    if styles:
        changes["attacks"] = tuple(styles)
    if asked.templates is not None:
        changes["files"] = {"templates": asked.templates}
    changed = chosen.model_copy(update={"evaluate": chosen.evaluate.model_copy(update=changes)})
    check(changed)
    return changed


def _templates(file: Path | None) -> list[str]:
    """Each template of a file as an attack. Raises InputError for a file without any."""
    from forethought.attacks.templates import read_templates

    return [f"templates:{one.name}" for one in read_templates(file)] if file is not None else []
