"""Training methods by name."""

from __future__ import annotations

from forethought.errors import ConfigError
from forethought.train.methods.base import TrainingMethod
from forethought.train.methods.combined import COMBINED
from forethought.train.methods.contrasted import (
    CIRCUIT_BREAKER,
    CONTINUOUS_ADVERSARIAL,
    LATENT_ADVERSARIAL,
    PREFERENCE,
)
from forethought.train.methods.deliberative import DELIBERATIVE
from forethought.train.methods.emphasis import CONSISTENT, WEIGHTED
from forethought.train.methods.hardened import HARDENED
from forethought.train.methods.headed import HEADED, REFUSAL_HEADED
from forethought.train.methods.r2d2 import R2D2
from forethought.train.methods.recovery import RECOVERY
from forethought.train.methods.reinforced import REINFORCED, REJECTION
from forethought.train.methods.stepwise import REASONING_FIRST
from forethought.train.methods.supervised import (
    ABLATIONS,
    POLICY_REASONING,
    REFUSAL,
    REFUSAL_AUGMENTED,
    SCOT,
    SCOT_PUBLISHED,
    SCOT_SPLIT,
)

METHODS: dict[str, TrainingMethod] = {
    method.name: method
    for method in (
        REFUSAL,
        REFUSAL_AUGMENTED,
        REFUSAL_HEADED,
        SCOT,
        SCOT_SPLIT,
        SCOT_PUBLISHED,
        *ABLATIONS,
        REASONING_FIRST,
        POLICY_REASONING,
        DELIBERATIVE,
        PREFERENCE,
        CIRCUIT_BREAKER,
        LATENT_ADVERSARIAL,
        CONTINUOUS_ADVERSARIAL,
        R2D2,
        WEIGHTED,
        CONSISTENT,
        HEADED,
        COMBINED,
        HARDENED,
        RECOVERY,
        REJECTION,
        REINFORCED,
    )
}


def get_method(name: str) -> TrainingMethod:
    """A training method by name; `-` and `_` are the same. Raises ConfigError for one that there is not."""
    found = METHODS.get(name.replace("-", "_"))
    if found is None:
        raise ConfigError(f"method '{name}'", "there is no such method", f"Use one of {', '.join(METHODS)}")
    return found
