"""Sharing a built set or a trained model with its card. Nothing is sent anywhere without this."""

from __future__ import annotations

import glob
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from forethought.errors import ConfigError, InputError, StageError, reason_of
from forethought.model import MODEL_FILE, run_model, trained_folder
from forethought.models.settings import settings_if_any
from forethought.pipeline.build import find_set
from forethought.report.card import card, hub_name

_SENT = {".parquet", ".jsonl", ".json", ".md", ".yaml"}
"""Kinds of files of a built set."""
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
        folder = find_set(what)[0]
        paths = [str(path.relative_to(folder)) for path in files_to_push(folder)]
        return _send(folder, name, private, "dataset", paths, "Safety reasoning built with Forethought")
    with tempfile.TemporaryDirectory() as made:
        paths = stage_model(what, Path(made))
        return _send(Path(made), name, private, "model", paths, "Trained with Forethought")


def files_to_push(folder: Path) -> list[Path]:
    """The data files of a built set, its card and reports: what stands in the folder itself or in `data/`.

    Caches, half-written and hidden files stay here. Raises InputError where there is no data card.
    """
    if not (folder / "README.md").is_file():
        raise InputError(folder, "has no data card (README.md)", "Push the folder of a built set")
    found = [*sorted(folder.glob("*")), *sorted((folder / "data").glob("*"))]
    return [path for path in found if path.is_file() and path.suffix in _SENT and not path.name.startswith(".")]


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


def _send(
    folder: Path, name: str, private: bool, kind: Literal["dataset", "model"], paths: Sequence[str], message: str
) -> str:
    """Uploads some files of a folder to a repository of that kind, as `push` does."""
    from huggingface_hub import HfApi, errors, get_token

    # The error of the HTTP library that this version of the hub's client is built on.
    http_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    if get_token() is None:
        raise ConfigError("Hugging Face Hub", "there is no token to write with", "Run: hf auth login, or set HF_TOKEN")
    api = HfApi()
    try:
        url = api.create_repo(name, repo_type=kind, private=private, exist_ok=True)
        if private and not api.repo_info(name, repo_type=kind).private:
            fault = "is a public repository, and a private one was asked for"
            raise ConfigError(name, fault, "Make it private, or push with --public")
        api.upload_folder(
            repo_id=name,
            repo_type=kind,
            folder_path=folder,
            allow_patterns=[glob.escape(path) for path in paths],
            commit_message=message,
        )
    except errors.HFValidationError as error:
        raise ConfigError(name, f"is no name of a repository ({reason_of(error)})", "Use owner/name") from None
    except (http_error, OSError) as error:
        fix = "Check the network, the name and the token's right to write, then run again"
        raise StageError(f"push to {name}", f"did not succeed ({reason_of(error)})", fix) from None
    return str(url)
