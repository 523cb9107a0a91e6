"""All searches by name, what suites may write of them, and which can be run here.

A module lists its search under `METHODS`; its title, options and texts stand in the YAML file beside it.
What works on a model's weights stands in `weights`, and is loaded by a search that runs: no list needs torch.
"""

from __future__ import annotations

from forethought.attacks import searches
from forethought.attacks.base import find
from forethought.attacks.searches.base import Method, Tools
from forethought.extensions import by_name, listed


def all_searches() -> dict[str, Method]:
    """The searches of every module of this package and of files added to it, by name."""
    return by_name(listed(searches, "METHODS"))


def parse_method(spec: str) -> Method:
    """The search that a suite names: `NAME`, `NAME:VALUE` (its first option), `NAME:option=value,option=value`.

    Raises ConfigError for an unknown search or option, and for a value out of range.
    """
    name, _, written = spec.partition(":")
    return find("search", name.strip(), all_searches()).with_options(written)


def why_not(method: Method, tools: Tools, attacker: bool, evaluator: bool) -> str:
    """Why a search can't be run here, or empty."""
    if "gradients" in method.needs and tools.model is None:
        return "needs the model's weights"
    if "log_probs" in method.needs and not tools.able.log_probs:
        return "needs a model that tells log-probabilities"
    if "attacker" in method.needs and not attacker:
        return "needs an attacker model"
    if "evaluator" in method.needs and not evaluator:
        return "needs an evaluator model"
    if "templates" in method.needs and not tools.templates:
        return "needs a local file of templates"
    return ""
