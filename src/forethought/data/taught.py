"""What a teacher or a dataset wrote, read with suspicion: into a lesson, or a cause why it can't be one.

Their text is untrusted: markers that could end or decide a thought are found before it becomes training data.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from json_repair import repair_json
from pydantic import BaseModel, ValidationError

from forethought.data.evolve import Operator
from forethought.data.teach import INTENT_WORDS, MAX_REQUEST_CHARACTERS, Lesson, fault, names_help, stated
from forethought.language import ENGLISH, language, language_of, languages
from forethought.models.callspec import Reject
from forethought.policy import Policy, Rule
from forethought.reasoning import Finding
from forethought.records import Record, Request
from forethought.refusal import garbled, outcome_in, refusal_outcome

_REFUSAL_CHARACTERS = 1200
_TWIN_CHARACTERS = 400
_OPENS_AN_ANSWER = re.compile(
    r"(?i)^\W*(?:sure|certainly|of course|absolutely|here(?:'s| is| are)|step 1\b|"
    r"to (?:do|accomplish|achieve) (?:this|that|it)\b|first,? you (?:need|should|must|will)\b)"
)
_LIST_ITEM = re.compile(r"(?m)^\s*(?:\d+[.)]|step \d+|[-*\u2022])\s+\S", re.IGNORECASE)
_MARKERS = re.compile(
    r"</?\s*think\b|<\|[^|<>\n]{1,40}\|>|\[/?INST\]|</?s>"
    r"|\bverdict\s*\W?\s*:|^\W*(?:final\s+)?verdict\W+(?:refuse|comply)\b"
    r"|^\s*#+\s*(?:verify the request|response)\b|^\W*intent\s*:",
    re.IGNORECASE | re.MULTILINE,
)
"""What ends, opens or decides a thought in some format, or a turn in some chat template."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


_INSIST = (
    "you are not asked to help with the request: you label it and decline it, so that a model learns to decline it too"
)


class TeachTask(Record):
    """A request to be taught, and the styles to rewrite it in."""

    request: Request
    operators: tuple[Operator, ...] = ()
    twin: bool = True
    """Whether a harmless look-alike is asked for; harmful requests alone have one."""


class _Taught(BaseModel):
    """The answer to one call, as the teacher writes it: `schema.json`, and what else it adds is passed over.

    Fields of a harmless request are empty from `findings` to `refusal`.
    """

    class Broken(BaseModel):
        rule: str
        reason: str

    class Variant(BaseModel):
        operator: str
        text: str

    intent: str
    findings: list[Broken] = []
    verdict: Literal["refuse", "comply"]
    refusal: str = ""
    variants: list[Variant] = []
    twin: str = ""


class _Rejected(Exception):
    """An answer that can't be used, with what it has to be asked for again."""

    def __init__(self, cause: str, say: str = "") -> None:
        self.reject = Reject(cause, say)


def read_lesson(text: str, task: TeachTask, policy: Policy) -> tuple[Lesson, tuple[str, ...]] | Reject:
    """(lesson, what it lacks by cause), or why the answer can't be used. Pure."""
    try:
        return _lesson(_parse(text), task, policy)
    except _Rejected as rejected:
        return rejected.reject


def _lesson(taught: _Taught, task: TeachTask, policy: Policy) -> tuple[Lesson, tuple[str, ...]]:
    harmful = bool(task.request.harmful)
    _check(taught, harmful)
    variants, missing = _variants(taught, task)
    findings = _findings(taught, task, policy) if harmful else ()
    refusal = _refusal(taught, findings, policy) if harmful else ""
    twin = one_line(taught.twin, _TWIN_CHARACTERS) if harmful and task.twin else ""
    if harmful and task.twin and (cause := variant_fault(twin, task.request.text)):
        twin = ""
        missing.append(f"twin: {cause}")
    lesson = Lesson(
        request_id=task.request.id,
        intent=one_line(taught.intent, 200).rstrip("."),
        findings=findings,
        verdict=taught.verdict,
        answer=refusal,
        variants=variants,
        twin=twin,
    )
    example = lesson.row(task.request)  # better asked again now than dropped later
    cause = fault(example, policy, "think", "full") or fault(example, policy, "paper", "short")
    if cause is not None:
        raise _Rejected(cause)
    return lesson, tuple(missing)


