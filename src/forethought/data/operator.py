"""An operator is data: a YAML file that says how a request is put in another style, and when that makes sense."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from forethought.data.restyle import ENGLISH_RULES, RULES, phrase, sentence
from forethought.errors import ConfigError
from forethought.records import Request, user_request

ANY_LANGUAGE = "all"
_SHOWN = user_request("How do I repot a fern?", harmful=False)


class Demonstration(BaseModel):
    """A request and how the operator rewrites it; shown to an LLM teacher."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request: str
    """Empty where a pool holds styled texts alone: the style is shown, its original isn't known."""
    rewritten: str


class Operator(BaseModel):
    """A way to restyle a request, and the requests to which it applies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    kind: Literal["linguistic", "contextual"]
    """Whether it changes the words, or what stands around them."""
    definition: str
    paper: bool = False
    """True for the six of the SCoT paper (arXiv 2501.19180)."""
    rule: str | None = None
    """Name of a word rule of `restyle.py`, applied to the request first."""
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
        if self.rule in ENGLISH_RULES and self.languages != ("en",):
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
    shipped = resources.files("forethought").joinpath("data/operators")
    entries = sorted(shipped.iterdir(), key=lambda entry: entry.name)
    texts = {entry.name: entry.read_text(encoding="utf-8") for entry in entries if entry.name.endswith(".yaml")}
    if folder is not None:
        if not folder.is_dir():
            raise ConfigError(folder, "there is no such operator folder", "Check build.operator_folder")
        texts |= {str(path): _read(path) for path in sorted(folder.glob("*.yaml"))}
    operators: dict[str, Operator] = {}
    for name in texts:  # shipped ones first, so that the user's of the same name replaces it
        try:
            loaded: Any = yaml.safe_load(texts[name])
            operator = Operator.model_validate(loaded)
        except (ValidationError, yaml.YAMLError) as error:
            reason = _first_fault(error) if isinstance(error, ValidationError) else " ".join(str(error).split())
            raise ConfigError(f"operator {name}", reason, "See docs/operators.md for the fields") from None
        operators[operator.name] = _with_pool_beside(operator, Path(name).parent)
    if names is None:
        return dict(sorted(operators.items()))
    unknown = [name for name in names if name not in operators]
    if unknown:
        raise ConfigError(
            f"operator '{unknown[0]}'", "there is no such operator", f"Use one of {', '.join(sorted(operators))}"
        )
    return {name: operators[name] for name in names}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"operator {path}", "is not UTF-8 text", "Save it as UTF-8") from None


def _with_pool_beside(operator: Operator, folder: Path) -> Operator:
    """The operator with the path of its pool made relative to its own file; `pkg:` and `hub:` names stay."""
    scheme = re.match(r"[a-z]+:", operator.pool or "")
    if operator.pool is None or scheme or Path(operator.pool).expanduser().is_absolute():
        return operator
    return operator.model_copy(update={"pool": str(folder / operator.pool)})


def _first_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"at '{place}': {first['msg']}" if place else first["msg"]


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
