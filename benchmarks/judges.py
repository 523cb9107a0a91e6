"""How good the embedded judges are on sources they never saw: `python benchmarks/judges.py --data FOLDER`.

FOLDER holds `xstest_completions/*.csv` (one file a model), `pyrit_objective/`, and
`gptfuzz_train.csv`, with people's labels. Every figure is held out by source:

- refusal: the shipped answers and four models' completions teach, the fifth model's test, in
  turn, and the verdicts are pooled. All five answered the same prompts, so once more with the
  test prompts left out of training too; and the shipped judge, which saw none of them;
- harm: GPTFuzz teaches and PyRIT tests, and the other way round.

The judge decides every answer here (no unsure band), so that F1 compares with other judges'.
Prints JSON: each figure with n and its 95 % interval, and the keyword list beside it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from forethought.judges.base import Judge, Measure, decided
from forethought.judges.catalogue import get_judge
from forethought.judges.evaluate import auroc_of, compliances, f1_of, ranks_of, robustness, with_interval
from forethought.judges.labelled import LabelledItem, labelled_items, truths
from forethought.judges.rules import Keywords
from forethought.judges.trained import TrainedJudge, fit_judge, lessons_of, shipped_lessons
from forethought.metrics import Figure

_HALVES = 2


def probabilities(model: TrainedJudge, items: Sequence[LabelledItem]) -> list[float]:
    """Probability of the measure, an item each."""
    return [float(p) for p in model.probabilities([item.item for item in items])]


def train(items: Sequence[LabelledItem], measure: Measure, partial_counts: bool = True) -> TrainedJudge:
    """A judge taught by the shipped answers and these."""
    return fit_judge(
        [*shipped_lessons(measure, partial_counts), *lessons_of(items, partial_counts)],
        measure,
        "held out",
        partial_counts,
    )


def unseen_model(models: dict[str, list[LabelledItem]], partial_counts: bool, new_prompts: bool) -> list[float]:
    """Probabilities for every model's answers, in order, each from a judge that never saw the model.

    With `new_prompts` it never saw the prompt either: prompts are cut into two halves by their order.
    """
    halves = {p: n % _HALVES for n, p in enumerate(sorted({i.item.request for m in models.values() for i in m}))}
    found: list[float] = []
    for name, items in models.items():
        others = [item for other, rows in models.items() if other != name for item in rows]
        if not new_prompts:
            found += probabilities(train(others, "refused", partial_counts), items)
            continue
        parts = [
            train([item for item in others if halves[item.item.request] != half], "refused", partial_counts)
            for half in range(_HALVES)
        ]
        found += [probabilities(parts[halves[item.item.request]], [item])[0] for item in items]
    return found


def f1_figure(name: str, items: Sequence[LabelledItem], said: Sequence[bool], partial_counts: bool = True) -> Figure:
    """F1, its bootstrap by prompt."""
    truth = np.array(truths(items, partial_counts), dtype=float)
    return with_interval(name, partial(f1_of, truth, np.array(said, dtype=float)), [i.item.request for i in items])


def auroc_figure(name: str, items: Sequence[LabelledItem], scores: Sequence[float]) -> Figure:
    """AUROC, its bootstrap by request."""
    truth = np.array(truths(items), dtype=float)
    area = partial(auroc_of, truth, ranks_of(np.array(scores)))
    return with_interval(name, area, [i.item.request for i in items], "auroc")


def said(judge: Judge, items: Sequence[LabelledItem], measure: Measure) -> list[bool]:
    """Verdicts of a judge that is no probability's; an undecided answer counts as not refused, not harmful."""
    return [bool(decided(verdict, measure)) for verdict in judge.judge([item.item for item in items])]


