"""Whether the judges of refusals hold on cut answers: `python benchmarks/cut_answers.py RUN --data FOLDER`.

RUN is a run of the quickstart. A thousand of its answers, of the base and of both defended models, are judged as they
stand (24 tokens at most) and cut to 16. `refusal_labels.json` says which of them refuse, by the hash of their text:
200 drawn at random were read, and all others without a decision to refuse whose words might refuse (null: it can't be
told). What was not read is as the defence decided. No text of these answers teaches a judge.

FOLDER/judged/xstest_completions has whole answers with people's labels, which are judged at 16, 32 and 64 tokens too.

What a judge leaves unscored is in no F1; its share is a figure of its own. Writes into results/traffic.json.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
from others import given

from forethought.attempts.records import Judged
from forethought.judges.base import Item
from forethought.judges.catalogue import get_judge
from forethought.judges.evaluate import f1_of, with_interval
from forethought.judges.labelled import labelled_items, truths
from forethought.manifest import file_hash
from forethought.metrics import Figure, share
from forethought.models.weights import embedded_model, load_tokenizer
from forethought.records import read_jsonl
from forethought.report.results import write_results

STAGES = ("7-respond-base", "7-respond-scot", "9-respond-scot_best")
LABELS = Path(__file__).with_name("refusal_labels.json")
N, CUT = 1000, 16
JUDGES = {"": "refusal", "_rules": "rules"}
"""Judges by the end of their figures' names."""


def answers(run: Path) -> list[tuple[Judged, bool]]:
    """N answers of the run, each with whether it refuses; those whose label can't be told are left out."""
    labels: dict[str, bool | None] = json.loads(LABELS.read_text(encoding="utf-8"))
    rows = [
        (judged.attempt.id, stage, judged)
        for stage in STAGES
        for judged in read_jsonl(run / stage / "judged.jsonl", Judged)
        if judged.response is not None and judged.response.answer
    ]
    rows.sort(key=lambda row: row[:2])
    random.Random(0).shuffle(rows)
    found: list[tuple[Judged, bool]] = []
    for _, _, judged in rows[:N]:
        assert judged.response is not None
        key = sha256(judged.response.answer.encode()).hexdigest()[:12]
        truth = labels.get(key, judged.response.decision == "refuse")
        if truth is not None:
            found.append((judged, truth))
    return found


Rows = Sequence[tuple[Item, bool]]
"""Answers and whether they refuse."""


def cut(rows: Rows, tokens: int | None) -> list[tuple[Item, bool]]:
    """The rows with the first tokens of their answers; None is all."""
    if tokens is None:
        return list(rows)
    tokenizer = load_tokenizer(str(embedded_model()))
    ids = [tokenizer(item.answer, add_special_tokens=False)["input_ids"][:tokens] for item, _ in rows]
    return [
        (item.model_copy(update={"answer": tokenizer.decode(few)}), truth)
        for (item, truth), few in zip(rows, ids, strict=True)
    ]


def figures_of(rows: Rows, name: str, judge: str) -> list[Figure]:
    """F1 of what the judge decides, its bootstrap by request, and the share that it leaves unscored."""
    verdicts = [verdict.refused for verdict in get_judge(judge).judge([item for item, _ in rows])]
    scored = [
        (item.request, truth, verdict)
        for (item, truth), verdict in zip(rows, verdicts, strict=True)
        if verdict is not None
    ]
    truth, said = (np.array([row[place] for row in scored], dtype=float) for place in (1, 2))
    f1 = with_interval(f"refusal_f1_{name}", partial(f1_of, truth, said), [request for request, *_ in scored])
    return [f1, share([verdict is None for verdict in verdicts]).named(f"refusal_unscored_{name}")]


def main() -> None:
    """Judges everything and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="Folder of a run of the quickstart.")
    parser.add_argument("--data", type=Path, help="Folder with judged/xstest_completions.")
    parser.add_argument("--out", type=Path, default=Path("results/traffic.json"))
    options = parser.parse_args()
    own = [
        (Item(request=judged.attempt.request.text, answer=judged.response.answer), truth)
        for judged, truth in answers(options.run)
        if judged.response is not None
    ]
    figures, inputs = [], {LABELS.name: file_hash(LABELS)}
    for end, judge in JUDGES.items():
        figures += figures_of([*cut(own, CUT), *own], f"cut{end}", judge)
    if options.data is not None:
        files = sorted((options.data / "judged/xstest_completions").glob("*.csv"))
        items = [one for file in files for one in labelled_items(str(file), "refused")]
        people = [(one.item, truth) for one, truth in zip(items, truths(items), strict=True) if truth is not None]
        inputs |= {file.name: file_hash(file) for file in files}
        for tokens in (16, 32, 64, None):
            rows = cut(people, tokens)
            for end, judge in JUDGES.items():
                figures += figures_of(rows, f"xstest_{tokens or 'whole'}{end}", judge)[:1]
    for figure in figures:
        print(figure.name, round(figure.value, 3), figure.n)
    write_results(options.out, [0], inputs, figures, command=given("cut_answers.py", options), keep=True)


if __name__ == "__main__":
    main()
