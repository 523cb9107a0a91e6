"""Rows of a sweep with figures by hand, for the tests of its table and page."""

from __future__ import annotations

from forethought.evals.metrics import Figure
from forethought.report.sweep_figures import SweepRow

UNSEEN = ("style_json", "story")
REASONING = ("empty_thought",)


def figure(
    name: str, value: float, half: float | None = 0.05, unit: str = "share", n: int = 40, unscored: int = 0
) -> Figure:
    """A figure with an interval of so much to either side, kept within 0 and 1 where it is a share."""
    if half is None:
        return Figure(name=name, value=value, n=n, unscored=unscored, unit=unit)
    low, high = value - half, value + half
    if unit in {"share", "auroc"}:
        low, high = max(0.0, low), min(1.0, high)
    return Figure(name=name, value=value, low=low, high=high, n=n, unscored=unscored, unit=unit)


def sweep_row(
    defence: str,
    caught: float = 0.0,
    false: float = 0.0,
    seed: int = 0,
    score: bool = True,
    more: tuple[Figure, ...] = (),
    base: str = "small",
    budget: int = 60_000,
    note: str = "",
) -> SweepRow:
    """A row that refuses a share of harmful and one of harmless requests, alike in all styles; `more` goes first."""
    scored = (
        figure("auroc_unseen", min(1.0, 0.5 + (caught - false) / 2), unit="auroc"),
        figure("asr_matched", 1 - caught),
    )
    plain = (
        figure("youden_unseen", caught - false, unit="youden_j", n=320),
        figure("asr_unseen", 1 - caught, n=160),
        figure("refused_styled_harmless", false, n=160),
        *(figure(f"asr_{name}", 1 - caught) for name in ("direct", "reasoning", "gcg", *UNSEEN, *REASONING)),
        *(figure(f"refused_{name}", false) for name in ("lookalike", "ordinary", *UNSEEN, *REASONING)),
        figure("capability", 0.4),
    )
    trained = budget > 0
    return SweepRow(
        defence=defence, title=f"The {defence} defence", base=base, seed=seed, budget=budget,
        tokens=57_321 if trained else 0, train_seconds=660.0 if trained else 0.0,
        figures=(*more, *(scored if score else ()), *plain), note=note,
    )  # fmt: skip


def missing_row(defence: str, why: str, seed: int = 0, base: str = "small") -> SweepRow:
    """A row without figures."""
    return SweepRow(
        defence=defence, title=f"The {defence} defence", base=base, seed=seed, budget=60_000, tokens=0,
        train_seconds=0.0, figures=(), missing=why,
    )  # fmt: skip


def example() -> list[SweepRow]:
    """Eight defences: one with three seeds, one without a score, one that is missing."""
    return [
        sweep_row("base", score=False, budget=0),
        sweep_row("prompt", 0.4, 0.2, score=False, budget=0, note="self_reminder was the best prompt"),
        sweep_row("refusal_augmented", 0.8, 0.35),
        *(sweep_row("scot", caught, 0.2, seed) for seed, caught in enumerate((0.8, 0.86, 0.92))),
        sweep_row("scot_split", 0.84, 0.2),
        sweep_row("continuous_adversarial", 0.7, 0.5),
        sweep_row("latent_adversarial", 0.2, 0.4),
        missing_row("r2d2", "needs an accelerator"),
    ]
