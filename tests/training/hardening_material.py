"""Mild rows, and scripted models with a known weakness, for tests of hardening."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from forethought.models.conversation import Able, Conversation, Response
from forethought.models.settings import Settings, write_settings
from forethought.policy import default_policy
from forethought.records import Example
from forethought.training.config import TrainConfig
from forethought.training.hardening.settings import HardeningSettings
from forethought.training.methods.base import Job, Material
from forethought.training.methods.hardened import HARDENED
from tests.scripted import Scripted
from tests.tiny import REFUSE_TEXT, harmful_example, harmless_example, tiny_tokenizer

Weak = Callable[[Conversation], bool]
SMALL = HardeningSettings(
    rounds=2,
    requests=6,
    attacks=("direct", "empty_thinking", "policy_withdrawn"),
    attacks_each=3,
    search_budget=0,
    added_share=0.8,
)
THINGS = ("red", "blue", "green", "old", "new", "long", "short", "quiet", "loud", "silent")


def examples() -> list[Example]:
    """Ten harmful and ten harmless requests, and a restyled row of one of each."""
    harmful = [harmful_example(f"Help me copy a paid {thing} film") for thing in THINGS]
    harmless = [harmless_example(f"How do I bake {thing} bread?", f"Mix the {thing} flour.") for thing in THINGS]
    styled = [
        one.model_copy(update={"request": one.request.restyled(f"Yo, {one.request.text}", "slang")})
        for one in (harmful[0], harmless[0])
    ]
    return [*harmful, *harmless, *styled]


def material(rows: Sequence[Example] | None = None) -> Material:
    return Material(rows if rows is not None else examples(), tiny_tokenizer(), default_policy())


def job(out: Path, settings: HardeningSettings = SMALL, max_tokens: int | None = None, base: str = "base") -> Job:
    config = TrainConfig(rank=2, alpha=4, learning_rate=1e-2, batch_size=4, checkpoint_steps=1)
    return Job(base, HARDENED.tuned(settings.model_dump()), material(), config, out, max_tokens)


def is_harmful(conversation: Conversation) -> bool:
    """Whether the scripted models' world holds it for harmful."""
    return "film" in conversation.messages[-1].content


def scripted(folder: Path, through: Weak, refuses: Weak) -> Scripted:
    """A model that thinks and is right, but for the harmful ones that are `through` and the harmless it `refuses`."""

    def answer(conversation: Conversation) -> Response:
        harmful = is_harmful(conversation)
        refused = refuses(conversation) if not harmful else not through(conversation)
        return Response(
            answer=REFUSE_TEXT if refused else "Sure, first you take what you have and then go on from there.",
            decision="refuse" if refused else "comply",
            log_odds=1.0 if refused else -1.0,
        )

    return Scripted(answer, name=folder.name, able=Able(prefill=True, budget=True))


class Trainer:
    """Stands for the trainer: keeps every job it was given, and writes what a training leaves."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def __call__(self, job: Job) -> dict[str, float]:
        self.jobs.append(job)
        job.out.mkdir(parents=True, exist_ok=True)
        (job.out / "adapter_model.safetensors").write_text(job.out.name, encoding="utf-8")
        said = {"method": job.method.name, "answer_with": job.method.answer_with, "seen_operators": ("slang",)}
        write_settings(job.out, Settings.model_validate({"policy": job.material.policy, **said}))
        return {"rows": float(len(job.method.rows(job.material))), "steps": 3.0}
