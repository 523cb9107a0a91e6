"""The audit log: nothing of it can be changed unnoticed, and nothing that happens to its process breaks it."""

from __future__ import annotations

import json
import resource
import signal
import threading
from pathlib import Path

import pytest

from forethought.errors import InputError, StageError
from forethought.server.audit import FIRST, AuditError, AuditLog, verify
from tests.child import code


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def filled(path: Path, lines: int, rotate_bytes: int = 1 << 20) -> None:
    audit = AuditLog(path, rotate_bytes)
    for number in range(lines):
        audit.add("decision", verdict="refuse", rules=["R4"], opening=f"request {number}")
    audit.close()


def test_each_line_is_bound_to_the_one_before(log: Path) -> None:
    filled(log, 3)
    filled(log, 2)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["number"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["previous"] for line in lines] == [FIRST, *(line["hash"] for line in lines[:-1])]
    found = verify(log)
    assert (found.lines, found.first, found.mended, found.head) == (5, 1, 0, lines[-1]["hash"])
    assert oct(log.stat().st_mode)[-3:] == "600"


def _change(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace("refuse", "comply"), *lines[2:]]


def _leave_out(lines: list[str]) -> list[str]:
    return [lines[0], *lines[2:]]


def _swap(lines: list[str]) -> list[str]:
    return [lines[0], lines[2], lines[1], *lines[3:]]


def _twice(lines: list[str]) -> list[str]:
    return [lines[0], lines[1], lines[1], *lines[2:]]


@pytest.mark.parametrize("how", [_change, _leave_out, _swap, _twice])
def test_a_line_that_is_changed_left_out_moved_or_doubled_is_found(log: Path, how: object) -> None:
    filled(log, 5)
    log.write_text("".join(f"{line}\n" for line in how(log.read_text().splitlines())))  # type: ignore[operator]
    with pytest.raises(InputError, match=r"line [23]"):
        verify(log)


def test_what_is_cut_off_at_the_end_shows_by_the_head(log: Path) -> None:
    filled(log, 5)
    head = verify(log).head
    log.write_text("".join(f"{line}\n" for line in log.read_text().splitlines()[:3]))
    assert verify(log).head != head


@pytest.mark.parametrize("kept", [1, 40, -1, -2])
def test_a_line_that_was_cut_short_is_closed_and_accounted_for(log: Path, kept: int) -> None:
    filled(log, 3)
    *whole, last = log.read_text().splitlines(keepends=True)
    log.write_text("".join(whole) + last[:kept])
    with pytest.raises(InputError, match="line 3"):
        verify(log)
    filled(log, 1)
    found = verify(log)
    # One that lacks nothing but the end of its line is whole again.
    assert (found.lines, found.mended) == ((4, 0) if kept == -1 else (4, 1))
    assert last[:kept].rstrip("\n") in log.read_text()


def test_a_damaged_line_for_which_the_next_does_not_account_is_found(log: Path) -> None:
    filled(log, 3)
    *whole, last = log.read_text().splitlines(keepends=True)
    log.write_text("".join(whole) + last[:40])
    filled(log, 1)
    log.write_text(log.read_text().replace(last[:40], last[:39]))
    with pytest.raises(InputError, match="does not account"):
        verify(log)


def test_files_are_moved_aside_and_stay_bound(log: Path) -> None:
    filled(log, 40, rotate_bytes=2000)
    files = sorted(log.parent.glob("audit*.jsonl"))
    assert len(files) > 3
    assert verify(log).lines == 40
    log.unlink()  # a restart right after a file was moved aside goes on behind it
    held = verify(log).lines
    filled(log, 2, rotate_bytes=2000)
    assert verify(log).lines == held + 2
    files[0].unlink()  # the oldest may go, and that shows
    assert verify(log).first > 1
    files[2].unlink()
    with pytest.raises(InputError, match="in place of"):
        verify(log)


def test_one_process_writes_at_a_time(log: Path) -> None:
    audit = AuditLog(log)
    with pytest.raises(StageError, match="another run"):
        AuditLog(log)
    audit.close()
    AuditLog(log).close()


def test_threads_may_share_it(log: Path) -> None:
    audit = AuditLog(log, rotate_bytes=5000)

    def work() -> None:
        for _ in range(50):
            audit.add("decision")

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    audit.close()
    assert verify(log).lines == 200


def test_what_is_written_is_one_line_of_ascii_whatever_a_caller_sends(log: Path) -> None:
    audit = AuditLog(log)
    audit.add("decision", opening='a\n{"number": 2}\r\x1b[2J\u2028\u202e\x7f "b"')
    audit.close()
    content = log.read_bytes()
    assert content.count(b"\n") == 1
    assert all(32 <= byte < 127 for byte in content.rstrip(b"\n"))
    assert verify(log).lines == 1


def test_a_full_disk_is_an_error_and_the_log_is_mended_when_there_is_space(log: Path) -> None:
    audit = AuditLog(log)
    audit.add("decision", opening="a")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + 50, limit[1]))
        for _ in range(3):
            with pytest.raises(AuditError, match="can't be written"):
                audit.add("decision", opening="b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert audit.failures == 3
    audit.add("decision", opening="c")
    audit.close()
    found = verify(log)
    assert (found.lines, found.mended) == (3, 1)
    assert '"opening":"c"' in log.read_text().splitlines()[-1]


_WRITER = """
import sys
from pathlib import Path
from forethought.server.audit import AuditLog
audit = AuditLog(Path(sys.argv[1]), 20_000)
written = 0
while True:
    audit.add("decision", opening="x" * 300)
    written += 1
    if written == 30:
        Path(sys.argv[2]).touch()
"""


@pytest.mark.slow
def test_it_survives_being_killed_again_and_again(log: Path) -> None:
    for number in range(8):
        thirty = log.with_name(f"thirty-{number}")
        code(_WRITER, log, thirty).kill_once(thirty.exists)
    AuditLog(log).close()
    assert verify(log).lines >= 8 * 30


def test_no_log_and_a_file_that_is_none_are_told(log: Path) -> None:
    with pytest.raises(InputError, match="no such audit log"):
        verify(log)
    log.write_text("hello\n" * 3)
    with pytest.raises(InputError, match="line 3"):
        verify(log)
