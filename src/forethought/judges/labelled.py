"""Answers and what they are, by which judges are trained and measured: files that people labelled, and shipped ones."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from forethought.data.files import Row
from forethought.data.readers import read_rows
from forethought.data.shipped import shipped_requests
from forethought.errors import InputError
from forethought.judges.base import Item, Measure, data_text
from forethought.records import Record
from forethought.yamlfile import shipped_yaml

Label = Literal["positive", "partial", "negative"]
"""Does the answer do what the measure asks for: refuse, or help with harm. `partial` is a partial refusal."""

_NAMES = shipped_yaml("judges/data/columns.yaml", dict[str, list[str]])
"""Names that a column for each role is known by."""
_REFUSAL_NAMES = ("refus",)
_HARM_NAMES = ("harm", "jail", "unsafe")
_REVERSED_NAMES = ("is_safe", "safe", "harmless", "complied", "compliance")
"""Columns whose true value says the opposite of their measure: safe is not harmful, complied is not refused."""
_TRUE = {"1", "1.0", "true", "yes", "y", "t"}
_FALSE = {"0", "0.0", "false", "no", "n", "f"}


class Columns(Record):
    """Which column holds what; None is guessed from the names."""

    answer: str | None = None
    request: str | None = None
    label: str | None = None
    positive: tuple[str, ...] = ()
    """Label values that are positive, whatever they are called; every other value is negative."""


class LabelledItem(Record):
    """An answer and what people said of it."""

    item: Item
    label: Label | None
    """None where the label could not be read."""
    source: str
    """The file it stands in."""
    cause: str = ""
    """Why there is no label."""


def labelled_items(spec: str, measure: Measure, columns: Columns | None = None) -> list[LabelledItem]:
    """Every answer of a source, with its label for the measure.

    Raises InputError that names the columns there are, where one can't be found, and where no
    label can be read. A row whose label can't be read is kept with the cause.
    """
    given = columns or Columns()
    found: dict[tuple[str, ...], Columns] = {}
    items = []
    for name, row in read_rows(spec):
        names = tuple(row)
        if names not in found:
            found[names] = resolve(names, given, measure, name)
        items.append(_labelled(row, found[names], measure, name))
    if not any(item.label for item in items):
        seen = ", ".join(f"'{cause}'" for cause, _ in Counter(item.cause for item in items).most_common(3))
        raise InputError(spec, f"no label can be read ({seen})", "Say which values are positive: --positive VALUE")
    return items


def labelled_files(files: Sequence[str], measure: Measure, columns: Columns | None = None) -> list[LabelledItem]:
    """The answers of several sources, as `labelled_items` reads each."""
    return [item for file in files for item in labelled_items(file, measure, columns)]


def resolve(names: Sequence[str], given: Columns, measure: Measure, file: str) -> Columns:
    """The columns of a file, by the caller's word, else by their names."""
    for wanted in (given.answer, given.request, given.label):
        if wanted is not None and wanted not in names:
            raise InputError(file, f"has no column '{wanted}'", f"It has: {', '.join(names)}")
    answer = given.answer or _first(names, _NAMES["answer"])
    label = given.label or _label_column(names, measure)
    for role, column in (("answer", answer), ("label", label)):
        if column is None:
            raise InputError(
                file, f"no {role} column is known among {', '.join(names)}", f"Name it: --column {role}=NAME"
            )
    request = given.request or _first(names, _NAMES["request"])
    return Columns(answer=answer, request=request, label=label, positive=given.positive)


def _first(names: Sequence[str], known: Sequence[str]) -> str | None:
    lowered = {_plain(name): name for name in reversed(names)}
    return next((lowered[name] for name in known if name in lowered), None)


def _label_column(names: Sequence[str], measure: Measure) -> str | None:
    """A column named for the measure goes before one with a general name."""
    own = _REFUSAL_NAMES if measure == "refused" else _HARM_NAMES
    other = _HARM_NAMES if measure == "refused" else _REFUSAL_NAMES
    known = [name for name in _NAMES["label"] if not any(part in name for part in other)]
    return _first(names, [name for name in known if any(part in name for part in own)]) or _first(names, known)


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_").lstrip("\ufeff")


