"""Which of a run's processes this is, as launchers say it before anything of torch is there."""

from __future__ import annotations

import os


def is_first() -> bool:
    """Whether this process speaks and writes for all; True where it is alone."""
    return int(os.environ.get("RANK", "0")) == 0
