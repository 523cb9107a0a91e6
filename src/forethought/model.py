"""A model as its user names it: a run, an adapter, a plain folder, a GGUF file, a hub name or a server.

`load` opens any of them; `Model` replies. A run folder says in `model.json` what its best defence is.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from forethought.errors import ConfigError, InputError, ModelError
from forethought.manifest import write_json
from forethought.models.names import LOCAL, is_served
from forethought.reasoning import Decision
from forethought.records import Message, Record, read_record

if TYPE_CHECKING:
    from forethought.measure.traffic import Traffic
    from forethought.models.conversation import Conversation, Failed, Respondent, Response
    from forethought.models.local import LocalModel
    from forethought.models.settings import Settings
    from forethought.models.weights import DType
    from forethought.policy import Policy

MODEL_FILE = "model.json"
"""In a run folder: what it is as a model."""
_RUN = "{run}"
"""In a run's defence: its folder, wherever it was moved to."""
NO_DEFENCE = "none"
_HALF = "\ufffd"
"""What a text ends with whose last character has more bytes to come."""

Chat = str | Sequence[Message | Mapping[str, str]]
"""One user turn, or a conversation of turns with `role` and `content`."""


class RunModel(Record):
    """What a run folder is as a model."""

    base: str
    """Name or folder of the model that was trained."""
    weights: str
    """Folder of the trained weights, below the run's."""
    defence: str = ""
    """Its best defence at inference, as `docs/defences.md` writes it; empty is the trained model by itself."""


class RuleNamed(Record):
    """A rule that a request violates."""

    id: str
    title: str


class Tokens(Record):
    """Tokens of one reply."""

    prompt: int
    thought: int
    answer: int


class Reply(Record):
    """What a model says to a conversation, and how it came to that."""

    answer: str
    verdict: Decision | None
    """`refuse` or `comply`, as it was acted on; None for a model that gives no verdict."""
    probability: float | None
    """Of refusing, by the score that decides, 0 to 1; None where there is none. It is held against `threshold`."""
    threshold: float | None
    """The probability from which it refuses; None where there is none."""
    intent: str
    """What is really asked, in the model's words; empty where it states none."""
    rules: tuple[RuleNamed, ...]
    """The rules that it finds violated."""
    cause: str
    """Why the thought could not be read, or what decided in its place; empty where nothing is to be said."""
    thought: str
    """The thought as it was written."""
    tokens: Tokens
    cut: bool = False
    """Whether the answer ends because it had no more tokens."""


