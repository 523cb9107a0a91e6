"""Training methods by name: all that the files of this folder hold."""

from __future__ import annotations

from forethought.errors import ConfigError
from forethought.extensions import FILE, add_file, by_name, listed
from forethought.training import methods
from forethought.training.methods.base import TrainingMethod


def all_methods() -> dict[str, TrainingMethod]:
    """Every method of every file in this folder and of files added to it, sorted by name."""
    return by_name(sorted(listed(methods, "METHODS"), key=lambda method: method.name))


def get_method(name: str) -> TrainingMethod:
    """A training method by name (`-` and `_` are the same), or the first of a .py file that lists some.

    Raises ConfigError for one that there is not.
    """
    if name.endswith(FILE):
        first: TrainingMethod = add_file(methods, name, "METHODS")[0]
        return first
    known = all_methods()
    found: TrainingMethod | None = known.get(name.replace("-", "_"))
    if found is None:
        raise ConfigError(f"method '{name}'", "there is no such method", f"Use one of {', '.join(known)}")
    return found
