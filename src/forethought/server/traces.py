"""Traces of requests for OpenTelemetry, where they are configured. A span holds names and numbers, no text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from forethought.errors import ConfigError
from forethought.server.records import Event


class Traces:
    """Spans of one server; without an endpoint, nothing is imported and nothing sent."""

    def __init__(self, endpoint: str = "") -> None:
        """`endpoint`: address of an OTLP collector over HTTP. Raises ConfigError where the library is missing."""
        self._provider: Any = _provider(endpoint) if endpoint else None

    @contextmanager
    def span(self, name: str, headers: dict[str, str]) -> Iterator[Any]:
        """A span around a request, below the caller's own where its headers name one; gives None without traces."""
        if self._provider is None:
            yield None
            return
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        above = TraceContextTextMapPropagator().extract(headers)
        tracer = self._provider.get_tracer("forethought")
        with tracer.start_as_current_span(name, above, SpanKind.SERVER, record_exception=False) as span:
            yield span

    def note(self, event: Event) -> None:
        """Puts what was decided into the span of the request that is under way."""
        if self._provider is None or event.kind != "decided" or event.verdict is None:
            return
        from opentelemetry.trace import get_current_span

        span = get_current_span()
        span.set_attribute("forethought.request", event.request)
        span.set_attribute("forethought.verdict", event.verdict.decision or "none")
        span.set_attribute("forethought.rules", [rule.id for rule in event.verdict.rules])
        span.set_attribute("forethought.time_to_verdict_s", event.seconds)

    def close(self) -> None:
        """Sends what is left."""
        if self._provider is not None:
            self._provider.shutdown()


def _provider(endpoint: str) -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ConfigError(
            f"traces {endpoint}", "need OpenTelemetry", "Install it: pip install 'forethought[traces]'"
        ) from None
    provider = TracerProvider(resource=Resource.create({"service.name": "forethought"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
    return provider
