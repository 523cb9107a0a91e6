"""Builds on a real Ray: the rows of one machine, and no call paid for twice but those on their way when all died."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import child
from tests.mock_teacher import MockTeacher, Reply, good_lesson
from tests.pipeline.test_blocks import ROWS, the_recipe
from tests.shell import run_here

pytestmark = pytest.mark.slow
AT_ONCE = 4


def test_a_killed_build_goes_on_and_pays_for_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_head: tuple[str, str]
) -> None:
    (tmp_path / "in").mkdir()
    the_recipe(tmp_path / "in")
    said = ["build", tmp_path / "in" / "rows.jsonl", "--harmless", tmp_path / "in" / "rows.jsonl", "--yes"]
    said += ["--teacher", "openai-api/mock/teacher", "--concurrency", AT_ONCE, "--twins", 0]
    monkeypatch.setenv("MOCK_API_KEY", "none")
    pause_s = 0.0
    with MockTeacher(lambda messages, number: Reply(good_lesson(messages), seconds=pause_s)) as teacher:
        command = [*said, "--base-url", teacher.url, "--out"]
        assert run_here(*command, tmp_path / "alone").code == 0
        before, pause_s = len(teacher.bodies), 0.1  # time enough to be killed in
        killed = child.command(*command, tmp_path / "ray", "--on", ray_head[0])
        killed.kill_once(lambda: len(teacher.bodies) >= before + before // 2)
        assert child.command(*command, tmp_path / "ray", "--on", ray_head[0]).wait(200) == 0
        assert before <= len(teacher.bodies) - before <= before + AT_ONCE
    for name in ROWS:
        one, other = (tmp_path / folder / "dataset" / name for folder in ("alone", "ray"))
        assert one.read_bytes() == other.read_bytes()