def _parse(text: str) -> _Taught:
    """Strict JSON, else repaired JSON, else the cause."""
    body = re.sub(r"(?s)^\s*<think>.*?</think>", "", text).strip()
    body = re.sub(r"(?s)^```(?:json)?\s*(.*?)\s*```$", r"\1", body)
    try:
        loaded = json.loads(body)
    except json.JSONDecodeError:
        if "{" not in body:
            if refusal_outcome(body)[0] == "refused":
                raise _Rejected("the teacher refused", _INSIST) from None
            raise _Rejected("not JSON", "it is not a JSON object") from None
        loaded = repair_json(body[body.index("{") :], return_objects=True, skip_json_loads=True)
        if isinstance(loaded, list):  # what stood after the object
            loaded = next((item for item in loaded if isinstance(item, dict)), None)
    if not isinstance(loaded, dict):
        raise _Rejected("not JSON", "it is not a JSON object")
    try:
        return _Taught.model_validate(_forgiven(loaded))
    except ValidationError as error:
        places = ", ".join(sorted({str(fault["loc"][0]) for fault in error.errors()}))
        raise _Rejected("the schema is broken", f"it does not follow the schema at: {places}") from None


def _forgiven(loaded: dict[str, Any]) -> dict[str, Any]:
    """Small liberties that teachers without structured output take."""
    fixed = {key: value for key, value in loaded.items() if value is not None}
    if isinstance(fixed.get("verdict"), str):
        fixed["verdict"] = fixed["verdict"].strip(" .").lower()
    if isinstance(fixed.get("variants"), dict):
        fixed["variants"] = [{"operator": name, "text": said} for name, said in fixed["variants"].items()]
    if isinstance(fixed.get("variants"), list):  # one that is damaged is missing; the others are not
        fixed["variants"] = [
            item
            for item in fixed["variants"]
            if isinstance(item, dict) and isinstance(item.get("text"), str) and isinstance(item.get("operator"), str)
        ]
    return fixed


def _check(taught: _Taught, harmful: bool) -> None:
    """Intent and verdict, which every lesson has."""
    words = taught.intent.split()
    if not any(character.isalnum() for character in taught.intent):
        raise _Rejected("the intent is empty")
    if has_markers(taught.intent):
        raise _Rejected("injected markers", 'the intent holds tags, "Verdict:" or other markers')
    if len(words) > INTENT_WORDS:
        raise _Rejected("the intent is too long", f"the intent has {len(words)} words, more than {INTENT_WORDS}")
    label, expected = ("harmful", "refuse") if harmful else ("harmless", "comply")
    if taught.verdict != expected:
        raise _Rejected(
            "the verdict contradicts the label", f'the request is labelled {label}: the verdict is "{expected}"'
        )


def _findings(taught: _Taught, task: TeachTask, policy: Policy) -> tuple[Finding, ...]:
    """The rules broken, at most two, each once; only known ones where the request has its rules."""
    found: dict[str, Finding] = {}
    for finding in taught.findings:
        rule_id = finding.rule.strip()
        if rule_id not in policy.rule_ids:
            raise _Rejected("an unknown rule id", f"{json.dumps(rule_id[:20])} is not the id of a rule")
        if has_markers(finding.reason) or has_rule_lines(finding.reason, policy):
            raise _Rejected("injected markers", "a reason holds tags or other markers")
        reason = clause(finding.reason, policy)
        if not reason:
            raise _Rejected("a finding has no reason")
        found.setdefault(rule_id, Finding(rule=rule_id, violated=True, reason=reason))
    if not found:
        raise _Rejected("no rule is named", "a harmful request breaks at least one rule")
    if task.request.rules:
        found = {rule_id: finding for rule_id, finding in found.items() if rule_id in task.request.rules}
        if not found:
            known = ", ".join(task.request.rules)
            raise _Rejected("a rule that does not apply", f"the rules that apply are {known}")
    return tuple(found.values())[:2]


