"""What a new user meets in the first hour: one part measured at a time, the figures of the others kept.

Usage: python benchmarks/first_hour.py PART [FILE] [--out results/first_hour.json]

`refusals-draw FILE` writes 200 refusals to read: half in English, of which a part as a fused model writes them for
disguised requests, half over the other languages; all rules alike. The reader writes into the column `wrong` what is
wrong with each (`grammar`, `subject`, `rule`, `alternative`, `echo`, `tone`), or leaves it empty. `refusals FILE`
counts them. The file holds requests and stays where it is.

`languages FOLDER` builds a set from those made up in `first_hour_languages.yaml` and from the files of xsafety in
FOLDER, a language at a time, and counts the rows whose request, thought and refusal are not all in that language.

`chat [RUN]` takes the time from the start of `forethought chat` to its prompt sign.

`hour` runs the commands of docs/first-hour.md as a person would, with the embedded model, each in a process of its
own, and takes their times: the machine has to be quiet. Some twenty minutes on two cores.

`resumed FILE` attacks the run folder FILE twice, once in one piece and once killed on the way and resumed, and compares
the log-odds of every reply.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import pty
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import yaml

from forethought.data.evolve import load_operators
from forethought.data.shipped import shipped_requests
from forethought.data.teach import intent_of, refusal_for, teach
from forethought.defences.base import rule_refusal
from forethought.errors import StageError
from forethought.language import language_of, languages
from forethought.manifest import file_hash
from forethought.metrics import Figure, share
from forethought.models.conversation import Conversation
from forethought.pipeline import BuildSettings
from forethought.pipeline.build import build
from forethought.policy import default_policy
from forethought.reasoning import Finding, SafetyReasoning, render
from forethought.records import Example, Request, read_jsonl
from forethought.report.results import write_results

ROOT = Path(__file__).resolve().parents[1]
SEED = 5  # 0 to 4 were read while the texts were written
READ, FUSED = 200, 40
STARTS = 5
WRONG = ("grammar", "subject", "rule", "alternative", "echo", "tone")
_COLUMNS = ("wrong", "made", "language", "rule", "request", "refusal")


def draw(file: Path) -> None:
    """The refusals to read, drawn at random, with an empty column for what is wrong."""
    rng, policy = random.Random(SEED), default_policy()
    by_rule: dict[str, list[Request]] = {rule: [] for rule in policy.rule_ids}
    for request in (*shipped_requests("rules"), *shipped_requests("harmful")):
        by_rule[request.rules[0]].append(request)
    others = [code for code in sorted(languages()) if code != "en"]
    rows = []
    for place in range(READ):
        rule = policy.rule_ids[place % len(policy.rule_ids)]
        request = rng.choice(by_rule[rule])
        if place < FUSED:
            disguised = rng.choice(list(load_operators().values())).apply(request, rng)
            refusal = rule_refusal(policy, rule, Conversation(messages=disguised.messages), intent_of(request.plain))
            rows.append(("", "fused", "en", rule, request.plain, refusal))
        elif place < READ // 2:
            rows.append(("", "row", "en", rule, request.plain, teach(request, policy, SEED).answer))
        else:
            code = others[(place - READ // 2) % len(others)]
            found = (Finding(rule=rule, violated=True),)
            reasoning = SafetyReasoning(intent=request.plain, findings=found, verdict="refuse", language=code)
            refusal = refusal_for(reasoning, policy, place, request.plain)
            rows.append(("", "row", code, rule, request.plain, refusal))
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([_COLUMNS, *rows])


def refusals(file: Path | None) -> list[Figure]:
    """How many refusals were read, the share with something wrong, and counts by kind."""
    if file is None:
        raise SystemExit("refusals: give the file that was read")
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    kinds = Counter(row["wrong"] for row in rows if row["wrong"])
    if unknown := set(kinds) - set(WRONG):
        raise SystemExit(f"refusals: {', '.join(sorted(unknown))} is none of {', '.join(WRONG)}")
    return [
        Figure(name="refusals_read", value=len(rows), unit="refusals"),
        Figure(name="refusals_read_fused", value=sum(row["made"] == "fused" for row in rows), unit="refusals"),
        Figure(name="refusals_read_languages", value=len({row["language"] for row in rows}), unit="languages"),
        share([bool(row["wrong"]) for row in rows]).named("refusals_bad_share"),
        *(Figure(name=f"refusals_bad_{kind}", value=kinds[kind], unit="refusals") for kind in WRONG),
    ]


MADE_UP = Path(__file__).with_name("first_hour_languages.yaml")
_TAGS = re.compile(r"</?think>|\b(?:Intent|Verdict):|\b(?:refuse|comply)\.|\bR\d+\b")
"""What machines read in a thought, in every language alike."""
_XSAFETY = {"sp": "es"}
"""Its own codes where they are not ISO 639's."""


