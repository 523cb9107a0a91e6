"""Suites: which attacks are run together, as YAML."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from pydantic import Field, field_validator

from forethought.attacks.base import Attack, Option
from forethought.attacks.catalogue import parse_attack
from forethought.attacks.rewritten import read_techniques
from forethought.attacks.searches.base import parse_method
from forethought.attacks.templates import read_templates
from forethought.errors import ConfigError
from forethought.records import Record
from forethought.yamlfile import parse_yaml, read_text

_EVERY = "*"
_NEEDS = "the keys name and attacks (or include)"
_PAGE = "docs/attacks.md"


class Suite(Record):
    """Attacks that are run together."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    description: str = ""
    include: tuple[str, ...] = ()
    """Shipped suites, or files beside this one, whose attacks come first."""
    attacks: tuple[str | dict[str, Option], ...] = ()
    """Attacks as `catalogue.parse_attack` reads them, or an object with `attack` and its options.

    `templates:*` and `persuasion:*` are every row of the file."""
    adaptive: tuple[str, ...] = ()
    """Searches that are run against each defence besides, as `adaptive.catalogue.parse_method` reads them."""
    files: dict[str, Path] = Field(default_factory=dict)
    """Local files by attack (`templates`, `persuasion`), relative to the suite's own file."""

    @field_validator("attacks")
    @classmethod
    def _objects_name_an_attack(
        cls, attacks: tuple[str | dict[str, Option], ...]
    ) -> tuple[str | dict[str, Option], ...]:
        for one in attacks:
            if isinstance(one, dict) and not isinstance(one.get("attack"), str):
                raise ValueError("an attack written as an object needs the key 'attack'")
        return attacks


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
        name = one if isinstance(one, str) and one.endswith(f":{_EVERY}") else _parse(one).name
        seen.setdefault(name, one)
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
    return parse_attack(str(one["attack"]), {key: value for key, value in one.items() if key != "attack"})


def _expanded(one: str | dict[str, Option], files: dict[str, Path]) -> list[Attack]:
    if not isinstance(one, str) or not one.endswith(f":{_EVERY}"):
        return [_parse(one)]
    name = one.removesuffix(f":{_EVERY}")
    if name not in ("templates", "persuasion"):
        raise ConfigError(f"attack '{one}'", "has no file of rows", "Use * with templates or persuasion alone")
    if name not in files:
        # Kept as one attack, so that what is not run is shown.
        return [parse_attack("templates" if name == "templates" else "persuasion:any")]
    if name == "templates":
        return [parse_attack(f"templates:{template.name}") for template in read_templates(files[name])]
    return [parse_attack(f"persuasion:{technique}") for technique in read_techniques(files[name])]


def _load(name: str, above: tuple[str, ...]) -> Suite:
    if name in above:
        raise ConfigError(f"suite '{name}'", "includes itself", f"Take it out of {above[-1]}")
    suite, folder = _read(name)
    parts: list[str | dict[str, Option]] = []
    adaptive: dict[str, None] = {}
    files: dict[str, Path] = {}
    for other in suite.include:
        beside = folder / other if folder is not None and other not in suite_names() else other
        included = _load(str(beside), (*above, name))
        parts += included.attacks
        adaptive |= dict.fromkeys(included.adaptive)
        files |= included.files
    own = {key: path if folder is None else folder / path.expanduser() for key, path in suite.files.items()}
    return suite.model_copy(
        update={
            "attacks": (*parts, *suite.attacks),
            "adaptive": tuple(adaptive | dict.fromkeys(suite.adaptive)),
            "files": files | own,
            "include": (),
        }
    )


def _read(name: str) -> tuple[Suite, Path | None]:
    """The suite and, for a user's file, its folder."""
    if name in suite_names():
        file = resources.files("forethought").joinpath(f"attacks/suites/{name}.yaml")
        text = file.read_text(encoding="utf-8")
        return parse_yaml(text, f"suites/{name}.yaml", "suite", Suite, _NEEDS, _PAGE), None
    path = Path(name)
    text = read_text(path, "suite", f"Give a YAML file, or one of {', '.join(suite_names())}")
    return parse_yaml(text, str(path), "suite", Suite, _NEEDS, _PAGE), path.parent
