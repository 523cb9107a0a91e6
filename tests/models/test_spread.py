"""A model that workers hold replies as one machine's does: the same texts beside the same others, each told once."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from forethought.cluster.holders import Holders
from forethought.model import load
from forethought.models.conversation import Able, Conversation, Failed, Response
from forethought.models.hidden_states import last_states
from forethought.models.spread import Spread, states_in_order
from tests.cluster.inline import inline
from tests.scripted import Scripted, as_messages
from tests.tiny import tiny_folder


def _same(held: SimpleNamespace) -> SimpleNamespace:
    return held


ASKED = [Conversation(messages=as_messages(f"say {number}")) for number in range(20)]


def said(conversation: Conversation) -> str | Failed:
    text = conversation.messages[-1].content
    return Failed(cause="too long") if text == "say 7" else text.upper()


def model(able: Able | None = None) -> tuple[Scripted, SimpleNamespace]:
    scripted = Scripted(said, able=able)
    return scripted, SimpleNamespace(respondent=scripted)


@pytest.mark.parametrize("cpus", [1, 3])
def test_replies_are_those_of_one_machine_and_each_is_told_once(cpus: int) -> None:
    scripted, held = model()
    told: dict[int, Response | Failed] = {}
    with inline(cpus):
        spread = Spread("ray", lambda: held)
        replies = spread.reply(ASKED, 9, lambda place, reply: told.update({place: reply}))
    assert replies == Scripted(said).reply(ASKED)
    assert [told[place] for place in range(len(ASKED))] == replies
    assert spread.name == "scripted"
    assert set(scripted.limits) == {9}
    assert len(scripted.calls) > cpus


def test_what_is_decoded_side_by_side_is_so_on_every_number_of_workers() -> None:
    calls = []
    for cpus in (1, 3):
        scripted, held = model(Able(together=6))
        with inline(cpus, lambda worker, step: worker == 0 and step == 2):
            spread = Spread("ray", partial(_same, held))
            assert spread.able.together == 6
            assert spread.able.beside > 1
            spread.reply(ASKED)
        calls.append({tuple(one.messages[-1].content for one in call) for call in scripted.calls})
    assert calls[0] == calls[1]
    assert sorted(map(len, calls[0])) == [2, 6, 6, 6]


def test_what_was_told_before_a_worker_was_lost_is_not_asked_again() -> None:
    scripted, held = model()
    with inline(1, lambda worker, step: worker == 0 and step == 2):
        replies = Spread("ray", lambda: held).reply(ASKED[:6])
    assert [reply.answer for reply in replies if isinstance(reply, Response)] == [f"SAY {n}" for n in range(6)]
    assert len(scripted.asked) == 6


def test_what_no_worker_answers_has_failed_with_the_cause() -> None:
    _, held = model(Able(together=20))
    with inline(1, lambda worker, step: step >= (2 if worker == 0 else 1)) as cluster:
        replies = Spread("ray", lambda: held).reply(ASKED)
    assert replies == [Failed(cause="a worker was lost: The actor died")] * len(ASKED)
    assert cluster.started == 3


def test_hidden_states_come_back_in_order_whoever_reads_them() -> None:
    local = load(tiny_folder()).local
    assert local is not None
    prompts = [local.prompt_ids(one.messages) for one in ASKED]
    chunks = [prompts[start : start + 3] for start in range(0, len(prompts), 3)]
    with inline(3, lambda worker, step: worker == 1 and step == 1):
        holders = Holders("ray", partial(_same, SimpleNamespace(local=local)))
        found = list(states_in_order(holders, chunks, [1, 2], trained=False))
    for chunk, states in zip(chunks, found, strict=True):
        for layer, read in last_states(local, chunk, [1, 2]).items():
            assert np.array_equal(states[layer], read)
