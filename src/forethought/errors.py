"""What can go wrong, in the words of the person who has to fix it.

Every error names the value, the rule it broke and the fix. The command line
prints it in one line and exits with 2; a traceback is a bug of ours.
"""

from __future__ import annotations


class ForethoughtError(Exception):
    """Base of every error that a user can cause and mend."""

    def __init__(self, value: object, rule: str, fix: str) -> None:
        self.value = value
        self.rule = rule
        self.fix = fix
        super().__init__(f"{value}: {rule}. {fix}")

    def __reduce__(self) -> tuple[type[ForethoughtError], tuple[str, str, str]]:
        """How it travels between processes: by its parts."""
        return type(self), (str(self.value), self.rule, self.fix)


class InputError(ForethoughtError):
    """A file, column or row that can't be used."""


class ConfigError(ForethoughtError):
    """A policy, recipe, operator or option that is not valid."""


class ModelError(ForethoughtError):
    """A model, adapter or chat template that can't be loaded or used."""


class StageError(ForethoughtError):
    """A stage whose inputs are missing, or that could not finish."""


def reason_of(error: BaseException) -> str:
    """What another library said, in one line; its kind where it said nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
