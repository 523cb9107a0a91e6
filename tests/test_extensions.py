"""Files of a user's own: what they list is found by name, once, and what is wrong with one is told."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

import forethought as ft
from forethought import attacks, extensions, judges
from forethought.attacks.catalogue import all_attacks, apply_attack
from forethought.errors import ConfigError, InputError
from forethought.extensions import add_file, by_name
from forethought.judges.catalogue import get_judge
from forethought.records import user_request
from forethought.training.methods.catalogue import all_methods, get_method

ATTACK = """
from forethought.attacks.base import Attack, by_rule

lower = by_rule(lambda text, rng, options: text.lower())
ATTACKS = (Attack(name="whispered", title="Whispered", paper="", kind="linguistic", transform=lower),)
"""
JUDGE = """
from forethought.judges.base import Entry, Verdict


class Never:
    name, measure = "never", "refused"

    def judge(self, items):
        return [Verdict(refused=False) for _ in items]


JUDGES = (Entry("never", ("refused",), "nothing refuses", lambda opening: Never()),)
"""

METHOD = """
from forethought.training.methods.catalogue import all_methods

METHODS = (all_methods()["scot"].model_copy(update={"name": "mine", "title": "Mine"}),)
"""


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test adds is gone after it."""
    monkeypatch.setattr(extensions, "_added", defaultdict(list))


def test_an_attack_of_a_users_file_is_known_by_name(tmp_path: Path) -> None:
    file = tmp_path / "my_attack.py"
    file.write_text(ATTACK, encoding="utf-8")
    assert "whispered" not in all_attacks()
    assert [one.name for one in add_file(attacks, file, "ATTACKS")] == ["whispered"]
    assert add_file(attacks, file, "ATTACKS")[0] is all_attacks()["whispered"], "a file is read once"
    assert apply_attack("whispered", user_request("Bake BREAD"), 0).text == "bake bread"


def test_a_judge_is_named_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "my_judge.py"
    file.write_text(JUDGE, encoding="utf-8")
    assert get_judge(str(file)).name == "never"
    assert [one.refused for one in ft.judge([("a", "I can't help with that.")], by=str(file))] == [False]
    assert get_judge("never").name == "never", "and by its name from then on"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ATTACK.replace('kind="linguistic", ', ""), "say what kind it is"),
        ("ATTACKS = ()", "lists no ATTACKS"),
        ("x = 1", "lists no ATTACKS"),
        ("raise ValueError('no')", "can't be run"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        add_file(attacks, file, "ATTACKS")
    with pytest.raises(InputError, match="is no Python file"):
        add_file(judges, tmp_path / "nowhere.py", "JUDGES")


def test_two_of_one_name_are_an_error(tmp_path: Path) -> None:
    for name in ("one.py", "other.py"):
        (tmp_path / name).write_text(ATTACK, encoding="utf-8")
        add_file(attacks, tmp_path / name, "ATTACKS")
    with pytest.raises(ConfigError, match="'whispered': is listed by two files"):
        by_name(extensions.listed(attacks, "ATTACKS"))


def test_a_training_method_is_named_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "my_method.py"
    file.write_text(METHOD, encoding="utf-8")
    assert get_method(str(file)).name == "mine"
    assert all_methods()["mine"].title == "Mine"