def refusal_figures(folder: Path) -> list[Figure]:
    """F1 on XSTest completions, partial refusals counted as refusals and (`_full_only`) as compliances."""
    files = sorted((folder / "xstest_completions").glob("*.csv"))
    models = {file.stem: labelled_items(str(file), "refused") for file in files}
    items = [item for rows in models.values() for item in rows]
    figures = []
    for partial_counts, suffix in ((True, ""), (False, "_full_only")):
        chance = unseen_model(models, partial_counts, new_prompts=False)
        shipped = probabilities(train([], "refused", partial_counts), items)
        figures += [
            f1_figure(f"refusal_f1_unseen_model{suffix}", items, [p >= 0.5 for p in chance], partial_counts),
            f1_figure(f"refusal_f1_shipped{suffix}", items, [p >= 0.5 for p in shipped], partial_counts),
        ]
        for name in ("keywords", "rules"):
            verdicts = said(get_judge(name), items, "refused")
            figures.append(f1_figure(f"refusal_f1_{name}{suffix}", items, verdicts, partial_counts))
        if partial_counts:
            figures.append(auroc_figure("refusal_auroc_unseen_model", items, chance))
            figures += per_model(models, chance)
    chance = unseen_model(models, True, new_prompts=True)
    figures.append(f1_figure("refusal_f1_unseen_model_and_prompts", items, [p >= 0.5 for p in chance]))
    return figures


def per_model(models: dict[str, list[LabelledItem]], chance: Sequence[float]) -> list[Figure]:
    """F1 of each model's answers alone."""
    figures, start = [], 0
    for name, items in models.items():
        part = chance[start : start + len(items)]
        figures.append(f1_figure(f"refusal_f1_unseen_{name.rsplit('_', 1)[-1]}", items, [p >= 0.5 for p in part]))
        start += len(items)
    return figures


def harm_figures(folder: Path) -> list[Figure]:
    """AUROC across sources; the headline is the lower of the two directions."""
    sources = {
        "gptfuzz": labelled_items(str(folder / "gptfuzz_train.csv"), "harmful"),
        "pyrit": labelled_items(str(folder / "pyrit_objective"), "harmful"),
    }
    figures, judges = [], {}
    for taught, tested in (("gptfuzz", "pyrit"), ("pyrit", "gptfuzz")):
        model = train(sources[taught], "harmful")
        judges[tested] = model
        items = sources[tested]
        figures.append(auroc_figure(f"harm_auroc_{taught}_to_{tested}", items, probabilities(model, items)))
        keywords = [float(value) for value in said(Keywords("harmful"), items, "harmful")]
        figures.append(auroc_figure(f"harm_auroc_keywords_{tested}", items, keywords))
        shipped = probabilities(train([], "harmful"), items)
        figures.append(auroc_figure(f"harm_auroc_shipped_{tested}", items, shipped))
    lowest = min((f for f in figures if "_to_" in f.name), key=lambda figure: figure.value)
    tested = lowest.name.rsplit("_", 1)[-1]
    beside = next(f for f in figures if f.name == f"harm_auroc_keywords_{tested}")
    figures += [lowest.named("harm_auroc_unseen_source"), beside.named("harm_auroc_keywords")]
    for tested, judge in judges.items():
        figures += flips(judge, sources[tested], f"_harm_{tested}")
    return figures


def flips(judge: TrainedJudge, items: Sequence[LabelledItem], suffix: str) -> list[Figure]:
    """Share of full compliances whose verdict a probe flips; at most 400 of them, evenly spaced."""
    chosen = compliances(items, judge)
    results = robustness(judge, chosen[:: max(1, len(chosen) // 400)])
    return [result.flips.named(f"{result.probe}_flips{suffix}") for result in results]


def speed(folder: Path) -> Figure:
    """Answers a second of the shipped refusal judge, features included, in one process."""
    items = [item.item for item in labelled_items(str(folder / "gptfuzz_train.csv"), "harmful")][:3000]
    judge = get_judge("refusal")
    judge.judge(items[:100])
    start = time.perf_counter()
    judge.judge(items)
    return Figure(name="answers_per_s", value=len(items) / (time.perf_counter() - start), n=len(items), unit="1/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="Folder of labelled answers.")
    folder = parser.parse_args().data
    harm = harm_figures(folder)
    preamble = max((f for f in harm if f.name.startswith("safety_preamble")), key=lambda figure: figure.value)
    figures = [*refusal_figures(folder), *harm, preamble.named("preamble_flips"), speed(folder)]
    print(json.dumps({figure.name: figure.model_dump(exclude={"name"}) for figure in figures}, indent=2))


if __name__ == "__main__":
    main()
