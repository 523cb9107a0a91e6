"""Question evolution: a request in another style, its meaning unchanged.

An operator is data: a YAML file (`operators/*.yaml`, or the user's) that says how a request
is put in another style, and when that makes sense. Harmful and harmless requests get the
same styles, so that a style says nothing about harm (the paper left harmless ones plain, and
models learned to refuse the style). Which request gets which style is drawn apart from the
rewriting, so that an LLM can write what rules write here.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from forethought.errors import ConfigError
from forethought.language import language_of
from forethought.records import Record, Request, user_request
from forethought.yamlfile import parse_yaml, read_text, shipped_texts, shipped_yaml

SHIPPED = "data/operators"
"""The operators that ship, a file each, found by looking: a new one is one new file."""
ANY_LANGUAGE = "all"
"""Among an operator's languages: it fits a request in any."""
_PAGE = "docs/operators.md"
_SHOWN = user_request("How do I repot a fern?", harmful=False)


_ENDS = frozenset(".?!:\"'\u3002\uff1f\uff01\u061f\u06d4\u0964")
"""What ends a sentence in some script."""


def sentence(text: str) -> str:
    """The text with an end mark."""
    text = text.strip()
    return text if text[-1:] in _ENDS else text + "."


def phrase(text: str, keep_case: bool = False) -> str:
    """The text without its end mark, its first letter in lower case unless it is part of a name or `I`."""
    text = text.strip().rstrip(".?!\u3002\uff1f\uff01\u061f\u06d4\u0964")
    first = text.split(" ", 1)[0]
    if keep_case or first in {"I", "I'm", "I've", "I'd", "I'll"} or (len(first) > 1 and first[1:2].isupper()):
        return text
    return text[:1].lower() + text[1:]


def _swap(table: dict[str, str], text: str, rng: random.Random, share: float) -> str:
    """Words of the table replaced, each with the given probability."""
    pattern = re.compile(
        r"\b(" + "|".join(re.escape(word) for word in sorted(table, key=len, reverse=True)) + r")\b", re.I
    )
    return pattern.sub(lambda match: table[match.group().lower()] if rng.random() < share else match.group(), text)


_WORDS = shipped_yaml("data/word_rules.yaml", dict[str, dict[str, str]])
RULES: dict[str, Callable[[str, random.Random], str]] = {
    "slang": lambda text, rng: re.sub(r"(\w{3,})ing\b", r"\1in", _swap(_WORDS["slang"], text, rng, 0.9)),
    "dialect": lambda text, rng: _swap(_WORDS["dialect"], text, rng, 0.8),
    "texting": lambda text, rng: _swap(_WORDS["texting"], text.lower(), rng, 0.8),
    "lowercase": lambda text, rng: re.sub(r"[.,!?;:\"']", "", text.lower()),
    "capitals": lambda text, rng: text.upper(),
}
"""Those with words of their own replace English ones; the others change letters and punctuation of any language."""
EQUIVALENTS = {
    plain: frozenset(word for table in _WORDS.values() for word in table.get(plain, "").split())
    for plain in {plain for table in _WORDS.values() for plain in table if " " not in plain}
}
"""Words that the rules put for a word: what a check of meaning has to count as the same."""
DEMONSTRATIONS = 8
"""How many of a style a model is shown: as many as the SCoT paper shows (arXiv 2501.19180)."""


class Demonstration(Record):
    """A request and how the operator rewrites it; shown to an LLM teacher."""

    request: str
    """Empty where a pool holds styled texts alone: the style is shown, its original isn't known."""
    rewritten: str


class Operator(Record):
    """A way to restyle a request, and the requests to which it applies."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    kind: Literal["linguistic", "contextual"]
    """Whether it changes the words, or what stands around them."""
    definition: str
    paper: bool = False
    """True for the six of the SCoT paper (arXiv 2501.19180)."""
    rule: str | None = None
    """Name of a word rule, applied to the request first."""
    templates: tuple[str, ...] = ("{request}",)
    """Texts around the request: `{request}` as a sentence, `{phrase}` in lower case without its end mark."""
    languages: tuple[str, ...] = ("en",)
    """ISO 639 codes of requests that it fits: the language of its templates. `all`: any."""
    max_words: int | None = Field(default=None, ge=1)
    """Longest request, in words, that it fits; None is any length."""
    applies_to: Literal["all", "harmful", "harmless"] = "all"
    """Label of the requests that it fits. Anything but `all` makes the style a sign of the label."""
    multi_turn: bool = True
    """Whether it fits the last turn of a conversation with earlier turns."""
    demonstrations: tuple[Demonstration, ...] = ()
    pool: str | None = None
    """Further demonstrations: any source that `forethought data` reads; a path is relative to the operator's file."""

    @model_validator(mode="after")
    def _usable(self) -> Operator:
        for template in self.templates:
            if ("{request}" in template) == ("{phrase}" in template):
                raise ValueError(f"template '{template[:40]}' needs exactly one of {{request}} and {{phrase}}")
        if self.rule is not None and self.rule not in RULES:
            raise ValueError(f"rule '{self.rule}' is unknown; use one of {', '.join(RULES)}")
        if self.rule in _WORDS and self.languages != ("en",):
            raise ValueError(f"rule '{self.rule}' replaces English words: languages must be [en]")
        if not self.templates:
            raise ValueError("templates is empty; leave it out to keep the request as it is")
        return self

    def applies(self, request: Request, language: str) -> bool:
        """Whether it fits a request in this language (ISO 639 code)."""
        label = {"all": request.harmful, "harmful": True, "harmless": False}[self.applies_to]
        return (
            (ANY_LANGUAGE in self.languages or language in self.languages)
            and (self.max_words is None or len(request.text.split()) <= self.max_words)
            and request.harmful is label
            and (self.multi_turn or sum(message.role == "user" for message in request.messages) == 1)
        )

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


