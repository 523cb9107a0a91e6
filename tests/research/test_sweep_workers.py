"""Several cells of a sweep at once, each a worker's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forethought.research.config import Sweep, lenders, load_sweep
from forethought.research.sweep import cells_for_workers, run_sweep
from tests.cluster.inline import inline
from tests.listening import Listening
from tests.research.sweep_content import sweep_content, sweep_file


@pytest.mark.slow
def test_workers_do_the_cells_and_one_that_fails_is_missing_with_its_reason(tmp_path: Path) -> None:
    methods = ["refusal", {"id": "starved", "name": "refusal", "train": {"skip_layers": 40}}]
    file, out = sweep_file(tmp_path, methods=methods, prompts=[], wrappers=[]), tmp_path / "out"
    heard = Listening()
    with inline():
        run_sweep(load_sweep(file), out, on="ray", progress=heard)
    said = " ".join(heard.said)
    assert "refusal: done" in said, said
    assert "starved: not done, see workers/starved.log" in said
    assert "train: kept from before" in said, "the worker's training was done again"
    assert "skip_layers: 40" in (out / "workers" / "starved.log").read_text()
    results = json.loads((out / "results.json").read_text())
    assert "asr_direct_refusal" in {figure["name"] for figure in results["figures"]}
    assert "skip_layers" in results["missing"]["auroc_unseen_starved"]


def test_a_defence_that_shares_weights_waits_for_them() -> None:
    sweep = Sweep.model_validate(sweep_content())
    assert lenders(sweep, ["scot_split", "refusal"]) == ["scot"]
    assert cells_for_workers(sweep) == ["prompt", "linear_probe", "scot", "refusal"]
    best = {"id": "best", "weights_of": "split"}
    chained = Sweep.model_validate(sweep_content(methods=["scot", {"id": "split", "weights_of": "scot"}, best]))
    assert lenders(chained, ["best"]) == ["scot", "split"]
