"""What a run cost: queries, tokens and, where a price is known, dollars, by attack."""

from __future__ import annotations

from pathlib import Path

from forethought.engine.callspec import Price, cost_of
from forethought.engine.conversation import Failed
from forethought.evals.suite.records import planned
from forethought.evals.suite.replies import Replies
from forethought.records import Record


class AttackUsage(Record):
    """What one attack cost, or all of them."""

    attempts: int = 0
    queries: int = 0
    """Conversations that were answered; attempts that share one are asked once, and the first attack is charged."""
    unanswered: int = 0
    """Attempts without a response."""
    prompt_tokens: int = 0
    reasoning_tokens: int = 0
    answer_tokens: int = 0
    cost: float | None = None
    """US dollars; None where no price is known."""

    @property
    def queries_per_attempt(self) -> float:
        """1 for a static attack, less where attempts share a conversation, nan without attempts."""
        return self.queries / self.attempts if self.attempts else float("nan")


def usage_by_attack(folder: Path, price: Price | None = None) -> dict[str, AttackUsage]:
    """By attack, in the order of their names, what a folder's replies cost."""
    counts: dict[str, dict[str, int]] = {}
    charged: set[str] = set()
    with Replies(folder) as replies:
        for row in planned(folder):
            if row.cause:
                continue
            count = counts.setdefault(row.attack, dict.fromkeys(AttackUsage.model_fields, 0))
            count["attempts"] += 1
            asked = row.asked
            if asked in charged:
                continue
            reply = replies.get(asked)
            if isinstance(reply, Failed):
                count["unanswered"] += 1
                continue
            charged.add(asked)
            count["queries"] += 1
            for name in ("prompt_tokens", "reasoning_tokens", "answer_tokens"):
                count[name] += int(getattr(reply, name))
    return {attack: _priced(count, price) for attack, count in sorted(counts.items())}


def total_usage(by_attack: dict[str, AttackUsage], price: Price | None = None) -> AttackUsage:
    """All attacks together."""
    names = AttackUsage.model_fields
    return _priced(
        {name: sum(getattr(one, name) for one in by_attack.values()) for name in names if name != "cost"}, price
    )


def _priced(count: dict[str, int], price: Price | None) -> AttackUsage:
    written = count["reasoning_tokens"] + count["answer_tokens"]
    return AttackUsage.model_validate({**count, "cost": cost_of(count["prompt_tokens"], written, 0, price)})
