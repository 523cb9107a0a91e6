"""How the two on-policy methods run; read by the catalogue without loading a trainer."""

from __future__ import annotations

from pydantic import Field

from forethought.records import Record
from forethought.train.rl.reward import RewardWeights


class RLSettings(Record):
    """How a policy is optimised. The defaults are small: minutes for a model of a hundred million parameters."""

    steps: int = Field(default=16, ge=1)
    """Updates; each draws new turns."""
    requests: int = Field(default=4, ge=2)
    """Requests a step, half of them harmful."""
    group: int = Field(default=8, ge=2)
    """Turns drawn of each request; 64 in the paper."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the draws. 1 is the policy itself."""
    max_new_tokens: int = Field(default=128, ge=8)
    """Longest turn; an answer that is cut is judged as far as it goes."""
    rate_share: float = Field(default=0.05, gt=0)
    """Learning rate as a share of that of supervised training."""
    beta: float = Field(default=0.04, ge=0)
    """Weight of the divergence from the supervised model, the paper's; 0 keeps no copy of it."""
    checkpoint_steps: int = Field(default=4, ge=1)
    weights: RewardWeights = RewardWeights()


class RejectionSettings(Record):
    """How thoughts are sampled and chosen."""

    samples: int = Field(default=4, ge=1)
    """Thoughts of each request."""
    temperature: float = Field(default=1.0, gt=0)
    keep: int = Field(default=1, ge=1)
    """Most thoughts kept of a request, each a row of its own."""
    least_nearness: float = Field(default=0.1, ge=0, le=1)
    """An intent less near than this to what is really asked is not kept, whatever its verdict."""
    think_budget: int | None = Field(default=None, ge=8)
    """Tokens in which a thought has to come to its verdict by itself; None is the sampled model's own."""
