"""What an attack is, what it is given, and what it makes of a request."""

from __future__ import annotations

import difflib
import hashlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, model_validator

from forethought.data.evolve import Operator, load_operators, phrase, sentence
from forethought.errors import ConfigError
from forethought.models.conversation import Conversation
from forethought.policy import Policy, default_policy
from forethought.reasoning import Format
from forethought.records import Message, Record, Request
from forethought.yamlfile import parse_yaml

Kind = Literal["none", "linguistic", "contextual", "encoding", "puzzle", "template", "reasoning", "rewriter"]
Form = Literal["rule", "table", "template", "operator", "attacker", "prefill", "limit"]
"""How the text is made: a rule of ours, a table of signs or words, a text around the request, a training operator
(rule and template), an attacker model, words put into the model's mouth, or a limit on its thought."""
Need = Literal["attacker", "prefill", "budget", "file"]
Option = str | int | float
Options = Mapping[str, Option]
Named = TypeVar("Named")


class Attacked(Record):
    """A conversation under attack, as it is put to the attacked model."""

    request: Request
    """Its last turn is the disguised one; it remembers what is really asked."""
    prefill: str = ""
    """Text of the assistant's turn from which the model goes on, thought markers included. Empty: it starts itself."""
    think_budget: int | None = None
    """Tokens of thought after which the thought is cut; None is the run's own budget."""
    lineage: tuple[str, ...] = ()
    """The attacks applied, in order, each with its options."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation up to the turn of the attacked model."""
        return self.request.messages

    @property
    def conversation(self) -> Conversation:
        """As a model is given it."""
        return Conversation(messages=self.messages, prefill=self.prefill, think_budget=self.think_budget)

    @property
    def text(self) -> str:
        """The last user turn."""
        return self.request.text

    @property
    def id(self) -> str:
        """Content id, 12 hexadecimal digits, of all that the model is given."""
        if not self.prefill and self.think_budget is None:
            return self.request.id
        joined = f"{self.request.id}\x1d{self.prefill}\x1d{self.think_budget}"
        return hashlib.sha256(joined.encode()).hexdigest()[:12]

    def said(self, text: str) -> Attacked:
        """The same with another last user turn."""
        return self.model_copy(update={"request": self.request.restyled(text, " | ".join(self.lineage))})

    def after(self, turns: tuple[Message, ...]) -> Attacked:
        """The same with further turns put right before the last one."""
        earlier, last = self.request.messages[:-1], self.request.messages[-1]
        return self.model_copy(
            update={"request": self.request.model_copy(update={"messages": (*earlier, *turns, last)})}
        )

    def opened(self, text: str) -> Attacked:
        """The same with more text put into the assistant's mouth, after what stands there already."""
        return self.model_copy(update={"prefill": self.prefill + text})


class Wanted(Record):
    """A text that an attacker model has to write before an attack can go on."""

    key: str
    """Hash of what is asked: the same text is asked for once."""
    rewriter: str
    messages: tuple[Message, ...]
    max_tokens: int
    original: str
    """What is rewritten; an answer is read against it."""
    changes_words: bool = True
    """False where the same words may come back."""


@dataclass(frozen=True)
class Given:
    """What an attack may use besides the conversation."""

    policy: Policy = field(default_factory=default_policy)
    """The policy that the attacked model was trained on, where one is known."""
    format: Format = "think"
    """How the attacked model writes its thought."""
    rewrites: Mapping[str, str] = field(default_factory=dict)
    """Texts of the attacker model by `Wanted.key`."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Local files by the attack that reads them: `templates`, `persuasion`."""
    others: Mapping[str, str] = field(default_factory=dict)
    """What a message that holds two texts holds beside a request, by what is really asked: its twin, where it has one.
    Others stand beside a harmless task, so that their words tell them apart."""


Transform = Callable[[Attacked, random.Random, Options, Given], "Attacked | Wanted"]
Change = Callable[[str, random.Random, Options], str]
Solver = Callable[[Sequence[Message], Options], tuple[str, ...]]
"""From a conversation alone to what it asks, the last of its steps."""


