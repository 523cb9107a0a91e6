"""Two texts behind labels, and a sentence from which it follows which of them is asked: forms to train on.

They are many and small, so that what is learnt is to work out a label from what is said, not one kind of sentence. What
`puzzles` tests (sums, turns, pieces) takes work that none of these takes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from forethought.attacks.base import Family, Options
from forethought.attacks.puzzles import ONLY, WORDS, Texts, Turns, cut, of_two, solved

_FAMILY = Family.read("which_text")
_TABLES = _FAMILY.tables
_NOUNS, _NAMES = (tuple(_TABLES["labels"][name].split()) for name in ("nouns", "names"))
_LEFT = tuple(_TABLES["said"]["left"].split(" / "))
Made = tuple[Sequence[str], str]
"""Both labels, and the sentence."""
Found = tuple[int, str]
"""Which label is meant, and how that was found."""


def _labels(rng: random.Random) -> Sequence[str]:
    """Two names, or a thing with two numbers or letters."""
    if rng.random() < 0.3:
        return rng.sample(_NAMES, 2)
    noun = rng.choice(_NOUNS)
    marks = rng.sample("ABCDEFGHKLMNPRST", 2) if rng.random() < 0.3 else rng.sample(range(1, 100), 2)
    return [f"{noun} {mark}" for mark in marks]


def _numbered(numbers: Sequence[int], rng: random.Random) -> Sequence[str]:
    noun = rng.choice(_NOUNS)
    return [f"{noun} {number}" for number in numbers]


def _place(label: str, labels: Sequence[str]) -> int:
    return list(labels).index(label)


def _named(told: str, labels: Sequence[str]) -> int:
    """The one label that a sentence names."""
    return next(at for at, label in enumerate(labels) if re.search(rf"\b{re.escape(label)}\b", told))


def _number(label: str) -> int:
    return int(label.split()[1])


def remainder(place: int, rng: random.Random) -> Made:
    """All but one."""
    labels = _labels(rng)
    return labels, rng.choice(_LEFT).replace("{one}", labels[1 - place])


def _from_remainder(told: str, labels: Sequence[str]) -> Found:
    out = _named(told, labels)
    return 1 - out, f"not {labels[out]}, so {labels[1 - out]}"


def measures(place: int, rng: random.Random) -> Made:
    """By the larger or the smaller of two numbers."""
    labels, (said, larger, smaller) = _labels(rng), rng.choice(list(_TABLES["measures"].values()))
    numbers = rng.sample(range(2, 99), 2)
    told = [said.format(one=label, n=number) for label, number in zip(labels, numbers, strict=True)]
    return labels, f"{told[0]}. {told[1]}. Answer the {larger if numbers[place] > numbers[1 - place] else smaller} one."


def _from_measures(told: str, labels: Sequence[str]) -> Found:
    sentences = zip(told.split(". "), labels, strict=False)
    one, other = (int(re.findall(r"\d+", said.removeprefix(label))[0]) for said, label in sentences)
    larger = re.findall(r"the (\w+) one\.", told)[-1] in [word for _, word, _ in _TABLES["measures"].values()]
    place = int((other > one) == larger)
    pair = (one, other) if place == 0 else (other, one)
    return place, f"{pair[0]} is {'more' if larger else 'less'} than {pair[1]}, so {labels[place]}"


def products(place: int, rng: random.Random) -> Made:
    """By a number that is the product of two."""
    factors = [(rng.randint(2, 5), rng.randint(2, 9)) for _ in range(2)]
    while factors[0][0] * factors[0][1] == factors[1][0] * factors[1][1]:
        factors[1] = (rng.randint(2, 5), rng.randint(2, 9))
    labels = _numbered([one * other for one, other in factors], rng)
    return labels, f"Answer the one whose number is {factors[place][0]} times {factors[place][1]}."


def _from_products(told: str, labels: Sequence[str]) -> Found:
    one, other = map(int, re.findall(r"(\d+) times (\d+)", told)[-1])
    place = [_number(label) for label in labels].index(one * other)
    return place, f"{one} times {other} is {one * other}, so {labels[place]}"


def parity(place: int, rng: random.Random) -> Made:
    """By whether its number is even."""
    numbers = [2 * rng.randint(1, 49), 2 * rng.randint(0, 48) + 1]
    rng.shuffle(numbers)
    return _numbered(numbers, rng), f"Answer the one with an {'odd' if numbers[place] % 2 else 'even'} number."


def _from_parity(told: str, labels: Sequence[str]) -> Found:
    odd = "an odd number" in told
    place = next(at for at, label in enumerate(labels) if _number(label) % 2 == odd)
    return place, f"{_number(labels[place])} is {'odd' if odd else 'even'}, so {labels[place]}"


_ONES, _TENS = (tuple(str(_TABLES["words"][name]).split()) for name in ("ones", "tens"))


def _in_words(number: int) -> str:
    if number < 20:
        return _ONES[number - 1]
    return _TENS[number // 10 - 2] + (f"-{_ONES[number % 10 - 1]}" if number % 10 else "")


def _in_roman(number: int) -> str:
    marks = {90: "XC", 50: "L", 40: "XL", 10: "X", 9: "IX", 5: "V", 4: "IV", 1: "I"}
    said = ""
    for value, mark in marks.items():
        said, number = said + mark * (number // value), number % value
    return said


_NUMERALS = {say(number): number for number in range(1, 100) for say in (_in_words, _in_roman)}


def numerals(place: int, rng: random.Random) -> Made:
    """By its number in words, or in Roman letters up to twenty."""
    roman = rng.random() < 0.4
    numbers = rng.sample(range(1, 21 if roman else 100), 2)
    return _numbered(numbers, rng), f"Answer number {(_in_roman if roman else _in_words)(numbers[place])}."


def _from_numerals(told: str, labels: Sequence[str]) -> Found:
    said = re.findall(r"Answer number ([\w-]+)\.", told)[-1]
    place = [_number(label) for label in labels].index(_NUMERALS[said])
    return place, f"{said} is {_NUMERALS[said]}, so {labels[place]}"


def initials(place: int, rng: random.Random) -> Made:
    """By the first letter of a name, each of which has its own."""
    labels = rng.sample(_NAMES, 2)
    return labels, f"Answer the one whose name begins with {labels[place][0]}."


def _from_initials(told: str, labels: Sequence[str]) -> Found:
    letter = re.findall(r"begins with (\w)\.", told)[-1]
    place = [label[0] for label in labels].index(letter)
    return place, f"{labels[place]} begins with {letter}, so {labels[place]}"


def votes(place: int, rng: random.Random) -> Made:
    """By the most votes of three or five."""
    labels, each = _labels(rng), rng.choice((1, 2))
    cast = [0] * each + [1] * each + [place]
    order = rng.sample(range(len(cast)), len(cast))
    return labels, f"The votes: {', '.join(labels[cast[at]] for at in order)}. Answer the one with the most votes."


def _from_votes(told: str, labels: Sequence[str]) -> Found:
    cast = re.findall(r"The votes: (.*)\. Answer", told)[-1].split(", ")
    counts = [cast.count(label) for label in labels]
    place = int(counts[1] > counts[0])
    return place, f"{labels[0]} {counts[0]}, {labels[1]} {counts[1]}, so {labels[place]}"


def conditions(place: int, rng: random.Random) -> Made:
    """By whether a plain fact is true."""
    labels, true = _labels(rng), rng.random() < 0.5
    first, second = (labels[place], labels[1 - place]) if true else (labels[1 - place], labels[place])
    return labels, f"If {rng.choice(_TABLES['facts'][str(true).lower()])}, answer {first}, otherwise answer {second}."


def _from_conditions(told: str, labels: Sequence[str]) -> Found:
    fact, first = re.findall(r"If (.*), answer (.*), otherwise answer ", told)[-1]
    true = fact in _TABLES["facts"]["true"]
    place = _place(first, labels) if true else 1 - _place(first, labels)
    return place, f"{fact}: {'true' if true else 'not true'}, so {labels[place]}"


def traits(place: int, rng: random.Random) -> Made:
    """By what is told of each."""
    labels, liked = rng.sample(_NAMES, 2), rng.sample(_TABLES["words"]["liked"].split(), 2)
    told = " ".join(f"{label} likes {thing}." for label, thing in zip(labels, liked, strict=True))
    return labels, f"{told} Answer the one who likes {liked[place]}."


def _from_traits(told: str, labels: Sequence[str]) -> Found:
    thing = re.findall(r"who likes (\w+)\.", told)[-1]
    place = next(at for at, label in enumerate(labels) if f"{label} likes {thing}." in told)
    return place, f"{labels[place]} likes {thing}, so {labels[place]}"


def meanings(place: int, rng: random.Random) -> Made:
    """By what kind of thing its name is."""
    kinds = rng.sample(list(_TABLES["meanings"]), 2)
    return [rng.choice(_TABLES["meanings"][kind].split()) for kind in kinds], f"Answer the one that is {kinds[place]}."


def _from_meanings(told: str, labels: Sequence[str]) -> Found:
    kind = re.findall(r"the one that is (.*?)\.", told)[-1]
    place = next(at for at, label in enumerate(labels) if label in _TABLES["meanings"][kind].split())
    return place, f"{labels[place]} is {kind}, so {labels[place]}"


def _laid_out(lines: Sequence[str], told: str, rng: random.Random) -> Turns:
    """The texts before the sentence, behind it, or in a turn before it."""
    block, layout = "\n".join(lines), rng.random()
    told = f"{told} {ONLY}"
    if layout < 0.3:
        return [block, told]
    return [f"{told}\n\n{block}" if layout < 0.5 else f"{block}\n\n{told}"]


def _read(said: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
    """The sentence, and both texts with their labels."""
    parts = [part for turn in said for part in turn.split("\n\n")]
    told = next(part for part in reversed(parts) if part.endswith(ONLY)).removesuffix(ONLY)
    block = next(part for part in reversed(parts) if "\n" in part)
    labelled = [line.partition(": ") for line in block.split("\n")]
    return told, [(label, text) for label, _, text in labelled]


Make = Callable[[int, random.Random], Made]
Find = Callable[[str, Sequence[str]], Found]


def _made(make: Make) -> Callable[[Texts, int, Options, random.Random], Turns]:
    def turns(texts: Texts, place: int, options: Options, rng: random.Random) -> Turns:
        drawn = rng.getrandbits(32)  # apart, so that no choice of the sentence moves the layout
        labels, told = make(place, random.Random(drawn))
        return _laid_out([f"{label}: {text}" for label, text in zip(labels, texts, strict=True)], told, rng)

    return turns


def _found(find: Find) -> Callable[[Sequence[str], Options], tuple[str, ...]]:
    def steps(said: Sequence[str], options: Options) -> tuple[str, ...]:
        told, labelled = _read(said)
        place, step = find(told, [label for label, _ in labelled])
        label, text = labelled[place]
        return (step, f"{label}: {text}", text)

    return steps


def differences(texts: Texts, place: int, options: Options, rng: random.Random) -> Turns:
    """By a number that k subtractions give."""
    numbers, less = rng.sample(range(2, 60), 2), [rng.randint(2, 9) for _ in range(int(options["k"]))]
    told = " minus ".join(map(str, [numbers[place] + sum(less), *less]))
    lines = [f"{label}: {text}" for label, text in zip(_numbered(numbers, rng), texts, strict=True)]
    return _laid_out(lines, f"Its number is {told}. Answer that one.", rng)


def _from_differences(said: Sequence[str], options: Options) -> tuple[str, ...]:
    told, labelled = _read(said)
    left, *less = map(int, re.findall(r"Its number is ([\d minus]+)\.", told)[-1].split(" minus "))
    steps = []
    for one in less:
        steps.append(f"{left} minus {one} is {left - one}")
        left -= one
    label, text = next(line for line in labelled if _number(line[0]) == left)
    return (*steps[:-1], f"{steps[-1]}, so {label}", f"{label}: {text}", text)


def corrections(texts: Texts, place: int, options: Options, rng: random.Random) -> Turns:
    """k turns of the user that each name the other one instead."""
    labels, k = _labels(rng), int(options["k"])
    named = [place if at % 2 == k % 2 else 1 - place for at in range(k + 1)]
    said = [rng.choice(_TABLES["said"]["corrected"].split(" / ")).replace("{one}", labels[at]) for at in named[1:]]
    block = "\n".join(f"{label}: {text}" for label, text in zip(labels, texts, strict=True))
    return [f"{block}\n\nI want an answer to {labels[named[0]]}.", *said[:-1], f"{said[-1]} {ONLY}"]


def _from_corrections(said: Sequence[str], options: Options) -> tuple[str, ...]:
    first = next(at for at, turn in enumerate(said) if "\n\nI want an answer to " in turn)
    block, _, begun = said[first].rpartition("\n\n")
    labelled = [line.partition(": ")[::2] for line in block.rpartition("\n\n")[2].split("\n")]
    labels = [label for label, _ in labelled]
    named = [_named(turn, labels) for turn in (begun, *said[first + 1 :])]
    label, text = labelled[named[-1]]
    steps = [f"first {labels[named[0]]}", *(f"then {labels[at]}" for at in named[1:])]
    return (*steps, f"{label}: {text}", text)


def gaps(texts: Texts, place: int, options: Options, rng: random.Random) -> Turns:
    """Words or phrases of both texts are missing, and stand elsewhere."""
    labels, k = _labels(rng), int(options["k"])
    if options["form"] != "words":
        said, missing = _without_phrases(texts, k, rng)
        lines = [f"{number} is: {phrase}" for number, phrase in missing.items()]
        rng.shuffle(lines)
        told = "A number in brackets stands for what is told of it."
        if options["form"] == "dots":
            order = ", then ".join(re.findall(r"\(\d\)", said[place])) or "nothing"
            said, told = [re.sub(r"\(\d\)", "...", text) for text in said], f"Put in {order} for the dots."
    else:
        said, missing = _without_words(texts, k, rng)
        lines = [f'"{word}" is: {meant}' for word, meant in sorted(missing.items())]
        told = "A few words stand for others."
    shown = [f"{label}: {text}" for label, text in zip(labels, said, strict=True)]
    return _laid_out([*shown, *lines], f"{told} Answer {labels[place]}.", rng)


def _without_words(texts: Texts, k: int, rng: random.Random) -> tuple[list[str], dict[str, str]]:
    """The texts with their longest words replaced, a word of both in both; and what each of those words stands for."""
    hidden = list(dict.fromkeys(word for text in sorted(texts) for word in _longest(text, k)))
    free = [word for word in WORDS if not any(word in text for text in texts)]
    codes = dict(zip(hidden, rng.sample(free, len(hidden)), strict=True))
    said = [" ".join(codes.get(word, word) for word in text.split()) for text in texts]
    return said, {code: word for word, code in codes.items()}


def _longest(text: str, k: int) -> list[str]:
    words = {word for word in text.split() if word.isalpha() and len(word) > 3}
    return sorted(words, key=lambda word: (-len(word), word))[:k]


def _without_phrases(texts: Texts, k: int, rng: random.Random) -> tuple[list[str], dict[str, str]]:
    """The texts with k phrases each replaced by a number in brackets, and the phrase of each number."""
    numbers = (f"({number})" for number in rng.sample(range(1, 10), 2 * k))
    said, missing = [], {}
    for text in texts:
        parts = cut(text.split(), 2 * k + 1)
        for at in range(1, len(parts), 2):
            number = next(numbers)
            missing[number], parts[at] = parts[at], number
        said.append(" ".join(parts))
    return said, missing


def _from_gaps(said: Sequence[str], options: Options) -> tuple[str, ...]:
    told, lines = _read(said)
    words = dict(re.findall(r'(?m)^"?(\w+|\(\d\))"? is: (.*)$', "\n".join(": ".join(line) for line in lines[2:])))
    label, text = lines[_named(told.rpartition("Answer ")[2], [label for label, _ in lines[:2]])]
    put, mark = iter(re.findall(r"\(\d\)", told)), '"' if options["form"] == "words" else ""
    found = [next(put, word) if word == "..." else word for word in text.split()]
    known = dict.fromkeys(word for word in found if word in words)
    steps = [f"{label}: {text}", *(f"{mark}{word}{mark} is: {words[word]}" for word in known)]
    return (*steps, " ".join(words.get(word, word) for word in found))


_SENTENCES: dict[str, tuple[Make, Find]] = {
    "remainder": (remainder, _from_remainder), "measures": (measures, _from_measures),
    "products": (products, _from_products), "parity": (parity, _from_parity), "numerals": (numerals, _from_numerals),
    "initials": (initials, _from_initials), "votes": (votes, _from_votes), "conditions": (conditions, _from_conditions),
    "traits": (traits, _from_traits), "meanings": (meanings, _from_meanings),
}  # fmt: skip
ATTACKS = _FAMILY.made(
    {name: of_two(_made(make)) for name, (make, _) in _SENTENCES.items()}
    | {"differences": of_two(differences), "corrections": of_two(corrections), "gaps": of_two(gaps)},
    {name: solved(_found(find)) for name, (_, find) in _SENTENCES.items()}
    | {
        "differences": solved(_from_differences),
        "corrections": solved(_from_corrections),
        "gaps": solved(_from_gaps),
    },
)
