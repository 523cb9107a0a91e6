"""All static attacks by name, suites of them, and how requests are put under them.

Each runs on harmful and on harmless requests alike. A module lists its attacks under `ATTACKS`; what they are called,
their options and their texts stand in the YAML file beside it. A text around the request takes no more than an entry
there. The SCoT paper's six trained styles are operators (`data/operators`); `BY_RULE` has its styles out of
distribution (arXiv 2501.19180, section 5) that rules write faithfully, after Wei et al. 2023 (arXiv 2307.02483) and
SORRY-Bench (arXiv 2406.14598).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from forethought import attacks
from forethought.attacks.base import Attack, Attacked, Given, Need, Option, Wanted, find
from forethought.attacks.rewritten import REFUSED, UNCHANGED, Unfit, read_rewrite, read_techniques
from forethought.attacks.searches.base import parse_method
from forethought.attacks.templates import read_templates
from forethought.errors import ConfigError
from forethought.extensions import by_name, listed
from forethought.models.callspec import Call, CallSettings, Reject
from forethought.models.conversation import Able
from forethought.records import Record, Request
from forethought.store import Store, locked, read_store
from forethought.yamlfile import shipped_or_own, shipped_texts

if TYPE_CHECKING:
    from inspect_ai.model import Model

_BAR, _EVERY = "|", ":*"
_SUITES = "attacks/suites"
DIRECT = Attack(name="direct", title="Direct", paper="")
"""The request as it is."""

BY_RULE = (
    "prefix_injection", "refusal_suppression", "style_short", "style_json", "distractors", "authority_endorsement",
    "misspelling", "leetspeak", "disemvowel",
)  # fmt: skip
"""Attacks of the paper that need nothing and share no name with a training style: what a default evaluation runs."""


def all_attacks() -> dict[str, Attack]:
    """The attacks of every module of this package and of files added to it, by name; `DIRECT` is none."""
    return by_name(listed(attacks, "ATTACKS"))


def parse_attack(spec: str, extra: Mapping[str, Option] | None = None) -> Attack:
    """The attack that a suite names, options and composition included; `extra` are options given beside the name.

    `NAME`, `NAME:VALUE` (its first option), `NAME:option=value,option=value`; several joined by `|` are applied from
    left to right. Raises ConfigError for an unknown attack or option, a value out of range, an option left out.
    """
    if extra and _BAR in spec:
        raise ConfigError(f"attack '{spec}'", "is composed and has options beside it", "Write them behind its steps")
    steps = []
    for part in spec.split(_BAR):
        name, _, written = part.strip().partition(":")
        attack = DIRECT if name.strip() == DIRECT.name else find("attack", name.strip(), all_attacks())
        steps.append(attack.with_options(written, extra))
    return steps[0] if len(steps) == 1 else compose(steps)


def compose(steps: list[Attack]) -> Attack:
    """The attacks one after another, as one attack."""
    needs: dict[Need, None] = {need: None for step in steps for need in step.needs}
    return Attack(
        name=f" {_BAR} ".join(step.name for step in steps),
        title=", then ".join(step.title for step in steps),
        paper="; ".join(dict.fromkeys(step.paper for step in steps if step.paper)),
        kind=steps[-1].kind,
        form=steps[-1].form,
        needs=tuple(needs),
        white_box=any(step.white_box for step in steps),
        readable=all(step.readable for step in steps),
        relatives=tuple(dict.fromkeys(relative for step in steps for relative in (step.name, *step.relatives))),
        work=tuple(dict.fromkeys(work for step in steps for work in step.work)),
        of_two=any(step.of_two for step in steps),
        parts=tuple(steps),
    )


def seen_in_training(attack: Attack, seen_operators: Collection[str]) -> bool:
    """Whether training on these styles has shown the model this attack or a near relative of it.

    `seen_operators` stands in the settings of a trained model. A composition counts as seen when any of its steps
    is: what is left of it is no longer a wholly unseen style. Where something has to be solved, all disguises that take
    the same kind of work are near.
    """
    if not {attack.name, *attack.relatives}.isdisjoint(seen_operators):
        return True
    known = all_attacks()
    solved = [name for name in seen_operators if attack.work and name.partition(":")[0] in known]
    return any(set(attack.work) & set(parse_attack(name).work) for name in solved)


class Suite(Record):
    """Attacks that are run together, as YAML."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    description: str = ""
    include: tuple[str, ...] = ()
    """Shipped suites, or files beside this one, whose attacks come first."""
    attacks: tuple[str | dict[str, Option], ...] = ()
    """Attacks as `parse_attack` reads them, or an object with `attack` and its options.

    `templates:*` and `persuasion:*` are every row of the file."""
    adaptive: tuple[str, ...] = ()
    """Searches that are run against each defence besides, as `searches.base.parse_method` reads them."""
    files: dict[str, Path] = Field(default_factory=dict)
    """Local files by attack (`templates`, `persuasion`), relative to the suite's own file."""


def suite_names() -> tuple[str, ...]:
    """The shipped suites."""
    return tuple(shipped_texts(_SUITES))


def load_suite(name: str) -> Suite:
    """A shipped suite by name, or a file of the user's, included suites filled in and each attack once.

    Raises ConfigError for a broken file, a suite that includes itself, an unknown attack, search or option.
    """
    suite = _load(name, ())
    searches = dict.fromkeys(parse_method(one).name for one in suite.adaptive)  # an unknown search is told here
    seen: dict[str, str | dict[str, Option]] = {}
    for one in suite.attacks:  # an unknown attack is told here
        seen.setdefault(one if isinstance(one, str) and one.endswith(_EVERY) else _parse(one).name, one)
    return suite.model_copy(update={"attacks": tuple(seen.values()), "adaptive": tuple(searches)})


