"""How several readings of one request become one score: what is stored of that, and how it is fitted.

A disguise hides a request from a probe as it hides it from a verdict. The thought's first line, its intent, says what
is really asked; put to the probe by itself, it is read without its disguise. So the reasoning carries something that
neither the prompt's state nor the verdict has: another look at the request, in plain words.

Stored as `fusion.json` beside the probe's own two files. Development requests standardise the scores, and choose
weights and threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from forethought.errors import InputError, ModelError
from forethought.manifest import write_json
from forethought.measure.calibrate import KINDS, Calibration, kind_of, threshold_on
from forethought.measure.probe import MOST_LOOKALIKES, Probe, load_probe
from forethought.metrics import Array, auroc
from forethought.models.conversation import Conversation, Failed, Response
from forethought.reasoning import stated_intent
from forethought.records import Example, Message, Record, Request, read_record, user_request

if TYPE_CHECKING:
    from forethought.models.local import LocalModel

FUSION = "fusion.json"
_STEPS = 20
_WEIGHTS = tuple((v / _STEPS, i / _STEPS) for v in range(_STEPS + 1) for i in range(_STEPS + 1 - v))
"""(verdict's, stated intent's); the request has the rest."""


class Fusion(Record):
    """How up to three log-odds become one score: the verdict's, the probe's of the request, the probe's of the intent.

    Each is standardised on the development requests and weighted; the weights sum to one.
    """

    version: int = 1
    model: str
    """Name of the model whose verdicts it was fitted on."""
    weight: float = Field(ge=0.0, le=1.0)
    """Of the verdict."""
    intent_weight: float = Field(default=0.0, ge=0.0, le=1.0)
    """Of the intent that the thought states; the request as it was put has the rest."""
    reads_intent: bool = False
    """Whether the probe reads the stated intent: for the score, and for the rule that a refusal names."""
    verdict_mean: float
    verdict_scale: float = Field(gt=0.0)
    """Mean and standard deviation of the verdict's log-odds on the development requests."""
    probe_mean: float
    probe_scale: float = Field(gt=0.0)
    """The same of the probe's, on the request."""
    intent_mean: float = 0.0
    intent_scale: float = Field(default=1.0, gt=0.0)
    """The same of the probe's, on the stated intent."""
    threshold: float
    """Fused score from which to refuse."""
    calibration: Calibration
    """What the threshold did on the development requests."""
    auroc_dev: float
    """Of the fused score on the development requests: optimistic by the choice of the weights."""
    auroc_dev_verdict: float
    """Of the verdict alone."""
    auroc_dev_probe: float
    """Of the probe on the request alone."""
    auroc_dev_intent: float | None = None
    """Of the probe on the stated intent alone."""
    n_calibration: int = Field(ge=2)
    """Development requests with both scores, which it was fitted on."""

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.weight + self.intent_weight > 1.0 + 1e-9:
            raise ValueError("the weights are more than one together")
        return self

    def parts(self, verdict: float, probe: float, intent: float | None = None) -> tuple[float, float]:
        """What the verdict and what the probe adds to the score; their sum is the fused score.

        Without an intent the request stands for it: what is not read twice decides as if both readings agreed.
        """
        request = (probe - self.probe_mean) / self.probe_scale
        stated = request if intent is None else (intent - self.intent_mean) / self.intent_scale
        rest = 1 - self.weight - self.intent_weight
        return (
            self.weight * (verdict - self.verdict_mean) / self.verdict_scale,
            rest * request + self.intent_weight * stated,
        )

    def save(self, folder: Path, probe: Probe) -> None:
        """Writes the probe's files and, last, the fusion's."""
        probe.save(folder)
        write_json(folder / FUSION, self.model_dump(mode="json"))


def load_fusion(folder: Path) -> tuple[Fusion, Probe]:
    """Reads what `Fusion.save` wrote. Raises InputError where it is not there or damaged."""
    file = folder / FUSION
    if not file.is_file():
        raise InputError(folder, "holds no fusion of verdict and probe", "Fit one: fit_fusion(...).save(FOLDER, probe)")
    return read_record(file, Fusion, "Fit it again"), load_probe(folder)


def intent_of(response: Response) -> str:
    """The intent of a response's thought, also of one that could not be parsed to its end; empty where none is."""
    if response.reasoning is not None:
        return response.reasoning.intent
    return stated_intent(response.reasoning_text)


