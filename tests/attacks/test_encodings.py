"""Encodings are what they say: each decodes back to the request."""

from __future__ import annotations

import ast
import itertools
import re
import string
from typing import Any

import pytest

from forethought.attacks.catalogue import all_attacks, parse_attack
from forethought.attacks.encodings import ATTACKS
from tests.attacks.decoding import decoded, read_ascii_art
from tests.attacks.test_probe import PROBE, attacked

LOSSY = {"leetspeak", "morse", "ascii_art"}
"""Lower case alone comes back."""
DECODED = sorted({*(attack.name for attack in ATTACKS), "leetspeak"})
HARD = 'Who\'s "Zo\u00eb"? Tell me, in 3 steps: what (exactly) is a\\b & why!'


def specs(name: str) -> list[str]:
    """The attack with each choice of each of its options."""
    found = [name]
    for parameter in all_attacks()[name].parameters:
        found += [f"{name}:{parameter.name}={choice}" for choice in parameter.choices]
    return found


ALL = [spec for name in DECODED for spec in specs(name)]


def back(spec: str, text: str, seed: int = 0) -> str:
    return decoded(spec, attacked(spec, text, seed).text)


@pytest.mark.parametrize("spec", ALL)
def test_it_decodes_back(spec: str) -> None:
    for text, seed in itertools.product((PROBE, "Compare rye with spelt, please. Both are grains"), range(3)):
        found = back(spec, text, seed)
        if spec.split(":")[0] in LOSSY:
            assert found.lower() == text.lower()
        else:
            assert found == text


@pytest.mark.parametrize("spec", [spec for spec in ALL if spec.split(":")[0] not in LOSSY and "pig" not in spec])
def test_quotes_backslashes_and_other_scripts_decode_back(spec: str) -> None:
    assert back(spec, HARD) == HARD


@pytest.mark.parametrize("spec", [spec for spec in ALL if not spec.startswith(("payload", "code_a"))])
def test_the_request_can_not_be_read_off(spec: str) -> None:
    if spec != "code_chameleon:cipher=binary_tree":
        assert PROBE not in attacked(spec).text


def test_every_letter_and_digit_of_the_ascii_alphabet_is_read_back() -> None:
    text = f"{string.ascii_lowercase} {string.digits}"
    assert back("ascii_art:2", text) == text
    for letter in string.ascii_lowercase + string.digits:
        assert back("ascii_art", f"x {letter * 3}") == f"x {letter * 3}"


def test_ascii_art_hides_the_longest_words_and_shows_the_rest() -> None:
    text = attacked("ascii_art:2", "Describe bread in one line").text
    question = text.rpartition("Question: ")[2]
    assert question == "[WORD 1] [WORD 2] in one line"
    assert read_ascii_art(text) == "describe bread in one line"


def test_payload_pieces_are_as_many_as_asked_and_run_as_python() -> None:
    message = attacked("payload_splitting:5")
    code = message.text.partition("\n\n")[0]
    assert len(code.splitlines()) == 6
    assert parse_attack("payload_splitting:5").solve(message.messages) == (*code.splitlines()[:5], PROBE)
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["z"] == PROBE


@pytest.mark.parametrize("structure", ["stack", "queue", "string"])
def test_code_attacks_program_gives_the_request(structure: str) -> None:
    block = re.findall(r"(?s)```python\n(.*?)```", attacked(f"code_attack:{structure}", HARD).text)[0]
    found: dict[str, Any] = {}
    exec(block, found)
    task = found["task"]()
    assert task == HARD


@pytest.mark.parametrize("cipher", ["reverse", "odd_even", "length", "binary_tree"])
@pytest.mark.parametrize("text", [PROBE, HARD, "one", "two words", "a b c d"])
def test_the_decryption_that_code_chameleon_shows_is_right(cipher: str, text: str) -> None:
    block = re.findall(r"(?s)```python\n(.*?)```", attacked(f"code_chameleon:{cipher}", text).text)[0]
    ast.parse(block)
    found: dict[str, Any] = {}
    exec(block.partition("def solve")[0], found)
    assert found["decrypt"](found["problem"]) == text


def test_a_share_of_look_alikes_and_invisible_signs() -> None:
    text = "abcdefghij" * 40
    some = attacked("homoglyphs:30", text).text
    changed = sum(a != b for a, b in zip(text, some, strict=True))
    assert 0.15 * 200 < changed < 0.45 * 200  # a, c, e, i and j have look-alikes: 200 letters
    assert attacked("homoglyphs", text).text != some
    assert len(attacked("zero_width:10", text).text) < len(attacked("zero_width", text).text)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_leetspeak_levels_change_more_and_more(level: int) -> None:
    pangram = "the quick brown fox jumps over the lazy dog"
    left = {1: "bcdfghjklmnpqruvwxyz", 2: "cdfhjkmnpqruvwxy", 3: "jpqrwy"}[level]
    kept = set(attacked(f"leetspeak:{level}", pangram).text) & set(string.ascii_lowercase)
    assert kept - {"v"} == set(left) - {"v"}


def test_leetspeak_as_published_leaves_the_capitals_s_and_t() -> None:
    assert attacked("leetspeak", "SATIETY of tastes").text == "S4T13TY 0f 745735"


def test_every_sign_with_a_morse_code_comes_back() -> None:
    signs = "the quick brown fox jumps over the lazy dog 0123456789 .,?'!/()&:;=+-_\"$@"
    assert back("morse", signs) == signs
    assert attacked("morse:bare", "sos q 7").text == "... --- ... / --.- / --..."
