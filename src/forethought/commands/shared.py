"""What the commands share: quiet libraries, options as they are written, a defence around a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from forethought.errors import ConfigError

if TYPE_CHECKING:
    pass


def quiet() -> None:
    """Silences libraries that print bars and warnings of their own into ours."""
    import logging
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    logging.getLogger("accelerate").setLevel(logging.ERROR)


def column_overrides(columns: Sequence[str]) -> dict[str, str]:
    """Columns by noun, from options written NOUN=NAME. Raises ConfigError for one that is not."""
    pairs = [option.partition("=") for option in columns]
    for noun, equals, column in pairs:
        if not (noun and equals and column):
            raise ConfigError(f"--column {noun}", "is not NOUN=NAME", "Write it as: --column category=my_column")
    return {noun: column for noun, _, column in pairs}