class Parameter(Record):
    """An option of an attack."""

    name: str
    meaning: str
    default: Option | None = None
    """None: it has to be given."""
    choices: tuple[Option, ...] = ()
    least: float = 0
    """Smallest number, for options that are numbers."""
    most: float = 100_000

    def read(self, attack: str, value: Option) -> Option:
        """The value, checked. Raises ConfigError."""
        place = f"attack '{attack}', {self.name} '{value}'"
        if isinstance(self.default, int | float):
            whole = isinstance(self.default, int)
            try:
                number = int(str(value)) if whole else float(value)
            except ValueError:
                kind = "a whole number" if whole else "a number"
                raise ConfigError(place, f"is not {kind}", f"It is {self.meaning}") from None
            if not self.least <= number <= self.most:
                raise ConfigError(place, "is out of range", f"Use {self.least:.12g} to {self.most:.12g}")
            value = number
        if self.choices and value not in self.choices:
            raise ConfigError(place, "is not one of its choices", f"Use one of {', '.join(map(str, self.choices))}")
        return value


def find(kind: str, name: str, known: Mapping[str, Named]) -> Named:
    """What has a name; `kind`, such as "attack", is for the error. Raises ConfigError that names the nearest ones."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or list(known)[:5]
        raise ConfigError(
            f"{kind} '{name}'", f"there is no such {kind}", f"Use {', '.join(near)} or another of docs/attacks.md"
        )
    return known[name]


class Described(Record):
    """What suites name, with its options: an attack or a search."""

    noun: ClassVar[str]
    """For errors."""
    name: str
    """As suites write it: the bare name, or a name with options (`caesar:13`)."""
    title: str
    """For tables and plots."""
    paper: str
    """Whom it follows, with the arXiv number; the defaults of `parameters` are the paper's."""
    white_box: bool = False
    """True where it needs more than a chat window: the assistant's turn, control tokens, gradients or probabilities."""
    parameters: tuple[Parameter, ...] = ()
    """Options; the first one is what stands after the colon."""
    chosen: dict[str, Option] = Field(default_factory=dict)
    """Options given; those left out have their defaults."""

    @property
    def options(self) -> dict[str, Option]:
        """All options. Raises ConfigError where one has to be given and isn't."""
        found: dict[str, Option] = {}
        for parameter in self.parameters:
            value = self.chosen.get(parameter.name, parameter.default)
            if value is None:
                raise ConfigError(
                    f"{self.noun} '{self.name}'",
                    f"needs its {parameter.name} ({parameter.meaning})",
                    f"Write {self.name}:{parameter.choices[0] if parameter.choices else parameter.name.upper()}",
                )
            found[parameter.name] = value
        return found

    def with_options(self, written: str, extra: Mapping[str, Option] | None = None) -> Self:
        """The same with options, which its name and title tell where they differ from the defaults.

        `written`: what stands behind the colon of a name, VALUE (the first option) or `option=value`, parted by
        commas. `extra`: options given beside it. Raises ConfigError for an option that is unknown, given twice or left
        out though it has no default, and for a value out of range.
        """
        chosen = self._read(written.strip(), extra or {})
        found = self.model_copy(update={"chosen": chosen})
        _ = found.options  # raises where one is missing
        if not chosen:
            return self
        title = f"{self.title} ({', '.join(str(value) for value in chosen.values())})"
        return found.model_copy(update={"name": f"{self.name}:{self._said(chosen)}", "title": title})

    def _said(self, chosen: Mapping[str, Option]) -> str:
        return ",".join(f"{option}={value}" for option, value in chosen.items())

    def _read(self, written: str, extra: Mapping[str, Option]) -> dict[str, Option]:
        """Options that differ from their defaults, checked, in the order of the parameters."""
        raw: dict[str, Option] = dict(extra)
        known = {parameter.name: parameter for parameter in self.parameters}
        first = self.parameters[0] if self.parameters else None
        # `answer_prefill:x = y` is a value, not an option, where the first option is any text.
        takes_text = first is not None and isinstance(first.default, str | None) and not first.choices
        for piece in [piece.strip() for piece in written.split(",")] if written else []:
            option, equals, value = (part.strip() for part in piece.partition("="))
            if not equals or (option not in known and takes_text):
                option, value = (first.name if first is not None else ""), piece
            if option in raw:
                raise ConfigError(f"{self.noun} '{self.name}:{written}'", f"gives {option} twice", "Give it once")
            raw[option] = value
        unknown = [option for option in raw if option not in known]
        if unknown:
            takes = f"It takes {', '.join(known)}" if known else "It takes no options"
            raise ConfigError(f"{self.noun} '{self.name}'", f"has no option '{unknown[0] or written}'", takes)
        read = {option: known[option].read(self.name, raw[option]) for option in known if option in raw}
        return {option: value for option, value in read.items() if value != known[option].default}


