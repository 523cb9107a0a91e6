"""`forethought train --method` on a tiny model: what each kind of method asks, trains, writes and says."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from forethought import cli
from forethought.chat import encode_prompt
from forethought.cli.chat import chat
from forethought.cli.train import train
from forethought.data.answers import OwnAnswer
from forethought.errors import ConfigError, InputError, ModelError
from forethought.evaluation.attack import attack
from forethought.evaluation.calibrate import calibrate
from forethought.evaluation.inputs import AttackSettings
from forethought.evaluation.report import read_run
from forethought.models.conversation import Response
from forethought.models.local import LocalModel
from forethought.models.settings import read_settings
from forethought.policy import default_policy
from forethought.records import Example, write_jsonl
from forethought.store import read_store, rewrite
from forethought.training import run
from forethought.training.config import TrainConfig
from forethought.training.methods.base import Job, Material
from forethought.training.methods.catalogue import all_methods
from forethought.training.run import harmful_requests, method_rows, seen_operators
from tests.scripted import as_messages
from tests.tiny import (
    Scripted,
    harmful_example,
    harmless_example,
    tiny_adapter,
    tiny_folder,
    tiny_model,
    tiny_tokenizer,
)

HARM = "Sure, first you look for a copy"


def _styled(example: Example, operator: str) -> Example:
    return example.model_copy(update={"request": example.request.restyled(f"Yo, {example.request.text}", operator)})


def _examples() -> list[Example]:
    """Four harmful and four harmless originals, and one variant of each term."""
    harmful = [harmful_example(f"Help me copy film {n}") for n in range(4)]
    harmless = [harmless_example(f"How do I bake loaf {n}?") for n in range(4)]
    return [*harmful, _styled(harmful[0], "slang"), *harmless, _styled(harmless[0], "poem")]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "rows.jsonl", _examples())
    return tmp_path / "rows.jsonl"


def _train(rows: Path, method: str | None, **more: Any) -> Path:
    held: dict[str, Any] = {"model": str(tiny_folder()), "max_tokens": None, "complied": None}
    out: Path = more.pop("out", rows.parent / "out")
    train(rows, out, method=method, merge=False, **{**held, **more})
    return out


def _material(complied: dict[str, str] | None = None) -> Material:
    return Material(_examples(), tiny_tokenizer(), default_policy(), complied=complied or {})


def _answers(file: Path, complying: int) -> Path:
    """Answers to all harmful requests, of which the first so many comply."""
    asked = harmful_requests(_examples())
    answers = [OwnAnswer(request_id=r.id, answer=HARM, complies=n < complying) for n, r in enumerate(asked)]
    rewrite(file, ((answer.request_id, answer) for answer in answers))
    return file


def _no_model(*args: Any) -> LocalModel:
    raise AssertionError("a model was loaded")


@pytest.mark.parametrize(
    ("method", "named", "answer_with", "fmt", "detail", "seen"),
    [
        (None, "scot_split", "base", "think", "short", ("poem", "slang")),
        ("scot", "scot", "adapter", "think", "short", ("poem", "slang")),
        ("scot-paper", "scot_paper", "adapter", "paper", "short", ("poem", "slang")),
        ("scot_no_benign", "scot_no_benign", "adapter", "think", "short", ("slang",)),
        ("policy_reasoning", "policy_reasoning", "adapter", "think", "full", ()),
    ],
)
def test_settings_say_how_the_model_was_taught(
    rows: Path, method: str | None, named: str, answer_with: str, fmt: str, detail: str, seen: tuple[str, ...]
) -> None:
    settings = read_settings(_train(rows, method))
    assert (settings.method, settings.thinks, settings.answer_with) == (named, True, answer_with)
    assert (settings.format, settings.detail) == (fmt, detail)
    assert settings.seen_operators == seen


def test_a_model_that_does_not_think_answers_with_its_own_weights(rows: Path) -> None:
    out = _train(rows, "refusal")
    settings = read_settings(out)
    assert (settings.method, settings.thinks, settings.answer_with) == ("refusal", False, "adapter")
    assert settings.seen_operators == ()  # variants are left out
    model = LocalModel.load(str(out), dtype="float32")
    (response,) = model.respond([as_messages("Hello")], 6)
    adapted = PeftModel.from_pretrained(tiny_model(), str(out)).eval()
    prompt = torch.tensor([encode_prompt(model.tokenizer, as_messages("Hello"))])
    with torch.no_grad():
        made = adapted.generate(input_ids=prompt, do_sample=False, max_new_tokens=6, pad_token_id=0)
    assert response.answer == model.text(made[0, prompt.shape[1] :].tolist())
    assert (response.reasoning_text, response.decision, response.log_odds) == ("", None, None)


def test_it_is_attacked_without_watched_decoding_and_its_styles_are_seen(rows: Path, tmp_path: Path) -> None:
    adapter, out = _train(rows, "refusal_augmented"), tmp_path / "attack"
    names = ("misspelling", "policy_withdrawn", "answer_prefill")
    attack(adapter, AttackSettings(attacks=names, n=2, max_answer_tokens=4, control=True), out=out)
    replies = [json.loads(line) for line in (out / "replies.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(replies) == 16
    for reply in replies:
        response = Response.model_validate(reply["value"])
        assert 0 < response.answer_tokens <= 4
        assert (response.decision, response.log_odds, response.reasoning_tokens) == (None, None, 0)
    assert read_run(out).seen == ("poem", "slang")
    # It was trained, so its control is its base model and not itself.
    assert (out / "control" / "replies.jsonl").is_file()


def test_it_is_shown_without_a_verdict_and_has_no_threshold_to_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = tiny_adapter(tmp_path / "refusal", method="refusal", thinks=False, answer_with="adapter")
    chat(str(adapter), "Hello", max_tokens=4)
    printed = capsys.readouterr().out
    assert printed.strip()
    assert "probability" not in printed
    assert "None" not in printed
    with pytest.raises(InputError, match="does not think"):
        calibrate(adapter, 0.1, confidence=0.9, method="conformal")


def test_the_base_model_is_asked_for_what_is_missing_alone(
    rows: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The scripted model refuses what names a film; the first request was answered by a run that was stopped."""
    out = rows.parent / "out"
    first = harmful_requests(_examples())[0]
    rewrite(out / "complied.jsonl", [(first.id, OwnAnswer(request_id=first.id, answer=HARM, complies=True))])
    scripted = Scripted()
    monkeypatch.setattr(LocalModel, "load", lambda name: scripted)
    _train(rows, "circuit_breaker")
    assert len(scripted.asked) == 4
    assert first.messages not in scripted.asked
    assert set(scripted.limits) == {run.COMPLIED_TOKENS}
    printed = " ".join(capsys.readouterr().out.split())
    assert "complies with 1 of 5 harmful requests" in printed
    # One harmful answer to be broken, one refusal and five harmless answers to be kept.
    assert "Trained on 7 rows" in printed
    settings = read_settings(out)
    assert (settings.method, settings.thinks, settings.seen_operators) == ("circuit_breaker", False, ("poem",))


