"""`forethought ladder` through its command: steps of several sweeps, each trained once, against one reference."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from forethought.attacks.catalogue import parse_attack
from forethought.cli.app import app
from forethought.cli.terminal import console
from forethought.data.evolve import load_operators
from forethought.errors import ConfigError
from forethought.research.ladder import load_ladder
from tests.research.sweep_content import sweep_content
from tests.tiny import tiny_folder

STEPS = Path(__file__).parents[2] / "recipes" / "ladder"


def _write(folder: Path, second: str = "extends: 1.yaml\nname: second\n") -> Path:
    steps = folder / "steps"
    steps.mkdir()
    plain = {"id": "plain", "name": "scot", "why": "what all are set against"}
    first = sweep_content(name="first", reference="plain", methods=[plain], prompts=[], wrappers=[])
    (steps / "1.yaml").write_text(yaml.safe_dump(first))
    (steps / "2.yaml").write_text(second)
    return steps


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["ladder", *arguments])


@pytest.mark.slow
def test_steps_are_set_against_one_that_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 240)
    plain = "{id: plain, name: scot, why: what all are set against}"
    narrow = "{id: narrow, after: plain, train: {rank: 1}, why: half the rank}"
    thrice = "{id: thrice, after: narrow, passes: 3, why: a third of the rows three times}"
    whole = "{id: whole, after: plain, train: {method: full, learning_rate: 1.0e-3}, why: all weights}"
    steps = "".join(f"  - {step}\n" for step in (plain, narrow, thrice, whole))
    folder = _write(tmp_path, f"extends: 1.yaml\nname: second\nmethods:\n{steps}")
    done = _run(str(folder), "--out", str(tmp_path / "out"), "--results", str(tmp_path / "ladder.json"))
    assert "half the rank" in done.output, done.output
    kept = [line for line in done.output.splitlines() if "kept from before" in line]
    assert any("plain-b2200 train" in line for line in kept)
    held = json.loads((tmp_path / "ladder.json").read_text())
    names = {figure["name"] for figure in held["figures"]} | set(held.get("missing", {}))
    assert {f"auroc_unseen_{step}" for step in ("plain", "narrow", "thrice", "whole")} <= names
    assert "refused_ordinary_base" in names
    assert any(name.startswith("diff_") and name.endswith("_narrow_vs_plain") for name in names)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "half the rank" in page
    assert 'href="second/report.html"' in page
    assert (tmp_path / "out" / "second" / "report.html").is_file()
    assert "plain" in (tmp_path / "out" / "gains.svg").read_text()
    cells = tmp_path / "out" / f"{tiny_folder().name}-s0"
    configs = [cells / f"{name}-b2200" / "train" / "adapter_config.json" for name in ("plain", "narrow", "thrice")]
    ranks = [json.loads(file.read_text())["r"] for file in configs]
    assert ranks == [2, 1, 1]
    assert (cells / "whole-b2200" / "attack" / "judged.jsonl").is_file(), "trained and never judged"
    once, more = (json.loads((file.parent / "manifest.json").read_text())["counts"] for file in configs[1:])
    assert once["passes"] < 1.1  # a row more would have been too many
    assert more["passes"] >= 3
    assert more["rows"] <= once["rows"] / 2
    assert more["tokens"] <= once["tokens"] * 1.1

    again = _run(str(folder), "--out", str(tmp_path / "out"), "--so-far")
    assert again.exit_code == done.exit_code

    # Elsewhere, with the logs of that run: no step is trained again.
    there = tmp_path / "there" / cells.name
    for stage in ("data", "base"):
        shutil.copytree(cells / stage, there / stage)
    taken = _run(str(folder), "--out", str(there.parent), "--kept", str(tmp_path / "out"))
    assert taken.exit_code == done.exit_code
    assert {one.name for one in there.iterdir()} == {"data", "base"}
    figures = [
        json.loads((place / "results.json").read_text())["figures"] for place in (tmp_path / "out", there.parent)
    ]
    assert len(figures[0]) == len(figures[1])


def test_the_shipped_ladder_is_sound_and_tests_no_style_that_it_trains_on() -> None:
    sweeps = load_ladder(STEPS)
    assert {sweep.evaluate.split for sweep in sweeps} == {"dev"}
    assert all(any(entry.label == "plain" for entry in sweep.methods) for sweep in sweeps)
    assert all(entry.why for sweep in sweeps for entry in sweep.methods)
    for sweep in sweeps:
        assert sweep.build.operators is None
        trained = set(load_operators()) - set(sweep.build.exclude_operators)
        near = {one for attack in sweep.evaluate.attacks for one in parse_attack(attack).relatives}
        assert not near & trained


@pytest.mark.parametrize(
    ("second", "told"),
    [("extends: 1.yaml\nreference: scot\n", "against the same one"), ("extends: 3.yaml", "no such sweep")],
)
def test_a_fault_is_told_before_anything_is_run(tmp_path: Path, second: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_ladder(_write(tmp_path, second))


def test_a_folder_without_logs_is_told(tmp_path: Path) -> None:
    done = _run(str(_write(tmp_path)), "--out", str(tmp_path / "out"), "--kept", str(tmp_path))
    assert "holds no log" in str(done.exception)


def test_a_folder_without_sweeps_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no sweeps"):
        load_ladder(tmp_path)
