"""A plan put to a model: each conversation once, whatever is killed, breaks down or is run twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from forethought.attempts.ask import run_suite
from forethought.attempts.records import NOT_ASKED, Replies
from forethought.errors import ConfigError, InputError, ModelError, StageError
from forethought.models.conversation import Able, Conversation, Failed, OnReply, Response
from tests.attempts.suite_plans import HARMFUL, answer, plan, rows
from tests.child import code
from tests.scripted import Scripted

ROOT = Path(__file__).resolve().parents[2]


def lines(folder: Path, name: str = "replies.jsonl") -> list[str]:
    return [json.loads(line)["id"] for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def test_attempts_of_all_attacks_are_one_batch(tmp_path: Path) -> None:
    plan(tmp_path, "style_json", "leetspeak")
    model, told = Scripted(answer), list[int]()
    counts = run_suite(tmp_path, model, 17, told.append)
    assert len(model.calls) == 1
    assert (counts.answered, counts.failed) == (24, 0)
    assert model.limits == [17]
    assert sum(told) == 24
    assert Counter(lines(tmp_path)) == {row.asked: 1 for row in rows(tmp_path)}


def test_windows_hold_so_many_and_no_conversation_is_asked_twice(tmp_path: Path) -> None:
    plan(tmp_path, "style_json", harmful=[*HARMFUL, *HARMFUL], harmless=HARMFUL)
    model, told = Scripted(answer), list[int]()
    counts = run_suite(tmp_path, model, on_progress=told.append, window=3)
    assert [len(call) for call in model.calls] == [3, 3, 2]
    assert counts.answered == 8
    assert sum(told) == 16
    again = Scripted(answer)
    assert run_suite(tmp_path, again, on_progress=told.append).reused == 8
    assert again.calls == []
    assert sum(told) == 32


class _Killed(Exception):
    pass


def _dies_after(n: int, beside: int = 1) -> Scripted:
    """Decodes three side by side, so many groups at once, and is killed after so many replies."""
    said = 0

    def reply(conversation: Conversation) -> str:
        nonlocal said
        said += 1
        if said > n:
            raise _Killed
        return answer(conversation)

    return Scripted(reply, able=SIDE_BY_SIDE.model_copy(update={"beside": beside}))


SIDE_BY_SIDE = Able(prefill=True, together=3)


@pytest.mark.parametrize("n", [0, 1, 2, 4, 5, 7])
def test_what_is_decoded_side_by_side_is_so_again_after_a_kill(tmp_path: Path, n: int) -> None:
    """Batches of other rows moved 6 of 44 log-odds by up to 0.125, and two areas with them."""
    whole, killed, folder = tmp_path / "whole", _dies_after(n), tmp_path / "killed"
    for one in (whole, folder):
        plan(one, "style_json", harmful=HARMFUL, harmless=[])
    in_one = Scripted(answer, able=SIDE_BY_SIDE)
    run_suite(whole, in_one)
    with pytest.raises(_Killed):
        run_suite(folder, killed)
    rest, told = Scripted(answer, able=SIDE_BY_SIDE), list[int]()
    counts = run_suite(folder, rest, on_progress=told.append)
    assert [*killed.calls[:-1], *rest.calls] == in_one.calls
    assert (counts.reused, counts.answered, sum(told)) == (n, 8 - n, len(rows(folder)))
    assert Counter(lines(folder)) == {row.asked: 1 for row in rows(folder)}
    again = Scripted(answer, able=SIDE_BY_SIDE)
    run_suite(folder, again)
    assert again.calls == []


@pytest.mark.parametrize("n", [1, 4, 5, 7])
def test_of_many_groups_asked_for_at_once_those_are_asked_again_that_are_not_whole(tmp_path: Path, n: int) -> None:
    plan(tmp_path, "style_json", harmful=HARMFUL, harmless=[])
    killed = _dies_after(n, beside=3)
    with pytest.raises(_Killed):
        run_suite(tmp_path, killed)
    assert [len(call) for call in killed.calls] == [8]
    one_machine = Scripted(answer, able=SIDE_BY_SIDE)
    counts = run_suite(tmp_path, one_machine)
    groups = [killed.calls[0][start : start + 3] for start in (0, 3, 6)]
    assert one_machine.calls == groups[n // 3 :]
    assert counts.answered == 8 - n


def test_a_failure_moves_nothing_that_is_decoded_beside_others_later(tmp_path: Path) -> None:
    plan(tmp_path, "style_json", harmful=HARMFUL, harmless=[])
    first, able = rows(tmp_path)[0].conversation, SIDE_BY_SIDE
    said: list[Conversation] = []

    def dies_late(conversation: Conversation) -> str | Failed:
        said.append(conversation)
        if len(said) > 4:
            raise _Killed
        return Failed(cause="too long") if conversation == first else answer(conversation)

    with pytest.raises(_Killed):
        run_suite(tmp_path, Scripted(dies_late, able=able))
    rest = Scripted(lambda one: Failed(cause="too long") if one == first else answer(one), able=able)
    run_suite(tmp_path, rest)
    assert [len(call) for call in rest.calls] == [3, 2, 1, 1]
    assert rest.calls[2:] == [[first], [first]]


def test_a_larger_plan_asks_what_is_new(tmp_path: Path) -> None:
    plan(tmp_path, "style_json", harmful=HARMFUL[:1], harmless=[])
    run_suite(tmp_path, Scripted(answer))
    plan(tmp_path, "style_json", "leetspeak", harmful=HARMFUL, harmless=[])
    counts = run_suite(tmp_path, Scripted(answer))
    assert (counts.reused, counts.answered) == (2, 10)


def test_replies_that_are_only_returned_are_kept_too(tmp_path: Path) -> None:
    class Late(Scripted):
        def reply(
            self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
        ) -> list[Response | Failed]:
            return super().reply(conversations, max_answer_tokens)

    plan(tmp_path)
    assert run_suite(tmp_path, Late(answer)).answered == 8
    assert len(lines(tmp_path)) == 8


def test_a_reply_that_is_told_twice_is_kept_once(tmp_path: Path) -> None:
    class Twice(Scripted):
        def reply(
            self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
        ) -> list[Response | Failed]:
            super().reply(conversations, max_answer_tokens, on_reply)
            return super().reply(conversations, max_answer_tokens, on_reply)

    plan(tmp_path)
    counts = run_suite(tmp_path, Twice(answer))
    assert counts.answered == 8
    assert len(lines(tmp_path)) == 8


class Server:
    """Breaks down for some calls, counted by conversation."""

    def __init__(self, down: range) -> None:
        self.down, self.asked = down, 0

    def __call__(self, conversation: Conversation) -> str | Failed:
        self.asked += 1
        return Failed(cause="the server is gone") if self.asked - 1 in self.down else answer(conversation)


def test_what_failed_is_asked_once_more_in_the_same_run(tmp_path: Path) -> None:
    plan(tmp_path, "style_json")
    server, told = Server(range(5, 9)), list[int]()
    counts = run_suite(tmp_path, Scripted(server), on_progress=told.append, window=6)
    assert (counts.answered, counts.failed, counts.causes) == (16, 0, {})
    assert server.asked == 20
    assert sum(told) == 16
    assert len(lines(tmp_path)) == 16


def test_what_failed_for_good_has_its_cause_and_is_asked_by_the_next_run(tmp_path: Path) -> None:
    plan(tmp_path, "style_json")
    stubborn = [row for row in rows(tmp_path) if row.attack == "style_json"]

    def broken(conversation: Conversation) -> str | Failed:
        return Failed(cause="out of memory") if "JSON" in conversation.messages[-1].content else answer(conversation)

    for _ in range(2):
        counts = run_suite(tmp_path, Scripted(broken), window=5)
        assert (counts.failed, counts.causes) == (8, {"out of memory": 8})
    with Replies(tmp_path) as replies:
        assert replies.get(stubborn[0].asked) == Failed(cause="out of memory")
    # Only the second run's two tries stand there: what earlier runs failed on is kept once.
    assert len(lines(tmp_path, "failures.jsonl")) <= 8 * 3
    assert run_suite(tmp_path, Scripted(answer)).answered == 8
    with Replies(tmp_path) as replies:
        assert all(isinstance(replies.get(row.asked), Response) for row in rows(tmp_path))
    run_suite(tmp_path, Scripted(answer))
    assert lines(tmp_path, "failures.jsonl") == []


def test_a_server_that_stays_away_stops_the_run_and_the_rest_is_not_asked(tmp_path: Path) -> None:
    plan(tmp_path, "style_json", "leetspeak")
    server = Server(range(6, 1000))
    counts = run_suite(tmp_path, Scripted(server), window=4)
    assert counts.stopped == "the model stopped answering"
    assert counts.answered == 6
    assert server.asked == 16  # two whole windows without an answer after the mixed one
    with Replies(tmp_path) as replies:
        causes = Counter(reply.cause for row in rows(tmp_path) if isinstance(reply := replies.get(row.asked), Failed))
    assert causes == {"the server is gone": 10, NOT_ASKED: 8}
    assert run_suite(tmp_path, Scripted(answer)).answered == 18


def test_a_model_that_never_answers_is_an_error_and_one_that_stops_is_not(tmp_path: Path) -> None:
    class Dead(Scripted):
        def reply(
            self, conversations: Sequence[Conversation], max_answer_tokens: int = 128, on_reply: OnReply | None = None
        ) -> list[Response | Failed]:
            raise ModelError("localhost", "can't be reached", "Start it")

    plan(tmp_path)
    with pytest.raises(ModelError, match="can't be reached"):
        run_suite(tmp_path, Dead(answer))
    run_suite(tmp_path, Scripted(Server(range(4, 100))))
    counts = run_suite(tmp_path, Dead(answer))
    assert "can't be reached" in counts.stopped
    assert counts.failed == 4


def test_another_models_replies_are_never_taken(tmp_path: Path) -> None:
    plan(tmp_path)
    run_suite(tmp_path, Scripted(answer, name="base"), 32)
    with pytest.raises(ConfigError, match="holds replies of"):
        run_suite(tmp_path, Scripted(answer, name="scot"), 32)
    with pytest.raises(ConfigError, match="64"):
        run_suite(tmp_path, Scripted(answer, name="base"), 64)


def test_two_runs_on_one_folder_are_told(tmp_path: Path) -> None:
    plan(tmp_path)
    with Replies(tmp_path, write=True), pytest.raises(StageError, match="another run is writing here"):
        run_suite(tmp_path, Scripted(answer))
    assert run_suite(tmp_path, Scripted(answer)).answered == 8


def test_a_folder_without_a_plan_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        run_suite(tmp_path, Scripted(answer))


@pytest.mark.parametrize("cut", [1, 7, 30])
def test_a_half_line_is_cut_off_and_its_conversation_asked_again(tmp_path: Path, cut: int) -> None:
    plan(tmp_path)
    run_suite(tmp_path, Scripted(answer))
    path = tmp_path / "replies.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    with Replies(tmp_path) as replies:  # a reader passes it over, and leaves the file alone
        assert sum(isinstance(replies.get(row.asked), Response) for row in rows(tmp_path)) == 7
    again = Scripted(answer)
    assert run_suite(tmp_path, again).answered == 1
    assert len(set(lines(tmp_path))) == len(lines(tmp_path)) == 8


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    plan(tmp_path)
    run_suite(tmp_path, Scripted(answer))
    path = tmp_path / "replies.jsonl"
    held = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([held[0], "nonsense", *held[1:]]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 2"):
        run_suite(tmp_path, Scripted(answer))


_CHILD = """
import sys, time
from pathlib import Path
from forethought.attempts.ask import run_suite
from tests.attempts.suite_plans import answer
from tests.scripted import Scripted

