"""The intent that a thought states, read as if it were the request.

A disguise hides a request from a probe as it hides it from a verdict. The thought's first line says what is really
asked; put to the probe by itself, it is read without its disguise. So the reasoning carries something that neither the
prompt's state nor the verdict has: another look at the request, in plain words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from forethought.defences.linear_probe import Array, LinearProbe
from forethought.engine.conversation import Response
from forethought.reasoning import stated_intent
from forethought.records import Example, Message, Request, user_request

if TYPE_CHECKING:
    from forethought.engine.local import LocalModel


def intent_of(response: Response) -> str:
    """The intent of a response's thought, also of one that could not be parsed to its end; empty where none is."""
    if response.reasoning is not None:
        return response.reasoning.intent
    return stated_intent(response.reasoning_text)


def as_request(intent: str) -> str:
    """An intent as the sentence that would ask for it."""
    plain = intent.strip().rstrip(".")
    return f"{plain[:1].upper()}{plain[1:]}." if plain else ""


def intent_requests(examples: Iterable[Example]) -> list[Request]:
    """The intents of training rows as requests with the rows' labels, each once, for a probe that is to read them."""
    found: dict[str, Request] = {}
    for example in examples:
        request, text = example.request, as_request(example.reasoning.intent)
        if text and text not in found:
            found[text] = user_request(
                text, harmful=request.harmful, kind=request.kind, rules=request.rules, family=request.family,
                source=request.source,
            )  # fmt: skip
    return list(found.values())


def read_intents(probe: LinearProbe, model: LocalModel, responses: Sequence[Response | None]) -> list[Array | None]:
    """The probe's log-odds of each stated intent, of shape (1 + rules,); None where there is no intent to read."""
    texts = ["" if response is None else as_request(intent_of(response)) for response in responses]
    asked = [place for place, text in enumerate(texts) if text]
    found: list[Array | None] = [None] * len(responses)
    if asked:
        rows = probe.log_odds(model, [(Message(role="user", content=texts[place]),) for place in asked])
        for place, row in zip(asked, rows, strict=True):
            found[place] = row if np.isfinite(row).all() else None
    return found
