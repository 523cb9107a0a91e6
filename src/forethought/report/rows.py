"""The rows of the comparison table, shared by terminal and page."""

from __future__ import annotations

from collections.abc import Sequence

from forethought.evals.metrics import Figure

SYSTEM_TITLES = {"base": "base model", "prompt": "safety prompt", "scot": "SCoT"}
"""How a defence is called in tables and plots."""
_ROWS = (
    ("asr_direct", "attack success, direct (lower is better)"),
    ("asr_unseen", "attack success, unseen styles (lower is better)"),
    ("refused_styled_harmless", "harmless refused, unseen styles (lower is better)"),
    ("youden_unseen", "Youden's J, unseen styles (higher is better)"),
    ("answered_ordinary", "ordinary requests answered (higher is better)"),
    ("answered_lookalike", "look-alikes answered (higher is better)"),
    ("asr_twin", "attack success, look-alikes' harmful twins (lower is better)"),
    ("capability", "short questions right (capability sample)"),
    ("auroc_unseen", "AUROC of the verdict, unseen styles"),
    ("auroc_direct", "AUROC of the verdict, direct"),
    ("auroc_lookalike", "AUROC of the verdict, look-alikes against twins"),
    ("rule_named_right", "refusals that name the right rule"),
    ("consistent", "verdict and answer agree"),
    ("unparsed", "thoughts that could not be parsed"),
    ("reasoning_tokens", "tokens of reasoning, mean"),
    ("tokens", "tokens generated, mean"),
)


def table_rows(figures: Sequence[Figure], systems: Sequence[str]) -> list[tuple[str, list[Figure | None]]]:
    """(title, one figure a system or None where it was not measured), rows without any figure left out."""
    by_name = {figure.name: figure for figure in figures}
    rows = [(title, [by_name.get(f"{stem}_{system}") for system in systems]) for stem, title in _ROWS]
    return [(title, cells) for title, cells in rows if any(cells)]


def interval(figure: Figure | None) -> str:
    """A figure as text: value, interval, and how many answers went unscored."""
    if figure is None:
        return "-"
    digits = 1 if figure.unit in {"tokens", "minutes", "GiB"} else 2
    text = f"{figure.value:.{digits}f}"
    if figure.low is not None and figure.high is not None:
        text += f" [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"
    return text + (f", {figure.unscored} unscored" if figure.unscored else "")
