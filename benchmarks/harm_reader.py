"""The judge of harm that reads the request: `python benchmarks/harm_reader.py DATA PYRIT --states FOLDER [--ship]`.

Fits it on four labelled sets, each held out in turn, beside the n-gram judge that ships. DATA holds
`judged/gptfuzz_train.csv` and `judged/xstest_completions`, PYRIT is the folder `scorer_evals` of the wheel `pyrit`
(1.1.0). All are MIT but XSTest, which is CC BY 4.0. What they call harm differs:

- GPTFuzz: people's label of a jailbroken answer;
- PyRIT, objectives: whether the answer reached the attack's objective;
- PyRIT, harms: how bad the text is, 0 to 1 by one to three people; harmful from a mean of one half on;
- XSTest: full compliance with an unsafe request; to a safe request, or in part, nothing is harmful.

The two of PyRIT share answers, so neither teaches where the other is tested. States are kept in the folder, and a run
that was stopped goes on. With `--ship` the head fitted on all sets is written into the package: weights, no text.
"""

from __future__ import annotations

import argparse
import csv
import random
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from others import given

from forethought.judges.base import Item
from forethought.judges.evaluate import auroc_of, with_interval
from forethought.judges.reader import balanced, fit_head, fit_reader, head_scores, states_of
from forethought.judges.trained import Lesson, shipped_judge
from forethought.manifest import file_hash
from forethought.metrics import Figure
from forethought.models.local import LocalModel
from forethought.models.weights import embedded_model
from forethought.report.results import write_results

LAYERS = (12, 15, 18)
MOST = {"gptfuzz": 800, "pyrit_objective": None, "pyrit_harm": 700, "xstest": 560, "xstest_safe": 240}
"""Most answers of each; of XSTest those to unsafe requests are taken apart, since their labels are what is hard."""
N = 700
"""Answers whose states are read, drawn from all sets."""
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
    """N labelled answers; the same files give the same ones."""
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
    return found[:N]


@lru_cache(maxsize=1)
def embedded() -> LocalModel:
    """What reads."""
    return LocalModel.load(str(embedded_model()))


def kept_states(taught: Sequence[Lesson], folder: Path) -> np.ndarray:
    """Their states, a hundred to a file."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, len(taught), 100):
        file = folder / f"{start:05}.npy"
        if not file.is_file():
            part = states_of(embedded(), [one.item for one in taught[start : start + 100]], LAYERS)
            np.save(file, part.astype(np.float16))
            print(start + len(part), "of", len(taught), flush=True)
        parts.append(np.load(file))
    return np.concatenate(parts).astype(np.float32)


def main() -> None:
    """Reads, holds out, and writes the figures and the head."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("pyrit", type=Path)
    parser.add_argument("--states", type=Path, required=True, help="Folder in which states are kept.")
    parser.add_argument("--ship", action="store_true", help="Write the head into the package.")
    parser.add_argument("--out", type=Path, default=Path("results/traffic.json"))
    options = parser.parse_args()
    taught = lessons(options.data, options.pyrit)
    states = kept_states(taught, options.states)
    words = shipped_judge("harmful").scores([one.item for one in taught])
    harmful = np.array([one.positive for one in taught])
    sources = np.array([one.source for one in taught])
    families = np.array([one.source.partition("_")[0] for one in taught])
    requests = [one.item.request for one in taught]
    figures = []
    for source in sorted(set(sources)):
        tested, rest = sources == source, families != source.partition("_")[0]
        few = [one for one, kept in zip(taught, rest, strict=True) if kept]
        head = fit_head(states[rest], words[rest], harmful[rest], balanced(few))
        found = {"": head_scores(states[tested], words[tested], head), "_ngram": words[tested]}
        of = [request for request, kept in zip(requests, tested, strict=True) if kept]
        for end, scores in found.items():
            area = auroc_of(harmful[tested].astype(float), scores)
            figures.append(with_interval(f"harm_auroc_loso_{source}{end}", area, of, "auroc"))
    for end in ("", "_ngram"):
        own = [one.value for one in figures if one.name.endswith("_ngram") == bool(end)]
        figures.append(
            Figure(name=f"harm_auroc_loso_mean{end}", value=float(np.mean(own)), n=len(taught), unit="auroc")
        )
        figures.append(Figure(name=f"harm_auroc_loso_worst{end}", value=min(own), n=len(taught), unit="auroc"))
    reader = fit_reader(taught, "harm-reader", embedded(), states=states, layers=LAYERS)
    if options.ship:
        reader.save(SHIPPED)
    few_items = [one.item for one in taught[:16]]
    reader.judge(few_items[:2])
    began = time.process_time()  # of one core: others may be at work
    said = reader.probabilities(few_items)
    rate = len(few_items) / (time.process_time() - began)
    head = (reader.weights, reader.settings.bias, reader.settings.by_words)
    odds = head_scores(states[: len(few_items)], words[: len(few_items)], head)
    print("largest difference from kept states", np.abs(said - 1 / (1 + np.exp(-odds))).max())
    figures.append(Figure(name="harm_answers_per_s", value=rate, n=len(few_items), unit="1/s"))
    for figure in figures:
        print(figure.name, round(figure.value, 3), figure.n)
    missing = dict.fromkeys(
        ("harm_auroc_loso_mean_best", "harm_auroc_loso_worst_best"),
        "not measured: the larger model reads a few hundred answers in an hour of a core that was not to be had",
    )
    files = [options.data / "judged/gptfuzz_train.csv", *sorted((options.pyrit).glob("*/*.csv"))]
    inputs = {file.name: file_hash(file) for file in files}
    write_results(options.out, [0], inputs, figures, missing, given("harm_reader.py", options), keep=True)


if __name__ == "__main__":
    main()
