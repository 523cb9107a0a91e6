"""Stages: kept, run again, resumed, and never taken for done when they aren't."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from forethought.errors import StageError
from forethought.manifest import write_json
from forethought.pipeline import stage as stage_module
from forethought.pipeline.stage import MANIFEST, StageRunner


class _Work:
    """Writes a file, and counts how often it is done."""

    def __init__(self, fails: BaseException | None = None) -> None:
        self.calls = 0
        self.found: list[list[str]] = []
        self.fails = fails

    def __call__(self, out: Path) -> dict[str, Any]:
        self.calls += 1
        self.found.append(sorted(file.name for file in out.iterdir() if file.name != MANIFEST))
        (out / "rows.jsonl").write_text("{}\n")
        if self.fails is not None:
            raise self.fails
        return {"rows": 1}


def _run(folder: Path, work: Callable[[Path], dict[str, Any]], config: Any = None, **kind: Any) -> list[str]:
    said: list[str] = []
    StageRunner(folder, said.append).run("1-select", config or {}, work, **kind)
    return said


def _manifest(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "1-select" / MANIFEST).read_text())
    return loaded


def test_unchanged_stage_is_kept(tmp_path: Path) -> None:
    work = _Work()
    assert "rows 1" in _run(tmp_path, work, {"seed": 0})[0]
    assert "kept from before" in _run(tmp_path, work, {"seed": 0})[0]
    assert work.calls == 1


def test_weights_are_as_readable_as_other_files(tmp_path: Path) -> None:
    """safetensors writes them for its own user alone; a server in a container is another."""

    def work(out: Path) -> dict[str, Any]:
        (out / "deeper").mkdir()
        for file in (out / "rows.jsonl", out / "deeper" / "adapter_model.safetensors"):
            file.write_text("{}")
        (out / "deeper" / "adapter_model.safetensors").chmod(0o600)
        return {}

    _run(tmp_path, work)
    rows = tmp_path / "1-select" / "rows.jsonl"
    assert (tmp_path / "1-select" / "deeper" / "adapter_model.safetensors").stat().st_mode == rows.stat().st_mode


def test_manifest_says_what_made_the_stage(tmp_path: Path) -> None:
    _run(tmp_path, _Work(), {"seed": 7})
    manifest = _manifest(tmp_path)
    assert manifest["config"] == {"seed": 7}
    assert manifest["counts"] == {"rows": 1}
    assert {"key", "stage", "seconds", "peak_gib", "commit", "versions", "finished"} <= set(manifest)


def test_changed_config_runs_again_in_a_clean_folder(tmp_path: Path) -> None:
    work = _Work()
    _run(tmp_path, work, {"seed": 0})
    _run(tmp_path, work, {"seed": 1})
    assert work.calls == 2
    assert work.found[1] == []


def test_change_before_a_stage_runs_it_again(tmp_path: Path) -> None:
    first, second = _Work(), _Work()
    for seed in (0, 0, 1):
        stages = StageRunner(tmp_path, lambda line: None)
        stages.run("1-select", {"seed": seed}, first)
        stages.run("2-evolve", {}, second)
    assert (first.calls, second.calls) == (2, 2)


def test_what_no_stage_stands_for_runs_later_stages_again(tmp_path: Path) -> None:
    made: list[str] = []

    def work(name: str) -> dict[str, Any]:
        made.append(name)
        return {}

    def staged(beside: dict[str, str]) -> None:
        runner = StageRunner(tmp_path, lambda _: None)
        runner.run("one", {}, lambda out: work("one"))
        if beside:
            runner.depend_on(beside)
        runner.run("two", {}, lambda out: work("two"))

    for beside in ({}, {}, {"around": "x"}, {"around": "x"}, {"around": "y"}):
        staged(beside)
    assert made == ["one", "two", "two", "two"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), RuntimeError("broke down")])
def test_interrupted_stage_is_not_done(tmp_path: Path, failure: BaseException) -> None:
    with pytest.raises(type(failure)):
        _run(tmp_path, _Work(failure))
    assert "finished" not in _manifest(tmp_path)
    work = _Work()
    _run(tmp_path, work)
    assert work.calls == 1
    assert work.found == [[]]  # what was half done is gone


def test_partial_work_is_kept_where_the_stage_can_resume(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, _Work(KeyboardInterrupt()), keep_partial=True)
    work = _Work()
    _run(tmp_path, work, keep_partial=True)
    assert work.found == [["rows.jsonl"]]


def test_the_time_of_a_stage_counts_what_interrupted_runs_of_it_took(tmp_path: Path) -> None:
    folder = tmp_path / "1-select"
    for took in (40, 20):
        with pytest.raises(KeyboardInterrupt):
            _run(tmp_path, _Work(KeyboardInterrupt()), keep_partial=True)
        began = (folder / MANIFEST).stat().st_mtime
        os.utime(folder / "rows.jsonl", (began, began + took))
    _run(tmp_path, _Work(), keep_partial=True)
    assert 60 <= _manifest(tmp_path)["seconds"] < 65


def test_partial_work_of_another_config_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path, _Work(KeyboardInterrupt()), {"seed": 0}, keep_partial=True)
    work = _Work()
    _run(tmp_path, work, {"seed": 1}, keep_partial=True)
    assert work.found == [[]]


def test_what_grows_alone_leaves_what_is_there(tmp_path: Path) -> None:
    for config in ({"seed": 0, "asked": 1}, {"seed": 0, "asked": 2}):
        work = _Work()
        _run(tmp_path, work, config, keep_partial=True, grows="asked")
    assert (work.calls, work.found) == (1, [["rows.jsonl"]])
    _run(tmp_path, other := _Work(), {"seed": 1, "asked": 2}, keep_partial=True, grows="asked")
    assert other.found == [[]]


def test_half_a_manifest_is_none(tmp_path: Path) -> None:
    work = _Work()
    _run(tmp_path, work)
    file = tmp_path / "1-select" / MANIFEST
    file.write_text(file.read_text()[:30])
    _run(tmp_path, work)
    assert work.calls == 2


FULL_DISK = [
    OSError(errno.ENOSPC, "No space left on device"),
    # The writer of weights has an error of its own for it, as was seen on a full tmpfs.
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("failure", FULL_DISK)
def test_full_disk_is_a_clear_error_and_not_done(tmp_path: Path, failure: Exception) -> None:
    with pytest.raises(StageError, match="the disk is full") as caught:
        _run(tmp_path, _Work(failure))
    assert "run the command again" in str(caught.value)
    assert "finished" not in _manifest(tmp_path)
    work = _Work()
    _run(tmp_path, work)
    assert work.calls == 1


def test_torch_names_no_cause_for_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error is about positions in a stream: what tells is the disk."""

    def save(out: Path) -> dict[str, Any]:
        usage = shutil.disk_usage(tmp_path)._replace(free=4096)
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")

    with pytest.raises(StageError, match="the disk is full"):
        _run(tmp_path, save)


