"""Plans: which requests are put to a model under which attacks, in which cells of a table, and in which order.

A suite's plan (`make_plan`) has every attack on every behaviour, on disk. It is made as a stream: memory doesn't grow
with the number of attempts beyond some bytes for each. The same inputs give the same bytes, and replies are kept by
content, so that a plan can be made again, larger or smaller, and nothing that was answered is asked twice. An
evaluation's (`plan_attempts`) is smaller and has further cells: look-alikes, their twins, short questions.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from forethought.attacks.base import Attack, Attacked, Given
from forethought.attacks.catalogue import DIRECT, Preparation, apply_attack, parse_attack, prepare
from forethought.attacks.rewritten import Unfit
from forethought.attacks.two_texts import beside
from forethought.attempts.records import PLAN_FILE, Attempt, Judged, PlannedAttempt
from forethought.data.behaviors import Behavior
from forethought.data.dedupe import remove_duplicates
from forethought.data.shipped import FURTHER, SAMPLE, accepted_answers
from forethought.data.sources import sample
from forethought.errors import ConfigError
from forethought.manifest import write_json
from forethought.models.conversation import Able
from forethought.records import Record, Request, user_request, write_jsonl
from forethought.store import locked

SUMMARY_FILE = "plan.json"
PLAN_LOCK = "plan.lock"
_CHUNK = 256
"""Behaviours prepared at once: an attack of many shots makes a hundred kilobytes of each."""
_CHUNK_ASKED = 2048
"""The same where an attacker model writes: its calls run at once."""
_LEAD = 600
"""Characters by which rows are compared; those that share so many stand together, shorter ones first."""
_ROWS = 20_000
"""Most rows held at once."""
_BYTES = 64 << 20
"""Most characters held at once: rows of many-shot attacks are long."""
_NOT_RUN = "~"
HELD_OUT_RULES = "heldout_rules"
CAPABILITY = "capability"
"""Cell and kind of short questions that are put to a defended model, whose answers are right or wrong."""
_SEED = 0
"""The same questions for every seed of training, so that seeds can be paired."""


class PlanSummary(Record):
    """What a plan holds."""

    attacks: tuple[str, ...]
    """All of them, `direct` first; also those that can't be run here."""
    harmful: int
    """Behaviours under each attack."""
    harmless: int
    attempts: int = 0
    """Rows that are run."""
    conversations: int = 0
    """Different ones among them: so many are asked."""
    repeated: int = 0
    """Rows left out because the same text stands in the same cell already."""
    not_run: dict[str, dict[str, int]] = Field(default_factory=dict)
    """By attack, how many requests it can't be carried out on, by cause."""


def make_plan(
    folder: Path,
    attacks: Sequence[Attack],
    harmful: Sequence[Behavior],
    harmless: Sequence[Behavior],
    how: Preparation | None = None,
) -> PlanSummary:
    """Writes `folder`/plan.jsonl and its summary beside it, each in one step.

    Behaviours count as harmful or harmless by the list they stand in. The direct requests are always among the
    attempts: every style is compared with them. Cells: `direct` and `ordinary` (harmful and harmless as they are),
    and each attack's name with `:harmful` and `:harmless`; names of attacks may hold colons themselves.
    Raises ConfigError and InputError for options and files of attacks that can't be used, and for no behaviours;
    StageError while another plan is being made there.
    """
    if not harmful and not harmless:
        raise ConfigError("a plan", "has no behaviours", "Give a benchmark with rows, or a larger limit")
    named = {attack.name: attack for attack in (DIRECT, *attacks)}
    sides = (("harmful", harmful), ("harmless", harmless))
    how = how or Preparation()
    how = replace(how, given=beside([one.request for _, side in sides for one in side], how.given))
    start = PlanSummary(attacks=tuple(named), harmful=len(harmful), harmless=len(harmless))
    return write_plan(folder, _rows(list(named.values()), sides, how), start)


def write_plan(folder: Path, rows: Iterable[PlannedAttempt], start: PlanSummary) -> PlanSummary:
    """Sorts rows, leaves repeated ids out, writes them, and counts them into `start`."""
    folder.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    not_run: dict[str, Counter[str]] = {}
    ids, asked = set[str](), set[str]()

    def once() -> Iterator[PlannedAttempt]:
        for row in sorted_rows(rows, folder):
            if row.id in ids:
                counts["repeated"] += 1
                continue
            ids.add(row.id)
            if row.cause:
                not_run.setdefault(row.attack, Counter())[row.cause] += 1
            else:
                counts["attempts"] += 1
                asked.add(row.asked)
            yield row

    with locked(folder / PLAN_LOCK):
        write_jsonl(folder / PLAN_FILE, once())
        causes = {attack: dict(causes) for attack, causes in sorted(not_run.items())}
        summary = start.model_copy(update={**counts, "conversations": len(asked), "not_run": causes})
        write_json(folder / SUMMARY_FILE, summary.model_dump(mode="json"))
    return summary