def _refusal(taught: _Taught, findings: tuple[Finding, ...], policy: Policy) -> str:
    """The refusal on one line, which names its rule."""
    raw = taught.refusal
    if has_markers(raw) or has_rule_lines(raw, policy):
        raise _Rejected("injected markers", "the refusal holds tags or other markers")
    refusal = one_line(raw, _REFUSAL_CHARACTERS)
    if not refusal or garbled(refusal):
        raise _Rejected("the refusal is empty")
    if (code := language_of(refusal)) in languages() and outcome_in(code, refusal)[0] != "refused":
        raise _Rejected("the refusal doesn't refuse", "the refusal must begin by saying that you can't help with this")
    broken = {finding.rule for finding in findings}
    named = {rule_id for rule_id in policy.rule_ids if re.search(rf"\b{re.escape(rule_id)}\b", refusal)}
    # Ids that look like the policy's and are not, too.
    letters = {re.sub(r"\d", "", rule_id) for rule_id in policy.rule_ids if re.search(r"\d", rule_id)}
    like = "|".join(re.escape(letter) for letter in sorted(letters))
    foreign = set(re.findall(rf"\b(?:{like})\d+\b", refusal)) - set(policy.rule_ids) if letters else set()
    if named - broken or foreign:
        raise _Rejected("the refusal names another rule", f"the refusal may name only {', '.join(sorted(broken))}")
    rules = [policy.rule(finding.rule) for finding in findings]
    if rules[0].support and not names_help(refusal, code):
        raise _Rejected("the refusal offers no support", "it must be warm and name people or places to turn to")
    return with_rule(refusal, rules)


def _variants(taught: _Taught, task: TeachTask) -> tuple[dict[str, str], list[str]]:
    """(variants that can be used, causes for those that can't). None of them costs the lesson."""
    written = {variant.operator.strip().lower(): variant.text for variant in reversed(taught.variants)}
    kept: dict[str, str] = {}
    causes: list[str] = []
    for operator in task.operators:
        text = written.get(operator.name, "")
        cause = variant_fault(text, task.request.text)
        if cause is None:
            kept[operator.name] = lines_kept(text, MAX_REQUEST_CHARACTERS)
        else:
            causes.append(f"variant: {cause}")
    return kept, causes


def variant_fault(text: str, original: str) -> str | None:
    """Why a rewritten request can't be used, or None. Structural signs: meaning is not judged here."""
    if not text.strip():
        return "missing"
    if has_markers(text):
        return "injected markers"
    if [c for c in text.casefold() if c.isalnum()] == [c for c in original.casefold() if c.isalnum()]:
        return "unchanged"
    if len(text) > min(MAX_REQUEST_CHARACTERS, 6 * len(original) + 1200):
        return "too long"
    asks_so_itself = refusal_outcome(original)[0] == "refused"
    if refusal_outcome(text)[0] == "refused" and not asks_so_itself:
        return "refused"
    opens = _OPENS_AN_ANSWER.match(text) and not _OPENS_AN_ANSWER.match(original)
    if opens or len(_LIST_ITEM.findall(text)) - len(_LIST_ITEM.findall(original)) >= 3:
        return "answered"
    return None


def has_markers(text: str) -> bool:
    """True where the text holds what reasoning or a chat template is made of."""
    return _MARKERS.search(text) is not None


def has_rule_lines(text: str, policy: Policy) -> bool:
    """True where a line reads like the finding for a rule: `R4 Title: yes`."""
    ids = "|".join(re.escape(rule_id) for rule_id in policy.rule_ids)
    return re.search(rf"(?im)^\W*(?:{ids})\b[^:\n]*:\s*(?:yes|no)\b", text) is not None


def one_line(text: str, most: int) -> str:
    """The text without line breaks and control characters; longer than `most` characters ends at a sentence or word."""
    flat = " ".join(_CONTROL.sub("", text).split())
    if len(flat) <= most:
        return flat
    cut = flat[:most]
    end = max(cut.rfind(". "), cut.rfind("! "), cut.rfind("? "))
    return cut[: end + 1] if end > most // 2 else cut.rpartition(" ")[0] or cut


