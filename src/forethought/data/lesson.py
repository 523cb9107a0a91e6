"""A lesson: what a teacher wrote about one request, before it is rendered into training rows."""

from __future__ import annotations

from pydantic import Field

from forethought.reasoning import Decision, Finding
from forethought.records import Record


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
