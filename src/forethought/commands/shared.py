"""What the commands share: the console, and quiet libraries."""

from __future__ import annotations

from rich.console import Console

console = Console()


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
