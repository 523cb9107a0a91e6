"""The one store: what was added is found again, whatever it holds, whoever was killed, and one process writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from forethought.errors import InputError, StageError
from forethought.records import Message
from forethought.store import Store, locked, read_store, rewrite


def test_values_are_found_again_whatever_they_hold(tmp_path: Path) -> None:
    values = {'a"b|:é\n': "x\ny\u2028z", "b": "", "c": "日本" * 40_000, "d": {"n": [1, 2.5, None]}}
    with Store(tmp_path / "x.jsonl", write=True) as store:
        for key, value in values.items():
            store.add(key, value)
            with Store(tmp_path / "x.jsonl") as other:  # a kill right now would lose nothing
                assert other.get(key) == value
        assert {key: store.get(key) for key in store} == values
    with Store(tmp_path / "x.jsonl") as store:
        assert {key: store.get(key) for key in store} == values
        assert (store.get("e"), len(store), "b" in store) == (None, 4, True)


def test_records_come_back_and_a_later_one_takes_the_place_of_the_earlier(tmp_path: Path) -> None:
    first, second = Message(role="user", content="käse"), Message(role="assistant", content="brot")
    with Store(tmp_path / "deep" / "x.jsonl", write=True) as store:
        store.add("a", first)
        store.add("a", second)
        store.add("b", first)
        assert store.read("a", Message) == second
    assert read_store(tmp_path / "deep" / "x.jsonl", Message) == {"a": second, "b": first}
    assert read_store(tmp_path / "none.jsonl", Message) == {}
    assert not (tmp_path / "none.jsonl").exists()


@pytest.mark.parametrize("half", [b'{"id":"c","value":"k\xc3', b"{", b'{"id":"c","value":"' + b"x" * 200_000])
def test_half_a_line_is_passed_over_by_a_reader_and_cut_off_by_a_writer(tmp_path: Path, half: bytes) -> None:
    path = tmp_path / "x.jsonl"
    with Store(path, write=True) as store:
        store.add("a", "one")
    whole = path.read_bytes()
    for before, keys in ((whole, ["a"]), (b"", [])):
        path.write_bytes(before + half)
        with Store(path) as store:
            assert list(store) == keys
        assert path.read_bytes() == before + half
        with Store(path, write=True) as store:
            store.add("b", "two")
            assert list(store) == [*keys, "b"]
        assert path.read_bytes().startswith(before + b'{"id":"b"')


@pytest.mark.parametrize("line", [b"nonsense", b"{}", b'{"id":1,"value":2}', b'{"id":"a","value":2', b'{"id":"\xff"}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"id":"a","value":1}\n' + line + b"\n")
    with pytest.raises(InputError, match=r"x\.jsonl, line 2: is damaged"):
        Store(path)


def test_a_value_of_another_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"id":"a","value":{"role":"cook"}}\n{"id":"b","value":{"no json}\n')
    with Store(path) as store:
        with pytest.raises(InputError, match="the line of a: is not a Message"):
            store.read("a", Message)
        with pytest.raises(InputError, match="the line of b: is damaged"):
            store.get("b")


def test_threads_may_add_and_sync_at_once(tmp_path: Path) -> None:
    with Store(tmp_path / "x.jsonl", write=True) as store:

        def work(name: int) -> None:
            for number in range(100):
                store.add(f"{name}/{number}", number)
                store.sync()
                assert store.get(f"{name}/{number}") == number

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with Store(tmp_path / "x.jsonl") as store:
        assert len(store) == 800


def test_a_store_is_written_anew_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rewrite(path, [("a", 1), ("b", 2)])
    with Store(path) as old:
        rewrite(path, ((key, old.get(key)) for key in old if key != "a"))
    with Store(path) as store:
        assert {key: store.get(key) for key in store} == {"b": 2}

    def breaks() -> Iterator[tuple[str, int]]:
        yield "c", 3
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rewrite(path, breaks())
    with Store(path) as store:
        assert list(store) == ["b"]


def test_one_holds_a_lock_and_a_kill_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "x.lock"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom forethought.store import locked\n"
        f"with locked(Path({str(path)!r})):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(StageError, match="another run is writing here"), locked(path):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with locked(path, wait=True), pytest.raises(StageError, match="another run is writing here"), locked(path):
        pass
    with locked(path):
        pass
