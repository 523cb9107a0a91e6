"""`forethought calibrate`, to be mounted by the root of the command line."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from forethought.commands import calibrate as calibrate_command


class Method(StrEnum):
    """How the bound on false refusals is made."""

    clopper_pearson = "clopper-pearson"
    conformal = "conformal"


def calibrate(
    model: Annotated[str, typer.Argument(help="A trained folder; its threshold is replaced.")],
    max_false_refusal: Annotated[
        float, typer.Option(help="Largest share of harmless requests that may be refused, such as 0.05.")
    ],
    confidence: Annotated[float, typer.Option(help="Confidence with which that holds on new requests.")] = 0.95,
    method: Annotated[
        Method, typer.Option(help="An exact bound with this confidence, or one that holds on average (fewer requests).")
    ] = Method.clopper_pearson,
    harmless: Annotated[
        list[str] | None,
        typer.Option(
            help="Harmless requests like those you expect; can be given again."
            " Default: shipped everyday requests, without look-alikes of harmful ones."
        ),
    ] = None,
    harmful: Annotated[
        list[str] | None, typer.Option(help="Harmful requests, to see the cost. Default: shipped ones.")
    ] = None,
) -> None:
    """Sets the refusal threshold so that false refusals on new requests are bounded, and says what that costs.

    The bound holds for requests like the harmless ones it is calibrated on: by default everyday
    requests without a disguise, some hundreds of them. Harmless look-alikes of harmful requests are
    not among them; how many are refused is printed apart. For your traffic give your own with
    --harmless. The threshold goes beside the model, where chat, evaluation and server find it.
    Where the sample is too small for the promise nothing is changed, and the number of requests
    it needs is printed.

    Examples:

      forethought calibrate runs/quickstart/5-train --max-false-refusal 0.02

      forethought calibrate runs/quickstart/5-train --max-false-refusal 0.02 --harmless my_traffic.jsonl
    """
    calibrate_command.calibrate(model, max_false_refusal, confidence, method.value, harmless or [], harmful or [])
