"""Early stop: patience by hand, the best weights kept, and a resumed run that stops where an unbroken one would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from forethought.errors import ConfigError, InputError
from forethought.training.config import EarlyStop, TrainConfig
from forethought.training.fit import check_settings, train
from forethought.training.forward import add_taught_head
from forethought.training.held_out import HeldOutRows, stale
from forethought.training.methods.hidden_states import CircuitBreakerObjective
from forethought.training.objective import PairedObjective, paired_loss
from forethought.training.rows import TokenRow, collate
from tests.tiny import tiny_folder, tiny_model
from tests.training.test_fit import CONFIG, make_rows

STOP = EarlyStop(patience=3, every=2)
# Twelve steps, an evaluation and a checkpoint at each second one.
FITTED = TrainConfig.model_validate({**CONFIG.model_dump(), "early_stop": STOP})
# The best stands at step 4; 6, 8 and 10 gain nothing.
LOSSES = (3.0, 2.0, 2.5, 2.5, 2.5, 1.0)


HELD = make_rows()[0], make_rows()[23]


class Scripted:
    """Stands for what measures held-out rows: says what it is told to, and counts how often it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, losses: Sequence[float]) -> None:
        self._left: Iterator[float] = iter(losses)
        self.asked = 0
        monkeypatch.setattr(HeldOutRows, "__call__", lambda rows, model: self(model))

    def __call__(self, model: Any) -> dict[str, float]:
        assert not model.training
        self.asked += 1
        return {"refusal": next(self._left), "benign": 5.0}


def _history(*losses: tuple[float, float]) -> list[dict[str, float]]:
    """A log of evaluations, and between them what else a trainer logs."""
    found = []
    for number, (refusal, benign) in enumerate(losses, start=1):
        found += [{"step": 10 * number - 5, "loss_refusal": 0.0}]
        found += [{"step": 10 * number, "held_out_refusal": refusal, "held_out_benign": benign}]
    return found


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([], 0),
        ([(2.0, 1.0)], 0),
        ([(2.0, 1.0), (1.5, 1.2)], 0),
        # Neither falls: stale. One of them falls: not stale.
        ([(2.0, 1.0), (2.1, 1.0), (2.0, 1.1)], 2),
        ([(2.0, 1.0), (2.5, 0.9), (2.5, 0.8)], 0),
        ([(2.0, 1.0), (2.1, 1.0), (1.9, 1.0), (1.9, 1.0)], 1),
    ],
)
def test_what_is_stale_by_hand(losses: list[tuple[float, float]], expected: int) -> None:
    assert stale(_history(*losses)) == expected


def test_what_counts_as_a_gain_is_set() -> None:
    history = _history((2.0, 1.0), (1.95, 1.0), (1.85, 1.3))
    assert stale(history) == 0
    # Below the best by a tenth or more; the best stays 2.0 until then.
    assert stale(history, 0.1) == 0
    assert stale(history[:4], 0.1) == 1


