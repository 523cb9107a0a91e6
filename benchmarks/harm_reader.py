"""The judge of harm that reads the request: `python benchmarks/harm_reader.py DATA PYRIT --states FOLDER [--ship]`.

Fits it on four labelled sets, each left out in turn, beside the n-gram judge that ships: layers and penalty are chosen
anew among the other sets. With `--model FOLDER` a larger model reads; its figures end in `_best`. DATA holds
`judged/gptfuzz_train.csv` and `judged/xstest_completions`, PYRIT is the folder `scorer_evals` of the wheel `pyrit`
(1.1.0). All are MIT but XSTest, which is CC BY 4.0. What they call harm differs:

- GPTFuzz: people's label of a jailbroken answer;
- PyRIT, objectives: whether the answer reached the attack's objective;
- PyRIT, harms: how bad the text is, 0 to 1 by one to three people; harmful from a mean of one half on;
- XSTest: full compliance with an unsafe request; to a safe request, or in part, nothing is harmful.

The two of PyRIT share answers, so neither teaches where the other is tested. Beside it stands what a head reaches that
the set's own labels taught, groups of its requests held out. States are kept in the folder, and a run
that was stopped goes on. With `--ship` the head fitted on all sets is written into the package: weights, no text.
"""

from __future__ import annotations

import argparse
import csv
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from others import given

from forethought.judges.base import Item
from forethought.judges.evaluate import auroc_of, ranks_of, with_interval
from forethought.judges.heads import area_of, fit_reader, held_out, read_lessons
from forethought.judges.reader import opened
from forethought.judges.trained import Lesson
from forethought.manifest import file_hash
from forethought.metrics import Figure
from forethought.models.settings import EMBEDDED
from forethought.report.results import write_results

MOST = {"gptfuzz": 800, "pyrit_objective": None, "pyrit_harm": 700, "xstest": 560, "xstest_safe": 240}
"""Most answers of each; of XSTest those to unsafe requests are taken apart, since their labels are what is hard."""
FAMILIES = {"pyrit_objective": "pyrit", "pyrit_harm": "pyrit"}
SHIPPED = Path(__file__).resolve().parents[1] / "src/forethought/judges/data/reader"


def rows_of(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV; a first line that is a comment is left out."""
    lines = file.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    return list(csv.DictReader(lines[1:] if lines[0].startswith("#") else lines))


def _all(data: Path, pyrit: Path) -> Iterator[tuple[str, str, str, bool, bool]]:
    """(source, request, answer, harmful, whether the request is one of XSTest's safe ones)."""
    for row in rows_of(data / "judged/gptfuzz_train.csv"):
        yield "gptfuzz", row["question"], row["Response"], row["label"] == "1", False
    for file in sorted((pyrit / "objective").glob("*.csv")):
        for row in rows_of(file):
            yield (
                "pyrit_objective",
                row["objective"],
                row["assistant_response"],
                float(row["human_score"]) >= 0.5,
                False,
            )
    for file in sorted((pyrit / "harm").glob("*.csv")):
        for row in rows_of(file) if "mini" not in file.stem else ():
            said = [float(value) for name, value in row.items() if name and name.startswith("human_score") and value]
            yield "pyrit_harm", row["objective"], row["assistant_response"], bool(np.mean(said) >= 0.5), False
    for file in sorted((data / "judged/xstest_completions").glob("*.csv")):
        for row in rows_of(file):
            unsafe = row["type"].startswith("contrast")
            yield "xstest", row["prompt"], row["completion"], unsafe and row["final_label"].startswith("1"), not unsafe


def lessons(data: Path, pyrit: Path) -> list[Lesson]:
    """Labelled answers in an order drawn by lot; the same files give the same."""
    by_kind: dict[str, list[Lesson]] = {kind: [] for kind in MOST}
    seen = set()
    for source, request, answer, harmful, safe in _all(data, pyrit):
        if answer.strip() and (source, request, answer) not in seen:
            seen.add((source, request, answer))
            one = Lesson(item=Item(request=request, answer=answer), positive=harmful, source=source)
            by_kind[f"{source}_safe" if safe else source].append(one)
    found: list[Lesson] = []
    for kind, most in MOST.items():
        if most is not None:
            random.Random(0).shuffle(by_kind[kind])
        found += by_kind[kind][:most]
    random.Random(1).shuffle(found)
    return found


def main() -> None:
    """Reads, holds out, and writes the figures and the head."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("pyrit", type=Path)
    parser.add_argument("--states", type=Path, required=True, help="Folder in which states are kept.")
    parser.add_argument("--model", default=EMBEDDED, help="What reads: a model's name or folder.")
    parser.add_argument("--limit", type=int, help="Most answers, of all sets together. Default: all.")
    parser.add_argument("--ship", action="store_true", help="Write the head into the package.")
    parser.add_argument("--out", type=Path, default=Path("results/traffic.json"))
    options = parser.parse_args()
    model, end = opened(options.model), "" if options.model == EMBEDDED else "_best"
    taught = read_lessons(lessons(options.data, options.pyrit)[: options.limit], model, options.states, FAMILIES)
    scores = held_out(taught)
    found = {end: scores} | ({} if end else {"_ngram": taught.text.harm})
    figures = []
    for kind, values in found.items():
        own = []
        for source in sorted({one.source for one in taught.lessons}):
            rows = np.array([one.source == source for one in taught.lessons])
            of = [one.item.request for one, kept in zip(taught.lessons, rows, strict=True) if kept]
            area = partial(auroc_of, taught.labels[rows].astype(float), ranks_of(values[rows]))
            own.append(with_interval(f"harm_auroc_loso_{source}{kind}", area, of, "auroc"))
        n, areas = len(taught.lessons), [one.value for one in own]
        figures += [
            *own,
            Figure(name=f"harm_auroc_loso_mean{kind}", value=float(np.mean(areas)), n=n, unit="auroc"),
            Figure(name=f"harm_auroc_loso_worst{kind}", value=min(areas), n=n, unit="auroc"),
        ]
    for source in sorted({one.source for one in taught.lessons}):
        # What a head reaches that was taught by the same people, on other requests: what the reader can tell at most.
        own_rows = taught.only(np.array([one.source == source for one in taught.lessons]))
        reached = area_of(held_out(own_rows), own_rows.labels)
        n = len(own_rows.lessons)
        figures.append(Figure(name=f"harm_auroc_own_{source}{end}", value=reached, n=n, unit="auroc"))
    reader = fit_reader(taught, scores, "harm-reader", model, options.model)
    print(reader.settings)
    if options.ship:
        reader.save(SHIPPED)
    few_items = [one.item for one in taught.lessons[:16]]
    reader.judge(few_items[:2])
    began = time.process_time()  # of one core: others may be at work
    reader.judge(few_items)
    rate = len(few_items) / (time.process_time() - began)
    figures.append(Figure(name=f"harm_answers_per_s{end}", value=rate, n=len(few_items), unit="1/s"))
    for figure in figures:
        print(figure.name, round(figure.value, 3), figure.n)
    files = [options.data / "judged/gptfuzz_train.csv", *sorted((options.pyrit).glob("*/*.csv"))]
    inputs = {file.name: file_hash(file) for file in files}
    write_results(options.out, [0], inputs, figures, {}, given("harm_reader.py", options), keep=True)


if __name__ == "__main__":
    main()
