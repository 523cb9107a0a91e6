"""`forethought attack` on a tiny model: what is asked, kept, reported and refused, and that a killed run goes on."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from forethought.attempts.records import planned
from forethought.cli.attack import show_attack
from forethought.cli.terminal import Terminal
from forethought.errors import ConfigError, ForethoughtError, InputError
from forethought.evaluation.attack import attack as attack_model
from forethought.evaluation.attack import rejudge
from forethought.evaluation.inputs import AttackSettings, chosen_attacks, chosen_requests
from forethought.evaluation.report import RunRecord, default_folder, read_run, write_run
from forethought.model import load
from forethought.models.local import LocalModel
from forethought.models.names import is_served
from tests.child import command
from tests.tiny import tiny_adapter, tiny_folder

ATTACKS = ("misspelling", "policy_withdrawn", "translate:ta", "answer_prefill")


def attack(
    model: Path | str,
    out: Path,
    yes: bool = True,
    adapter: Path | None = None,
    defence: str | None = None,
    **more: Any,
) -> int:
    """As the command does it."""
    settings = AttackSettings(**{"attacks": ATTACKS, "n": 3, "max_answer_tokens": 4, **more})
    opened = load(model, adapter=adapter, defence=defence)
    progress = Terminal(max_cost=1.0, yes=yes)
    found = attack_model(opened, settings, out=out, progress=progress)
    show_attack(found)
    return int(found.too_many_unscored)


def _figures(folder: Path) -> dict[str, dict[str, Any]]:
    held = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return {figure["name"]: figure for figure in held["figures"]} | {"missing": held.get("missing", {})}


def _replies(folder: Path) -> list[str]:
    lines = (folder / "replies.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["id"] for line in lines]


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no line of a table is broken."""
    monkeypatch.setenv("COLUMNS", "250")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny model."""
    out = tmp_path_factory.mktemp("base") / "run"
    attack(tiny_folder(), out)
    return out


def test_a_run_leaves_table_page_figures_and_logs(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attack(tiny_folder(), base)
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())  # a narrow table breaks its lines
    assert "not run: needs an attacker model" in out
    assert "0 answered, 24 from an earlier run" in out  # direct and three attacks, three of each label
    found = _figures(base)
    for name in ("asr_direct", "asr_misspelling", "asr_unseen", "asr_reasoning", "refused_styled_harmless"):
        assert name in found or found["missing"].get(name) == "nothing was scored"
    assert found["attempts"]["value"] == 24
    assert found["missing"]["asr_translate_ta"] == "needs an attacker model"
    assert "asr_translate_ta" not in found
    assert "translate:ta" in (base / "attack.html").read_text(encoding="utf-8")
    assert list((base / "logs").glob("*.eval"))


def test_the_same_command_asks_nothing_twice(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (base / "replies.jsonl").read_bytes()

    def reply(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was asked")

    monkeypatch.setattr(LocalModel, "reply", reply)
    attack(tiny_folder(), base)
    assert (base / "replies.jsonl").read_bytes() == before


def test_rejudging_loads_no_model(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(LocalModel, "load", load)
    show_attack(rejudge(base, AttackSettings(judge="keywords")))
    assert {path.stem for path in (base / "judged").glob("*.jsonl")} >= {"keywords"}
    assert "Figures:" in capsys.readouterr().out


def test_a_trained_model_is_compared_and_its_training_is_known(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = tiny_adapter(tmp_path / "model", seen_operators=("misspelling",))
    attack(tiny_folder(), tmp_path / "run", adapter=adapter, compare=base)
    assert read_run(tmp_path / "run").seen == ("misspelling",)
    assert "seen in training" in capsys.readouterr().out
    found = _figures(tmp_path / "run")
    assert "asr_unseen" not in found  # the only unseen style was seen
    assert "asr_seen" in found or "asr_seen" in found["missing"]


def test_control_asks_the_base_harmless_requests_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = tiny_adapter(tmp_path / "model")
    attack(tiny_folder(), tmp_path / "run", adapter=adapter, control=True, attacks=("misspelling",), n=2)
    rows = list(planned(tmp_path / "run" / "control"))
    assert rows
    assert all(row.request.harmful is False for row in rows)
    assert {row.attack for row in rows} == {"direct", "misspelling"}
    # Two requests are too few to tell; it says so, and the flags decide.
    assert "too few answers to harmless requests" in " ".join(capsys.readouterr().out.split())


def test_many_unscored_answers_are_an_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from forethought.models.conversation import Failed

    monkeypatch.setattr(LocalModel, "reply", _some_fail(LocalModel.reply, Failed(cause="the server was gone")))
    assert attack(tiny_folder(), tmp_path / "run", attacks=("misspelling",)) == 1
    found = _figures(tmp_path / "run")
    assert found["unscored"]["value"] > 0.02
    assert "the server was gone" in (tmp_path / "run" / "attack.html").read_text(encoding="utf-8")


def _some_fail(reply: Any, failed: Any) -> Any:
    """Every other conversation of a batch has no response."""

    def broken(self: Any, conversations: Any, limit: int = 128, on_reply: Any = None) -> Any:
        replies = reply(self, conversations, limit)
        return [failed if place % 2 else one for place, one in enumerate(replies)]

    return broken


def test_searches_run_and_those_that_cannot_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attack(tiny_folder(), tmp_path / "run", attacks=("best_of_n", "pair"), query_budget=2, goals=1, n=2)
    assert "Not run: pair: needs an attacker model" in " ".join(capsys.readouterr().out.split())
    found = _figures(tmp_path / "run")
    assert "asr_best_of_n_at_1" in found or "asr_best_of_n_at_1" in found["missing"]
    assert "asr_adaptive" in found or "asr_adaptive" in found["missing"]


def test_a_server_that_takes_no_prefill_leaves_those_attacks_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attack("mockllm/model", tmp_path / "run", n=2)
    out = " ".join(capsys.readouterr().out.split())
    assert "Not run: answer_prefill: needs a model whose turn can be prefilled (4 requests)" in out
    found = _figures(tmp_path / "run")
    assert found["asr_misspelling"]["value"] == 1.0
    assert "asr_answer_prefill" not in found


def test_a_paid_model_is_not_asked_without_a_yes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    with pytest.raises(ConfigError, match="--yes"):
        attack("mockllm/model", tmp_path / "run", yes=False)
    assert not (tmp_path / "run" / "replies.jsonl").exists()
    attack("mockllm/model", tmp_path / "run", yes=False, price_in=0.01, price_out=0.01, n=2)
    assert "cost" in _figures(tmp_path / "run")


def test_a_time_limit_shrinks_all_attacks_alike(tmp_path: Path) -> None:
    attack(tiny_folder(), tmp_path / "run", attacks=("misspelling", "style_json"), n=40, minutes=0.1)
    rows = [row for row in planned(tmp_path / "run") if not row.cause]
    counts = Counter((row.attack, row.request.harmful) for row in rows)
    assert {name for name, _ in counts} == {"direct", "misspelling", "style_json"}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert "fits in 6 s" in read_run(tmp_path / "run").says or "the least there is" in read_run(tmp_path / "run").says


@pytest.mark.slow
def test_a_killed_run_goes_on_with_every_attempt_once(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = command(
        "attack", tiny_folder(), "--attack", "misspelling", "--attack", "style_json", "--limit", 30,
        "--max-tokens", 24, "--out", out,
    )  # fmt: skip
    replies = out / "replies.jsonl"
    run.kill_once(lambda: replies.is_file() and replies.stat().st_size > 0)
    held = replies.read_bytes()
    assert held
    assert not (out / "results.json").exists()
    attack(tiny_folder(), out, attacks=("misspelling", "style_json"), n=30, max_answer_tokens=24)
    whole = replies.read_bytes()
    assert whole.startswith(held[: held.rfind(b"\n") + 1])
    asked = {row.asked for row in planned(out)}
    keys = _replies(out)
    assert len(keys) == len(set(keys)) == len(asked)


def test_a_folder_belongs_to_one_model(base: Path, tmp_path: Path) -> None:
    adapter = tiny_adapter(tmp_path / "model")
    with pytest.raises(ConfigError, match="holds a run of"):
        attack(tiny_folder(), base, adapter=adapter)
    held = read_run(base)
    with pytest.raises(ConfigError, match="as it was before"):
        write_run(base, RunRecord(model=held.model, name="x", files=(("config.json", 1, 1),)))


def test_what_can_not_be_opened_or_judged_anew_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is for models of a server"):
        load(tiny_folder(), takes_prefill=True)
    with pytest.raises(InputError, match="holds no attack run"):
        rejudge(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"suite": "nosuch"}, "nosuch"),
        ({"attacks": ("nosuch",)}, "there is no such attack"),
        ({"attacks": ("best_of_n:nosuch=1",)}, "has no option"),
        ({"benchmarks": ("nosuch.csv",)}, "there is no such file"),
        ({"templates": Path("nosuch.csv"), "attacks": ("templates",)}, "nosuch.csv"),
        ({"judge": "nosuch"}, "neither a judge's name nor a folder"),
        ({"compare": Path("nowhere")}, "holds no attack run"),
        ({"control": True, "compare": Path("nowhere")}, "is not needed beside compare"),
        ({"by": "nosuch"}, "is nothing that these behaviours have"),
    ],
)
def test_what_is_wrong_is_told_with_its_fix(
    more: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set.csv").write_text("text\nHow do I cheat at cards?\n", encoding="utf-8")
    with pytest.raises(ForethoughtError, match=re.escape(said)):
        attack(tiny_folder(), tmp_path / "run", **more)
    # Nothing of a mistake costs a run: no model was asked before it was told.
    assert not (tmp_path / "run" / "replies.jsonl").exists()


def test_benchmarks_bring_their_own_control(tmp_path: Path) -> None:
    file = tmp_path / "mixed.jsonl"
    rows = [{"prompt": f"Do harm number {n}", "label": "harmful", "category": "a" if n % 2 else "b"} for n in range(8)]
    rows += [{"prompt": f"Bake loaf {n}", "label": "harmless", "category": "c"} for n in range(4)]
    file.write_text("\n".join(map(json.dumps, [*rows, rows[0]])), encoding="utf-8")
    found = chosen_requests(AttackSettings(benchmarks=(str(file),), n=4))
    assert len(found.harmful) == 4
    assert Counter(row.says("category") for row in found.harmful) == {"a": 2, "b": 2}
    assert [row.request.text for row in found.harmless] == [f"Bake loaf {n}" for n in range(4)]
    more = chosen_requests(AttackSettings(benchmarks=(str(file),), harmless=("shipped",), n=100))
    assert len(more.harmless) > 100 - 1


def test_copyright_rows_stay_out_and_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "harmbench_behaviors_text_all.csv"
    head = "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\n"
    kinds = ("standard", "contextual", "copyright")
    rows = [
        f"Do harm by way {n},{kind},illegal,,{'Some text' if n == 1 else ''},id{n}\n" for n, kind in enumerate(kinds)
    ]
    file.write_text(head + "".join(rows), encoding="utf-8")
    found = chosen_requests(AttackSettings(benchmarks=(str(file),)))
    assert [row.id for row in found.harmful] == ["id0", "id1"]
    assert "1 about copyright left out" in found.said[0]


def test_only_harmless_rows_are_no_benchmark(tmp_path: Path) -> None:
    file = tmp_path / "good.jsonl"
    file.write_text(json.dumps({"prompt": "Bake a loaf", "label": "harmless"}), encoding="utf-8")
    with pytest.raises(InputError, match="says harmless for all"):
        chosen_requests(AttackSettings(benchmarks=(str(file),)))


def test_attacks_come_from_the_suite_and_by_name() -> None:
    names = [one.name for one in chosen_attacks(AttackSettings())[0]]
    assert "deep_inception" in names
    attacks, methods, _ = chosen_attacks(AttackSettings(attacks=("base64 | role_play", "best_of_n")))
    assert [one.name for one in attacks] == ["base64 | role_play"]
    assert [one.name for one in methods] == ["best_of_n"]
    both, _, _ = chosen_attacks(AttackSettings(suite="quick", attacks=("base64",)))
    assert [one.name for one in both] == [*names, "base64"]


def test_where_a_model_is_and_what_its_folder_is_called(tmp_path: Path) -> None:
    assert not is_served("embedded")
    assert not is_served(str(tmp_path))
    assert not is_served("forethought/some/name")
    assert not is_served("some-organisation/some-model")
    assert is_served("openai-api/local/name")
    assert is_served("NAME", ["http://localhost:1/v1"])
    assert default_folder("embedded") == Path("runs/attack-embedded")
    around = "self_reminder | fused:runs/a/8-fuse"
    assert default_folder("embedded", around) == Path("runs/attack-embedded-self_reminder-fused")
    model = tmp_path / "quickstart" / "5-train"
    model.mkdir(parents=True)
    assert default_folder(str(model)) == Path("runs/attack-quickstart-5-train")
    assert default_folder("openai-api/local/NAME") == Path("runs/attack-local-NAME")


def test_a_model_is_attacked_behind_a_defence_and_the_record_says_so(tmp_path: Path) -> None:
    out = tmp_path / "run"
    attack(tiny_folder(), out, defence="self_reminder", attacks=("misspelling",), n=2)
    assert read_run(out).model == f"{tiny_folder()} | self_reminder"
    with pytest.raises(ForethoughtError, match="no such defence"):
        attack(tiny_folder(), tmp_path / "other", defence="nope", attacks=("misspelling",), n=2)


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    (tmp_path / "attack.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="is damaged"):
        read_run(tmp_path)
