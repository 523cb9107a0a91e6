"""What stands beside a trained model: the languages that it was taught to think in, and a word about others."""

from __future__ import annotations

from pathlib import Path

from forethought.models.settings import Settings, read_settings, write_settings
from forethought.policy import default_policy

ENGLISH, GERMAN = "How do I bake a loaf of bread?", "Wie backe ich ein gutes Brot?"


def test_requests_in_a_language_that_it_was_not_taught_are_told() -> None:
    settings = Settings(policy=default_policy(), languages={"en": 90, "fr": 10})
    line = settings.unlearned([ENGLISH, GERMAN, GERMAN, "如何烤面包", "12 + 7"])
    assert "2 in de, 1 in zh" in line
    assert "it was in en, fr" in line
    assert settings.unlearned([ENGLISH, "Comment faire du pain ?"]) == ""


def test_nothing_is_told_of_a_model_whose_languages_are_not_known() -> None:
    assert Settings(policy=default_policy()).unlearned([GERMAN]) == ""


def test_languages_are_kept_and_left_out_where_there_are_none(tmp_path: Path) -> None:
    for settings in (Settings(policy=default_policy()), Settings(policy=default_policy(), languages={"de": 5})):
        write_settings(tmp_path, settings)
        assert read_settings(tmp_path) == settings
        assert ("languages" in (tmp_path / "forethought.json").read_text(encoding="utf-8")) is bool(settings.languages)
