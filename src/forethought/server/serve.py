"""Serves a model until it is told to end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from forethought.errors import ConfigError
from forethought.measure.traffic import Traffic
from forethought.model import load
from forethought.server.config import check
from forethought.server.embedded import ModelEngine
from forethought.server.engine import Engine
from forethought.server.gateway import GatewayEngine
from forethought.server.operations import Operations


def serve(
    where: str | Path | None = None,
    *,
    config: str | Path | None = None,
    defence: str | None = None,
    host: str | None = None,
    port: int | None = None,
    keys: str | Path | None = None,
    upstreams: Sequence[str] = (),
) -> None:
    """Serves a model behind its defence by the OpenAI API; returns once the process is told to end.

    `where` and `defence` are as in `load`; `upstreams` are vLLM servers that hold the model in place of this process.
    `config` is a file as `docs/serving.md` shows it; the others stand in place of what it says. What is under way
    when SIGTERM comes is answered first. Raises ModelError where the model can't be opened, ConfigError for a
    configuration that is wrong and an address that can't be had.
    """
    given = {"model": where and str(where), "defence": defence, "host": host, "port": port, "keys": keys}
    stated: dict[str, object] = {field: value for field, value in given.items() if value is not None}
    stated |= {"upstreams": tuple(upstreams)} if upstreams else {}
    read, known = check(Path(config) if config is not None else None, stated)
    engine: Engine
    traffic: Traffic | None = None
    if read.upstreams:
        names = read.upstream_base, read.upstream_adapter
        engine = GatewayEngine(
            read.model, read.upstreams, read.answers, *names, defence=read.defence, states=read.upstream_states
        )
    else:
        model = load(read.model, defence=read.defence, mixed=True)
        engine, traffic = ModelEngine(model, read.answers), model.traffic
    try:
        Operations(read, known, engine, traffic=traffic).run()
    except SystemExit:
        raise ConfigError(f"{read.host}:{read.port}", "can't be listened at", "Give another port") from None
