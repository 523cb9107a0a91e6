"""The languages that thoughts and refusals are written in: a file each in `languages/`, found by looking.

A file holds what a person who writes that language would say: how a thought states what is asked and how it ends,
whole sentences that a refusal is made of, and the default policy's rules. Sentences are put side by side and never
bent to fit one another, so that no language's grammar has to be known here. The tags that machines read (`Intent:`,
`Verdict: refuse`, rule ids, yes and no) are the same in all.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter
from collections.abc import Collection
from functools import cache, lru_cache

from pydantic import BaseModel, ConfigDict, Field

from forethought.errors import ConfigError
from forethought.policy import Policy, Rule, default_policy
from forethought.yamlfile import parse_yaml, shipped_texts

ENGLISH, UNKNOWN = "en", "und"
"""ISO 639; the second for a text in a script that the detector isn't sure of."""
_INTENT_WORDS, _INTENT_CHARACTERS = 15, 120
_ENDS = " .?!\"'\u3002\uff0e\uff1f\uff01\u061f\u06d4\u0964\u00bf\u00a1\u201c\u201d\u00ab\u00bb"
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+|(?<=[\u3002\uff1f\uff01\u061f\u06d4\u0964])\s*")


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
    alternatives: tuple[str, ...] = Field(min_length=1)
    """What the rule allows instead, as it stands in `offers`."""
    subjects: tuple[Subject, ...] = ()
    """The first that fits a request counts."""
    words: tuple[str, ...] = ()
    """Beginnings of words that requests which break it hold, in lower case: by them a request's rule is told. One that
    begins with `*` may stand anywhere in a word."""


