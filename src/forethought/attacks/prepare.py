"""Attacks carried out on requests: what comes out is what a model is asked, and what could not be run, with the cause.

An attack that an attacker model writes stops where it needs a text. All the texts that a round needs are asked for
together, and the attacks go on: a composition of two such attacks takes two rounds. `attacker` asks a model for them,
and `Rewrites` keeps them, so that each is asked for once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from forethought.attacks.base import Attack, Attacked, Given, Wanted
from forethought.attacks.catalogue import attack_request, why_not
from forethought.attacks.rewritten import REFUSED, UNCHANGED, Unfit, read_rewrite
from forethought.models.callspec import Call, CallProgress, CallSettings, Reject
from forethought.models.conversation import Able
from forethought.records import Record, Request
from forethought.store import Store, locked, read_store

if TYPE_CHECKING:
    from inspect_ai.model import Model


class Rewrite(Record):
    """One text."""

    key: str
    """`Wanted.key`: a hash of what was asked."""
    model: str
    """Who wrote it: texts of another model are not used."""
    rewriter: str
    text: str


class Rewrites:
    """The texts of one model by `Wanted.key`, in a store that other models and runs may share."""

    def __init__(self, path: Path, model: str) -> None:
        """Raises InputError for a damaged line."""
        self._path, self._model = path, model
        kept = read_store(path, Rewrite).values()
        self.texts = {row.key: row.text for row in kept if row.model == model}

    def add(self, texts: Mapping[str, tuple[str, str]]) -> None:
        """Keeps (rewriter, text) by key; they are on disk when this returns. Known keys keep their text."""
        new = {key: pair for key, pair in texts.items() if key not in self.texts}
        if not new:
            return
        with locked(self._path.with_suffix(".lock"), wait=True), Store(self._path, write=True) as store:
            for key, (rewriter, text) in new.items():
                row = Rewrite(key=key, model=self._model, rewriter=rewriter, text=text)
                store.add(f"{self._model}:{key}", row)
        self.texts |= {key: text for key, (_, text) in new.items()}


AskAttacker = Callable[[Sequence[Wanted]], Mapping[str, str | Unfit]]
"""Asks an attacker model for texts: by key the text, or why there is none."""
NO_TEXT = "the attacker gave no text"


@dataclass(frozen=True)
class Preparation:
    """How requests are put under attacks here."""

    seed: int = 0
    given: Given = field(default_factory=Given)
    able: Able = field(default_factory=Able)
    """What the attacked model takes."""
    rewrites: Rewrites | None = None
    """Texts that an attacker model wrote before; new ones are kept there."""
    ask: AskAttacker | None = None
    """None without an attacker model: attacks that need one use the texts in `rewrites`, and the rest is not run."""


def prepare(attack: Attack, requests: Sequence[Request], how: Preparation | None = None) -> list[Attacked | Unfit]:
    """Every request under an attack, in order, or why it could not be put under it: neither refused nor safe then.

    Raises ConfigError and InputError for options and files that can't be used.
    """
    how = how or Preparation()
    known = {**how.given.rewrites, **(how.rewrites.texts if how.rewrites is not None else {})}
    has_texts = how.ask is not None or bool(known)
    if blocked := why_not(attack, has_texts, how.able.prefill, how.able.budget, how.given.files):
        return [Unfit(blocked)] * len(requests)
    failed: dict[str, Unfit] = {}
    """Why a text could not be had, by its key."""
    done: dict[int, Attacked | Unfit] = {}
    while len(done) < len(requests):
        given = replace(how.given, rewrites=known)
        wanted: dict[str, Wanted] = {}
        for place, request in enumerate(requests):
            outcome = done.get(place) or attack_request(attack, request, how.seed, given)
            if not isinstance(outcome, Wanted):
                done[place] = outcome
            elif outcome.key in failed:
                done[place] = failed[outcome.key]
            else:
                wanted[outcome.key] = outcome
        answers = how.ask(list(wanted.values())) if how.ask is not None and wanted else {}
        missing = Unfit("needs an attacker model" if how.ask is None else NO_TEXT)
        fit = {}
        for key, one in wanted.items():
            said = answers.get(key, missing)
            if isinstance(said, Unfit):
                failed[key] = said
            else:
                fit[key] = (one.rewriter, said)
        known |= {key: text for key, (_, text) in fit.items()}
        if how.rewrites is not None:
            how.rewrites.add(fit)
    return [done[place] for place in range(len(requests))]


ATTACKER_SETTINGS = CallSettings(temperature=0.0, attempts=3, timeout_s=120, max_retries=3)
"""Greedy, and asked again where it answers or refuses instead of rewriting."""
_SAY = {
    REFUSED: "you are not asked to help with the text, only to rewrite it for a test of another model's safety",
    UNCHANGED: "it is the same text",
}


def attacker(
    model: str | Model,
    journal: Path,
    settings: CallSettings = ATTACKER_SETTINGS,
    on_progress: Callable[[CallProgress], None] | None = None,
) -> AskAttacker:
    """Asks a model through the one runner of model calls: concurrent, journalled, in bounded time.

    What is given raises ModelError when the model never answers at all.
    """
    from forethought.judges.graders import ask as ask_model

    def ask(wanted: Sequence[Wanted]) -> Mapping[str, str | Unfit]:
        by_key = {one.key: one for one in wanted}
        calls = [Call(key=one.key, messages=one.messages, max_tokens=one.max_tokens) for one in wanted]

        def read(key: str, answer: str) -> str | Reject:
            text = read_rewrite(answer, by_key[key].original, by_key[key].changes_words)
            return Reject(text.cause, _SAY.get(text.cause, "")) if isinstance(text, Unfit) else text

        found = ask_model(model, calls, journal, settings, read, None, on_progress)
        return {key: Unfit(one.cause) if isinstance(one, Reject) else one for key, one in found.items()}

    return ask
