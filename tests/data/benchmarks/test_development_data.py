"""The development data, by the counts that its README states."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.data.benchmarks.rows import (
    labels,
    read,
)


@pytest.mark.parametrize(
    ("path", "layout", "rows"),
    [
        ("harmful/harmbench_val.csv", "harmbench", 80),
        ("harmful/advbench.csv", "advbench", 520),
        ("harmful/malicious_instruct.txt", "malicious_instruct", 100),
        ("harmful/do_not_answer", "do_not_answer", 939),
        ("harmful/harmfulqa.json", "harmfulqa", 1960),
        ("harmful/star1.json", None, 1000),
        ("harmful/dangerousqa.json", None, 200),
        ("attacks/in_the_wild.json", None, 666),
        ("attacks/trustllm_jailbreak.json", "trustllm_jailbreak", 1400),
        ("over_refusal/xstest.csv", "xstest", 450),
        ("over_refusal/cyberseceval_frr.json", None, 750),
    ],
)
def test_the_development_data_is_read_whole(shared: Path, path: str, layout: str | None, rows: int) -> None:
    found = read(shared / path)
    assert found.layout == layout
    assert len(found.behaviors) + found.repeated == rows
    assert (found.malformed, found.without_text) == ([], 0)
    assert len({one.id for one in found.behaviors}) == len(found.behaviors)


def test_the_development_data_is_labelled_and_grouped_as_published(shared: Path) -> None:
    harmbench_rows = read(shared / "harmful/harmbench_val.csv")
    assert Counter(one.says("function") for one in harmbench_rows.behaviors) == {
        "standard": 41,
        "contextual": 19,
        "copyright": 20,
    }
    assert sum(bool(one.context) for one in harmbench_rows.behaviors) == 19
    assert sum(one.request.kind == "copyright" for one in harmbench_rows.behaviors) == 20
    assert Counter(labels(read(shared / "over_refusal/xstest.csv"))) == {False: 250, True: 200}
    attacks = Counter(one.says("attack") for one in read(shared / "attacks/trustllm_jailbreak.json").behaviors)
    assert list(attacks.values()) == [100] * 14
    assert all(one.reference for one in read(shared / "harmful/advbench.csv").behaviors)
