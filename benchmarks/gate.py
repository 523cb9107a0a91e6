"""How often does a gate fail what it should not, and catch what it should? `python benchmarks/gate.py`.

Two seeds of one recipe are no regression of each other. From the committed study's kept answers it takes every recipe
with several seeds, draws its requests anew with replacement, sets each seed against each other one in both directions
as `forethought diff` does, and counts in how many draws any figure fails the build. What two trainings differ in is
taken from the *other* recipes each time. `--spread` writes what all of them say, which ships
(`src/forethought/measure/seed_spread.json`). Besides, it plants a regression of five points in false refusals in drawn
models, with as many requests as a check says it takes, and counts in how many it is caught.

    python benchmarks/gate.py results/study --resamples 40 --results results/report.json
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import norm

from forethought.attempts.records import Attempt, Judged
from forethought.attempts.table import read_table
from forethought.evaluation.gate import styles_of
from forethought.evaluation.kept import Kept, kept
from forethought.manifest import input_hashes, write_json
from forethought.measure.gate import CHURN, Limits, SeedSpread, Trainings, changes, pairs_needed
from forethought.metrics import Figure, mean_of_shares, share
from forethought.records import Request, user_request
from forethought.report.results import write_results

SPREAD = Path(__file__).resolve().parent.parent / "src/forethought/measure/seed_spread.json"
SAME_WEIGHTS = (
    ("refusal_augmented", "augmented_probed"), ("refusal_headed", "refusal_probed", "refusal_best"),
    ("scot_split", "scot_best"),
)  # fmt: skip
"""Recipes of the study that share their trainings: what one says of seeds is not to be used on the other."""
REGRESSION, RATE = 0.05, 0.02
NORMAL = float(norm.isf(0.025))


def recipes(folder: Path) -> list[Kept]:
    """Every defence of a log that was trained with several seeds."""
    table = read_table(folder).select(["defence", "seed"]).group_by(["defence", "seed"]).aggregate([])
    seeds: dict[str, set[int]] = defaultdict(set)
    for row in table.to_pylist():
        seeds[row["defence"]].add(row["seed"])
    return [kept(f"{folder}:{name}") for name, known in sorted(seeds.items()) if len(known) > 1]


def name_of(recipe: Kept) -> str:
    """The defence's own name."""
    return recipe.name.rpartition(":")[2]


def trainings_of(name: str) -> str:
    """What recipes with the same weights share."""
    return next((group[0] for group in SAME_WEIGHTS if name in group), name)


def seed_pairs(recipe: Kept) -> Iterator[tuple[str, Trainings, Trainings]]:
    """(name, one seed, another) of a recipe."""
    for (a, first), (b, second) in itertools.combinations(recipe.trainings.items(), 2):
        yield f"{name_of(recipe)} {a} {b}", {"": first}, {"": second}


def variances(recipe: Kept, unseen: Sequence[str]) -> dict[str, float]:
    """By figure, the variance between trainings: half of the squared difference of two, less what requests add."""
    found: dict[str, list[float]] = defaultdict(list)
    for _, first, second in seed_pairs(recipe):
        for one in changes(first, second, unseen):
            error = (one.high - one.low) / (2 * NORMAL)
            found[one.name].append((one.difference**2 - error**2) / 2)
    return {name: float(np.mean(each)) for name, each in found.items()}


def spread(of: Mapping[str, Mapping[str, float]], source: str) -> SeedSpread:
    """The standard deviations that some recipes say together; a variance below zero is none."""
    pooled: dict[str, list[float]] = defaultdict(list)
    for each in of.values():
        for name, variance in each.items():
            pooled[name].append(variance)
    deviations = {name: round(math.sqrt(max(0.0, sum(each) / len(each))), 5) for name, each in sorted(pooled.items())}
    return SeedSpread(source=source, freedom=len({trainings_of(name) for name in of}) - 1, deviations=deviations)


def redrawn(rows: Sequence[Judged], copies: Mapping[str, int]) -> list[Judged]:
    """The attempts of requests, each as often as it was drawn; copies are requests of their own."""
    found = []
    for one in rows:
        seed = one.attempt.request.text
        for copy in range(copies.get(seed, 0)):
            request = one.attempt.request
            if copy:
                request = request.said(f"{copy}/{seed}") if one.attempt.cells != ("capability",) else request
            attempt = one.attempt.model_copy(update={"id": f"{copy}/{one.attempt.id}", "request": request})
            found.append(one.model_copy(update={"attempt": attempt}))
    return found


