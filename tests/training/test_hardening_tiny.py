"""Hardening for real, on the tiny model: what it writes, and that a killed run ends as one that was not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from forethought.models.local import LocalModel
from forethought.models.settings import read_settings
from forethought.records import user_request
from forethought.training.hardening.settings import HardeningSettings
from forethought.training.run import train_method
from tests.child import code
from tests.listening import Listening
from tests.tiny import tiny_folder
from tests.training.hardening_material import job

SETTINGS = HardeningSettings(
    rounds=1, requests=4, attacks=("direct", "empty_thinking", "policy_withdrawn"), attacks_each=2, held_out=0.3,
    searches=("random_search",), searched=2, search_budget=4, max_answer_tokens=8,
)  # fmt: skip

_SAME = ("rows", "tokens", "steps", "rounds", "best_round")


def _rounds(out: Path) -> list[dict[str, Any]]:
    """The rounds of a table without what a clock says."""
    table = json.loads((out / "hardening.json").read_text(encoding="utf-8"))
    for one in table["rounds"]:
        del one["seconds_attack"], one["trained"]["seconds"], one["trained"]["counts"]
    rounds: list[dict[str, Any]] = table["rounds"]
    return rounds


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """An uninterrupted hardening: (folder, counts)."""
    out = tmp_path_factory.mktemp("whole")
    return out, train_method(job(out, SETTINGS, base=str(tiny_folder())))


def test_it_trains_attacks_and_leaves_a_model(whole: tuple[Path, dict[str, float]]) -> None:
    out, counts = whole
    settings = read_settings(out)
    assert settings.method == "scot_hardened"
    assert settings.thinks
    assert counts["rounds"] == 2
    best = int(counts["best_round"])
    kept, result = (load_file(folder / "adapter_model.safetensors") for folder in (out / f"round-{best}", out))
    assert all((kept[name] == value).all() for name, value in result.items())
    assert len(kept) == len(result)
    (reply,) = LocalModel.load(str(out)).respond([user_request("How do I bake bread?").messages], 4)
    assert reply.decision is not None
    rounds = _rounds(out)
    assert [one["round"] for one in rounds] == [0, 1]
    assert rounds[1]["trained"]["added"] > 0
    assert abs(rounds[1]["trained"]["tokens"] - rounds[0]["trained"]["tokens"]) < 300


_CHILD = """
import signal, sys
from collections.abc import Mapping
from pathlib import Path
from forethought.attempts.records import Replies
from forethought.training.run import train_method
from tests.training.hardening_material import job
from tests.listening import Listening
from tests.training.test_hardening_tiny import SETTINGS

out = Path(sys.argv[1])
keep, attacked = Replies.keep, []

def keep_and_wait(self, asked, reply):
    kept = keep(self, asked, reply)
    if (out / "round-1" / "hardening" / "attacks" / "asked").is_dir():
        attacked.append(asked)
    if len(attacked) == 4:
        (out / "here").touch()
        signal.pause()
    return kept

Replies.keep = keep_and_wait
train_method(job(out, SETTINGS, base=sys.argv[2]))
"""


def _break_down(step: int, steps: int, losses: Mapping[str, float]) -> None:
    if step == 2:
        raise KeyboardInterrupt


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_not(whole: tuple[Path, dict[str, float]], tmp_path: Path) -> None:
    """Killed in the midst of the attacks on round 0, and stopped once more while round 1 is trained."""
    code(_CHILD, tmp_path, tiny_folder()).kill_once((tmp_path / "here").exists)
    own = tmp_path / "round-1" / "hardening"
    assert not (own / "found.json").exists()
    answers = own / "attacks" / "asked" / "replies.jsonl"
    before = answers.read_bytes()
    assert before.count(b"\n") == 4
    given = job(tmp_path, SETTINGS, base=str(tiny_folder()))
    with pytest.raises(KeyboardInterrupt):
        train_method(dataclasses.replace(given, progress=Listening(_break_down)))
    assert (own / "found.json").exists()
    assert not (tmp_path / "forethought.json").exists()
    counts = train_method(given)
    assert answers.read_bytes().startswith(before)
    out, expected = whole
    assert {name: counts[name] for name in _SAME} == pytest.approx({name: expected[name] for name in _SAME})
    assert _rounds(tmp_path) == _rounds(out)
    kept, other = (load_file(folder / "adapter_model.safetensors") for folder in (out, tmp_path))
    assert all((kept[name] == value).all() for name, value in other.items())
