"""Sharing a built set or a trained model with its card. Nothing is sent anywhere without this."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from forethought.data.export import push as push_set
from forethought.data.export import send
from forethought.model import MODEL_FILE, run_model, trained_folder
from forethought.models.settings import settings_if_any
from forethought.pipeline.build import find_set
from forethought.report.card import card, hub_name

_MODEL_FILES = (
    "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "config.json", "forethought.json",
    "generation_config.json", "model*.safetensors", "model.safetensors.index.json", "special_tokens_map.json",
    "tokenizer*.json",
)  # fmt: skip
"""Of a trained folder. Checkpoints, pickles, and what the model was asked and said while it was trained stay."""
_FITTED = ("8-fuse", "8-demand")
"""What a run fits around its model."""


def push(what: Path, name: str, private: bool = True) -> str:
    """Uploads a run, a trained folder or a built set with its card to `owner/name`; returns its address.

    A model's repository is one that PEFT and `load` open. Raises InputError for a folder that is none of these,
    ConfigError without a token or where the repository is public though a private one is asked for, StageError where
    the hub can't be reached or says no.
    """
    if settings_if_any(trained_folder(what)) is None:
        return push_set(find_set(what)[0], name, private)
    with tempfile.TemporaryDirectory() as made:
        paths = stage_model(what, Path(made))
        return send(Path(made), name, private, "model", paths, "Trained with Forethought")


def stage_model(what: Path, out: Path) -> list[str]:
    """Copies what is shared of a run or a trained folder into an empty folder, its card included; returns the paths."""
    weights, run = trained_folder(what), run_model(what)
    for pattern in _MODEL_FILES:
        for file in weights.glob(pattern):
            shutil.copy(file, out / file.name)
    adapter = out / "adapter_config.json"
    if adapter.is_file():
        said = json.loads(adapter.read_text(encoding="utf-8"))
        said["base_model_name_or_path"] = hub_name(str(said["base_model_name_or_path"]))
        adapter.write_text(json.dumps(said, indent=2), encoding="utf-8")
    if run is not None:
        base = run.base if run.base == "embedded" else hub_name(run.base)
        held = run.model_copy(update={"weights": ".", "base": base})
        (out / MODEL_FILE).write_text(held.model_dump_json(indent=2), encoding="utf-8")
        for fitted in _FITTED:
            if fitted in run.defence:
                shutil.copytree(what / fitted, out / fitted, ignore=shutil.ignore_patterns("manifest.json"))
    if (what / "results.json").is_file():
        shutil.copy(what / "results.json", out / "results.json")
    card(what).save(out / "README.md")
    return sorted(str(file.relative_to(out)) for file in out.rglob("*") if file.is_file())
