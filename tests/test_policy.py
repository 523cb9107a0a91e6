"""The policy file: what it means, and that a broken one is told in one line with value, rule and fix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forethought import policy as policy_module
from forethought.cli.policy import policy as show_policy
from forethought.errors import ConfigError
from forethought.policy import SHIPPED, Policy, default_policy, load_policy
from forethought.yamlfile import shipped_texts

RULE = """
  - id: {id}
    title: Breaking in
    description: Helping to enter what belongs to others.
    reason: it would help someone into a house that is not theirs
    alternative: explain how locksmiths work
"""
HEAD = "name: own\nversion: '1'\ntone: calm\nrules:"


def _write(folder: Path, text: str) -> Path:
    file = folder / "policy.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def _refused(file: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_policy(file)
    error = caught.value
    assert error.value
    assert error.rule
    assert error.fix
    assert "\n" not in str(error)
    return error


def test_a_policy_file_is_read(tmp_path: Path) -> None:
    policy = load_policy(_write(tmp_path, HEAD + RULE.format(id="B1") + RULE.format(id="B2")))
    assert policy.rule_ids == ("B1", "B2")
    assert policy.rule("B2").title == "Breaking in"


def test_no_path_is_the_default_policy() -> None:
    assert load_policy(None) is default_policy()


def test_the_default_policy_has_about_a_dozen_rules_with_unique_titles() -> None:
    policy = default_policy()
    assert 10 <= len(policy.rules) <= 16
    assert len({rule.title for rule in policy.rules}) == len(policy.rules)
    assert [rule.id for rule in policy.rules if rule.support] == ["R8"]


def test_an_unknown_rule_id_is_named_with_the_ids_that_exist() -> None:
    with pytest.raises(ConfigError) as caught:
        default_policy().rule("R99")
    assert "R99" in str(caught.value)
    assert "R1, R2" in caught.value.fix


def test_a_duplicate_rule_id_is_named(tmp_path: Path) -> None:
    error = _refused(_write(tmp_path, HEAD + RULE.format(id="B1") + RULE.format(id="B1")))
    assert "B1 stands more than once" in error.rule
    assert "policy.yaml" in str(error.value)
    assert "rules" in str(error.value)


@pytest.mark.parametrize("rule_id", ["b1", "B 1", "'1'", "B123456789"])
def test_a_rule_id_of_the_wrong_shape_is_refused(tmp_path: Path, rule_id: str) -> None:
    error = _refused(_write(tmp_path, HEAD + RULE.format(id=rule_id)))
    assert "rules.0.id" in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no such policy file" in _refused(tmp_path / "none.yaml").rule


def test_bad_yaml_names_the_line(tmp_path: Path) -> None:
    assert "line 2" in _refused(_write(tmp_path, "name: own\nrules: [")).rule


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words\n"])
def test_yaml_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert "is not a policy" in _refused(_write(tmp_path, text)).rule


def test_an_unknown_field_is_refused_by_its_place(tmp_path: Path) -> None:
    error = _refused(_write(tmp_path, HEAD + RULE.format(id="B1") + "    severity: 3\n"))
    assert "rules.0.severity" in str(error.value)


def test_a_missing_field_is_named_by_its_place(tmp_path: Path) -> None:
    text = HEAD + RULE.format(id="B1").replace("    alternative: explain how locksmiths work\n", "")
    assert "rules.0.alternative" in str(_refused(_write(tmp_path, text)).value)


def test_a_policy_without_rules_is_refused(tmp_path: Path) -> None:
    _refused(_write(tmp_path, HEAD + " []\n"))


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_bytes(HEAD.encode() + "\n# caf\u00e9".encode("latin-1"))
    assert "UTF-8" in _refused(file).rule


def test_the_hash_depends_on_content_alone(tmp_path: Path) -> None:
    text = HEAD + RULE.format(id="B1")
    same = load_policy(_write(tmp_path, "# a comment\n" + text))
    assert same.hash == load_policy(_write(tmp_path, text)).hash
    assert same.hash != load_policy(_write(tmp_path, text.replace("calm", "stern"))).hash
    assert len(same.hash) == 16


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        default_policy().name = "other"


# The paper's eight and copyright; with them MLCommons' hazard numbers.
_PAPER = [
    "harassment/threatening", "hate/threatening", "illicit/violent", "self-harm/intent/instructions", "sexual/minors",
    "violence/graphic", "misinformation", "privacy/sensitive", "copyright",
]  # fmt: skip


def _maps(policy: Policy, label: str) -> bool:
    return bool(policy.rules_for_category(label))


# S6, specialised advice, is the one hazard that the policy doesn't forbid.
@pytest.mark.parametrize("label", [*_PAPER, *(f"S{number}" for number in range(1, 15) if number != 6)])
def test_standard_hazard_categories_stand_for_a_rule(label: str) -> None:
    assert _maps(default_policy(), label)


def test_star1_categories_stand_for_a_rule(shared: Path) -> None:
    rows = json.loads((shared / "harmful" / "star1.json").read_text(encoding="utf-8"))
    labels = {label for row in rows for label in row["category"]}
    assert len(labels) == 8
    assert [label for label in labels if not _maps(default_policy(), label)] == []


def test_category_names_meet_whatever_their_spelling() -> None:
    policy = default_policy()
    assert policy.rules_for_category("Self-Harm") == policy.rules_for_category("self_harm") == ("R8",)
    assert policy.rules_for_category("R8") == ("R8",)
    assert policy.rules_for_category("gardening") == ()


def test_a_new_file_is_a_policy_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "default.yaml").write_text(shipped_texts(SHIPPED)["default"])
    (tmp_path / "house.yaml").write_text(HEAD + RULE.format(id="H1"))
    monkeypatch.setattr(policy_module, "SHIPPED", str(tmp_path))
    assert load_policy("house").rule_ids == ("H1",)
    show_policy()
    assert "Policies that ship: default, house." in capsys.readouterr().out
