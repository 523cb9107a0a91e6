"""`forethought chat`: a conversation through its session, and as somebody types it at a terminal."""

from __future__ import annotations

import itertools
import os
import pty
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forethought.cli.chat import Session
from forethought.errors import ModelError
from forethought.model import Model, Reply, load
from forethought.models.conversation import Conversation
from forethought.records import Message
from tests.scripted import Scripted, as_messages
from tests.tiny import tiny_adapter, tiny_folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_adapter(tmp_path_factory.mktemp("chat"), think_budget=6)


@pytest.fixture(scope="module")
def thinker(adapter: Path) -> Model:
    return load(adapter, dtype="float32")


def _session(model: Model, max_tokens: int = 5, threshold: float | None = None) -> Session:
    return Session(model, max_tokens, None, threshold)


def test_a_turn_is_put_to_the_model_behind_all_before_it() -> None:
    scripted = Scripted(lambda conversation: f"That is turn {len(conversation.messages)}")
    session = _session(Model("m", scripted))
    assert session.take("My favourite colour is green")
    assert session.take("What is my favourite colour?")
    assert scripted.asked[-1].messages == (
        Message(role="user", content="My favourite colour is green"),
        Message(role="assistant", content="That is turn 1"),
        Message(role="user", content="What is my favourite colour?"),
    )
    assert session.take("/new")
    session.take("Hello")
    assert scripted.asked[-1].messages == as_messages("Hello")


def test_the_thought_sees_the_conversation(thinker: Model) -> None:
    session = _session(thinker)
    session.take("My favourite colour is green")
    session.take("What is it?")
    assert session.last is not None
    assert session.last == thinker.reply(session.turns[:-1], 5)
    assert session.last.tokens.prompt > thinker.reply("What is it?", 5).tokens.prompt


def test_commands(thinker: Model, capsys: pytest.CaptureFixture[str]) -> None:
    session = _session(thinker, threshold=-1e9)
    session.take("/why")
    assert "Nothing was answered yet" in capsys.readouterr().out
    session.take("Hello")
    capsys.readouterr()
    session.take("/why")
    told = capsys.readouterr().out
    for part in ("thought: ", "at or above the threshold of 0.000 from which it refuses", "verdict: refuse"):
        assert part in told
    session.take("/policy")
    assert "R1" in capsys.readouterr().out
    session.take("/help")
    told = capsys.readouterr().out
    assert all(name in told for name in ("/new", "/why", "/policy", "/exit"))
    assert session.take("/nothing")
    assert "no command /nothing" in capsys.readouterr().out
    assert len(session.turns) == 2
    session.take(" /nothing")
    assert session.turns[-2].content == " /nothing"
    assert not session.take("/exit")


def test_a_line_that_is_too_long_is_told_and_forgotten(thinker: Model, capsys: pytest.CaptureFixture[str]) -> None:
    session = _session(thinker)
    session.take("Hello")
    before = session.turns
    assert session.take("word " * 2200)
    told = capsys.readouterr().out
    assert "longer than the model's context" in told
    assert "Not remembered" in told
    assert session.turns == before
    session.take("Hello again")
    assert len(session.turns) == 4


def test_an_answer_that_has_no_more_tokens_is_marked(thinker: Model, capsys: pytest.CaptureFixture[str]) -> None:
    _session(thinker, 3, threshold=1e9).take("Hello")
    assert "cut at 3 tokens: more with --max-tokens" in capsys.readouterr().out


def test_an_interrupted_answer_is_forgotten(thinker: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    session = _session(thinker)

    def interrupted(*args: object) -> Reply:
        raise KeyboardInterrupt

    monkeypatch.setattr(thinker, "stream", interrupted)
    assert session.take("Hello")
    assert session.turns == ()


def test_what_a_terminal_would_obey_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    _session(Model("m", Scripted(lambda conversation: "\x1b[2Jred\x07 [bold]text[/bold]\n"))).take("Hello")
    shown = capsys.readouterr().out
    assert "red [bold]text[/bold]" in shown
    assert not {"\x1b", "\x07"} & set(shown)


class _Typist:
    """Somebody at a terminal: types, and reads what appears."""

    def __init__(self, *command: object) -> None:
        self.screen = ""
        self.process, self._terminal = pty.fork()
        if self.process == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests that a shell runs in its background ignore it
            os.environ |= {"TERM": "xterm", "COLUMNS": "80", "OMP_NUM_THREADS": "1"}
            os.execv(sys.executable, [sys.executable, "-m", "forethought", *map(str, command)])

    def sees(self, text: str, within_s: float = 120) -> str:
        """Reads until a text appears; returns what stands before it, and forgets that."""
        until = time.monotonic() + within_s
        while text not in self.screen:
            ready, _, _ = select.select([self._terminal], [], [], max(until - time.monotonic(), 0))
            assert ready, f"'{text}' did not appear: {self.screen[-2000:]!r}"
            self.screen += os.read(self._terminal, 65536).decode("utf-8", "replace")
        before, _, self.screen = self.screen.partition(text)
        return before

    def sees_on(self) -> None:
        """Reads until anything more appears."""
        while not self.screen.strip():
            self.screen += os.read(self._terminal, 65536).decode("utf-8", "replace")

    def types(self, line: str, end: str = "\n") -> None:
        os.write(self._terminal, f"{line}{end}".encode())

    def interrupts(self) -> None:
        os.kill(self.process, signal.SIGINT)

    def exit_code(self) -> int:
        code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        self.process = 0
        return code

    def leaves(self) -> None:
        """Ends what still runs: it would take time from the tests behind it."""
        if self.process:
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)


