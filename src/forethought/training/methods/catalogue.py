"""Training methods by name: all that the files of this folder hold."""

from __future__ import annotations

import importlib
import pkgutil

from forethought.errors import ConfigError
from forethought.training import methods
from forethought.training.methods.base import TrainingMethod


def read_methods() -> dict[str, TrainingMethod]:
    """Every method of every file in this folder, sorted by name."""
    own = f"{methods.__name__}.catalogue"
    names = (f"{methods.__name__}.{found.name}" for found in pkgutil.iter_modules(methods.__path__))
    files = [importlib.import_module(name) for name in names if name != own]
    every: list[TrainingMethod] = [method for file in files for method in getattr(file, "METHODS", ())]
    return {method.name: method for method in sorted(every, key=lambda method: method.name)}


METHODS = read_methods()


def get_method(name: str) -> TrainingMethod:
    """A training method by name; `-` and `_` are the same. Raises ConfigError for one that there is not."""
    found = METHODS.get(name.replace("-", "_"))
    if found is None:
        raise ConfigError(f"method '{name}'", "there is no such method", f"Use one of {', '.join(METHODS)}")
    return found
