"""The configuration file: every mistake is told before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from forethought.errors import ConfigError
from forethought.server.config import check
from forethought.server.keys import new_key


def written(folder: Path, text: str) -> Path:
    (folder / "serve.yaml").write_text(text)
    return folder / "serve.yaml"


def test_a_whole_configuration_is_read_and_paths_count_from_its_folder(tmp_path: Path) -> None:
    new_key(tmp_path / "keys.yaml", "shop", ["ask"])
    config, keys = check(
        written(
            tmp_path,
            "model: runs/quickstart\nhost: 0.0.0.0\nkeys: keys.yaml\nanswers: {max_waiting: 8}\n"
            "audit: {file: log/audit.jsonl, on_failure: count}\ntraces: http://127.0.0.1:4318\n",
        )
    )
    assert config.keys == tmp_path / "keys.yaml"
    assert config.audit is not None
    assert config.audit.file == tmp_path / "log" / "audit.jsonl"
    assert (config.answers.max_waiting, [key.name for key in keys]) == (8, ["shop"])
    assert config.without_key == frozenset()


def test_on_the_own_machine_no_key_is_needed_and_prefill_is_not_allowed(tmp_path: Path) -> None:
    config, _ = check(written(tmp_path, "model: embedded\n"))
    assert "ask" in config.without_key
    assert "prefill" not in config.without_key


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port: 80", "is not named"),
        ("model: a\nport: 70000", "'port'"),
        ("model: a\nhots: b", "'hots'"),
        ("model: a\nhost: 0.0.0.0", "Name a key file"),
        ("model: a\nkeys: none.yaml", "no such key file"),
        ("model: a\nanswers: {max_waiting: none}", "'answers.max_waiting'"),
        ("model: a\nanyone: [everything]", "'anyone.0'"),
        ("model: a\nanyone_limits: often", "60/minute"),
        ("model: a\ntraces: localhost", "http://"),
        ("model: a\naudit: {}", "'audit.file'"),
        ("model: a\naudit: {file: serve.yaml/audit.jsonl}", "can't be written"),
        ("model: /none", "no such model"),
        ("- model", "is not a configuration"),
        ("model: [", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(written(tmp_path, text + "\n"))
    assert words in str(error.value)


def test_a_key_file_that_others_can_read_is_no_secret(tmp_path: Path) -> None:
    new_key(tmp_path / "keys.yaml", "shop", ["ask"])
    (tmp_path / "keys.yaml").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        check(written(tmp_path, "model: a\nkeys: keys.yaml\n"))
