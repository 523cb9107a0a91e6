"""Thought on demand: a probe decides where it is certain, the thought where it is not.

A probe reads a prompt at the cost of no new token. Most requests it tells as surely as a thought would, so that they
need none. It is not certain between two thresholds, and it can't be of a message that has to be solved first: on those
it may be far off and sure. Whether a message is one, a second output says, which is fitted on messages that were.

Stored as `demand.json` beside the probe's own files; the second output, where there is one, in `need`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field, model_validator

from forethought.defences.base import Asked, Means, Steps, Wrapper, described, rule_refusal
from forethought.errors import ConfigError, InputError
from forethought.manifest import write_json
from forethought.measure.calibrate import KINDS, kind_of
from forethought.measure.probe import Array, Probe, load_probe, read_together
from forethought.models.conversation import Conversation, Failed, Respondent, Response
from forethought.records import Record, Request, read_record

if TYPE_CHECKING:
    from forethought.models.local import LocalModel

DEMAND, NEED = "demand.json", "need"
CERTAIN = "answered without a thought: the probe was certain"
MOST_THOUGHTS = 0.05
"""One ordinary request in twenty may cost a thought, so that traffic takes little longer than without a defence."""
_REACH = 8.0
"""Scores of thoughts stand nearer to the threshold than this, those that the probe is certain of further away."""


class Demand(Record):
    """Where the probe is certain."""

    version: int = 1
    low: float
    """Log-odds of harm below which a request is let through without a thought."""
    high: float
    """Log-odds from which it is refused without one."""
    most_errors: float = Field(gt=0.0, lt=0.5)
    """Share of the harmful development requests that may lie below `low`, and of each kind of harmless ones that may
    lie above `high`."""
    most_thoughts: float = Field(default=1.0, gt=0.0, le=1.0)
    """Share of the ordinary development requests that may be thought about; for its sake more harmful ones may lie
    below `low` than `most_errors`."""
    errors: float | None = None
    """Share of the harmful development requests that do; None where nobody counted."""
    thought_about: dict[str, float]
    """Share of the development requests between the two, by kind."""
    n_calibration: int

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self

    def save(self, folder: Path, probe: Probe, need: Probe | None) -> None:
        """Writes the probes' files and, last, its own."""
        probe.save(folder)
        if need is not None:
            need.save(folder / NEED)
        write_json(folder / DEMAND, self.model_dump(mode="json"))


def load_demand(folder: Path) -> tuple[Demand, Probe, Probe | None]:
    """Reads what `Demand.save` wrote. Raises InputError where it is not there or damaged."""
    file = folder / DEMAND
    if not file.is_file():
        raise InputError(folder, "does not say when to think", "Fit it: a sweep or a recipe with `on_demand` does so")
    need = load_probe(folder / NEED) if (folder / NEED).is_dir() else None
    return read_record(file, Demand, "Fit it again"), load_probe(folder), need


def fit_demand(
    probe: Probe,
    model: LocalModel,
    dev: Sequence[Request],
    most_errors: float = 0.02,
    most_thoughts: float = MOST_THOUGHTS,
) -> Demand:
    """The band in which a probe is not certain, from labelled development requests of all kinds.

    It begins where the probe misses `most_errors` of the harmful ones, or higher, so that at most `most_thoughts` of
    the ordinary ones are in it. Raises InputError where there is no harmful or no harmless one that the probe can read.
    """
    labelled = [row for row in dev if row.harmful is not None]
    odds = probe.log_odds(model, [row.messages for row in labelled])[:, 0].astype(float)
    scores: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for row, score in zip(labelled, odds, strict=True):
        if math.isfinite(score):
            scores[kind_of(row)].append(float(score))
    harmless = [found for kind, found in scores.items() if kind != "harmful" and found]
    if not scores["harmful"] or not harmless:
        raise InputError(f"{len(labelled)} development requests", "hold no harmful or no harmless one", "Give both")
    low = float(np.quantile(scores["harmful"], most_errors))
    if scores["ordinary"] and np.mean(np.array(scores["ordinary"]) >= low) > most_thoughts:
        low = float(np.quantile(scores["ordinary"], 1 - most_thoughts))
    high = max(float(np.quantile(found, 1 - most_errors)) for found in harmless)
    if low > high:  # the probe parts them without a band
        low = high = min(max(probe.threshold, high), low)
    between = {kind: sum(low <= one < high for one in found) / len(found) for kind, found in scores.items() if found}
    return Demand(
        low=low,
        high=high,
        most_errors=most_errors,
        most_thoughts=most_thoughts,
        errors=float(np.mean(np.array(scores["harmful"]) < low)),
        thought_about=between,
        n_calibration=len(labelled),
    )