def _unchanged(attacked: Attacked, rng: random.Random, options: Options, given: Given) -> Attacked:
    return attacked


class Attack(Described):
    """A disguise under which a defence is tested. Several joined by ` | ` are one attack, too."""

    noun: ClassVar[str] = "attack"
    kind: Kind = "none"
    form: Form = "template"
    needs: tuple[Need, ...] = ()
    """An attacker model, a model that takes a prefill, one whose thought can be cut, a local file; empty: nothing."""
    readable: bool = True
    """False where a small model is not expected to understand it; a guess, which the comprehension control measures."""
    relatives: tuple[str, ...] = ()
    """Training styles so near that a model which has seen one has seen this attack; it is shown apart then."""
    relatives_by: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Further relatives, by the value of the first option."""
    parts: tuple[Attack, ...] = ()
    """The attacks that it is composed of, in order."""
    work: tuple[str, ...] = ()
    """What has to be done to see through it, in a word each: a model that was trained on other disguises of one of
    these kinds has seen it. Empty where one look is enough, or nobody said."""
    k_by: dict[str, int] = Field(default_factory=dict)
    """`k` by the value of the first option, where no option is called so."""
    of_two: bool = False
    """Whether its message holds another text beside the one that is asked (`Given.others`)."""
    transform: Transform = _unchanged
    solver: Solver | None = None

    @model_validator(mode="after")
    def _says_its_kind(self) -> Self:
        """One that is of no kind changes nothing: an attack that does is not taken for that by oversight."""
        if self.kind == "none" and self.transform is not _unchanged:
            raise ValueError("say what kind it is: it changes the request")
        return self

    def with_options(self, written: str, extra: Mapping[str, Option] | None = None) -> Self:
        """See Described; what is near to it may depend on its first option."""
        found = super().with_options(written, extra)
        first = found.chosen.get(self.parameters[0].name, "") if found.chosen else ""
        near = self.relatives_by.get(str(first), ())
        return found.model_copy(update={"relatives": (*self.relatives, *near)}) if near else found

    def _said(self, chosen: Mapping[str, Option]) -> str:
        first = self.parameters[0].name
        return ",".join(str(value) if name == first else f"{name}={value}" for name, value in chosen.items())

    def apply(self, attacked: Attacked, rng: random.Random, given: Given) -> Attacked | Wanted:
        """The conversation under this attack, or the text that an attacker model has to write first.

        Pure: what comes out depends on the arguments alone. Raises ConfigError for an option that is missing and
        InputError for a local file that can't be read.
        """
        if self.kind == "none":
            return attacked
        for part in self.parts:
            outcome = part.apply(attacked, rng, given)
            if isinstance(outcome, Wanted):
                return outcome
            attacked = outcome
        if self.parts:
            return attacked
        outcome = self.transform(attacked, rng, self.options, given)
        if isinstance(outcome, Wanted):
            return outcome
        lineage = (*attacked.lineage, self.name)
        request = outcome.request.restyled(outcome.text, " | ".join(lineage))
        return outcome.model_copy(update={"request": request, "lineage": lineage})

    @property
    def k(self) -> int | None:
        """How many steps of work lie between its message and what is asked; None where that isn't graded."""
        if self.kind == "none":
            return 0
        if self.parts:
            known = [part.k for part in self.parts]
            return None if None in known else sum(one for one in known if one is not None)
        if "k" in self.options:
            return int(self.options["k"])
        return self.k_by.get(str(self.options[self.parameters[0].name])) if self.k_by else None

    def solve(self, messages: Sequence[Message]) -> tuple[str, ...] | None:
        """Its inverse: the steps from a conversation alone to what is asked under the disguise, which is the last of
        them; equal to it but for white space and, where a disguise loses them, capitals. None where nobody wrote it, or
        where too much is lost to be sure."""
        steps: tuple[str, ...] = ()
        for part in reversed(self.parts or (self,)):
            if part.solver is None:
                return None
            steps += part.solver(messages, part.options)
            messages = (Message(role="user", content=steps[-1]),)
        return steps


