"""How near the LLM teacher comes to the best possible time and number of calls.

A mock server in a process of its own answers every call in one second. Prints JSON:

concurrency_ratio  wall time / (rows / concurrency * 1 s), the runner's start included; the goal is at most 1.3
calls_ratio        calls of the published pipeline (7 a harmful row, 3 a harmless one) / calls made; at least 5

    python benchmarks/teacher.py [--rows 1000] [--concurrency 50]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.mock_teacher import counts_of, server_process  # noqa: E402  (a script has no package)

SECONDS = 1.0
"""What each answer takes."""
HARMFUL_SHARE = 0.7
_THINGS = ("kettle", "lantern", "bicycle", "notebook", "teapot", "umbrella", "garden", "violin", "window", "blanket")


def measure(rows: int, concurrency: int, folder: Path) -> dict[str, float]:
    """Runs the teacher once over synthetic, innocuous rows."""
    with server_process(SECONDS) as url:
        started = time.monotonic()
        # Imports belong to the runner's start, so they stand on the clock.
        from forethought.data.evolve import load_operators
        from forethought.data.llm_teacher import PAPER_CALLS, choose_demonstrations, lessons_from_model
        from forethought.data.taught import TeachTask
        from forethought.models.callspec import CallSettings
        from forethought.policy import default_policy
        from forethought.records import user_request

        operators = tuple(
            one.model_copy(update={"demonstrations": choose_demonstrations(one)})
            for one in load_operators(names=["slang", "role_play"]).values()
        )
        tasks = []
        for number in range(rows):
            harmful = number < rows * HARMFUL_SHARE
            text = f"Describe {_THINGS[number % 10]} number {number} and what stands beside it."
            request = user_request(text, harmful=harmful, rules=("R4",) if harmful else ())
            tasks.append(TeachTask(request=request, operators=operators))
        settings = CallSettings(base_url=url, concurrency=concurrency)
        model = "openai-api/mock/teacher"
        lessons, causes, _ = lessons_from_model(tasks, default_policy(), model, folder / "journal.jsonl", settings)
        wall = time.monotonic() - started
        served = counts_of(url)
        paper = sum(PAPER_CALLS[bool(task.request.harmful)] for task in tasks)
        return {
            "rows": rows,
            "lessons": len(lessons),
            "causes": sum(causes.values()),
            "calls": served["calls"],
            "most_running": served["most_running"],
            "wall_s": round(wall, 2),
            "concurrency_ratio": round(wall / (rows / concurrency * SECONDS), 3),
            "calls_ratio": round(paper / served["calls"], 2),
        }


def main() -> None:
    """Prints the figures as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=50)
    arguments = parser.parse_args()
    os.environ.setdefault("MOCK_API_KEY", "none")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(arguments.rows, arguments.concurrency, Path(folder))))


if __name__ == "__main__":
    main()
