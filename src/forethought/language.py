"""The languages that thoughts and refusals are written in: a file each in `languages/`, found by looking.

A file holds what a person who writes that language would say: how a thought states what is asked and how it ends,
whole sentences that a refusal is made of, and the default policy's rules. Sentences are put side by side and never
bent to fit one another, so that no language's grammar has to be known here. The tags that machines read (`Intent:`,
`Verdict: refuse`, rule ids, yes and no) are the same in all.
"""

from __future__ import annotations

import random
import re
from functools import cache, lru_cache
from importlib import resources

from pydantic import BaseModel, ConfigDict, Field

from forethought.errors import ConfigError
from forethought.policy import Rule, default_policy
from forethought.yamlfile import parse_yaml

SHIPPED = resources.files("forethought").joinpath("languages")
ENGLISH = "en"


class _Texts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Subject(_Texts):
    """What some requests under a rule are about, more closely than the rule says."""

    subject: str
    words: tuple[str, ...] = Field(min_length=1)
    """A request with one of them is about it; a word that ends in `*` stands for all that begin so."""
    alternatives: tuple[str, ...] = Field(min_length=1)
    to_others: bool = False
    """Where the rule asks for support: true where somebody else would be hurt, not the one who writes."""


class RuleTexts(_Texts):
    """A rule of the default policy in one language."""

    title: str
    reason: str
    """Why it is declined, as a clause that stands behind a colon."""
    subject: str
    """What a request that breaks it is about, as it stands in `declines`: no word is taken from the request."""
    alternatives: tuple[str, ...] = ()
    """What the rule allows instead, as it stands in `offers`; none: the language's own."""
    subjects: tuple[Subject, ...] = ()
    """The first that fits a request counts."""
    examples: tuple[str, ...] = ()
    """What requests that break it are about, in a few words each: a classifier learns from them."""


class Help(_Texts):
    """Where to find help in one country, or in any."""

    said: str
    """A sentence."""
    words: tuple[str, ...] = ()
    """A request with one of them names the country; none: it holds for every other request."""


class Language(_Texts):
    """What is said in one language. Placeholders: `{title}` and `{id}` of the rule, `{subject}`, `{alternative}`."""

    code: str = Field(pattern=r"^[a-z]{2,3}$")
    """ISO 639."""
    name: str
    """As its speakers call it."""
    complies: tuple[str, ...] = Field(min_length=1)
    """Sentences that end a thought which finds no rule broken."""
    subject: str
    """What stands for the subject under a rule that this language does not know: `this`."""
    alternatives: tuple[str, ...] = ()
    """What can be offered under such a rule; none: what its policy says."""
    declines: tuple[str, ...] = Field(min_length=1)
    """Sentences that open a refusal and name the subject."""
    names: tuple[str, ...] = Field(min_length=1)
    """Sentences that name the rule."""
    offers: tuple[str, ...] = Field(min_length=1)
    """Sentences that offer something allowed."""
    support: tuple[str, ...] = Field(min_length=1)
    """Warm sentences that open the answer where a rule asks for support."""
    support_declines: tuple[str, ...] = Field(min_length=1)
    """Sentences behind them, which decline, name the rule and say that there is help."""
    concern: tuple[str, ...] = Field(min_length=1)
    """Sentences for one who would hurt somebody else under such a rule."""
    help: tuple[Help, ...] = Field(min_length=1)
    """Where to find help: the first that fits counts, so that the one for all countries is the last."""
    rules: dict[str, RuleTexts] = {}
    """The default policy's rules by id."""

    def rule(self, rule: Rule) -> RuleTexts:
        """The rule in this language; a rule of another policy has the texts that it was written with."""
        texts, known = self.rules.get(rule.id), _default_rules().get(rule.id)
        offered = self.alternatives or (_verb_phrase(rule.alternative),)
        if texts is None or known is None or known.title != rule.title:
            return RuleTexts(title=rule.title, reason=rule.reason, subject=self.subject, alternatives=offered)
        if known.alternative != rule.alternative:  # somebody's own words for a rule of ours
            return texts.model_copy(update={"alternatives": offered, "subjects": ()})
        return texts

    def refusal(self, rule: Rule, about: str, seed: str) -> str:
        """A refusal by the rule: it declines, names the rule and offers what can be done; wording varies by seed.

        `about` is the request. It chooses the subject and the country of the help, and none of its words are repeated.
        """
        rng, texts = random.Random(seed), self.rule(rule)
        closer = next((one for one in texts.subjects if _holds(about, one.words)), None)
        said: tuple[tuple[str, ...], ...] = (self.declines, self.names, self.offers)
        if rule.support:
            lines = (next(one.said for one in self.help if not one.words or _holds(about, one.words)),)
            if closer is not None and closer.to_others:
                said = (self.declines, self.names, self.concern, lines, self.offers)
            else:
                said = (self.support, self.support_declines, lines, self.offers)
        filled = {
            "subject": closer.subject if closer is not None else texts.subject,
            "title": texts.title,
            "id": rule.id,
            "alternative": rng.choice(closer.alternatives if closer is not None else texts.alternatives),
        }
        # One pass of plain replacement: braces in a policy must not be read as a format.
        return re.sub(r"\{(\w+)\}", lambda match: filled[match[1]], " ".join(rng.choice(part) for part in said))


def _verb_phrase(alternative: str) -> str:
    """A policy's own alternative as it stands behind `I can`: `Explain refunds.` and `I can explain refunds`, too."""
    bare = re.sub(r"(?i)^(?:instead,? )?(?:i|we|you) (?:can|could|may|will) ", "", alternative.strip()).rstrip(" .!")
    return bare[:1].lower() + bare[1:] if bare[1:2].islower() else bare


def _holds(text: str, words: tuple[str, ...]) -> bool:
    return _pattern(words).search(text) is not None


@cache
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the words; where a script has no spaces, anywhere in the text."""
    return re.compile("|".join(map(_whole_word, words)), re.IGNORECASE)


def _whole_word(word: str) -> str:
    said = re.escape(word.removesuffix("*"))
    if re.search(r"[\u2e80-\u9fff]", word):
        return said
    return rf"(?<!\w){said}" if word.endswith("*") else rf"(?<!\w){said}(?!\w)"


@lru_cache(maxsize=1)
def _default_rules() -> dict[str, Rule]:
    return {rule.id: rule for rule in default_policy().rules}


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
