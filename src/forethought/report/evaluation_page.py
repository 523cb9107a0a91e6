"""The page of an evaluation, whatever made it: a run, an attack, a comparison, a sweep or the study."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from forethought.attacks.catalogue import DIRECT, parse_attack, seen_in_training
from forethought.attempts.records import Judged
from forethought.manifest import git_commit, versions
from forethought.measure.comprehension import readability_warnings
from forethought.measure.curves import OperatingPoint, by_cell, operating_curve, too_many_unscored
from forethought.measure.paired import Comparison
from forethought.measure.traffic import DRIFT_LIMIT, Drift, Traffic
from forethought.metrics import Figure
from forethought.models.settings import Settings
from forethought.policy import Policy, default_policy
from forethought.report.attack_figures import HARMLESS_MEANS, MEANS, AttackReport, SearchResult
from forethought.report.decision import Evaluation, Paired, System, decide, threats
from forethought.report.figures import (
    BASE,
    OURS,
    attack_sets,
    by_rule,
    by_source,
    by_trigger,
    judge_error,
    measured_comprehension,
    paired_comparisons,
    score_pairs,
)
from forethought.report.page import write_page
from forethought.report.plots import (
    ability,
    attack_dots,
    budget_curves,
    forest,
    operating_curves,
    pareto,
    points_of,
    score_histogram,
    trade_off,
)
from forethought.report.tables import TITLES, attack_title, search_lines, sign_of, titled
from forethought.report.transcripts import Side, write_transcripts

FEW = 4
"""Systems up to which a table has a column for each; of more each has a line."""
_CONTROLS = ("refused_styled_lookalike", "refused_lookalike")
_ORDINARY = ("refused_styled_harmless", "refused_ordinary")
"""What is set against attack success: the first of each that was measured, look-alikes first."""
_COLUMNS = {
    "asr": "success (low)", "alike": "look-alikes refused (low)", "refused": "ordinary requests refused (low)",
    "youden": "Youden's J (high)", "auroc": "AUROC (high)",
}  # fmt: skip
"""Of the table by attack, where there are few systems."""
Cells = list[Figure | None]


def write_evaluation_page(
    path: Path,
    title: str,
    parts: Sequence[Evaluation],
    sides: Sequence[Side] = (),
    policy: Policy | None = None,
    show_harmful: bool = False,
) -> None:
    """Writes the page, whole or not at all; of the same evaluation the same, byte for byte.

    `sides` are the attempts with their texts, which stand in a file beside the page, and the `policy` (None: the
    default one) is that whose rules they name.
    """
    write_page(
        path,
        "evaluation",
        title,
        parts=[_part(one, f"-{number}" if number else "") for number, one in enumerate(parts)],
        transcripts=write_transcripts(path, sides, policy or default_policy(), show_harmful) if sides else None,
        show_harmful=show_harmful,
        few=FEW,
        search_headings=TITLES.search_columns,
        sign_of=sign_of,
    )


def _part(found: Evaluation, key: str) -> dict[str, Any]:
    """What the template lays out; `key` keeps the ids of parts apart."""
    there = [one for one in found.systems if one.figures]
    groups = {TITLES.groups[name]: list(attacks) for name, attacks in found.groups.items() if attacks}
    apart = [*found.groups.get("seen", ()), *found.groups.get("unreadable", ())]
    main = [one for name, attacks in found.groups.items() if name not in ("seen", "unreadable") for one in attacks]
    few = there if len(there) <= FEW else []
    searches = {_search(one, result, len(there)): result for one in there for result in one.searches}
    blocks: dict[str, list[Comparison]] = {}
    for row in found.paired:
        blocks.setdefault(f"{row.of} minus {row.against}", []).append(row.found)
    costs = [
        cost
        for stems in (_CONTROLS, _ORDINARY)
        for cost in [one for one in stems if points_of(there, one, "asr_unseen")][:1]
    ]
    measured = {stem for one in few for attack in (*main, *apart) for stem in one.under(attack)}
    return {
        "found": found,
        "key": key,
        "systems": there,
        "decision": decide(found),
        "trade_off": trade_off(f"trade-off{key}", there, costs),
        "fronts": [(titled(cost), _front(there, cost)) for cost in costs],
        "ability": ability(f"ability{key}", there),
        "forest": forest(f"forest{key}", there),
        "headline": rows_of(there, [*TITLES.headline, *_asked(there)]),
        "reasoning": rows_of(there, [*TITLES.reasoning, *TITLES.reasoning_rows]),
        "cost": rows_of(there, TITLES.cost),
        "judged": rows_of(there, TITLES.judge),
        "attacks": {title: _attack_lines(there, attacks) for title, attacks in groups.items()},
        "means": {TITLES.groups[name]: _mean_of(there, name) for name in MEANS},
        "dots": attack_dots(f"attacks{key}", few, main) if few and main else None,
        "dots_apart": attack_dots(f"apart{key}", few, apart) if few and apart else None,
        "columns": [(stem, heading) for stem, heading in _COLUMNS.items() if stem in measured],
        "understood": [
            (attack_title(attack), figure)
            for attack in (*main, *apart)
            for one in there
            if (figure := one.under(attack).get("comprehension")) is not None
        ],
        "blocks": blocks,
        "searches": [(name, *search_lines([result])[0][1:]) for name, result in searches.items()],
        "budgets": budget_curves(f"budgets{key}", searches),
        "curves": operating_curves(f"operating{key}", found.curves, found.threshold),
        "histogram": score_histogram(f"odds{key}", found.thresholded, found.threshold),
        "threats": threats(found),
    }  # fmt: skip


def _asked(systems: Sequence[System]) -> list[str]:
    """Figures of questions that files gave."""
    return sorted({name for one in systems for name in one.figures if name.startswith("capability_")})


def _front(systems: Sequence[System], cost: str) -> list[str]:
    return [one.label for one, *_ in pareto(points_of(systems, cost, "asr_unseen"))]


def rows_of(systems: Sequence[System], stems: Iterable[str]) -> list[tuple[str, str, Cells]]:
    """(name, title, one figure a system or None) of the figures that any of them has."""
    rows = [(stem, titled(stem), [one.figures.get(stem) or one.scored(stem) for one in systems]) for stem in stems]
    return [row for row in rows if any(row[2])]


def _attack_lines(systems: Sequence[System], attacks: Sequence[str]) -> list[tuple[str, list[dict[str, Figure]]]]:
    """(attack, what was measured under it of each system)."""
    return [(attack_title(one), [system.under(one) for system in systems]) for one in attacks]


def _mean_of(systems: Sequence[System], group: Any) -> list[dict[str, Figure]]:
    """The means over a group's attacks, by what they are of."""
    names = {"asr": f"asr_{group}", "refused": HARMLESS_MEANS[group], "youden": f"youden_{group}"}
    names |= {"auroc": f"auroc_{group}"} | ({"alike": "refused_styled_lookalike"} if group == "unseen" else {})
    return [{key: one.figures[name] for key, name in names.items() if name in one.figures} for one in systems]


