"""Question evolution: a request in another style, its meaning unchanged.

Operators are data (`operators/*.yaml`). Each has templates and, where wording
itself changes, a rule of this file. Harmful and harmless requests get the same
styles, so that a style says nothing about harm (the paper left harmless ones
plain, and models learned to refuse the style).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from forethought.errors import ConfigError
from forethought.records import Request


class Demonstration(BaseModel):
    """A request and how the operator rewrites it; shown to an LLM teacher."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request: str
    rewritten: str


class Operator(BaseModel):
    """A way to restyle a request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    kind: Literal["linguistic", "contextual"]
    """Whether it changes the words, or what stands around them."""
    definition: str
    paper: bool = False
    """True for the six of the SCoT paper (arXiv 2501.19180)."""
    rule: str | None = None
    """Name of a rewriting rule of this module, applied to the request first."""
    templates: tuple[str, ...] = ("{request}",)
    """Texts around the request: `{request}` as a sentence, `{phrase}` in lower case without its end mark."""
    demonstrations: tuple[Demonstration, ...] = ()

    @model_validator(mode="after")
    def _usable(self) -> Operator:
        for template in self.templates:
            if ("{request}" in template) == ("{phrase}" in template):
                raise ValueError(f"template '{template[:40]}' needs exactly one of {{request}} and {{phrase}}")
        if self.rule is not None and self.rule not in RULES:
            raise ValueError(f"rule '{self.rule}' is unknown; use one of {', '.join(RULES)}")
        return self

    def apply(self, request: Request, rng: random.Random) -> Request:
        """The request restyled; the random source picks the template and the wording."""
        text = request.text.strip()
        template = rng.choice(self.templates)  # before the rule, whose draws depend on the words: twins share it
        if self.rule is not None:
            text = RULES[self.rule](text, rng)
        said = {"request": sentence(text), "phrase": phrase(text, keep_case=self.rule == "capitals")}
        # One pass of plain replacement: braces in a request must not be read as a format.
        filled = re.sub(r"\{(request|phrase)\}", lambda match: said[match[1]], template)
        return request.restyled(filled, self.name)


def sentence(text: str) -> str:
    """The text with an end mark."""
    text = text.strip()
    return text if text[-1:] in ".?!:\"'" else text + "."


def phrase(text: str, keep_case: bool = False) -> str:
    """The text without its end mark, its first letter in lower case unless it is part of a name or `I`."""
    text = text.strip().rstrip(".?!")
    first = text.split(" ", 1)[0]
    if keep_case or first in {"I", "I'm", "I've", "I'd", "I'll"} or (len(first) > 1 and first[1:2].isupper()):
        return text
    return text[:1].lower() + text[1:]


_SLANG = {
    "you": "ya", "your": "ur", "going to": "gonna", "want to": "wanna", "have to": "gotta", "money": "cash",
    "friend": "homie", "people": "folks", "someone": "some dude", "give me": "gimme", "let me": "lemme",
    "because": "cuz", "really": "mad", "good": "dope", "house": "crib", "police": "cops", "children": "kids",
    "isn't": "ain't", "don't know": "dunno", "explain": "break down", "write": "whip up", "create": "cook up",
    "and": "n", "them": "em", "about": "bout", "help me": "hook me up n help me",
}  # fmt: skip
_DIALECT = {
    "you": "ye", "your": "yer", "do": "dae", "how": "hou", "what": "whit", "where": "whaur", "who": "wha",
    "from": "frae", "with": "wi", "know": "ken", "small": "wee", "not": "nae", "can't": "cannae", "don't": "dinnae",
    "make": "mak", "take": "tak", "give": "gie", "my": "ma", "to": "tae", "of": "o'", "and": "an'", "old": "auld",
    "home": "hame", "people": "fowk", "children": "bairns", "house": "hoose", "write": "scrieve",
}  # fmt: skip
_TEXTING = {
    "you": "u", "your": "ur", "are": "r", "please": "pls", "for": "4", "to": "2", "be": "b", "see": "c", "why": "y",
    "because": "bc", "people": "ppl", "with": "w", "about": "abt", "thanks": "thx", "before": "b4", "someone": "some1",
    "without": "w/o", "something": "smth", "tonight": "2nite", "great": "gr8", "really": "rly", "message": "msg",
}  # fmt: skip


def _swap(table: dict[str, str], text: str, rng: random.Random, share: float) -> str:
    """Words of the table replaced, each with the given probability."""
    pattern = re.compile(
        r"\b(" + "|".join(re.escape(word) for word in sorted(table, key=len, reverse=True)) + r")\b", re.I
    )
    return pattern.sub(lambda match: table[match.group().lower()] if rng.random() < share else match.group(), text)


RULES: dict[str, Callable[[str, random.Random], str]] = {
    "slang": lambda text, rng: re.sub(r"(\w{3,})ing\b", r"\1in", _swap(_SLANG, text, rng, 0.9)),
    "dialect": lambda text, rng: _swap(_DIALECT, text, rng, 0.8),
    "texting": lambda text, rng: _swap(_TEXTING, text.lower(), rng, 0.8),
    "lowercase": lambda text, rng: re.sub(r"[.,!?;:\"']", "", text.lower()),
    "capitals": lambda text, rng: text.upper(),
}


def load_operators(folder: Path | None = None, names: Sequence[str] | None = None) -> dict[str, Operator]:
    """The shipped operators and those of a folder of the user's, by name; a user's file wins.

    `names` keeps those alone. Raises ConfigError for a broken file or an unknown name.
    """
    shipped = resources.files("forethought").joinpath("data/operators")
    entries = sorted(shipped.iterdir(), key=lambda entry: entry.name)
    texts = {entry.name: entry.read_text(encoding="utf-8") for entry in entries if entry.name.endswith(".yaml")}
    if folder is not None:
        if not folder.is_dir():
            raise ConfigError(folder, "there is no such operator folder", "Check build.operator_folder")
        texts |= {str(path): path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.yaml"))}
    operators: dict[str, Operator] = {}
    for name in texts:  # shipped ones first, so that the user's of the same name replaces it
        try:
            operator = Operator.model_validate(yaml.safe_load(texts[name]))
        except (ValidationError, yaml.YAMLError) as error:
            reason = _first_fault(error) if isinstance(error, ValidationError) else " ".join(str(error).split())
            raise ConfigError(f"operator {name}", reason, "See docs/build.md for the fields") from None
        operators[operator.name] = operator
    if names is None:
        return dict(sorted(operators.items()))
    unknown = [name for name in names if name not in operators]
    if unknown:
        raise ConfigError(
            f"operator '{unknown[0]}'", "there is no such operator", f"Use one of {', '.join(sorted(operators))}"
        )
    return {name: operators[name] for name in names}


def _first_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"at '{place}': {first['msg']}" if place else first["msg"]


def evolve(
    requests: Iterable[Request], operators: dict[str, Operator], rows_per_seed: float, styled_share: float, seed: int
) -> list[Request]:
    """Each request `rows_per_seed` times, as it is or restyled, in styles drawn without repetition.

    A fraction is a chance: 1.5 is one row and, for half of the requests, another. The first
    row is restyled with probability `styled_share`, further ones always. The draw depends
    on the seed and on the request (for twins: on the pair) alone: adding requests changes
    no other row, and a harmful request and its look-alike wear the same disguise.
    """
    names = sorted(operators)
    result: list[Request] = []
    for request in requests:
        key = f"{seed}:{request.twin or request.id}"
        rng = random.Random(key)
        count = int(rows_per_seed) + (rng.random() < rows_per_seed % 1)
        plain = rng.random() >= styled_share
        styles: list[str | None] = list(rng.sample(names, min(count, len(names))))
        if count and (plain or not styles):
            styles[:1] = [None]
        for name in styles:
            # A source of its own for each style, so that twins of other wording still get the same template.
            wording = random.Random(f"{key}:{name}")
            result.append(request if name is None else operators[name].apply(request, wording))
    return result