class Model:
    """A model, local or a server's, with the defence around it. `load` makes one.

    Calls may come from several threads: they are answered one after another.
    """

    def __init__(
        self,
        where: str,
        respondent: Respondent,
        local: LocalModel | None = None,
        folder: Path | None = None,
        defence: str = "",
        paid: bool = False,
        settings: Settings | None = None,
        on: str | None = None,
    ) -> None:
        self.where = where
        """As its user named it."""
        self.defence = defence
        """What stands around it, as `docs/defences.md` writes it; empty is nothing."""
        self.respondent = respondent
        """What attacks, judges and comparisons put conversations to."""
        self.local = local
        """The weights, where they are loaded here."""
        self.paid = paid
        """Whether asking it may cost money."""
        self.on = on
        """The cluster whose workers hold it, as `--on` has it; None is this process, or a server alone."""
        self.opened: Callable[[], Model] | None = None
        """Opens it once more, in another process; None where it was not opened by name."""
        self._folder, self._settings = folder, settings
        self._one_at_a_time = threading.Lock()

    @property
    def name(self) -> str:
        """As reports call it."""
        return self.respondent.name

    @property
    def settings(self) -> Settings | None:
        """What stands beside a model that we trained."""
        return self.local.settings if self.local is not None else self._settings

    def close(self) -> None:
        """Lets go of what holds it beyond this process: workers of a cluster. The next reply starts some anew."""
        from forethought.models.spread import Spread

        if isinstance(self.respondent, Spread):
            self.respondent.close()

    @property
    def policy(self) -> Policy:
        """The rules that it was trained on, else the default ones."""
        from forethought.policy import default_policy

        return self.settings.policy if self.settings is not None else default_policy()

    @property
    def traffic(self) -> Traffic | None:
        """What the threshold that decides was set on; None where that was not kept. Raises InputError for a damaged
        file."""
        from forethought.defences.base import Wrapper
        from forethought.measure.traffic import load_traffic

        at = self.respondent
        while isinstance(at, Wrapper):
            if folder := getattr(at.options, "folder", ""):
                return load_traffic(Path(folder))
            at = at.inner
        return load_traffic(trained_folder(self.where)) if self.local is self.respondent else None

    @property
    def files(self) -> tuple[tuple[str, int, int], ...]:
        """Names, sizes and times of its files: a model that was trained again is another one."""
        folder = self._folder
        files = sorted(folder.glob("*")) if folder is not None and folder.is_dir() else []
        stats = [(file.name, file.stat()) for file in files if file.is_file()]
        return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)

    @property
    def threshold(self) -> float | None:
        """The score from which it refuses: that of the outermost defence with one, else the log-odds (natural
        logarithm) of its own verdict; None where nothing is scored."""
        found: float | None = getattr(self.respondent, "refuses_from", None)
        return found

    def reply(
        self, messages: Chat, max_tokens: int = 256, system: str | None = None, threshold: float | None = None
    ) -> Reply:
        """The reply to one conversation.

        `max_tokens` limits the answer, not the thought. `threshold`: log-odds from which the verdict refuses, in place
        of the model's own. Raises ModelError where it gives none, ConfigError for a threshold that it can't take.
        """
        asked = [_conversation(messages, system)]
        with self._one_at_a_time:
            (found,) = self._ask(asked, max_tokens, threshold, None)
        return self._said(found, max_tokens, threshold)

    def reply_all(
        self,
        conversations: Sequence[Chat],
        max_tokens: int = 256,
        system: str | None = None,
        threshold: float | None = None,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Reply | Failed]:
        """One reply a conversation, in order, in one batch; `Failed` holds the cause where there is none.

        `on_done(n)`: n more are there.
        """
        from forethought.models.conversation import Failed

        asked = [_conversation(one, system) for one in conversations]
        with self._one_at_a_time:
            found = self._ask(asked, max_tokens, threshold, on_done)
        return [one if isinstance(one, Failed) else self._read(one, max_tokens, threshold) for one in found]

    def stream(
        self, messages: Chat, max_tokens: int = 256, system: str | None = None, threshold: float | None = None
    ) -> Iterator[Reply]:
        """The reply as far as it is written, again and again: what is decided first, with an empty answer, the whole
        one last.

        It comes at once as a whole where a server holds the model, or its defence reads the answer before it decides:
        nothing is given out that could be taken back. Raises as `reply`.
        """
        from forethought.models.conversation import Unanswered

        local = self.local
        if local is None or not self._decides_first(local):
            yield self.reply(messages, max_tokens, system, threshold)
            return
        with self._one_at_a_time:
            local.leaves_answers = lambda conversation: True
            try:
                (found,) = self._ask([_conversation(messages, system)], max_tokens, threshold, None)
            finally:
                local.leaves_answers = lambda conversation: False
            reply = self._said(found, max_tokens, threshold)
            yield reply
            if not isinstance(found, Unanswered) or found.answer:
                return
            for row in local.written(found, max_tokens):
                text, cut = local.text(row.made), row.done and row.made[-1] not in local.ends
                if row.done or (text != reply.answer and not text.endswith(_HALF)):
                    tokens = reply.tokens.model_copy(update={"answer": len(row.made)})
                    reply = reply.model_copy(update={"answer": text, "tokens": tokens, "cut": cut})
                    yield reply

    async def areply(self, messages: Chat, max_tokens: int = 256, system: str | None = None) -> Reply:
        """`reply` without blocking the event loop."""
        return await asyncio.to_thread(self.reply, messages, max_tokens, system)

    def _decides_first(self, local: LocalModel) -> bool:
        """Whether what is decided rests on no answer."""
        return self.respondent is local or (local.thinks and getattr(self.respondent, "decides_first", False))

    def _said(self, found: Response | Failed, max_tokens: int, threshold: float | None) -> Reply:
        """A response as a reply. Raises ModelError where there is none."""
        from forethought.models.conversation import Failed

        if isinstance(found, Failed):
            raise ModelError(self.name, f"gave no answer ({found.cause})", "Ask something else, or check the model")
        return self._read(found, max_tokens, threshold)

    def _read(self, found: Response, max_tokens: int, threshold: float | None) -> Reply:
        limit = threshold if threshold is not None else self.threshold
        return Reply(
            answer=found.answer,
            verdict=found.decision,
            probability=None if found.log_odds is None else share(found.log_odds),
            threshold=None if limit is None else share(limit),
            intent=found.reasoning.intent if found.reasoning is not None else "",
            rules=tuple(RuleNamed(id=one, title=self.policy.rule(one).title) for one in found.rules_named),
            cause=found.cause,
            thought=found.reasoning_text,
            tokens=Tokens(prompt=found.prompt_tokens, thought=found.reasoning_tokens, answer=found.answer_tokens),
            cut=found.answer_tokens >= max_tokens > 0,
        )

    def _ask(
        self,
        asked: Sequence[Conversation],
        max_tokens: int,
        threshold: float | None,
        on_done: Callable[[int], None] | None,
    ) -> list[Response | Failed]:
        def told(place: int, reply: Response | Failed) -> None:
            if on_done is not None:
                on_done(1)

        if threshold is None:
            return self.respondent.reply(asked, max_tokens, told)
        if self.local is None or self.respondent is not self.local or not self.local.thinks:
            raise ConfigError(
                f"threshold {threshold:g}", "is the verdict's; this model decides otherwise", "Leave it out"
            )
        return self.local.reply(asked, max_tokens, told, threshold)


