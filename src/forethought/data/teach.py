"""Lessons (what a teacher wrote about one request) to training rows, checked; and the rule teacher, which needs no LLM.

The rule teacher renders reasoning and refusals from labels. The intent always states what is
really asked, also when the request is disguised. Refusals are specific to the request, name rule
id and title, and offer what can be done instead; where the policy asks for support (self-harm),
the answer is support. It writes harmless look-alikes, too. Every row is checked before it is
trained on; each dropped row keeps its cause.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Sequence

from pydantic import Field

from forethought.errors import ConfigError
from forethought.language import ENGLISH, language, language_of, languages, speaks
from forethought.policy import Policy
from forethought.reasoning import Decision, Detail, Finding, Format, SafetyReasoning, leak, parse, render
from forethought.records import Example, Record, Request, user_request
from forethought.refusal import outcome_in
from forethought.yamlfile import shipped_yaml

INTENT_WORDS = 15
"""Longest intent, in words: enough to say what is asked, short enough to stay cheap."""
_HOW = re.compile(
    r"(?i)^(?:so |and |ok |okay |please |hey |hi )*(?:how (?:do|can|could|would|should|might|does|did|to)"
    r"(?: (?:i|you|one|we|someone|somebody|people|a person))?(?: (?:best|go about))?|"
    r"(?:can|could|would) you (?:please )?(?:tell|show|teach|explain to) me how to|"
    r"i (?:want|need|would like|'d like) to (?:know|learn) how to|"
    r"what(?:'s| is| are) (?:the |some )?(?:best |good )?ways? to)\s+(?P<rest>.+)$"
)
_ASK = re.compile(r"(?i)^(?:can|could|would|will) you (?:please )?(?P<rest>.+)$")
_WANT = re.compile(r"(?i)^i(?:'d| would)? (?:want|need|like) (?:you )?to (?P<rest>.+)$")
_QUESTION = re.compile(
    r"(?i)^(?:what|why|when|where|which|who|whom|whose|how|is|are|was|were|do|does|did|can|could|should|would|will|has|have|if)\b"
)


class Lesson(Record):
    """Reasoning, answer and restyled forms of one undisguised request.

    One lesson serves every row of its seed: the original and its variants.
    """

    request_id: str
    """`Request.id` of the undisguised request."""
    intent: str
    """What is really asked, as a verb phrase."""
    findings: tuple[Finding, ...] = ()
    """Rules that are broken, each with a reason for this request."""
    verdict: Decision
    deliberation: str = ""
    """Free reasoning between intent and verdict, where a dataset brings its own; empty else."""
    answer: str = ""
    """The refusal; empty for harmless requests, which the target model answers itself."""
    variants: dict[str, str] = Field(default_factory=dict)
    """Restyled text by operator name."""
    twin: str = ""
    """A harmless request that looks like this harmful one; empty when the teacher wrote none."""

    @property
    def reasoning(self) -> SafetyReasoning:
        """The thought that it teaches."""
        return SafetyReasoning(
            intent=self.intent, findings=self.findings, deliberation=self.deliberation, verdict=self.verdict
        )

    def row(self, request: Request) -> Example:
        """The training row of the request itself."""
        reasoning = self.reasoning.model_copy(update={"language": stated(request.plain)[1]})
        return Example(request=request, reasoning=reasoning, answer=self.answer, answer_complete=bool(self.answer))


def intent_of(text: str) -> str:
    """What a request asks, as a verb phrase of at most INTENT_WORDS words: `learn how to ...`."""
    # The sentence that asks: the last question, else the first sentence.
    flat = " ".join(text.split())
    sentences = [part.strip() for part in re.split(r"(?<=[.?!])\s+", flat) if part.strip()] or [flat]
    core = next((part for part in reversed(sentences) if part.endswith("?")), sentences[0])
    core = core.strip(" \"'").rstrip(".?!")
    if match := _HOW.match(core):
        said = f"learn how to {match['rest']}"
    elif match := _ASK.match(core) or _WANT.match(core):
        said = match["rest"]
    elif _QUESTION.match(core):
        said = f"ask {core}"
    else:
        said = re.sub(r"(?i)^please\s+", "", core)
    words = said.split()
    cut = " ".join(words[:INTENT_WORDS]).rstrip(",;:")
    first, _, rest = cut.partition(" ")
    lowered = first if first.isupper() and len(first) > 1 else first[:1].lower() + first[1:]
    if first == "ask":
        head, _, tail = rest.partition(" ")
        rest = f"{head.lower()} {tail}".strip() if not head.isupper() or len(head) == 1 else rest
    return f"{lowered} {rest}".strip()


def stated(text: str) -> tuple[str, str]:
    """(what a request asks, the language it is stated in): its own, or English where that is not served."""
    code = language_of(text)
    if code == ENGLISH or code not in languages():
        return intent_of(text), ENGLISH
    return language(code).intent(text), code


def reason_about(request: Request, policy: Policy, lesson: Lesson | None = None) -> SafetyReasoning:
    """The reasoning for a request whose label and rules are known: the lesson's where there is one.

    Raises ConfigError when it names a rule that the policy does not have.
    """
    intent, code = stated(request.plain)
    if lesson is not None:
        return lesson.reasoning.model_copy(update={"language": code})
    if not request.harmful:
        return SafetyReasoning(intent=intent, verdict="comply", language=code)
    if not request.rules:
        fix = "Build from its source, which assigns rules; or name them in `rules`"
        raise ConfigError(f"request {request.id}", "is harmful and has no rule", fix)
    rules = [policy.rule(rule_id) for rule_id in request.rules[:2]]
    words = language(code)
    findings = tuple(Finding(rule=rule.id, violated=True, reason=words.rule(rule).reason) for rule in rules)
    return SafetyReasoning(intent=intent, findings=findings, verdict="refuse", language=code)


def refusal_for(reasoning: SafetyReasoning, policy: Policy, seed: int, about: str = "") -> str:
    """A refusal that names the first rule broken and offers an alternative; wording varies with the seed.

    `about` is the undisguised request, which chooses its subject; the stated intent does where it is not known.
    """
    rule = policy.rule(reasoning.violated[0])
    about = about or reasoning.intent
    return language(reasoning.language).refusal(rule, about, f"{seed}:refusal:{about}")


class Answer(Record):
    """An answer to a harmless request."""

    text: str
    complete: bool
    """False where it was cut at a length: no end token is taught then."""


def teach(
    request: Request,
    policy: Policy,
    seed: int,
    answer: Answer | None = None,
    thought_only: bool = False,
    lesson: Lesson | None = None,
) -> Example:
    """A training row for a labelled request.

    `answer` is for harmless requests: the target model's own, or the dataset's. Without one,
    and with `thought_only`, the row teaches the thought alone: cheaper, and the model's way
    of answering stays as it is. A `lesson` brings the reasoning and the refusal; else rules
    write both.
    """
    reasoning = reason_about(request, policy, lesson)
    refuses = reasoning.verdict == "refuse"
    if thought_only or (not refuses and answer is None):
        return Example(request=request, reasoning=reasoning, answer="", answer_complete=False)
    if refuses:
        written = lesson.answer if lesson is not None else ""
        answered = written or refusal_for(reasoning, policy, seed, request.plain)
        return Example(request=request, reasoning=reasoning, answer=answered)
    assert answer is not None
    return Example(request=request, reasoning=reasoning, answer=answer.text, answer_complete=answer.complete)


# Checks on every training row before it is trained on.

MAX_REQUEST_CHARACTERS = 4000
MAX_REASONING_CHARACTERS = 8000
"""Room for a dataset's own deliberation; rendered reasoning takes a tenth of it."""
MAX_ANSWER_CHARACTERS = 6000
MAX_INTENT_WORDS = 40

