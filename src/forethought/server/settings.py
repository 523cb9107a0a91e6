"""What an operator decides about the server's answers; keys, logs and files have settings of their own."""

from __future__ import annotations

from pydantic import Field

from forethought.records import Record


class Settings(Record):
    """How requests are taken and answered."""

    name: str = ""
    """The model's name in the API; empty is the run folder's."""
    max_waiting: int = Field(default=256, ge=1)
    """Most requests under way; from there on they are turned away with 503 and Retry-After."""
    max_body_bytes: int = Field(default=1 << 20, ge=1024)
    """Largest request body."""
    body_timeout_s: float = Field(default=15.0, gt=0)
    """Longest time that a request body may take to arrive."""
    max_messages: int = Field(default=256, ge=1)
    """Most turns of a conversation, and most inputs of a moderation."""
    max_n: int = Field(default=8, ge=1)
    """Most answers to one request."""
    max_answer_tokens: int = Field(default=1024, ge=1)
    """Longest answer, whatever a request asks for."""
    answer_tokens: int = Field(default=256, ge=1)
    """Longest answer where a request doesn't say."""
    refusal_tokens: int = Field(default=256, ge=1)
    """Longest refusal. `max_tokens` and `stop` of a request don't cut it."""
    think_timeout_s: float = Field(default=120.0, gt=0)
    """Time from which a thought counts as one that never ends."""
    request_timeout_s: float = Field(default=600.0, gt=0)
    """Longest time of a whole request; an answer is cut there."""
    drain_s: float = Field(default=30.0, ge=0)
    """How long requests that run may go on once the server is told to end."""
    fail_closed: bool = True
    """Whether a thought that can't be read, never ends or can't be scored is refused."""
    stream_refusal: bool = False
    """Whether a streamed refusal stands in `delta.refusal` instead of `delta.content`; where a JSON answer is asked
    for it always does, since a refusal is none."""
    base_model: bool = False
    """Whether the base model is served as well, undefended, as NAME-base: for comparison alone."""
