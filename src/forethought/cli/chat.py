"""`forethought chat`: a conversation with a model."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from forethought.cli import options
from forethought.cli.policy import show_rules
from forethought.cli.terminal import console, quiet, say, waiting
from forethought.errors import ForethoughtError
from forethought.records import Message

if TYPE_CHECKING:
    from forethought.model import Model, Reply

_COMMANDS = {
    "/new": "begin a new conversation; what was said so far is forgotten",
    "/why": "how the last answer came about: thought, verdict, score against threshold, rules",
    "/policy": "the rules that the model holds requests against",
    "/help": "these commands",
    "/exit": "leave, as Ctrl-D does",
}


def chat(
    model: options.Model,
    prompt: Annotated[str | None, typer.Argument(help="What to ask. Left out: a conversation, a turn a line.")] = None,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Log-odds from which to refuse, instead of the model's.")
    ] = None,
    max_tokens: options.MaxTokens = 200,
    json_output: options.Json = False,
    defence: options.Defence = None,
) -> None:
    """Talks with a model, and shows its reasoning, the rules it names, its verdict and its answer.

    The model sees the whole conversation, its thought too. Nothing of it is kept when you leave.

    Examples:

      forethought chat runs/quickstart "How do I get into a house without a key?"

      forethought chat runs/quickstart --defence none

      forethought chat model.gguf --system "You are a librarian."
    """
    try:
        with waiting(f"Loading {model}"):
            opened = _opened(model, defence)
        session = Session(opened, max_tokens, system, threshold, json_output)
        if prompt is not None:
            session.ask(prompt)
            return
        for line in _typed():
            if not session.take(line):
                return
    except KeyboardInterrupt:
        say("Left. Nothing of the conversation is kept.", "dim")
        raise typer.Exit(130) from None


def _opened(model: str, defence: str | None) -> Model:
    """The model. What is imported for it stays: looking through it for garbage, again and again, took a second."""
    gc.disable()
    try:
        quiet()
        from forethought.model import load

        return load(model, defence=defence)
    finally:
        gc.freeze()
        gc.enable()


def _typed() -> Iterator[str]:
    """Lines until the end of input; those of a terminal can be edited, and called up again with the arrow keys."""
    by_hand = sys.stdin.isatty()
    if by_hand:
        with suppress(ImportError):  # it is not everywhere, and only makes typing easier
            import readline  # noqa: F401
        say("Type a message, or /help. Ctrl-D or /exit leaves, Ctrl-C stops an answer.", "dim")
    while True:
        try:
            yield input("> " if by_hand else "")
        except EOFError:
            if by_hand:
                say("")
            return


class Session:
    """A conversation at the terminal: what was said, and what is done about a line."""

    def __init__(
        self, model: Model, max_tokens: int, system: str | None, threshold: float | None, json_output: bool = False
    ) -> None:
        self.turns: tuple[Message, ...] = ()
        """What was said so far, answers without their thoughts."""
        self.last: Reply | None = None
        """The last reply; None in a new conversation."""
        self._model, self._max_tokens, self._system = model, max_tokens, system
        self._threshold, self._json = threshold, json_output

    def take(self, line: str) -> bool:
        """Does what a line says, and tells whether to go on. A line that begins with `/` is a command.

        What can't be answered is said and not remembered; so is a turn that is interrupted.
        """
        if not line.strip():
            return True
        if line.startswith("/"):
            return self._command(line.strip())
        try:
            self.ask(line)
        except ForethoughtError as error:
            say(str(error), "red")
            say("Not remembered. The conversation goes on; /new begins a new one.", "dim")
        except KeyboardInterrupt:
            say("\nStopped. This turn is not remembered; the conversation goes on.", "dim")
        return True

    def ask(self, text: str) -> None:
        """A turn: the question and its reply, shown and remembered. Raises ForethoughtError without a reply."""
        asked = (*self.turns, Message(role="user", content=text))
        if self._json:
            reply = self._model.reply(asked, self._max_tokens, self._system, self._threshold)
            print(reply.model_dump_json())
        else:
            reply = self._shown(asked)
        self.turns = (*asked, Message(role="assistant", content=reply.answer))
        self.last = reply

    def _shown(self, asked: tuple[Message, ...]) -> Reply:
        """The reply, shown as it is written."""
        written = self._model.stream(asked, self._max_tokens, self._system, self._threshold)
        with waiting("Thinking"):
            reply = next(written)
        _show_decided(reply)
        console.out(reply.answer, end="", highlight=False)
        for grown in written:
            console.out(grown.answer[len(reply.answer) :], end="", highlight=False)
            reply = grown
        say("")
        if reply.cut:
            say(f"... cut at {self._max_tokens} tokens: more with --max-tokens", "dim")
        return reply

    def _command(self, command: str) -> bool:
        if command in ("/exit", "/quit"):
            return False
        if command == "/new":
            self.turns, self.last = (), None
            say("A new conversation.", "dim")
        elif command == "/why":
            self._why()
        elif command == "/policy":
            show_rules(self._model.policy)
        else:
            if command != "/help":
                say(f"There is no command {command}. A message that begins with / needs a space before it.", "red")
            for name, does in _COMMANDS.items():
                say(f"{name:8} {does}")
        return True

    def _why(self) -> None:
        """How the last reply came about."""
        reply = self.last
        if reply is None:
            say("Nothing was answered yet in this conversation.")
            return
        score = ""
        if reply.probability is not None and reply.threshold is not None:
            side = "at or above" if reply.probability >= reply.threshold else "below"
            score = f"{reply.probability:.3f}, {side} the threshold of {reply.threshold:.3f} from which it refuses"
        rules = "; ".join(f"{one.id} {one.title}: {self._model.policy.rule(one.id).description}" for one in reply.rules)
        for name, said in (
            ("thought", reply.thought or "none"),
            ("intent", reply.intent),
            ("rules", rules or "none broken, as it finds"),
            ("score", score or "none"),
            ("verdict", reply.verdict or "none"),
            ("note", reply.cause),
            ("defence", self._model.defence or "none"),
        ):
            if said:
                say(f"{name}: {said}")


def _show_decided(reply: Reply) -> None:
    """The thought, the rules, and the verdict with its probability."""
    if reply.thought:
        say(reply.thought, "dim")
    for rule in reply.rules:
        say(f"{rule.id} {rule.title}", "yellow")
    if reply.verdict is not None:
        odds = "" if reply.probability is None else f", probability of refusing {reply.probability:.2f}"
        odds += "" if reply.threshold is None or not odds else f" (refuses from {reply.threshold:.2f})"
        console.print(f"[bold]{reply.verdict}[/bold]{odds}", highlight=False)
    if reply.cause:
        say(reply.cause, "red")
