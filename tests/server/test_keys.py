"""Keys: kept as hashes, with permissions and limits."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest
from starlette.requests import Request

from forethought.errors import ConfigError
from forethought.server.errors import ApiError
from forethought.server.keys import Key, Keys, load_keys, new_key
from forethought.server.records import Caller


def request(key: str = "", path: str = "/v1/chat/completions", header: str = "authorization") -> Request:
    value = f"Bearer {key}" if header == "authorization" else key
    headers = [(header.encode(), value.encode())] if key else []
    return Request({"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""})


def admit(keys: Keys, *args: str) -> Caller:
    return asyncio.run(keys.admit(request(*args)))


def refused(keys: Keys, *args: str) -> ApiError:
    with pytest.raises(ApiError) as error:
        admit(keys, *args)
    return error.value


def test_a_new_key_is_kept_as_its_hash_alone_and_opens_what_it_may(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    first = new_key(file, "shop", ["ask", "reasoning"], "60/minute")
    second = new_key(file, "prometheus", ["metrics"])
    assert first not in file.read_text()
    assert second not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    keys = Keys(load_keys(file))
    assert admit(keys, first) == Caller(id="shop", may=frozenset({"ask", "reasoning"}))
    assert admit(keys, first, "/v1/models", "x-api-key").id == "shop"
    assert admit(keys, second, "/metrics").id == "prometheus"
    assert refused(keys, second).status == 403
    assert refused(keys, first, "/metrics").status == 403


@pytest.mark.parametrize("key", ["", "ft-wrong", "Bearer", "\u00fc" * 40])
def test_without_a_valid_key_nobody_is_let_in(tmp_path: Path, key: str) -> None:
    new_key(tmp_path / "keys.yaml", "shop", ["ask"])
    error = refused(Keys(load_keys(tmp_path / "keys.yaml")), key)
    assert (error.status, error.code) == (401, "invalid_api_key")


def test_a_key_that_is_wrong_is_taken_for_none_only_where_there_are_no_keys(tmp_path: Path) -> None:
    new_key(tmp_path / "keys.yaml", "shop", ["ask"])
    keys = Keys(load_keys(tmp_path / "keys.yaml"), frozenset({"ask"}))
    assert admit(keys).id == "anyone"
    assert refused(keys, "ft-wrong").status == 401
    assert admit(Keys((), frozenset({"ask"})), "any").id == "anyone"


def test_who_asks_too_often_waits_and_others_do_not(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    often, other = new_key(file, "often", ["ask"], "2/minute; 100/day"), new_key(file, "other", ["ask"])
    keys = Keys(load_keys(file))
    admit(keys, often)
    admit(keys, often)
    error = refused(keys, often)
    assert error.status == 429
    assert 1 <= float(error.retry_after_s or 0) <= 60
    assert error.response().headers["retry-after"].isdigit()
    assert admit(keys, other).id == "other"


def test_what_is_not_permitted_counts_too(tmp_path: Path) -> None:
    key = new_key(tmp_path / "keys.yaml", "shop", ["ask"], "1/minute")
    keys = Keys(load_keys(tmp_path / "keys.yaml"))
    assert refused(keys, key, "/metrics").status == 403
    assert refused(keys, key).status == 429


def test_a_name_that_is_taken_and_permissions_that_are_none_are_told(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    new_key(file, "shop", ["ask"])
    before = file.read_text()
    for name, may, limits, words in [
        ("shop", ["ask"], "", "same name"),
        ("b", ["everything"], "", "is none"),
        ("c", ["ask"], "often", "60/minute"),
        ("d\nkeys: []", ["ask"], "", "letters"),
    ]:
        with pytest.raises(ConfigError, match=words):
            new_key(file, name, may, limits)
    assert file.read_text() == before


def test_every_key_is_compared_and_in_constant_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    made = [new_key(file, f"k{number}", ["ask"]) for number in range(5)]
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr("forethought.server.keys.hmac.compare_digest", compare)
    admit(Keys(load_keys(file)), made[0])
    assert len(compared) == 5


def test_a_damaged_key_file_names_the_place(tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text("keys:\n- {name: a, sha256: abc}\n")
    with pytest.raises(ConfigError, match=r"keys\.0\.sha256"):
        load_keys(tmp_path / "keys.yaml")
    assert Key(name="a", sha256="0" * 64).may == ("ask",)
