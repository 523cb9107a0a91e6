"""Figures of a running server for Prometheus, at `/metrics`. No label holds what a caller wrote."""

from __future__ import annotations

from functools import partial

from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from forethought.server.records import Event

__all__ = ["CONTENT_TYPE", "ENDS", "ServerMetrics"]

ENDS = frozenset({"done", "failed", "cancelled", "turned_away"})
"""What a request ends with."""
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class ServerMetrics:
    """The figures of one server, apart from those of any other in the process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._undecided: set[str] = set()
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        seconds = partial(Histogram, buckets=_SECONDS, registry=registry)
        self.requests = counter("forethought_requests", "Requests by how they ended.", ("endpoint", "status"))
        self.turned_away = counter("forethought_turned_away", "Requests turned away.", ("status",))
        self.verdicts = counter("forethought_verdicts", "Decisions.", ("verdict",))
        self.rules = counter("forethought_rules", "Refusals by the rule they rest on.", ("rule",))
        self.to_verdict = seconds("forethought_time_to_verdict_seconds", "From the request to its verdict.")
        self.to_first_token = seconds(
            "forethought_time_to_first_token_seconds", "From the request to the first of its answer that is delivered."
        )
        self.duration = seconds(
            "forethought_request_seconds", "From the request to the end of its answer.", ("endpoint",)
        )
        self.tokens = counter("forethought_tokens", "Tokens read and written.", ("kind",))
        self.failures = counter("forethought_failures", "Requests that failed, and audit lines lost.", ("status",))
        self.running = gauge("forethought_running", "Requests under way.")
        self.drift = gauge(
            "forethought_traffic_drift",
            "Population stability index of the latest scores beside those that the threshold was set on; 0.25 is much.",
        )
        self.waiting = gauge("forethought_waiting", "Requests under way that have no verdict yet.")

    def note(self, event: Event) -> None:
        """Counts what happened to a request."""
        verdict, status = event.verdict, str(event.status)
        if event.kind == "started":
            self._undecided.add(event.request)
            self.running.inc()
        elif event.kind == "decided" and verdict is not None:
            self.verdicts.labels(verdict.decision or "none").inc()
            self.to_verdict.observe(event.seconds)
            for rule in verdict.rules if verdict.refused else ():
                self.rules.labels(rule.id).inc()
        elif event.kind == "first_token":
            self.to_first_token.observe(event.seconds)
        elif event.kind == "turned_away":
            self.turned_away.labels(status).inc()
        elif event.kind == "failed":
            self.failures.labels(status).inc()
        if event.kind in ENDS:
            self.requests.labels(event.path, status).inc()
        if event.kind in ENDS - {"turned_away"}:
            self.running.dec()
            self.duration.labels(event.path).observe(event.seconds)
            counts = event.prompt_tokens, event.thought_tokens, event.answer_tokens
            for kind, count in zip(("prompt", "thought", "answer"), counts, strict=True):
                self.tokens.labels(kind).inc(count)
        if event.kind != "started":
            self._undecided.discard(event.request)
        self.waiting.set(len(self._undecided))

    def text(self) -> bytes:
        """All figures, in the format of `CONTENT_TYPE`."""
        return generate_latest(self._registry)