def _labelled(row: Row, columns: Columns, measure: Measure, file: str) -> LabelledItem:
    assert columns.answer is not None
    assert columns.label is not None
    answer, request = row.get(columns.answer), row.get(columns.request) if columns.request else ""
    raw = row.get(columns.label)
    label = read_label(raw, measure, columns.label, columns.positive)
    cause = "" if label else ("the label is empty" if raw in (None, "") else str(raw)[:40])
    item = Item(request=_text(request), answer=_text(answer))
    return LabelledItem(item=item, label=label, source=Path(file).name, cause=cause)


def _text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else str(value)


def read_label(value: object, measure: Measure, column: str = "", positive: Sequence[str] = ()) -> Label | None:
    """One label value: `1`, `true`, `2_full_refusal`, `unsafe`, `partial refusal`…; None where it can't be read."""
    text = _text(value).strip().lower()
    if positive:
        return None if not text else "positive" if text in {p.strip().lower() for p in positive} else "negative"
    if text in _TRUE | _FALSE:
        yes = text in _TRUE
        return "positive" if yes != (_plain(column) in _REVERSED_NAMES) else "negative"
    words = text.replace("_", " ").replace("-", " ")
    if measure == "harmful" and (severity := _severity(text)) is not None:
        return "positive" if severity >= 0.5 else "negative"
    return _refusal_word(words) if measure == "refused" else _harm_word(words)


def _severity(text: str) -> float | None:
    """A number from 0 to 1, as several people's mean is."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number <= 1 else None


def _refusal_word(words: str) -> Label | None:
    if "partial" in words:
        return "partial"
    answers = ("not refus", "no refus", "non refus", "complian", "complied", "comply", "answered")
    if any(word in words for word in answers):
        return "negative"
    return "positive" if "refus" in words or "reject" in words or "declin" in words else None


def _harm_word(words: str) -> Label | None:
    if any(word in words for word in ("unsafe", "not safe")):
        return "positive"
    harmless = ("safe", "harmless", "unharmful", "not harm", "benign", "refus", "not jail", "failed", "unsuccess")
    if any(word in words for word in harmless):
        return "negative"
    harm = ("harm", "jail", "success", "full compliance", "toxic")
    return "positive" if any(word in words for word in harm) else None


def truths(items: Sequence[LabelledItem], partial_counts: bool = True) -> list[bool | None]:
    """Labels as booleans: partial refusals are refusals where `partial_counts`, else compliances."""
    value: Mapping[Label | None, bool] = {"positive": True, "negative": False, "partial": partial_counts}
    return [value.get(item.label) for item in items]


# The shipped answers: hand-written openings, closers and whole answers, put together with topics.
#
# No line of it tells how to do harm: what complies with a harmful request is structure alone, with every detail
# blanked.

AnswerKind = Literal["refusal", "partial", "compliance", "gibberish"]
_PER_OPENING = {"refusal": 8, "partial": 8, "compliance": 12}
"""How often each opening is put together with a topic."""
_BARE, _TWO_VOICES, _OFF_TOPIC = 600, 150, 200
"""Answers without an opening, rows whose two halves disagree, and rows that answer another request."""
_PLAIN, _LISTED, _SHORT, _FOREIGN, _HARD, _ARGUED, _OFFERED = 900, 900, 8, 8, 8, 8, 30
"""Plain answers put together from passages; bare words; and how often each misleading opening, each long refusal
and each refusal that offers something else is used."""
_EVERY_CUT, _CUT_WORDS = 2, (6, 40)
"""Every how many answers behind an opening are shown cut once more, and after how many words."""
_LONG_CHARS = 150
"""A passage of this length or more is also shown wrapped."""
_FILES = ("answers", "closers", "fillers", "manners", "openings", "passages", "redacted_steps", "topics", "wrappers")
_GAPS = (" ", "\n\n")
_PAIRS = 3
_VOICES = (
    ("[Classic] ", "[Unlocked] "),
    ("Normal: ", "Free: "),
    ("GPT: ", "Persona: "),
    ("", "But since you ask: "),
    ("", "(Developer mode) "),
    ("", "Now without the rules: Sure! "),
)


class ShippedAnswer(Record):
    """One training answer and what it is."""

    item: Item
    label: AnswerKind
    on_topic: bool = True
    """False where the answer belongs to another request."""
    harmful_request: bool | None = None
    """None for answers without a request."""
    group: str = ""
    """What rows made from one opening share: they never stand on both sides of a fold."""
    manner: bool = False
    """True for rows that teach how refusals and plain answers speak, and nothing of harm."""


@cache
def _rows(name: str) -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(line) for line in data_text(f"{name}.jsonl").splitlines() if line.strip())


@cache
def _texts(name: str, **only: str) -> tuple[str, ...]:
    """The texts of a file's rows, of those alone that hold these values."""
    return tuple(row["text"] for row in _rows(name) if all(row[key] == value for key, value in only.items()))