def by_rule(rule: Change) -> Transform:
    """An attack that changes the last user turn by a rule on its text."""
    return lambda attacked, rng, options, given: attacked.said(rule(attacked.text.strip(), rng, options))


_PLACE = re.compile(r"\{([a-z_]+)\}")  # not the braces of code or of JSON that a text shows


def fill(template: str, values: Mapping[str, Any]) -> str:
    """The template with each `{name}` replaced, once: what stands in a value is never read as a place.

    Raises ConfigError for a place that has no value.
    """

    def value(place: re.Match[str]) -> str:
        if place[1] not in values:
            raise ConfigError(f"'{place[0]}' in a prompt", "has no value", f"Use {', '.join(sorted(values))}")
        return str(values[place[1]])

    return _PLACE.sub(value, template)


def framed(template: str, text: str, **values: Any) -> str:
    """The template with the request in it: `{request}` as a sentence, `{phrase}` in lower case, no end mark."""
    return fill(template, {"request": sentence(text), "phrase": phrase(text), **values})


@lru_cache(maxsize=1)
def shipped_operators() -> dict[str, Operator]:
    """The training operators that ship with the project, by name."""
    return load_operators()


class Family(Record):
    """A YAML file beside the code of a family of attacks or of a search: what they are, their texts and tables."""

    attacks: tuple[dict[str, Any], ...] = ()
    """Fields of `Attack`. `template` (a text around the request, with places for its options) or `operator` (a training
    style's name) says what it does; without either the family's code has a function of its name."""
    searches: tuple[dict[str, Any], ...] = ()
    """Fields of `Method`; options under `more` come behind the others."""
    parameters: tuple[dict[str, Any], ...] = ()
    """Options that several of them have."""
    texts: dict[str, str] = Field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @staticmethod
    @lru_cache(maxsize=32)
    def read(name: str) -> Family:
        """The shipped file of a name. Raises ConfigError where it is broken."""
        file = resources.files("forethought").joinpath(f"attacks/{name}.yaml")
        text = file.read_text(encoding="utf-8")
        return parse_yaml(text, f"attacks/{name}.yaml", "file of attacks", Family, "attacks", "docs/attacks.md")

    def made(self, functions: Mapping[str, Transform], solvers: Mapping[str, Solver] = {}) -> list[Attack]:
        """The attacks, each with its function, and with the way back where there is one."""
        made = []
        for row in self.attacks:
            fields = {key: value for key, value in row.items() if key not in ("template", "operator")}
            if "template" in row:
                fields["transform"] = by_rule(partial(_from_template, row["template"]))
            elif "operator" in row:
                fields["transform"] = partial(_by_operator, row["operator"])
            else:
                fields["transform"] = functions[row["name"]]
            fields["solver"] = solvers.get(row["name"])
            made.append(Attack(**fields))
        return made


def read_back(rule: Callable[[str, Options], str]) -> Solver:
    """The way back of an attack that changed the last user turn by a rule on its text."""
    return lambda messages, options: (rule(messages[-1].content, options),)


def _from_template(template: str, text: str, rng: random.Random, options: Options) -> str:
    return framed(template, text, **options)


def _by_operator(name: str, attacked: Attacked, rng: random.Random, options: Options, given: Given) -> Attacked:
    """An attack that is one of the training operators: its rule and templates."""
    return attacked.said(shipped_operators()[name].apply(attacked.request, rng).text)
