"""`forethought calibrate`: a threshold with a promise about false refusals."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from forethought.cli import options
from forethought.cli.terminal import Terminal, quiet, say


def calibrate(
    model: Annotated[
        str, typer.Argument(help="A run or a trained folder; its threshold is replaced, a run's in its best defence.")
    ],
    max_false_refusal: Annotated[
        float, typer.Option(help="Largest share of harmless requests that may be refused, such as 0.05.")
    ],
    confidence: Annotated[float, typer.Option(help="Confidence with which that holds on new requests.")] = 0.95,
    method: Annotated[
        Literal["clopper-pearson", "conformal"],
        typer.Option(help="An exact bound with this confidence, or one that holds on average (fewer requests)."),
    ] = "clopper-pearson",
    harmless: Annotated[
        list[str] | None,
        typer.Option(
            help="A source of harmless requests; give several, of different writers: how they differ tells what the"
            " threshold does elsewhere. Default: shipped requests of many kinds, without look-alikes of harmful ones."
        ),
    ] = None,
    traffic: Annotated[
        str | None, typer.Option(help="Your own log of harmless requests: the bound is then about your traffic.")
    ] = None,
    harmful: Annotated[
        list[str] | None, typer.Option(help="Harmful requests, to see the cost. Default: shipped ones.")
    ] = None,
    defence: options.Defence = None,
) -> None:
    """Sets the refusal threshold so that false refusals on new requests are bounded, and says what that costs.

    The bound holds for requests like the harmless ones it is calibrated on: by default everyday
    requests without a disguise, some hundreds of them. Harmless look-alikes of harmful requests are
    not among them; how many are refused is printed apart. For your traffic give your own log with
    --traffic. What the threshold does on traffic from elsewhere is told by leaving out one source
    after the other. The threshold goes beside the model, where chat, evaluation and server find it;
    so do the scores of this sample, and a server tells when its traffic leaves them.
    Where the sample is too small for the promise nothing is changed, and the number of requests
    it needs is printed.

    Examples:

      forethought calibrate runs/quickstart --max-false-refusal 0.02

      forethought calibrate runs/mine --max-false-refusal 0.02 --traffic log.jsonl
    """
    quiet()
    from forethought.evaluation.calibrate import calibrate as set_threshold

    found = set_threshold(
        model, max_false_refusal, confidence=confidence, method=method, harmless=harmless or (),
        traffic=traffic, harmful=harmful or (), defence=defence, progress=Terminal(),
    )  # fmt: skip
    say(str(found))
