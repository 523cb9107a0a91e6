"""Two processes end as one does: DDP and FSDP2, by the shipped accelerate configs, killed on the way and resumed."""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from peft import PeftModel
from safetensors.torch import load_file
from torch.distributed import run

from forethought.errors import ConfigError
from forethought.models.weights import batches_in_bfloat16
from forethought.training.fit import last_checkpoint, train
from forethought.training.objective import Batch, PairedObjective, Step
from forethought.training.trainer import arguments
from tests.child import Child
from tests.tiny import tiny_folder, tiny_model
from tests.training.test_fit import CONFIG, make_rows

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "recipes" / "accelerate"
# Dropout is drawn by each process for its own rows: no two divisions of a batch would draw alike.
SAME = CONFIG.model_copy(update={"dropout": 0.0})
# Nats of loss, and the adapter's weights; where frozen weights are bfloat16, a smaller batch rounds otherwise.
LOSS_TOLERANCE, WEIGHT_TOLERANCE = (0.05, 0.1) if batches_in_bfloat16() else (1e-4, 1e-3)


class Written:
    """The paired objective; every process appends each step's values, which are those of all processes."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def loss(self, model: Any, batch: Batch, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        loss, values = PairedObjective().loss(model, batch, step)
        sharded = any(hasattr(parameter, "device_mesh") for parameter in model.parameters())
        row = {
            "step": step.number, "processes": step.processes, "rows": len(batch["term"]), "sharded": sharded,
            "pid": os.getpid(), **values,
        }  # fmt: skip
        with (self._out / f"losses-{os.environ.get('RANK', '0')}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        return loss, values

    def __repr__(self) -> str:
        return "Written"


_CHILD = """
import sys, time
from pathlib import Path
from forethought.training.fit import train
from tests.training.test_distributed import SAME, Written
from tests.training.test_fit import make_rows

out = Path(sys.argv[1])

def hang(step, steps, losses):
    if step == 9 and sys.argv[3] == "hang":
        (out / "at-step-9").touch()
        time.sleep(600)

train(sys.argv[2], make_rows(), SAME, out, hang, Written(out))
"""


def _launch(config: str, out: Path, how: str) -> Child:
    script = out / "child.py"
    script.write_text(_CHILD, encoding="utf-8")
    line = [
        "--config_file",
        CONFIGS / config,
        "--num_processes",
        2,
        "--mixed_precision",
        "no",
        "--main_process_port",
        0,
    ]
    env = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    log = out / f"{how}.log"
    return Child(_accelerate, *map(str, [*line, script, out, tiny_folder(), how]), environment=env, out=log, err=log)


def _accelerate() -> None:
    """`accelerate launch`, whose workers are forked from it: they have its imports already."""
    from accelerate.commands import launch

    read = run.config_from_args

    def forked(given: Any) -> Any:
        config, _, arguments = read(given)
        config.start_method = "fork"
        return config, _worker, arguments

    with patch.object(run, "config_from_args", forked):
        launch.main()


def _worker(*line: str) -> None:
    sys.argv = list(line[line.index("-u") + 1 :])
    runpy.run_path(sys.argv[0], run_name="__main__")


def _written(out: Path, rank: int) -> list[dict[str, Any]]:
    text = (out / f"losses-{rank}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _kill(child: Child, out: Path) -> None:
    """The launcher and its workers."""
    workers = {_written(out, rank)[-1]["pid"] for rank in range(2) if (out / f"losses-{rank}.jsonl").exists()}
    child.kill()
    for worker in workers:
        try:
            os.kill(worker, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of one process."""
    out = tmp_path_factory.mktemp("one")
    train(str(tiny_folder()), make_rows(), SAME, out, objective=Written(out))
    return out


@pytest.mark.slow
@pytest.mark.parametrize(("config", "sharded"), [("ddp.yaml", False), ("fsdp2.yaml", True)])
def test_two_processes_killed_and_resumed_end_as_one_does(
    one: Path, tmp_path: Path, config: str, sharded: bool
) -> None:
    """Killed at step 9, one after a checkpoint: all losses and the adapter are those of one process."""
    child = _launch(config, tmp_path, "hang")
    try:
        deadline = time.monotonic() + 240
        while not (tmp_path / "at-step-9").exists():
            assert child.poll() is None, (tmp_path / "hang.log").read_text(encoding="utf-8")[-3000:]
            assert time.monotonic() < deadline, "two processes never came to step 9"
            time.sleep(0.1)
    finally:
        _kill(child, tmp_path)
    assert not (tmp_path / "adapter_model.safetensors").exists()
    found = last_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "checkpoint-8"
    again = _launch(config, tmp_path, "resume")
    assert again.wait(timeout=240) == 0, (tmp_path / "resume.log").read_text(encoding="utf-8")[-3000:]

    expected, first, second = _written(one, 0), _written(tmp_path, 0), _written(tmp_path, 1)
    assert [row["step"] for row in first] in ([*range(9), *range(8, 12)], [*range(10), *range(8, 12)])
    for row, other in zip(first, second, strict=False):
        assert (row["processes"], row["rows"], other["rows"], row["sharded"]) == (2, 2, 2, sharded)
        assert row["refusal"] == pytest.approx(other["refusal"])
        alone = expected[row["step"]]
        assert alone["processes"] == 1
        assert {term: row[term] for term in ("refusal", "benign")} == pytest.approx(
            {term: alone[term] for term in ("refusal", "benign")}, abs=LOSS_TOLERANCE
        )
    whole, parts = (load_file(folder / "adapter_model.safetensors") for folder in (one, tmp_path))
    assert set(whole) == set(parts)
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, atol=WEIGHT_TOLERANCE, rtol=0.0)
    assert PeftModel.from_pretrained(tiny_model(), str(tmp_path)).peft_config


@pytest.mark.parametrize(
    ("name", "kind"), [("ddp.yaml", "MULTI_GPU"), ("fsdp2.yaml", "FSDP"), ("zero3.yaml", "DEEPSPEED")]
)
def test_shipped_configs_are_read_by_accelerate(name: str, kind: str) -> None:
    """Its own loader refuses keys it doesn't know."""
    config = load_config_from_file(str(CONFIGS / name))
    assert config.distributed_type == kind
    assert config.mixed_precision == "bf16"
    if name == "fsdp2.yaml":
        assert config.fsdp_config["fsdp_version"] == 2
        # Sharded files would need a merge before plain PEFT could load them.
        assert config.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    if name == "zero3.yaml":
        assert config.deepspeed_config["zero_stage"] == 3


def test_a_batch_that_can_not_be_divided_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trl.SFTConfig.world_size", 3)
    with pytest.raises(ConfigError, match="can't be divided among 3 processes"):
        arguments(CONFIG, tmp_path)
