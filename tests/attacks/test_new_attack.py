"""A new attack, and a new search, is one new file: nothing else has to name it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from forethought import attacks
from forethought.attacks.base import listed
from forethought.errors import ConfigError

ATTACK = """
from forethought.attacks.base import Attack, Parameter, by_rule

ATTACKS = (
    Attack(
        name="whispered", title="Whispered", paper="Nobody 2030", kind="linguistic", form="rule",
        parameters=(Parameter(name="dots", default=3, least=1, most=9, meaning="dots behind it"),),
        transform=by_rule(lambda text, rng, options: text.lower() + "." * options["dots"]),
    ),
)
"""
SEARCH = """
from forethought.attacks.searches.base import Ask, Method
from forethought.attacks.base import Attacked

def search(goal, rng, options, tools):
    yield [Ask(attacked=Attacked(request=goal.request).said("psst"))]

METHODS = (Method(name="once", title="Once", paper="Nobody 2030", cost="1 query", queries=1, search=search),)
"""
USED = """
import random, sys
from forethought import cli
from forethought.measure import attacks
from forethought.attacks import adaptive

attacks.__path__.append(sys.argv[1] + "/attacks")
adaptive.__path__.append(sys.argv[1] + "/searches")
from forethought.attacks.searches.base import Goal, Tools
from forethought.attacks.searches.catalogue import parse_method
from forethought.attacks.catalogue import apply_attack
from forethought.attacks.reference import attacks_page
from forethought.records import user_request

print(apply_attack("whispered:5 | style_short", user_request("Bake Bread"), 0).text)
goal, once = Goal(user_request("Bake"), "Sure"), parse_method("once")
print(next(once.search(goal, random.Random(0), once.options, Tools()))[0].attacked.text)
print([line[:30] for line in attacks_page().splitlines() if "Nobody 2030" in line])
assert not {"torch", "transformers"} & set(sys.modules)
sys.argv = ["forethought", "attack", "--list"]
cli.main()
"""


def test_a_file_is_all_that_an_attack_or_a_search_takes(tmp_path: Path) -> None:
    for folder, text in (("attacks", ATTACK), ("searches", SEARCH)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(text, encoding="utf-8")
    run = [sys.executable, "-c", USED, str(tmp_path)]
    said = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0].startswith("bake bread..... Use only short words")
    assert said[1] == "psst"
    assert said[2] == str(["| `whispered` | rule | Nobody 2030"[:30], "| `once` | prompt | Nobody 2030"[:30]])
    for name in ("whispered", "once"):
        assert any(line.strip("│ ").startswith(f"{name} ") for line in said[3:])


def test_two_attacks_of_one_name_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zz_again.py").write_text(ATTACK.replace("whispered", "slang"), encoding="utf-8")
    monkeypatch.setattr(attacks, "__path__", [*attacks.__path__, str(tmp_path)])
    with pytest.raises(ConfigError, match=r"'slang' in zz_again\.py: is there already"):
        listed(attacks, "ATTACKS")