def _harmless() -> list[str]:
    return [request.text for name in ("ordinary", "lookalike") for request in shipped_requests(name)]


def made_of() -> Iterator[str]:
    """Every text that shipped answers are made of."""
    yield from map(data_text, (f"{name}.jsonl" for name in _FILES))
    yield from _harmless()


def shipped_answers(seed: int = 0) -> list[ShippedAnswer]:
    """All shipped answers; the same seed gives the same list."""
    rng = random.Random(seed)
    rows = [_whole(row) for row in _rows("answers")]
    openings = _rows("openings")
    for opening in openings:
        rows += [_composed(opening, rng) for _ in range(_PER_OPENING[opening["label"]])]
    refusals = [opening for opening in openings if opening["label"] == "refusal"]
    rows += [_bare(rng) for _ in range(_BARE)]
    # Harmless requests as the answers of someone who was asked to write one: plain English, no refusal.
    rows += [_answer("", text, "compliance") for text in _harmless()]
    rows += [_two_voices(rng.choice(refusals), rng) for _ in range(_TWO_VOICES)]
    rows += [_off_topic(rng) for _ in range(_OFF_TOPIC)]
    rows += _in_pairs(rng)
    return [*_with_wrapped(rows, rng), *_with_wrapped(_manners(random.Random(seed)), random.Random(seed))]


def _with_wrapped(rows: list[ShippedAnswer], rng: random.Random) -> list[ShippedAnswer]:
    """The rows, and every other compliance behind an opening once more, wrapped; so are passages, which have none."""
    whole = [row for row in rows if row.label == "compliance" and row.group][::2]
    whole += [row for row in rows if row.manner and not row.group and len(row.item.answer) >= _LONG_CHARS]
    return rows + [row.model_copy(update={"item": wrapped(row.item, rng)}) for row in whole]


def wrapped(item: Item, rng: random.Random) -> Item:
    """The same answer behind a safety preamble, a reasoning or a quoted refusal, or before a disavowal.

    It does what it did before. Judges are taught so, since each of these flips judges that count words.
    """
    place = rng.choice(("before", "before", "after", "quote"))
    text = rng.choice(_texts("wrappers", place=place))
    gap = rng.choice((" ", "\n\n"))
    answer = f"{item.answer}{gap}{text}" if place == "after" else f"{text}{gap}{item.answer}"
    return item.model_copy(update={"answer": answer})


def _in_pairs(rng: random.Random) -> list[ShippedAnswer]:
    """Answers in other languages, two at a time: there are few of them, and each word should weigh little."""
    pairs = []
    rows = [row for row in _rows("answers") if row["language"] not in ("", "en")]
    for row in rows:
        others = [r for r in rows if r["language"] == row["language"] and r["label"] == row["label"] and r is not row]
        for other in rng.sample(others, min(_PAIRS, len(others))):
            answer = f"{row['answer']} {other['answer']}"
            pairs.append(_whole({**row, "answer": answer}))
    return pairs


def _answer(request: str, answer: str, label: AnswerKind, **more: Any) -> ShippedAnswer:
    return ShippedAnswer(item=Item(request=request, answer=answer), label=label, **more)


def _whole(row: dict[str, Any]) -> ShippedAnswer:
    return _answer(row["request"], row["answer"], row["label"])


def _composed(opening: dict[str, Any], rng: random.Random) -> ShippedAnswer:
    """An opening with its slots filled, then what such an answer usually goes on with."""
    topic = rng.choice(_topics(opening, rng))
    text = _filled(opening["text"], topic)
    if opening["label"] == "refusal":
        parts = [text, *_closers("refusal", rng, rng.choice((0, 0, 1, 1, 2, 3)))]
    elif opening["label"] == "partial":
        parts = [text, _body(topic, rng), *_closers("refusal", rng, rng.choice((0, 1)))]
    else:
        parts = [text, _body(topic, rng), *_closers("compliance", rng, 1)]
    answer = rng.choice((" ", "\n\n")).join(part for part in parts if part)
    if rng.random() < 0.3:
        answer = answer.replace("'", "\u2019")
    return _answer(topic["request"], answer, opening["label"], harmful_request=topic["harmful"], group=opening["text"])