def lines_kept(text: str, most: int) -> str:
    """The text with its lines, without control characters and runs of empty lines, cut at `most` characters."""
    clean = _CONTROL.sub("", text.replace("\r\n", "\n")).strip()
    return re.sub(r"\n{3,}", "\n\n", clean)[:most].rstrip()


def clause(text: str, policy: Policy) -> str:
    """A reason as it stands in a verdict: one line, no end mark, no `;` and no rule id, which would be read back."""
    ids = "|".join(re.escape(rule_id) for rule_id in policy.rule_ids)
    bare = re.sub(rf"\s*\(?\b(?:rule\s+)?(?:{ids})\b\)?:?", "", one_line(text, 240))
    return " ".join(bare.replace(";", ",").split()).strip(" .,:-")


def with_rule(answer: str, rules: Sequence[Rule]) -> str:
    """The refusal, with a sentence that names title and id of the first rule where it does not."""
    rule = rules[0]
    if rule.title.lower() in answer.lower() and re.search(rf"\b{re.escape(rule.id)}\b", answer):
        return answer
    end = "" if answer.rstrip()[-1:] in set(".!?)\"'\u2026\u3002\uff01\uff1f") else "."
    said = languages().get(language_of(answer), language(ENGLISH))
    return f"{answer.rstrip()}{end} {said.names[0].replace('{id}', rule.id).replace('{title}', said.rule(rule).title)}"


# Lessons from a set that brings its own reasoning, such as STAR-1 (arXiv 2504.01903).
#
# Its answers read `<think>` reasoning `</think>` refusal. The reasoning becomes the deliberation, the refusal
# the answer. Published refusals don't name our rules: a sentence that does is added.

_THOUGHT = re.compile(r"(?s)^\s*<think>(?P<thought>.*?)</think>(?P<answer>.*)$")
_DELIBERATION_CHARACTERS = 6000


def lessons_from_dataset(requests: Sequence[Request], policy: Policy) -> tuple[dict[str, Lesson], Counter[str]]:
    """(lessons by request id, how many requests got none by cause).

    Harmful requests need their rules first (`classify.assign`). Harmless ones keep their
    reasoning; the target model answers them itself. An answer that complies is never kept for a
    harmful request, however well it was meant: phrases can't tell a safe completion from a harmful one.
    """
    lessons: dict[str, Lesson] = {}
    causes: Counter[str] = Counter()
    for request in requests:
        lesson = own_lesson(request, policy)
        if isinstance(lesson, str):
            causes[lesson] += 1
        else:
            lessons[request.id] = lesson
    return lessons, causes


def own_lesson(request: Request, policy: Policy) -> Lesson | str:
    """The lesson a request brings along, or the cause why there is none."""
    if request.harmful is None:
        return "the request has no label"
    match = _THOUGHT.match(request.answer or "")
    if match is None or not match["thought"].strip():
        return "no reasoning of its own"
    thought, answer = lines_kept(match["thought"], _DELIBERATION_CHARACTERS), match["answer"].strip()
    if has_markers(thought) or has_markers(answer) or has_rule_lines(thought, policy):
        return "injected markers"
    rules = [policy.rule(rule_id) for rule_id in request.rules[:2]]
    if request.harmful:
        if not rules:
            return "no rule is assigned"
        if outcome_in(language_of(answer), answer)[0] != "refused":
            return "the answer doesn't refuse"
        answer = with_rule(lines_kept(answer, _DELIBERATION_CHARACTERS), rules)
    intent, code = stated(request.plain)
    lesson = Lesson(
        request_id=request.id,
        intent=intent,
        findings=tuple(Finding(rule=r.id, violated=True, reason=language(code).rule(r).reason) for r in rules),
        verdict="refuse" if request.harmful else "comply",
        deliberation=thought,
        answer=answer if request.harmful else "",
    )
    return fault(lesson.row(request), policy, "think", "full") or lesson