def load(
    where: str | Path,
    *,
    adapter: str | Path | None = None,
    defence: str | None = None,
    base_url: str | Sequence[str] = (),
    takes_prefill: bool = False,
    batch_size: int = 128,
    dtype: DType = "auto",
    mixed: bool = False,
    on: str | None = None,
) -> Model:
    """Opens a model.

    `where` is a run folder, a trained folder (adapter or all weights), a plain model folder, a `.gguf` file, a hub
    name, `embedded`, the address of an OpenAI-compatible server (`http://HOST:PORT/v1#MODEL`), or PROVIDER/MODEL as
    inspect-ai names it, behind `base_url` where one is given. `adapter` is put on it. `defence` None is a run's own
    best one; `none` leaves that out; others are written as in `docs/defences.md`. `takes_prefill`: the server goes on
    in an assistant turn. `mixed`: as `LocalModel.load`, for many requests at once. `on` has workers of a Ray cluster
    hold it (docs/scale.md): nothing is loaded here. Raises ModelError where it can't be opened, ConfigError for options
    that don't fit it.
    """
    again = partial(
        load, where, adapter=adapter, defence=defence, base_url=base_url, takes_prefill=takes_prefill,
        batch_size=batch_size, dtype=dtype, mixed=mixed,
    )  # fmt: skip
    name, urls = _addressed(str(where), base_url)
    served = adapter is None and is_served(name, urls)
    if not served and (urls or takes_prefill):
        raise ConfigError("base_url" if urls else "takes_prefill", "is for models of a server", "Name PROVIDER/MODEL")
    around = "" if defence == NO_DEFENCE else defence
    if on is not None:
        model = _spread(again, on, max(len(urls), 1) if served else None)
    elif served:
        model = _served(name, urls, around or "", takes_prefill)
    else:
        held = Path(adapter) if adapter else None
        model = _local(name.removeprefix(LOCAL), held, around, batch_size, dtype, mixed)
    model.opened = again
    return model


