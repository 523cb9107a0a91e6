"""A comparison says where its last system is no defence to rely on."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from forethought.cli.terminal import Terminal
from forethought.evaluation.compare import Comparison
from forethought.metrics import Figure


def _found(asr: float, agree: float) -> Comparison:
    values = {"asr_direct_base": 1.0, "asr_direct_scot": asr, "consistent_scot": agree}
    figures = [Figure(name=name, value=value) for name, value in values.items()]
    return Comparison({"base": [], "scot": []}, figures, Path("report.html"), Path("results.json"))


@pytest.mark.parametrize(
    ("asr", "agree", "said"),
    [(0.1, 0.99, ()), (1.0, 0.99, ("hardly refuses, 100%",)), (1.0, 0.66, ("hardly refuses", "agree in 66%"))],
)
def test_what_hardly_refuses_is_said_and_fails_where_that_is_asked(
    asr: float, agree: float, said: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    found = _found(asr, agree)
    assert len(found.weaknesses) == len(said)
    assert all(part in whole for part, whole in zip(said, found.weaknesses, strict=True))
    Terminal().comparison(found)
    printed = capsys.readouterr().out
    assert all(part in printed for part in said)
    if said:
        with pytest.raises(typer.Exit):
            Terminal().comparison(found, require=True)
    else:
        Terminal().comparison(found, require=True)
