"""Whole families held out of a training, of both terms: what tells when it has learnt what it can."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forethought.errors import InputError
from forethought.records import Example, Request
from forethought.train.example_file import ExampleFile
from forethought.train.rows import TERMS

MOST = 500
"""Held-out examples of one term that are measured; more would cost time and settle little."""


def family_of(request: Request) -> str:
    """What keeps a request together with its variants, its twin and its scenario."""
    return request.family or request.twin or request.seed_id


def hold_out(examples: Sequence[Example], share: float) -> tuple[Sequence[Example], Sequence[Example]]:
    """(examples to train on, examples to measure by); no family stands in both.

    Of each term the share of its families goes, at least one, and with them all their examples. Which ones depends on
    their names alone. Nine bytes an example are held in memory. Raises InputError where a term has fewer than two.
    """
    families = np.empty(len(examples), dtype=np.uint64)
    terms = np.empty(len(examples), dtype=np.int8)
    for place, example in enumerate(examples):
        digest = hashlib.sha256(family_of(example.request).encode()).digest()
        families[place] = int.from_bytes(digest[:8], "big")
        terms[place] = TERMS.index(example.term)
    out = np.isin(families, np.concatenate([_chosen(families[terms == n], share, n) for n in range(len(TERMS))]))
    for number, name in enumerate(TERMS):
        if not (~out & (terms == number)).any():
            raise InputError(f"--held-out {share}", f"leaves no row of the term '{name}'", "Hold out less")
    by_name = np.argsort(families, kind="stable")
    few = [by_name[(out & (terms == number))[by_name]][:MOST] for number in range(len(TERMS))]
    return _at(examples, np.flatnonzero(~out)), _at(examples, np.sort(np.concatenate(few)))


def _chosen(families: NDArray[np.uint64], share: float, term: int) -> NDArray[np.uint64]:
    """The share of one term's families that go."""
    names = np.unique(families)
    if len(names) < 2:
        raise InputError(
            f"--held-out {share}",
            f"the examples hold {len(names)} families of the term '{TERMS[term]}', and two are needed",
            "Give more examples, or hold nothing out",
        )
    return np.asarray(names[: min(len(names) - 1, math.ceil(share * len(names)))])


def _at(examples: Sequence[Example], places: NDArray[Any]) -> Sequence[Example]:
    if isinstance(examples, ExampleFile):
        return examples.select(places.tolist())
    return [examples[place] for place in places.tolist()]