SUPPORT = re.compile(
    r"(?i)\b(?:crisis|hotline|helpline|lifeline|talk(?:ing)? (?:to|with)|reach(?:ing)? out|someone (?:you trust|close)"
    r"|doctor|therapist|counsell?or|professional|emergency|not alone|friend|family)\b"
)
"""Help to seek: what a supportive refusal names. In English; other languages have their own words."""


def names_help(answer: str, code: str) -> bool:
    """Whether an answer names people or places to turn to, as far as its language is known."""
    words = languages().get(code)
    return words is None or re.search(words.helps or SUPPORT.pattern, answer, re.IGNORECASE) is not None


class Dropped(Record):
    """A row that must not be trained on, and why."""

    example: Example
    cause: str


def fault(example: Example, policy: Policy, fmt: Format, detail: Detail) -> str | None:
    """Why a row must not be trained on, or None when it may."""
    return (
        _plain_fault(example, policy)
        or _text_fault(example, policy, fmt, detail)
        or _language_fault(example)
        or _answer_fault(example, policy)
    )


def _plain_fault(example: Example, policy: Policy) -> str | None:
    """Whether label and rules agree, and whether it is short enough."""
    reasoning, request = example.reasoning, example.request
    if request.harmful is None:
        return "the request has no label"
    if (reasoning.verdict == "refuse") != request.harmful:
        return "the verdict contradicts the label"
    if not reasoning.intent.strip(" ."):
        return "the reasoning states no intent"
    if any(rule not in policy.rule_ids for rule in reasoning.violated):
        return "the reasoning cites a rule that the policy does not have"
    if request.rules and not set(reasoning.violated) <= set(request.rules):
        return "the reasoning cites a rule that does not apply"
    if reasoning.verdict == "refuse" and not reasoning.violated:
        return "the refusal names no rule"
    if len(example.request.text) > MAX_REQUEST_CHARACTERS:
        return "the request is too long"
    if len(example.reasoning.intent.split()) > MAX_INTENT_WORDS:
        return "the intent is too long"
    if len(example.answer) > MAX_ANSWER_CHARACTERS:
        return "the answer is too long"
    return None


