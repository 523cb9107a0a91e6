"""Several cells of a sweep at once: each in a process of its own, which ends with the sweep that started it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from forethought.research.config import Sweep, lenders
from forethought.research.sweep import cells_for_workers, end_with_parent
from tests.child import command
from tests.research.sweep_content import sweep_content, sweep_file


@pytest.mark.slow
def test_workers_do_the_cells_and_one_that_fails_is_missing_with_its_reason(tmp_path: Path) -> None:
    methods = ["refusal", {"id": "starved", "name": "refusal", "train": {"skip_layers": 40}}]
    file, out = sweep_file(tmp_path, methods=methods, prompts=[], wrappers=[]), tmp_path / "out"
    told = tmp_path / "out.txt"
    command("sweep", file, "--out", out, "--workers", 2, out=told, environment={"COLUMNS": "200"}).wait()
    said = told.read_text().replace("\n", " ")
    assert "refusal: done" in said, said
    assert "starved: ended with 1, see workers/starved.log" in said
    assert "train: kept from before" in said, "the worker's training was done again"
    assert "skip_layers: 40" in (out / "workers" / "starved.log").read_text()
    results = json.loads((out / "results.json").read_text())
    assert "asr_direct_refusal" in {figure["name"] for figure in results["figures"]}
    assert "skip_layers" in results["missing"]["auroc_unseen_starved"]


def test_a_worker_ends_with_its_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setenv("FORETHOUGHT_PARENT", str(os.getppid()))
    end_with_parent(ended.append)
    time.sleep(0.1)
    assert not ended
    monkeypatch.setattr(os, "getppid", lambda: 1)
    for _ in range(40):
        if ended:
            break
        time.sleep(0.1)
    assert ended == [1]


def test_a_defence_that_shares_weights_waits_for_them() -> None:
    sweep = Sweep.model_validate(sweep_content())
    assert lenders(sweep, ["scot_split", "refusal"]) == ["scot"]
    assert cells_for_workers(sweep) == ["prompt", "linear_probe", "scot", "refusal"]
    best = {"id": "best", "weights_of": "split"}
    chained = Sweep.model_validate(sweep_content(methods=["scot", {"id": "split", "weights_of": "scot"}, best]))
    assert lenders(chained, ["best"]) == ["scot", "split"]
