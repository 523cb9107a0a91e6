"""All static attacks by name, suites of them, and how one is put on a request.

Each runs on harmful and on harmless requests alike. A module lists its attacks under `ATTACKS`; what they are called,
their options and their texts stand in the YAML file beside it. A text around the request takes no more than an entry
there. The SCoT paper's six trained styles are operators (`data/operators`); `BY_RULE` has its styles out of
distribution (arXiv 2501.19180, section 5) that rules write faithfully, after Wei et al. 2023 (arXiv 2307.02483) and
SORRY-Bench (arXiv 2406.14598).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from importlib import resources
from pathlib import Path

from pydantic import Field

from forethought import attacks
from forethought.attacks.base import Attack, Attacked, Given, Need, Option, Wanted, find
from forethought.attacks.rewritten import read_techniques
from forethought.attacks.searches.base import parse_method
from forethought.attacks.templates import read_templates
from forethought.errors import ConfigError
from forethought.extensions import by_name, listed
from forethought.records import Record, Request
from forethought.yamlfile import parse_yaml, read_text

_BAR, _EVERY = "|", ":*"
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
        parts=tuple(steps),
    )


def attack_request(attack: Attack, request: Request, seed: int, given: Given | None = None) -> Attacked | Wanted:
    """A request under an attack; what is drawn depends on the seed, the attack's name and the request alone."""
    rng = random.Random(f"{seed}:{attack.name}:{request.id}")
    return attack.apply(Attacked(request=request), rng, given or Given())


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


def seen_in_training(attack: Attack, seen_operators: Collection[str]) -> bool:
    """Whether training on these styles has shown the model this attack or a near relative of it.

    `seen_operators` stands in the settings of a trained model. A composition counts as seen when any of its steps
    is: what is left of it is no longer a wholly unseen style.
    """
    return not {attack.name, *attack.relatives}.isdisjoint(seen_operators)


def why_not(attack: Attack, attacker: bool, prefill: bool, budget: bool, files: Collection[str]) -> str:
    """Why an attack can't be run here, or empty. `files`: the attacks whose local file is named."""
    if "attacker" in attack.needs and not attacker:
        return "needs an attacker model"
    if "prefill" in attack.needs and not prefill:
        return "needs a model whose turn can be prefilled"
    if "budget" in attack.needs and not budget:
        return "needs a model whose thought can be cut"
    for part in attack.parts or (attack,):
        name = part.name.split(":")[0]
        if "file" in part.needs and name not in files:
            return f"needs a local file for {name}"
    return ""


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
    folder = resources.files("forethought").joinpath("attacks/suites")
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


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
    if name in shipped:
        text = resources.files("forethought").joinpath(f"attacks/suites/{name}.yaml").read_text(encoding="utf-8")
        suite = parse_yaml(text, f"suites/{name}.yaml", "suite", Suite, needs, page)
    else:
        text = read_text(Path(name), "suite", f"Give a YAML file, or one of {', '.join(shipped)}")
        suite = parse_yaml(text, name, "suite", Suite, needs, page)
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
