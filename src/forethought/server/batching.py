"""One thread that owns the weights: every request's rows are decoded side by side, and join and leave between tokens.

The defences run as they are, each request's in a thread of its own; where they ask the model, their rows come here.
So a server decides by the very code that `forethought attack` measures, and still decodes in one batch.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from forethought.chat import opening_ids
from forethought.errors import ModelError
from forethought.models.decode import Batch, Decoder, Row, VerdictTokens
from forethought.models.hidden_states import States, layers_alike, states_of
from forethought.models.known import Known
from forethought.models.local import LocalModel
from forethought.records import Message

_FEW, _PATIENCE = 0.25, 4
"""Share of the rows that run from which on so many prompts are read for their hidden states, since a pass costs the
same however little it reads; and most tokens decoded meanwhile."""
Listener = Callable[[Row | None], None]
"""Hears, in the loop's thread, of a row after each of its tokens; None once it is dropped without an end."""


class Cancelled(Exception):
    """Whoever asked has left."""


@dataclass(eq=False)
class Work:
    """One request's share of the loop: what it has running, so that all of it can be dropped."""

    left: Collection[tuple[Message, ...]] = ()
    """Conversations whose answers are streamed later; others a defence may have to read."""
    cancelled: bool = False


@dataclass(eq=False)
class _Job:
    """A row on its way through the loop."""

    row: Row
    lane: str
    work: Work
    tell: Listener


@dataclass
class _Reading:
    """Hidden states that a thread waits for."""

    prompts: Sequence[Sequence[int]]
    layers: tuple[int, ...]
    trained: bool
    answer: queue.SimpleQueue[dict[int, States] | Exception] = field(default_factory=queue.SimpleQueue)


@dataclass
class _Lane:
    """One batch, and the rows that wait for it."""

    batch: Batch
    waiting: deque[_Job] = field(default_factory=deque)
    running: dict[int, _Job] = field(default_factory=dict)
    """By the identity of the row."""


