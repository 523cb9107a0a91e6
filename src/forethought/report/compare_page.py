"""The page of a comparison: a defence beside the model as it was, on the same requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forethought.attacks.catalogue import parse_attack
from forethought.attempts.records import Judged
from forethought.measure.comprehension import readability_warnings
from forethought.measure.curves import OperatingPoint, by_cell, operating_curve, too_many_unscored
from forethought.metrics import Figure
from forethought.models.settings import Settings
from forethought.policy import default_policy
from forethought.report.figures import (
    BASE,
    OURS,
    attack_sets,
    judge_error,
    measured_comprehension,
    paired_comparisons,
    score_pairs,
)
from forethought.report.page import (
    AMBER,
    GREEN,
    HARMFUL,
    HARMLESS,
    INK,
    ONE,
    PURPLE,
    SOFT,
    Plot,
    axes_of,
    errors,
    told,
    write_page,
)
from forethought.report.tables import TITLES, table_rows
from forethought.report.transcripts import Side, write_transcripts

_COLOURS = {"base": SOFT, "prompt": AMBER, "scot": ONE, "scot_best": GREEN}
_PANELS = (("asr", "harmful requests answered (attack success)"), ("refused", "harmless requests refused"))


def write_compare_page(
    path: Path,
    title: str,
    attacks: Sequence[str],
    judged: Mapping[str, Sequence[Judged]],
    figures: Sequence[Figure],
    settings: Settings | None,
    show_harmful: bool = False,
    base: str = BASE,
    ours: str = OURS,
) -> None:
    """Writes the page of judged attempts by system, with their figures; whole or not at all.

    `base` is the system whose comprehension is measured, `ours` the one set against each other one, `settings` what
    stands beside it (None for a model that was not trained by us).
    """
    systems = list(judged)
    measured = measured_comprehension(judged[base], attacks) if base in judged else {}
    seen = settings.seen_operators if settings is not None else ()
    threshold = settings.threshold if settings is not None else 0.0
    unseen, apart = attack_sets(attacks, seen)
    compared = paired_comparisons(judged, unseen, ours)
    policy = settings.policy if settings is not None else default_policy()
    refuses_from = settings.threshold if settings is not None else None
    sides = [Side(_title(system), rows, refuses_from) for system, rows in judged.items()]
    write_page(
        path,
        "compare",
        title,
        named=TITLES.systems,
        systems=[_title(system) for system in judged],
        rows=table_rows(figures, systems),
        bars=attack_bars("bars", figures, ["direct", *unseen], systems),
        bars_apart=attack_bars("bars-apart", figures, apart, systems) if apart else None,
        apart=apart,
        histogram=score_histogram(judged.get(ours, []), threshold),
        curves=operating_curves(_curves(judged.get(ours, []), unseen), threshold),
        differences=[(f"{_title(ours)} minus {_title(name)}", rows) for name, rows in compared.items() if rows],
        reasoning=table_rows(figures, systems, "reasoning_rows"),
        readable=[(parse_attack(one), measured[one]) for one in ("direct", *attacks) if one in measured],
        warnings=_warnings(judged, measured),
        threshold=threshold,
        threshold_note=settings.threshold_note if settings is not None else "not trained here",
        policy=policy,
        seen=seen,
        unscored={system: sum(one.refused is None for one in rows) for system, rows in judged.items()},
        transcripts=write_transcripts(path, sides, policy, show_harmful),
        show_harmful=show_harmful,
        judge=judge_error(),
    )


def attack_bars(name: str, figures: Sequence[Figure], attacks: Sequence[str], systems: Sequence[str]) -> Plot:
    """Two panels of bars by attack: success on harmful requests, and harmless requests refused."""
    by_name = {figure.name: figure for figure in figures}
    height = 0.8 / len(systems)

    def draw() -> Any:
        canvas, axes = axes_of(0.55 * len(attacks) + 1.6, len(_PANELS))
        for axis, (stem, title) in zip(axes, _PANELS, strict=True):
            for number, system in enumerate(systems):
                found = [(row, by_name.get(_cell(stem, attack, system))) for row, attack in enumerate(attacks)]
                drawn = [(row + number * height, figure) for row, figure in found if figure is not None]
                axis.barh(
                    [place for place, _ in drawn], [figure.value for _, figure in drawn], height * 0.9,
                    xerr=errors([figure for _, figure in drawn]), color=_COLOURS.get(system, PURPLE), alpha=0.6,
                    error_kw={"ecolor": INK, "elinewidth": 0.8}, label=_title(system),
                )  # fmt: skip
            axis.set_title(title)
            axis.set_xlim(0, 1)
        axes[0].set_yticks(
            [row + 0.4 - height / 2 for row in range(len(attacks))], [parse_attack(one).title for one in attacks]
        )
        axes[0].invert_yaxis()
        canvas.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=len(systems))
        return canvas

    pairs = [(attack, system) for attack in attacks for system in systems]
    names = [f"{parse_attack(attack).title}, {_title(system)}" for attack, system in pairs]
    values = told(names, [by_name.get(_cell("asr", attack, system)) for attack, system in pairs])
    return Plot(name, f"Attack success and harmless requests refused by attack. Attack success: {values}.", draw)


def _cell(stem: str, attack: str, system: str) -> str:
    if attack == "direct":
        return f"asr_direct_{system}" if stem == "asr" else f"refused_ordinary_{system}"
    return f"{stem}_{attack}_{system}"


def score_histogram(judged: Sequence[Judged], threshold: float) -> Plot | None:
    """How the verdict's log-odds lie for harmful and harmless requests, with the operating point."""
    scores = [
        (one.attempt.request.harmful, one.response.log_odds)
        for one in judged
        if one.response is not None and one.response.log_odds is not None
    ]
    if not scores:
        return None

    def draw() -> Any:
        canvas, axis = axes_of(2.6)
        for harmful, colour, label in ((False, HARMLESS, "harmless"), (True, HARMFUL, "harmful")):
            axis.hist([odds for mark, odds in scores if mark is harmful], bins=40, alpha=0.6, color=colour, label=label)
        axis.axvline(threshold, color=INK, linewidth=1, linestyle="--", label="refuses from here")
        axis.set_xlabel("log-odds of the verdict (refuse against comply)")
        axis.set_ylabel("requests")
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return canvas

    above = sum(odds >= threshold for _, odds in scores)
    return Plot("odds", f"Log-odds of {len(scores)} verdicts, of which {above} are at {threshold:.2f} or above.", draw)


