"""What the script beside a page holds, for tests."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import math
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from forethought.attempts.records import Attempt, Judged
from forethought.models.conversation import Response
from forethought.reasoning import Finding, SafetyReasoning
from forethought.records import user_request
from forethought.report.decision import Evaluation
from forethought.report.evaluation_page import write_evaluation_page
from forethought.report.transcripts import Side


class Held(NamedTuple):
    """The three parts: columns, texts as they are shown, and those behind redacted ones by place."""

    table: dict[str, Any]
    texts: list[str]
    harmful: dict[str, str]


def held_in(script: Path) -> Held:
    """Unpacked; the grid comes before them."""
    _, *packed = re.findall(r'^"([A-Za-z0-9+/=]+)",?$', script.read_text("utf-8"), re.MULTILINE)
    return Held(*(json.loads(gzip.decompress(base64.b64decode(one))) for one in packed))


TOPICS = ("bread", "tulips", "violins", "rivers", "glaciers", "pottery", "sailing", "chess", "volcanoes", "bicycles")
SECRET = "zanzibar"
"""In every harmful request, behind what redaction leaves."""
ATTACKS = ("direct", "style_json", "leetspeak", "misspelling", "base64")
SYSTEMS = {"base model": None, "safety prompt": None, "SCoT": 0.25, "SCoT, best": 0.4}
_SYLLABLES = (
    "ba",
    "den",
    "fir",
    "gol",
    "ham",
    "ju",
    "kel",
    "lor",
    "mi",
    "nat",
    "ost",
    "pe",
    "rus",
    "sal",
    "tri",
    "win",
)
_PROSE = ["gardener", *("".join(one) for one in itertools.product(_SYLLABLES, repeat=3))]
"""Thousands of words: so that a text takes the room that one of a model takes, also when it is packed."""


def synthetic(attempts: int) -> list[Side]:
    """So many attempts over four systems, half of their requests with the label harmful, none with harm in it.

    Requests and thoughts have about 300 characters, answers 500, as those of a run.
    """
    draw, weights = random.Random(0), list(itertools.accumulate(1 / (rank + 3) for rank in range(len(_PROSE))))

    def prose(size: int) -> str:
        return " ".join(draw.choices(_PROSE, cum_weights=weights, k=size))

    asked = []
    for number in range(math.ceil(attempts / len(SYSTEMS))):
        harmful, topic = number % 2 == 1, TOPICS[number // 10 % len(TOPICS)]
        text = f"Stand-in {number // 10} about {topic}: {prose(40)}{f' {SECRET}' * harmful}"
        request = user_request(
            text, harmful=harmful, kind="harmful" if harmful else "ordinary",
            rules=("R4",) if harmful else (), categories=(topic,),
        )  # fmt: skip
        attack = ATTACKS[number // 2 % len(ATTACKS)]
        if attack != "direct":
            request = request.restyled(f"{attack} of it: {text}", attack)
        asked.append(Attempt(id=f"{number:06}", attack=attack, request=request, cells=()))
    return [Side(name, [_said(one, limit, draw, prose) for one in asked], limit) for name, limit in SYSTEMS.items()]


def _said(attempt: Attempt, limit: float | None, draw: random.Random, prose: Callable[[int], str]) -> Judged:
    if draw.random() < 0.01:
        return Judged(attempt=attempt, response=None, refused=None, cause="the server did not answer")
    if limit is None:
        refuses = attempt.request.harmful is True and draw.random() < 0.2
        response = Response(answer=f"{'No. ' if refuses else 'Yes. '}{prose(60)}")
        return Judged(attempt=attempt, response=response, refused=refuses)
    score = draw.gauss(2.0 if attempt.request.harmful else -2.0, 1.5)
    refuses = score >= limit
    read = SafetyReasoning(
        intent="", findings=(Finding(rule=draw.choice(("R4", "R5")), violated=True),) if refuses else (),
        verdict="refuse" if refuses else "comply",
    )  # fmt: skip
    response = Response(
        reasoning_text=f"Intent: {prose(40)}", reasoning=read, answer=prose(10 if refuses else 60),
        decision=read.verdict, log_odds=score,
    )  # fmt: skip
    return Judged(attempt=attempt, response=response, refused=refuses is (draw.random() > 0.02))


def synthetic_page(
    folder: Path, attempts: int, show_harmful: bool = False, sides: Sequence[Side] | None = None
) -> Path:
    """A page of an attack run with so many attempts, or with those given."""
    path, held = folder / "report.html", synthetic(attempts) if sides is None else sides
    write_evaluation_page(path, "A synthetic run", [Evaluation([])], held, show_harmful=show_harmful)
    return path


def explore(page: Any, file: Path, hash: str = "") -> None:
    """Opens a page in Chromium, until its attempts are drawn."""
    page.goto("about:blank")
    page.goto(f"{file.as_uri()}#{hash}")
    page.wait_for_function(_DRAWN)


def set_field(page: Any, field: str, value: str) -> float:
    """Sets a filter as a reader does; gives the milliseconds until the grid shows what is found."""
    return float(page.evaluate(_SET, [field, value]))


_DRAWN = "document.querySelector('#explorer[data-ready] :is(.ag-row:not(.ag-row-loading), .ag-overlay)')"
_SET = """async ([name, value]) => {
  const field = document.getElementById("filters").elements[name], start = performance.now();
  const frame = () => new Promise(requestAnimationFrame);
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  const none = document.getElementById("found").textContent.startsWith("0 of");
  do await frame(); while (!none && !document.querySelector("#grid .ag-row"));
  while (document.querySelector("#grid .ag-row-loading")) await frame();
  await frame();
  return performance.now() - start;
}"""