@pytest.fixture
def typist() -> Iterator[Callable[..., _Typist]]:
    """Somebody who starts a command at a terminal, and leaves none behind."""
    started: list[_Typist] = []

    def start(*command: object) -> _Typist:
        started.append(_Typist(*command))
        return started[-1]

    yield start
    for one in started:
        one.leaves()


@pytest.mark.slow
def test_a_conversation_at_a_terminal(adapter: Path, typist: Callable[..., _Typist]) -> None:
    somebody = typist("chat", adapter, "--max-tokens", 4)
    somebody.sees("Loading")
    somebody.sees("Ctrl-D or /exit leaves")
    somebody.sees("> ")
    somebody.types("My favourite colour is green")
    somebody.sees("probability of refusing")
    somebody.sees("> ")
    somebody.types("word " * 2200)
    somebody.sees("longer than the model's context")
    somebody.sees("> ")
    somebody.types("/why")
    somebody.sees("verdict: ")
    somebody.sees("> ")
    somebody.types("", end="\x04")
    assert somebody.exit_code() == 0


@pytest.mark.slow
def test_an_interrupt_stops_an_answer_and_then_the_conversation(typist: Callable[..., _Typist]) -> None:
    somebody = typist("chat", tiny_folder(), "--max-tokens", 100000)
    somebody.sees("> ")
    # Python drops one that comes while it is in a finalizer, and on a busy machine one comes too late: then the answer
    # is written to its end.
    for _ in range(15):
        somebody.types("Hello")
        somebody.sees("Hello\r\n")
        somebody.sees_on()  # at once: the tiny model ends its answer within seconds
        somebody.interrupts()
        stopped = "the conversation goes on" in somebody.sees("> ")
        if stopped:
            break
        somebody.types("/new")
        somebody.sees("A new conversation.")
        somebody.sees("> ")
    assert stopped
    time.sleep(1)  # nobody is as quick as to interrupt while the prompt is being drawn
    somebody.interrupts()
    somebody.sees("Nothing of the conversation is kept")
    assert somebody.exit_code() == 130


def test_a_reply_is_streamed_as_it_is_written(thinker: Model) -> None:
    for threshold in (-1e9, 1e9):
        written = list(thinker.stream("Hello", 6, threshold=threshold))
        whole = thinker.reply("Hello", 6, threshold=threshold)
        assert written[-1] == whole
        assert (written[0].thought, written[0].verdict) == (whole.thought, whole.verdict)
        for before, after in itertools.pairwise(written):
            assert after.answer.startswith(before.answer)
    assert len(written) > 2


def test_nothing_is_streamed_that_a_defence_may_take_back(adapter: Path) -> None:
    """A defence that reads the answer has it first; one that reads the request alone lets it be streamed."""
    plain = load(tiny_folder(), dtype="float32")
    assert len(list(plain.stream("Hello", 6))) > 2
    for defence, streamed in (("self_examination", False), ("self_reminder", True), ("unforged", True)):
        model = load(adapter, defence=defence, dtype="float32")
        written = list(model.stream("Hello", 6))
        assert (len(written) > 1) == (streamed and written[-1].verdict == "comply")
        assert written[-1] == model.reply("Hello", 6)


def test_a_conversation_that_has_no_reply_is_no_stream(thinker: Model) -> None:
    with pytest.raises(ModelError, match="longer than the model's context"):
        list(thinker.stream("word " * 2200, 3))
    assert thinker.reply("Hello", 3).answer is not None
    assert thinker.local is not None
    assert not thinker.local.leaves_answers(Conversation(messages=(Message(role="user", content="Hello"),)))
    assert thinker.local.reply([Conversation(messages=as_messages("Hello"))], 3)