def languages_part(folder: Path | None) -> list[Figure]:
    """Rows that were built in each language, those of them in another or in two, and what was left out for what."""
    if folder is None:
        raise SystemExit("languages: give the folder of xsafety's files")
    made = yaml.safe_load(MADE_UP.read_text(encoding="utf-8"))
    rows, wrong, told, left = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    asked: Counter[str] = Counter()
    for code in made:
        with tempfile.TemporaryDirectory() as place:
            files = [file for file in sorted(folder.glob("*.csv")) if _code(file) == code]
            harmful = [*made[code]["harmful"], *(text for file in files for text in _lines(file))]
            harmless = made[code]["harmless"] or made["en"]["harmless"]
            for name, texts in (("harmful", harmful), ("harmless", harmless)):
                lines = (json.dumps({"prompt": text}, ensure_ascii=False) for text in texts)
                (Path(place) / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
            sets = {name: str(Path(place) / f"{name}.jsonl") for name in ("harmful", "harmless")}
            asked[code] = len(harmful)
            try:
                built = build(sets["harmful"], BuildSettings(harmless=(sets["harmless"],)), out=Path(place) / "out")
            except StageError:
                left[f"{code}: not built"] += 1
                continue
            for row in read_jsonl(built.examples, Example):
                rows[code] += 1
                told[code] += bool(row.request.harmful) and row.request.operator is None
                wrong[code] += not all(language_of(part) == code for part in _parts(row))
    served = [code for code in made if rows[code]]
    figures = [
        Figure(name="languages_served", value=len(served), unit="languages"),
        Figure(name="languages_not_served_rows", value=sum(rows[c] for c in made if c not in languages()), unit="rows"),
        Figure(name="language_rows", value=rows.total(), unit="rows"),
        Figure(name="wrong_language_rows", value=wrong.total(), unit="rows"),
    ]
    for code in served:
        figures.append(Figure(name=f"language_requests_{code}", value=asked[code], unit="requests"))
        figures.append(Figure(name=f"language_requests_taught_{code}", value=told[code], unit="requests"))
    return figures


def _parts(row: Example) -> list[str]:
    """What of a row is in some language: the request, the thought without what machines read, the refusal."""
    thought = _TAGS.sub(" ", render(row.reasoning, default_policy()))
    return [row.request.plain, thought, *([row.answer] if row.answer and row.request.harmful else [])]


def _code(file: Path) -> str:
    code = file.name.partition("_")[0]
    return _XSAFETY.get(code, code)


def _lines(file: Path) -> list[str]:
    """The requests of a file of xsafety, one a line."""
    with file.open(encoding="utf-8-sig", newline="") as opened:
        return [row[0].strip() for row in csv.reader(opened) if row and row[0].strip()]


def chat(file: Path | None) -> list[Figure]:
    """Seconds from the start of `forethought chat` to its prompt sign: of the embedded model and of a run, each the
    median of several starts with the machine's caches warm; what of it the processor worked, which others that are at
    work do not change as much; and how busy the machine was."""
    asked = {"chat_start_s": "embedded"} | ({"chat_start_run_s": str(file)} if file is not None else {})
    found = []
    for name, model in asked.items():
        _started(model)
        starts = [_started(model) for _ in range(STARTS)]
        for place, kind in enumerate((name, f"{name[:-2]}_cpu_s")):
            taken = sorted(start[place] for start in starts)
            found.append(Figure(name=kind, value=taken[STARTS // 2], low=taken[0], high=taken[-1], n=STARTS, unit="s"))
    return [*found, Figure(name="chat_start_load", value=os.getloadavg()[0], unit="processes")]


def _started(model: str) -> tuple[float, float]:
    """(seconds, seconds of the processor's) until the prompt sign stands at a terminal; leaves then."""
    begun = time.monotonic()
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-m", "forethought", "chat", model])
    shown = ""
    while not shown.endswith("> "):
        try:
            shown += os.read(terminal, 65536).decode("utf-8", "replace")
        except OSError:
            raise SystemExit(f"chat {model}: {shown[-1000:]}") from None
    taken = time.monotonic() - begun
    os.write(terminal, b"\x04")
    used = os.wait4(process, 0)[2]
    os.close(terminal)
    return taken, used.ru_utime + used.ru_stime


def hour(file: Path | None) -> list[Figure]:
    """Minutes that the commands of the page take, in all and by command; what came of the run."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "first-hour.md").read_text(encoding="utf-8"), re.DOTALL)
    minutes: defaultdict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("examples", "recipes"):
            (Path(folder) / name).symlink_to(ROOT / name)
        for command in "".join(blocks).splitlines():
            print(command, flush=True)
            began = time.monotonic()
            subprocess.run([*_PROGRAM, *shlex.split(command)[1:]], cwd=folder, check=True)
            minutes[shlex.split(command)[1]] += (time.monotonic() - began) / 60
        results = json.loads((Path(folder) / "runs" / "garden" / "results.json").read_text(encoding="utf-8"))
    found = {figure["name"]: Figure.model_validate(figure) for figure in results["figures"]}
    return [
        Figure(name="minutes_first_hour", value=sum(minutes.values()), unit="minutes"),
        *(Figure(name=f"minutes_first_hour_{name}", value=value, unit="minutes") for name, value in minutes.items()),
        *(found[name].named(f"first_hour_{name}") for name in _CAME_OF_IT if name in found),
    ]


_PROGRAM = (sys.executable, "-m", "forethought")
_CAME_OF_IT = ("asr_direct_base", "asr_direct_scot_best", "asr_unseen_scot_best", "refused_ordinary_scot_best")


def resumed(file: Path | None) -> list[Figure]:
    """How far the log-odds of an attack that was killed and resumed are from those of one in a single piece."""
    if file is None:
        raise SystemExit("resumed: give the folder of a run")
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        subprocess.run(_attack(file, whole), check=True)
        n = len(_log_odds(whole))
        for share_kept in _KILLED_AT:
            child = subprocess.Popen(_attack(file, killed))
            while child.poll() is None and len(_log_odds(killed)) < share_kept * n:
                time.sleep(0.05)
            if child.poll() is not None:
                raise SystemExit("resumed: it ended before it could be killed")
            child.send_signal(signal.SIGKILL)
            child.wait()
        kept = len(_log_odds(killed))
        subprocess.run(_attack(file, killed), check=True)
        before, after = _log_odds(whole), _log_odds(killed)
    apart = [abs(after[asked] - odds) for asked, odds in before.items()]
    return [
        Figure(name="resumed_log_odds_max_diff", value=max(apart), n=n, unit="log-odds"),
        Figure(name="resumed_log_odds_differ", value=sum(one > 0 for one in apart), n=n, unit="replies"),
        Figure(name="resumed_kept", value=kept, n=n, unit="replies"),
    ]


_ATTACKS = ("misspelling", "style_json", "prefix_injection", "no_the")
_KILLED_AT = (0.3, 0.9)
"""Shares of the replies at which it is killed."""


def _attack(model: Path, out: Path) -> list[str]:
    named = [part for attack in _ATTACKS for part in ("--attack", attack)]
    return [*_PROGRAM, "attack", str(model), *named, "--limit", "6", "--max-tokens", "8", "--out", str(out)]


def _log_odds(folder: Path) -> dict[str, float]:
    """By what was asked, of the replies that are on disk whole."""
    file = folder / "replies.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.is_file() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return {row["id"]: row["value"]["log_odds"] for row in rows if row["value"].get("log_odds") is not None}


PARTS: dict[str, Callable[[Path | None], list[Figure]]] = {
    "refusals": refusals,
    "languages": languages_part,
    "chat": chat,
    "hour": hour,
    "resumed": resumed,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("part", choices=["refusals-draw", *PARTS])
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "first_hour.json")
    args = parser.parse_args()
    if args.part == "refusals-draw":
        draw(args.file)
        return
    figures = PARTS[args.part](args.file)
    inputs: dict[str, str] = {}
    if args.part == "languages":
        inputs = {file.name: file_hash(file) for file in (MADE_UP, *sorted(args.file.glob("*.csv")))}
    elif args.file is not None and args.file.is_file():
        inputs[args.part] = file_hash(args.file)
    write_results(args.out, [SEED], inputs, figures, keep=True)


if __name__ == "__main__":
    main()