def sorted_rows(rows: Iterable[PlannedAttempt], scratch: Path) -> Iterator[PlannedAttempt]:
    """The rows by their leading text, then length, then id; those that are not run come last, by attack.

    Rows that begin alike, a template's text or a system prompt, follow each other, and so do rows that are alike
    throughout: a prefix cache gets most out of that order. Memory is that of one run of the merge sort; `scratch` is a
    folder with room for all rows.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as folder, ExitStack() as stack:
        runs = []
        for number, lines in enumerate(_chunks(rows)):
            runs.append(stack.enter_context((Path(folder) / str(number)).open("w+", encoding="utf-8")))
            runs[-1].writelines(sorted(lines))
            runs[-1].seek(0)
        for line in heapq.merge(*runs):
            yield PlannedAttempt.model_validate_json(line.rpartition("\t")[2])


def _chunks(rows: Iterable[PlannedAttempt]) -> Iterator[list[str]]:
    held: list[str] = []
    size = 0
    for row in rows:
        held.append(f"{_key(row)}\t{row.model_dump_json(exclude_defaults=True)}\n")
        size += len(held[-1])
        if len(held) >= _ROWS or size >= _BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held


def _key(row: PlannedAttempt) -> str:
    """JSON text in ASCII, without a tab: keys are compared as lines of a file are."""
    if row.cause:
        return json.dumps([_NOT_RUN, row.attack, row.id])
    said = [f"{message.role} {message.content}" for message in row.request.messages]
    lead, length = "", sum(len(one) for one in said) + len(row.prefill)
    for one in said:
        lead += one[: _LEAD - len(lead)] + "\n"
        if len(lead) >= _LEAD:
            break
    return json.dumps([" ", lead[:_LEAD], f"{length:09}", row.id])


def _rows(
    attacks: Sequence[Attack], sides: Sequence[tuple[str, Sequence[Behavior]]], how: Preparation
) -> Iterator[PlannedAttempt]:
    for attack in attacks:
        size = _CHUNK_ASKED if "attacker" in attack.needs else _CHUNK
        for side, behaviors in sides:
            plain = {"harmful": "direct", "harmless": "ordinary"}[side]
            cell = plain if attack.name == DIRECT.name else f"{attack.name}:{side}"
            for start in range(0, len(behaviors), size):
                chunk = behaviors[start : start + size]
                requests = [one.request.model_copy(update={"harmful": side == "harmful"}) for one in chunk]
                # An attack restyles the request without the text that it is about.
                bare = [
                    request.said(one.asked) if one.context else request
                    for one, request in zip(chunk, requests, strict=True)
                ]
                made = prepare(attack, bare, how)
                for behavior, request, one in zip(chunk, requests, made, strict=True):
                    yield _row(attack.name, cell, behavior, request, one)


def _row(attack: str, cell: str, behavior: Behavior, request: Request, one: Attacked | Unfit) -> PlannedAttempt:
    if isinstance(one, Unfit):
        return PlannedAttempt(
            id=_id("not run", request.plain, cell), attack=attack, request=request, cells=(cell,),
            behavior=behavior.id, cause=one.cause,
        )  # fmt: skip
    row = PlannedAttempt(
        id="", attack=attack, request=_placed(behavior, one), cells=(cell,), prefill=one.prefill,
        think_budget=one.think_budget, lineage=one.lineage, behavior=behavior.id,
    )  # fmt: skip
    return row.model_copy(update={"id": _id(row.asked, row.request.plain, cell)})


def _placed(behavior: Behavior, attacked: Attacked) -> Request:
    """The attacked request with its context again. What is really asked is the benchmark's request, context and all:
    it is what a judge reads, and what the styles of one behaviour share."""
    if not behavior.context:
        return attacked.request
    seed = behavior.request.plain if attacked.lineage else None
    return attacked.request.said(behavior.placed(attacked.text), seed_text=seed)


def _id(*parts: str) -> str:
    return hashlib.sha256("\x1d".join(parts).encode()).hexdigest()[:16]


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
    n_styled_lookalike: int = 0,
) -> list[Attempt]:
    """Attempts, each once, with the cells in which it counts.

    Cells: `direct` and `ordinary` (harmful and harmless as they are), `lookalike` and `twin` (minimal pairs),
    `capability`, and each attack with the suffix `:harmful` or `:harmless`, `:lookalike` or `:twin`. The styled
    requests are among those asked as they are, so that a style is compared with no style on the same requests. An
    attack whose message holds two texts has pairs alone. Of the pairs each attack has `n_styled_lookalike`, others than
    the attack before it where there are enough: a mean over attacks then rests on many. Requests that break one of
    `held_out_rules` are in the cell `heldout_rules` alone (at most `n_direct` of them), so that seen and unseen domains
    are never mixed. `given` holds local files of attacks that read some.
    """
    apart = [r for r in test if r.harmful and set(r.rules) & set(held_out_rules)]
    ids, twins_apart = {r.id for r in apart}, {r.twin for r in apart if r.twin}
    test = [r for r in test if r.id not in ids and (not r.twin or r.twin not in twins_apart)]
    harmful = _across_sources([r for r in test if r.harmful], n_direct, seed)
    ordinary = _across_sources([r for r in test if r.kind == "ordinary"], n_ordinary, seed)
    lookalike = sample([r for r in test if r.kind == "lookalike"], n_lookalike, seed)
    twins = {r.twin for r in lookalike}
    cells = [
        ("direct", harmful),
        ("ordinary", ordinary),
        ("lookalike", lookalike),
        ("twin", [r for r in test if r.harmful and r.twin in twins]),
        (HELD_OUT_RULES, _across_sources(apart, n_direct, seed)),
        (CAPABILITY, sample_questions()),
    ]
    made = [("direct", cell, request) for cell, requests in cells for request in requests]
    given = beside(test, given or Given())
    for attack in attacks:
        if parse_attack(attack).of_two:
            continue
        for side, requests in (("harmful", harmful[:n_styled]), ("harmless", ordinary[:n_styled])):
            made += [(attack, f"{attack}:{side}", apply_attack(attack, request, seed, given)) for request in requests]
    paired = {r.twin: r for r in test if r.harmful and r.twin and r.twin in twins}
    alike = [r for r in lookalike if r.twin in paired] or lookalike
    for number, attack in enumerate(attacks):
        first = number * n_styled_lookalike % max(1, len(alike))
        for one in [*alike[first:], *alike[:first]][:n_styled_lookalike]:
            for cell, request in (("lookalike", one), ("twin", paired.get(one.twin))):
                if request is not None:
                    made.append((attack, f"{attack}:{cell}", apply_attack(attack, request, seed, given)))
    attempts: dict[str, Attempt] = {}
    for attack, cell, request in made:
        name = f"{attack}/{request.id}"
        known = attempts.get(name) or Attempt(id=name, attack=attack, request=request, cells=())
        attempts[name] = known.model_copy(update={"cells": (*known.cells, cell)})  # one text counts in both its cells
    return list(attempts.values())


def reasoning_attempts(
    plain: Sequence[Attempt], attacks: Sequence[str], n: int, seed: int, given: Given | None = None
) -> list[Attempt]:
    """Attacks on reasoning, which may write into the model's turn, on `n` requests of each label of a plan.

    `plain` is that plan: its first direct and ordinary requests are attacked. Cells: the attack's name with `:harmful`
    or `:harmless`. All defences are given the same text, those that don't think as well. Raises ConfigError for an
    attack that needs more than a prefill.
    """
    how = Preparation(seed, given or Given(), Able(prefill=True))
    attempts = []
    for attack in attacks:
        for side, cell in (("harmful", "direct"), ("harmless", "ordinary")):
            requests = [one.request for one in plain if cell in one.cells][:n]
            for one in prepare(parse_attack(attack), requests, how):
                if isinstance(one, Unfit):
                    raise ConfigError(f"attack '{attack}'", one.cause, "Leave it out")
                made = Attempt(
                    id=f"{attack}/{one.id}", attack=attack, request=one.request, cells=(f"{attack}:{side}",),
                    prefill=one.prefill, lineage=one.lineage,
                )  # fmt: skip
                attempts.append(made)
    return attempts


def _across_sources(requests: Sequence[Request], most: int, seed: int) -> list[Request]:
    """At most `most` requests, sources in turn, so that the first n of them are mixed alike."""
    groups = {name: [r for r in requests if r.source == name] for name in sorted({r.source for r in requests})}
    queues = [sample(group, most, seed) for group in groups.values()]
    mixed = [queue[place] for place in range(most) for queue in queues if place < len(queue)]
    return mixed[:most]


def sample_questions() -> list[Request]:
    """The short questions of every plan."""
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
    return [
        None if one.response is None else holds_answer(one.response.answer, accepted[one.attempt.request.text])
        for one in rows
    ]


def holds_answer(text: str, accepted: Iterable[str]) -> bool:
    """Whether one of the accepted answers stands in a text as words of its own, whatever its case and punctuation."""
    said = f" {_words(text)} "
    return any(f" {words} " in said for words in map(_words, accepted) if words)


def _words(text: str) -> str:
    return " ".join("".join(c if c.isalnum() or c == "-" else " " for c in text.lower()).split())
