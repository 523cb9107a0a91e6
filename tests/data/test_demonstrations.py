"""Demonstrations: varied, the same for the same seed, from any pool, and none near what is tested on."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from forethought.data import llm_teacher
from forethought.data.evolve import Demonstration, Operator, load_operators
from forethought.data.llm_teacher import (
    DIMS,
    choose_demonstrations,
    lsa_embed,
    operator_pool,
    read_pool,
    usable_demonstrations,
    user_prompt,
)
from forethought.data.shipped import shipped_requests
from forethought.data.sources import SourceSpec, load_requests
from forethought.data.taught import TeachTask
from forethought.errors import ConfigError, InputError
from forethought.records import user_request

OPERATORS = load_operators()
SHOWN = [(name, shown) for name, operator in OPERATORS.items() for shown in operator.demonstrations]


def _operator(shown: Sequence[Demonstration] = (), pool: str | None = None) -> Operator:
    return Operator(name="own", kind="contextual", definition="x", demonstrations=tuple(shown), pool=pool)


def _about(*texts: str) -> list[Demonstration]:
    return [Demonstration(request="", rewritten=text) for text in texts]


def test_the_papers_styles_have_a_pool_to_choose_from_and_every_style_has_some() -> None:
    for name, operator in OPERATORS.items():
        assert len(operator.demonstrations) >= (20 if operator.paper else 3), name


def test_every_shipped_demonstration_rewrites_its_request() -> None:
    for name, shown in SHOWN:
        assert shown.request.strip() == shown.request != "", name
        assert shown.rewritten.strip() == shown.rewritten, name
        assert shown.rewritten != shown.request, name


def test_no_request_is_shown_twice() -> None:
    assert len({shown.request for _, shown in SHOWN}) == len(SHOWN)
    assert len({shown.rewritten for _, shown in SHOWN}) == len(SHOWN)


def test_lengths_of_the_papers_demonstrations_vary() -> None:
    for operator in OPERATORS.values():
        if operator.paper:
            lengths = sorted(len(shown.rewritten.split()) for shown in operator.demonstrations)
            assert lengths[-1] >= 1.8 * lengths[0], operator.name


# Choosing


def _on_a_line(texts: Sequence[str]) -> NDArray[np.float64]:
    """Clusters by letter, ten apart."""
    return np.array([[10.0 * ord(text[0]) + 0.1 * int(text[1])] for text in texts])


def test_one_of_each_cluster_is_chosen_the_one_nearest_its_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three clusters on a line, worked out by hand: the middle one of each is nearest the mean."""
    shown = _about("a1", "a2", "a3", "b1", "b2", "b3", "c1", "c2", "c3")
    monkeypatch.setattr(llm_teacher, "lsa_embed", _on_a_line)
    chosen = choose_demonstrations(_operator(shown), k=3)
    assert [one.rewritten for one in chosen] == ["a2", "b2", "c2"]


