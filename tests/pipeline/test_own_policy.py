"""A policy of the user's own before requests that name another's rules: mapped by title, left out, or told at once."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

from forethought.data.shipped import shipped_requests, under
from forethought.data.sources import SourceSpec
from forethought.errors import ConfigError
from forethought.model import load
from forethought.pipeline import BuildSettings
from forethought.pipeline.build import build
from forethought.pipeline.check import check_recipe
from forethought.pipeline.recipe import RECIPE, DataConfig, Recipe, default_file, default_recipe, load_recipe
from forethought.pipeline.requests import missing, select, without_examples
from forethought.pipeline.run import run
from forethought.policy import Policy, default_policy, load_policy
from forethought.progress import Progress
from forethought.records import Example, Request, read_jsonl, user_request
from tests.listening import Listening
from tests.tiny import briefly, tiny_folder

DEFAULT = default_policy()


def policy_file(folder: Path, *titles: str, examples: bool = False) -> Path:
    """Rules `R1`, `R2` ... of these titles: the ids are those of the default policy, the meanings are not."""
    rules = [
        {
            "id": f"R{number}", "title": title, "description": f"Requests about {title.lower()} of this house.",
            "reason": "it would cause trouble", "alternative": "explain the rule",
            "examples": [f"Tell me all about {title.lower()}."] if examples else [],
        }
        for number, title in enumerate(titles, start=1)
    ]  # fmt: skip
    file = folder / "policy.yaml"
    file.write_text(yaml.safe_dump({"name": "house", "version": "1", "tone": "Short.", "rules": rules}))
    return file


def _policy(folder: Path, *titles: str, examples: bool = False) -> Policy:
    return load_policy(policy_file(folder, *titles, examples=examples))


def _shipped_rule(request: Request) -> str:
    return DEFAULT.rule(request.rules[0]).title


def own_file(folder: Path, n: int = 24, column: str = "category") -> Path:
    """Requests with a category that is a title of the policy, and some words of their own."""
    file = folder / "own.csv"
    with file.open("w", newline="", encoding="utf-8") as opened:
        rows = csv.writer(opened)
        rows.writerow(["was_gefragt_wurde", column])
        for number in range(n):
            kind = ("Prices", "Addresses")[number % 2]
            verbs = ("Name", "Tell me", "List", "Find out")[number % 4]
            rows.writerow([f"{verbs} the {kind.lower()} that shop number {number} keeps in drawer {number * 7}.", kind])
    return file


def test_shipped_rows_keep_their_rules_under_the_default_policy() -> None:
    rows = [*shipped_requests("harmful"), *shipped_requests("rules"), *shipped_requests("ordinary")]
    assert under(DEFAULT, rows) == (rows, {})


def test_shipped_rows_are_mapped_by_title_and_the_others_left_out_with_counts(tmp_path: Path) -> None:
    """The same id may mean something else: `R1` of this policy is not what shipped rows call so."""
    wanted = DEFAULT.rules[4].title
    policy = _policy(tmp_path, "Prices", wanted)
    rows = shipped_requests("harmful")
    kept, left_out = under(policy, rows)
    assert {_shipped_rule(row) for row in rows if row.text in {one.text for one in kept}} == {wanted}
    assert {row.rules for row in kept} == {("R2",)}
    assert len(kept) + left_out.total() == len(rows)
    assert DEFAULT.rules[0].title in left_out
    assert wanted not in left_out


def test_own_rows_of_a_rule_that_is_not_there_are_left_out(tmp_path: Path) -> None:
    policy = _policy(tmp_path, "Prices", "Addresses")
    rows = [user_request(f"Number {n}", harmful=True, rules=(rule,)) for n, rule in enumerate(("R2", "prices", "X9"))]
    kept, left_out = under(policy, rows)
    assert [row.rules for row in kept] == [("R2",), ("R1",)]
    assert left_out == {"X9": 1}


def test_a_run_with_an_own_policy_selects_its_rows_and_counts_the_others(tmp_path: Path) -> None:
    """`forethought run my.csv --policy pol.yaml` ended with "rule id 'R1': policy has no such rule"."""
    policy = _policy(tmp_path, "Prices", "Addresses")
    recipe = default_recipe(str(own_file(tmp_path)))
    counts = select(recipe.data, policy, tmp_path / "out", Progress())
    rows = [Request.model_validate_json(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert {row.source for row in rows if row.harmful} == {"own.csv"}
    assert {row.rules for row in rows if row.harmful} == {("R1",), ("R2",)}
    theirs = [row for name in ("harmful", "rules", "borderline_pairs") for row in shipped_requests(name) if row.harmful]
    assert counts["of_no_rule_of_the_policy"] == len(theirs)


def test_rules_without_any_example_are_told_before_anything_is_loaded(tmp_path: Path) -> None:
    recipe = default_recipe(str(own_file(tmp_path)))
    policy = _policy(tmp_path, "Prices", "Addresses", "Recipes of the kitchen")
    heard: list[str] = []
    check_recipe(recipe, policy, heard.append)
    assert len(heard) == 1
    assert "R3 Recipes of the kitchen" in heard[0]
    assert "examples" in heard[0]
    assert without_examples(recipe, _policy(tmp_path, "Prices", "Secrets", examples=True)) == []
    assert without_examples(recipe, DEFAULT) == []


def test_a_policy_that_no_request_can_break_is_an_error_that_says_what_to_give(tmp_path: Path) -> None:
    data = DataConfig(harmful=(SourceSpec(path="shipped:harmful"),), harmless=(SourceSpec(path="shipped:ordinary"),))
    recipe = Recipe(name="x", data=data)
    with pytest.raises(ConfigError, match="no request to learn from") as caught:
        check_recipe(recipe, _policy(tmp_path, "Prices", "Addresses"))
    assert "R2 Addresses" in str(caught.value)
    assert "--policy" in caught.value.fix
    check_recipe(recipe, DEFAULT)


def test_a_policy_of_one_rule_is_that_rule_for_all(tmp_path: Path) -> None:
    policy = policy_file(tmp_path, "Prices")
    built = build(own_file(tmp_path, column="nr"), BuildSettings(policy=policy), out=tmp_path / "out")
    assert {row.request.rules for row in read_jsonl(built.examples, Example) if row.request.harmful} == {("R1",)}


def test_a_source_that_is_not_there_is_named_before_the_run(tmp_path: Path) -> None:
    recipe = default_recipe(str(tmp_path / "none.csv"))
    assert list(missing(recipe)) == [str(tmp_path / "none.csv")]
    assert missing(default_recipe(str(own_file(tmp_path)))) == {}


@pytest.mark.slow
def test_a_run_on_an_own_file_under_an_own_policy_goes_the_whole_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documented command, `forethought run my.csv --policy pol.yaml`, with a smaller default recipe."""
    small = {
        "extends": str(default_file()), "name": "small",
        "data": {"harmless": [{"path": "shipped:lookalike"}, {"path": "shipped:ordinary"}], "max_harmless": 60},
        "build": {"own_answers": 4, "max_tokens": 6000}, "operating_point": {"rows": 24},
        "evaluate": {"attacks": ["style_json"], "n_direct": 4, "n_styled": 2, "n_ordinary": 4, "n_lookalike": 3,
                     "max_answer_tokens": 6},
    }  # fmt: skip
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(small), encoding="utf-8")
    monkeypatch.setattr("forethought.pipeline.recipe.default_file", lambda: file)
    policy = policy_file(tmp_path, "Prices", "Addresses", examples=True)
    own = own_file(tmp_path, 60)
    with briefly():
        found = run(own, policy=policy, model=str(tiny_folder()), out=tmp_path / "out")
    assert found.page.is_file()
    kept = load_recipe(tmp_path / "out" / RECIPE)
    assert (kept.policy, kept.data.harmful[0].path) == (policy, str(own))
    opened = load(tmp_path / "out").settings
    assert opened is not None
    assert opened.policy.rule_ids == ("R1", "R2")
    # What was kept is the same run: all its stages are found.
    heard = Listening()
    with briefly():
        run(tmp_path / "out" / RECIPE, out=tmp_path / "out", progress=heard)
    assert not [line for line in heard.said if line.startswith("[green]")]
    assert any("5-train: kept from before" in line for line in heard.said)
