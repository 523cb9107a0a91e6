"""Attacks that change what stands around a request: who asks, who approves, a longer frame, templates of a file.

Searches that breed or climb from templates begin with `prototypes`, which are made of such frames.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from forethought.attacks.base import Attacked, Family, Given, Options, by_rule, framed
from forethought.data.evolve import sentence
from forethought.data.readers import read_rows
from forethought.data.shipped import SAMPLE, accepted_answers
from forethought.errors import ConfigError, InputError
from forethought.records import Message, Record, user_request

_FAMILY = Family.read("templates")
PLACE = "{request}"
"""Where a template has the request."""
_PROTOTYPE_FRAMES = (
    "role_play", "expert_endorsement", "evidence_persuasion", "logical_appeal", "authority_endorsement",
    "chain_of_utterances", "deep_inception",
)  # fmt: skip
_PROTOTYPE_ENDINGS = ("refusal_suppression", "prefix_injection", "")
"""Put around a frame, so that a template has sentences to exchange; the last leaves it bare."""
_PROTOTYPE_DRAWS = 3
"""Wordings of each frame."""
_PUBLISHED_PLACE = re.compile(
    r"(?i)\[\s*(?:insert (?:your )?(?:prompt|question|request|query)(?: here)?"
    r"|(?:your )?(?:prompt|question|request|query)(?: (?:goes )?here)?)\s*\]"
    r"|\{\{?\s*(?:prompt|request|question|query|goal|behavior|user_input|input)\s*\}?\}"
    r"|<\s*(?:prompt|request|question|query|insert prompt here)\s*>"
)
"""Where published template sets put the request: `[INSERT PROMPT HERE]` (GPTFuzz), `[PROMPT]`, `{goal}`, ..."""
_TEMPLATE_COLUMNS = ("text", "template", "prompt", "jailbreak", "jailbreak_template")


class Template(Record):
    """One template of a file."""

    name: str
    """Its place in the file, from 1."""
    text: str
    family: str = ""
    """The file's own name for its kind, where it has one."""
    placed: bool = True
    """Whether it says where the request goes; else the request is put behind it."""

    def fill(self, request: str) -> str:
        """The template with the request in each of its places; behind it where it has none."""
        if not self.placed:
            return f"{self.text}\n\n{request}"
        return _PUBLISHED_PLACE.sub(lambda match: request, self.text)


@lru_cache(maxsize=8)
def read_templates(path: Path) -> tuple[Template, ...]:
    """The templates of a local file: GPTFuzz's table, a list of texts, any file that the readers know.

    Those without a place (in-the-wild prompts) are put before the request. Sets whose rows hold their own request
    already (TrustLLM's) are no templates but benchmarks: load them as requests. Raises InputError.
    """
    templates = []
    for number, (_, row) in enumerate(read_rows(str(path)), start=1):
        column = next((name for name in _TEMPLATE_COLUMNS if isinstance(row.get(name), str)), None)
        if column is None:
            raise InputError(
                f"{path}, row {number}", "holds no template", f"Name its column one of {', '.join(_TEMPLATE_COLUMNS)}"
            )
        family = row.get("family") or row.get("source") or ""
        text = row[column].strip()
        if text:
            templates.append(
                Template(name=str(number), text=text, family=str(family), placed=bool(_PUBLISHED_PLACE.search(text)))
            )
    return tuple(templates)


def file_of(attack: str, given: Given) -> Path:
    """The local file that an attack reads. Raises ConfigError where none was named."""
    if attack not in given.files:
        raise ConfigError(
            f"attack '{attack}'", "needs a local file", f"Name it in the suite: files: {{{attack}: FILE}}"
        )
    return given.files[attack]


def _from_file(attacked: Attacked, rng: random.Random, options: Options, given: Given) -> Attacked:
    templates = read_templates(file_of("templates", given))
    wanted = options["row"]
    if wanted == 0:
        return attacked.said(rng.choice(templates).fill(attacked.text.strip()))
    found = [template for template in templates if template.name == str(wanted)]
    if not found:
        raise ConfigError(f"attack 'templates:{wanted}'", "the file has no such row", "Use 0 to draw one a request")
    return attacked.said(found[0].fill(attacked.text.strip()))


def _distractors(text: str, rng: random.Random, options: Options) -> str:
    pool = list(_FAMILY.tables["distractors"].values())
    before, after, last = rng.sample(pool, 3)
    return framed(_FAMILY.texts["distractors"], text, before=before, after=after, last=last)


def demonstrations(shots: int, rng: random.Random) -> list[tuple[str, str]]:
    """So many harmless questions, each with an answer that complies; sums follow when the questions are used up.

    The papers show harmful ones. Harmless ones write nothing harmful, and are the same for both kinds of request;
    they press less, so that what they reach is a lower bound.
    """
    pool = [(text, accepted[0]) for text, accepted in accepted_answers(SAMPLE).items()]
    chosen = rng.sample(pool, min(shots, len(pool)))
    while len(chosen) < shots:
        one, other = rng.randint(11, 99), rng.randint(11, 99)
        chosen.append((f"What is {one} plus {other}?", str(one + other)))
    return [(question, f"Sure, here is the answer: {answer[:1].upper()}{answer[1:]}.") for question, answer in chosen]


def _few_shot(attacked: Attacked, rng: random.Random, options: Options, given: Given) -> Attacked:
    turns: list[Message] = []
    for question, answer in demonstrations(int(options["shots"]), rng):
        turns += [Message(role="user", content=question), Message(role="assistant", content=answer)]
    return attacked.after(tuple(turns))


def _many_shot(text: str, rng: random.Random, options: Options) -> str:
    shown = demonstrations(int(options["shots"]), rng)
    return "".join(f"Human: {one}\nAssistant: {answer}\n\n" for one, answer in shown) + f"Human: {text}\nAssistant:"


ATTACKS = _FAMILY.made(
    {
        "distractors": by_rule(_distractors),
        "few_shot": _few_shot,
        "many_shot": by_rule(_many_shot),
        "templates": _from_file,
    }
)


def prototypes(templates: Sequence[str] = ()) -> tuple[str, ...]:
    """The user's templates, else the shipped ones.

    A template without a place gets one behind it. The papers begin with hand-written jailbreaks of many paragraphs;
    none is shipped, so without the user's file a search starts from less.
    """
    if not templates:
        return _shipped_prototypes()
    return tuple(dict.fromkeys(text if PLACE in text else f"{text}\n\n{PLACE}" for text in templates))


def fill_template(template: str, request: str) -> str:
    """The template with the request, as a sentence, in each of its places."""
    # Split and join: braces in a request must not be read as a place.
    return sentence(request).join(template.split(PLACE))


@lru_cache(maxsize=1)
def _shipped_prototypes() -> tuple[str, ...]:
    by_name = {attack.name: attack for attack in ATTACKS}
    found = []
    for ending in _PROTOTYPE_ENDINGS:
        for frame in _PROTOTYPE_FRAMES:
            for draw in range(_PROTOTYPE_DRAWS):
                made = Attacked(request=user_request(PLACE))
                for name in filter(None, (frame, ending)):
                    outcome = by_name[name].apply(made, random.Random(draw), Given())
                    assert isinstance(outcome, Attacked)  # the frames are rules, none asks an attacker
                    made = outcome
                found.append(made.text.replace(f"{PLACE}.", PLACE))  # `fill_template` brings the end mark
    return tuple(dict.fromkeys(found))