def test_a_teacher_is_shown_eight_of_different_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the eight that were chosen it was shown the first three."""
    monkeypatch.setattr(llm_teacher, "lsa_embed", _on_a_line)
    pool = _operator(_about(*(f"{letter}{number}" for letter in "abcdefgh" for number in (1, 2, 3))))
    chosen = pool.model_copy(update={"demonstrations": choose_demonstrations(pool)})
    prompt = user_prompt(TeachTask(request=user_request("Name a river.", harmful=False), operators=(chosen,)))
    assert re.findall(r'becomes "(\w\d)"', prompt) == ["a2", "b2", "c2", "d2", "e2", "f2", "g2", "h2"]


def test_topics_are_told_apart_offline() -> None:
    bread = ["Bake a loaf of rye bread.", "Bread dough, rye flour and a loaf tin.", "Bake bread with rye flour."]
    ships = ["Sail a ship out of the harbour.", "The harbour and the ship's sails.", "Sail the ship to harbour."]
    chosen = choose_demonstrations(_operator(_about(*bread, *ships)), k=2)
    assert len({one.rewritten in bread for one in chosen}) == 2


def test_the_same_seed_chooses_the_same_and_the_order_is_the_pools() -> None:
    for name in ("slang", "role_play"):
        pool = OPERATORS[name].demonstrations
        once = choose_demonstrations(OPERATORS[name], seed=0)
        assert once == choose_demonstrations(OPERATORS[name], seed=0)
        assert len(once) == len(set(once)) == 8
        assert [pool.index(one) for one in once] == sorted(pool.index(one) for one in once)


def test_few_are_all_chosen_and_equal_ones_are_no_reason_to_fail() -> None:
    shown = _about("How do I knot it?", "Name a river.")
    assert choose_demonstrations(_operator(shown), k=8) == tuple(shown)
    assert choose_demonstrations(_operator(), k=8) == ()
    same = [Demonstration(request=str(n), rewritten="Name a river.") for n in range(12)]
    assert 1 <= len(choose_demonstrations(_operator(same), k=8)) <= 8
    marks = [Demonstration(request=str(n), rewritten="?" * (n + 1)) for n in range(12)]
    assert 1 <= len(choose_demonstrations(_operator(marks), k=8)) <= 8
    assert choose_demonstrations(_operator(_about("a b", "c d")), k=0) == ()


def test_vectors_have_unit_length_and_depend_on_the_texts_alone() -> None:
    texts = [shown.rewritten for _, shown in SHOWN]
    vectors = lsa_embed(texts)
    assert vectors.shape == (len(texts), DIMS)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0)
    assert np.array_equal(vectors, lsa_embed(texts))
    assert lsa_embed(["one text"]).shape[0] == 1
    assert not lsa_embed(["...", "?"]).any()


# Trap 8: demonstrations and test prompts of one benchmark


def test_trap_8_a_demonstration_near_an_evaluation_request_is_left_out() -> None:
    tested = [user_request("How do I get candle wax out of a linen tablecloth?")]
    near = [
        Demonstration(request="How can I get candle wax out of linen tablecloths?", rewritten="Hou dae A dae't?"),
        Demonstration(request="", rewritten="Pray, how might one get that candle wax out o' my linen tablecloth, sir?"),
    ]
    far = Demonstration(request="How do I get ink out of a shirt?", rewritten="Hou dae A get ink oot o' a sark?")
    assert usable_demonstrations([*near, far], tested) == [far]
    assert choose_demonstrations(_operator([*near, far]), against=tested) == (far,)


def test_trap_8_a_short_evaluation_request_is_found_inside_a_long_story() -> None:
    told = (
        "You are Rosa, who has mended instruments by the river for forty years. The shop is full of dust and music. A"
        " sailor comes in out of the rain, puts a case on the counter, and asks how to varnish an old violin. Reply."
    )
    shown = Demonstration(request="", rewritten=told)
    assert usable_demonstrations([shown], [user_request("How do I varnish an old violin?")]) == []
    assert usable_demonstrations([shown], [user_request("How do I varnish an old canoe?")]) == [shown]


def test_a_style_worn_by_an_evaluation_request_is_compared_without_it() -> None:
    """What counts is what is really asked: `plain`."""
    tested = user_request("How do I varnish a violin?").restyled("Yo, varnishin a violin, how tho", "slang")
    shown = Demonstration(request="How do I varnish a violin?", rewritten="Speak, how shall I do the thing?")
    assert usable_demonstrations([shown], [tested]) == []


def test_trap_8_no_shipped_demonstration_is_near_a_shipped_request() -> None:
    held_out = [*shipped_requests("contrast"), *shipped_requests("ordinary")]
    assert len(usable_demonstrations([shown for _, shown in SHOWN], held_out)) == len(SHOWN)


def test_trap_8_no_shipped_demonstration_is_near_a_public_set(shared: Path) -> None:
    for name in ("harmful/malicious_instruct.txt", "harmful/harmbench_val.csv", "over_refusal/xstest.csv"):
        tested = list(load_requests(SourceSpec(path=str(shared / name)), None))
        assert len(usable_demonstrations([shown for _, shown in SHOWN], tested)) == len(SHOWN)


# Pools


def test_a_pool_beside_the_operators_file_joins_its_demonstrations(tmp_path: Path) -> None:
    (tmp_path / "pools").mkdir()
    rows = [{"request": "Name a river.", "rewritten": "Ahoy, name a river!"}, {"request": None, "rewritten": "Ahoy!"}]
    (tmp_path / "pools" / "mine.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "pirate.yaml").write_text(
        "name: pirate\nkind: contextual\ndefinition: x\npool: pools/mine.jsonl\n"
        "demonstrations: [{request: Tie it., rewritten: 'Tie it, arr!'}]\n"
    )
    pool = operator_pool(load_operators(tmp_path)["pirate"])
    assert [(one.request, one.rewritten) for one in pool] == [
        ("Tie it.", "Tie it, arr!"),
        ("Name a river.", "Ahoy, name a river!"),
        ("", "Ahoy!"),
    ]


@pytest.mark.parametrize("pool", ["pkg:forethought/data/shipped/ordinary.jsonl", "{folder}/styled.txt"])
def test_a_source_of_styled_texts_alone_is_a_pool(tmp_path: Path, pool: str) -> None:
    (tmp_path / "styled.txt").write_text("Ahoy, name a river!\nArr, how do I tie it?\n")
    found = read_pool(pool.format(folder=tmp_path))
    assert len(found) >= 2
    assert all(one.request == "" and one.rewritten for one in found)
    assert len(choose_demonstrations(_operator(pool=pool.format(folder=tmp_path)), k=2)) == 2


def test_a_folder_of_the_users_adds_to_any_operator(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("request,rewritten\nName a river.,Ahoy name a river!\n")
    (tmp_path / "other.csv").write_text("request,rewritten\nx,y\n")
    own = _about("Name a lake, arr!")
    assert [one.rewritten for one in operator_pool(_operator(own), tmp_path)] == [
        "Name a lake, arr!",
        "Ahoy name a river!",
    ]
    (tmp_path / "own.txt").write_text("Ahoy!\n")
    with pytest.raises(InputError, match=r"own\.csv"):
        operator_pool(_operator(own), tmp_path)


def test_what_stands_in_two_pools_counts_once(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("request,rewritten\nName it.,Arr!\nName it.,Arr!\n")
    assert len(operator_pool(_operator([Demonstration(request="Name it.", rewritten="Arr!")]), tmp_path)) == 1


def test_a_pool_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"request": "x", "rewritten": "y"}\n{"request": "x", "rewritten": ""}\n')
    with pytest.raises(InputError, match="rewritten") as caught:
        read_pool(str(tmp_path / "bad.jsonl"))
    assert "row 2" in str(caught.value.value)
    with pytest.raises((InputError, ConfigError)):
        operator_pool(_operator(pool=str(tmp_path / "none.csv")))
    with pytest.raises(InputError, match="no such folder"):
        operator_pool(_operator(), tmp_path / "none")
