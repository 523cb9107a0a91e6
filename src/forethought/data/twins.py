"""Harmless look-alikes of harmful requests, by rule, for sets that have none.

A model trained on harmful requests and on ordinary ones learns to refuse words. A twin
shares the words and asks for protection, law, history, ethics or help instead: never
how the thing is done. Both rows get the same `twin`, so that they wear the same disguise.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence

from forethought.data.teach import INTENT_WORDS, intent_of
from forethought.records import Record, Request, user_request
from forethought.yamlfile import shipped_yaml


class _Words(Record):
    """What `twins.yaml` holds."""

    patterns: tuple[str, ...]
    support_patterns: tuple[str, ...]
    persons: dict[str, tuple[str, ...]]
    """Word for a third person to the words for others that it stands for."""
    pointing: frozenset[str]
    not_a_verb: frozenset[str]


WORDS = shipped_yaml("data/twins.yaml", _Words)
_PERSONS = {word: third for third, words in WORDS.persons.items() for word in words}
_HOW_TO = re.compile(r"(?i)^learn how to (?:best )?(?P<act>.+)$")
_TEXT_ABOUT = re.compile(
    r"(?i)^(?:write|create|develop|draft|compose|prepare|make|produce|give|provide|explain|describe|teach|tell|show|outline|"
    r"list|design|publish)\b[^,;]*?\bhow to (?P<act>.+)$"
)
_MAKES = re.compile(
    r"(?i)^(?P<act>(?:write|create|develop|draft|compose|make|produce|design|build|forge|spread|publish)\s.+)$"
)
_SELF_HARM = re.compile(
    r"(?i)\b(?:suicid\w*|self-harm\w*|themselves|their (?:own )?li(?:fe|ves)|anorexi\w*|bulimi\w*|pro-ana)\b"
)
_TO_ONESELF = re.compile(
    r"(?i)^(?!(?:write|create|develop|draft|compose|make|produce|design|spread|publish)\s(?:an?|the|some)\b)"
    r"(?!.*\b(?:someone|somebody|others|people|child|children|kids|teens|teenagers?)\b)"
)
"""Harm to oneself, not a text about it nor a push for others to do it."""
_OTHER_DOER = re.compile(
    r"(?i)\bhow (?:does|did)\b"
    r"|\bhow (?:do|can|could|would|should|might) (?!(?:i|you|one|we|someone|somebody|people|a person)\b)"
)
"""`How could a country ...`: its verb phrase would start with the doer."""
_FIRST_PERSON = re.compile(r"(?i)(?<![\w'])(?:I|me|we|us|you|I'm|I've|I'd|I'll|you're|we're)(?![\w'])")


def twin_of(request: Request, rng: random.Random) -> Request | None:
    """A harmless question that shares the words of a harmful request; the random source picks the pattern.

    None where the request isn't labelled harmful, has a twin already, is a conversation, or has
    no clean verb phrase (`teach.intent_of`): a twin that isn't grammatical teaches nothing.
    Source and family stay, so that a split never parts a pair.
    """
    if not request.harmful or request.twin or len(request.messages) > 1:
        return None
    act = _act(request.plain)
    if act is None:
        return None
    to_oneself = _SELF_HARM.search(act) and _TO_ONESELF.match(act)
    patterns = WORDS.support_patterns if to_oneself else WORDS.patterns
    return user_request(
        rng.choice(patterns).replace("{act}", act),
        harmful=False,
        kind="lookalike",
        source=request.source,
        family=request.family or twin_key(request),
        twin=twin_key(request),
    )


def with_twins(requests: Sequence[Request], share: float, seed: int) -> list[Request]:
    """The requests, and after a `share` (0 to 1) of the harmful ones without a twin a twin of theirs.

    Both get the same `twin` and `family`. Whether a request gets one depends on the seed and its content
    alone. Call it on one split at a time, or before a split by family: a pair must not be parted.
    """
    rows: list[Request] = []
    for request in requests:
        rng = random.Random(f"{seed}:twin:{request.id}")
        twin = twin_of(request, rng) if rng.random() < share else None
        if twin is None:
            rows.append(request)
        else:
            rows += [request.model_copy(update={"twin": twin.twin, "family": twin.family}), twin]
    return rows


def twin_key(request: Request) -> str:
    """What a request and its twin share: 12 hexadecimal digits of the undisguised text, as in the shipped pairs."""
    return hashlib.sha256(request.plain.encode()).hexdigest()[:12]


def _act(text: str) -> str | None:
    """The verb phrase of what is asked, done by a third person, or None where it isn't clean."""
    if _OTHER_DOER.search(text):
        return None
    intent = intent_of(text)
    if len(intent.split()) >= INTENT_WORDS:  # it may be cut in the middle
        return None
    found = _HOW_TO.match(intent) or _TEXT_ABOUT.match(intent) or _MAKES.match(intent)
    act = found["act"].strip().rstrip(".?!,;:") if found is not None else ""
    if not _clean(act):
        return None
    first, *rest = (_PERSONS.get(word.lower(), word) for word in act.split())
    return " ".join([first.lower(), *rest])


def _clean(act: str) -> bool:
    """Whether it reads as one verb phrase that stands on its own, without a doer and without pointing back."""
    words = act.lower().split()
    if len(words) < 2 or words[0] in WORDS.not_a_verb or not words[0].isalpha():
        return False
    if re.search(r"[.?!\"\u201c\n:;()<>{}]|(?<!\w)['\u2018]", act) or _FIRST_PERSON.search(act) or "how" in words:
        return False
    # `use it` says nothing by itself; `invent a rumour and spread it` does.
    return words[1] not in WORDS.pointing and not (len(words) <= 4 and WORDS.pointing & set(words))
