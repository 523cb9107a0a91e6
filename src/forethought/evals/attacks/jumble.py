"""Letters shuffled, cased and disturbed at random: the changes of Best-of-N Jailbreaking.

Hughes et al. 2024, arXiv 2412.03556.
"""

from __future__ import annotations

import random


def augmented(text: str, sigma: float, rng: random.Random) -> str:
    """The three changes of the paper, one on the other, in its order."""
    return noised(recased(scrambled(text, sigma, rng), sigma, rng), sigma, rng)


def scrambled(text: str, sigma: float, rng: random.Random) -> str:
    """Inner letters of words longer than three shuffled, each word with probability sqrt(sigma); spaces become one."""
    return " ".join(
        _shuffled(word, rng) if len(word) > 3 and rng.random() < sigma**0.5 else word for word in text.split()
    )


def _shuffled(word: str, rng: random.Random) -> str:
    inner = list(word[1:-1])
    rng.shuffle(inner)
    return word[0] + "".join(inner) + word[-1]


def recased(text: str, sigma: float, rng: random.Random) -> str:
    """The case of each Latin letter turned with probability sqrt(sigma).

    The paper's code drops letters of other alphabets where it would turn them; here they stay.
    """
    return "".join(
        letter.swapcase() if letter.isascii() and letter.isalpha() and rng.random() < sigma**0.5 else letter
        for letter in text
    )


def noised(text: str, sigma: float, rng: random.Random) -> str:
    """Each sign replaced by its neighbour in ASCII, up or down, with probability sigma cubed; printable ones alone."""
    made = []
    for sign in text:
        code = ord(sign)
        if sign.isprintable() and rng.random() < sigma**3:
            code += rng.choice((-1, 1))
        made.append(chr(code) if 32 <= code <= 126 else sign)
    return "".join(made)