def as_request(intent: str) -> str:
    """An intent as the sentence that would ask for it."""
    plain = intent.strip().rstrip(".")
    return f"{plain[:1].upper()}{plain[1:]}." if plain else ""


def intent_requests(examples: Iterable[Example]) -> list[Request]:
    """The intents of training rows as requests with the rows' labels, each once, for a probe that is to read them."""
    found: dict[str, Request] = {}
    for example in examples:
        request, text = example.request, as_request(example.reasoning.intent)
        if text and text not in found:
            found[text] = user_request(
                text, harmful=request.harmful, kind=request.kind, rules=request.rules, family=request.family,
                source=request.source,
            )  # fmt: skip
    return list(found.values())


def read_intents(
    probe: Probe, model: LocalModel, responses: Sequence[Response | None]
) -> list[NDArray[np.float32] | None]:
    """The probe's log-odds of each stated intent, of shape (1 + rules,); None where there is no intent to read."""
    texts = ["" if response is None else as_request(intent_of(response)) for response in responses]
    asked = [place for place, text in enumerate(texts) if text]
    found: list[NDArray[np.float32] | None] = [None] * len(responses)
    if asked:
        rows = probe.log_odds(model, [(Message(role="user", content=texts[place]),) for place in asked])
        for place, row in zip(asked, rows, strict=True):
            found[place] = row if np.isfinite(row).all() else None
    return found


def states_intent(model: LocalModel, messages: Sequence[Message]) -> bool:
    """Whether the intent that a model states can be one: of a request in a language that it was not taught to think in
    it makes something up, harmless or not."""
    return model.settings is None or not model.settings.unlearned([messages[-1].content])


class FusionSettings(Record):
    """How to fit."""

    max_false_refusal: float = 0.02
    """Share of harmless development requests that the threshold may refuse."""
    max_false_refusal_lookalike: float = MOST_LOOKALIKES
    """The same for look-alikes."""
    read_intent: bool = False
    """Whether the probe reads the intent that the thought states as well; it has to be fitted on intents, too
    (`intent_requests`)."""


def fit_fusion(
    model: LocalModel,
    probe: Probe,
    dev: Sequence[Request],
    settings: FusionSettings | None = None,
    on_done: Callable[[int], None] | None = None,
) -> Fusion:
    """A fusion for a model that thinks and a probe on its base weights, or its own.

    `dev` has to hold both labels; scores are standardised on all of its requests. `on_done(n)` is told finished
    thoughts. Raises InputError where a label has no request with both scores, or scores don't differ, ModelError for a
    model that doesn't think or other weights than the probe's.
    """
    settings = settings or FusionSettings()
    if not model.thinks:
        raise ModelError(model.name, "does not think: it has no verdict to fuse", "Give a scot model")
    probe.check_model(model)
    labelled = [request for request in dev if request.harmful is not None]
    found, rows = _scored(model, probe, labelled, settings.read_intent, on_done)
    kinds = np.array([kind_of(row) for row in rows])
    if not (kinds == "harmful").any() or (kinds == "harmful").all():
        raise InputError(f"{len(rows)} development requests", "hold no harmful or no harmless one", "Give both")
    mean, scale = _spread(found)
    if (scale < 1e-6).any():
        raise InputError(f"{len(rows)} development requests", "give no spread of scores", "Give more, some dozens")
    found = (found - mean) / scale
    found[:, 2] = np.where(np.isnan(found[:, 2]), found[:, 1], found[:, 2])  # as `Fusion.parts` does
    areas = {one: _area(_mixed(found, one), kinds) for one in _WEIGHTS if settings.read_intent or not one[1]}
    weights = _evenest(areas, int((kinds == "harmful").sum()), int((kinds != "harmful").sum()), settings.read_intent)
    scores = _mixed(found, weights).tolist()
    chosen = threshold_on(rows, scores, settings.max_false_refusal, settings.max_false_refusal_lookalike)
    return Fusion(
        model=model.name,
        weight=weights[0],
        intent_weight=weights[1],
        reads_intent=settings.read_intent,
        verdict_mean=float(mean[0]),
        verdict_scale=float(scale[0]),
        probe_mean=float(mean[1]),
        probe_scale=float(scale[1]),
        intent_mean=float(mean[2]),
        intent_scale=float(scale[2]),
        threshold=chosen.threshold,
        calibration=chosen,
        auroc_dev=areas[weights],
        auroc_dev_verdict=areas[1.0, 0.0],
        auroc_dev_probe=areas[0.0, 0.0],
        auroc_dev_intent=areas.get((0.0, 1.0)),
        n_calibration=len(rows),
    )


