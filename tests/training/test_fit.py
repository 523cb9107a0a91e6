"""Training: the loss by hand, what moves, what is saved, and that a killed run ends the same."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from forethought.errors import ConfigError, ModelError, StageError
from forethought.policy import default_policy
from forethought.training import fit
from forethought.training.config import TrainConfig
from forethought.training.fit import last_checkpoint, train
from forethought.training.forward import add_taught_head
from forethought.training.objective import Step, paired_loss
from forethought.training.rows import TokenRow, collate, tokenize
from forethought.training.trainer import disturb, lora
from tests.child import code
from tests.tiny import harmful_example, harmless_example, tiny_folder, tiny_model, tiny_tokenizer

# Two epochs of six steps; dropout, so that the random state has to be restored too.
CONFIG = TrainConfig(
    rank=4, alpha=8, dropout=0.1, learning_rate=1e-2, epochs=2, batch_size=4, checkpoint_steps=2, seed=3
)


def make_rows() -> list[TokenRow]:
    """24 rows of both terms and several lengths."""
    tokenizer = tiny_tokenizer()
    examples = [harmful_example("Help me copy a paid film" + " please" * n) for n in range(12)]
    examples += [harmless_example("How do I bake bread" + " today" * n + "?") for n in range(12)]
    return [tokenize(example, tokenizer, default_policy(), "think", "short", 0) for example in examples]


@pytest.fixture(scope="module")
def rows() -> list[TokenRow]:
    return make_rows()


@pytest.fixture(scope="module")
def whole(rows: list[TokenRow], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float], list[Any]]:
    """An uninterrupted run: (folder, counts, what was reported by step)."""
    out = tmp_path_factory.mktemp("whole")
    seen: list[Any] = []
    counts = train(str(tiny_folder()), rows, CONFIG, out, lambda *step: seen.append(step))
    return out, counts, seen


def test_paired_loss_by_hand() -> None:
    log_probs = torch.tensor([[-1.0, -2.0, -9.0], [-4.0, -9.0, -9.0], [-0.5, -1.5, -1.0]], requires_grad=True)
    taught = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    loss, values = paired_loss(log_probs, taught, torch.tensor([0, 0, 1]), benign_weight=0.5)
    # Refusal: (1 + 2 + 4) / 3. Benign: (0.5 + 1.5 + 1) / 3.
    assert values == pytest.approx({"refusal": 7 / 3, "benign": 1.0})
    assert loss.item() == pytest.approx(7 / 3 + 0.5 * 1.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert log_probs.grad is not None
    expected = [[-1 / 3, -1 / 3, 0.0], [-1 / 3, 0.0, 0.0], [-1 / 6, -1 / 6, -1 / 6]]
    torch.testing.assert_close(log_probs.grad, torch.tensor(expected))


def test_terms_are_means_of_their_own_tokens() -> None:
    """A long refusal must not drown a short benign row: the terms are not one mean over all tokens."""
    log_probs = torch.tensor([[-1.0] * 10, [-3.0] + [0.0] * 9])
    taught = torch.tensor([[True] * 10, [True] + [False] * 9])
    loss, values = paired_loss(log_probs, taught, torch.tensor([0, 1]), benign_weight=1.0)
    assert values == pytest.approx({"refusal": 1.0, "benign": 3.0})
    assert loss.item() == pytest.approx(4.0)


@pytest.mark.parametrize(("term", "name"), [(0, "refusal"), (1, "benign")])
def test_absent_term_is_left_out(term: int, name: str) -> None:
    loss, values = paired_loss(torch.tensor([[-2.0]]), torch.tensor([[True]]), torch.tensor([term]), 1.0)
    assert values == {name: 2.0}
    assert loss.item() == 2.0


def test_trap_1_padding_bears_no_loss(rows: list[TokenRow]) -> None:
    """A row has the same loss alone and beside a longer row, whatever the padding token."""
    short, long = min(rows, key=lambda row: row.length), max(rows, key=lambda row: row.length)
    model = tiny_model()
    add_taught_head(model)

    def loss_of_short(batch: Sequence[TokenRow], pad_id: int) -> float:
        inputs = collate([row.model_dump() for row in batch], pad_id)
        inputs.pop("term")
        with torch.no_grad():
            out = model(**inputs, taught_only=True)
        return float(paired_loss(out.log_probs[:1], out.taught[:1], torch.tensor([0]), 1.0)[0])

    alone = loss_of_short([short], pad_id=0)
    assert math.isfinite(alone)
    assert loss_of_short([short, long], pad_id=0) == pytest.approx(alone, rel=1e-5)
    assert loss_of_short([short, long], pad_id=tiny_tokenizer().eos_token_id) == pytest.approx(alone, rel=1e-5)


def test_both_terms_are_reported_apart(whole: tuple[Path, dict[str, float], list[Any]], rows: list[TokenRow]) -> None:
    _, counts, seen = whole
    assert counts["rows"] == 24
    assert counts["steps"] == 12
    assert counts["tokens"] == 2 * sum(row.length for row in rows)
    assert counts["loss_refusal"] > 0
    assert counts["loss_benign"] > 0
    assert counts["loss_refusal"] != counts["loss_benign"]
    assert [step for step, _, _ in seen] == list(range(1, 13))
    assert {steps for _, steps, _ in seen} == {12}
    assert set(seen[-1][2]) == {"loss_refusal", "loss_benign"}


def test_reported_loss_is_that_of_the_data(rows: list[TokenRow], tmp_path: Path) -> None:
    """With a learning rate near zero the reported terms are the base model's own mean losses."""
    config = CONFIG.model_copy(update={"learning_rate": 1e-12, "dropout": 0.0, "epochs": 5, "batch_size": 24})
    model = tiny_model().to(fit._base_dtype(config))
    add_taught_head(model)
    inputs = collate([row.model_dump() for row in rows], pad_id=0)
    term = inputs.pop("term")
    with torch.no_grad():
        out = model(**inputs, taught_only=True)
    _, expected = paired_loss(out.log_probs, out.taught, term, 1.0)
    counts = train(str(tiny_folder()), rows, config, tmp_path)
    assert counts["loss_refusal"] == pytest.approx(expected["refusal"], rel=0.02)
    assert counts["loss_benign"] == pytest.approx(expected["benign"], rel=0.02)


