"""What a failed call means: whether to try again, whether anything can work, and its cause in a few words."""

from __future__ import annotations

from dataclasses import dataclass

from inspect_ai.model import Model
from tenacity import RetryError

_DENIED = {401: "access denied (401)", 403: "access denied (403)", 404: "not found (404)"}
_LONGEST_WAIT_S = 600.0


@dataclass(frozen=True)
class Failure:
    """Why a call has no answer."""

    cause: str
    """Few different values, no text of the server: it is counted."""
    retry: bool
    """Whether the same call may work later."""
    rate_limited: bool = False
    hopeless: bool = False
    """True where other calls will fail alike: a wrong key, address or model name."""
    wait_s: float = 0.0
    """How long the server asks to wait."""
    detail: str = ""
    """The server's own words, one line; for the error that ends a run."""


def failure_of(error: Exception, model: Model) -> Failure:
    """Classifies what `Model.generate` raised, by inspect's own judgement of each provider's errors."""
    if isinstance(error, RetryError):  # inspect gave up at once, as told: its retries are ours
        inner = error.last_attempt.exception()
        error = inner if isinstance(inner, Exception) else error
    status = _status(error)
    name = type(error).__name__
    detail = " ".join(str(error).split())[-200:]
    if status in _DENIED:
        # An error about a key may quote it: say no more than the status.
        return Failure(_DENIED[status], retry=False, hopeless=True, detail="" if status == 401 else detail)
    if "Timeout" in name:
        return Failure("timed out", retry=True)
    decision = model.api.should_retry(error)
    kind = getattr(decision, "kind", "transient")
    wait_s = min(getattr(decision, "retry_after", None) or 0.0, _LONGEST_WAIT_S)
    if status == 429 or (decision and kind == "rate_limit"):
        return Failure("too many requests (429)", retry=True, rate_limited=True, wait_s=wait_s, detail=detail)
    if status is not None and status >= 500:
        return Failure(f"server error ({status})", retry=True, wait_s=wait_s, detail=detail)
    if status is not None:
        return Failure(f"bad request ({status})", retry=bool(decision), detail=detail)
    if "Connection" in name or "Connect" in name:
        return Failure("no connection", retry=True, detail=detail)
    return Failure(f"error ({name})", retry=bool(decision), wait_s=wait_s, detail=detail)


def _status(error: BaseException | None) -> int | None:
    while error is not None:
        status = getattr(error, "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None
