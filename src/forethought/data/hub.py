"""A folder to the Hugging Face Hub, when the user asks for it and nowhere but to the name given."""

from __future__ import annotations

import glob
from pathlib import Path

from forethought.errors import ConfigError, InputError, StageError

_SENT = {".parquet", ".jsonl", ".json", ".md", ".yaml"}


def files_to_push(folder: Path) -> list[Path]:
    """The data files of a built set, its card and reports: what stands in the folder itself or in `data/`.

    Caches, half-written and hidden files stay here. Raises InputError where there is no data card.
    """
    if not (folder / "README.md").is_file():
        raise InputError(folder, "has no data card (README.md)", "Push the folder of a built set")
    found = [*sorted(folder.glob("*")), *sorted((folder / "data").glob("*"))]
    return [path for path in found if path.is_file() and path.suffix in _SENT and not path.name.startswith(".")]


def push(folder: Path, name: str, private: bool = True) -> str:
    """Uploads a built set to the dataset repository `owner/name`, which is made where there is none.

    Returns its address. Raises ConfigError without a token, or where the repository is
    public though a private one is asked for; StageError where the hub can't be reached or
    says no.
    """
    from huggingface_hub import HfApi, errors, get_token

    # The error of the HTTP library that this version of the hub's client is built on.
    http_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    paths = [str(path.relative_to(folder)) for path in files_to_push(folder)]
    if get_token() is None:
        raise ConfigError("Hugging Face Hub", "there is no token to write with", "Run: hf auth login, or set HF_TOKEN")
    api = HfApi()
    try:
        url = api.create_repo(name, repo_type="dataset", private=private, exist_ok=True)
        if private and not api.repo_info(name, repo_type="dataset").private:
            raise ConfigError(
                name,
                "is a public repository, and a private one was asked for",
                "Make it private, or push with --public",
            )
        api.upload_folder(
            repo_id=name,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=[glob.escape(path) for path in paths],
            commit_message="Safety reasoning built with Forethought",
        )
    except errors.HFValidationError as error:
        raise ConfigError(name, f"is no name of a repository ({_first_line(error)})", "Use owner/name") from None
    except (http_error, OSError) as error:
        raise StageError(
            f"push to {name}",
            f"did not succeed ({_first_line(error)})",
            "Check the network, the name and the token's right to write, then run again",
        ) from None
    return str(url)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