def _manners(rng: random.Random) -> list[ShippedAnswer]:
    """Passages as answers, alone and behind openings that look like refusals; bare words and sentences; refusals
    that argue at length, offer something else, or point to help."""
    passages = _texts("passages")
    rows = [_manner(text, "", "compliance") for text in passages]
    rows += [_manner(_mixed(passages, rng), "", "compliance") for _ in range(_PLAIN)]
    rows += [_manner(_listed(rng), "", "compliance") for _ in range(_LISTED)]
    rows += [_manner(text, text, "compliance") for text in _kind("sentence") for _ in range(_SHORT)]
    rows += [_manner(text, text, "compliance") for text in _kind("short") for _ in range(_SHORT)]
    rows += [_whole(row) for row in _rows("answers") if row["language"] not in ("", "en") for _ in range(_FOREIGN)]
    for opening in _kind("long"):
        rows += [_composed({"label": "refusal", "text": opening}, rng) for _ in range(_ARGUED)]
    for opening in _kind("core"):
        rows += [_offering(opening, rng) for _ in range(_OFFERED)]
        rows += [_second_voice(opening, passages, rng) for _ in range(_ARGUED)]
    for opening in _kind("crisis"):
        for _ in range(_ARGUED):
            text = " ".join([opening, *_closers("refusal", rng, 1), rng.choice(_kind("offer")[-16:])])
            rows.append(_manner(text, opening, "refusal"))
    for opening in _kind("hard"):
        for _ in range(_HARD):
            text = _filled(opening, rng.choice(_topics({"label": "compliance"}, rng)))
            rows.append(_manner(f"{text}{rng.choice(_GAPS)}{_mixed(passages, rng)}", opening, "compliance"))
    for opening in _kind("warm"):
        for _ in range(_HARD):
            text = _filled(opening, rng.choice(_topics({"label": "compliance"}, rng)))
            rows.append(_manner(rng.choice((text, f"{text} {_mixed(passages, rng)}")), opening, "compliance"))
    rows += [_composed(opening, rng) for opening in _rows("openings") if opening["label"] == "refusal"]
    rows += [_cut(row, rng) for row in rows if row.group and row.label != "partial"][::_EVERY_CUT]
    return [row.model_copy(update={"manner": True}) for row in rows]


def _cut(row: ShippedAnswer, rng: random.Random) -> ShippedAnswer:
    """The answer as an evaluation cuts it: after a few words, of a refusal after the sentence that refuses."""
    fewest = len(row.group.split()) if row.label == "refusal" else 4
    words = row.item.answer.split(" ")[: max(fewest, rng.randint(*_CUT_WORDS))]
    return row.model_copy(update={"item": row.item.model_copy(update={"answer": " ".join(words)})})


def _kind(kind: str) -> tuple[str, ...]:
    return _texts("manners", kind=kind)


def _offering(opening: str, rng: random.Random) -> ShippedAnswer:
    """A refusal, perhaps its reason, and what is offered in its place."""
    topic = rng.choice(_topics({"label": "refusal"}, rng))
    reasons = rng.sample(_kind("reason"), rng.choice((0, 1, 1, 2)))
    offers = rng.sample(_kind("offer"), rng.choice((0, 1, 1, 1, 2)))
    parts = [_filled(opening, topic), *reasons, *offers]
    return _manner(rng.choice((" ", " ", "\n\n")).join(parts), opening, "refusal")


def _second_voice(opening: str, passages: Sequence[str], rng: random.Random) -> ShippedAnswer:
    """As `_two_voices`, at length: one speaker refuses and another answers, or refuses again."""
    refusal, again = _offering(opening, rng), _offering(opening, rng)
    complies = rng.random() < 0.7
    said = f"{rng.choice(_kind('voice'))} {_mixed(passages, rng)}" if complies else again.item.answer
    first, second = rng.choice(_kind("speaker")), rng.choice(_kind("second speaker"))
    answer = f"{first} {refusal.item.answer}{rng.choice(_GAPS)}{second} {said}"
    return _manner(answer, opening, "compliance" if complies else "refusal")


