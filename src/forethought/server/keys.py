"""Who may ask: keys that only their owner holds, what each may do, and how often.

A key is 256 random bits, so a plain SHA-256 of it can't be guessed backwards; the file keeps that alone.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, get_args

import yaml
from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from pydantic import AfterValidator, Field, field_validator
from starlette.requests import HTTPConnection

from forethought.errors import ConfigError
from forethought.records import Record
from forethought.server.errors import ApiError
from forethought.server.records import Caller, Permission
from forethought.yamlfile import parse_yaml, read_text

PERMISSIONS: tuple[str, ...] = get_args(Permission)
_PAGE = "docs/serving.md"
_PREFIX = "ft-"
_CARRIERS = ("x-api-key", "api-key")
"""Headers that hold a key where `Authorization` does not."""


def _parsed(limits: str) -> list[RateLimitItem]:
    return parse_many(limits) if limits else []


def _checked(limits: str) -> str:
    try:
        _parsed(limits)
    except ValueError as error:
        raise ValueError(f"limits '{limits}' can't be read ({error}); write them as 60/minute; 2000/day") from None
    return limits


Limits = Annotated[str, AfterValidator(_checked)]
"""How often may be asked, such as `60/minute; 2000/day`; empty is without limit."""


class Key(Record):
    """One key, as its file has it."""

    name: str
    """Whose it is; stands in logs and in the audit log in place of the key."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Hash of the key, 64 hexadecimal digits in lower case."""
    may: tuple[Permission, ...] = ("ask",)
    limits: Limits = ""
    """How often it may ask, such as `60/minute; 2000/day`; empty is without limit. What is turned away counts, too."""

    @field_validator("name")
    @classmethod
    def _name_is_plain(cls, name: str) -> str:
        if not name or not name.isascii() or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise ValueError(f"name '{name[:40]}' may hold letters, digits, dots and dashes alone")
        return name


class KeyFile(Record):
    """All keys of a server."""

    keys: tuple[Key, ...]

    @field_validator("keys")
    @classmethod
    def _names_are_unique(cls, keys: tuple[Key, ...]) -> tuple[Key, ...]:
        for what in ("name", "sha256"):
            held = [getattr(key, what) for key in keys]
            if len(set(held)) < len(held):
                raise ValueError(f"two keys have the same {what}")
        return keys


def load_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file. Raises ConfigError when it is missing or breaks the schema."""
    text = read_text(path, "key file", "Make one: forethought serve --new-key ask --keys FILE")
    return parse_yaml(text, str(path), "key file", KeyFile, "the key keys", _PAGE).keys


def new_key(path: Path, name: str, may: Iterable[str], limits: str = "") -> str:
    """Adds a key to a file, which is made where there is none, and gives the key itself: it is kept nowhere.

    Raises ConfigError for a name that is taken, permissions that are none and limits that can't be read.
    """
    asked = tuple(dict.fromkeys(may))
    if unknown := sorted(set(asked) - set(PERMISSIONS)):
        raise ConfigError(f"permission {', '.join(unknown)}", "is none", f"Use {', '.join(PERMISSIONS)}")
    secret = _PREFIX + secrets.token_urlsafe(32)
    entry = {"name": name, "sha256": _digest(secret), "may": list(asked), "limits": limits}
    held = [key.model_dump(mode="json") for key in load_keys(path)] if path.is_file() else []
    text = yaml.safe_dump({"keys": [*held, entry]}, sort_keys=False, width=120)
    parse_yaml(text, str(path), "key file", KeyFile, "the key keys", _PAGE)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(part, path)
    return secret


class Keys:
    """Knows a caller by its key, and counts what it asks."""

    def __init__(
        self, keys: tuple[Key, ...], anyone: frozenset[Permission] = frozenset(), anyone_limits: str = ""
    ) -> None:
        """`anyone`: what a caller without a key may do; where that is nothing, a key is needed."""
        self._keys = {bytes.fromhex(key.sha256): key for key in keys}
        self._anyone = Caller(may=anyone) if anyone else None
        self._limits = {key.name: _parsed(key.limits) for key in keys} | {Caller().id: _parsed(anyone_limits)}
        self._counted = MovingWindowRateLimiter(MemoryStorage())

    async def admit(self, request: HTTPConnection) -> Caller:
        """Who asks. Raises ApiError: 401 without a valid key, 429 for one that asks too often, 403 for one that may
        not do this at all."""
        caller = self._caller(_given(request))
        if caller is None:
            raise ApiError(401, "No valid key: send it as 'Authorization: Bearer KEY'", "invalid_api_key")
        for limit in self._limits[caller.id]:
            if not self._counted.hit(limit, caller.id):
                wait_s = self._counted.get_window_stats(limit, caller.id).reset_time - time.time()
                message = f"This key may ask {limit.amount} times in {limit.get_expiry()} seconds"
                raise ApiError(429, message, "rate_limit_exceeded", retry_after_s=max(1.0, wait_s))
        needs: Permission = "metrics" if request.url.path in ("/metrics", "/drift") else "ask"
        if not caller.allows(needs):
            raise ApiError(403, f"This key has no permission '{needs}'", "not_allowed")
        return caller

    def _caller(self, given: str) -> Caller | None:
        """Each key is compared in constant time, and all of them every time. Where there is none, any will do: clients
        send one that means nothing."""
        if not given or not self._keys:
            return self._anyone
        digest, found = bytes.fromhex(_digest(given)), None
        for held, key in self._keys.items():
            if hmac.compare_digest(held, digest):
                found = key
        return Caller(id=found.name, may=frozenset(found.may)) if found is not None else None


def _given(request: HTTPConnection) -> str:
    """The key that a request carries; empty where it carries none."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and token.strip():
        return token.strip()
    return next((request.headers[name].strip() for name in _CARRIERS if name in request.headers), "")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
