"""Text from a teacher or a dataset is untrusted: what it may hold before it becomes training data."""

from __future__ import annotations

import re
from collections.abc import Sequence

from forethought.policy import Policy, Rule

_MARKERS = re.compile(
    r"</?\s*think\b|<\|[^|<>\n]{1,40}\|>|\[/?INST\]|</?s>"
    r"|\bverdict\s*\W?\s*:|^\W*(?:final\s+)?verdict\W+(?:refuse|comply)\b"
    r"|^\s*#+\s*(?:verify the request|response)\b|^\W*intent\s*:",
    re.IGNORECASE | re.MULTILINE,
)
"""What ends, opens or decides a thought in some format, or a turn in some chat template."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


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
    return f"{answer.rstrip()}{end} The rule on {rule.title} ({rule.id}) is the reason."
