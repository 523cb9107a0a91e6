"""Figures of a running server for Prometheus, at `/metrics`. No label holds what a caller wrote."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["CONTENT_TYPE", "ServerMetrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class ServerMetrics:
    """The figures of one server, apart from those of any other in the process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "forethought_requests", "Requests by how they ended.", ("endpoint", "status"), registry=registry
        )
        self.turned_away = Counter("forethought_turned_away", "Requests turned away.", ("status",), registry=registry)
        self.verdicts = Counter("forethought_verdicts", "Decisions.", ("verdict",), registry=registry)
        self.rules = Counter("forethought_rules", "Refusals by the rule they rest on.", ("rule",), registry=registry)
        self.to_verdict = Histogram(
            "forethought_time_to_verdict_seconds", "From the request to its verdict.", buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self.to_first_token = Histogram(
            "forethought_time_to_first_token_seconds", "From the request to the first of its answer that is delivered.",
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.duration = Histogram(
            "forethought_request_seconds", "From the request to the end of its answer.", ("endpoint",),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.tokens = Counter("forethought_tokens", "Tokens read and written.", ("kind",), registry=registry)
        self.failures = Counter(
            "forethought_failures",
            "Requests that failed, and audit lines lost.",
            ("status",),
            registry=registry,
        )
        self.running = Gauge("forethought_running", "Requests under way.", registry=registry)
        self.drift = Gauge(
            "forethought_traffic_drift",
            "Population stability index of the latest scores beside those that the threshold was set on; 0.25 is much.",
            registry=registry,
        )
        self.waiting = Gauge("forethought_waiting", "Requests under way that have no verdict yet.", registry=registry)

    def decided(self, verdict: str | None, rules: Sequence[str], seconds: float) -> None:
        """Counts a decision, by each rule that it rests on."""
        self.verdicts.labels(verdict or "none").inc()
        self.to_verdict.observe(seconds)
        for rule in rules if verdict == "refuse" else ():
            self.rules.labels(rule).inc()

    def counted(self, prompt: int, thought: int, answer: int) -> None:
        """Counts the tokens of one reply."""
        for kind, count in (("prompt", prompt), ("thought", thought), ("answer", answer)):
            self.tokens.labels(kind).inc(count)

    def text(self) -> bytes:
        """All figures, in the format of `CONTENT_TYPE`."""
        return generate_latest(self._registry)
