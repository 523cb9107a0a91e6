"""The results file: its shape, and that what was not measured is no figure."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from forethought.metrics import Figure, share
from forethought.report.results import write_results


def _written(tmp_path: Path, figures: list[Figure], missing: dict[str, str] | None = None) -> dict[str, Any]:
    path = tmp_path / "results" / "quickstart.json"
    write_results(path, [0], {"train.jsonl": "ab12"}, figures, missing, "forethought run recipe.yaml")
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # no half-written file beside it
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def test_shape_is_that_of_the_design(tmp_path: Path) -> None:
    content = _written(tmp_path, [share([True] * 7 + [False] * 3 + [None]).named("asr_direct_base")])
    assert set(content) == {"command", "commit", "date", "seeds", "machine", "versions", "inputs", "figures"}
    assert content["command"] == "forethought run recipe.yaml"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", content["date"])
    assert content["seeds"] == [0]
    assert {"cpu", "cores", "memory_gib", "gpu"} <= set(content["machine"])
    assert {"torch", "transformers", "forethought"} <= set(content["versions"])
    assert content["inputs"] == {"train.jsonl": "ab12"}
    assert content["figures"] == [
        {
            "name": "asr_direct_base",
            "value": 0.7,
            "low": 0.3968,
            "high": 0.8922,
            "n": 10,
            "unscored": 1,
            "unit": "share",
        }
    ]


def test_figure_without_interval_has_null(tmp_path: Path) -> None:
    (figure,) = _written(tmp_path, [Figure(name="minutes", value=1.23456, unit="minutes")])["figures"]
    assert (figure["value"], figure["low"], figure["high"]) == (1.2346, None, None)


def test_trap_4_all_unscored_is_missing_and_no_figure(tmp_path: Path) -> None:
    """An outage must not be written as zero, nor as a number that no parser reads."""
    figures = [share([None, None]).named("asr_direct_base"), share([True]).named("asr_unseen_base")]
    content = _written(tmp_path, figures, {"asr_pair_base": "no attacker model"})
    assert [figure["name"] for figure in content["figures"]] == ["asr_unseen_base"]
    assert content["missing"] == {"asr_direct_base": "nothing was scored", "asr_pair_base": "no attacker model"}
    assert "NaN" not in json.dumps(content)


def test_a_small_number_is_not_written_as_zero(tmp_path: Path) -> None:
    figures = [
        Figure(name="tiny", value=0.0000341),
        Figure(name="nothing", value=0.0),
        Figure(name="third", value=1 / 3),
    ]
    write_results(tmp_path / "r.json", [0], {}, figures)
    rows = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["figures"]
    assert [row["value"] for row in rows] == [0.0000341, 0.0, 0.3333]


def test_noise_of_the_arithmetic_is_zero(tmp_path: Path) -> None:
    write_results(tmp_path / "r.json", [0], {}, [Figure(name="f", value=0.0, low=1.4e-17, high=0.2)])
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["figures"][0]["low"] == 0.0


def test_several_commands_write_one_file_and_each_keeps_what_the_others_measured(tmp_path: Path) -> None:
    def written(command: str, missing: dict[str, str] | None = None, **figures: float) -> dict[str, Any]:
        rows = [Figure(name=name, value=value) for name, value in figures.items()]
        write_results(tmp_path / "r.json", [0], {}, rows, missing, command, keep=True)
        loaded: dict[str, Any] = json.loads((tmp_path / "r.json").read_text("utf-8"))
        return loaded

    assert "earlier" not in written("one", {"c": "no time"}, a=1.0, b=1.0)
    found = written("two", b=2.0, d=2.0)
    assert {row["name"]: row["value"] for row in found["figures"]} == {"a": 1.0, "b": 2.0, "d": 2.0}
    assert (found["command"], found["missing"]) == ("two", {"c": "no time"})
    assert [(part["command"], part["figures"]) for part in found["earlier"]] == [("one", ["a"])]
    found = written("three", c=3.0)
    assert [(part["command"], part["figures"]) for part in found["earlier"]] == [("one", ["a"]), ("two", ["b", "d"])]
    assert "missing" not in found
    found = written("four", {"a": "it broke"}, b=float("nan"))
    assert {row["name"] for row in found["figures"]} == {"c", "d"}
    assert found["missing"] == {"a": "it broke", "b": "nothing was scored"}
    assert [part["command"] for part in found["earlier"]] == ["two", "three"]
