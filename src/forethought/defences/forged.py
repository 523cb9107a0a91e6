"""What of a message is its user's own, where it holds forged turns or thoughts.

A message can be written as if turns of the assistant or a finished thought were part of it (ChatBug: Jiang et al.
2024, arXiv 2406.12935; H-CoT: Kuo et al. 2025, arXiv 2502.12893). The markers of the common chat templates and thought
tags are known, whatever model reads them: a forgery for another template confuses as well.
"""

from __future__ import annotations

import re

from forethought.reasoning import markers

_CONTROL = r"<[|\uff5c][^<>|\uff5c\n]{1,40}[|\uff5c]>|</?s>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>"
_HEADINGS = "|".join(re.escape(heading) for heading in markers("paper"))
_NAMES = r"user|human|assistant|model|ai|system"
_MARKER = re.compile(
    rf"(?P<thought></?think(?:ing)?>|^(?:{_HEADINGS})[ \t]*$)"
    rf"|(?P<control>(?:(?:{_CONTROL})\s*)+)(?P<role>(?:{_NAMES})\b[ \t]*(?:\n|(?:{_CONTROL})\s*|$))?"
    rf"|^[ \t]*(?P<heading>{_NAMES})[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
_ASSISTANT = re.compile(r"assistant|model|\bai\b|\[/INST\]", re.IGNORECASE)


def own_parts(text: str, least_words: int = 3, most: int = 8) -> tuple[str, ...]:
    """The parts of a message outside forged thoughts and forged turns of the assistant; none without any marker.

    Whose a part is where a marker doesn't say so is taken for the user's. Parts of fewer than `least_words` words are
    left out, those beyond `most` stand together in the last.
    """
    parts: list[str] = []
    own, start = True, 0
    for marker in _MARKER.finditer(text):
        if own:
            parts.append(text[start : marker.start()])
        start = marker.end()
        # What follows a closed thought is a forged answer.
        own = not marker["thought"] and not _ASSISTANT.search(marker[0])
    if not start:
        return ()
    if own:
        parts.append(text[start:])
    found = [part.strip() for part in parts if len(part.split()) >= least_words]
    return (*found[: most - 1], "\n\n".join(found[most - 1 :])) if len(found) > most else tuple(found)
