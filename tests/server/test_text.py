"""Text from tokens: no thought and no part of a marker leaks, wherever a stream is split."""

from __future__ import annotations

import itertools

import httpx

from forethought.reasoning import markers
from forethought.server.app import create_app
from forethought.server.text import Characters, Until, held_back, without_thoughts
from tests.server.fuzzed import TEXTS, leaked_bytes
from tests.server.live import ScriptedEngine, live

THINK = markers("think")


def pieces(text: str, cuts: tuple[int, ...]) -> list[str]:
    ends = [0, *cuts, len(text)]
    return [text[a:b] for a, b in itertools.pairwise(ends)]


def test_no_thought_leaks_wherever_it_is_split() -> None:
    assert leaked_bytes() == 0
    for text, seen in TEXTS.items():
        assert without_thoughts(text, THINK) == seen


def test_no_thought_leaks_into_a_real_stream() -> None:
    for text, seen in TEXTS.items():
        with live(create_app(ScriptedEngine(said=text))) as url:
            asked = {"model": "scripted", "messages": [{"role": "user", "content": "hi"}], "stream": True}
            body = httpx.post(f"{url}/v1/chat/completions", json=asked).text
            assert "secret" not in body
            assert "think" not in body.replace("<thin", "", 0).replace("reasoning", "")
            whole = httpx.post(f"{url}/v1/chat/completions", json={**asked, "stream": False}).json()
            assert whole["choices"][0]["message"]["content"] == seen


def test_stop_texts_end_an_answer_wherever_they_are_split() -> None:
    text = "one two three"
    for cuts in itertools.combinations_with_replacement(range(len(text) + 1), 2):
        until = Until(("two", "ree"))
        assert "".join(until.add(piece) for piece in pieces(text, cuts)) + until.end() == "one "
        assert until.reached
    until = Until(("tower",))
    assert "".join([until.add("one tow"), until.add("ns"), until.end()]) == "one towns"
    assert held_back("ab<th", ("<think>",)) == 3


def test_characters_are_whole_and_outer_space_is_left_out() -> None:
    data = "  Grüße, 世界 🙂  ".encode()
    for size in (1, 2, 3):
        characters = Characters(lambda ids: bytes(ids).decode("utf-8", "replace"))
        said = [characters.add(list(data[at : at + size])) for at in range(0, len(data), size)]
        assert "".join([*said, characters.end()]) == "Grüße, 世界 🙂"
        assert not any("\ufffd" in one for one in said)
    long = "word " * 200
    characters = Characters(lambda ids: bytes(ids).decode("utf-8", "replace"))
    assert "".join(characters.add([one]) for one in long.encode()) == long.strip()
