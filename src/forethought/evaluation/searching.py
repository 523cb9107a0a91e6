"""What the searches of an attack run are carried out with: in this process, or in a worker of a cluster."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from forethought.attacks.base import Given
from forethought.attacks.searches import base as searches
from forethought.attacks.searches.base import Goal, Method
from forethought.attacks.searches.driver import Parties, Searching
from forethought.attacks.searches.outcome import SearchSettings
from forethought.cluster.holders import Say
from forethought.evaluation.inputs import AttackSettings, chosen_attacks
from forethought.evaluation.report import get_run_judge
from forethought.evaluation.writers import Writers
from forethought.judges.base import Judge
from forethought.judges.catalogue import default_judge
from forethought.model import Model
from forethought.progress import Progress


def search_settings(settings: AttackSettings) -> SearchSettings:
    """How an attack run has its searches carried out."""
    return SearchSettings(
        budget=settings.query_budget, seed=settings.seed, max_answer_tokens=settings.max_answer_tokens
    )


def searching_with(
    settings: AttackSettings,
    goals: Sequence[Goal],
    model: Model,
    writers: Writers,
    judge: Judge,
    methods: Sequence[Method],
) -> Searching:
    """All that searches for these goals are carried out with."""
    parties = Parties(model.respondent, judge, default_judge(), *writers.for_searches())
    return Searching(methods, parties, writers.tools(goals), search_settings(settings))


# In a worker, of the model that it holds. What it opens besides is kept for the next search.

_OPENED: dict[str, tuple[Model, Searching]] = {}


def searching(settings: AttackSettings, goals: Sequence[Goal], held: Model) -> Searching:
    """As `searching_with`. What a judge and a writer keep of their calls lies in a folder of the worker's: searches
    keep every reply themselves."""
    key = settings.model_dump_json()
    known = _OPENED.get(key)
    if known is not None and known[0] is held:
        return known[1]
    folder = Path(tempfile.mkdtemp(prefix="forethought-searches-"))
    methods, writers = _named(settings, held, folder)
    policy = held.settings.policy if held.settings is not None else None
    judge = get_run_judge(settings, folder, policy)
    found = searching_with(settings, goals, held, writers, judge, methods)
    _OPENED[key] = held, found
    return found


def told_not_run(settings: AttackSettings, held: Model, _: None, say: Say) -> None:
    """Says by name why searches can't be run against the model that is held."""
    with tempfile.TemporaryDirectory() as folder:
        methods, writers = _named(settings, held, Path(folder))
        tools = writers.tools()
        say({one.name: searches.why_not(one, tools, writers.there, writers.rates) for one in methods})


def _named(settings: AttackSettings, held: Model, folder: Path) -> tuple[list[Method], Writers]:
    _, methods, files = chosen_attacks(settings)
    known = held.settings
    given = Given(files=files) if known is None else Given(policy=known.policy, format=known.format, files=files)
    return methods, Writers(settings, folder, held, given, Progress())
