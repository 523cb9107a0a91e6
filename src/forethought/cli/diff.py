"""`forethought diff`: what changed from one run to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forethought.cli import options
from forethought.cli.terminal import quiet, show_gate
from forethought.judges import DEFAULT_JUDGE
from forethought.measure.gate import Limits

_KEPT = "A folder of a run, an attack, a comparison, a check or a sweep's log; FOLDER:SYSTEM where it holds several."


@options.spelled_out(Limits, "tolerated", "regression", "strict")
def diff(
    before: Annotated[str, typer.Argument(help=_KEPT)],
    after: Annotated[str, typer.Argument(help="Likewise; of one training of a log, FOLDER:DEFENCE@SEED.")],
    settings: Limits,
    judge: Annotated[str, typer.Option(help="Whose verdicts on an attack run are taken.")] = DEFAULT_JUDGE,
    matched: Annotated[
        float | None, typer.Option(min=0, max=1, help="Also attack success at this rate of false refusals.")
    ] = None,
    trained_apart: Annotated[
        bool | None,
        typer.Option(
            "--trained-apart/--same-training",
            help="Fail only what is beyond the difference of two trainings of one recipe. Default: where both were"
            " trained here and are not the same weights.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for what is written. Default: runs/diff-HASH.")] = None,
    show: options.ShowHarmful = False,
) -> None:
    """What got better and worse beyond chance from one run to another, and which requests changed. Asks nothing.

    The same attempts are paired, and all p-values corrected together. Writes gate.html, gate.md, gate.json and
    junit.xml. Exits with 1 where something got worse by more than is tolerated.

    Examples:

      forethought diff runs/attack-v1 runs/attack-v2 --tolerated 0.02

      forethought diff results/study:refusal_augmented results/study:scot_best
    """
    quiet()
    from forethought.evaluation.gate import diff as differ

    found = differ(
        before, after, settings, judge=judge, matched=matched, trained_apart=trained_apart, out=out, show_harmful=show
    )
    show_gate(found)
