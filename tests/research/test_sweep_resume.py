"""`forethought sweep` with every kind of defence: killed on the way, kept, and one method more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from forethought.attempts.records import Judged
from forethought.defences.fusion import load_fusion
from forethought.measure.probe import load_probe
from forethought.models.settings import read_settings
from forethought.records import read_jsonl
from tests.child import command
from tests.research.sweep_content import ALL_KINDS, EVALUATE, sweep_file
from tests.tiny import tiny_folder

FIGURES = (
    "auroc_unseen", "youden_unseen", "youden_unseen_low", "refused_styled_harmless", "asr_unseen",
    "asr_direct", "asr_reasoning", "refused_lookalike", "refused_ordinary", "capability",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)  # several sweeps of eight methods: on a busy machine that is longer than a test may take
def test_a_killed_sweep_goes_on_and_a_method_more_is_that_method_alone(
    tmp_path: Path, here: Callable[..., Result]
) -> None:
    best_of = {"id": "scot_best", "weights_of": "scot", "around": "fused"}
    read = {"id": "read", "weights_of": "scot", "around": "fused_intent", "think_budget": 9}
    own = {"id": "own", "weights_of": "scot", "around": "fused_trained | unforged"}
    at_two = {"id": "at_two", "weights_of": "scot", "threshold": 2.0, "answer_with": "base"}
    probed = {"id": "probed", "weights_of": "refusal", "around": "trained_probe", "answer_with": "base"}
    methods = ["scot", "scot_split", "refusal", best_of, read, own, at_two, probed]
    asked = EVALUATE | ALL_KINDS
    file, out = sweep_file(tmp_path, methods=methods, evaluate=asked), tmp_path / "out"
    child = command("sweep", file, "--out", out)
    scot = out / f"{tiny_folder().name}-s0" / "scot-b2200"
    child.kill_once((scot / "calibrate" / "manifest.json").is_file)
    weights = scot / "train" / "adapter_model.safetensors"
    before = weights.stat().st_mtime_ns

    done = here(file, out)
    assert "Report:" in done.output, done.output
    assert weights.stat().st_mtime_ns == before, "a finished training was done again"
    figures = {one["name"]: one["value"] for one in json.loads((out / "results.json").read_text())["figures"]}
    names = set(figures)
    for defence in ("base", "prompt", "linear_probe", "scot", "scot_split", "refusal", "scot_best"):
        assert {f"{name}_{defence}" for name in FIGURES} <= names | _unscored(out), defence
    assert ("asr_matched_refusal" in names) == ("refused_styled_harmless_scot" in names)
    assert "asr_gcg_scot" in names | _unscored(out)
    assert "asr_gcg_refusal" not in names
    assert {f"latency_{one}" for one in ("prompt", "linear_probe", "scot", "refusal", "scot_best")} <= names
    assert {"asr_best_of_n_refusal", "asr_best_of_n_scot_best"} <= names | _unscored(out)
    # Split answering shares its weights, and so does what has a fusion around it.
    split = scot.with_name("scot_split-b2200") / "train"
    assert (split / "adapter_model.safetensors").read_bytes() == weights.read_bytes()
    assert json.loads((split / "forethought.json").read_text())["answer_with"] == "base"
    assert figures["train_seconds_scot_split"] >= figures["train_seconds_scot"], "its weights were trained as long"
    best = scot.with_name("scot_best-b2200")
    assert (best / "train" / "adapter_model.safetensors").read_bytes() == weights.read_bytes()
    assert load_fusion(best / "fuse")[0].n_calibration > 1
    assert not load_fusion(best / "fuse")[0].reads_intent
    for name, trained in (("read", False), ("own", True)):
        fusion, probe = load_fusion(scot.with_name(f"{name}-b2200") / "fuse")
        assert fusion.reads_intent
        assert probe.settings.trained is trained
    budgets = {name: read_settings(scot.with_name(f"{name}-b2200") / "train").think_budget for name in ("read", "own")}
    assert budgets == {"read": 9, "own": read_settings(scot / "train").think_budget}
    # A threshold is set on thoughts as long as its own: other ones of the same weights are not taken over.
    places = [scot.with_name(f"{name}-b2200") / "calibrate" for name in ("scot", "own", "read")]
    of_scot, of_own, of_read = ((place / "thoughts.jsonl").read_bytes() for place in places)
    assert of_own == of_scot != of_read
    given = scot.with_name("at_two-b2200") / "train"
    assert (given / "adapter_model.safetensors").read_bytes() == weights.read_bytes()
    assert (read_settings(given).threshold, read_settings(given).answer_with) == (2.0, "base")
    assert read_settings(scot / "train").threshold != 2.0
    # A probe of a model without a thought decides by itself, and the base answers what it allows.
    alone = scot.with_name("probed-b2200")
    of_states = load_probe(alone / "probe")
    assert of_states.settings.trained
    by_base = {row.attempt.id: row.response for row in _judged(scot.parent / "base" / "attack")}
    for row in _judged(alone / "attack"):
        theirs = by_base[row.attempt.id]
        assert row.response is not None
        assert theirs is not None
        assert row.response.log_odds is not None
        allowed = row.response.log_odds < of_states.threshold
        assert (row.response.answer == theirs.answer) if allowed else row.refused
    # What the lender of the weights said is taken over where all else is the same, and decided anew at a threshold.
    lent, decided = (_log_odds(scot.with_name(name) / "attack") for name in ("scot-b2200", "at_two-b2200"))
    assert {name: odds for name, (odds, _) in lent.items()} == {name: odds for name, (odds, _) in decided.items()}
    assert decided
    assert all(decision == ("refuse" if odds >= 2.0 else "comply") for odds, decision in decided.values())

    # Of the same sweep with fewer defences, one more and further questions.
    fewer = {"methods": ["scot", "scot_no_benign"], "prompts": [], "wrappers": []}
    further = sweep_file(tmp_path, **fewer, evaluate=asked | {"n_questions": 3})
    now = here(further, out, "--so-far")
    assert now.exit_code == 1
    assert json.loads((out / "results.json").read_text())["missing"]["auroc_unseen_scot_no_benign"] == "not run yet"
    assert not (scot / "questions").exists(), "what is not done yet was done for a report of what is"
    more = here(further, out)
    assert (scot / "questions" / "manifest.json").is_file()
    assert "scot_no_benign-b2200 train" in more.stdout.replace("\n", " ")
    kept = [line for line in more.stdout.splitlines() if "kept from before" in line]
    assert any("scot-b2200 train" in line for line in kept)
    assert weights.stat().st_mtime_ns == before


def _log_odds(attack: Path) -> dict[str, tuple[float, str | None]]:
    """By attempt: the verdict's log-odds and what was decided, where there is a verdict."""
    found = [(row.attempt.id, row.response) for row in _judged(attack)]
    return {name: (said.log_odds, said.decision) for name, said in found if said and said.log_odds is not None}


def _judged(attack: Path) -> list[Judged]:
    return list(read_jsonl(attack / "judged.jsonl", Judged))


def _unscored(out: Path) -> set[str]:
    """A random model's answers are often garbled: such figures are missing with their reason."""
    return set(json.loads((out / "results.json").read_text()).get("missing", {}))
