"""The configuration file of a server: one record, every field with its unit and default.

`docs/serving.md` shows one.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from forethought.errors import ConfigError
from forethought.records import Record
from forethought.server.keys import Key, Limits, load_keys
from forethought.server.records import Caller, Permission
from forethought.yamlfile import parse_yaml, read_text, validated

_PAGE = "docs/serving.md"


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


class AuditSettings(Record):
    """The audit log."""

    file: Path
    rotate_mib: int = Field(default=64, ge=1)
    """Size from which the file is moved aside, in MiB."""
    texts: bool = True
    """Keeps the first words of what was asked beside its hash; false: the hash alone."""
    on_failure: Literal["refuse", "count"] = "refuse"
    """When a line can't be kept: `refuse` gives no answer (503), `count` answers and counts the failure."""


class ServeConfig(Record):
    """What a server is told."""

    model: str = ""
    """As everywhere: a run folder, an adapter, a hub name."""
    defence: str | None = None
    """What stands around it, as everywhere; None is a run's own best defence."""
    upstreams: tuple[str, ...] = ()
    """Addresses of vLLM servers that hold base and adapter of the model; without any it is loaded here."""
    upstream_base: str = "base"
    upstream_adapter: str = "scot"
    """What the two are called there."""
    upstream_states: tuple[str, ...] = ()
    """Addresses of vLLM servers that are asked for hidden states; without any those above are."""
    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int = Field(default=8000, ge=0, le=65535)
    """0 takes a free one."""
    keys: Path | None = None
    """File of keys; without one, everybody may ask, and the address has to be this machine's own."""
    anyone: tuple[Permission, ...] = ()
    """What callers without a key may do beside those with one."""
    anyone_limits: Limits = ""
    """How often callers without a key may ask, all of them together, such as `60/minute`."""
    page: bool = True
    """Whether the page stands at `/`."""
    answers: Settings = Settings()
    """How requests are taken and answered."""
    header_s: float = Field(default=10.0, gt=0)
    """Within which a connection has to send the head of a request, in seconds."""
    header_bytes: int = Field(default=16 << 10, ge=1024)
    """Largest head of a request."""
    audit: AuditSettings | None = None
    traces: str = Field(default="", pattern="^(http://|https://|$)")
    """Address of an OpenTelemetry collector (OTLP over HTTP), such as http://127.0.0.1:4318; empty sends none."""

    @property
    def without_key(self) -> frozenset[Permission]:
        """What a caller without a key may do: everything at a server that asks for none, on its own machine."""
        return Caller().may if self.keys is None and not self.anyone else frozenset(self.anyone)


def check(path: Path | None, given: Mapping[str, object] | None = None) -> tuple[ServeConfig, tuple[Key, ...]]:
    """The configuration of a file and its keys, after everything that it names was looked at.

    Paths in the file count from its folder. `given` stands in place of what the file says. Raises ConfigError for the
    first that is wrong.
    """
    config = _from_file(path) if path is not None else ServeConfig()
    stated = config.model_dump(mode="json", exclude_unset=True)
    config = validated({**stated, **(given or {})}, "serve", ServeConfig, _PAGE)
    if not config.model:
        raise ConfigError("model", "is not named", "Write forethought serve MODEL, or `model:` in the configuration")
    if config.model.startswith(("/", ".")) and not Path(config.model).exists():
        raise ConfigError(config.model, "there is no such model", "Give the path of a run folder or of a model")
    if config.keys is None and not config.anyone and not _is_own_machine(config.host):
        raise ConfigError(
            f"host {config.host}", "can be reached by others, and no keys are asked for", "Name a key file"
        )
    keys = load_keys(config.keys) if config.keys else ()
    if config.keys and config.keys.stat().st_mode & 0o077:
        raise ConfigError(config.keys, "can be read by others on this machine", f"chmod 600 {config.keys}")
    if config.audit is not None and not _can_write(config.audit.file.parent):
        raise ConfigError(config.audit.file, "stands in a folder that can't be written", "Name another one")
    return config, keys


def _from_file(path: Path) -> ServeConfig:
    text = read_text(path, "configuration", f"See {_PAGE} for one")
    read = parse_yaml(text, str(path), "configuration", ServeConfig, "the key model", _PAGE)
    below: dict[str, object] = {"keys": path.parent / read.keys} if read.keys else {}
    if read.audit is not None:
        below["audit"] = read.audit.model_copy(update={"file": path.parent / read.audit.file})
    return read.model_copy(update=below)


def _can_write(folder: Path) -> bool:
    while not folder.exists():
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)


def _is_own_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