class Loop:
    """The thread. `thinker` and `answerer` are its batches, of the weights that think and those that answer; it is one
    batch where an adapter makes the difference."""

    def __init__(self, model: LocalModel) -> None:
        """Takes a model over: from here on its rows and hidden states go through this loop."""
        self._model = model
        self._inbox: queue.SimpleQueue[_Job | _Reading | None] = queue.SimpleQueue()
        self._here = threading.local()
        together = model.batch()
        self._lanes = {"answerer": _Lane(together or model.answerer.batch())}
        if together is not None:
            self._lanes["thinker"] = self._lanes["answerer"]
        elif model.thinks:
            self._lanes["thinker"] = _Lane(model.thinker.batch(model.verdict_tokens()))
        self._known = Known(opening_ids(model.tokenizer), layers_alike(model), model.answers_with_base)
        for lane in self._lanes.values():
            lane.batch.known = self._known
        self._readings: list[_Reading] = []
        self._waited = 0
        """Tokens decoded since one of them began to wait."""
        model.leaves_answers = lambda asked: model.thinks or asked.messages in self._here.work.left
        model.reads_states = self._read
        model.thinker, model.answerer = _Through(self, "thinker"), _Through(self, "answerer")
        self.failure = ""
        """Why it ended, where it ended by itself."""
        self._thread = threading.Thread(target=self._run, name="decoding", daemon=True)
        self._thread.start()

    @property
    def held(self) -> int:
        """Rows that run or wait."""
        return sum(len(lane.waiting) + len(lane.running) for lane in self._each_lane())

    def put(self, row: Row, lane: str, work: Work, tell: Listener) -> None:
        """Decodes a row, and tells of each of its tokens. `lane`: `thinker` or `answerer`."""
        if self.failure:
            raise ModelError(self._model.name, self.failure, "Restart the server")
        row.by_base = lane == "answerer" and self._model.answers_with_base
        self._inbox.put(_Job(row, lane if lane in self._lanes else "answerer", work, tell))

    def _each_lane(self) -> list[_Lane]:
        """Every one once: one batch may hold both kinds."""
        return list({id(lane): lane for lane in self._lanes.values()}.values())

    def close(self) -> None:
        """Ends the thread after the token that it is at."""
        self._inbox.put(None)
        self._thread.join(timeout=60)

    def working(self, work: Work, do: Callable[[], Any]) -> Any:
        """Runs something in this thread, all of whose rows belong to one piece of work."""
        self._here.work = work
        try:
            return do()
        finally:
            del self._here.work

    def stream(self, rows: Sequence[Row], lane: str) -> Iterator[Row]:
        """Decodes rows and gives each back as it ends, to the thread that asks. Raises Cancelled."""
        work: Work = self._here.work
        ended: queue.SimpleQueue[Row | None] = queue.SimpleQueue()

        def tell(row: Row | None) -> None:
            if row is None or row.done:
                ended.put(row)

        for row in rows:
            self.put(row, lane, work, tell)
        for _ in rows:
            done = ended.get()
            if done is None:
                raise Cancelled if work.cancelled else ModelError(self._model.name, self.failure, "Restart the server")
            yield done

    def _read(self, prompts: Sequence[Sequence[int]], layers: Sequence[int], trained: bool) -> dict[int, States]:
        if self.failure:
            raise ModelError(self._model.name, self.failure, "Restart the server")
        asked = _Reading(prompts, tuple(layers), trained)
        self._inbox.put(asked)
        found = asked.answer.get()
        if isinstance(found, Exception):
            raise found
        return found

    def _run(self) -> None:
        try:
            while self._take():
                if self._due():
                    self._answer_readings()
                for lane in self._each_lane():
                    self._advance(lane)
        except Exception as error:
            # Nothing is retried on a model that broke: whoever waits is told, and the server is not ready any more.
            self.failure = f"decoding failed ({type(error).__name__})"
        self._abandon()

    def _take(self) -> bool:
        """Takes in what came; waits where nothing runs. False at the end."""
        while True:
            try:
                came = self._inbox.get(block=not self.held and not self._readings)
            except queue.Empty:
                return True
            if came is None:
                return False
            if isinstance(came, _Reading):
                self._readings.append(came)
            else:
                self._lanes[came.lane].waiting.append(came)

    def _due(self) -> bool:
        """Whether hidden states are read now: a good number of prompts at a time, but none waits long."""
        n_running = sum(len(lane.batch.rows) for lane in self._each_lane())
        due = len(self._readings) >= _FEW * n_running or self._waited >= _PATIENCE
        self._waited = 0 if due else self._waited + bool(self._readings)
        return due

    def _answer_readings(self) -> None:
        groups: dict[tuple[tuple[int, ...], bool], list[_Reading]] = {}
        for one in self._readings:
            groups.setdefault((one.layers, one.trained), []).append(one)
        self._readings = []
        for (layers, trained), group in groups.items():
            self._answer_group(layers, trained, group)

    def _answer_group(self, layers: tuple[int, ...], trained: bool, group: Sequence[_Reading]) -> None:
        try:
            together = states_of(
                self._model, [ids for one in group for ids in one.prompts], layers, trained, self._known
            )
        except Exception as error:
            for one in group:
                one.answer.put(error)
            return
        ends = np.cumsum([len(one.prompts) for one in group])[:-1]
        parts = {layer: np.split(found, ends) for layer, found in together.items()}
        for place, one in enumerate(group):
            one.answer.put({layer: parts[layer][place] for layer in layers})

    def _advance(self, lane: _Lane) -> None:
        """One token for each row of a lane, those included that wait and find room."""
        for job in [job for job in lane.running.values() if job.work.cancelled]:
            lane.batch.leave(job.row)
            del lane.running[id(job.row)]
            job.tell(None)
        joining: list[_Job] = []
        while lane.waiting and lane.batch.has_room(lane.waiting[0].row, [job.row for job in joining]):
            job = lane.waiting.popleft()
            if job.work.cancelled:
                job.tell(None)
            else:
                joining.append(job)
        lane.running |= {id(job.row): job for job in joining}
        lane.batch.join([job.row for job in joining])
        if not lane.batch.rows:
            return
        lane.batch.step()
        for key, job in list(lane.running.items()):
            if job.row.done:
                del lane.running[key]
            job.tell(job.row)

    def _abandon(self) -> None:
        """Tells everybody who still waits that nothing comes any more."""
        self.failure = self.failure or "the server is closing"
        jobs = [job for lane in self._each_lane() for job in (*lane.waiting, *lane.running.values())]
        while not self._inbox.empty():
            came = self._inbox.get()
            if isinstance(came, _Reading):
                self._readings.append(came)
            elif came is not None:
                jobs.append(came)
        for reading in self._readings:
            reading.answer.put(ModelError(self._model.name, self.failure, "Restart the server"))
        for job in jobs:
            job.tell(None)


class _Through(Decoder):
    """Stands where a model decodes, and hands its rows to the loop."""

    def __init__(self, loop: Loop, lane: str) -> None:
        self._loop, self._lane = loop, lane

    def stream(
        self, rows: Iterator[Row], verdict: VerdictTokens | None = None, threshold: float = 0.0
    ) -> Iterator[Row]:
        asked = list(rows)
        for row in asked:
            row.threshold = threshold
        return self._loop.stream(asked, self._lane)