def _evenest(
    areas: Mapping[tuple[float, float], float], n_harmful: int, n_harmless: int, read_intent: bool
) -> tuple[float, float]:
    """The most even weights whose area is at most one standard error below the best.

    Even is half for each reading: of the message as it stands, which verdict and probe share, and of the stated intent.
    Development requests come in styles that were trained on, where the best part alone looks best. Parts that err
    apart hold better together in styles that were not, so that only what is plainly worse gets less than its share.
    And an unknown disguise lowers what the message scores, harmful or not, and leaves what the intent scores.
    """
    best = max(areas.values())
    floor = best - standard_error(best, n_harmful, n_harmless)
    good = [one for one, area in areas.items() if area >= floor - 1e-9]

    def unevenness(one: tuple[float, float]) -> float:
        verdict, intent = one
        even = (1 / 4, 1 / 4, 1 / 2) if read_intent else (1 / 2, 1 / 2, 0.0)
        return sum((has - due) ** 2 for has, due in zip((verdict, 1 - verdict - intent, intent), even, strict=True))

    return min(good, key=lambda one: (round(unevenness(one), 9), -one[0], -one[1]))


def standard_error(area: float, n_harmful: int, n_harmless: int) -> float:
    """Of an AUROC, by Hanley and McNeil 1982 (Radiology 143:29)."""
    both_harmful, both_harmless = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (
        area * (1 - area) + (n_harmful - 1) * (both_harmful - area**2) + (n_harmless - 1) * (both_harmless - area**2)
    ) / (n_harmful * n_harmless)
    return math.sqrt(max(variance, 0.0))


def _scored(
    model: LocalModel,
    probe: Probe,
    requests: Sequence[Request],
    read_intent: bool,
    on_done: Callable[[int], None] | None,
) -> tuple[Array, list[Request]]:
    """(requests, 3), log-odds of verdict, request and stated intent, and the requests; without verdict or probe they
    are left out. Where there is no intent, or none is to be read, its column is nan."""
    messages = [request.messages for request in requests]
    on_reply = None if on_done is None else lambda place, reply: on_done(1)
    replies = model.reply([Conversation(messages=one) for one in messages], 0, on_reply)
    responses = [None if isinstance(reply, Failed) else reply for reply in replies]
    verdicts = [None if one is None else one.log_odds for one in responses]
    odds = probe.log_odds(model, messages)[:, 0].astype(np.float64)
    told = [one if states_intent(model, asked) else None for one, asked in zip(responses, messages, strict=True)]
    stated = read_intents(probe, model, told) if read_intent else [None] * len(odds)
    intents = [np.nan if row is None else float(row[0]) for row in stated]
    scores = np.stack([np.array([np.nan if one is None else one for one in verdicts]), odds, np.array(intents)], axis=1)
    kept = ~np.isnan(scores[:, :2]).any(axis=1)
    return scores[kept], [request for request, keep in zip(requests, kept, strict=True) if keep]


def _spread(scores: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of each column; a column without a number has those of the requests."""
    filled = scores.copy()
    if np.isnan(filled[:, 2]).all():
        filled[:, 2] = filled[:, 1]
    return np.nanmean(filled, axis=0), np.nanstd(filled, axis=0)


def _mixed(standardised: Array, weights: tuple[float, float]) -> Array:
    verdict, intent = weights
    mixed: Array = standardised @ np.array([verdict, 1 - verdict - intent, intent])
    return mixed


def _area(scores: Array, kinds: NDArray[np.str_]) -> float:
    """AUROC of the harmful requests against each kind of harmless ones, in the mean: look-alikes are few, and count."""
    harmful = list(scores[kinds == "harmful"])
    others = [kind for kind in KINDS if kind != "harmful" and (kinds == kind).any()]
    return float(np.mean([auroc(harmful, list(scores[kinds == kind])) for kind in others]))
