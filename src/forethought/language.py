"""The languages that thoughts and refusals are written in: a file each in `languages/`, found by looking.

A file holds what a person who writes that language would say: how a thought states what is asked and how it ends,
whole sentences that a refusal is made of, and the default policy's rules. Sentences are put side by side and never
bent to fit one another, so that no language's grammar has to be known here. The tags that machines read (`Intent:`,
`Verdict: refuse`, rule ids, yes and no) are the same in all.
"""

from __future__ import annotations

import random
import re
from functools import lru_cache
from importlib import resources

from pydantic import BaseModel, ConfigDict, Field

from forethought.errors import ConfigError
from forethought.policy import Rule, default_policy
from forethought.yamlfile import parse_yaml

SHIPPED = resources.files("forethought").joinpath("languages")
ENGLISH = "en"


class _Texts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RuleTexts(_Texts):
    """A rule of the default policy in one language."""

    title: str
    reason: str
    """Why it is declined, as a clause that stands behind a colon."""
    declines: tuple[str, ...] = ()
    """Sentences that decline and name the subject; none: the language's own."""
    offers: tuple[str, ...] = ()
    """Sentences that offer something that the rule allows; none: the language's own."""
    examples: tuple[str, ...] = ()
    """What requests that break it are about, in a few words each: a classifier learns from them."""


class Language(_Texts):
    """What is said in one language. Placeholders: `{title}`, `{id}` and `{alternative}` of the rule, `{intent}`."""

    code: str = Field(pattern=r"^[a-z]{2,3}$")
    """ISO 639."""
    name: str
    """As its speakers call it."""
    complies: tuple[str, ...] = Field(min_length=1)
    """Sentences that end a thought which finds no rule broken."""
    declines: tuple[str, ...] = Field(min_length=1)
    """Sentences that open a refusal, where a rule has none of its own."""
    names: tuple[str, ...] = Field(min_length=1)
    """Sentences that name the rule."""
    offers: tuple[str, ...] = Field(min_length=1)
    """Sentences that offer something allowed, where a rule has none of its own."""
    support: tuple[str, ...] = Field(min_length=1)
    """Warm sentences that open the answer where a rule asks for support."""
    help: tuple[str, ...] = ()
    """Sentences that say where to find help, by country where known; they end such an answer."""
    rules: dict[str, RuleTexts] = {}
    """The default policy's rules by id."""

    def rule(self, rule: Rule) -> RuleTexts:
        """The rule in this language; a rule of another policy has the texts that it was written with."""
        if rule.id in self.rules and _default_titles().get(rule.id) == rule.title:
            return self.rules[rule.id]
        return RuleTexts(title=rule.title, reason=rule.reason)

    def refusal(self, rule: Rule, intent: str, seed: str) -> str:
        """A refusal by the rule: it declines, names the rule and offers what can be done; wording varies by seed."""
        rng, texts = random.Random(seed), self.rule(rule)
        parts = [
            rng.choice(said) for said in (texts.declines or self.declines, self.names, texts.offers or self.offers)
        ]
        if rule.support:
            parts = [rng.choice(self.support), *parts, *([rng.choice(self.help)] if self.help else [])]
        filled = {"intent": intent, "id": rule.id, "title": texts.title, "alternative": rule.alternative}
        # One pass of plain replacement: braces in a request must not be read as a format.
        return re.sub(r"\{(\w+)\}", lambda match: filled[match[1]], " ".join(parts))


@lru_cache(maxsize=1)
def _default_titles() -> dict[str, str]:
    return {rule.id: rule.title for rule in default_policy().rules}


@lru_cache(maxsize=1)
def languages() -> dict[str, Language]:
    """The languages that are served, by ISO 639 code."""
    found = {}
    for entry in sorted(SHIPPED.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".yaml"):
            text = entry.read_text(encoding="utf-8")
            one = parse_yaml(text, f"language {entry.name}", "language", Language, "its sentences", "docs/languages.md")
            found[one.code] = one
    return found


def language(code: str) -> Language:
    """The language with this code. Raises ConfigError where it is not served."""
    found = languages().get(code)
    if found is None:
        raise ConfigError(f"language '{code}'", "is not served", f"Use one of {', '.join(languages())}")
    return found
