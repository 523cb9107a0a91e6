"""Defences at inference by what commands and recipes write: `smooth_llm:20`, `self_reminder | perplexity`.

`make_defence` puts them around a model from left to right: in `self_reminder | smooth_llm` the reminder is nearest to
the model, and every perturbed copy of the request gets it. Of several with a score, the outermost gives it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from forethought.defences.base import Defence
from forethought.defences.guard import GuardSettings, RequestChecker, guarded
from forethought.defences.paraphrase import Paraphrase, ParaphraseSettings
from forethought.defences.perplexity import PerplexityFilter, PerplexitySettings
from forethought.defences.prompts import PromptDefence, prompts
from forethought.defences.self_consistency import ConsistencySettings, SelfConsistency
from forethought.defences.self_examination import ExaminationSettings, SelfExamination
from forethought.defences.smooth_llm import SmoothLLM, SmoothSettings
from forethought.engine.conversation import Respondent
from forethought.errors import ConfigError
from forethought.evals.judges.base import Judge
from forethought.policy import Policy, default_policy
from forethought.records import Record, Request

if TYPE_CHECKING:
    from forethought.engine.local import LocalModel


@dataclass(frozen=True)
class Means:
    """What defences may use besides the model they defend; each says what it needs."""

    policy: Policy = field(default_factory=default_policy)
    model: LocalModel | None = None
    """Base weights that tell perplexities and hidden states."""
    harmless: Sequence[Request] = ()
    """Harmless requests that set the perplexity threshold."""
    answer_judge: Judge | None = None
    """Judge of harm that guards answers."""
    request_checker: RequestChecker | None = None
    """What guards requests."""
    paraphraser: Respondent | None = None
    """None: the model itself."""
    examiner: Respondent | None = None
    """None: the model itself."""


class NoSettings(Record):
    """A defence without options."""


class ProbeOptions(Record):
    """Where a linear probe lies."""

    folder: str = Field(description="folder of a fitted probe")
    fail_closed: bool = Field(default=True, description="refuse what the model's prompt can't hold")


@dataclass(frozen=True)
class Entry:
    """A defence and how to make it."""

    defence: Defence
    settings: type[Record]
    """Its options; the first one is what stands after the colon."""
    make: Callable[[Respondent, Any, Means], Respondent]
    """(model, settings, means) to the defended model."""


def _prompt_entry(prompt_id: str) -> Entry:
    def make(inner: Respondent, settings: NoSettings, means: Means) -> Respondent:
        return inner if prompt_id == "none" else PromptDefence(inner, prompt_id, means.policy)

    return Entry(prompts()[prompt_id].defence, NoSettings, make)


def _perplexity(inner: Respondent, settings: PerplexitySettings, means: Means) -> Respondent:
    reader = _weights(means, "perplexity")
    if not means.harmless:
        raise ConfigError(
            "defence 'perplexity'", "has no harmless requests to set its threshold on", "Give some, as for calibration"
        )
    return PerplexityFilter(inner, reader, [request.text for request in means.harmless], settings)


def _linear_probe(inner: Respondent, settings: ProbeOptions, means: Means) -> Respondent:
    from forethought.defences.linear_probe import ProbeDefence, load_probe

    probe = load_probe(Path(settings.folder))
    return ProbeDefence(inner, probe, _weights(means, "linear_probe"), fail_closed=settings.fail_closed)


def _guard(inner: Respondent, settings: GuardSettings, means: Means) -> Respondent:
    return guarded(inner, means.answer_judge, means.request_checker, settings)


def _weights(means: Means, name: str) -> LocalModel:
    if means.model is None:
        raise ConfigError(f"defence '{name}'", "needs the weights of a local model", "Give it one to read with")
    return means.model


_WRAPPERS: tuple[Entry, ...] = (
    Entry(
        Defence(
            id="perplexity",
            title="Perplexity filter",
            paper="Alon and Kamfonas 2023, arXiv 2308.14132; windows: Jain et al. 2023, arXiv 2309.00614",
            kind="wrapper",
            cost="one forward pass over the request",
            when_to_choose="optimised suffixes are the threat; it does not see attacks in plain language",
            score="natural log-perplexity of the most improbable window",
            needs=("weights", "harmless"),
        ),
        PerplexitySettings,
        _perplexity,
    ),
    Entry(
        Defence(
            id="paraphrase",
            title="Paraphrase",
            paper="Jain et al. 2023, arXiv 2309.00614",
            kind="wrapper",
            cost="one more call of up to 100 tokens",
            when_to_choose="optimised suffixes are the threat, and exact wording matters to no user",
        ),
        ParaphraseSettings,
        lambda inner, settings, means: Paraphrase(inner, means.paraphraser, settings),
    ),
    Entry(
        Defence(
            id="smooth_llm",
            title="SmoothLLM",
            paper="Robey et al. 2023, arXiv 2310.03684",
            kind="wrapper",
            cost="10 calls instead of one",
            when_to_choose="optimised suffixes are the threat, calls are cheap and the model reads misspelt text well",
            score="log-odds of the copies that refuse against those that comply, half a vote added to each",
        ),
        SmoothSettings,
        lambda inner, settings, means: SmoothLLM(inner, settings),
    ),
    Entry(
        Defence(
            id="self_examination",
            title="Self-examination",
            paper="Phute et al. 2023, arXiv 2308.07308",
            kind="wrapper",
            cost="one more call of up to 16 tokens for each answer that does not refuse",
            when_to_choose="a model that recognises harm in a text better than in a request; small ones don't",
        ),
        ExaminationSettings,
        lambda inner, settings, means: SelfExamination(inner, means.examiner, settings),
    ),
    Entry(
        Defence(
            id="guard",
            title="Guard model",
            paper="after Inan et al. 2023, arXiv 2312.06674",
            kind="wrapper",
            cost="one call of a guard for the request, for the answer, or for each",
            when_to_choose="a guard model is at hand, and the defended model may not be touched",
            score="log-odds of harm by the more suspicious guard, where it gives a probability",
            needs=("checker",),
        ),
        GuardSettings,
        _guard,
    ),
    Entry(
        Defence(
            id="linear_probe",
            title="Linear probe",
            paper="ours, after Zou et al. 2023, arXiv 2310.01405",
            kind="wrapper",
            trains="a logistic head for harm and one a rule; nothing of the model",
            cost="the lower layers' pass over the prompt; minutes to fit",
            when_to_choose="weights are at hand; the yardstick that trained defences have to beat",
            score="log-odds of harm",
            needs=("weights", "folder"),
        ),
        ProbeOptions,
        _linear_probe,
    ),
    Entry(
        Defence(
            id="self_consistency",
            title="Self-consistency",
            paper="after Wang et al. 2022, arXiv 2203.11171",
            kind="wrapper",
            cost="4 more calls for each request with an uncertain verdict",
            when_to_choose="a model that thinks, and verdicts near the threshold matter",
            score="mean log-odds of the verdicts",
        ),
        ConsistencySettings,
        lambda inner, settings, means: SelfConsistency(inner, settings),
    ),
)

DEFENCES: dict[str, Entry] = {
    **{prompt_id: _prompt_entry(prompt_id) for prompt_id in prompts()},
    **{entry.defence.id: entry for entry in _WRAPPERS},
}
"""Defences at inference by id. Those that change weights stand in `trained.py`."""


def make_defence(spec: str, respondent: Respondent, means: Means | None = None) -> Respondent:
    """A model behind the defences that a spec names, the leftmost nearest to it.

    `NAME`, `NAME:VALUE` (its first option), `NAME:option=value,option=value`; several joined by `|`.
    Raises ConfigError for an unknown defence or option, a value out of range, or a need that `means` doesn't meet.
    """
    defended = respondent
    for step in spec.split("|"):
        name, _, written = step.strip().partition(":")
        entry = _known(name.strip())
        defended = entry.make(defended, read_settings(entry, written), means or Means())
    return defended


def read_settings(entry: Entry, written: str) -> Record:
    """Options as a spec writes them, checked. Raises ConfigError."""
    place = f"defence '{entry.defence.id}'"
    names = list(entry.settings.model_fields)
    given: dict[str, str] = {}
    for piece in [piece.strip() for piece in written.split(",") if piece.strip()]:
        name, equals, value = piece.partition("=")
        if not equals:  # a bare value is the first option's
            name, value = (names[0] if names else ""), piece
        if name.strip() not in names:
            raise ConfigError(
                place,
                f"has no option '{name.strip() or value}'",
                f"It takes {', '.join(names)}" if names else "It takes no options",
            )
        if name.strip() in given:
            raise ConfigError(place, f"gives {name.strip()} twice", "Give it once")
        given[name.strip()] = value.strip()
    return _checked(place, entry.settings, given)


def _checked(place: str, settings: type[Record], given: Mapping[str, str]) -> Record:
    try:
        return settings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0])
        meaning = settings.model_fields[option].description
        raise ConfigError(f"{place}, {option} '{given.get(option, '')}'", first["msg"], f"It is: {meaning}") from None


def _known(name: str) -> Entry:
    if name not in DEFENCES:
        near = difflib.get_close_matches(name, DEFENCES, n=3, cutoff=0.5) or list(DEFENCES)
        raise ConfigError(
            f"defence '{name}'", "there is no such defence at inference", f"Use {', '.join(near)} (docs/defences.md)"
        )
    return DEFENCES[name]