def suite_attacks(suite: Suite) -> list[Attack]:
    """The attacks of a suite, `*` replaced by every row of its file; where no file is named it stands for one attack.

    Raises ConfigError and InputError as `load_suite` and the files' readers do.
    """
    attacks: dict[str, Attack] = {}
    for one in suite.attacks:
        for attack in _expanded(one, suite.files):
            attacks.setdefault(attack.name, attack)
    return list(attacks.values())


def _parse(one: str | dict[str, Option]) -> Attack:
    if isinstance(one, str):
        return parse_attack(one)
    if not isinstance(one.get("attack"), str):
        raise ConfigError(f"{one}", "is no attack", "An attack written as an object needs the key 'attack'")
    return parse_attack(str(one["attack"]), {key: value for key, value in one.items() if key != "attack"})


def _expanded(one: str | dict[str, Option], files: dict[str, Path]) -> list[Attack]:
    if not isinstance(one, str) or not one.endswith(_EVERY):
        return [_parse(one)]
    name = one.removesuffix(_EVERY)
    if name not in ("templates", "persuasion"):
        raise ConfigError(f"attack '{one}'", "has no file of rows", "Use * with templates or persuasion alone")
    if name not in files:
        # Kept as one attack, so that what is not run is shown.
        return [parse_attack("templates" if name == "templates" else "persuasion:any")]
    if name == "templates":
        return [parse_attack(f"templates:{template.name}") for template in read_templates(files[name])]
    return [parse_attack(f"persuasion:{technique}") for technique in read_techniques(files[name])]


def _load(name: str, above: tuple[str, ...]) -> Suite:
    """The suite with what it includes, whose attacks come first."""
    if name in above:
        raise ConfigError(f"suite '{name}'", "includes itself", f"Take it out of {above[-1]}")
    needs, page = "the keys name and attacks (or include)", "docs/attacks.md"
    shipped, folder = suite_names(), Path(name).parent
    suite = shipped_or_own(name, _SUITES, "suite", Suite, needs, page)
    included = [_load(one if one in shipped else str(folder / one), (*above, name)) for one in suite.include]
    files = {key: path for one in included for key, path in one.files.items()}
    return suite.model_copy(
        update={
            "attacks": tuple(attack for one in (*included, suite) for attack in one.attacks),
            "adaptive": tuple(dict.fromkeys(search for one in (*included, suite) for search in one.adaptive)),
            "files": files | {key: folder / path.expanduser() for key, path in suite.files.items()},
            "include": (),
        }
    )


# Requests under attacks.
#
# An attack that an attacker model writes stops where it needs a text. All the texts that a round needs are asked for
# together, and the attacks go on: a composition of two such attacks takes two rounds. `attacker` asks a model for them,
# and `Rewrites` keeps them, so that each is asked for once.


def attack_request(attack: Attack, request: Request, seed: int, given: Given | None = None) -> Attacked | Wanted:
    """A request under an attack; what is drawn depends on the seed, the attack's name and the request (or where the
    message holds two, on both) alone."""
    given = given or Given()
    drawn_for = request.id
    if attack.of_two and request.plain in given.others:  # the messages of both differ in which of them is asked, alone
        drawn_for = "|".join(sorted((request.plain, given.others[request.plain])))
    return attack.apply(Attacked(request=request), random.Random(f"{seed}:{attack.name}:{drawn_for}"), given)


def apply_attack(name: str, request: Request, seed: int, given: Given | None = None) -> Request:
    """The request under an attack; what is drawn depends on the seed and the request alone.

    Raises ConfigError for attacks that a request alone can't carry: those that an attacker model writes, that need a
    local file which is not given, or that change the model's own turn. `prepare` and `attack_request` carry them out.
    """
    if name == DIRECT.name:
        return request
    attack = parse_attack(name)
    needs = unmet(attack, given.files if given is not None else ())
    if needs:
        raise ConfigError(f"attack '{name}'", f"needs more than a request: {', '.join(needs)}", "Run it in a suite")
    outcome = attack_request(attack, request, seed, given)
    assert not isinstance(outcome, Wanted)  # no attack without needs wants an attacker's text
    return outcome.request


def unmet(attack: Attack, files: Collection[str]) -> tuple[str, ...]:
    """What an attack needs besides a request, without the local files that are there; by the attack that reads them."""
    own = {part.name.partition(":")[0] for part in attack.parts or (attack,) if "file" in part.needs}
    return tuple(need for need in attack.needs if need != "file" or not own <= set(files))


def why_not(attack: Attack, attacker: bool, prefill: bool, budget: bool, files: Collection[str]) -> str:
    """Why an attack can't be run here, or empty. `files`: the attacks whose local file is named."""
    others = {
        "attacker": (attacker, "an attacker model"),
        "prefill": (prefill, "a model whose turn can be prefilled"),
        "budget": (budget, "a model whose thought can be cut"),
    }
    for need, (there, what) in others.items():
        if need in attack.needs and not there:
            return f"needs {what}"
    for part in attack.parts or (attack,):
        name = part.name.split(":")[0]
        if "file" in part.needs and name not in files:
            return f"needs a local file for {name}"
    return ""


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


def attacker(model: str | Model, journal: Path, settings: CallSettings = ATTACKER_SETTINGS) -> AskAttacker:
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

        found = ask_model(model, calls, journal, settings, read)
        return {key: Unfit(one.cause) if isinstance(one, Reject) else one for key, one in found.items()}

    return ask