def slowly(conversation):
    time.sleep(0.002)
    return answer(conversation)

run_suite(Path(sys.argv[1]), Scripted(slowly), window=50)
"""


def _holds(replies: Path, lines: int) -> bool:
    return replies.is_file() and replies.read_bytes().count(b"\n") >= lines


@pytest.mark.slow
def test_killed_three_times_every_attempt_is_there_exactly_once(tmp_path: Path) -> None:
    texts = [f"Explain how town number {n} bakes its bread" for n in range(100)]
    attacks = ("style_json", "leetspeak", "misspelling", "few_shot:1")
    n = plan(tmp_path, *attacks, harmful=[], harmless=texts).conversations
    assert n > 490  # a misspelling may change nothing
    replies = tmp_path / "replies.jsonl"
    for target in (60, 170, 310):
        code(_CHILD, tmp_path).kill_once(partial(_holds, replies, target))
    held = replies.read_bytes().count(b"\n")
    assert 310 <= held < n
    model = Scripted(answer)
    counts = run_suite(tmp_path, model)
    assert (counts.reused, counts.answered) == (held, n - held)
    assert Counter(lines(tmp_path)) == {row.asked: 1 for row in rows(tmp_path)}
    plan(tmp_path / "whole", *attacks, harmful=[], harmless=texts)
    run_suite(tmp_path / "whole", Scripted(answer))
    assert sorted(replies.read_bytes().splitlines()) == sorted(
        (tmp_path / "whole" / "replies.jsonl").read_bytes().splitlines()
    )
