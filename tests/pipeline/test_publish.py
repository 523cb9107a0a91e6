"""What is sent to a hub, and when nothing is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from forethought.errors import ConfigError, InputError, StageError
from forethought.pipeline.publish import files_to_push, push
from forethought.pipeline.recipe import build_recipe


class _Hub:
    """Stands in for the hub: records what it is asked."""

    def __init__(self) -> None:
        self.public = False
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.error: Exception | None = None

    def create_repo(self, name: str, **options: Any) -> str:
        self.calls.append(("create", {"name": name, **options}))
        return f"the hub's address of {name}"

    def repo_info(self, name: str, **options: Any) -> Any:
        class _Info:
            private = not self.public

        return _Info()

    def upload_folder(self, **options: Any) -> None:
        if self.error:
            raise self.error
        self.calls.append(("upload", options))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> _Hub:
    made = _Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a-token")
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = ["README.md", "data/train.parquet", "overlaps.json", "examples.jsonl.part", ".token.json", "cache/a.json"]
    for name in [*files, "data/[odd].jsonl", "notes.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x", encoding="utf-8")
    built = {"config": build_recipe(["a.csv"]).model_dump(mode="json"), "facts": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(built), encoding="utf-8")
    return tmp_path


def test_the_set_is_sent_and_nothing_else(hub: _Hub, folder: Path) -> None:
    sent = [str(path.relative_to(folder)) for path in files_to_push(folder)]
    assert sent == ["README.md", "manifest.json", "overlaps.json", "data/[odd].jsonl", "data/train.parquet"]
    assert push(folder, "me/set") == "the hub's address of me/set"
    (_, created), (_, uploaded) = hub.calls
    assert created == {"name": "me/set", "repo_type": "dataset", "private": True, "exist_ok": True}
    assert uploaded["repo_id"] == "me/set"
    assert uploaded["repo_type"] == "dataset"
    from huggingface_hub.utils._paths import filter_repo_objects

    everything = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    allowed = list(filter_repo_objects(everything, allow_patterns=uploaded["allow_patterns"]))
    assert sorted(allowed) == sorted(sent)


def test_a_public_repository_gets_nothing_that_should_be_private(hub: _Hub, folder: Path) -> None:
    hub.public = True
    with pytest.raises(ConfigError, match="public repository"):
        push(folder, "me/set")
    assert [name for name, _ in hub.calls] == ["create"]
    push(folder, "me/set", private=False)
    assert [name for name, _ in hub.calls] == ["create", "create", "upload"]


def test_without_a_token_nothing_is_tried(hub: _Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ConfigError, match="no token"):
        push(folder, "me/set")
    assert hub.calls == []


@pytest.mark.parametrize("error", [OSError("no route\nto host"), OfflineModeIsEnabled("offline")])
def test_a_hub_out_of_reach_is_said_in_one_line(hub: _Hub, folder: Path, error: Exception) -> None:
    hub.error = error
    with pytest.raises(StageError, match="did not succeed") as caught:
        push(folder, "me/set")
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_card_is_not_pushed(hub: _Hub, folder: Path) -> None:
    (folder / "README.md").unlink()
    with pytest.raises(InputError, match="no data card"):
        push(folder, "me/set")
    assert hub.calls == []


def test_the_real_client_refuses_a_bad_name_and_offline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stand-in: the errors of the library itself, in its offline mode."""
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a-token")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises((ConfigError, StageError)):
        push(folder, "me/set/too/deep")
    with pytest.raises(StageError):
        push(folder, "me/set")