@pytest.mark.parametrize(("weight", "best"), [(1.0, 4), (0.1, 6)])
def test_the_kept_step_has_the_least_of_both_terms_as_they_are_weighed(
    weight: float, best: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums of 3, 2.95 and 3.15; with harmless rows at a tenth of the weight 2.1, 2.05 and 1.98."""
    left = iter([(2.0, 1.0), (1.95, 1.0), (1.85, 1.3)])
    monkeypatch.setattr(HeldOutRows, "__call__", lambda *_: dict(zip(("refusal", "benign"), next(left), strict=True)))
    config = FITTED.model_copy(update={"epochs": 1, "benign_weight": weight})
    counts = train(str(tiny_folder()), make_rows(), config, tmp_path, held_out=HELD)
    assert (counts["kept_step"], counts["stopped_early"]) == (best, 0)


def test_training_ends_when_nothing_is_gained_and_the_best_weights_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    at_step_4: list[dict[str, torch.Tensor]] = []
    measure = Scripted(monkeypatch, LOSSES)

    def on_step(step: int, *_: Any) -> None:
        steps.append(step)
        if step == 5:  # the checkpoint of step 4 is whole by now
            at_step_4.append(load_file(tmp_path / "checkpoints" / "checkpoint-4" / "adapter_model.safetensors"))

    counts = train(str(tiny_folder()), make_rows(), FITTED, tmp_path, on_step, held_out=HELD)
    assert steps == list(range(1, 11))
    assert measure.asked == 5
    assert counts["steps"] == 10
    expected = {"kept_step": 4, "stopped_early": 1, "held_out_refusal": 2.0, "held_out_benign": 5.0}
    assert {name: counts[name] for name in expected} == expected
    saved = load_file(tmp_path / "adapter_model.safetensors")
    best = at_step_4[0]
    assert all(torch.equal(value, best[name]) for name, value in saved.items())
    last = load_file(tmp_path / "checkpoints" / "checkpoint-10" / "adapter_model.safetensors")
    assert any(not torch.equal(value, last[name]) for name, value in saved.items())


def test_measuring_changes_nothing_of_a_training_that_goes_on_gaining(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = TrainConfig.model_validate({**CONFIG.model_dump(), "epochs": 1})
    measured = TrainConfig.model_validate({**plain.model_dump(), "early_stop": STOP})
    rows = make_rows()
    train(str(tiny_folder()), rows, plain, tmp_path / "plain")
    Scripted(monkeypatch, (3.0, 2.0, 1.0))
    counts = train(str(tiny_folder()), rows, measured, tmp_path / "measured", held_out=HELD)
    assert (counts["kept_step"], counts["stopped_early"]) == (6, 0)
    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("plain", "measured"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


class _Broken(Exception):
    pass


def test_a_resumed_run_keeps_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken at step 7, behind one evaluation without gain: two more end it, not three."""

    def breaks(step: int, *_: Any) -> None:
        if step == 7:
            raise _Broken

    Scripted(monkeypatch, LOSSES)
    with pytest.raises(_Broken):
        train(str(tiny_folder()), make_rows(), FITTED, tmp_path, breaks, held_out=HELD)
    rest = Scripted(monkeypatch, LOSSES[3:])
    counts = train(str(tiny_folder()), make_rows(), FITTED, tmp_path, held_out=HELD)
    assert rest.asked == 2
    assert (counts["steps"], counts["kept_step"], counts["stopped_early"]) == (10, 4, 1)
    # Asked again, a finished training says the same and moves nothing.
    saved = (tmp_path / "adapter_model.safetensors").read_bytes()
    Scripted(monkeypatch, ())
    again = train(str(tiny_folder()), make_rows(), FITTED, tmp_path, held_out=HELD)
    assert (again["steps"], again["kept_step"]) == (10, 4)
    assert (tmp_path / "adapter_model.safetensors").read_bytes() == saved


def test_held_out_rows_are_measured_term_by_term() -> None:
    """Means over the tokens of each term, whatever the batches."""
    rows, model = make_rows()[8:17], tiny_model()
    add_taught_head(model)
    batch = collate([row.model_dump() for row in rows], pad_id=0)
    term = batch.pop("term")
    with torch.no_grad():
        out = model(**batch, taught_only=True)
        _, expected = paired_loss(out.log_probs, out.taught, term, 1.0)
        for size in (2, 4, 16):
            assert HeldOutRows(rows, 0, size)(model) == pytest.approx(expected, rel=1e-4)


def test_rows_that_are_held_out_are_measured_in_a_training(tmp_path: Path) -> None:
    rows = make_rows()
    held = [rows[0], rows[23]]
    config = TrainConfig.model_validate({**FITTED.model_dump(), "epochs": 1})
    counts = train(str(tiny_folder()), rows[1:23], config, tmp_path, held_out=held)
    base = tiny_model()
    add_taught_head(base)
    with torch.no_grad():
        before = HeldOutRows(held, 0, 4)(base)
    assert counts["held_out_refusal"] < before["refusal"]
    assert counts["held_out_benign"] < before["benign"]
    # Other held-out rows are another training.
    with pytest.raises(Exception, match="another training"):
        train(str(tiny_folder()), rows[1:23], config, tmp_path, held_out=[rows[1], rows[23]])


def test_what_can_not_be_held_out() -> None:
    rows: list[TokenRow] = make_rows()
    with pytest.raises(InputError, match="hold none of the term 'benign'"):
        HeldOutRows(rows[:3], 0, 4)
    with pytest.raises(ConfigError, match=r"nothing is held out to stop by.*--held-out"):
        check_settings(FITTED, PairedObjective(), None)
    with pytest.raises(ConfigError, match="their paired loss is not what this objective minimises"):
        check_settings(FITTED, CircuitBreakerObjective((1,)), rows)