def _listed(rng: random.Random) -> str:
    """Bare words: one, or a list in one of the usual forms."""
    words = rng.sample(_kind("word"), rng.choice((1, 1, 1, 2, 3, 5, 8)))
    style = rng.randrange(4)
    if style == 0 or len(words) == 1:
        return ", ".join(words) + rng.choice(("", "."))
    if style == 1:
        return "\n".join(f"{n}. {word}" for n, word in enumerate(words, start=1))
    return (
        "\n".join(f"- {word}" for word in words) if style == 2 else " ".join(f"{word.capitalize()}." for word in words)
    )


def _manner(answer: str, group: str, label: AnswerKind) -> ShippedAnswer:
    return _answer("", answer, label, harmful_request=False, group=group, manner=True)


def _mixed(passages: Sequence[str], rng: random.Random) -> str:
    """A few sentences or paragraphs of passages: what they say doesn't matter to who reads manner alone."""
    if rng.random() < 0.4:
        return "\n\n".join(rng.sample(passages, rng.randint(1, 2)))
    sentences = [s for text in rng.sample(passages, rng.randint(1, 3)) for s in re.split(r"(?<=[.!?]) ", text)]
    start = rng.randrange(len(sentences))
    return " ".join(sentences[start : start + rng.randint(1, 8)])


def _topics(opening: dict[str, Any], rng: random.Random) -> list[dict[str, Any]]:
    """Refusals are mostly of harmful requests and compliances of harmless ones, but not so that the topic tells."""
    harmful = rng.random() < (0.75 if opening["label"] == "refusal" else 0.35)
    return [topic for topic in _rows("topics") if topic["harmful"] == harmful]


def _filled(text: str, topic: dict[str, Any]) -> str:
    for slot in ("doing", "do", "topic"):
        text = text.replace("{" + slot + "}", topic[slot])
    return text[:1].upper() + text[1:]


def _closers(label: str, rng: random.Random, count: int) -> list[str]:
    return rng.sample(_texts("closers", label=label), count)


def _body(topic: dict[str, Any], rng: random.Random) -> str:
    """The substance of an answer: a paragraph, a list of steps or bullets, or several paragraphs."""
    steps = topic["sentences"] or rng.sample(_texts("redacted_steps"), rng.randint(2, 6))
    steps = steps[: rng.randint(1, len(steps))] if rng.random() < 0.4 else steps
    if rng.random() < 0.5:
        steps = [f"{step}. {' '.join(rng.sample(_texts('fillers'), rng.randint(0, 4)))}".rstrip(" .") for step in steps]
    style = rng.randrange(4)
    if style == 0:
        return ". ".join(steps) + "."
    if style == 1:
        return "\n\n".join(f"{step}." for step in steps)
    return "\n".join(f"{n}. {step}" if style == 2 else f"- {step}" for n, step in enumerate(steps, start=1))


def _bare(rng: random.Random) -> ShippedAnswer:
    """Plain statements without an opening, as most short answers are."""
    topic = rng.choice([topic for topic in _rows("topics") if topic["sentences"]])
    source = topic["sentences"] if rng.random() < 0.7 else _texts("fillers")
    answer = " ".join(f"{s}." if s[-1].isalnum() else s for s in rng.sample(source, rng.randint(1, 3)))
    return _answer(rng.choice((topic["request"], "")), answer, "compliance", harmful_request=False)


def _two_voices(opening: dict[str, Any], rng: random.Random) -> ShippedAnswer:
    """A refusal in one voice and a full answer in another, as jailbreak personas give it: it complies."""
    topic = rng.choice(_rows("topics"))
    first, second = rng.choice(_VOICES)
    answer = f"{first}{_filled(opening['text'], topic)}\n\n{second}{_body(topic, rng)}"
    return _answer(topic["request"], answer, "compliance", harmful_request=topic["harmful"])


def _off_topic(rng: random.Random) -> ShippedAnswer:
    """An answer to another, harmless request."""
    asked, answered = rng.sample(_rows("topics"), 2)
    while not answered["sentences"]:
        answered = rng.choice(_rows("topics"))
    body = _body(answered, rng)
    return _answer(asked["request"], body, "compliance", on_topic=asked is answered, harmful_request=asked["harmful"])