def test_really_full_device_is_a_clear_error(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, which this system lacks")

    def fill(out: Path) -> dict[str, Any]:
        Path("/dev/full").write_text("x" * 100_000)
        return {}

    with pytest.raises(StageError, match="the disk is full"):
        _run(tmp_path, fill)


def test_disk_that_fills_while_the_manifest_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def fails(path: Path, value: Any) -> None:
        if "finished" in value:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_json(path, value)

    monkeypatch.setattr(stage_module, "write_json", fails)
    with pytest.raises(StageError, match="the disk is full"):
        _run(tmp_path, _Work())
    monkeypatch.undo()
    work = _Work()
    _run(tmp_path, work)
    assert work.calls == 1


def test_nearly_full_disk_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1024)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    work = _Work()
    with pytest.raises(StageError, match="the disk is full"):
        _run(tmp_path, work)
    assert work.calls == 0


def test_folder_that_can_not_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StageError, match="can't be written"):
        _run(tmp_path / "file", _Work())


def test_other_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        _run(tmp_path, _Work(PermissionError(errno.EACCES, "no")))


def test_time_of_kept_stages_counts(tmp_path: Path) -> None:
    _run(tmp_path, _Work())
    file = tmp_path / "1-select" / MANIFEST
    file.write_text(json.dumps(_manifest(tmp_path) | {"seconds": 42.0, "peak_gib": 3.5}))
    stages = StageRunner(tmp_path, lambda line: None)
    stages.run("1-select", {}, _Work())
    assert (stages.seconds, stages.peak_gib) == (42.0, 3.5)


def test_rows_that_were_cut_short_since_are_made_again(tmp_path: Path) -> None:
    """They were copied over a good set before their damage was found."""

    def work(out: Path) -> dict[str, Any]:
        (out / "rows.jsonl").write_text('{"a": 1}\n{"a": 2}\n', encoding="utf-8")
        return {}

    for damage in ("truncate", "unlink"):
        _run(tmp_path, work)
        file = tmp_path / "1-select" / "rows.jsonl"
        file.unlink() if damage == "unlink" else file.write_text('{"a": 1}\n{"a"', encoding="utf-8")
        said = _run(tmp_path, work)
        assert any("rows.jsonl was cut short" in line for line in said)
        assert file.read_text(encoding="utf-8") == '{"a": 1}\n{"a": 2}\n'
        assert not any("cut short" in line for line in _run(tmp_path, work))


def test_partial_work_beside_a_damaged_file_is_kept(tmp_path: Path) -> None:
    def work(out: Path) -> dict[str, Any]:
        found = sorted(file.name for file in out.iterdir())
        (out / "rows.jsonl").write_text("{}\n", encoding="utf-8")
        (out / "kept.txt").write_text("x", encoding="utf-8")
        return {"found": ", ".join(found)}

    _run(tmp_path, work, keep_partial=True)
    (tmp_path / "1-select" / "rows.jsonl").write_text("", encoding="utf-8")
    _run(tmp_path, work, keep_partial=True)
    assert _manifest(tmp_path)["counts"]["found"] == "kept.txt, manifest.json"


def test_a_full_disk_says_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=16_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(StageError, match="needs 67,108,864 bytes, 16,000,000 are free"):
        _run(tmp_path, _Work())
