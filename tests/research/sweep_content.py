"""A sweep small enough for a test, and its command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.tiny import tiny_folder

EVALUATE: dict[str, Any] = {
    "attacks": ["style_json", "prefix_injection"],
    "n_direct": 4, "n_styled": 3, "n_ordinary": 4, "n_lookalike": 3, "n_styled_lookalike": 1,
    "n_prompt_choice": 4, "max_answer_tokens": 4, "gcg": {"defences": []},
}  # fmt: skip
"""What it measures, and on how much."""
ALL_KINDS: dict[str, Any] = {
    "reasoning": ["empty_thinking", "fake_turn"], "n_reasoning": 2,
    "gcg": {"defences": ["scot"], "goals": 1, "steps": 1, "candidates": 2},
    "latency": {"requests": 2, "max_answer_tokens": 2},
    "searches": [{"method": "best_of_n:n=4", "defences": ["refusal", "scot_best"], "goals": 1, "budget": 2}],
}  # fmt: skip
"""What else it can measure: attacks on the reasoning, adaptive ones, latency."""


def sweep_content(**changes: Any) -> dict[str, Any]:
    """What stands in its file, with some keys replaced."""
    return {
        "name": "test",
        "bases": [str(tiny_folder())],
        "budgets": [2200],
        "methods": ["scot", "scot_split", "refusal"],
        "prompts": ["self_reminder", "safety_conversational"],
        "wrappers": ["linear_probe"],
        "data": {
            "harmful": [{"path": "shipped:harmful"}],
            "harmless": [{"path": "shipped:lookalike"}, {"path": "shipped:ordinary"}],
            "max_harmless": 60,
            "per_rule": 5,
        },
        "build": {"own_answers": 8, "own_answer_tokens": 4, "refusal_share": 1.0},
        "train": {"rank": 2, "batch_size": 4, "checkpoint_steps": 2},
        "operating_point": {"rows": 12},
        "evaluate": EVALUATE,
    } | changes  # fmt: skip


def sweep_file(folder: Path, **changes: Any) -> Path:
    """The same as a file in a folder."""
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep_content(**changes)), encoding="utf-8")
    return path
