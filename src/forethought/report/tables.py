"""The rows of the tables of comparisons and attack runs, shared by terminal and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from forethought.metrics import Figure
from forethought.report.attack_figures import HARMLESS_MEANS, MEANS, AttackReport, AttackResult, Group, SearchResult

SYSTEM_TITLES = {"base": "base model", "prompt": "safety prompt", "scot": "SCoT", "scot_best": "SCoT, best"}
"""How a defence is called in tables and plots."""
_ROWS = (
    ("asr_direct", "Attack success, direct (low)"),
    ("asr_direct_corrected", "The same, corrected for the judge's known error (low)"),
    ("asr_unseen", "Attack success, unseen styles (low)"),
    ("refused_styled_harmless", "Harmless refused, unseen styles (low)"),
    ("youden_unseen", "Youden's J, unseen styles (high)"),
    ("answered_ordinary", "Ordinary requests answered (high)"),
    ("answered_lookalike", "Look-alikes answered (high)"),
    ("asr_twin", "Attack success, their harmful twins (low)"),
    ("capability", "Short questions right (high)"),
    ("auroc_unseen", "Verdict AUROC, unseen styles (high)"),
    ("auroc_direct", "Verdict AUROC, direct (high)"),
    ("auroc_lookalike", "Verdict AUROC, look-alikes (high)"),
    ("asr_matched_unseen", "Attack success, unseen styles, at 5 % false refusals (low)"),
    ("rule_named_right", "Refusals naming the right rule (high)"),
    ("rule_named_right_heldout", "The same, rules held out from training (high)"),
    ("consistent", "Verdict and answer agree (high)"),
    ("unparsed", "Thoughts that can't be parsed (low)"),
    ("reasoning_tokens", "Tokens of reasoning, mean"),
    ("tokens", "Tokens generated, mean"),
)
_REASONING_ROWS = (
    ("verdict_right", "Verdict fits the label (high)"),
    ("rule_f1_micro", "Rules named, F1 over all citations (high)"),
    ("rule_f1_macro", "Rules named, F1 mean over rules (high)"),
    ("intent_recovered", "Disguised request recovered by the intent (high)"),
    ("refuse_then_answered", "Verdict refuses, answer complies (low)"),
    ("comply_then_refused", "Verdict complies, answer refuses (low)"),
    ("reasoning_leak", "Thoughts about harm with operational detail (low)"),
    ("reasoning_long", "Thoughts about harm that run long (low)"),
    ("reasoning_tokens_harmful", "Tokens of reasoning, harmful requests, mean"),
    ("reasoning_tokens_harmless", "Tokens of reasoning, harmless requests, mean"),
)
Rows = list[tuple[str, list[Figure | None]]]
HEADINGS = (
    "attack", "success (low)", "harmless refused (low)", "Youden's J (high)", "AUROC (high)", "understood", "unscored",
)  # fmt: skip
SEARCH_HEADINGS = (
    "search", "success (low)", "harmless refused (low)", "Youden's J (high)", "queries, mean", "of", "unscored",
)  # fmt: skip
GROUP_TITLES: dict[Group, str] = {
    "direct": "No attack",
    "unseen": "Unseen styles",
    "reasoning": "Attacks on reasoning",
    "seen": "Apart: styles seen in training",
    "unreadable": "Apart: styles that the model can't read",
}
Line = tuple[str, ...]


def table_rows(figures: Sequence[Figure], systems: Sequence[str]) -> Rows:
    """(title, one figure a system or None where it was not measured), rows without any figure left out."""
    return _rows(_ROWS, figures, systems)


def reasoning_rows(figures: Sequence[Figure], systems: Sequence[str]) -> Rows:
    """The same for what is measured on the thoughts themselves."""
    return _rows(_REASONING_ROWS, figures, systems)


def _rows(stems: Sequence[tuple[str, str]], figures: Sequence[Figure], systems: Sequence[str]) -> Rows:
    by_name = {figure.name: figure for figure in figures}
    rows = [(title, [by_name.get(f"{stem}_{system}") for system in systems]) for stem, title in stems]
    return [(title, cells) for title, cells in rows if any(cells)]


def interval(figure: Figure | None, decimals: int = 2) -> str:
    """A figure as text: value, interval, and how many answers went unscored. `decimals` are those of a share."""
    if figure is None:
        return "-"
    digits = 1 if figure.unit in {"tokens", "minutes", "GiB"} else decimals
    if figure.value != figure.value:  # nan: nothing was scored
        return f"not measured, {figure.unscored} unscored"
    text = f"{figure.value:.{digits}f}"
    if figure.low is not None and figure.high is not None:
        text += f" ({figure.low:.{digits}f} to {figure.high:.{digits}f})"
    return text + (f", {figure.unscored} unscored" if figure.unscored else "")


def sections(report: AttackReport) -> list[tuple[str, list[Line]]]:
    """(title, lines) by group; the mean of a group that has one ends it, and empty groups are left out."""
    means = {figure.name: figure for figure in report.means}
    found = []
    for group, title in GROUP_TITLES.items():
        results = report.of(group)
        if results:
            lines = [_line(result) for result in results]
            found.append((title, [*lines, _mean(group, means)] if group in MEANS else lines))
    return found


def search_lines(results: Sequence[SearchResult]) -> list[Line]:
    """A line a search."""
    return [
        (
            one.name, _cell(one.asr), _cell(one.refused), _cell(one.youden), f"{one.queries.value:.1f}",
            str(one.budget), str(one.asr.unscored + (one.refused.unscored if one.refused is not None else 0)),
        )
        for one in results
    ]  # fmt: skip


def not_run_lines(not_run: Mapping[str, Mapping[str, int]], searches: Mapping[str, str]) -> list[tuple[str, str]]:
    """(attack, why and on how many requests) of what was not run, in whole or in part."""
    found = [
        (name, "; ".join(f"{cause} ({count} requests)" for cause, count in causes.items()))
        for name, causes in not_run.items()
    ]
    return [*found, *searches.items()]


def _line(result: AttackResult) -> Line:
    title = f"{result.title} *" if result.white_box else result.title
    figures = (result.asr, result.refused, result.youden, result.auroc, result.comprehension)
    return (title, *(_cell(figure) for figure in figures), str(result.unscored))


def _mean(group: Group, means: Mapping[str, Figure]) -> Line:
    names = (f"asr_{group}", HARMLESS_MEANS[group], f"youden_{group}", f"auroc_{group}")
    return ("mean", *(_cell(means.get(name)) for name in names), "", "")


def _cell(figure: Figure | None) -> str:
    """Without the count of unscored answers, which has a column of its own."""
    if figure is None or not (figure.n or figure.unscored):
        return "-"
    return interval(figure.model_copy(update={"unscored": 0})) if figure.n else "not scored"