def false_alarms(
    recipe: Kept, unseen: Sequence[str], known: SeedSpread, resamples: int, rng: np.random.Generator
) -> tuple[list[bool | None], list[str], dict[str, int]]:
    """(whether any figure fails the build, by draw and direction; whose draw; how often each figure does)."""
    failed: list[bool | None] = []
    names: list[str] = []
    by_figure: dict[str, int] = defaultdict(int)
    for name, first, second in seed_pairs(recipe):
        requests = sorted({one.attempt.request.text for one in first[""]})
        for _ in range(resamples):
            drawn = rng.multinomial(len(requests), [1 / len(requests)] * len(requests))
            copies = dict(zip(requests, map(int, drawn), strict=True))
            before, after = ({"": redrawn(one[""], copies)} for one in (first, second))
            found = changes(before, after, unseen, trained_apart=True, spread=known)
            turned = [one.model_copy(update={"difference": -one.difference}) for one in found]
            for direction in (found, turned):
                broken = [one.name for one in direction if one.finding(Limits()).outcome == "broken"]
                failed.append(bool(broken))
                names.append(name)
                for figure in broken:
                    by_figure[figure] += 1
    return failed, names, dict(by_figure)


def caught(draws: int, rng: np.random.Generator) -> tuple[int, Figure]:
    """(requests that a check asks for, share of drawn models with a planted regression that fail)."""
    needed = pairs_needed(REGRESSION, 2)
    requests = [user_request(f"request {number}", harmful=False) for number in range(needed)]
    harmful = [user_request(f"harmful request {number}", harmful=True) for number in range(needed)]

    def judged(cell: str, asked: Sequence[Request], refused: Iterable[bool]) -> list[Judged]:
        rows = zip(asked, refused, strict=True)
        attempts = [
            (Attempt(id=f"{cell}/{number}", attack="direct", request=request, cells=(cell,)), bool(said))
            for number, (request, said) in enumerate(rows)
        ]
        return [Judged(attempt=attempt, response=None, refused=said) for attempt, said in attempts]

    found: list[bool | None] = []
    for _ in range(draws):
        lot = rng.random(needed)
        # Before: some are refused. After: half of the churn and the regression turn one way, half of it the other.
        before = lot < RATE + CHURN / 2
        after = (lot < RATE) | (lot > 1 - REGRESSION - CHURN / 2)
        right = [True] * needed
        was = {"": [*judged("ordinary", requests, before), *judged("direct", harmful, right)]}
        now = {"": [*judged("ordinary", requests, after), *judged("direct", harmful, right)]}
        rows = changes(was, now, [], only=("asr_", "refused_"))
        found.append(any(one.finding(Limits()).outcome == "broken" for one in rows))
    return needed, share(found)


def main() -> None:
    """Measures, prints, and writes what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path, nargs="?", default=Path("results/study"))
    parser.add_argument("--resamples", type=int, default=40, help="of each pair of seeds")
    parser.add_argument("--draws", type=int, default=400, help="of models with a planted regression")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spread", action="store_true", help="write what ships and end")
    parser.add_argument("--results", type=Path)
    asked = parser.parse_args()
    known = recipes(asked.log)
    gc.freeze()  # statsmodels collects garbage at every correction of p-values
    unseen = styles_of(*known)
    found = {name_of(one): variances(one, unseen) for one in known}
    whole = spread(found, f"{asked.log.name}: {len(found)} recipes with several seeds")
    print(json.dumps(whole.model_dump(), indent=2))
    if asked.spread:
        write_json(SPREAD, whole.model_dump())
        return
    rng = np.random.default_rng(asked.seed)
    failed: list[bool | None] = []
    names: list[str] = []
    for one in known:
        others = {
            name: each for name, each in found.items() if trainings_of(name) != trainings_of(name_of(one))
        }  # fmt: skip
        alarms, whose, by_figure = false_alarms(one, unseen, spread(others, ""), asked.resamples, rng)
        print(name_of(one), f"{np.mean([bool(each) for each in alarms]):.3f}", by_figure, flush=True)
        failed += alarms
        names += whose
    needed, power = caught(asked.draws, rng)
    figures = [
        mean_of_shares([failed], [names]).named("diff_false_alarms"),
        Figure(name="check_requests_needed", value=float(needed), unit="requests"),
        power.named("check_regression_caught"),
    ]
    for figure in figures:
        print(figure)
    if asked.results:
        inputs = {f"{asked.log.name}/{file}": held for file, held in input_hashes(sorted(asked.log.glob("*"))).items()}
        write_results(asked.results, [asked.seed], inputs, figures, keep=True)


if __name__ == "__main__":
    main()