def _text_fault(example: Example, policy: Policy, fmt: Format, detail: Detail) -> str | None:
    reasoning = example.reasoning
    thought = render(reasoning, policy, fmt, detail)
    if len(thought) > MAX_REASONING_CHARACTERS:
        return "the reasoning is too long"
    known = f"{example.request.text}\n{example.request.plain}"
    if example.request.harmful and (kind := leak(thought, known)):
        return f"the reasoning leaks detail ({kind})"
    parsed = parse(thought + example.answer, policy)
    if parsed.reasoning is None:
        return f"the reasoning does not parse back ({parsed.cause})"
    if parsed.reasoning.verdict != reasoning.verdict or set(parsed.reasoning.violated) != set(reasoning.violated):
        return "the reasoning parses back to something else"
    if parsed.answer != example.answer.strip():
        return "there is reasoning in the answer"
    return None


def _language_fault(example: Example) -> str | None:
    """Whether request, thought and refusal are in one language. Harmless answers may be in any: some translate."""
    request, reasoning = example.request, example.reasoning
    code = language_of(request.plain)
    if code != ENGLISH and request.operator is not None and not speaks(request.text, code):
        return "the request is restyled in another language"
    if reasoning.language != (code if code in languages() else ENGLISH):
        return "the thought is in another language than the request"
    if code != ENGLISH:  # English stands in for doubt, so that a short English thought may look like anything
        said = [reasoning.intent, *(finding.reason for finding in reasoning.findings if finding.violated)]
        if not all(speaks(text, code) for text in said):
            return "the thought is in another language than the request"
    if reasoning.verdict == "refuse" and not speaks(example.answer, code):
        return "the refusal is in another language than the request"
    return None


def _answer_fault(example: Example, policy: Policy) -> str | None:
    reasoning, answer = example.reasoning, example.answer
    if not answer:
        return "the answer is empty" if example.answer_complete else None
    code = language_of(example.request.plain)
    words = languages().get(code)
    outcome, cause = outcome_in(code, answer)
    if outcome is None:
        return f"the answer can't be judged ({cause})"
    if reasoning.verdict == "comply":
        return "the harmless request is refused" if outcome == "refused" else None
    if words is None:
        return None  # the phrases that refuse and support are not known; the rest was checked all the same
    if outcome != "refused":
        return "the refusal does not refuse"
    broken = [policy.rule(rule) for rule in reasoning.violated]
    if not any(words.rule(r).title.lower() in answer.lower() or re.search(rf"\b{r.id}\b", answer) for r in broken):
        return "the refusal does not say which rule"
    if broken[0].support and not names_help(answer, code):
        return "the refusal offers no support"
    return None


def verify(
    examples: Iterable[Example], policy: Policy, fmt: Format = "think", detail: Detail = "short"
) -> tuple[list[Example], list[Dropped]]:
    """(rows that pass, rows dropped with their causes)."""
    judged = [(example, fault(example, policy, fmt, detail)) for example in examples]
    dropped = [Dropped(example=example, cause=cause) for example, cause in judged if cause is not None]
    return [example for example, cause in judged if cause is None], dropped


# Harmless look-alikes of harmful requests, by rule, for sets that have none.
#
# A model trained on harmful requests and on ordinary ones learns to refuse words. A twin
# shares the words and asks for protection, law, history, ethics or help instead: never
# how the thing is done. Both rows get the same `twin`, so that they wear the same disguise.


class _TwinWords(Record):
    """What `twins.yaml` holds."""

    patterns: tuple[str, ...]
    support_patterns: tuple[str, ...]
    persons: dict[str, tuple[str, ...]]
    """Word for a third person to the words for others that it stands for."""
    pointing: frozenset[str]
    not_a_verb: frozenset[str]


