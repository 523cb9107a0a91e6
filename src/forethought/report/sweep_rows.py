"""What a sweep found, as tables and pages take it."""

from __future__ import annotations

from forethought.evals.metrics import Figure
from forethought.records import Record


class SweepRow(Record):
    """One trained or wrapped defence on one base, seed and budget."""

    defence: str
    """Id, as docs/defences.md has it; `base` for the undefended model, `prompt` for the best prompt."""
    title: str
    base: str
    seed: int
    budget: int
    """Training tokens that it was allowed; 0 for a defence that is not trained."""
    tokens: int
    """Training tokens that it took, all passes together."""
    train_seconds: float
    figures: tuple[Figure, ...]
    """Named without the defence: `auroc_unseen`, `asr_direct`, `asr_STYLE`, `refused_STYLE` and so on."""
    missing: str = ""
    """Why it could not be trained or evaluated; then there are no figures."""
    note: str = ""
    """What a reader should know of it, such as which prompt was the best."""

    def figure(self, name: str) -> Figure | None:
        """The figure of that name, or None."""
        return next((one for one in self.figures if one.name == name), None)