def _search(one: System, result: SearchResult, systems: int) -> str:
    return result.name if systems == 1 else f"{one.label}: {result.name}"


def _by_system(
    systems: Sequence[System], measured: Callable[[System], Mapping[str, Figure]]
) -> list[tuple[str, Cells]]:
    """What is measured of each system by labels, a row a label."""
    found = [measured(one) for one in systems]
    labels = sorted({label for one in found for label in one}, key=_in_order)
    return [(label, [one.get(label) for one in found]) for label in labels]


def _in_order(label: str) -> list[tuple[int, str]]:
    """R2 before R11."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", label)]


def measured_by(found: Evaluation) -> Evaluation:
    """The same with all that is read off the judged attempts themselves: by rule, trigger and source."""
    there = [one for one in found.systems if one.figures]
    ours, unseen = found.system(found.ours), found.groups.get("unseen", ())
    rules = {title.partition(" ")[0]: title for title, _ in found.rules}
    by_rules = _by_system(there, lambda one: by_rule(one.judged, unseen))
    triggers = _by_system(there, lambda one: by_trigger(one.judged))
    return Evaluation(
        **{**vars(found),
           "by_rule": [(rules.get(label, label), cells) for label, cells in by_rules],
           "by_trigger": [(label.replace("_", " "), cells) for label, cells in triggers],
           "by_source": by_source(ours.judged) if ours is not None else {}},
    )  # fmt: skip


def made_by(inputs: Mapping[str, str], code: str = "") -> list[tuple[str, str]]:
    """What a page says of its code and inputs; `code` where it was not this one."""
    packages = ", ".join(f"{name} {number}" for name, number in versions().items())
    here = [("Code", f"commit {git_commit() or 'unknown'}"), ("Packages", packages)]
    hashes = "; ".join(f"{name} {content[:16]}" for name, content in inputs.items())
    return [*([("Code", code)] if code else here), ("Inputs, by SHA-256", hashes or "shipped ones alone")]


def policy_rules(policy: Policy) -> list[tuple[str, str]]:
    """Its rules as words."""
    return [(f"{rule.id} {rule.title}", rule.description) for rule in policy.rules]


# What is compared, and what is attacked, as an evaluation.


def comparison_page(
    attacks: Sequence[str],
    judged: Mapping[str, Sequence[Judged]],
    figures: Sequence[Figure],
    settings: Settings | None,
    base: str = BASE,
    ours: str = OURS,
    lineage: Sequence[tuple[str, str]] = (),
    contamination: str = "",
    traffic: Traffic | None = None,
) -> Evaluation:
    """Judged attempts by system with their figures. The last system is decided on, against `base`.

    `base` is the system whose comprehension was measured, `ours` the one whose threshold stands in `settings` (None:
    not trained here). Figures without a system's name are what the last one cost, those of training also what `ours`
    did; `traffic` is what the last one's threshold was set on.
    """
    decided = list(judged)[-1]
    measured = measured_comprehension(judged[base], attacks) if base in judged else {}
    seen = settings.seen_operators if settings is not None else ()
    unseen, apart = attack_sets(attacks, seen)
    trained = [parse_attack(one).name for one in apart if seen_in_training(parse_attack(one), seen)]
    compared = paired_comparisons(judged, unseen, decided)
    rows = judged.get(ours, [])
    return measured_by(
        Evaluation(
            systems=_systems(judged, figures, (decided, ours) if settings is not None else ()),
            ours=decided,
            against=base if base != decided else "",
            groups={
                "direct": [DIRECT.name], "unseen": unseen, "seen": trained,
                "unreadable": [one for one in apart if one not in trained],
            },
            paired=[Paired(_label(decided), _label(name), one) for name, found in compared.items() for one in found],
            drift=moved(judged[decided], traffic),
            curves=_curves(rows, unseen),
            thresholded=rows,
            threshold=settings.threshold if settings is not None else 0.0,
            threshold_note=_note(settings),
            judge=judge_error(),
            warnings=[*_unscored(judged), *readability_warnings(measured)],
            contamination=contamination,
            lineage=[*lineage, *_trained_by(settings)],
            rules=policy_rules(settings.policy if settings is not None else default_policy()),
        )
    )  # fmt: skip


def _systems(
    judged: Mapping[str, Sequence[Judged]], figures: Sequence[Figure], trained: Container[str]
) -> list[System]:
    decided = list(judged)[-1]
    return [
        System(
            name,
            _label(name),
            _own(figures, name, name == decided, name in trained),
            judged=rows,
            trainings=int(name in trained),
        )
        for name, rows in judged.items()
    ]


def _unscored(judged: Mapping[str, Sequence[Judged]]) -> list[str]:
    """A sentence for each cell with many."""
    return [
        f"{_label(system)}: {part:.0%} of the answers in {cell} are unscored"
        for system, rows in judged.items()
        for cell, part in too_many_unscored(rows).items()
    ]


def _note(settings: Settings | None) -> str:
    return settings.threshold_note if settings is not None else "not trained here"


def _trained_by(settings: Settings | None) -> list[tuple[str, str]]:
    """What stands beside a model, as lines of its lineage."""
    policy = settings.policy if settings is not None else default_policy()
    return [
        ("Policy", f"{policy.name}, version {policy.version}, {len(policy.rules)} rules"),
        ("Styles trained on", ", ".join(settings.seen_operators if settings is not None else ()) or "none"),
        ("Threshold", _note(settings)),
    ]


def _own(figures: Sequence[Figure], name: str, decided: bool, trained: bool) -> dict[str, Figure]:
    """Its figures, and those of no system: what training took of whatever was trained, the rest of what is decided."""
    own = {one.name.removesuffix(f"_{name}"): one for one in figures if one.name.endswith(f"_{name}")}
    costs = [one for one in figures if one.name in TITLES.cost]
    return own | {one.name: one for one in costs if (trained if one.name.startswith("train_") else decided)}


def _label(system: str) -> str:
    return str(TITLES.systems.get(system, system))


def _curves(judged: Sequence[Judged], unseen: Sequence[str]) -> dict[str, list[OperatingPoint]]:
    """The curves of a defence: look-alikes against their twins, unseen styles, direct requests."""
    cells = by_cell(judged)
    pairs = {
        "look-alikes": [("twin", "lookalike")],
        "unseen styles": [(f"{attack}:harmful", f"{attack}:harmless") for attack in unseen],
        "direct": [("direct", "ordinary")],
    }
    curves = {title: operating_curve(score_pairs(cells, couples)) for title, couples in pairs.items()}
    return {title: points for title, points in curves.items() if points}


def moved(judged: Sequence[Judged], traffic: Traffic | None) -> str:
    """How far scores of ordinary requests are from those that the threshold was set on, and how well that travels.

    Empty where those were not kept.
    """
    if traffic is None:
        return ""
    drift = Drift(traffic.reference, window=None)
    drift.add(*(one.response.log_odds for one in by_cell(judged).get("ordinary", []) if one.response is not None))
    told = [f"{str(traffic.transfer)[0].upper()}{str(traffic.transfer)[1:]}."] if traffic.transfer is not None else []
    if drift.index is None:
        return " ".join(
            [*told, f"Drift of scores since the threshold was set: not measured, {drift.seen} are too few."]
        )
    index = f"Stability index of scores against those that the threshold was set on: {drift.index:.2f}"
    return " ".join([*told, f"{index}, from {DRIFT_LIMIT:g} on it is traffic of another kind."])


def sides_of(judged: Mapping[str, Sequence[Judged]], settings: Settings | None) -> list[Side]:
    """The attempts of a comparison's systems with their texts."""
    refuses_from = settings.threshold if settings is not None else None
    return [Side(_label(system), rows, refuses_from) for system, rows in judged.items()]


def attacked_system(
    name: str,
    report: AttackReport,
    searches: Sequence[SearchResult] = (),
    further: Sequence[Figure] = (),
    judged: Sequence[Judged] = (),
    trained: bool = False,
) -> System:
    """A model with the figures of its attack run, those of an attack under its own name; `further` ones behind them."""
    figures = {one.name: one for one in (*report.figures(), *further)}
    for one in report.results:
        for stem in ("asr", "refused", "youden", "auroc", "comprehension"):
            if (figure := getattr(one, stem)) is not None:
                figures[f"{stem}_{one.name}"] = figure
    if "refused_direct" in figures:
        figures["refused_ordinary"] = figures["refused_direct"]
    return System(name, name, figures, judged=judged, searches=searches, trainings=int(trained))
