"""Judges by name, found by looking: every module of this package that lists `JUDGES` is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from forethought import judges
from forethought.errors import ConfigError
from forethought.extensions import FILE, add_file, listed
from forethought.judges import DEFAULT_JUDGE
from forethought.judges.base import JOURNAL, Entry, Item, Judge, JudgeOptions, Measure, Verdict
from forethought.policy import Policy

_SUFFIXES = (".yaml", ".yml")


def entries() -> list[Entry]:
    """Every judge; the default one first, then by name, those that take something after their name last."""
    return sorted(
        listed(judges, "JUDGES"), key=lambda entry: (entry.name != DEFAULT_JUDGE, bool(entry.takes), entry.name)
    )


def get_judge(
    name: str,
    measure: Measure = "harmful",
    journal: Path = JOURNAL,
    base_url: str | None = None,
    policy: Policy | None = None,
) -> Judge:
    """A judge as users write it: its entry, a trained folder, a rubric's file@MODEL, or a .py file that lists one.

    `measure` is for guards, which decide both; `journal`, `base_url` and `policy` are for
    judges that are models. Raises ConfigError for a name that is none of these.
    """
    options = JudgeOptions("", measure, journal, base_url, policy)
    if name.endswith(FILE):
        entry: Entry = add_file(judges, name, "JUDGES")[0]
        return entry.open(options)
    known = entries()
    for entry in known:
        start = entry.name + entry.takes[:1]
        if name == start if not entry.takes else name.startswith(start) and name != start:
            return entry.open(replace(options, given=name[len(start) :]))
    role, _, model = name.partition("@")
    if role.endswith(_SUFFIXES) and model:
        from forethought.judges.graders import rubric_judge

        return rubric_judge(role, replace(options, given=model))
    if Path(name).is_dir():
        from forethought.judges.trained import trained_judge

        return trained_judge(Path(name))
    raise ConfigError(
        f"judge '{name}'",
        "is neither a judge's name nor a folder",
        f"Use one of {', '.join(entry.written for entry in known)}, a trained folder, or RUBRIC.yaml@MODEL"
        " (docs/judges.md)",
    )


def judge(
    answers: Sequence[Item | tuple[str, str]],
    by: str | Judge = DEFAULT_JUDGE,
    *,
    measure: Measure = "refused",
    base_url: str | None = None,
    policy: Policy | None = None,
    journal: Path = JOURNAL,
) -> list[Verdict]:
    """Judges answers: pairs of (request, answer), or `Item`s that hold the conversation, too.

    `by` is a judge's name (`forethought judge --help`), its folder or file, or any object with `judge`. One verdict an
    answer, in order; what can't be told is unscored with its cause. Raises ConfigError for an unknown judge.
    """
    chosen = get_judge(by, measure, journal, base_url, policy) if isinstance(by, str) else by
    return chosen.judge([one if isinstance(one, Item) else Item(request=one[0], answer=one[1]) for one in answers])


def default_judge() -> Judge:
    """Who tells refusals wherever no judge is named."""
    return get_judge(DEFAULT_JUDGE)