class Asked(_Texts):
    """A kind of question, and what it becomes as an intent."""

    pattern: str
    """A regular expression over the whole question, in any case; its group `rest` is what is asked for."""
    intent: str
    """With `{rest}`."""


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
    between: str = " "
    """What stands between two sentences."""
    inside: bool = False
    """Whether words are looked for inside others, too: nothing parts them, or others are joined to them."""
    complies: tuple[str, ...] = Field(min_length=1)
    """Sentences that end a thought which finds no rule broken."""
    subject: str
    """What stands for the subject under a rule that this language does not know: `this`."""
    alternatives: tuple[str, ...] = ()
    """What can be offered under such a rule; none: what its policy says."""
    asks: tuple[Asked, ...] = ()
    """Kinds of questions; the first that fits counts."""
    asked: str = "{request}"
    """The intent of every other request, with `{request}`."""
    reason: str = ""
    """Why a request is declined, where the rule's own reason is written in another language; as a clause."""
    declines: tuple[str, ...] = Field(min_length=1)
    """Sentences that open a refusal and name the subject."""
    names: tuple[str, ...] = Field(min_length=1)
    """Sentences that name the rule."""
    offers: tuple[str, ...] = Field(min_length=1)
    """Sentences that offer something allowed."""
    support: tuple[str, ...] = Field(min_length=1)
    """Warm sentences that open the answer where a rule asks for support."""
    support_declines: tuple[str, ...] = Field(min_length=1)
    """Sentences behind them, which decline and name the rule."""
    concern: tuple[str, ...] = Field(min_length=1)
    """Sentences for one who would hurt somebody else under such a rule."""
    help: tuple[Help, ...] = Field(min_length=1)
    """Where to find help: the first that fits counts, so that the one for all countries is the last."""
    refuses: str = ""
    """A regular expression for what opens a refusal; empty where `refusal.py` knows."""
    helps: str = ""
    """A regular expression for people and places to turn to; empty where `data/teach.py` knows."""
    rules: dict[str, RuleTexts] = {}
    """The default policy's rules by id."""

    def rule(self, rule: Rule) -> RuleTexts:
        """The rule in this language; a rule of another policy has the texts that it was written with."""
        texts, known = self.rules.get(rule.id), _default_rules().get(rule.id)
        understood = not self.alternatives or speaks(f"{rule.description} {rule.alternative}", self.code)
        offered = (_verb_phrase(rule.alternative),) if understood else self.alternatives
        if texts is None or known is None or known.title != rule.title:
            reason = rule.reason if not self.reason or speaks(rule.description, self.code) else self.reason
            return RuleTexts(title=rule.title, reason=reason, subject=self.subject, alternatives=offered)
        if known.alternative != rule.alternative:  # somebody's own words for a rule of ours
            return texts.model_copy(update={"alternatives": offered, "subjects": ()})
        return texts

    def intent(self, text: str) -> str:
        """What a request asks, as a thought of this language states it; a long one is cut."""
        flat = " ".join(text.split())
        sentences = [part.strip() for part in _SENTENCE_END.split(flat) if part.strip(_ENDS)] or [flat]
        core = next((part for part in reversed(sentences) if part[-1] in "?\uff1f\u061f"), sentences[0]).strip(_ENDS)
        said = " ".join(core.split()[:_INTENT_WORDS])[: _INTENT_CHARACTERS if self.between else _INTENT_CHARACTERS // 3]
        if len(said) < len(core):
            said = (said.rpartition(" ")[0] or said if self.between else said).rstrip(",;:\uff0c\u3001") + "\u2026"
        for asked in self.asks:
            if found := re.match(asked.pattern, said, re.IGNORECASE):
                return asked.intent.replace("{rest}", found["rest"])
        return self.asked.replace("{request}", said)

    def rules_of(self, text: str, policy: Policy, among: Collection[str]) -> tuple[str, ...]:
        """The rules among some of a policy's that its words speak of: one, or two if as many speak of each; else none.

        Each beginning of a word counts once, however often it stands there.
        """
        said = " ".join(text.lower().split())
        counts = {
            rule.id: sum(self._begins(word).search(said) is not None for word in self.rule(rule).words)
            for rule in policy.rules
            if rule.id in among
        }
        most = max(counts.values(), default=0)
        found = tuple(name for name, count in counts.items() if count == most) if most else ()
        return found if len(found) <= 2 else ()

    def _begins(self, word: str) -> re.Pattern[str]:
        anywhere = self.inside or word.startswith("*")
        return _compiled(("" if anywhere else r"(?<!\w)") + re.escape(word.removeprefix("*")))

    def seeks_support(self, rule: Rule, text: str) -> bool:
        """Whether a text speaks of its writer's own pain, under a rule that asks for support; False where unknown."""
        texts = self.rule(rule)
        own = (one for one in texts.subjects if one.subject == texts.subject)
        return rule.support and any(_holds(text, one.words) for one in own)

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
        return re.sub(
            r"\{(\w+)\}", lambda match: filled[match[1]], self.between.join(rng.choice(part) for part in said)
        )


def _verb_phrase(alternative: str) -> str:
    """A policy's own alternative as it stands behind `I can`: `Explain refunds.` and `I can explain refunds`, too."""
    bare = re.sub(r"(?i)^(?:instead,? )?(?:i|we|you) (?:can|could|may|will) ", "", alternative.strip()).rstrip(" .!")
    return bare[:1].lower() + bare[1:] if bare[1:2].islower() else bare


def _holds(text: str, words: tuple[str, ...]) -> bool:
    return _pattern(words).search(text.replace("\u2019", "'")) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


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
    for name, text in shipped_texts("languages").items():
        one = parse_yaml(text, f"language {name}", "language", Language, "its sentences", "docs/build.md")
        found[one.code] = one
    return found


def language(code: str) -> Language:
    """The language with this code. Raises ConfigError where it is not served."""
    found = languages().get(code)
    if found is None:
        raise ConfigError(f"language '{code}'", "is not served", f"Use one of {', '.join(languages())}")
    return found


# Which language is a text in?

_SURE, _CERTAIN = 10.0, 25.0
"""By how many nats another language has to beat English: in a text of `_FEW` words or more without English
function words, and in any text."""
_FEW = 3
# Words that other Latin-script languages don't share: `is`, `for`, `do`, `was` and `to` are words of some.
_ENGLISH = frozenset(
    {"the", "how", "what", "why", "and", "or", "you", "your", "of", "with", "that", "this", "are", "where", "when",
     "who", "should", "could", "would"}
)  # fmt: skip
# Nigerian Pidgin takes its words from English: what is said of one holds for the other here.
_AS_ENGLISH = frozenset({"en", "pcm"})
_READ = 600
"""Characters that are read of a text."""
_SCRIPTS: dict[str, tuple[str, ...]] = {
    "HANGUL": ("ko",), "THAI": ("th",), "GREEK": ("el",), "HEBREW": ("he", "yi"), "BENGALI": ("bn", "as"),
    "TAMIL": ("ta",), "TELUGU": ("te",), "GUJARATI": ("gu",), "KANNADA": ("kn",), "MALAYALAM": ("ml",),
    "GURMUKHI": ("pa",), "SINHALA": ("si",), "GEORGIAN": ("ka",), "ARMENIAN": ("hy",), "KHMER": ("km",), "LAO": ("lo",),
    "MYANMAR": ("my",), "ETHIOPIC": ("am", "ti"), "DEVANAGARI": ("hi", "mr", "ne"),
    "CYRILLIC": ("ru", "uk", "bg", "sr", "mk", "be", "kk", "ky", "mn", "tg", "tt"),
    "ARABIC": ("ar", "fa", "ur", "ps", "ug", "sd", "ku"),
}  # fmt: skip
"""The first word of a letter's Unicode name to the languages that are written so, the commonest first."""


@lru_cache(maxsize=65536)
def language_of(text: str) -> str:
    """ISO 639 code of the language that a text is in, or `und`.

    By its script where that tells, also of a few letters; else by py3langid (no network). What it isn't sure of counts
    as English when it is in Latin script: most sets are, and a short English question often looks like another
    language. Where a language that is served is hardly less likely than the likeliest, it is taken.
    """
    text = text[:_READ]
    if text.isascii() and len(_ENGLISH & set(re.findall(r"[a-z]+", text.lower()))) >= 2:
        return ENGLISH
    letters = [character for character in text if character.isalpha()]
    scripts = Counter(unicodedata.name(letter, "?").split()[0].partition("-")[0] for letter in letters)
    script = _by_script(text, scripts)
    if script is not None:
        return script
    scores = _scores(text)
    best = max((code for code in scores if code not in _AS_ENGLISH), key=lambda code: scores[code])
    near = max((code for code in languages() if code != ENGLISH), key=lambda code: scores.get(code, -1e9))
    if scores.get(near, -1e9) > scores[best] - _SURE / 2:
        best = near
    lead = scores[best] - scores[ENGLISH]
    words = re.findall(r"\w+", text.lower())
    if lead > _CERTAIN or (lead > _SURE and len(words) >= _FEW and not _ENGLISH & set(words)):
        return best
    return ENGLISH if 2 * scripts["LATIN"] >= len(letters) else UNKNOWN


def speaks(text: str, code: str) -> bool:
    """Whether a text may be in a language: it is found to be, or is in its script and no likelier English."""
    found = language_of(text)
    if code == found or not text.strip():
        return True
    if ENGLISH not in (code, found):
        return False
    scores = _scores(text)
    return found == ENGLISH and scores.get(code, -1e9) >= scores[ENGLISH]


def _by_script(text: str, scripts: Counter[str]) -> str | None:
    """The language that most of the letters tell; None where they are Latin, few, or of another script."""
    kana, han = scripts["HIRAGANA"] + scripts["KATAKANA"], scripts["CJK"]
    counts = scripts | Counter({"CJK": kana + han})
    top = max(counts, key=lambda name: counts[name], default="")
    if top == "CJK" or 2 * (kana + han) >= scripts.total():  # a letter of these says more than a Latin one
        return ("ja" if kana >= 0.1 * (kana + han) else "zh") if kana + han else None
    known = _SCRIPTS.get(top, ())
    if len(known) < 2:
        return known[0] if known else None
    if counts[top] < 2:
        return None
    scores = _scores(text)
    best = max(known, key=lambda code: scores.get(code, -1e9))
    return best if scores.get(best, -1e9) > scores.get(known[0], -1e9) + _SURE / 2 else known[0]


@lru_cache(maxsize=4096)
def _scores(text: str) -> dict[str, float]:
    """Log-likelihoods, in nats, by language."""
    import py3langid  # here: it takes longer to load than all else

    return {code: float(score) for code, score in py3langid.rank(text[:_READ])}
