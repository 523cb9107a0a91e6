"""Redaction in any script, and texts that would steer a terminal: neither is read by its spaces."""

from __future__ import annotations

import io
from typing import Literal

import pytest

from forethought.cli.terminal import PrintableConsole
from forethought.redaction import characters, printable, redact, shown

PLAIN = "How do I bake bread with the flour of my neighbour?"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "怎么才能用邻居家的面粉烤面包然后卖给别人呢",
        "隣の家の小麦粉でパンを焼いて売る方法を教えてください",
        "Hwdbkbrdwththflrfmynghbr",
        "वह रोटी कैसे बनाई जाए जो पड़ोसी के आटे से बनती है",
        "SG93IGRvIEkgYmFrZSBicmVhZCB3aXRoIHRoZSBmbG91cg==",
        "b r e a d  a n d  f l o u r",
        "bread now",
        "烤面包",
    ],
)
def test_at_most_a_third_of_a_text_is_left_in_any_script(text: str) -> None:
    """Words between spaces were counted: Chinese and disemvowelled requests stood there whole."""
    told = redact(text)
    start, _, rest = told.partition("[")
    kept, all_of_it = len(list(characters(start.strip()))), len(list(characters(" ".join(text.split()))))
    assert kept <= min(16, all_of_it / 3)
    assert rest == f"{all_of_it - kept - (start.strip() != start[:-1])} characters redacted]" or rest.endswith(
        "redacted]"
    )
    assert text not in told


def test_a_character_is_never_cut_apart() -> None:
    family, flag = "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1eb\U0001f1f7"
    assert list(characters(f"e\u0301{family}{flag}की\U0001f44d\U0001f3fd")) == [
        "e\u0301", family, flag, "की", "\U0001f44d\U0001f3fd",
    ]  # fmt: skip


def test_what_is_short_or_empty_is_hidden_too() -> None:
    assert redact("no") == "[2 characters redacted]"
    assert redact(" \n") == ""
    assert redact(PLAIN).startswith("How do I bake")
    assert shown(PLAIN, False, False) == shown(PLAIN, True, True) == PLAIN
    assert "neighbour" not in shown(PLAIN, None, False)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07bread", "bread"),
        ("\x1b]8;;http://example.org\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;ZXZpbA==\x07", ""),
        ("a\x9b2Jb", "ab"),
        ("\x1bcreset", "reset"),
        ("over\rwritten\x08\x07", "overwritten"),
        ("user\u202egnp.exe\u2066\u200f", "usergnp.exe"),
        ("a\u200bb\ufeff", "ab"),
        ("line\r\nline\u2028line\ttab", "line\nline\nline\ttab"),
        ("می\u200cروم \U0001f468\u200d\U0001f469", "می\u200cروم \U0001f468\u200d\U0001f469"),
        ("unfinished \x1b[3", "unfinished "),
        ("unfinished \x1b]0;title", "unfinished "),
    ],
)
def test_nothing_that_steers_a_terminal_is_left(text: str, left: str) -> None:
    assert printable(text) == left


@pytest.mark.parametrize("terminal", [True, False])
def test_the_console_lets_nothing_through_wherever_it_stands(terminal: bool) -> None:
    from rich.table import Table

    out = io.StringIO()
    colours: Literal["standard"] | None = "standard" if terminal else None
    console = PrintableConsole(file=out, force_terminal=terminal, color_system=colours, width=80)
    table = Table("\x1b]0;head\x07er")
    table.add_row("cell\x1b[2J\u202e")
    console.print("plain \x1b[2J\u202etext", style="red")
    console.print(table)
    said = out.getvalue()
    assert "plain text" in said
    assert "\x1b[2J" not in said
    assert "\u202e" not in said
    assert "]0;" not in said
    assert ("\x1b[31m" in said) is terminal, "its own colours stay"
