"""Several trainings of one job, and the mean of their weights: a model soup (Wortsman et al. 2022, arXiv 2203.05482).

Each begins with an adapter of its own and sees the rows in an order of its own. What two trainings of one recipe
differ in is chance, and their mean has less of it, in one model. Adapters are averaged as the changes that they make:
their factors stand side by side, so that the rank grows.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forethought.errors import ModelError
from forethought.manifest import key_of, write_json
from forethought.records import Example
from forethought.training.config import is_first
from forethought.training.methods.base import Job
from forethought.training.streamed import ExampleFile

if TYPE_CHECKING:
    import torch

_TRAININGS, _DONE, _CHECKPOINTS = "trainings", "averaged.json", "checkpoints"
_SEEDS_APART = 1000
"""Between the seeds of two trainings: recipes count seeds from 0."""
_ADAPTER, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
_SUMMED = ("tokens", "steps")
"""Of the counts; of all else the mean stands for all."""
TrainOnce = Callable[[Job], dict[str, float]]


def train_averaged(job: Job, train_once: TrainOnce) -> dict[str, float]:
    """Trains `job.config.averaged` times and writes the mean into `job.out`, with what else the first one wrote.

    `train_once` trains one of them. What is done is not done again: a stopped run trains the others. Returns counts as
    `fit.train` does; tokens and steps are those of all. Raises ModelError where the folder is another training's.
    """
    return _once(job, lambda one: _all(one, train_once))


def _all(job: Job, train_once: TrainOnce) -> dict[str, float]:
    number = job.config.averaged
    folders = [job.out / _TRAININGS / str(place) for place in range(number)]
    counts = []
    for place, folder in enumerate(folders):
        seed = job.config.seed + place * _SEEDS_APART
        config = job.config.model_copy(update={"averaged": 1, "seed": seed})
        title = f"{job.title}, {place + 1} of {number}"
        counts.append(_once(dataclasses.replace(job, config=config, out=folder, title=title), train_once))
        if is_first():
            shutil.rmtree(folder / _CHECKPOINTS, ignore_errors=True)
    if is_first():
        average(folders, job.out)
    return {
        name: sum(one[name] for one in counts) / (1 if name in _SUMMED else number)
        for name in counts[0]
        if all(name in one for one in counts)
    }


def _once(job: Job, work: TrainOnce) -> dict[str, float]:
    """What a job counted, done now where it was not; its trainings are left out of the folder then."""
    file, key = job.out / _DONE, _key(job)
    if file.is_file():
        held = json.loads(file.read_text(encoding="utf-8"))
        if held["key"] != key:
            raise ModelError(job.out, "holds another training (other model, rows or settings)", "Give another folder")
        counts: dict[str, float] = held["counts"]
    else:
        counts = work(job)
        if is_first():
            write_json(file, {"key": key, "counts": counts})
    if is_first():
        shutil.rmtree(job.out / _TRAININGS, ignore_errors=True)
    return counts


def _key(job: Job) -> str:
    """Content hash of all that the weights depend on."""
    given, method = job.material, job.method

    def examples(rows: Sequence[Example]) -> str:
        return rows.key if isinstance(rows, ExampleFile) else key_of([one.model_dump(mode="json") for one in rows])

    settings = method.procedure_settings
    said: list[Any] = [
        job.base,
        method.name,
        settings and settings.model_dump(mode="json"),
        job.config.model_dump(mode="json"),
    ]
    said += [job.budget, job.max_tokens, given.format, given.detail, given.seed, given.policy.model_dump(mode="json")]
    return key_of([*said, sorted(given.complied.items()), examples(given.examples), examples(job.held_out)])


def average(folders: Sequence[Path], out: Path) -> None:
    """Writes the mean of trained weights, adapters or full models, into `out`, and all else of the first folder.

    Raises ModelError where they don't hold the same tensors.
    """
    from safetensors.torch import load_file, save_file  # torch takes seconds

    first, *_ = folders
    out.mkdir(parents=True, exist_ok=True)
    for one in first.iterdir():
        if one.name in (_CHECKPOINTS, _DONE) or one.suffix == ".safetensors":
            continue
        if one.is_dir():
            shutil.copytree(one, out / one.name, dirs_exist_ok=True)
        else:
            shutil.copy2(one, out / one.name)
    for file in sorted(first.glob("*.safetensors")):
        loaded = [load_file(str(folder / file.name)) for folder in folders]
        if any(one.keys() != loaded[0].keys() for one in loaded):
            raise ModelError(str(out), "the trainings do not hold the same weights", "Train again, in an empty folder")
        mean = {name: _mean(name, [one[name] for one in loaded]) for name in loaded[0]}
        save_file(mean, str(out / file.name), metadata={"format": "pt"})
    if (first / _ADAPTER).is_file():
        config: dict[str, Any] = json.loads((first / _CONFIG).read_text(encoding="utf-8"))
        config["r"] *= len(folders)
        config["lora_alpha"] *= len(folders)  # their ratio scales the change
        write_json(out / _CONFIG, config)


def _mean(name: str, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean; of an adapter's factors what multiplies to the mean of the products: A (rank, in), B (out, rank)."""
    import torch

    if ".lora_A." in name:
        return torch.cat(list(tensors), dim=0)
    if ".lora_B." in name:
        return torch.cat(list(tensors), dim=1) / len(tensors)
    return torch.stack([one.float() for one in tensors]).mean(0).to(tensors[0].dtype)
