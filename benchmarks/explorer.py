"""How fast are the transcripts of a page with 50,000 attempts? `python benchmarks/explorer.py`.

It writes a page of a synthetic run, without harm in it, and opens it in Chromium from its file. Measured is what a
reader waits: from the address to the drawn table (the middle of several openings), and from a filter or a search to
the rows that it finds (the slowest of several, each the middle of its repetitions). axe-core looks at it in both
themes, wide and narrow, with an attempt open and without. `page_mib` is the study's page. `--picture` draws that of
the docs.

    python benchmarks/explorer.py --results results/report.json --picture docs/transcripts.png
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from forethought.metrics import Figure
from forethought.report.results import write_results

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a script has no package
from tests.browser import violations
from tests.report.transcribed import explore, set_field, synthetic_page

LARGEST = Path(__file__).resolve().parent.parent / "results" / "study" / "report.html"
"""The page of the run with the most defences: a page's own size hardly depends on how many attempts it has."""
SEARCHES = (
    ("q", "gardener"), ("q", "baden"), ("q", "no such words"), ("q", ""), ("attack", "Leetspeak"),
    ("outcome", "harmless-refused"), ("attack", ""), ("sort", "nearest"), ("outcome", ""), ("sort", ""),
)  # fmt: skip


def waited(open_page: Callable[..., Any], file: Path, times: int) -> tuple[float, float]:
    """(seconds until it is drawn, milliseconds of the slowest filter)."""
    loads: list[float] = []
    filters: dict[tuple[str, str], list[float]] = {}
    for _ in range(times):
        page = open_page()
        start = time.monotonic()
        explore(page, file)
        loads.append(time.monotonic() - start)
        for field, value in SEARCHES:
            filters.setdefault((field, value), []).append(set_field(page, field, value))
        page.close()
    for (field, value), found in filters.items():
        print(f"{field}={value!r}: {statistics.median(found):.0f} ms")
    return statistics.median(loads), max(map(statistics.median, filters.values()))


def broken(open_page: Callable[..., Any], file: Path) -> int:
    """Violations that axe-core finds."""
    found = []
    for scheme in ("light", "dark"):
        for width in (1200, 390):
            page = open_page(scheme, width)
            explore(page, file, "outcome=harmless-refused&sort=nearest")
            found += violations(page)
            page.locator('#grid .ag-row [col-id="outcome"]').first.click()
            found += violations(page)
            page.close()
    print(*found, sep="\n")
    return len(found)


def picture(open_page: Callable[..., Any], file: Path, out: Path) -> None:
    """The transcripts with an attempt open."""
    page = open_page()
    explore(page, file, "outcome=harmless-refused&sort=nearest")
    page.locator("#choose").click()
    page.locator('#grid .ag-row [col-id="outcome"]').nth(1).click()
    page.locator("#transcripts").screenshot(path=out)
    page.close()
    Image.open(out).quantize(48).save(out, optimize=True)


def main() -> None:
    """Measures, prints, and writes what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=50_000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--picture", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        file = synthetic_page(Path(folder), asked.attempts)
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])

        def open_page(scheme: Any = "light", width: int = 1200) -> Any:
            return browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)

        load, slowest = waited(open_page, file, asked.times)
        figures = [
            Figure(name="explorer_attempts", value=asked.attempts, unit="attempts"),
            Figure(name="explorer_load_s", value=load, n=asked.times, unit="seconds"),
            Figure(name="explorer_filter_ms", value=slowest, n=asked.times, unit="ms"),
            Figure(name="page_mib", value=LARGEST.stat().st_size / 2**20, unit="MiB"),
            Figure(name="axe_violations", value=broken(open_page, file), unit="violations"),
        ]
        for figure in figures:
            print(f"{figure.name} {figure.value:.4g}")
        print(f"{file.with_suffix('.attempts.js').stat().st_size / 2**20:.1f} MiB beside the page")
        if asked.picture:
            picture(open_page, file, asked.picture)
        browser.close()
    if asked.results:
        write_results(asked.results, [0], {}, figures, keep=True)


if __name__ == "__main__":
    main()
