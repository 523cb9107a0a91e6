"""Sets that don't fit in memory: bounded peak, one classifier, whole files or none, and the command's options."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forethought.data import classify
from forethought.data.classify import CHUNK, assign, with_rules
from forethought.data.sources import SourceSpec, Tally, hash_sample, load_requests, read_requests
from forethought.errors import ConfigError, InputError
from forethought.policy import Policy, default_policy
from forethought.records import Request, read_jsonl, user_request

ROWS = 120_000
PEAK_MIB = 200
"""Python, the libraries and a chunk take about 120; the set alone would take several times more."""
_MEASURED = """
import sys
from pathlib import Path
from forethought.cli import main
try:
    main()
finally:
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print("PEAK", int(peak.split()[1]) // 1024)
"""


def _row(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "prompt": f"How do I mend rope number {number} before the boat leaves the harbour?",
        "response": "First look at the strands, then splice them one by one. " * 5,
        "is_harmful": number % 2,
        "category": "Fraud" if number % 2 else None,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One large set, as JSON lines and as a JSON array."""
    made = tmp_path_factory.mktemp("large")
    with (made / "set.jsonl").open("w") as lines, (made / "set.json").open("w") as array:
        array.write('{"version": 1, "data": [')
        for number in range(ROWS):
            text = json.dumps(_row(number))
            lines.write(text + "\n")
            array.write((",\n" if number else "") + text)
        array.write("]}")
    return made


def _read(*options: object) -> tuple[int, str]:
    """Peak memory in MiB and the output of `data read` in a process of its own."""
    line = [sys.executable, "-c", _MEASURED, "data", "read", *map(str, options)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.rpartition("PEAK ")[2]), done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_large_json_file_is_never_held(folder: Path, tmp_path: Path) -> None:
    assert (folder / "set.json").stat().st_size > 40 << 20
    peak, shown = _read(folder / "set.json", "--out", tmp_path / "out.jsonl")
    assert peak < PEAK_MIB
    assert f"{ROWS} requests, {ROWS // 2} harmful; rules by the classifier for 0" in shown
    with (tmp_path / "out.jsonl").open() as file:
        assert sum(1 for _ in file) == ROWS


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_limit_holds_no_more_than_it_draws(folder: Path, tmp_path: Path) -> None:
    peak, _ = _read(folder / "set.jsonl", "--limit", 200, "--out", tmp_path / "out.jsonl")
    assert peak < PEAK_MIB
    drawn = list(read_jsonl(tmp_path / "out.jsonl", Request))
    places = [int(request.text.split()[6]) for request in drawn]
    assert len(places) == 200
    assert places == sorted(places)
    assert places[0] < ROWS // 10
    assert places[-1] > ROWS * 9 // 10


@pytest.mark.slow
def test_a_kill_in_the_middle_leaves_no_half_file(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    part = tmp_path / "out.jsonl.part"
    command = [sys.executable, "-m", "forethought", "data", "read", str(folder / "set.jsonl"), "--out", str(out)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size) and time.monotonic() < until:
            time.sleep(0.01)
        assert running.poll() is None
    finally:
        running.kill()
        running.wait()
    assert part.exists()
    assert not out.exists()


@pytest.mark.slow
def test_an_error_in_the_middle_leaves_what_was_there(tmp_path: Path) -> None:
    file, out = tmp_path / "set.jsonl", tmp_path / "out.jsonl"
    file.write_text("".join(json.dumps(_row(n)) + "\n" for n in range(CHUNK + 10)) + "{oops\n")
    out.write_text("kept")
    done = subprocess.run(
        [sys.executable, "-m", "forethought", "data", "read", str(file), "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"line {CHUNK + 11}: is not JSON" in done.stderr.replace("\n", " ")
    assert out.read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "set.jsonl"]


def _mixed(count: int) -> list[Request]:
    categories = [("Fraud",), ("a name that no policy has",), ()]
    return [
        user_request(
            f"How do I copy the paid film number {n} for everyone?",
            harmful=n % 2 == 0,
            categories=categories[n % 3],
            rules=("R5",) if n % 10 == 0 else (),
        )
        for n in range(count)
    ]


def test_the_rules_are_those_of_a_set_that_is_read_at_once() -> None:
    requests = _mixed(60)
    at_once = assign(requests, default_policy())
    classified: list[int] = []
    assert list(with_rules(requests, default_policy(), classified.append)) == at_once.requests
    assert classified == [at_once.by_classifier]
    assert at_once.by_classifier > 0


def test_the_classifier_is_fitted_once_and_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[int] = []
    asked: list[int] = []
    classified: list[int] = []

    class Scripted:
        rules = default_policy().rule_ids

        def probabilities(self, texts: list[str]) -> np.ndarray[Any, Any]:
            asked.append(len(texts))
            return np.tile(np.array([float(rule == "R7") for rule in self.rules]), (len(texts), 1))

    def new(policy: Policy, labelled: list[Request], kind: str) -> Scripted:
        assert kind == "text"
        fitted.append(len(labelled))
        return Scripted()

    monkeypatch.setattr(classify, "RuleClassifier", new)
    known = [user_request(f"How {n}?", harmful=True, categories=("Fraud",)) for n in range(10)]
    harmless = [user_request(f"Why {n}?", harmful=False) for n in range(10)]
    assert len(list(with_rules([*known, *harmless], default_policy(), classified.append))) == 20
    assert fitted == []
    unknown = [user_request(f"When {n}?", harmful=True) for n in range(2 * CHUNK)]
    ruled = list(with_rules([*known, *unknown], default_policy(), classified.append))
    assert fitted == [10]
    assert asked == [CHUNK - 10, CHUNK, 10]
    assert {request.rules for request in ruled[10:]} == {("R7",)}
    assert sum(classified) == 2 * CHUNK


def test_a_rule_that_the_policy_lacks_is_an_error() -> None:
    with pytest.raises(ConfigError, match="has no such rule"):
        list(with_rules([user_request("How?", harmful=True, rules=("R999",))], default_policy(), print))


def test_nothing_is_read_ahead_of_a_chunk() -> None:
    taken = 0

    def endless() -> Iterator[Request]:
        nonlocal taken
        while True:
            taken += 1
            yield user_request(f"How {taken}?", harmful=False)

    stream = with_rules(endless(), default_policy(), print)
    next(stream)
    assert taken == CHUNK


def test_a_tally_counts_labels_rules_repeats_and_draws_a_fair_sample() -> None:
    requests = [
        user_request("a", harmful=True, rules=("R4", "R5")),
        user_request("a", harmful=True, rules=("R4",)),
        user_request("b", harmful=False),
        user_request("c"),
    ]
    tally = Tally()
    assert list(tally.through(requests)) == requests
    assert tally.total == 4
    assert dict(tally.by_label) == {True: 2, False: 1, None: 1}
    assert dict(tally.by_rule) == {"R4": 2}
    assert tally.repeated == 1
    assert tally.sample == requests
    many = [user_request(f"How {n}?") for n in range(1000)]
    first, second = Tally(samples=100), Tally(samples=100)
    for one in (first, second):
        list(one.through(many))
    assert first.sample == second.sample
    places = [many.index(request) for request in first.sample]
    assert places == sorted(set(places))
    assert 380 < sum(places) / len(places) < 620  # a mean of 500, with a standard error of 27


def test_a_hash_sample_holds_the_smallest_whatever_comes_when() -> None:
    requests = [user_request(f"How {n}?") for n in range(500)]
    drawn = hash_sample(requests, 20)
    shuffled = list(requests)
    random.Random(3).shuffle(shuffled)
    assert {request.id for request in hash_sample(iter(shuffled), 20)} == {request.id for request in drawn}
    assert hash_sample([*requests, *requests], 20) == drawn
    assert hash_sample(requests[:5], 20) == requests[:5]


def test_requests_are_read_from_python_and_counted_in_each_pass(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text('{"ask": "How do I tie a knot?"}\n{"ask": ""}\nno JSON\n{"ask": "How do I tie a bow?"}\n')
    reading = read_requests(file, columns={"text": "ask"}, harmful=False, skip_bad=True)
    for _ in range(2):
        assert [request.text for request in reading] == ["How do I tie a knot?", "How do I tie a bow?"]
        assert (reading.tally.total, reading.tally.by_label[False]) == (2, 2)
        assert dict(reading.skipped) == {"no text": 1, "malformed": 1}
        assert len(reading.malformed) == 1
    with pytest.raises(InputError, match=r"set\.jsonl"):
        list(read_requests(file, columns={"text": "ask"}))


def test_options_of_the_command(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from forethought.cli import app

    runner = CliRunner()
    file, out = tmp_path / "set.csv", tmp_path / "out.jsonl"
    file.write_text("say,reply_text\nHow do I tie a knot?,Make a loop.\ntoo,many,cells\nHow do I tie a bow?,Two.\n,\n")
    shown = runner.invoke(
        app,
        [
            "data", "read", str(file), "--text-column", "say", "--column", "answer=reply_text", "--harmless",
            "--skip-bad", "--out", str(out),
        ],
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    assert "1 malformed rows left out" in shown.output
    assert "line 3" in shown.output.replace("\n", " ")
    written = list(read_jsonl(out, Request))
    assert [(request.text, request.answer, request.harmful) for request in written] == [
        ("How do I tie a knot?", "Make a loop.", False),
        ("How do I tie a bow?", "Two.", False),
    ]
    # What was written is read back as it is.
    again = tmp_path / "again.jsonl"
    assert runner.invoke(app, ["data", str(out), "--out", str(again)]).exit_code == 0
    assert again.read_bytes() == out.read_bytes()
    assert list(load_requests(SourceSpec(path=str(again)), None)) == written
    with pytest.raises(ConfigError, match="is not NOUN=NAME"):
        runner.invoke(app, ["data", "read", str(out), "--column", "answer"], catch_exceptions=False)


@pytest.mark.slow
def test_a_benchmark_of_the_stream_measures_what_it_says() -> None:
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "stream.py"
    for kind in ("json", "csv", "jsonl"):
        done = subprocess.run(
            [sys.executable, str(script), "--rows", "50", "--format", kind], capture_output=True, text=True, check=True
        )
        measured = json.loads(done.stdout)
        assert measured["stream_rows"] == 50
        assert 0 < measured["stream_peak_gib"] < 2
