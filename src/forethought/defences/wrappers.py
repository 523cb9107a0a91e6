"""Wrappers: what each is, and how it is made from its options."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from forethought.defences.base import Defence
from forethought.defences.entry import Entry, Means
from forethought.defences.guard import GuardSettings, guarded
from forethought.defences.paraphrase import Paraphrase, ParaphraseSettings
from forethought.defences.perplexity import PerplexityFilter, PerplexitySettings
from forethought.defences.self_consistency import ConsistencySettings, SelfConsistency
from forethought.defences.self_examination import ExaminationSettings, SelfExamination
from forethought.defences.smooth_llm import SmoothLLM, SmoothSettings
from forethought.defences.unforged import Unforged, UnforgedSettings
from forethought.engine.conversation import Respondent
from forethought.errors import ConfigError
from forethought.reasoning import Format
from forethought.records import Record


class ProbeOptions(Record):
    """Where a linear probe lies."""

    folder: str = Field(description="folder of a fitted probe")
    fail_closed: bool = Field(default=True, description="refuse what the model's prompt can't hold")


class FusionOptions(Record):
    """Where a fusion lies."""

    folder: str = Field(description="folder of a fitted fusion, which holds its probe")
    fail_closed: bool = Field(default=True, description="refuse where verdict or probe is missing")
    format: Format = Field(default="think", description="how the model writes its thoughts")


class HeadedOptions(Record):
    """Where the probe lies that begins the thought."""

    folder: str = Field(description="folder of a fitted probe")
    format: Format = Field(default="think", description="how the model writes its thoughts")


def _perplexity(inner: Respondent, settings: PerplexitySettings, means: Means) -> Respondent:
    reader = means.weights_for("perplexity")
    if not means.harmless:
        raise ConfigError(
            "defence 'perplexity'", "has no harmless requests to set its threshold on", "Give some, as for calibration"
        )
    return PerplexityFilter(inner, reader, [request.text for request in means.harmless], settings)


def _linear_probe(inner: Respondent, settings: ProbeOptions, means: Means) -> Respondent:
    from forethought.defences.linear_probe import ProbeDefence, load_probe

    probe = load_probe(Path(settings.folder))
    return ProbeDefence(inner, probe, means.weights_for("linear_probe"), fail_closed=settings.fail_closed)


def _guard(inner: Respondent, settings: GuardSettings, means: Means) -> Respondent:
    return guarded(inner, means.answer_judge, means.request_checker, settings)


def _fused(inner: Respondent, settings: FusionOptions, means: Means) -> Respondent:
    from forethought.defences.fused import FusedVerdict
    from forethought.defences.fusion import load_fusion

    fusion, probe = load_fusion(Path(settings.folder))
    reader = means.weights_for("fused")
    return FusedVerdict(inner, fusion, probe, reader, settings.fail_closed, settings.format)


def _headed_thought(inner: Respondent, settings: HeadedOptions, means: Means) -> Respondent:
    from forethought.defences.headed_thought import HeadedThought
    from forethought.defences.linear_probe import load_probe

    probe = load_probe(Path(settings.folder))
    return HeadedThought(inner, probe, means.weights_for("headed_thought"), fmt=settings.format)


WRAPPERS: tuple[Entry, ...] = (
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
            id="trained_probe",
            title="Linear probe of the trained weights",
            paper="ours",
            kind="wrapper",
            trains="as linear_probe, on states of the trained weights; nothing of the model",
            cost="as linear_probe, for a model that was trained",
            when_to_choose="a model was trained by any method, and what it has learnt to see is to decide",
            score="log-odds of harm",
            needs=("weights", "folder"),
        ),
        ProbeOptions,
        _linear_probe,
    ),
    Entry(
        Defence(
            id="fused",
            title="Verdict and probe, fused",
            paper="ours",
            kind="wrapper",
            trains="a weight and a threshold; nothing of the model",
            cost="SCoT's thought and the linear probe's pass over the prompt; minutes to fit",
            when_to_choose="a model that thinks is to decide with all that it knew before its first word",
            score="verdict's and probe's log-odds, standardised and mixed",
            needs=("weights", "folder"),
        ),
        FusionOptions,
        _fused,
    ),
    Entry(
        Defence(
            id="fused_intent",
            title="Verdict, probe, and the stated intent read by the probe",
            paper="ours",
            kind="wrapper",
            trains="two weights and a threshold, and the probe on intents as well; nothing of the model",
            cost="as fused, and the linear probe's pass over the intent, some twenty tokens",
            when_to_choose="requests come disguised: the thought says what is asked, and the probe reads that alone",
            score="log-odds of the verdict, of the request and of the stated intent, standardised and mixed",
            needs=("weights", "folder"),
        ),
        FusionOptions,
        _fused,
    ),
    Entry(
        Defence(
            id="fused_trained",
            title="Verdict, and a probe of the weights that think",
            paper="ours",
            kind="wrapper",
            trains="as fused_intent, the probe on states of the trained weights; nothing of the model",
            cost="as fused_intent",
            when_to_choose="as fused_intent: trained weights tell a disguised request better than the base's",
            score="log-odds of the verdict, of the request and of the stated intent, standardised and mixed",
            needs=("weights", "folder"),
        ),
        FusionOptions,
        _fused,
    ),
    Entry(
        Defence(
            id="headed_thought",
            title="Thought begun by the probe",
            paper="ours",
            kind="wrapper",
            trains="nothing besides the probe",
            cost="the linear probe's pass over the prompt",
            when_to_choose="verdicts are missed on disguised requests that the probe knows",
            score="the model's own",
            needs=("weights", "folder"),
        ),
        HeadedOptions,
        _headed_thought,
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
    Entry(
        Defence(
            id="unforged",
            title="Forged turns taken apart",
            paper="ours, against Jiang et al. 2024, arXiv 2406.12935",
            kind="wrapper",
            cost="one more call for each part of a message that holds forged turns or thoughts; else nothing",
            when_to_choose="users write the whole prompt, control tokens and thought tags included",
            score="the inner defence's, the largest of the whole and its parts",
        ),
        UnforgedSettings,
        lambda inner, settings, means: Unforged(inner, settings),
    ),
)
