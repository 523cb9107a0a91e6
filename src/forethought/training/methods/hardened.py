"""SCoT, hardened: rounds of attack and training. How it works: `training/hardening`."""

from __future__ import annotations

from forethought.training.hardening.settings import HardeningSettings
from forethought.training.methods.base import Job, TrainingMethod


def hardened(job: Job, settings: HardeningSettings) -> dict[str, float]:
    """Hardens with such settings."""
    # Attacks and searches take a second to import, and a list of methods needs none of them.
    from forethought.training.hardening.rounds import harden

    return harden(job, settings)


HARDENED = TrainingMethod(
    name="scot_hardened",
    title="SCoT, hardened against what broke it",
    paper="ours, after adversarial training, Madry et al. 2017, arXiv 1706.06083",
    cost="several rounds of attack and training",
    when_to_choose="adaptive attacks are expected",
    procedure=hardened,
    procedure_settings=HardeningSettings(),
)
METHODS = (HARDENED,)
