"""The data card: what it says, and that `datasets` loads the folder by it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from forethought.data.export import BuildFacts, SourceFacts, card, export
from forethought.data.teach import reason_about
from forethought.models.callspec import Usage
from forethought.policy import default_policy
from forethought.records import Example, user_request, write_jsonl

POLICY = default_policy()
FACTS = BuildFacts(
    name="Refusals | of my <shop>",
    command="forethought build mine.csv",
    sources=(SourceFacts(path="mine.csv", sha256="ab" * 32, harmful=1200, harmless=34, licence="MIT"),),
    policy_name="default",
    policy_version="3",
    policy_hash="0123abcd",
    teacher="my-teacher",
    usage=Usage(calls=2000, input_tokens=100, output_tokens=50, cost=1.5),
    rows=3210,
    harmful_rows=1200,
    harmless_rows=2010,
    requests=1300,
    taught=4000,
    verified=3210,
    rules={"R1": 7, "R4": 1190},
    operators={"slang": 30},
    dropped={"the refusal does not refuse": 790},
    removed={"near an evaluation request (bench)": 6},
    evaluation={"bench": 80, "capability": 40},
    overlaps={"bench": 6},
    intent_kept=0.975,
    intent_checked=200,
    seed=7,
    commit="c0ffee",
    versions={"datasets": "5"},
    machine={"cores": 2, "gpu": None},
)


def _front(text: str) -> dict[str, object]:
    _, head, _ = text.split("---\n", 2)
    loaded = yaml.safe_load(head)
    assert isinstance(loaded, dict)
    return loaded


def test_the_front_matter_names_the_file() -> None:
    front = _front(card(FACTS.model_copy(update={"file": "a.parquet"})))
    assert front["configs"] == [
        {"config_name": "default", "default": True, "data_files": [{"split": "train", "path": "a.parquet"}]},
    ]
    assert front["size_categories"] == ["1K<n<10K"]
    assert front["pretty_name"] == FACTS.name


@pytest.mark.parametrize(
    "said",
    [
        "3,210 training rows",
        "1,200 requests are harmful and refused, 2,010 are harmless",
        "| mine.csv | 1,200 | 34 | MIT | `" + "ab" * 32 + "` |",
        "keeps its own licence",
        "Policy default 3, hash `0123abcd`",
        "my-teacher",
        "2,000 calls, 100 tokens in, 50 out, 1.50 US dollars",
        "| R4 | 1,190 |\n| R1 | 7 |",
        "| slang | 30 |",
        "Of 200 rewritten requests that were checked, 97.5% still ask",
        "3,210 of 4,000 rows passed verification (80.2%)",
        "| the refusal does not refuse | 790 |",
        "| bench | 80 | 6 |",
        "| capability | 40 | 0 |",
        "1,300 requests were read",
        "Seed: 7",
        "Commit: c0ffee",
        "Versions: datasets 5",
        "Machine: cores 2",
        "`forethought build mine.csv`",
        "## Limits",
        'load_dataset("FOLDER", split="train")',
    ],
)
def test_the_card_says(said: str) -> None:
    assert said in card(FACTS)


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    text = card(BuildFacts(name="x"))
    for said in ("No model calls", "compared with no evaluation set", "Seed: not recorded", "Commit: not recorded"):
        assert said in text
    assert "cost not known" in card(FACTS.model_copy(update={"usage": Usage(calls=1)}))
    assert "was not measured" in card(FACTS.model_copy(update={"intent_kept": None}))


def test_markup_in_names_breaks_no_table_and_no_front_matter() -> None:
    nasty = FACTS.model_copy(update={"name": "a: b\n--- <x>", "rules": {"R|1": 1}, "operators": {"a\nb": 2}})
    text = card(nasty)
    assert _front(text)["pretty_name"] == "a: b\n--- <x>"
    assert "| R\\|1 | 1 |" in text
    assert "| a b | 2 |" in text
    assert "# a: b --- &lt;x>" in text


def _examples(count: int) -> list[Example]:
    rows = []
    for n in range(count):
        request = user_request(f"Sail to harbour {n}", harmful=False, source="a")
        if n >= count // 2:
            request = request.restyled(f"yo, harbour {n}", "slang")
        rows.append(Example(request=request, reasoning=reason_about(request, POLICY), answer=f"Sail {n} miles."))
    return rows


def test_datasets_loads_the_folder_by_its_card(tmp_path: Path) -> None:
    import datasets

    folder = tmp_path / "set"
    rows = _examples(40)
    write_jsonl(folder / "examples.jsonl", rows)
    export(rows, POLICY, "think", "short", 0, "parquet", folder / "data" / "train.parquet")
    # Neither a report beside the data nor the project's own rows may be taken for it.
    (folder / "overlaps.json").write_text('{"threshold": 1}', encoding="utf-8")
    (folder / "README.md").write_text(card(FACTS), encoding="utf-8")
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == 40
    assert loaded[39]["operator"] == "slang"
    assert loaded[0]["messages"][-1]["content"].endswith("Sail 0 miles.")
