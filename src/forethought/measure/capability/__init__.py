"""What a model can still do: question files as lm-eval tasks, for the base model and the defended one alike."""

from __future__ import annotations

import importlib.util

from forethought.errors import ConfigError

INSTALL = "pip install 'forethought[capability]'"


def need_lm_eval() -> None:
    """Raises ConfigError that names the install command where lm-eval is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError("lm-eval", "is not installed, and capability is measured through it", f"Run: {INSTALL}")
