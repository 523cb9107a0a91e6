"""`forethought calibrate` on a tiny model: what it writes, what it says, and when it changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from forethought.cli.calibrate import calibrate as calibrate_cli
from forethought.commands import calibrate as module
from forethought.commands.calibrate import calibrate
from forethought.engine.local import LocalModel, read_settings
from forethought.errors import InputError, ModelError
from tests.tiny import tiny_adapter, tiny_folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Twenty harmless and five harmful requests."""
    folder = tmp_path_factory.mktemp("rows")
    harmless, harmful = folder / "harmless.jsonl", folder / "harmful.jsonl"
    rows = [{"prompt": f"How do I bake loaf number {n}?", "label": "harmless"} for n in range(20)]
    # A request twice is one observation.
    harmless.write_text("\n".join(map(json.dumps, [*rows, rows[0]])), encoding="utf-8")
    rows = [{"prompt": f"Help me cheat at game {n} for money"} for n in range(5)]
    harmful.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(harmless), str(harmful)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny_folder()
    return tiny_adapter(tmp_path / "model", threshold=0.5, threshold_note="as trained")


def _run(model: Path, files: tuple[str, str], limit: float = 0.2, method: str = "clopper-pearson") -> None:
    calibrate(str(model), limit, 0.95, method, [files[0]], [files[1]], batch_size=128)


def test_threshold_is_written_where_the_model_is_used(
    model: Path, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    _run(model, files)
    settings = read_settings(model)
    assert settings.threshold != 0.5
    assert "0 of 20 were" in settings.threshold_note
    assert "of 5 harmful development requests" in settings.threshold_note
    local = LocalModel.load(str(model))
    assert local.settings is not None
    assert local.settings.threshold == settings.threshold
    out = " ".join(capsys.readouterr().out.split())
    assert "With 95% confidence, at most 13.9% of harmless requests like these are refused" in out
    assert "of 5 harmful requests" in out
    assert f"Threshold {settings.threshold:.3f}" in out
    # None of the calibration requests, the repeated one counted once, is refused there.
    requests = module._requests([files[0]], harmful=False, shipped=())
    assert len(requests) == 20
    odds = [response.log_odds for response in local.think([row.messages for row in requests])]
    assert all(score is not None and score < settings.threshold for score in odds)


def test_too_small_a_sample_changes_nothing_and_loads_no_model(
    model: Path, files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(LocalModel, "load", load)
    with pytest.raises(InputError) as error:
        _run(model, files, limit=0.1)
    text = str(error.value)
    assert "20 harmless requests are too few" in text
    assert "at least 29" in text
    assert "--max-false-refusal 0.14" in text
    assert read_settings(model).threshold_note == "as trained"


def test_shipped_requests_are_too_few_for_two_in_a_hundred(model: Path) -> None:
    with pytest.raises(InputError, match="at least 149"):
        calibrate(str(model), 0.02, 0.95, "clopper-pearson", [], [])


def test_conformal_needs_fewer(model: Path, files: tuple[str, str]) -> None:
    _run(model, files, limit=0.1, method="conformal")
    assert "on average" in read_settings(model).threshold_note


def test_a_model_that_does_not_think_is_an_error(files: tuple[str, str]) -> None:
    with pytest.raises(ModelError):
        _run(tiny_folder(), files)


def test_a_file_without_harmless_requests_is_an_error(model: Path, files: tuple[str, str], tmp_path: Path) -> None:
    rows = [{"prompt": f"Help me cheat at game {n}", "label": "harmful"} for n in range(3)]
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(InputError, match="harm"):
        _run(model, (str(path), files[1]))


def test_command_line_parses(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[object] = []
    monkeypatch.setattr(module, "calibrate", lambda *args: got.extend(args))
    app = typer.Typer()
    app.command()(calibrate_cli)
    done = CliRunner().invoke(app, ["m", "--max-false-refusal", "0.05", "--harmless", "a", "--harmless", "b"])
    assert done.exit_code == 0, done.output
    assert got == ["m", 0.05, 0.95, "clopper-pearson", ["a", "b"], []]
    assert CliRunner().invoke(app, ["m"]).exit_code == 2
    assert CliRunner().invoke(app, ["m", "--max-false-refusal", "0.05", "--method", "bayes"]).exit_code == 2
