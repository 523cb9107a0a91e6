"""What the script beside a page holds, for tests."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any, NamedTuple


class Held(NamedTuple):
    """The three parts: columns, texts as they are shown, and those behind redacted ones by place."""

    table: dict[str, Any]
    texts: list[str]
    harmful: dict[str, str]


def held_in(script: Path) -> Held:
    """Unpacked."""
    packed = re.findall(r'^"([A-Za-z0-9+/=]+)",?$', script.read_text("utf-8"), re.MULTILINE)
    return Held(*(json.loads(gzip.decompress(base64.b64decode(one))) for one in packed))
