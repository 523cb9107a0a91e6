"""A server with its operations, put together from its configuration: who may ask, what is counted, logged and kept."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from pydantic import JsonValue

from forethought.measure.traffic import DRIFT_LIMIT, FEWEST_SEEN, Drift, Traffic
from forethought.records import Record
from forethought.server.app import create_app
from forethought.server.audit import AuditError, AuditLog
from forethought.server.config import ServeConfig
from forethought.server.door import Gate
from forethought.server.engine import Engine
from forethought.server.errors import ApiError
from forethought.server.keys import Key, Keys
from forethought.server.listen import make_server
from forethought.server.log import make_log
from forethought.server.metrics import CONTENT_TYPE, ENDS, ServerMetrics
from forethought.server.page import page_router
from forethought.server.records import Caller, Event
from forethought.server.run import Hooks
from forethought.server.traces import Traces

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


class DriftSeen(Record):
    """How far the scores of the latest traffic are from those that the threshold was set on."""

    index: float | None = None
    """Population stability index; None where it can't be told, and `cause` then says why."""
    limit: float = DRIFT_LIMIT
    """From which the threshold rests on traffic of another kind."""
    seen: int = 0
    """Decisions that it is told from."""
    drifted: bool = False
    cause: str = ""


class Operations:
    """What stands around the endpoints of one server."""

    def __init__(
        self,
        config: ServeConfig,
        keys: Sequence[Key],
        engine: Engine,
        log: FilteringBoundLogger | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        """Raises ConfigError, StageError and AuditError for what is configured and can't be had. `log` None is one on
        standard error; `traffic` is what the model's threshold was set on, None where that was not kept."""
        self.config = config
        self.log = log or make_log()
        self.metrics = ServerMetrics()
        self.keys = Keys(tuple(keys), config.without_key, config.anyone_limits)
        self.traces = Traces(config.traces)
        audit = config.audit
        self.audit = AuditLog(audit.file, audit.rotate_mib << 20) if audit is not None else None
        self.drift = Drift(traffic.reference) if traffic is not None else None
        self._warned = False
        self._engine = engine

    @property
    def hooks(self) -> Hooks:
        """For `create_app`. The audit log comes first: what it can't keep is not answered."""
        kept = [self._keep] if self.audit is not None else []
        observers = [*kept, self.metrics.note, self._watch, self._say, self.traces.note]
        routers = [self._routes(), *([page_router(self._engine.policy, self.admit)] if self.config.page else [])]
        closed = [self.traces.close, *([self.audit.close] if self.audit is not None else [])]
        return Hooks(self.admit, observers, routers, closed)

    async def admit(self, request: Request) -> Caller:
        """Who asks; those who may not are counted and logged. Raises ApiError."""
        try:
            return await self.keys.admit(request)
        except ApiError as error:
            self.metrics.turned_away.labels(str(error.status)).inc()
            self.log.info("not_admitted", status=error.status, cause=error.code)
            raise

    def run(self) -> None:
        """Serves until it is told to stop, and then answers what it has begun."""
        app = create_app(self._engine, self.config.answers, self.hooks)

        def stop() -> None:
            app.state.server.draining = True
            self.log.info("stopping")

        # What is loaded stays: going through all of it again and again would hold up every stream.
        gc.collect()
        gc.freeze()
        make_server(Gate(app, self.traces), self.config, self.log, stop).run()

    def _routes(self) -> APIRouter:
        router = APIRouter()

        @router.get("/metrics", tags=["operations"], response_class=Response)
        async def metrics(request: Request) -> Response:
            """Figures for Prometheus; needs the permission `metrics`."""
            await self.admit(request)
            return Response(self.metrics.text(), media_type=CONTENT_TYPE)

        @router.get("/drift", tags=["operations"])
        async def drift(request: Request) -> DriftSeen:
            """Whether traffic is still of the kind that the threshold was set on; needs the permission `metrics`."""
            await self.admit(request)
            return self._drift_seen()

        return router

    def _keep(self, event: Event) -> None:
        """Decisions go to the audit log. Raises ApiError where that fails and is configured to refuse."""
        if event.kind != "decided" or self.audit is None or self.config.audit is None:
            return
        verdict = event.verdict
        values: dict[str, JsonValue] = {"request": event.request, "caller": event.caller, "path": event.path}
        values |= {"asked": event.asked, "base": event.base}
        if self.config.audit.texts:
            values["opening"] = event.opening
        if verdict is not None:
            values |= {"verdict": verdict.decision, "rules": [rule.id for rule in verdict.rules]}
            values |= {"probability": verdict.probability, "threshold": verdict.threshold}
            values |= {"cause": verdict.cause, "policy": verdict.policy}
        try:
            self.audit.add("decision", **values)
        except AuditError:
            self.metrics.failures.labels("audit").inc()
            if self.config.audit.on_failure == "refuse":
                raise ApiError(503, "The audit log can't be kept", "audit_unavailable", retry_after_s=30) from None

    def _watch(self, event: Event) -> None:
        """Tells once when the scores of traffic leave those that the threshold was set on."""
        verdict = event.verdict
        if event.kind != "decided" or self.drift is None or verdict is None or verdict.score is None:
            return
        self.drift.add(verdict.score)
        if self.drift.index is not None:
            self.metrics.drift.set(self.drift.index)
        if self.drift.drifted and not self._warned:
            self.log.warning("traffic_drifted", **self._drift_seen().model_dump(exclude={"cause"}))
        self._warned = self.drift.drifted

    def _drift_seen(self) -> DriftSeen:
        if self.drift is None:
            return DriftSeen(cause="nothing was kept of the traffic that the threshold was set on: calibrate")
        few = self.drift.seen < FEWEST_SEEN
        return DriftSeen(
            index=self.drift.index, seen=self.drift.seen, drifted=self.drift.drifted,
            cause=f"{FEWEST_SEEN} decisions are needed" if few else "",
        )  # fmt: skip

    def _say(self, event: Event) -> None:
        if event.kind not in ENDS:
            return
        verdict = event.verdict
        self.log.info(
            event.kind, request_id=event.request, caller=event.caller, path=event.path, status=event.status,
            duration_ms=round(1000 * event.seconds, 1), verdict=verdict.decision if verdict else None,
            rules=[rule.id for rule in verdict.rules] if verdict else [], cause=event.cause,
            prompt_tokens=event.prompt_tokens, thought_tokens=event.thought_tokens, answer_tokens=event.answer_tokens,
        )  # fmt: skip