def load_operators(folder: Path | None = None, names: Sequence[str] | None = None) -> dict[str, Operator]:
    """The shipped operators and those of a folder of the user's, by name; a user's file wins.

    `names` keeps those alone. Raises ConfigError for a broken file or an unknown name.
    """
    texts = shipped_texts(SHIPPED)
    if folder is not None:
        if not folder.is_dir():
            raise ConfigError(folder, "there is no such operator folder", "Check build.operator_folder")
        texts |= {str(path): read_text(path, "operator", "") for path in sorted(folder.glob("*.yaml"))}
    operators: dict[str, Operator] = {}
    for name, text in texts.items():  # shipped ones first, so that the user's of the same name replaces it
        operator = parse_yaml(text, f"operator {name}", "style", Operator, "name, kind and definition", _PAGE)
        if operator.pool and not re.match(r"[a-z]+:", operator.pool):  # `pkg:` and `hub:` names stay
            beside = Path(name).parent / Path(operator.pool).expanduser()
            operator = operator.model_copy(update={"pool": str(beside)})
        operators[operator.name] = operator
    if names is None:
        return dict(sorted(operators.items()))
    unknown = [name for name in names if name not in operators]
    if unknown:
        raise ConfigError(
            f"operator '{unknown[0]}'", "there is no such operator", f"Use one of {', '.join(sorted(operators))}"
        )
    return {name: operators[name] for name in names}


def operator_table(operators: dict[str, Operator]) -> list[tuple[str, ...]]:
    """Rows for a listing: name, kind, `paper` or empty, languages, number of demonstrations, an example."""
    return [
        (
            operator.name,
            operator.kind,
            "paper" if operator.paper else "",
            ", ".join(operator.languages),
            str(len(operator.demonstrations)) + (" + pool" if operator.pool else ""),
            " ".join(operator.apply(_SHOWN, random.Random(0)).text.split()),
        )
        for operator in operators.values()
    ]


def draw_styles(
    requests: Iterable[Request],
    operators: dict[str, Operator],
    rows_per_seed: float,
    styled_share: float,
    seed: int,
    beside: Iterable[Request] = (),
) -> list[tuple[Request, str | None]]:
    """Each request `rows_per_seed` times, with the operator that restyles it; None leaves it as it is.

    A fraction is a chance: 1.5 is one row and, for half of the requests, another. The first
    row is restyled with probability `styled_share`, further ones always, in styles drawn
    without repetition among the operators that apply. The draw depends on the seed and on
    the request (for twins: on the pair) alone: adding requests changes no other row, and a
    harmful request and its look-alike wear the same disguise. Give `beside` the requests
    that are evolved apart from these and may hold their twins: an operator that doesn't
    apply to one twin is then drawn for neither.
    """
    chosen = list(requests)
    by_language = any(ANY_LANGUAGE not in operator.languages for operator in operators.values())
    pairs: dict[str, list[tuple[Request, str]]] = defaultdict(list)
    for request in (*chosen, *beside):
        language = language_of(request.text) if by_language else ANY_LANGUAGE
        pairs[request.twin or request.id].append((request, language))
    drawn: list[tuple[Request, str | None]] = []
    for request in chosen:
        pair = pairs[request.twin or request.id]
        names = [name for name in sorted(operators) if all(operators[name].applies(*one) for one in pair)]
        rng = random.Random(_key(request, seed))
        count = int(rows_per_seed) + (rng.random() < rows_per_seed % 1)
        plain = rng.random() >= styled_share
        styles: list[str | None] = list(rng.sample(names, min(count, len(names))))
        if count and (plain or not styles):
            styles[:1] = [None]
        drawn += [(request, name) for name in styles]
    return drawn


def apply_style(request: Request, operator: Operator, seed: int) -> Request:
    """The request restyled; the wording depends on the seed, the request (or pair) and the operator alone."""
    # A source of its own for each style, so that twins of other wording still get the same template.
    return operator.apply(request, random.Random(f"{_key(request, seed)}:{operator.name}"))


def _key(request: Request, seed: int) -> str:
    return f"{seed}:{request.twin or request.id}"
