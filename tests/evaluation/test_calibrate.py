"""`forethought calibrate` on a tiny model: what it writes, what it says, and when it changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from forethought.cli.calibrate import calibrate as calibrate_cli
from forethought.data.shipped import shipped_requests
from forethought.defences.fusion import Fusion, load_fusion
from forethought.errors import InputError, ModelError
from forethought.evaluation import calibrate as module
from forethought.evaluation.calibrate import calibrate
from forethought.measure.calibrate import Method, allowed_refusals, choose_threshold
from forethought.measure.probe import Probe, ProbeSettings
from forethought.model import load, write_run_model
from forethought.models.local import LocalModel
from forethought.models.settings import read_settings
from forethought.policy import default_policy
from forethought.progress import Progress
from forethought.records import Message, Request
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


def _run(model: Path, files: tuple[str, str], limit: float = 0.2, method: Method = "clopper-pearson") -> None:
    print(calibrate(str(model), limit, method=method, harmless=[files[0]], harmful=[files[1]]))


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
    requests = module._requests([files[0]], False, (), Progress())
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
    assert "max_false_refusal 0.14" in text
    assert read_settings(model).threshold_note == "as trained"


def test_shipped_requests_are_enough_for_two_in_a_hundred() -> None:
    """149 are needed without a refusal; the default sample bears five."""
    rows = module._requests((), False, module._SHIPPED, Progress())
    assert len(rows) == 531
    assert allowed_refusals(len(rows), 0.02, 0.95, "clopper-pearson") == 5


def test_shipped_requests_are_too_few_for_five_in_a_thousand(model: Path) -> None:
    with pytest.raises(InputError, match=r"531 harmless requests are too few .* at least 598"):
        calibrate(model, 0.005)


def test_of_a_run_the_best_defences_threshold_is_set(tmp_path: Path, files: tuple[str, str]) -> None:
    run, trained = tmp_path / "run", tmp_path / "run" / "5-train"
    tiny_adapter(trained, threshold=0.5)
    local = LocalModel.load(str(trained))
    settings = ProbeSettings(
        model=local.name, layer=1, policy=default_policy(), rules=(), auroc_dev=1.0, strength=0.1, rows={}
    )
    width = int(local.base_weights.config.hidden_size)
    probe = Probe.fitted(settings, np.ones((1, width), np.float32), np.zeros(1, np.float32), local)
    fusion = Fusion(
        model=local.name, weight=0.5, verdict_mean=0.0, verdict_scale=1.0, probe_mean=0.0, probe_scale=1.0,
        threshold=100.0, calibration=choose_threshold([1.0], [0.0], [], 0.02, 0.1), auroc_dev=1.0,
        auroc_dev_verdict=0.9, auroc_dev_probe=0.9, n_calibration=2,
    )  # fmt: skip
    fusion.save(run / "8-fuse", probe)
    write_run_model(run, str(tiny_folder()), trained, f"fused:{run / '8-fuse'}")
    found = calibrate(run, 0.2, harmless=[files[0]], harmful=[files[1]])
    assert found.before == 100.0
    assert load_fusion(run / "8-fuse")[0].threshold == pytest.approx(found.threshold)
    assert read_settings(trained).threshold == 0.5
    alone = calibrate(run, 0.2, harmless=[files[0]], harmful=[files[1]], defence="none")
    assert alone.before == 0.5
    assert read_settings(trained).threshold == pytest.approx(alone.threshold)


def _scripted(monkeypatch: pytest.MonkeyPatch, odds: Callable[[Request], float | None]) -> None:
    """A model whose log-odds are known for each shipped request; the real one only has its folder read."""
    known = {
        request.text: odds(request)
        for name in (*module._SHIPPED, "contrast")
        for request in shipped_requests(name, "dev")
    }

    class Scripted:
        name, settings = "scripted", None

        def think(self, chats: list[list[Message]], **_: object) -> list[SimpleNamespace]:
            return [SimpleNamespace(log_odds=known[chat[-1].content]) for chat in chats]

    monkeypatch.setattr(LocalModel, "load", lambda *_, **__: Scripted())


def test_by_default_look_alikes_are_reported_apart_and_do_not_move_the_bound(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All look-alikes score above all ordinary requests: in the sample, they would lift the threshold above 2."""
    by_kind = {"ordinary": 0.0, "lookalike": 2.0, "harmful": 4.0}
    _scripted(monkeypatch, lambda request: by_kind[request.kind])
    print(calibrate(model, 0.02))
    settings = read_settings(model)
    assert settings.threshold == pytest.approx((0 + 4) / 2)  # harmful scores place it; look-alikes do not
    assert "0 of 531 were" in settings.threshold_note
    assert "100% of 39 harmful development requests and 100% of 39 harmless look-alikes" in settings.threshold_note
    assert "which the bound does not cover" in settings.threshold_note
    out = " ".join(capsys.readouterr().out.split())
    assert "at most 2.0% of harmless requests like these are refused (0 of 531 were" in out
    assert "Not covered by the bound, harmless look-alikes of harmful requests: of 39 shipped ones, 1.00" in out
    assert "(at 0.50: 1.00)" in out


def test_unscored_look_alikes_are_counted_and_an_unscored_ordinary_request_counts_as_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = shipped_requests("calibration")[0].id
    _scripted(
        monkeypatch,
        lambda r: None if r.kind == "lookalike" or r.id == first else 4.0 if r.harmful else 0.0,
    )
    print(calibrate(model, 0.02))
    note = read_settings(model).threshold_note
    assert "1 of 531 were" in note
    assert "look-alikes" not in note
    assert "not measured, 39 unscored" in " ".join(capsys.readouterr().out.split())


def test_with_your_own_requests_no_shipped_look_alike_is_thought_about(
    model: Path, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    _run(model, files)
    assert "look-alike" not in read_settings(model).threshold_note + capsys.readouterr().out


def test_sources_are_told_apart_and_the_log_is_what_the_bound_is_about(
    model: Path, files: tuple[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(json.dumps({"prompt": f"When does museum {n} open?"}) for n in range(25)))
    found = calibrate(model, 0.2, harmless=[files[0]], traffic=str(log), harmful=[files[1]])
    assert found.found.n == 25
    assert found.elsewhere is not None
    assert [one.name for one in found.elsewhere.sources] == [files[0], str(log)]
    assert "NOT to be relied on for other traffic" in str(found)
    kept = load(str(model)).traffic
    assert kept is not None
    assert kept.reference.n == 25


def test_traffic_that_has_moved_since_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _scripted(monkeypatch, lambda request: len(request.text) / 100)
    assert calibrate(model, 0.02).moved is None
    assert "has moved" not in str(calibrate(model, 0.02))
    _scripted(monkeypatch, lambda request: 5 + len(request.text) / 100)
    assert "Traffic has moved since the threshold was last set" in str(calibrate(model, 0.02))


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
    got: dict[str, object] = {}
    monkeypatch.setattr(module, "calibrate", lambda *args, **named: got.update(named, args=args))
    app = typer.Typer()
    app.command()(calibrate_cli)
    done = CliRunner().invoke(app, ["m", "--max-false-refusal", "0.05", "--harmless", "a", "--harmless", "b"])
    assert done.exit_code == 0, done.output
    assert got["args"] == ("m", 0.05)
    assert (got["confidence"], got["method"], got["harmless"]) == (0.95, "clopper-pearson", ["a", "b"])
    assert CliRunner().invoke(app, ["m"]).exit_code == 2
    assert CliRunner().invoke(app, ["m", "--max-false-refusal", "0.05", "--method", "bayes"]).exit_code == 2
