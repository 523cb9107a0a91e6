"""The plan of an evaluation: which requests, under which attacks, in which cells of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from forethought.attacks.base import Given
from forethought.attacks.catalogue import apply_attack, parse_attack
from forethought.attacks.prepare import Preparation, prepare
from forethought.attempts.records import Attempt, Judged
from forethought.data.dedupe import remove_duplicates
from forethought.data.shipped import FURTHER, SAMPLE, accepted_answers
from forethought.data.sources import sample
from forethought.errors import ConfigError
from forethought.models.conversation import Able
from forethought.records import Request, user_request

HELD_OUT_RULES = "heldout_rules"


def plan_attempts(
    test: Sequence[Request],
    attacks: Sequence[str],
    n_direct: int,
    n_styled: int,
    n_ordinary: int,
    n_lookalike: int,
    seed: int,
    held_out_rules: Sequence[str] = (),
    given: Given | None = None,
) -> list[Attempt]:
    """Attempts, each once, with the cells in which it counts.

    Cells: `direct` and `ordinary` (harmful and harmless as they are), `lookalike` and
    `twin` (minimal pairs), `capability`, and each attack with the suffix `:harmful` or
    `:harmless`. The styled requests are among the direct and ordinary ones, so that a
    style is compared with no style on the same requests. Requests that break one of `held_out_rules` are in the cell
    `heldout_rules` alone (at most `n_direct` of them), so that seen and unseen domains are never mixed. `given` holds
    local files of attacks that read some.
    """
    apart = [r for r in test if r.harmful and set(r.rules) & set(held_out_rules)]
    ids, twins_apart = {r.id for r in apart}, {r.twin for r in apart if r.twin}
    test = [r for r in test if r.id not in ids and (not r.twin or r.twin not in twins_apart)]
    harmful = _across_sources([r for r in test if r.harmful], n_direct, seed)
    ordinary = _across_sources([r for r in test if r.kind == "ordinary"], n_ordinary, seed)
    lookalike = sample([r for r in test if r.kind == "lookalike"], n_lookalike, seed)
    twins = {r.twin for r in lookalike}
    cells: dict[str, list[Request]] = {
        "direct": harmful,
        "ordinary": ordinary,
        "lookalike": lookalike,
        "twin": [r for r in test if r.harmful and r.twin in twins],
        HELD_OUT_RULES: _across_sources(apart, n_direct, seed),
        CAPABILITY: sample_questions(),
    }
    attempts: dict[str, Attempt] = {}
    for cell, requests in cells.items():
        for request in requests:
            _add(attempts, Attempt(id=f"direct/{request.id}", attack="direct", request=request, cells=(cell,)))
    for attack in attacks:
        for label, requests in (("harmful", harmful[:n_styled]), ("harmless", ordinary[:n_styled])):
            for request in requests:
                styled = apply_attack(attack, request, seed, given)
                _add(
                    attempts,
                    Attempt(id=f"{attack}/{styled.id}", attack=attack, request=styled, cells=(f"{attack}:{label}",)),
                )
    return list(attempts.values())


def reasoning_attempts(
    plain: Sequence[Attempt], attacks: Sequence[str], n: int, seed: int, given: Given | None = None
) -> list[Attempt]:
    """Attacks on reasoning, which may write into the model's turn, on `n` requests of each label of a plan.

    `plain` is that plan: its first direct and ordinary requests are attacked. Cells: the attack's name with `:harmful`
    or `:harmless`. All defences are given the same text, those that don't think as well. Raises ConfigError for an
    attack that needs more than a prefill.
    """
    sides = [
        (label, [one.request for one in plain if cell in one.cells][:n])
        for label, cell in (("harmful", "direct"), ("harmless", "ordinary"))
    ]
    how = Preparation(seed, given or Given(), Able(prefill=True))
    attempts = []
    for attack in attacks:
        for side, requests in sides:
            for one in prepare([parse_attack(attack)], requests, how):
                if one.attacked is None:
                    raise ConfigError(f"attack '{attack}'", one.cause, "Leave it out")
                attempts.append(
                    Attempt(
                        id=f"{attack}/{one.attacked.id}",
                        attack=attack,
                        request=one.attacked.request,
                        cells=(f"{attack}:{side}",),
                        prefill=one.attacked.prefill,
                        lineage=one.attacked.lineage,
                    )
                )
    return attempts


def _add(attempts: dict[str, Attempt], new: Attempt) -> None:
    """One attempt for the same text in two cells, counted in both."""
    known = attempts.get(new.id)
    attempts[new.id] = new if known is None else known.model_copy(update={"cells": (*known.cells, *new.cells)})


def _across_sources(requests: Sequence[Request], most: int, seed: int) -> list[Request]:
    """At most `most` requests, sources in turn, so that the first n of them are mixed alike."""
    groups = {name: [r for r in requests if r.source == name] for name in sorted({r.source for r in requests})}
    queues = [sample(group, most, seed) for group in groups.values()]
    mixed = [queue[place] for place in range(most) for queue in queues if place < len(queue)]
    return mixed[:most]


# Short questions put to a defended model, and whether its answers are right.

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