def operating_curves(curves: Mapping[str, Sequence[OperatingPoint]], threshold: float) -> Plot | None:
    """Harmful requests answered against harmless refused, for every threshold; where the model stands is marked."""
    # Points come in order of falling thresholds: the last at or above the model's own is where it stands.
    standing = {title: [one for one in points if one.threshold >= threshold][-1:] for title, points in curves.items()}
    if not curves:
        return None

    def draw() -> Any:
        canvas, axis = axes_of(3.6)
        for colour, (title, points) in zip((ONE, PURPLE, GREEN), curves.items(), strict=False):
            refused, answered = [one.false_refusal for one in points], [one.attack_success for one in points]
            axis.plot(refused, answered, color=colour, label=title)
            for one in standing[title]:
                axis.plot(one.false_refusal, one.attack_success, "o", color=colour)
        axis.set_xlim(-0.01, 1.01)
        axis.set_ylim(-0.01, 1.01)
        axis.set_xlabel("harmless requests refused")
        axis.set_ylabel("harmful requests answered")
        axis.legend()
        return canvas

    places = "; ".join(
        f"{title} {one.attack_success:.2f} of harmful answered, {one.false_refusal:.2f} of harmless refused"
        for title, found in standing.items()
        for one in found
    )
    return Plot("operating", f"Operating curves. The model stands at: {places}.", draw)


def _curves(judged: Sequence[Judged], unseen: Sequence[str]) -> dict[str, list[OperatingPoint]]:
    """The curves of our defence: direct requests, unseen styles, look-alikes against their twins."""
    cells = by_cell(judged)
    pairs = {
        "direct": [("direct", "ordinary")],
        "unseen styles": [(f"{attack}:harmful", f"{attack}:harmless") for attack in unseen],
        "look-alikes": [("twin", "lookalike")],
    }
    curves = {title: operating_curve(score_pairs(cells, couples)) for title, couples in pairs.items()}
    return {title: points for title, points in curves.items() if points}


def _title(system: str) -> str:
    return str(TITLES.systems.get(system, system))


def _warnings(judged: Mapping[str, Sequence[Judged]], measured: Mapping[str, Figure]) -> list[str]:
    """What a reader has to know before trusting a number: cells with many unscored answers, flags that are wrong."""
    lines = [
        f"{_title(system)}: {part:.0%} of the answers in {cell} are unscored"
        for system, rows in judged.items()
        for cell, part in too_many_unscored(rows).items()
    ]
    return [*lines, *readability_warnings(measured)]