class DemandOptions(Record):
    """Where it lies when to think."""

    folder: str = Field(default="", description="folder of a fitted probe that says when it is certain")


class OnDemand(Wrapper):
    """A model that thinks where a probe is not certain, and answers or refuses at once where it is."""

    label, Options = "on_demand", DemandOptions
    judges_by_thought = True

    def __init__(
        self, inner: Respondent, demand: Demand, probe: Probe, need: Probe | None, reader: LocalModel,
        options: DemandOptions | None = None,
    ) -> None:  # fmt: skip
        """`reader` holds the weights that the probes were fitted on. Raises ModelError for other weights."""
        super().__init__(inner, options or DemandOptions())
        probes = [probe] if need is None else [probe, need]
        for one in probes:
            one.check_model(reader)
        self.demand, self._probes, self._reader = demand, probes, reader
        self._middle = self.refuses_from = self.refuses_from or 0.0

    @classmethod
    def make(cls, inner: Respondent, options: DemandOptions, means: Means) -> Respondent:
        """With what lies in the folder. Raises ConfigError where none is named."""
        if not options.folder:
            raise ConfigError("defence 'on_demand'", "has no folder", "Name a fitted one, or use it in a sweep")
        return cls(inner, *load_demand(Path(options.folder)), means.weights_for("on_demand"), options)

    @classmethod
    def check_options(cls, options: DemandOptions) -> None:
        """Raises InputError where nothing lies in the folder that is named; without one it is fitted first."""
        if options.folder:
            load_demand(Path(options.folder))

    def answer(self, conversation: Conversation, max_answer_tokens: int) -> Steps:
        """A turn that somebody else began, and a prompt that can't be read, are thought about."""
        (read,) = yield Asked(self._read, [conversation])
        harm, need = read
        certain = not conversation.prefill and bool(np.isfinite(harm).all()) and not need
        score = float(harm[0])
        if certain and score >= self.demand.high:
            return self._refused(conversation, harm)
        if certain and score < self.demand.low:
            (reply,) = yield Asked(self._at_once, [conversation], max_answer_tokens)
            return self._placed(reply, self._middle - _REACH + (score - self.demand.low))
        reply = yield from self.ask(conversation, max_answer_tokens)
        return self._placed(reply)

    def _placed(self, reply: Response | Failed, sure: float | None = None) -> Response | Failed:
        """A reply with its score on the one scale of all; `sure` is that of a request let through without a thought."""
        if isinstance(reply, Failed):
            return reply
        if sure is not None:
            return reply.model_copy(update={"log_odds": sure, "decision": "comply", "cause": CERTAIN})
        if reply.log_odds is None:
            return reply
        near = self._middle + _REACH * math.tanh((reply.log_odds - self._middle) / _REACH)
        return reply.model_copy(update={"log_odds": near})

    def _at_once(self, *asked: Any) -> list[Response | Failed]:
        return self._reader.at_once().reply(*asked)  # made anew: a server may have taken the model over meanwhile

    def _read(self, conversations: Sequence[Conversation]) -> list[tuple[Array, bool]]:
        """(log-odds of harm and of the rules, whether it has to be solved), one a conversation."""
        found = read_together(self._probes, self._reader, [one.messages for one in conversations])
        if len(found) == 1:
            return [(row, False) for row in found[0]]
        need = self._probes[1].threshold
        return [(row, not float(odds[0]) < need) for row, odds in zip(*found, strict=True)]

    def _refused(self, conversation: Conversation, harm: Array) -> Response:
        probe = self._probes[0]
        rule = probe.rule(harm)
        answer = rule_refusal(probe.settings.policy, rule, conversation)
        score = self._middle + _REACH + (float(harm[0]) - self.demand.high)
        return Response(answer=answer, log_odds=score, decision="refuse", named=(rule,) if rule else ())


DEFENCES = (described("on_demand", OnDemand),)
