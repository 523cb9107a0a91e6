"""The first stage: rules that are held out of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from forethought.data.shipped import shipped_requests
from forethought.data.sources import SourceSpec
from forethought.errors import ConfigError
from forethought.pipeline.recipe import DataConfig
from forethought.pipeline.requests import select, without_rules
from forethought.policy import default_policy
from forethought.records import Request, read_jsonl, user_request

DATA = DataConfig(
    harmful=(SourceSpec(path="shipped:harmful"),),
    harmless=(SourceSpec(path="shipped:lookalike"), SourceSpec(path="shipped:ordinary")),
    held_out_rules=("R4", "R9"),
    max_harmless=60,
)


def _rows(folder: Path, split: str) -> list[Request]:
    return list(read_jsonl(folder / f"{split}.jsonl", Request))


def test_held_out_rules_are_tested_and_never_trained_on(tmp_path: Path) -> None:
    counts = select(DATA, default_policy(), tmp_path, lambda *_: None)
    held_out = set(DATA.held_out_rules)
    for split in ("train", "dev"):
        assert not any(held_out & set(row.rules) for row in _rows(tmp_path, split))
    tested = [row for row in _rows(tmp_path, "test") if held_out & set(row.rules)]
    alone = [row for row in shipped_requests("harmful", "test") if held_out & set(row.rules)]
    assert len(tested) > 2 * len(alone), "those of the training split are tested, too"
    assert counts["held_out_by_rule"] > 0


def test_look_alikes_go_with_the_requests_that_they_look_like() -> None:
    harmful = [user_request(f"Steal bike {n}", harmful=True, rules=(f"R{n}",), twin=f"t{n}") for n in (1, 2)]
    harmless = [user_request(f"Buy bike {n}", harmful=False, twin=f"t{n}") for n in (1, 2)]
    plain = user_request("Bake bread", harmful=False)
    kept, others = without_rules(harmful, [*harmless, plain], ["R2"])
    assert kept == harmful[:1]
    assert others == [harmless[0], plain]
    assert without_rules(harmful, harmless, []) == (harmful, harmless)


def test_a_rule_that_there_is_not_is_named(tmp_path: Path) -> None:
    data = DATA.model_copy(update={"held_out_rules": ("R99",)})
    with pytest.raises(ConfigError, match="held_out_rules: R99"):
        select(data, default_policy(), tmp_path, lambda *_: None)
