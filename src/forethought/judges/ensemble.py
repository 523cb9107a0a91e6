"""Several judges as one: a majority of all, and where they are divided, no verdict.

A judge that gives no verdict abstains. It is never counted for either side.
"""

from __future__ import annotations

from collections.abc import Sequence

from forethought.errors import ConfigError
from forethought.judges.base import Entry, Item, Judge, JudgeOptions, Measure, Verdict, decided

TIE = "the judges are divided"


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


def _opened(options: JudgeOptions) -> Ensemble:
    from forethought.judges.catalogue import get_judge  # which lists this judge among the others

    names = options.given.split("+")
    return Ensemble(
        [get_judge(name, options.measure, options.journal, options.base_url, options.policy) for name in names]
    )


JUDGES = (
    Entry(
        "ensemble",
        ("refused", "harmful"),
        "what more than half of several judges say; for two what both say, else unscored",
        _opened,
        ":A+B",
    ),
)
