"""Measures the judges, the intervals and the capability path, and writes results/judges.json.

Needs a folder with people's labels (`judged/`) and questions (`capability/`), which are not part of
the project. Each part is a benchmark of its own; this one runs them and gathers their figures.

    python benchmarks/judge_results.py FOLDER [--out results/judges.json]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from others import printed

from forethought.manifest import file_hash
from forethought.metrics import Figure
from forethought.report.results import write_results

QUESTIONS = ("arc_challenge_train.jsonl", "piqa.jsonl")


def main() -> None:
    """Runs everything and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Folder with judged/ and capability/.")
    parser.add_argument("--trials", type=int, default=200, help="Samples a setting of the interval simulation.")
    parser.add_argument("--out", type=Path, default=Path("results/judges.json"))
    options = parser.parse_args()
    judged = options.folder / "judged"
    judges = printed("judges.py", "--data", str(judged))
    figures = [Figure(name=name, **figure) for name, figure in judges.items()]
    capability = printed("capability.py", *(str(options.folder / "capability" / name) for name in QUESTIONS))
    figures.append(Figure(name="capability_loglik_diff", value=capability["capability_loglik_diff"], unit="nats"))
    intervals = printed("intervals.py", "--trials", str(options.trials))
    figures += [Figure.model_validate(row) for row in intervals["figures"]]
    files = sorted(judged.rglob("*.csv"))
    inputs = {str(path.relative_to(options.folder)): file_hash(path) for path in files}
    write_results(options.out, [0], inputs, figures)


if __name__ == "__main__":
    main()
