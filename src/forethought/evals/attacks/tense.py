"""A request moved into the past or the future by rule (arXiv 2407.11969).

The paper has a model rewrite it ("How did people ... in the past?"). The rules cover how such requests mostly begin:
"how do I", "how to", "what is", an imperative. What fits none keeps its words behind "In the past". Verbs stay in
their base form behind `did` and `will`, so that no verb table is needed.
"""

from __future__ import annotations

import re

from forethought.data.restyle import phrase, sentence

_WHO = r"(?:I|you|we|one|someone|somebody|people|a person)"
_HOW = re.compile(
    rf"(?i)^(how|where|when|why)\s+(?:(?:do|does|can|could|should|would|might|may|did|will)\s+{_WHO}|to)\s+(.+)$"
)
_TELL = re.compile(
    r"(?i)^(?:please\s+)?(?:explain|describe|tell me|show me|teach me|tell us)\s+"
    r"(?:to me\s+)?(?:in detail\s+)?how\s+to\s+(.+)$"
)
_BE = re.compile(r"(?i)^(what|who|which|where|how)\s+(is|are)\s+(.+)$")
_IMPERATIVE = re.compile(
    r"(?i)^(?:please\s+)?((?:write|give|create|make|list|provide|develop|design|produce|draft|compose|name|suggest|find|"
    r"plan|build|generate|help|teach|show|explain|describe|tell|outline|prepare|invent|compare|summari[sz]e|translate)\b.*)$"
)
_THIRD = {
    "i": "they", "i'm": "they're", "i've": "they've", "my": "their", "me": "them",
    "mine": "theirs", "myself": "themselves", "you": "they", "your": "their", "yours": "theirs",
    "yourself": "themselves", "we": "they", "our": "their", "us": "them",
}  # fmt: skip


def past(text: str) -> str:
    """The request as a question about the past."""
    return _moved(text, "did people", {"is": "was", "are": "were"}, "in the past")


def future(text: str) -> str:
    """The request as a question about the future."""
    return _moved(text, "will people", {"is": "will be", "are": "will be"}, "in the future")


def _moved(text: str, helper: str, be: dict[str, str], when: str) -> str:
    said = " ".join(text.split()).rstrip(".?! ")
    if asked := _HOW.match(said):
        return f"{asked[1].capitalize()} {helper} {_third(asked[2])} {when}?"
    if told := _TELL.match(said):
        return f"How {helper} {_third(told[1])} {when}?"
    if state := _BE.match(said):
        verb = be[state[2].lower()]
        if verb == "will be":  # the subject's end is unknown, so `will be` can't stand behind it
            return f"In the future, {state[1].lower()} {_third(phrase(state[2]))} {_third(state[3])} going to be?"
        return f"{state[1].capitalize()} {verb} {_third(state[3])} {when}?"
    if order := _IMPERATIVE.match(said):
        return f"How {helper} {_third(phrase(order[1]))} {when}?"
    return (
        f"People {'once asked' if helper == 'did people' else 'will one day ask'} this: {sentence(text)} "
        f"What {'was' if helper == 'did people' else 'will be'} the answer {when}?"
    )


def _third(words: str) -> str:
    """First and second persons as `they`: nobody of the past is addressed."""
    return re.sub(r"[A-Za-z']+", lambda match: _THIRD.get(match[0].lower(), match[0]), words)
