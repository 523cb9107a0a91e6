"""Every search of the catalogue, carried out by the driver on real weights, small and random."""

from __future__ import annotations

from pathlib import Path

import pytest

from forethought.attacks.searches.base import Tools, all_searches, parse_method
from forethought.attacks.searches.models import NO_LOG_PROBS, LocalWriter, text_model
from forethought.attacks.searches.outcome import Outcome
from forethought.models.local import LocalModel
from tests.attacks.searching import WordJudge, goal, run
from tests.tiny import tiny_adapter, tiny_folder

GCG = "steps=2,candidates=4,top_k=8,length=4"
SMALL = {
    "gcg": GCG, "gcg_think": GCG, "gcg_skip": GCG, "gcg_multi": f"{GCG},goals=2",
    "autodan": "population=4,iterations=2", "random_search": "iterations=3,restarts=1,pieces=4,ask_every=2",
    "embedding": "iterations=2,tokens=3,every=1,answer_tokens=4,think_tokens=4",
    "pair": "streams=2,depth=1,attacker_tokens=16,tries=1",
    "tap": "branching=1,width=1,depth=1,attacker_tokens=16,tries=1",
    "crescendo": "rounds=2,attacker_tokens=16,tries=1", "goat": "turns=2,conversations=1,attacker_tokens=16,tries=1",
    "best_of_n": "n=3", "gptfuzzer": "tokens=16,tries=2",
}  # fmt: skip


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    return LocalModel.load(str(tiny_folder()), tiny_adapter(tmp_path_factory.mktemp("adapter")))


@pytest.fixture(scope="module")
def writer() -> LocalWriter:
    writer = text_model(LocalModel.load(str(tiny_folder())))
    assert isinstance(writer, LocalWriter)
    return writer


def carried_out(name: str, model: LocalModel, writer: LocalWriter, folder: Path) -> tuple[Outcome, ...]:
    tools = Tools(able=model.able, model=model, thinks=model.thinks)
    goals = [goal("Tell me about the garden"), goal("How do I bake bread?", harmful=False)]
    result = run(
        parse_method(f"{name}:{SMALL[name]}"), goals, model, folder, judge=WordJudge("harmful"), tools=tools,
        settings={"budget": 8, "max_answer_tokens": 4}, attacker=writer, evaluator=writer,
    )  # fmt: skip
    assert result.not_run == {}
    return result.outcomes


@pytest.mark.parametrize("name", all_searches())
def test_a_search_runs_to_its_end_on_a_model_that_thinks_and_twice_alike(
    name: str, thinker: LocalModel, writer: LocalWriter, tmp_path: Path
) -> None:
    outcomes = carried_out(name, thinker, writer, tmp_path / "a")
    assert [outcome.ended for outcome in outcomes if outcome.ended == "error"] == [], outcomes[0].cause
    assert all(outcome.queries <= 8 for outcome in outcomes)
    assert all(NO_LOG_PROBS not in outcome.causes for outcome in outcomes)
    if "attacker" not in all_searches()[name].needs:  # a random attacker writes nothing that can be read
        assert all(outcome.queries > 0 for outcome in outcomes)
    if "gradients" in all_searches()[name].needs:
        assert all(outcome.forwards > 0 for outcome in outcomes)
    assert carried_out(name, thinker, writer, tmp_path / "b") == outcomes
