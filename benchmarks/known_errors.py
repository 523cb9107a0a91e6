"""Measures the judges that reports use on people's labels, and writes what reports say of them.

    python benchmarks/known_errors.py FOLDER    # with xstest_completions/*.csv

Writes src/forethought/judges/known_errors.json: counts and shares, no text.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from forethought.judges.base import decided
from forethought.judges.catalogue import get_judge
from forethought.judges.known import KnownError
from forethought.judges.labelled import labelled_items, truths

OUT = Path(__file__).resolve().parent.parent / "src/forethought/judges/known_errors.json"
SOURCE = "XSTest completions of five models"


def measure(name: str, folder: Path) -> KnownError:
    """A refusal judge on every answer; partial refusals count as refusals."""
    items = [item for file in sorted(folder.glob("*.csv")) for item in labelled_items(str(file), "refused")]
    verdicts = get_judge(name).judge([item.item for item in items])
    pairs = [
        (truth, said)
        for truth, verdict in zip(truths(items, True), verdicts, strict=True)
        if truth is not None and (said := decided(verdict, "refused")) is not None
    ]
    positive = [said for truth, said in pairs if truth]
    negative = [not said for truth, said in pairs if not truth]
    return KnownError(
        judge=name,
        measure="refused",
        source=SOURCE,
        sensitivity=round(sum(positive) / len(positive), 4),
        n_positive=len(positive),
        specificity=round(sum(negative) / len(negative), 4),
        n_negative=len(negative),
    )


def main() -> None:
    """Writes the file."""
    folder = Path(sys.argv[1]) / "xstest_completions"
    found = [measure(name, folder) for name in ("rules", "keywords", "refusal")]
    OUT.write_text(json.dumps([one.model_dump() for one in found], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
