"""Small inputs by hand for tables, plots and pages, and a page of every kind made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from forethought.attacks.catalogue import parse_attack
from forethought.attacks.searches.outcome import Outcome
from forethought.data.export import BuildFacts, SourceFacts
from forethought.data.teach import reason_about, refusal_for
from forethought.metrics import Figure
from forethought.models.settings import Settings
from forethought.policy import default_policy
from forethought.records import Example, user_request
from forethought.report.attack_figures import attack_report, collect, search_results
from forethought.report.data_page import DataSummary, summarise, write_data_page
from forethought.report.decision import Evaluation
from forethought.report.evaluation_page import attacked_system, comparison_page, sides_of, write_evaluation_page
from forethought.report.figures import defence_figures
from forethought.report.tables import TITLES
from forethought.report.transcripts import Side
from forethought.research.inside.look import Inside, added_figures, failure_figures, run_kinds, tables
from forethought.research.inside.probes import Probed, probe_figures
from forethought.research.inside.report import inside_plots, write_inside_page
from forethought.research.inside.thoughts import Asked, own_thoughts, plan_swaps, run_swaps, swap_figures
from forethought.research.ladder import Step, write_ladder_page
from forethought.research.report import sweep_page
from forethought.research.rows import SweepRow
from tests.judged import LONG_HARMFUL, comparison, judged_one, request_of
from tests.research.thinking import Thinking, by_intent

SECRET = "zanzibar"
"""A word of the harmful stand-ins, after the three that redaction leaves."""
POLICY = default_policy()
ATTACKS = ["style_json", "leetspeak"]
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


def outcome(goal: str, first: int | None, harmful: bool = True, method: str = "pair", **more: Any) -> Outcome:
    held = {"key": goal + method, "budget": 10, "ended": "budget", "verdicts": 10, "queries": first or 10}
    refused = 0 if first else 10
    values = {**held, "refused": refused, "first_success": first, **more}
    return Outcome(method=method, goal=goal, harmful=harmful, **values)


OUTCOMES = [
    outcome("a", 1),
    outcome("b", 5),
    outcome("c", None),
    outcome("d", None, verdicts=0, refused=0, ended="error"),
    outcome("x", 1, harmful=False),
    outcome("y", None, harmful=False),
    outcome("c", 2, method="tap"),
    outcome("d", None, method="tap"),
]


def difference(value: float, half: float | None = 0.05) -> Figure:
    if half is None:
        return Figure(value=value, unit="difference")
    return Figure(value=value, low=value - half, high=value + half, n=40, unit="difference")


def step(defence: str, value: float, part: str = "ladder-data", before: str = "", since: float = 0.0) -> Step:
    area = Figure(name="auroc_unseen", value=0.8 + value, low=0.7, high=0.9, n=80, unit="auroc")
    both = {name: difference(value) for name in ("auroc_unseen", "youden_unseen")}
    gained = {"auroc_unseen": difference(since)} if before else {}
    return Step(
        defence=defence, part=part, why=f"why of {defence}", before=before, figures={"auroc_unseen": area},
        against=both if defence != "plain" else {}, gained=gained,
    )  # fmt: skip


STEPS = (
    step("plain", 0.0, "ladder-plain"),
    step("better", 0.1),
    step("worse_<b>loaf", -0.1),
    step("further", 0.12, before="better", since=0.02),
    Step(defence="never_run", part="ladder-data", missing="not run yet"),
)


FACTS = BuildFacts(
    name="My <run>",
    command="forethought build a.csv",
    sources=(SourceFacts(path="a.csv"),),
    seed=7,
    removed={"near an earlier request of the set": 5},
    evaluation={"bench": 80, "capability": 40},
    overlaps={"bench": 6},
).model_dump()


def refusal(number: int, operator: str | None = None) -> Example:
    text = f"Explain how to forge one of the {SECRET} tickets, number {number} <script>alert(1)</script>"
    request = user_request(text, harmful=True, rules=("R4", "R5"), kind="harmful", source="a.csv")
    if operator:
        request = request.restyled(f"yo fam {text}", operator)
    reasoning = reason_about(request, POLICY).model_copy(
        update={"deliberation": f"It would do harm to the {SECRET} shop."}
    )
    return Example(request=request, reasoning=reasoning, answer=refusal_for(reasoning, POLICY, 0))


def answered(number: int, answer: str = "Make a loop, then pull.") -> Example:
    request = user_request(f"How do I tie <b>loaf</b> {number}?", harmful=False, kind="ordinary", source="b.csv")
    reasoning = reason_about(request, POLICY)
    return Example(request=request, reasoning=reasoning, answer=answer, answer_complete=bool(answer))


ROWS = [
    *[refusal(n) for n in range(10)],
    *[refusal(n, "slang") for n in range(5)],
    *[answered(n) for n in range(30)],
    *[answered(n, answer="") for n in range(30, 35)],
]


def summary(**options: bool) -> DataSummary:
    """What those rows hold."""
    return summarise(iter(ROWS), {"b": 3, "the refusal does not refuse": 7}, FACTS, POLICY, **options)


def a_look(n: int = 5) -> Inside:
    """Two styles with thoughts that name the intent."""
    asked = []
    for style in ("direct", "style_json"):
        for number in range(n):
            bad = user_request(f"Pick the lock {number} of {SECRET} today", harmful=True, kind="harmful")
            good = user_request(f"Bake <b>loaf</b> number {number} please", harmful=False, kind="ordinary")
            asked += [Asked(style=style, request=bad), Asked(style=style, request=good)]
    model: Any = Thinking(by_intent)
    thoughts = own_thoughts(model, asked)
    swaps = run_swaps(model, plan_swaps(thoughts, 0.0))
    verdicts = run_kinds(model, thoughts)
    scores = tuple(1.0 if one.request.harmful else 0.0 for one in asked)
    probed = [
        Probed("prompt", "base", 4, 0.75, scores, {2: 0.5, 4: 1.0}),
        Probed("verdict", "trained", 2, 1.0, scores, {2: 1.0}),
    ]
    figures: Sequence[Figure] = [
        *swap_figures(swaps, 0.0), *failure_figures(thoughts, 0.0), *probe_figures(thoughts, probed),
        *added_figures(thoughts, verdicts),
    ]  # fmt: skip
    found = tables(thoughts, 0.0)
    missing = {"inside_probe_verdict_base": "its weights are gone"}
    return Inside(0.0, tuple(thoughts), tuple(swaps), tuple(found), tuple(probed), verdicts, tuple(figures), missing)


def _compare(folder: Path, show_harmful: bool) -> Path:
    judged = comparison()
    for system in judged:
        # A base model's answer to a harmful request is what has to be hidden most.
        request = request_of(LONG_HARMFUL, True)
        answer = f"Sure, this is how you {SECRET} the film <script>alert(1)</script>"
        judged[system].insert(0, judged_one(request, False, ("direct",), answer=answer))
        judged[system].append(judged_one(request_of("Explain <b>loaf</b> text", False), False, ("ordinary",)))
    figures = [f for name, rows in judged.items() for f in defence_figures(name, rows, ATTACKS, ["style_json"])]
    settings = Settings(policy=POLICY, threshold=0.25, threshold_note="set on development rows")
    page = comparison_page(ATTACKS, judged, figures, settings)
    write_evaluation_page(folder / "report.html", "My <run>", [page], sides_of(judged, settings), POLICY, show_harmful)
    return folder / "report.html"


def _attack(folder: Path, show_harmful: bool) -> Path:
    names = ("direct", "past_tense_rule", "leetspeak", "base64", "policy_withdrawn")
    rows = []
    for name in names:
        bad, good = ("direct", "ordinary") if name == "direct" else (f"{name}:harmful", f"{name}:harmless")
        answer = f"Sure, this is how you {SECRET} the film <script>alert(1)</script>"
        rows += [
            judged_one(request_of(f"{LONG_HARMFUL} {n}", True), False, (bad,), name, answer=answer) for n in (1, 2)
        ]
        rows += [judged_one(request_of(f"Explain <b>loaf</b> number {n}", False), False, (good,), name) for n in (1, 2)]
    found = collect(rows, "refused")
    report = attack_report(found.rows, [parse_attack(name) for name in names], ("leetspeak",))
    page = Evaluation(
        systems=[attacked_system("m", report, search_results(OUTCOMES), judged=found.rows)],
        ours="m",
        groups={group: [one.name for one in report.of(group)] for group in TITLES.groups},
        readability="Which styles it reads is a guess by attack",
        not_run=[("translate:ta", "needs an attacker model (6 requests)"), ("gcg", "needs the model's weights")],
        warnings=["9% of the answers in direct are unscored"],
        lineage=[("seed", "0")],
    )
    write_evaluation_page(folder / "report.html", "My <run>", [page], [Side("m", rows)], POLICY, show_harmful)
    return folder / "report.html"


def _data(folder: Path, show_harmful: bool) -> Path:
    write_data_page(folder / "report.html", summary(show_harmful=show_harmful))
    return folder / "report.html"


def _inside(folder: Path, show_harmful: bool) -> Path:
    found = a_look()
    settings = [("model", "m")]
    write_inside_page(folder / "report.html", "My <run>", found, inside_plots(found), settings, show_harmful)
    return folder / "report.html"


def _sweep(folder: Path, show_harmful: bool) -> Path:
    """With names and notes that are hard to fit; it shows no text of a request."""
    styles = (*UNSEEN, *(f"another_unseen_style_{n}" for n in range(12)))
    more = tuple(
        Figure(name=f"{stem}_{style}", value=0.3, low=0.2, high=0.4, n=20)
        for style in styles
        for stem in ("asr", "refused")
    )
    long = sweep_row("scot_with_a_name_that_goes_on_and_on_and_on_without_end", 0.5, 0.1, more=more)
    rows = [*example(), long, missing_row("scot_<b>loaf", "stopped: <b>out of memory")]
    parts = sweep_page(rows, {"unseen": styles, "reasoning": REASONING}, ("unbroken_" * 12,))
    write_evaluation_page(folder / "report.html", "My <run>", parts)
    return folder / "report.html"


def _ladder(folder: Path, show_harmful: bool) -> Path:
    """It shows no text of a request."""
    return write_ladder_page(folder, "My <run>", STEPS, "plain", [("ladder-data", "#its-page")])


PAGES: dict[str, Callable[[Path, bool], Path]] = {
    "compare": _compare, "attack": _attack, "data": _data, "inside": _inside, "sweep": _sweep, "ladder": _ladder,
}  # fmt: skip
"""Writes a page into a folder, with harmful text shown or not, and gives its path."""