TWIN_WORDS = shipped_yaml("data/twins.yaml", _TwinWords)
_PERSONS = {word: third for third, words in TWIN_WORDS.persons.items() for word in words}
_HOW_TO = re.compile(r"(?i)^learn how to (?:best )?(?P<act>.+)$")
_TEXT_ABOUT = re.compile(
    r"(?i)^(?:write|create|develop|draft|compose|prepare|make|produce|give|provide|explain|describe|teach|tell|show|outline|"
    r"list|design|publish)\b[^,;]*?\bhow to (?P<act>.+)$"
)
_MAKES = re.compile(
    r"(?i)^(?P<act>(?:write|create|develop|draft|compose|make|produce|design|build|forge|spread|publish)\s.+)$"
)
_SELF_HARM = re.compile(
    r"(?i)\b(?:suicid\w*|self-harm\w*|themselves|their (?:own )?li(?:fe|ves)|anorexi\w*|bulimi\w*|pro-ana)\b"
)
_TO_ONESELF = re.compile(
    r"(?i)^(?!(?:write|create|develop|draft|compose|make|produce|design|spread|publish)\s(?:an?|the|some)\b)"
    r"(?!.*\b(?:someone|somebody|others|people|child|children|kids|teens|teenagers?)\b)"
)
"""Harm to oneself, not a text about it nor a push for others to do it."""
_OTHER_DOER = re.compile(
    r"(?i)\bhow (?:does|did)\b"
    r"|\bhow (?:do|can|could|would|should|might) (?!(?:i|you|one|we|someone|somebody|people|a person)\b)"
)
"""`How could a country ...`: its verb phrase would start with the doer."""
_FIRST_PERSON = re.compile(r"(?i)(?<![\w'])(?:I|me|we|us|you|I'm|I've|I'd|I'll|you're|we're)(?![\w'])")


def twin_of(request: Request, rng: random.Random) -> Request | None:
    """A harmless question that shares the words of a harmful request; the random source picks the pattern.

    None where the request isn't labelled harmful, has a twin already, is a conversation, or has
    no clean verb phrase (`teach.intent_of`): a twin that isn't grammatical teaches nothing.
    Source and family stay, so that a split never parts a pair.
    """
    if not request.harmful or request.twin or len(request.messages) > 1:
        return None
    act = _act(request.plain)
    if act is None:
        return None
    to_oneself = _SELF_HARM.search(act) and _TO_ONESELF.match(act)
    patterns = TWIN_WORDS.support_patterns if to_oneself else TWIN_WORDS.patterns
    return user_request(
        rng.choice(patterns).replace("{act}", act),
        harmful=False,
        kind="lookalike",
        source=request.source,
        family=request.family or twin_key(request),
        twin=twin_key(request),
    )


def with_twins(requests: Sequence[Request], share: float, seed: int) -> list[Request]:
    """The requests, and after a `share` (0 to 1) of the harmful ones without a twin a twin of theirs.

    Both get the same `twin` and `family`. Whether a request gets one depends on the seed and its content
    alone. Call it on one split at a time, or before a split by family: a pair must not be parted.
    """
    rows: list[Request] = []
    for request in requests:
        rng = random.Random(f"{seed}:twin:{request.id}")
        twin = twin_of(request, rng) if rng.random() < share else None
        if twin is None:
            rows.append(request)
        else:
            rows += [request.model_copy(update={"twin": twin.twin, "family": twin.family}), twin]
    return rows


def twin_key(request: Request) -> str:
    """What a request and its twin share: 12 hexadecimal digits of the undisguised text, as in the shipped pairs."""
    return hashlib.sha256(request.plain.encode()).hexdigest()[:12]


def _act(text: str) -> str | None:
    """The verb phrase of what is asked, done by a third person, or None where it isn't clean."""
    if _OTHER_DOER.search(text):
        return None
    intent = intent_of(text)
    if len(intent.split()) >= INTENT_WORDS:  # it may be cut in the middle
        return None
    found = _HOW_TO.match(intent) or _TEXT_ABOUT.match(intent) or _MAKES.match(intent)
    act = found["act"].strip().rstrip(".?!,;:") if found is not None else ""
    if not _clean(act):
        return None
    first, *rest = (_PERSONS.get(word.lower(), word) for word in act.split())
    return " ".join([first.lower(), *rest])


def _clean(act: str) -> bool:
    """Whether it reads as one verb phrase that stands on its own, without a doer and without pointing back."""
    words = act.lower().split()
    if len(words) < 2 or words[0] in TWIN_WORDS.not_a_verb or not words[0].isalpha():
        return False
    if re.search(r"[.?!\"\u201c\n:;()<>{}]|(?<!\w)['\u2018]", act) or _FIRST_PERSON.search(act) or "how" in words:
        return False
    # `use it` says nothing by itself; `invent a rumour and spread it` does.
    return words[1] not in TWIN_WORDS.pointing and not (len(words) <= 4 and TWIN_WORDS.pointing & set(words))
