"""The way back from each encoding: what an attack hides, a reader can find."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from forethought.attacks import encodings
from forethought.attacks.base import Options
from forethought.attacks.catalogue import all_attacks, parse_attack
from forethought.records import Message


def decoded(spec: str, text: str) -> str:
    """What stands behind a text that an attack has encoded."""
    attack = parse_attack(spec)
    steps = attack.solve((Message(role="user", content=text),))
    if steps is not None:
        return steps[-1]
    if attack.options.get("frame") == "wrapped":
        text = text.split("\n\n", 1)[1]
    return DECODERS[attack.name.partition(":")[0]](text, attack.options)


def unmorse(text: str) -> str:
    signs = {code: sign for sign, code in encodings._MORSE.items()}
    return " ".join("".join(signs.get(code, code) for code in word.split()) for word in text.split(" / "))


def half_width(text: str) -> str:
    return "".join(
        " " if sign == "\u3000" else chr(ord(sign) - 0xFEE0) if "\uff01" <= sign <= "\uff5e" else sign for sign in text
    )


def read_ascii_art(text: str) -> str:
    """The question with the drawn words put back, in lower case."""
    pictures, _, question = text.partition("\n\n")[2].rpartition("\n\nQuestion: ")
    words = [_read(picture.split("\n")[1:]) for picture in pictures.split("\n\n")]
    return re.sub(r"\[WORD (\d+)\]", lambda match: words[int(match[1]) - 1], question)


def _read(rows: list[str]) -> str:
    gap, shapes = len(encodings._GAP), encodings._shapes()
    width = max(len(row) for row in rows)
    rows = [row.ljust(width) for row in rows]
    word, place = "", 0
    while place < width:
        # The widest shape that fits: a narrow one may be the left part of a wide one.
        fitting = [
            letter
            for letter, shape in shapes.items()
            if tuple(row[place : place + len(shape[0]) + gap].rstrip() for row in rows)
            == tuple(row.rstrip() for row in shape)
        ]
        if not fitting:
            return word + "?"
        letter = max(fitting, key=lambda one: len(shapes[one][0]))
        word += letter
        place += len(shapes[letter][0]) + gap
    return word


def read_code_attack(text: str, options: Options) -> str:
    if options["structure"] == "string":
        found = re.search(r"(?m)^words = (.*)$", text)
        return str(ast.literal_eval(found[1])) if found else ""
    words = [ast.literal_eval(literal) for literal in re.findall(r"(?m)^words\.append\((.*)\)$", text)]
    return " ".join(reversed(words) if options["structure"] == "stack" else words)


def read_chameleon(text: str, options: Options) -> str:
    found = re.search(r"(?m)^problem = (.*)$", text)
    return " ".join(_ORDERS[str(options["cipher"])](ast.literal_eval(found[1]))) if found else ""


def _from_odd_even(words: list[str]) -> list[str]:
    first = (len(words) + 1) // 2
    return [words[place // 2 + (first if place % 2 else 0)] for place in range(len(words))]


def _from_tree(tree: list[Any]) -> list[str]:
    return [*_from_tree(tree[0]), tree[1], *_from_tree(tree[2])] if tree else []


_ORDERS: dict[str, Callable[[Any], list[str]]] = {
    "reverse": lambda words: words[::-1],
    "odd_even": _from_odd_even,
    "length": lambda pairs: [word for word, _ in sorted(pairs, key=lambda pair: pair[1])],
    "binary_tree": _from_tree,
}


def _latin(text: str) -> str:
    letters = {shape: letter for letter, shape in encodings._LOOKALIKES.items()}
    return "".join(letters.get(sign, sign) for sign in text)


SOLVED = frozenset(name for name, attack in all_attacks().items() if attack.solver is not None)
"""Those that bring their own way back."""
DECODERS: dict[str, Callable[[str, Options], str]] = {
    "morse": lambda text, options: unmorse(text),
    "hex": lambda text, options: bytes.fromhex(text).decode(),
    "binary": lambda text, options: bytes(int(group, 2) for group in text.split()).decode(),
    "url_encode": lambda text, options: unquote(text),
    "homoglyphs": lambda text, options: _latin(text),
    "zero_width": lambda text, options: text.translate(str.maketrans("", "", encodings._INVISIBLE)),
    "full_width": lambda text, options: half_width(text),
    "ascii_art": lambda text, options: read_ascii_art(text),
    "code_attack": read_code_attack,
    "code_chameleon": read_chameleon,
}
