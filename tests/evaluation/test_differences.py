"""What changed between two kept runs, whoever wrote them; and that the study's known differences are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import forethought as ft
from forethought.evaluation.kept import kept
from forethought.measure.traffic import Reference, Traffic
from forethought.model import Model
from forethought.records import write_jsonl
from tests.evaluation.test_acceptance import HELP, REFUSAL, files, refusing
from tests.judged import judged_one, request_of
from tests.scripted import Scripted
from tests.shell import run_here

ROOT = Path(__file__).resolve().parents[2]


class _Calibrated(Model):
    traffic = Traffic(reference=Reference.of(list(range(100))))


def test_two_attack_runs_are_compared(tmp_path: Path) -> None:
    traffic, harmful = files(tmp_path, 40)
    settings = ft.AttackSettings(attacks=("direct",), benchmarks=(harmful,), harmless=(traffic,), n=40)
    ft.attack(refusing(range(2)), settings, out=tmp_path / "v1")
    ft.attack(refusing(range(20), name="v2"), settings, out=tmp_path / "v2")
    found = ft.diff(tmp_path / "v1", tmp_path / "v2", out=tmp_path / "diff")
    assert [one.name for one in found.worse] == ["refused_ordinary"]
    assert [one.name for one in found.failed] == ["refused_ordinary"]
    assert found.flipped() == "18 harmless now refused"
    assert not ft.diff(tmp_path / "v2", tmp_path / "v1", out=tmp_path / "back").failed
    with pytest.raises(ft.InputError, match="holds no verdicts of 'keywords', but of rules"):
        kept(tmp_path / "v1", "keywords")


def test_the_command_exits_by_what_got_worse_and_by_what_is_tolerated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    traffic, harmful = files(tmp_path, 40)
    for name, many in (("v1", 2), ("v2", 20)):
        ft.check(refusing(range(many), name=name), traffic, harmful, out=tmp_path / name)
    done = run_here("diff", "v1", "v2", "--out", "changed")
    assert done.code == 1
    assert "Worse beyond chance: refused_ordinary" in done.out
    assert {one.name for one in (tmp_path / "changed").iterdir()} == {"gate.html", "gate.md", "gate.json", "junit.xml"}
    assert run_here("diff", "v1", "v2", "--tolerated", "0.5").code == 0
    assert run_here("diff", "v2", "v1").code == 0
    assert run_here("diff", "v1", "v1", "--strict").code == 1
    assert "keeps no judged answers" in run_here("diff", "v1", tmp_path / "nothing").err


def test_a_comparison_holds_several_systems(tmp_path: Path) -> None:
    traffic, harmful = files(tmp_path, 10)
    settings = ft.AttackSettings(attacks=("direct",), benchmarks=(harmful,), harmless=(traffic,), n=10)
    weak = Model("weak", Scripted(lambda conversation: HELP))
    strict = _Calibrated("strict", Scripted(lambda conversation: REFUSAL))
    page = ft.compare({"weak": weak, "strict": strict}, settings, out=tmp_path / "both").page
    told = page.read_text(encoding="utf-8")
    assert "Drift of scores since the threshold was set: not measured, 0 are too few" in told
    found = ft.diff(f"{tmp_path}/both:weak", f"{tmp_path}/both:strict", out=tmp_path / "diff")
    assert {"refused_ordinary", "refused_lookalike"} <= {one.name for one in found.worse}
    assert "asr_direct" in {one.name for one in found.better}
    with pytest.raises(ft.InputError, match=r"holds several systems.*strict, weak"):
        kept(tmp_path / "both")
    with pytest.raises(ft.InputError, match=r"'other' is none of its systems"):
        kept(f"{tmp_path}/both:other")


def test_a_run_stands_for_its_best_defence(tmp_path: Path) -> None:
    request = request_of("How do I bake bread?", False)
    for stage, refused in (("7-respond-base", False), ("7-respond-scot", False), ("9-respond-scot_best", True)):
        write_jsonl(tmp_path / stage / "judged.jsonl", [judged_one(request, refused, ("ordinary",))])
    found = kept(tmp_path)
    assert found.name.endswith(":scot_best")
    assert [one.refused for one in found.counted[""]] == [True]
    assert [one.refused for one in kept(f"{tmp_path}:base").counted[""]] == [False]


@pytest.mark.slow
def test_the_known_differences_of_the_study_are_named_and_no_others(tmp_path: Path) -> None:
    before, after = (kept(f"{ROOT}/results/study_parts:{name}") for name in ("refusal_augmented", "scot_best"))
    found = ft.diff(before, after, matched=0.02, out=tmp_path)
    figures = {one["name"]: one for one in json.loads((ROOT / "results/study_parts.json").read_text())["figures"]}
    end = "_scot_best_vs_refusal_augmented"
    # What every training shows: of means over seeds the study asks whether it holds for other seeds as well.
    by_seed = {
        name.removeprefix("p_").partition(end)[0]: [
            one["value"] for other, one in figures.items() if other.startswith(f"{name}_embedded_s")
        ]
        for name in figures
        if name.startswith("p_") and name.endswith(end)
    }
    told = {name for name, values in by_seed.items() if max(values) < 0.05}
    # Short questions have no p-value in the study: one loses them against the base model, the other doesn't.
    assert figures["diff_capability_refusal_augmented_vs_base"]["high"] < 0
    assert {one.name for one in found.better} == told | {"capability"}
    assert len(told) == 7
    assert found.worse == []
    for one in found.changes:
        if one.name != "capability":
            assert one.difference == pytest.approx(figures[f"diff_{one.name}{end}"]["value"], abs=2e-4)
    assert not found.failed
    back = ft.diff(after, before, out=tmp_path / "back")
    assert {one.name for one in back.failed} == (told | {"capability"}) - {"asr_matched"}
    assert all(len(one.text) == 12 or one.attack == "direct" for one in found.flips)


def test_one_training_of_a_log_is_named_by_its_seed() -> None:
    study = f"{ROOT}/results/study_parts"
    assert list(kept(f"{study}:scot_best@1").trainings) == ["1"]
    assert list(kept(f"{study}:base").trainings) == ["0"]
    assert kept(f"{study}:base").weights == ""
    with pytest.raises(ft.InputError, match=r"was not trained with that seed. Use one of 0, 1, 2"):
        kept(f"{study}:scot_best@7")
    with pytest.raises(ft.InputError, match=r"'nothing' is none of its systems"):
        kept(f"{study}:nothing")