def test_training_moves_the_adapter_and_nothing_else(
    rows: list[TokenRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[tuple[str, torch.Tensor, torch.Tensor]] = []

    def remember(model: Any) -> None:
        held.extend((name, parameter, parameter.detach().clone()) for name, parameter in model.named_parameters())
        add_taught_head(model)

    monkeypatch.setattr(fit, "add_taught_head", remember)
    train(str(tiny_folder()), rows, CONFIG.model_copy(update={"epochs": 1, "skip_layers": 1}), tmp_path)
    assert len(held) > 10
    assert [name for name, now, before in held if not torch.equal(now, before)] == []
    adapter = load_file(tmp_path / "adapter_model.safetensors")
    assert all("lora_" in key for key in adapter)
    # B starts at zero: where it is not, training has moved it.
    assert all(tensor.any() for key, tensor in adapter.items() if "lora_B" in key)
    assert {key.split("layers.")[1].split(".")[0] for key in adapter} == {"1"}


def test_an_adapter_stands_between_the_skipped_layers_and_its_depth() -> None:
    config = TrainConfig(skip_layers=2, depth=0.5)
    assert lora(config, 10).layers_to_transform == [2, 3, 4]
    assert lora(TrainConfig(depth=0.51), 10).layers_to_transform == [0, 1, 2, 3, 4, 5]
    assert lora(TrainConfig(), 10).layers_to_transform is None
    assert "depth" not in TrainConfig().model_dump()  # keys of what was trained before it was there
    with pytest.raises(ConfigError, match="depth"):
        lora(TrainConfig(skip_layers=5, depth=0.5), 10)


def test_an_adapter_may_begin_away_from_nothing() -> None:
    model = get_peft_model(tiny_model(), lora(TrainConfig(rank=4), 2))
    found = []
    for seed in (3, 3, 4):
        disturb(model, 0.05, seed)
        second = [p.detach().flatten() for name, p in model.named_parameters() if "lora_B" in name]
        found.append(torch.cat(second).clone())
    assert float(found[0].std()) == pytest.approx(0.05, rel=0.1)
    assert torch.equal(found[0], found[1]), "a seed gives the same noise in every process"
    assert not torch.equal(found[0], found[2])


def test_adapter_loads_with_plain_peft(whole: tuple[Path, dict[str, float], list[Any]]) -> None:
    out, _, _ = whole
    tokenizer: Any = AutoTokenizer.from_pretrained(str(out))
    inputs = tokenizer("Hello there", return_tensors="pt")
    base = tiny_model()
    with torch.no_grad():
        before = base(**inputs).logits
        after = PeftModel.from_pretrained(base, str(out)).eval()(**inputs).logits
    assert torch.isfinite(after).all()
    assert not torch.allclose(before, after)


def test_full_training_saves_a_plain_model(rows: list[TokenRow], tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"method": "full", "epochs": 1, "learning_rate": 1e-3})
    train(str(tiny_folder()), rows, config, tmp_path)
    trained = AutoModelForCausalLM.from_pretrained(str(tmp_path), dtype=torch.float32).state_dict()
    moved = {name for name, value in tiny_model().state_dict().items() if not torch.equal(value, trained[name])}
    assert moved == set(trained)


_CHILD = """
import sys, time
from pathlib import Path
from tests.training.test_fit import CONFIG, make_rows
from forethought.training.fit import train

out = Path(sys.argv[1])

def hang(step, steps, losses):
    if step == 9:
        (out / "at-step-9").touch()
        time.sleep(600)

train(sys.argv[2], make_rows(), CONFIG, out, hang)
"""


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_weights(
    whole: tuple[Path, dict[str, float], list[Any]], rows: list[TokenRow], tmp_path: Path
) -> None:
    """Killed in the middle of the second epoch, one step after a checkpoint."""
    code(_CHILD, tmp_path, tiny_folder()).kill_once((tmp_path / "at-step-9").exists)
    assert not (tmp_path / "adapter_model.safetensors").exists()
    found = last_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "checkpoint-8"
    steps: list[int] = []
    counts = train(str(tiny_folder()), rows, CONFIG, tmp_path, lambda step, *_: steps.append(step))
    assert steps == [9, 10, 11, 12]
    assert counts["steps"] == 12
    expected, got = (load_file(folder / "adapter_model.safetensors") for folder in (whole[0], tmp_path))
    assert set(got) == set(expected)
    for key, value in expected.items():
        assert torch.equal(value, got[key]), key


def _checkpoint(out: Path, step: int, state: str | None) -> Path:
    folder = out / "checkpoints" / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    if state is not None:
        (folder / "trainer_state.json").write_text(state)
    return folder


def test_half_written_checkpoints_are_passed_over(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    whole = _checkpoint(tmp_path, 8, json.dumps({"global_step": 8}))
    _checkpoint(tmp_path, 2, json.dumps({"global_step": 2}))
    _checkpoint(tmp_path, 10, None)
    _checkpoint(tmp_path, 12, '{"global_st')
    damaged = _checkpoint(tmp_path, 14, json.dumps({"global_step": 14}))
    (damaged / "adapter_model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    cut = _checkpoint(tmp_path, 16, json.dumps({"global_step": 16}))
    (cut / "optimizer.pt").write_bytes(b"PK\x03\x04")
    assert last_checkpoint(tmp_path) == whole


@pytest.mark.parametrize("change", [{"rank": 8}, {"method": "full"}, {"learning_rate": 1e-3}])
def test_checkpoints_of_another_training_are_not_gone_on_from(
    whole: tuple[Path, dict[str, float], list[Any]], rows: list[TokenRow], change: dict[str, Any]
) -> None:
    """Else the old weights would be saved as if they had been trained so."""
    with pytest.raises(ModelError, match="another training"):
        train(str(tiny_folder()), rows, CONFIG.model_copy(update=change), whole[0])
    with pytest.raises(ModelError, match="another training"):
        train(str(tiny_folder()), rows[1:], CONFIG, whole[0])


def test_base_that_is_not_there_is_a_clear_error(rows: list[TokenRow], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no-such-model"):
        train(str(tmp_path / "no-such-model"), rows, CONFIG, tmp_path / "out")


def test_a_mean_over_two_processes_is_that_of_one() -> None:
    """Each process gives its own sum over the tokens of both, twice: their average gradient is the whole batch's."""
    log_probs = torch.tensor([[-1.0, -2.0], [-6.0, -9.0], [-3.0, -5.0], [-4.0, -9.0]])
    taught = torch.tensor([[True, True], [True, False], [True, True], [True, False]])
    term = torch.tensor([0, 1, 0, 1])
    whole, values = paired_loss(log_probs, taught, term, 1.0)
    halves = [slice(0, 1), slice(1, 4)]
    sums = [[3.0, 0.0], [8.0, 10.0]]

    def step(other: int) -> Step:
        # What comes first is the counts, then the sums: add what the other process would have given.
        counts = [[2.0, 0.0], [2.0, 2.0]]
        gives = iter([counts[other], sums[other]])
        return Step(processes=2, summed=lambda value: value + torch.tensor(next(gives)))

    parts = [
        paired_loss(log_probs[half], taught[half], term[half], 1.0, step(1 - place))
        for place, half in enumerate(halves)
    ]
    assert sum(float(loss) for loss, _ in parts) / 2 == pytest.approx(float(whole))
    assert [found for _, found in parts] == [pytest.approx(values)] * 2


def test_a_disk_that_is_too_full_is_told_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended in a traceback of torch's about positions in a stream."""
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    steps: list[int] = []
    with pytest.raises(StageError, match=r"the training, with its checkpoints, needs [\d,]+ bytes, 1,000 are free"):
        train(str(tiny_folder()), make_rows(), CONFIG, tmp_path / "out", lambda *_: steps.append(1))
    assert steps == []


def test_a_disk_that_fills_while_it_trains_is_told_with_the_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)

    def fails(*_: Any, **__: Any) -> None:
        nonlocal usage
        usage = usage._replace(free=70_000_000)
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")

    monkeypatch.setattr(torch, "save", fails)
    monkeypatch.setattr(fit, "_BESIDE", 100_000_000)
    with pytest.raises(StageError, match="the disk is full: the training"):
        train(str(tiny_folder()), make_rows(), CONFIG, tmp_path / "out")