def test_answers_of_an_earlier_run_are_reused_without_a_model(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(LocalModel, "load", _no_model)
    file = _answers(tmp_path / "kept.jsonl", 2)
    held = file.read_bytes()
    out = _train(rows, "scot_dpo", complied=file)
    assert "complies with 2 of 5" in " ".join(capsys.readouterr().out.split())
    assert file.read_bytes() == held
    assert not (out / "complied.jsonl").exists()
    assert read_settings(out).thinks


def test_a_budget_drops_rows_by_seed_and_counts_both_completions() -> None:
    complied = {request.id: HARM for request in harmful_requests(_examples())}
    for name in ("scot", "scot_dpo"):
        every = method_rows(all_methods()[name], _material(complied))
        budget = sum(row.tokens for row in every) // 2
        kept = method_rows(all_methods()[name], _material(complied), budget)
        assert kept == method_rows(all_methods()[name], _material(complied), budget)
        assert 0 < len(kept) < len(every)
        assert budget - max(row.tokens for row in every) < sum(row.tokens for row in kept) <= budget
        assert [row for row in every if row in kept] == kept
    pair = next(row for row in every if row.other_input_ids)
    assert pair.tokens == len(pair.input_ids) + len(pair.other_input_ids)


def test_a_style_whose_rows_were_dropped_is_not_seen() -> None:
    rows = method_rows(all_methods()["scot"], _material())
    tokenizer = tiny_tokenizer()
    assert seen_operators(rows, _examples(), tokenizer) == ("poem", "slang")
    assert seen_operators(rows[:5], _examples(), tokenizer) == ("slang",)
    assert seen_operators(rows[:4], _examples(), tokenizer) == ()


def test_a_bad_start_leaves_a_style_seen() -> None:
    """Recovery rows go on from somewhere else than the prompt's end."""
    only = [example for example in _examples() if example.request.operator == "slang"]
    (row,) = all_methods()["scot"].rows(dataclasses.replace(_material(), examples=only))
    prompt = encode_prompt(tiny_tokenizer(), only[0].request.messages)
    moved = row.model_copy(update={"input_ids": (*prompt, 9, 9, *row.input_ids[len(prompt) :])})
    assert seen_operators([moved], only, tiny_tokenizer()) == ("slang",)


def test_the_budget_reaches_the_training(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _train(rows, "refusal", max_tokens=200)
    printed = capsys.readouterr().out
    assert 0 < int(printed.split(" tokens")[0].split()[-1]) <= 200


@pytest.mark.parametrize(
    ("method", "more", "kind", "said"),
    [
        ("nosuch", {}, ConfigError, "there is no such method"),
        ("scot", {"complied": Path("kept.jsonl")}, ConfigError, "needs no such answers"),
        ("scot", {"max_tokens": 3}, InputError, "no row fits, the shortest has"),
        ("scot", {"model": "none/model"}, ModelError, "can't be loaded"),
    ],
)
def test_what_can_not_be_trained_is_an_error(
    rows: Path, method: str, more: dict[str, Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        _train(rows, method, **more)
    assert not (rows.parent / "out").exists()


@pytest.mark.parametrize("method", ["circuit_breaker", "latent_adversarial", "continuous_adversarial"])
def test_a_base_that_never_complies_has_nothing_to_be_turned_from(rows: Path, tmp_path: Path, method: str) -> None:
    with pytest.raises(InputError, match="that the base model complies with"):
        _train(rows, method, complied=_answers(tmp_path / "kept.jsonl", 0))


def test_rows_without_answers_teach_no_refusal(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [e.model_copy(update={"answer": ""}) for e in _examples()])
    with pytest.raises(InputError, match="learns from answers alone"):
        _train(tmp_path / "rows.jsonl", "refusal")


def test_full_training_keeps_no_base_to_answer_with(rows: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "full.yaml"
    recipe.write_text(
        f"name: full\nmodel: {tiny_folder()}\ndata: {{harmful: [{{path: a.csv}}], harmless: [{{path: b.csv}}]}}\n"
        "train: {method: full, learning_rate: 0.001}\n"
    )
    with pytest.raises(ConfigError, match="which full training changes"):
        _train(rows, "scot_split", recipe=recipe)
    settings = read_settings(_train(rows, None, recipe=recipe))
    assert (settings.method, settings.answer_with) == ("scot", "adapter")


def _command(monkeypatch: pytest.MonkeyPatch, *args: object) -> int:
    monkeypatch.setattr(sys, "argv", ["forethought", *map(str, args)])
    monkeypatch.setenv("COLUMNS", "200")
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_command_lists_every_method(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _command(monkeypatch, "train", "--list-methods") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    named = [line[0] for line in lines if line and line[0] in all_methods()]
    assert named == list(all_methods())


def test_the_command_trains_by_method_and_resumes(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("train", rows, "--out", tmp_path / "cb", "--model", tiny_folder(), "--method", "circuit-breaker")
    file = _answers(tmp_path / "kept.jsonl", 5)
    assert _command(monkeypatch, *given, "--complied", file, "--token-budget", 400) == 0
    trained = (tmp_path / "cb" / "adapter_model.safetensors").read_bytes()
    assert _command(monkeypatch, *given, "--complied", file, "--token-budget", 400) == 0
    assert (tmp_path / "cb" / "adapter_model.safetensors").read_bytes() == trained
    assert len(read_store(file, OwnAnswer)) == 5
    capsys.readouterr()
    # Another method's rows never go on from these checkpoints.
    assert _command(monkeypatch, *given[:-1], "refusal") == 2
    error = capsys.readouterr().err.strip()
    assert "holds checkpoints of another training" in error
    assert "\n" not in error


def _recipe(tmp_path: Path, settings: str) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"name: one\nmodel: {tiny_folder()}\ndata: {{harmful: [{{path: a.csv}}], harmless: [{{path: b.csv}}]}}\n"
        f"train: {settings}\n"
    )
    return file


def _given(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that the command would train."""
    jobs: list[Job] = []

    def remember(job: Job) -> dict[str, float]:
        jobs.append(job)
        return {"rows": 0.0, "tokens": 0.0}

    monkeypatch.setattr("forethought.pipeline.training.train_method", remember)
    return jobs


def test_the_recipes_training_settings_reach_the_trainer(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = _given(monkeypatch)
    recipe = _recipe(
        tmp_path, "{dora: true, quantize: 4bit, packing: true, early_stop: {patience: 2}, trackers: [wandb]}"
    )
    assert _command(monkeypatch, "train", rows, "--out", tmp_path / "a", "--recipe", recipe, "--held-out", 0.25) == 0
    given = ("train", rows, "--out", tmp_path / "b", "--recipe", recipe, "--held-out", 0.25, "--no-packing")
    assert _command(monkeypatch, *given, "--tracker", "tensorboard", "--tracker", "mlflow") == 0
    config = jobs[0].config
    assert config.early_stop is not None
    assert (config.dora, config.quantize, config.packing, config.trackers) == (True, "4bit", True, ("wandb",))
    assert config.early_stop.patience == 2
    assert (jobs[1].config.packing, jobs[1].config.trackers) == (False, ("tensorboard", "mlflow"))
    assert jobs[1].config.dora


def test_without_options_settings_and_examples_are_as_they_were(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = _given(monkeypatch)
    assert _command(monkeypatch, "train", rows, "--out", tmp_path / "a", "--model", tiny_folder()) == 0
    assert jobs[0].config == TrainConfig()
    assert (jobs[0].held_out, jobs[0].material.examples) == ((), _examples())


def test_families_are_held_out_and_measured(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _train(rows, "scot", held_out=0.25)
    printed = " ".join(capsys.readouterr().out.split())
    taught = int(printed.split("Trained on ")[1].split()[0])
    # One family in four of each term, with its variant where it has one.
    assert 6 <= taught <= 8
    assert "Kept step 1: held-out loss refusal" in printed


def test_a_large_file_is_streamed_by_the_command(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = _train(rows, "scot", out=tmp_path / "whole")
    monkeypatch.setattr(run, "LARGE", 5)
    monkeypatch.setattr(run, "cache_folder", lambda: tmp_path / "cache")
    streamed = _train(rows, "scot", out=tmp_path / "streamed")
    assert len(list((tmp_path / "cache" / "rows").glob("*.arrow"))) == 1
    assert capsys.readouterr().out.count("Trained on 10 rows") == 2
    name = "adapter_model.safetensors"
    assert (streamed / name).read_bytes() == (whole / name).read_bytes()
    assert read_settings(streamed) == read_settings(whole)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--tracker", "nosuch"), "there is no such tracker"),
        (("--method", "circuit_breaker", "--packing"), "may look at states row by row"),
        (("--method", "scot_no_benign", "--held-out", "0.25"), "hold none of the term 'benign'"),
    ],
)
def test_options_that_do_not_go_together_are_errors(
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: tuple[str, ...],
    said: str,
) -> None:
    file = _answers(tmp_path / "kept.jsonl", 5)
    more = ("--complied", file) if "circuit_breaker" in given else ()
    assert _command(monkeypatch, "train", rows, "--out", tmp_path / "o", "--model", tiny_folder(), *given, *more) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_early_stop_holds_out_families_by_itself(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --held-out its own share goes, and the weights that were best on it are kept."""
    _train(rows, "scot", recipe=_recipe(tmp_path, "{early_stop: {every: 1, held_out: 0.2}}"))
    assert "held-out loss refusal" in " ".join(capsys.readouterr().out.split())
