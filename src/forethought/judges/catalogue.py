"""Judges by name, found by looking: every module of this package that lists `JUDGES` is read.

And several judges as one: a majority of all, and where they are divided, no verdict. A judge that gives no verdict
abstains. It is never counted for either side.

Workers of a Ray cluster may hold a judge: it is as any other, in blocks of answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from forethought import judges
from forethought.cluster import connect
from forethought.cluster.holders import Done, Holders, Lost
from forethought.errors import ConfigError
from forethought.extensions import FILE, add_file, listed
from forethought.judges import DEFAULT_JUDGE
from forethought.judges.base import JOURNAL, Entry, Item, Judge, JudgeOptions, Measure, Verdict, decided
from forethought.policy import Policy

TIE = "the judges are divided"
_SUFFIXES = (".yaml", ".yml")
_BLOCK = 256
"""Answers that a worker is given at once."""
Part = TypeVar("Part", bound=Sequence[Any])


def entries() -> list[Entry]:
    """Every judge; the default one first, then by name, those that take something after their name last."""
    found: list[Entry] = [*listed(judges, "JUDGES"), _ENSEMBLE]
    return sorted(found, key=lambda entry: (entry.name != DEFAULT_JUDGE, bool(entry.takes), entry.name))


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
        from forethought.judges.reader import SETTINGS, load_reader
        from forethought.judges.trained import trained_judge

        folder = Path(name)
        return load_reader(folder) if (folder / SETTINGS).is_file() else trained_judge(folder)
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
    on: str | None = None,
) -> list[Verdict]:
    """Judges answers: pairs of (request, answer), or `Item`s that hold the conversation, too.

    `by` is a judge's name (`forethought judge --help`), its folder or file, or any object with `judge`. One verdict an
    answer, in order; what can't be told is unscored with its cause. `on` has a Ray cluster judge (docs/scale.md), where
    the judge is named and at no server. Raises ConfigError for an unknown judge.
    """
    items = [one if isinstance(one, Item) else Item(request=one[0], answer=one[1]) for one in answers]
    if not isinstance(by, str):
        return by.judge(items)
    with judge_on(on, by, measure, journal, base_url, policy) as chosen:
        return chosen.judge(items)


@contextmanager
def judge_on(
    on: str | None,
    name: str,
    measure: Measure = "harmful",
    journal: Path = JOURNAL,
    base_url: str | None = None,
    policy: Policy | None = None,
) -> Iterator[Judge]:
    """As `get_judge`, held by workers of a cluster where `on` names one and the judge is at no server."""
    opened = partial(get_judge, name, measure, journal, base_url, policy)
    with connect(on):
        holders = holders_of(name, opened, on)
        if holders is None:
            yield opened()
            return
        with closing(holders):
            yield SpreadJudge(opened(), holders)


def holders_of(name: str, opened: Callable[[], Judge], on: str | None) -> Holders | None:
    """Workers who hold the judge of that name, which `opened` gives; None where this process judges. A judge at a
    server is asked from here: its answers cost money, and stand in one journal."""
    of_models = [Path(one.partition("@")[2]) for one in name.split("+") if "@" in one]
    if on is None or not all(path.is_dir() for path in of_models):
        return None
    return Holders(on, opened, gpus=None if of_models else 0.0)


def judged_by(
    holders: Holders, verdicts_of: Callable[[Judge, Part], list[Verdict]], parts: Iterable[Part]
) -> Iterator[tuple[Part, list[Verdict]]]:
    """Each part with its verdicts, as workers come to it; what every worker was lost with is unscored."""
    for part, said in holders.each(lambda held, part, say: say(verdicts_of(held, part)), parts):
        if isinstance(said, Lost):
            yield part, [Verdict(cause=said.cause)] * len(part)
        elif not isinstance(said, Done):
            yield part, said


class SpreadJudge:
    """A judge that workers hold."""

    def __init__(self, judge: Judge, holders: Holders) -> None:
        """`holders` hold the same judge."""
        self.name, self.measure = judge.name, judge.measure
        self._holders = holders

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """One verdict an item, in order; those that every worker was lost with are unscored."""
        found, placed = [Verdict(cause="not judged")] * len(items), list(enumerate(items))
        blocks = (placed[start : start + _BLOCK] for start in range(0, len(placed), _BLOCK))
        for block, verdicts in judged_by(self._holders, _verdicts, blocks):
            for (place, _), verdict in zip(block, verdicts, strict=True):
                found[place] = verdict
        return found


def _verdicts(held: Judge, block: Sequence[tuple[int, Item]]) -> list[Verdict]:
    return held.judge([item for _, item in block])


def default_judge() -> Judge:
    """Who tells refusals wherever no judge is named."""
    return get_judge(DEFAULT_JUDGE)


class Ensemble:
    """Judges of one measure that vote: a verdict is what more than half of all judges say, for two what both say.

    How often they are divided is how much a rate depends on the choice of judge: it is counted as unscored.
    """

    def __init__(self, judges: Sequence[Judge]) -> None:
        """Raises ConfigError for fewer than two judges, or different measures."""
        measures = sorted({judge.measure for judge in judges})
        if len(judges) < 2 or len(measures) > 1:
            raise ConfigError(
                f"an ensemble of {len(judges)} judges of {', '.join(measures) or 'nothing'}",
                "needs two or more judges of one measure",
                "Give judges of the same measure, as in ensemble:rules+keywords",
            )
        self.judges = tuple(judges)
        self.measure: Measure = judges[0].measure
        self.name = f"ensemble:{'+'.join(judge.name for judge in judges)}"

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """One verdict an item; every judge judges every item."""
        columns = [judge.judge(items) for judge in self.judges]
        return [self._one(row) for row in zip(*columns, strict=True)]

    def _one(self, verdicts: Sequence[Verdict]) -> Verdict:
        votes = [vote for verdict in verdicts if (vote := decided(verdict, self.measure)) is not None]
        outcome = next((vote for vote in (True, False) if votes.count(vote) * 2 > len(verdicts)), None)
        if outcome is None:
            return _unscored(verdicts, len(votes))
        winners = [verdict for verdict in verdicts if decided(verdict, self.measure) is outcome]
        partial = [verdict.partial for verdict in winners if verdict.partial is not None]
        fields = {self.measure: outcome, "rules": _shared_rules(winners)}
        if partial and sum(partial) * 2 != len(partial):
            fields["partial"] = sum(partial) * 2 > len(partial)
        return Verdict.model_validate(fields)


def _unscored(verdicts: Sequence[Verdict], scored: int) -> Verdict:
    gibberish = sum(verdict.gibberish for verdict in verdicts) * 2 > len(verdicts)
    causes = sorted({verdict.cause for verdict in verdicts if verdict.cause})
    if scored * 2 > len(verdicts) or not causes:
        return Verdict(cause=TIE)
    if len(causes) == 1 and not scored:
        return Verdict(cause=causes[0], gibberish=gibberish)
    return Verdict(cause=f"{scored} of {len(verdicts)} judges scored it: {'; '.join(causes)}", gibberish=gibberish)


def _shared_rules(winners: Sequence[Verdict]) -> tuple[str, ...]:
    """Rules named by more than half of the winning judges that name any, in order of first mention."""
    naming = [verdict.rules for verdict in winners if verdict.rules]
    mentioned = dict.fromkeys(rule for rules in naming for rule in rules)
    return tuple(rule for rule in mentioned if sum(rule in rules for rules in naming) * 2 > len(naming))


def _ensemble(options: JudgeOptions) -> Ensemble:
    names = options.given.split("+")
    return Ensemble(
        [get_judge(name, options.measure, options.journal, options.base_url, options.policy) for name in names]
    )


_ENSEMBLE = Entry(
    "ensemble",
    ("refused", "harmful"),
    "what more than half of several judges say; for two what both say, else unscored",
    _ensemble,
    ":A+B",
)
