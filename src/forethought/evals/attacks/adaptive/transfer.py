"""The best conversations of one run put to another model as they are: what an attack on one says about others."""

from __future__ import annotations

from collections.abc import Iterable

from forethought.engine.conversation import Failed, Respondent, Response
from forethought.evals.attacks.adaptive.judging import broken_by
from forethought.evals.attacks.adaptive.outcome import Outcome
from forethought.evals.judges.base import Item, Judge, Verdict
from forethought.records import Record

NOTHING_FOUND = "the search found no conversation"


class Transferred(Record):
    """One conversation on the other model."""

    method: str
    goal: str
    harmful: bool | None
    found_broken: bool | None
    """Whether it had got through where it was found; None is unscored."""
    response: Response | None = None
    verdict: Verdict | None = None
    broken: bool | None = None
    """Whether it gets through here; None is unscored."""
    cause: str = ""
    """Why it is unscored."""


def transfer(
    outcomes: Iterable[Outcome],
    respondent: Respondent,
    judge: Judge,
    max_answer_tokens: int = 128,
    harmless_judge: Judge | None = None,
) -> list[Transferred]:
    """One result an outcome, in order; nothing is searched. `harmless_judge` as in `driver.run_searches`.

    Conversations that a model can't be given, such as a prefill, are unscored. Raises ModelError where the model never
    works at all.
    """
    found = list(outcomes)
    conversations = [outcome.best.conversation for outcome in found if outcome.best is not None]
    replies = iter(respondent.reply(conversations, max_answer_tokens) if conversations else [])
    results = [_replied(outcome, next(replies) if outcome.best is not None else None) for outcome in found]
    for harmless, one in ((False, judge), (True, harmless_judge or judge)):
        answered = [place for place, result in enumerate(results) if result.response is not None]
        mine = [place for place in answered if (found[place].harmful is False) is harmless]
        verdicts = one.judge([_item(found[place], results[place]) for place in mine]) if mine else []
        for place, verdict in zip(mine, verdicts, strict=True):
            broken, cause = broken_by(verdict, one.measure, found[place].harmful)
            update = {"verdict": verdict, "broken": broken, "cause": cause}
            results[place] = results[place].model_copy(update=update)
    return results


def _replied(outcome: Outcome, reply: Response | Failed | None) -> Transferred:
    response = reply if isinstance(reply, Response) else None
    cause = NOTHING_FOUND if reply is None else reply.cause if isinstance(reply, Failed) else ""
    return Transferred(
        method=outcome.method,
        goal=outcome.goal,
        harmful=outcome.harmful,
        found_broken=outcome.broken,
        response=response,
        cause=cause,
    )


def _item(outcome: Outcome, result: Transferred) -> Item:
    assert outcome.best is not None
    assert result.response is not None
    return Item(request=outcome.best.request.plain, conversation=outcome.best.messages, answer=result.response.answer)
