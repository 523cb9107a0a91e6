"""Measures the attacks and how fast a suite runs, and writes results/attacks.json.

Counts what the catalogues hold; times a static suite on the embedded model as one continuous batch, as one batch an
attack and one attempt at a time, in turns; runs `gcg.py` and `scripted_suite.py` as processes of their own; and takes
over the rates of finished runs of `forethought attack`.

    python benchmarks/attacks.py [--base-run FOLDER] [--scot-run FOLDER] [--gcg FILE] [--out results/attacks.json]
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gcg import ratio
from others import given, printed

from forethought.attacks.catalogue import Preparation, all_attacks, load_suite, suite_attacks
from forethought.attacks.searches.base import all_searches
from forethought.attempts.ask import run_suite
from forethought.attempts.plan import make_plan
from forethought.attempts.records import planned
from forethought.cli.terminal import quiet
from forethought.data.behaviors import Behavior, sample
from forethought.data.shipped import shipped_requests
from forethought.metrics import Figure
from forethought.models.conversation import Conversation, Failed
from forethought.models.local import LocalModel
from forethought.report.results import write_results

_COPIED = ("asr_", "refused_", "youden_", "auroc_", "comprehension_")


def counts() -> list[Figure]:
    """What the catalogues hold; an attack with its options or composed ones are not counted again."""
    reasoning = sum(attack.kind == "reasoning" for attack in all_attacks().values())
    return [
        Figure(name="attacks_static", value=len(all_attacks()) - reasoning, unit="named attacks, options not counted"),
        Figure(name="attacks_reasoning", value=reasoning, unit="named attacks on reasoning, options not counted"),
        Figure(name="attacks_adaptive", value=len(all_searches()), unit="named searches, options not counted"),
    ]


def behaviors(kind: str, n: int) -> list[Behavior]:
    """Some shipped requests of held-out scenarios."""
    rows = [Behavior(id=r.id, benchmark="shipped", request=r) for r in shipped_requests(kind, "test")]
    return sample(rows, n, seed=0)


def suite_speed(suite: str, n: int, repeats: int, serial: int, max_tokens: int) -> list[Figure]:
    """Conversations a second of one continuous batch, through others' ways of running the same ones.

    The continuous run is `run_suite`, its journal included; the others are the bare model's calls. One at a time is
    measured on `serial` of them, drawn by seed: all would take hours.
    """
    model = LocalModel.load("embedded")
    attacks = [attack for attack in suite_attacks(load_suite(suite)) if not {"attacker", "file"} & set(attack.needs)]
    model.reply([Conversation(messages=row.request.messages) for row in behaviors("ordinary", 2)], 4)  # warm
    rates: dict[str, list[float]] = {"continuous": [], "per_attack": [], "serial": []}
    for turn in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            plan = Path(folder)
            make_plan(
                plan, attacks, behaviors("harmful", n), behaviors("ordinary", n), Preparation(turn, able=model.able)
            )
            by_attack: dict[str, dict[str, Conversation]] = {}
            for row in planned(plan):
                if not row.cause:
                    by_attack.setdefault(row.attack, {})[row.asked] = row.conversation
            once = {asked: one for group in by_attack.values() for asked, one in group.items()}
            drawn = random.Random(turn).sample(list(once.values()), min(serial, len(once)))
            groups = {
                "per_attack": [list(group.values()) for group in by_attack.values()],
                "serial": [[one] for one in drawn],
            }
            names = list(rates)
            for name in names[turn % 3 :] + names[: turn % 3]:
                began = time.perf_counter()
                if name == "continuous":
                    answered = run_suite(plan, model, max_tokens).answered
                else:
                    answered = sum(_ask(model, group, max_tokens) for group in groups[name])
                rates[name].append(answered / (time.perf_counter() - began))
    speeds = [
        Figure(name=f"suite_rate_{name}", value=sum(found) / len(found), n=len(found), unit="attempts/s")
        for name, found in rates.items()
    ]
    return [
        ratio("suite_ratio_per_attack", rates["continuous"], rates["per_attack"]),
        ratio("suite_ratio_serial", rates["continuous"], rates["serial"]),
        *speeds,
    ]


def _ask(model: LocalModel, conversations: Sequence[Conversation], max_tokens: int) -> int:
    return sum(not isinstance(reply, Failed) for reply in model.reply(conversations, max_tokens))


def scripted(n: int, file: Path | None) -> list[Figure]:
    """Memory of a suite of `n` attempts against a model that answers at once, or as `file` has it."""
    if file is not None:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = printed("scripted_suite.py", str(n), folder)
    return [
        Figure(name="scripted_attempts", value=found["attempts"], unit="attempts"),
        Figure(name="scripted_peak_gib", value=found["peak_gib"], unit="GiB"),
    ]


def gcg(file: Path | None) -> tuple[list[Figure], dict[str, str], str]:
    """(figures, why one is missing, its command) of `gcg.py`, from what it printed into a file where one is given."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file is not None else printed("gcg.py")
    return [Figure.model_validate(row) for row in found["figures"]], found.get("missing", {}), found["command"]


def rates_of(folder: Path | None, suffix: str) -> list[Figure]:
    """The rates of a finished run, each with the model's name behind it; `diff_` and `p_` of its comparison as well."""
    if folder is None:
        return []
    held = json.loads((folder / "results.json").read_text(encoding="utf-8"))["figures"]
    figures = [Figure.model_validate(row) for row in held]
    copied = [one.named(f"{one.name}_{suffix}") for one in figures if one.name.startswith(_COPIED)]
    return copied + [one for one in figures if one.name.startswith(("diff_", "p_"))]


def main() -> None:
    """Measures everything and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-run", type=Path, help="Folder of `forethought attack` on the base model.")
    parser.add_argument("--scot-run", type=Path, help="The same of the trained model.")
    parser.add_argument("--gcg", type=Path, help="What benchmarks/gcg.py printed, instead of running it.")
    parser.add_argument("--scripted", type=Path, help="What benchmarks/scripted_suite.py printed, likewise.")
    parser.add_argument("--suite", default="all")
    parser.add_argument("--requests", type=int, default=2, help="Of each label under an attack, for the speeds.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--serial", type=int, default=24, help="Attempts that are asked one at a time, a repeat.")
    parser.add_argument("--max-answer-tokens", type=int, default=32)
    parser.add_argument("--attempts", type=int, default=100_000, help="Of the scripted suite.")
    parser.add_argument("--out", type=Path, default=Path("results/attacks.json"))
    options = parser.parse_args()
    quiet()
    figures = [*counts(), *scripted(options.attempts, options.scripted)]
    figures += suite_speed(options.suite, options.requests, options.repeats, options.serial, options.max_answer_tokens)
    measured, missing, gcg_command = gcg(options.gcg)
    figures += measured
    runs = {"base": options.base_run, "scot": options.scot_run}
    figures += [figure for suffix, folder in runs.items() for figure in rates_of(folder, suffix)]
    inputs = {
        f"{name} run, {file}": content_hash
        for name, folder in runs.items()
        if folder is not None
        for file, content_hash in json.loads((folder / "results.json").read_text(encoding="utf-8"))["inputs"].items()
    }
    write_results(options.out, [0], inputs, figures, missing, f"{given('attacks.py', options)}; {gcg_command}")


if __name__ == "__main__":
    main()
