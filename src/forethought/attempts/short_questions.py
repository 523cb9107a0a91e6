"""Short questions put to a defended model, and whether its answers are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from forethought.attempts.records import Attempt, Judged
from forethought.data.dedupe import remove_duplicates
from forethought.data.shipped import FURTHER, SAMPLE, accepted_answers
from forethought.data.sources import sample
from forethought.records import Request, user_request

CAPABILITY = "capability"
"""Cell and kind of these questions."""
_SEED = 0
"""The same questions for every seed of training, so that seeds can be paired."""


def sample_questions() -> list[Request]:
    """The questions of every plan."""
    return [_question(text) for text in accepted_answers(SAMPLE)]


def further_attempts(train: Sequence[Request], most: int) -> list[Attempt]:
    """At most `most` further questions of all sorts that are near no training request, to be asked as they are."""
    asked = sample([_question(text) for text in accepted_answers(FURTHER)], most, _SEED) if most else []
    kept, _ = remove_duplicates(asked, against=train)
    return [Attempt(id=f"direct/{one.id}", attack="direct", request=one, cells=(CAPABILITY,)) for one in kept]


def _question(text: str) -> Request:
    return user_request(text, harmful=False, kind=CAPABILITY)


def right_answers(rows: Sequence[Judged]) -> list[bool | None]:
    """Whether each answer holds an accepted one as words of its own; None where there is no answer."""
    accepted = accepted_answers(SAMPLE) | accepted_answers(FURTHER)
    return [_right(one, accepted) for one in rows]


def _right(one: Judged, accepted: Mapping[str, Sequence[str]]) -> bool | None:
    if one.response is None:
        return None
    padded = "".join(c if c.isalnum() or c == "-" else " " for c in one.response.answer.lower())
    words = f" {' '.join(padded.split())} "
    return any(f" {answer} " in words for answer in accepted[one.attempt.request.text])