def _addressed(where: str, base_url: str | Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """(name of the model, addresses of its servers). Raises ModelError for an address that names none."""
    if not where.startswith(("http://", "https://")):
        return where, (base_url,) if isinstance(base_url, str) else tuple(base_url)
    address, _, model = where.partition("#")
    if not model:
        raise ModelError(where, "names no model of the server", "Write http://HOST:PORT/v1#MODEL")
    return f"openai-api/server/{model}", (address,)


def _served(name: str, urls: Sequence[str], defence: str, takes_prefill: bool) -> Model:
    from forethought.models.servers import Servers, ServerSettings

    servers = Servers(name, urls, ServerSettings(prefill=takes_prefill))
    return Model(name, _around(defence, servers, None), defence=defence, paid=not urls)


def _spread(opened: partial[Model], on: str, servers: int | None) -> Model:
    """A model that workers of a cluster hold: as many as fit, or one for each of its servers, without a GPU."""
    from forethought.models.spread import Spread

    respondent = Spread(on, opened, servers, None if servers is None else 0.0)
    about = respondent.workers.one(_about)
    return Model(**about, respondent=respondent, on=on)


def _about(held: Model, _: None, say: Callable[[Any], None]) -> None:
    """In a worker: what is known of a model beside its weights."""
    say(
        {
            "where": held.where, "defence": held.defence, "paid": held.paid, "settings": held.settings,
            "folder": held._folder,
        }
    )  # fmt: skip


def load_local(where: str | Path, batch_size: int = 128, dtype: DType = "auto") -> LocalModel:
    """The weights of a model, without its defence, for what reads them. Raises ModelError for a server's model."""
    local = None if is_served(str(where)) else load(where, defence=NO_DEFENCE, batch_size=batch_size, dtype=dtype).local
    if local is None:
        raise ModelError(where, "is a server's model, whose weights can't be read", "Give a model on this machine")
    return local


def trained_folder(where: str | Path) -> Path:
    """The folder of a run's trained weights, or of a trained model as it is named."""
    folder = Path(where)
    run = run_model(folder) if folder.is_dir() else None
    return folder / run.weights if run is not None else folder


def run_model(folder: Path) -> RunModel | None:
    """What a run folder is as a model; None for a folder that is no run. Raises InputError for a damaged file."""
    file = folder / MODEL_FILE
    return read_record(file, RunModel, "Run the command that made the folder again") if file.is_file() else None


def write_run_model(folder: Path, base: str, weights: Path, defence: str) -> None:
    """Says in a run folder what it is as a model; `defence` may name folders below it."""
    held = RunModel(base=base, weights=str(weights.relative_to(folder)), defence=defence.replace(str(folder), _RUN))
    write_json(folder / MODEL_FILE, held.model_dump(mode="json"))


def behind(where: str | Path, local: LocalModel, defence: str | None = None) -> Model:
    """A model whose weights are loaded, or are at a server, behind its run's own best defence or the one named."""
    folder = Path(where)
    run = run_model(folder) if folder.is_dir() else None
    own = run.defence.replace(_RUN, str(folder)) if run is not None else ""
    chosen = own if defence is None else defence
    settings = local.settings
    if own and chosen == own and settings is not None and not settings.thinks and settings.answer_with == "base":
        local.leave_to_base()
    if run is not None:
        local.name = folder.resolve().name
    return Model(str(where), _around(chosen, local, local), local, trained_folder(where), chosen)


def _local(name: str, adapter: Path | None, defence: str | None, batch_size: int, dtype: DType, mixed: bool) -> Model:
    from forethought.models.local import LocalModel

    folder = Path(name)
    run = run_model(folder) if folder.is_dir() else None
    if run is None:
        known = ("config.json", "adapter_config.json", "forethought.json")
        if folder.is_dir() and not any((folder / file).is_file() for file in known):
            raise ModelError(folder, "holds no model", "Give a run, a trained folder, a model folder or a .gguf file")
        local = LocalModel.load(name, adapter, dtype, batch_size, mixed)
        where = name if adapter is None else f"{name} {adapter}"
        return Model(where, _around(defence or "", local, local), local, adapter or folder, defence or "")
    return behind(name, LocalModel.load(run.base, folder / run.weights, dtype, batch_size, mixed), defence)


def _around(spec: str, respondent: Respondent, local: LocalModel | None) -> Respondent:
    """The model behind a defence; `local` holds weights that it may read."""
    if not spec:
        return respondent
    from forethought.data.shipped import shipped_requests
    from forethought.defences.base import Means
    from forethought.defences.catalogue import make_defence
    from forethought.policy import default_policy

    policy = local.settings.policy if local is not None and local.settings is not None else default_policy()
    return make_defence(spec, respondent, Means(policy, local, shipped_requests("calibration")))


def _conversation(chat: Chat, system: str | None) -> Conversation:
    from forethought.models.conversation import Conversation

    turns: list[Message] = [Message(role="system", content=system)] if system else []
    for turn in [Message(role="user", content=chat)] if isinstance(chat, str) else chat:
        try:
            turns.append(turn if isinstance(turn, Message) else Message.model_validate(dict(turn)))
        except ValidationError as error:
            raise InputError(dict(turn), error.errors()[0]["msg"], "A turn has a role and a content") from None
    return Conversation(messages=tuple(turns))


def share(log_odds: float) -> float:
    """Log-odds as a probability, without overflow."""
    if log_odds >= 0:
        return 1 / (1 + math.exp(-log_odds))
    return math.exp(log_odds) / (1 + math.exp(log_odds))
